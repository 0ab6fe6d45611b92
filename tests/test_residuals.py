"""Residuals, leverage and Cook's distances against R, dense matrices, and each other over engines and sources."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest
from dense import Dense
from refdata import load_data, load_model, model_names
from standard import CASES, frame

import crosslmm as clm
from crosslmm.engine.plan import DirectEngine, IterativeEngine
from crosslmm.errors import ModelError

WITH_HATS = [name for name in model_names() if "hatvalues" in load_model(name)]


def fitted_case(name, **options):
    return clm.lmer(CASES[name].formula, frame(), **CASES[name].options, **options)


def dense_hat(fit):
    """Hat matrix ``I - W^-1 P`` by n x n matrices at the estimated theta, and the oracle."""
    rows = fit.model.design
    terms = [
        (rows.codes[term.factor], rows.Z[term.factor][:, list(term.columns)]) for term in fit.estimates.layout.terms
    ]
    dense = Dense(rows.y, rows.X, terms, weights=rows.weights, offset=rows.offset)
    at = dense.fit(fit.estimates.theta, fit.estimates.reml)
    P = at.project(np.eye(rows.n)) if rows.X.shape[1] else at.solve(np.eye(rows.n))
    return np.eye(rows.n) - dense.variance[:, None] * P, dense


@cache
def at_reference(name):
    """The estimates at lme4's theta: how exactly either found the minimum does not matter then."""
    ref = load_model(name)
    options = {key: ref[key] for key in ("weights", "offset")}
    model = clm.MixedLM.from_formula(ref["formula"], load_data(ref["dataset"]), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", clm.errors.ConvergenceWarning)
        fit = model.fit(ref["reml"], start=ref["theta"]["values"], max_evaluations=1)
    np.testing.assert_allclose(fit.theta, ref["theta"]["values"], rtol=1e-12)
    return fit


@pytest.mark.parametrize("name", WITH_HATS)
def test_leverage_and_cooks_distance_are_those_of_lme4(name):
    ref, fit = load_model(name), at_reference(name)
    hat, cook = fit.leverage(), fit.cooks_distance()
    np.testing.assert_allclose(hat.iloc[:20], ref["hatvalues"]["first20"][:20], rtol=1e-9)
    assert hat.sum() == pytest.approx(ref["hatvalues"]["sum"], rel=1e-9)
    np.testing.assert_allclose(cook.iloc[:20], ref["cooks_distance_first20"][:20], rtol=1e-7)


@pytest.mark.parametrize("name", ["cbpp_weighted_reml", "sleepstudy_offset_reml", "cake_reml"])
def test_residuals_are_those_of_lme4(name):
    ref, fit = load_model(name), at_reference(name)
    at = ref["rows_first20"]
    np.testing.assert_allclose(fit.residuals().iloc[at], ref["resid"], rtol=1e-8, atol=1e-10)
    pearson = ref["resid_pearson"] or ref["resid"]  # left out where there are no weights
    np.testing.assert_allclose(fit.residuals("pearson").iloc[at], pearson, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(fit.residuals("scaled") * fit.sigma, fit.residuals("pearson"), rtol=1e-12)


def test_marginal_residuals_leave_the_random_effects_in():
    fit = fitted_case("weights and offset")
    rows = fit.model.design
    expected = rows.y - rows.offset - rows.X @ fit.estimates.beta
    np.testing.assert_allclose(fit.residuals("marginal"), expected, rtol=1e-12)
    assert not np.allclose(expected, fit.resid)


@pytest.mark.parametrize("rest", ["dense", "sparse"])
@pytest.mark.parametrize("name", list(CASES))
def test_leverage_against_dense_matrices(name, rest):
    fit = fitted_case(name, engine=DirectEngine(rest=rest))
    H, dense = dense_hat(fit)
    np.testing.assert_allclose(fit.leverage(), np.diag(H), rtol=0, atol=1e-11)
    # the matrix is the one that makes the fitted values
    offset = dense.offset
    np.testing.assert_allclose(offset + H @ (dense.y - offset), fit.fittedvalues, atol=1e-8)


def test_studentized_residuals_divide_by_what_leverage_leaves():
    fit = fitted_case("weights and offset")
    H, dense = dense_hat(fit)
    expected = fit.resid / (fit.sigma * np.sqrt(dense.variance * (1.0 - np.diag(H))))
    np.testing.assert_allclose(fit.residuals("studentized"), expected, rtol=1e-9)


def test_leverage_of_some_rows_by_solves():
    engine = (
        IterativeEngine(min_levels=0) if "min_levels" in IterativeEngine.__dataclass_fields__ else IterativeEngine()
    )
    fit = fitted_case("three factors", engine=engine)
    H, _ = dense_hat(fit)
    some = [7, 3, 399, 3]
    found = fit.leverage(rows=some)
    assert list(found.index) == some
    np.testing.assert_allclose(found, np.diag(H)[some], rtol=0, atol=1e-7)
    with pytest.raises(ModelError, match="ask for some"):
        fit.leverage()


def test_rows_in_batches_give_the_same():
    data = frame()
    whole = clm.lmer(CASES["crossed slopes"].formula, data)
    parts = clm.lmer(CASES["crossed slopes"].formula, [data.iloc[:150], data.iloc[150:]])
    np.testing.assert_allclose(parts.leverage(), whole.leverage(), atol=1e-7)
    np.testing.assert_allclose(parts.residuals("studentized"), whole.residuals("studentized"), atol=1e-5)
    np.testing.assert_allclose(parts.leverage(rows=[200, 10]), whole.leverage().iloc[[200, 10]], atol=1e-7)


def test_stretches_of_rows_do_not_show(monkeypatch):
    fit = fitted_case("crossed slopes")
    whole = fit.leverage()
    monkeypatch.setattr("crosslmm.design.rows.STRETCH", 37)
    pd.testing.assert_series_equal(fit.leverage(), whole, rtol=1e-12)


def test_index_of_the_data_is_kept():
    data = frame().set_index(pd.Index([f"row {i}" for i in range(400)]))
    data.loc["row 3", "x"] = np.nan
    fit = clm.lmer("y ~ x + (1 | a)", data)
    for values in (fit.leverage(), fit.cooks_distance(), fit.residuals("studentized"), fit.residuals("marginal")):
        assert list(values.index) == list(data.index.drop("row 3"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda fit: fit.residuals("deviance"), "expected one of 'response', 'pearson'"),
        (lambda fit: fit.leverage(rows=[400]), "numbered from 0 to 399"),
        (lambda fit: fit.leverage(rows=[-1]), "numbered from 0 to 399"),
        (lambda fit: fit.leverage(rows=["a"]), "expected numbers of rows"),
        (lambda fit: fit.leverage(rows=[1.5]), "expected numbers of rows"),
        (lambda fit: fit.leverage(rows=[]), "expected numbers of rows"),
    ],
)
def test_what_cannot_be_asked(call, message):
    with pytest.raises(ModelError, match=message):
        call(fitted_case("crossed"))


def test_cooks_distance_needs_fixed_effects():
    with pytest.raises(ModelError, match="has none"):
        fitted_case("no fixed effects").cooks_distance()


def test_a_fit_of_cross_products_has_no_rows():
    fit = clm.MixedLM.from_crossproducts(clm.accumulate("y ~ x + (1 | a)", frame())).fit()
    for call in (fit.leverage, fit.cooks_distance, lambda: fit.residuals("marginal"), fit.influence):
        with pytest.raises(ModelError, match="has no rows"):
            call()
