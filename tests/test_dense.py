"""The oracle against R, so that a disagreement with it elsewhere is a fault of crosslmm."""

import numpy as np
import pytest
from dense import Dense, gradient
from refdata import load_model, model_names, pieces, unordered

LARGEST = 900  # rows: an evaluation is cubic in them
SMALL = [name for name in model_names() if load_model(name)["n"] <= LARGEST]


def build(name, **kwargs):
    ref = load_model(name)
    parts = pieces(ref)
    return ref, parts, Dense(parts.y, parts.X, parts.terms, parts.weights, parts.offset, **kwargs)


@pytest.mark.parametrize("name", SMALL)
def test_reference_optimum(name):
    ref, parts, model = build(name)
    fit = model.fit(ref["theta"]["values"], ref["reml"])
    assert fit.criterion == pytest.approx(ref["criterion"], rel=1e-9)
    assert fit.sigma == pytest.approx(ref["sigma"], rel=1e-8)

    order = [parts.columns.index(unordered(column)) for column in ref["fixef"]]
    se = np.array(list(ref["fixef_se"].values()))
    np.testing.assert_allclose(fit.beta[order] / se, np.array(list(ref["fixef"].values())) / se, atol=1e-6)
    np.testing.assert_allclose(
        fit.cov[np.ix_(order, order)] / np.outer(se, se), ref["vcov"] / np.outer(se, se), atol=1e-6
    )
    np.testing.assert_allclose(fit.fitted[ref["rows_first20"]], ref["fitted"], atol=1e-6 * ref["sigma"])

    for group, expected in ref["ranef"].items():
        ours = [(bar, modes) for bar, modes in zip(parts.bars, fit.modes, strict=True) if bar.group == group]
        assert [column for bar, _ in ours for column in bar.columns] == expected["columns"]
        rows = [ours[0][0].levels.index(level) for level in expected["levels"]]
        values = np.hstack([modes for _, modes in ours])[rows]
        np.testing.assert_allclose(values, expected["values"], atol=1e-6 * ref["sigma"])


@pytest.mark.parametrize("name", SMALL)
def test_reference_objective_elsewhere(name):
    ref, _, model = build(name)
    for check in ref["objective_checks"]:
        assert model.criterion(check["theta"], ref["reml"]) == pytest.approx(check["criterion"], rel=1e-9)


@pytest.mark.parametrize("name", ["pastes_crossed_reml", "sleepstudy_slope_ml", "cbpp_weighted_reml"])
def test_gradient_by_formula_is_gradient_by_differences(name):
    ref, _, model = build(name, dtype=np.longdouble)
    for theta in [ref["theta"]["values"], ref["objective_checks"][0]["theta"], np.zeros(len(ref["theta"]["values"]))]:
        differences = model.gradient(theta, ref["reml"])
        np.testing.assert_allclose(differences, model.score(np.array(theta), ref["reml"]), rtol=1e-9, atol=1e-9)


def test_hessian_is_what_r_found():
    ref, _, model = build("pastes_nested_ml", dtype=np.longdouble)
    eigenvalues = np.linalg.eigvalsh(model.hessian(ref["theta"]["values"], ref["reml"]).astype(float))
    np.testing.assert_allclose(eigenvalues, ref["optimizers"]["hessian_eig_range"], rtol=1e-5)


def test_richardson_extrapolation():
    x = np.array([0.3, 0.0], dtype=np.longdouble)
    result = gradient(lambda z: np.exp(2 * z[0]) * np.cosh(z[1]), x, np.array([0.1, 0.1]))
    np.testing.assert_allclose(result, [2 * np.exp(0.6), 0.0], rtol=1e-12, atol=1e-15)
