"""Conditional modes and covariances against n x n algebra and against lme4, for both engines."""

from __future__ import annotations

from dataclasses import replace

import joint_oracle
import numpy as np
import pandas as pd
import pytest
from refdata import load_model, model_names, r_name, unordered

import crosslmm as clm

ENGINES = {
    "dense rest": clm.DirectEngine(rest="dense"),
    "sparse rest": clm.DirectEngine(rest="sparse"),
    "conjugate gradients": clm.IterativeEngine(border=0, n_probes=8),
    "with a border": clm.IterativeEngine(border=12, n_probes=8),
}


def crossed_data() -> pd.DataFrame:
    """180 rows, three crossed factors of 25, 14 and 4 levels."""
    rng = np.random.default_rng(5)
    n = 180
    data = pd.DataFrame({"a": rng.integers(0, 25, n), "b": rng.integers(0, 14, n), "c": rng.integers(0, 4, n)})
    data["x"] = 40.0 + 3.0 * rng.standard_normal(n)
    data["w"] = rng.uniform(0.5, 2.0, n)
    effects = rng.standard_normal(25)[data.a] + 0.7 * rng.standard_normal(14)[data.b] + 0.5 * np.arange(4)[data.c]
    data["y"] = 2.0 + 0.3 * data.x + effects + 0.1 * data.x * rng.standard_normal(25)[data.a] + rng.standard_normal(n)
    return data


FORMULAS = {
    "intercepts": "y ~ x + (1 | a) + (1 | b) + (1 | c)",
    "slopes": "y ~ x + (x | a) + (0 + x | b) + (1 | c)",
    "two terms": "y ~ x + (x || a) + (1 | b)",
}


@pytest.fixture(scope="module", params=[(f, e) for f in FORMULAS for e in ENGINES], ids="-".join)
def fitted(request):

    formula, engine = request.param
    return clm.mixedlm(FORMULAS[formula], crossed_data(), weights="w").fit(engine=ENGINES[engine])


def close(ours, theirs, tolerance=1e-7) -> None:
    scale = np.sqrt(np.outer(np.diag(theirs), np.diag(theirs)))
    assert np.max(np.abs(ours - theirs) / np.where(scale > 0, scale, 1)) < tolerance


def test_joint_covariance(fitted) -> None:
    oracle = joint_oracle.joint(fitted.model.design, fitted.estimates)
    joint = fitted.vcov(full=True)
    close(joint.to_numpy(), oracle.whole)
    p = len(fitted.fe_params)
    assert list(joint.index[:p]) == [("", "", name) for name in fitted.fe_params.index]
    pd.testing.assert_frame_equal(fitted.vcov(), fitted.cov_params())


@pytest.mark.parametrize("full", [False, True])
def test_blocks_of_requested_levels(fitted, full) -> None:
    oracle = joint_oracle.joint(fitted.model.design, fitted.estimates)
    whole = oracle.modes if full else oracle.given_beta
    found = fitted.ranef(cov=True, full=full, levels={"a": [3, 17, 0], "b": 2})
    k = found["a"].modes.shape[1]
    for i, level in enumerate([3, 17, 0]):
        own = slice(level * k, (level + 1) * k)
        close(found["a"].blocks[i], whole[own, own])
        np.testing.assert_array_equal(found["a"].cov.loc[level], found["a"].blocks[i])
    assert list(found["b"].modes.index) == [2]
    assert not found["a"].mc_error.to_numpy().any()


@pytest.mark.parametrize("engine", ["dense rest", "sparse rest"])
def test_blocks_of_all_levels_from_the_selected_inverse(engine, monkeypatch) -> None:
    monkeypatch.setattr("crosslmm.effects.covariance.MOST_SOLVED", 1)
    fit = clm.mixedlm(FORMULAS["slopes"], crossed_data(), weights="w").fit(engine=ENGINES[engine])
    given = joint_oracle.joint(fit.model.design, fit.estimates).given_beta
    start = 0
    for effects in fit.ranef(cov=True).values():
        k = effects.modes.shape[1]
        for i, block in enumerate(effects.blocks):
            own = slice(start + i * k, start + (i + 1) * k)
            close(block, given[own, own])
        start += effects.modes.size


@pytest.mark.parametrize("border", [0, 12])
def test_estimates_of_all_levels_are_within_their_error(border) -> None:
    engine = clm.IterativeEngine(border=border, n_probes=64)
    fit = clm.mixedlm(FORMULAS["slopes"], crossed_data(), weights="w").fit(engine=engine)
    given = np.diag(joint_oracle.joint(fit.model.design, fit.estimates).given_beta)
    found = fit.ranef(cov=True)
    sd = np.concatenate([effects.sd.to_numpy().ravel() for effects in found.values()])
    error = np.concatenate(
        [
            np.sqrt(np.einsum("lii->li", e.mc_error.to_numpy().reshape(e.blocks.shape)) ** 2).ravel()
            for e in found.values()
        ]
    )
    assert error.max() > 0
    z = (sd**2 - given)[error > 0] / error[error > 0]
    assert np.sqrt(np.mean(z**2)) < 1.7 and np.max(np.abs(z)) < 5
    exact = error == 0
    np.testing.assert_allclose(sd[exact] ** 2, given[exact], rtol=1e-7)
    assert np.all(error < 0.05 * given)


def test_a_variance_of_zero_has_no_uncertainty() -> None:
    fit = clm.lmer("Yield ~ 1 + (1 | Batch)", clm.datasets.load_dyestuff2())
    found = fit.ranef(cov=True, full=True)["Batch"]
    assert fit.singular
    assert not found.sd.to_numpy().any()
    np.testing.assert_allclose(fit.predict(interval="confidence")["se"], fit.bse_fe.iloc[0])


@pytest.mark.parametrize("name", [name for name in model_names() if load_model(name)["n"] <= 20_000])
def test_conditional_variances_of_lme4(name, reference_fit) -> None:
    """At lme4's theta, so that only the covariances are compared and not where two optimisers stop."""
    ref = load_model(name)
    fit = reference_fit(name)
    theta = np.array(ref["theta"]["values"], dtype=float)
    at_lme4 = replace(fit, estimates=replace(fit.estimates, theta=theta, sigma=ref["sigma"]))
    found = at_lme4.ranef(cov=True)
    compared = 0
    for group, theirs in ref["ranef"].items():
        ours = found[group]
        rows = _as_levels(ours.sd.index, theirs["levels"])
        names = {unordered(r_name(column)): column for column in ours.sd.columns}
        for j, column in enumerate(theirs["columns"]):
            variance = ours.sd.loc[rows, names[unordered(column)]] ** 2
            expected = np.array(theirs["condvar_diag"])[:, j]
            np.testing.assert_allclose(variance, expected, rtol=1e-8, atol=1e-20, err_msg=column)
            compared += 1
    assert compared


def _as_levels(index: pd.Index, labels: list[str]) -> list:
    texts = {str(label): label for label in index}
    return [texts[label] for label in labels]


def test_frames(reference_fit) -> None:
    fit = reference_fit("sleepstudy_slope_reml")
    frame = fit.ranef_frame()
    assert list(frame.columns) == ["factor", "level", "term", "mode", "sd"] and len(frame) == 36
    row = frame[(frame.level == "335") & (frame.term == "Days")].iloc[0]
    assert row["mode"] == fit.random_effects["Subject"].loc["335", "Days"]
    assert row["sd"] ** 2 == pytest.approx(fit.random_effects_cov["Subject"].loc[("335", "Days"), "Days"], rel=1e-12)
    coefficients = fit.coef()["Subject"]
    np.testing.assert_allclose(coefficients - fit.random_effects["Subject"], np.tile(fit.fe_params, (18, 1)))
    pd.testing.assert_frame_equal(fit.ranef()["Subject"], fit.random_effects["Subject"])


def test_coef_has_columns_that_only_vary() -> None:
    fit = clm.lmer("Reaction ~ 1 + (0 + Days | Subject)", clm.datasets.load_sleepstudy())
    coefficients = fit.coef()["Subject"]
    assert list(coefficients.columns) == ["Intercept", "Days"]
    np.testing.assert_array_equal(coefficients["Days"], fit.random_effects["Subject"]["Days"])


def test_a_model_without_fixed_effects() -> None:
    fit = clm.lmer("Reaction ~ 0 + (1 | Subject)", clm.datasets.load_sleepstudy())
    whole = joint_oracle.joint(fit.model.design, fit.estimates).whole
    close(fit.vcov(full=True).to_numpy(), whole)
    np.testing.assert_allclose(fit.predict(interval="confidence")["se"] ** 2, np.repeat(np.diag(whole), 10), rtol=1e-8)


def test_unknown_names_are_refused(reference_fit) -> None:
    fit = reference_fit("sleepstudy_slope_reml")
    with pytest.raises(clm.ModelError, match=r"expected a dict of factors and their labels, \{'Subject': "):
        fit.ranef(levels=["308"])
    with pytest.raises(clm.ModelError, match="no grouping factor 'subject'; there are 'Subject'"):
        fit.ranef(levels={"subject": ["308"]})
    with pytest.raises(clm.ModelError, match="'Subject' has no level 308; its first is '308'"):
        fit.ranef(cov=True, levels={"Subject": [308]})
