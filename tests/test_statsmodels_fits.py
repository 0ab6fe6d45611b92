"""Fits against statsmodels itself at the same optimum, and against R's results that statsmodels ships."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from against_statsmodels import fit_from, mixedlm, r_results, simulated, theirs
from numpy.testing import assert_allclose

import crosslmm as clm

STRUCTURES = {
    "intercept": {},
    "slope": {"re_formula": "~x"},
    "slope alone": {"re_formula": "0 + x"},
    "category": {"vc_formula": {"c": "0 + C(c)"}},
    "intercept and category": {"re_formula": "1", "vc_formula": {"c": "0 + C(c)"}},
    "two components": {"re_formula": "1", "vc_formula": {"cc": "0 + c", "xx": "0 + x"}},
    "component of two columns": {"re_formula": "~ 1", "vc_formula": {"two": "0 + x + z"}},
    "slopes within levels": {"re_formula": "~z", "vc_formula": {"cs": "0 + C(c):x", "c": "0 + c"}},
}
CASES = [(name, reml) for name in STRUCTURES for reml in (True, False)]


@pytest.fixture(scope="module")
def data():
    return simulated()


@pytest.fixture(scope="module")
def pairs(data):
    """Both models and fits of every structure and method, made once."""
    made = {}
    for name, reml in CASES:
        ours = clm.mixedlm("y ~ x + C(c)", data, groups=data["g"], **STRUCTURES[name])
        fit = ours.fit(reml=reml)
        reference = mixedlm("y ~ x + C(c)", data, groups=data["g"], **STRUCTURES[name])
        made[name, reml] = (ours, fit, reference, fit_from(reference, fit.params_object, reml=reml))
    return made


@pytest.mark.parametrize(("name", "reml"), CASES)
def test_estimates(pairs, name, reml):
    _, fit, _, expected = pairs[name, reml]
    assert fit.converged
    assert not fit.singular
    assert fit.llf == pytest.approx(expected.llf, abs=1e-6)
    assert fit.llf >= expected.llf - 1e-9
    assert_allclose(fit.params, expected.params, rtol=1e-4, atol=1e-4)
    assert_allclose(fit.fe_params, expected.fe_params, rtol=1e-4, atol=1e-5)
    assert_allclose(fit.cov_re, expected.cov_re, rtol=2e-4, atol=2e-4)
    assert_allclose(fit.cov_re_unscaled, expected.cov_re_unscaled, rtol=2e-4, atol=2e-4)
    assert_allclose(fit.vcomp, expected.vcomp, rtol=2e-4)
    assert fit.scale == pytest.approx(expected.scale, rel=1e-4)
    assert_allclose(fit.fittedvalues, expected.fittedvalues, atol=1e-3)
    assert_allclose(fit.resid, expected.resid, atol=1e-3)


@pytest.mark.parametrize(("name", "reml"), CASES)
def test_standard_errors(pairs, name, reml):
    """Of the covariance parameters they are statsmodels'; of the fixed effects lme4's, equal for large samples."""
    _, fit, _, expected = pairs[name, reml]
    p = fit.k_fe
    assert_allclose(fit.bse.iloc[p:], expected.bse.iloc[p:], rtol=1e-3)
    assert_allclose(fit.bse_re, np.sqrt(expected.scale) * expected.bse.iloc[p:], rtol=1e-3)
    assert_allclose(fit.bse_fe, expected.bse.iloc[:p], rtol=0.02)
    assert_allclose(fit.normalized_cov_params * fit.scale, fit.cov_params())
    if not reml:
        assert fit.aic == pytest.approx(expected.aic, abs=1e-5)
        assert fit.bic == pytest.approx(expected.bic, abs=1e-5)
    else:
        assert np.isfinite([fit.aic, fit.bic]).all()


@pytest.mark.parametrize(("name", "reml"), CASES)
def test_numbers_and_labels(pairs, name, reml):
    _, fit, _, expected = pairs[name, reml]
    for attribute in ("k_fe", "k_re", "k_re2", "k_vc", "df_modelwc", "df_resid", "nobs", "method", "reml", "use_t"):
        assert getattr(fit, attribute) == getattr(expected, attribute), attribute
    for attribute in ("params", "bse", "tvalues", "pvalues", "fe_params", "bse_fe"):
        assert list(getattr(fit, attribute).index) == list(getattr(expected, attribute).index), attribute
    for attribute in ("cov_re", "cov_re_unscaled", "normalized_cov_params"):
        ours, reference = getattr(fit, attribute), getattr(expected, attribute)
        assert list(ours.index) == list(ours.columns) == list(reference.index)
    assert list(fit.conf_int().columns) == list(expected.conf_int().columns)


@pytest.mark.parametrize(("name", "reml"), CASES)
def test_random_effects(pairs, data, name, reml):
    _, fit, _, expected = pairs[name, reml]
    assert list(fit.random_effects) == sorted(data["g"].unique()) == list(fit.random_effects_cov)
    for group in (0, 7, 39):
        ours, reference = fit.random_effects[group], expected.random_effects[group]
        assert list(ours.index) == list(reference.index)
        assert_allclose(ours, reference, atol=1e-3)
        ours, reference = fit.random_effects_cov[group], expected.random_effects_cov[group]
        assert list(ours.index) == list(ours.columns) == list(reference.index)
        assert_allclose(ours, reference, atol=1e-3)


@pytest.mark.parametrize(("name", "reml"), CASES)
def test_report(pairs, name, reml):
    """Line by line: the same layout, and the same numbers but for the standard errors of the fixed effects."""
    _, fit, _, expected = pairs[name, reml]
    ours, reference = (text.as_text().splitlines() for text in (fit.summary(), expected.summary()))
    assert [len(line) for line in ours] == [len(line) for line in reference]
    assert ours[:11] == reference[:11]
    rows = zip(fit.summary().tables[1].itertuples(), expected.summary().tables[1].itertuples(), strict=True)
    for mine, other in rows:
        assert mine[0] == other[0]
        assert float(mine[1]) == pytest.approx(float(other[1]), abs=2e-3)


@pytest.mark.parametrize(("name", "reml"), CASES)
def test_predictions(pairs, data, name, reml):
    _, fit, _, expected = pairs[name, reml]
    assert_allclose(fit.predict(), expected.predict(), atol=1e-3)
    some = data.iloc[50:80]
    assert_allclose(fit.predict(some), expected.predict(some), atol=1e-3)
    assert list(fit.predict(some).index) == list(some.index)
    with_effects = fit.predict(some, random_effects=True, groups=some["g"])
    assert_allclose(with_effects, fit.fittedvalues.iloc[50:80], rtol=1e-10)


@pytest.mark.parametrize("use_sqrt", [True, False])
@pytest.mark.parametrize(("name", "reml"), CASES)
def test_likelihood_elsewhere(pairs, data, name, reml, use_sqrt):
    _, fit, reference, _ = pairs[name, reml]
    ours = clm.mixedlm("y ~ x + C(c)", data, groups=data["g"], use_sqrt=use_sqrt, **STRUCTURES[name])
    reference.use_sqrt, reference.reml, reference._freepat = use_sqrt, reml, None
    at = fit.params_object
    point = theirs.MixedLMParams.from_components(
        at.fe_params * 1.1 + 0.1, at.cov_re * 1.3 + 0.2 * np.eye(fit.k_re), None, at.vcomp * 1.2 + 0.1
    )
    for profile in (True, False):
        expected = reference.loglike(point, profile_fe=profile)
        assert ours.loglike(point, profile_fe=profile, reml=reml) == pytest.approx(expected, abs=1e-7)
        expected = reference.score(point.copy(), profile_fe=profile)
        assert_allclose(ours.score(point, profile_fe=profile, reml=reml), expected, rtol=1e-7, atol=1e-6)
    packed = point.get_packed(use_sqrt)
    assert ours.loglike(packed, reml=reml) == pytest.approx(reference.loglike(packed), abs=1e-7)
    beta, singular = ours.get_fe_params(point.cov_re, point.vcomp)
    assert not singular
    assert_allclose(beta, reference.get_fe_params(point.cov_re, point.vcomp)[0], rtol=1e-8)
    best = theirs.MixedLMParams.from_components(beta, point.cov_re, None, point.vcomp)
    expected = reference.hessian(best)[0]
    found, singular = ours.hessian(best, reml=reml)
    assert not singular
    assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    scale = ours.get_scale(beta, point.cov_re, point.vcomp, reml=reml)
    assert scale == pytest.approx(reference.get_scale(beta, point.cov_re, point.vcomp), rel=1e-10)
    reference.use_sqrt = True


def test_hessian_by_fixed_effects_away_from_the_optimum(pairs):
    """Statsmodels leaves out terms that vanish at the best fixed effects; differences of the score are the judge."""
    ours, fit, _, _ = pairs["slope", False]
    at = fit.params_object
    point = clm.MixedLMParams.from_components(at.fe_params + 0.2, at.cov_re, None, at.vcomp)
    found = ours.hessian(point, reml=False)[0]
    model = clm.mixedlm("y ~ x + C(c)", simulated(), groups="g", re_formula="~x", use_sqrt=False)
    packed = point.get_packed(False, has_fe=True)
    for j in range(packed.size):
        step = np.zeros(packed.size)
        step[j] = 1e-4
        up, down = (model.score(packed + sign * step, profile_fe=False, reml=False) for sign in (1, -1))
        assert_allclose(found[:, j], (up - down) / 2e-4, rtol=1e-4, atol=1e-3)


# --- R's results, shipped with statsmodels ---------------------------------------------------------


@pytest.mark.parametrize("number", range(12))
@pytest.mark.parametrize("independent", [False, True], ids=["correlated", "independent"])
@pytest.mark.parametrize("reml", [True, False], ids=["reml", "ml"])
def test_lmer_results_from_arrays(number, reml, independent):
    expected = r_results(number, reml=reml, independent=independent)
    if expected is None:
        assert independent  # R was not asked where there is one random effect
        return
    k_fe, k_re = expected.exog.shape[1], expected.exog_re.shape[1]
    free = clm.MixedLMParams.from_components(np.ones(k_fe), np.eye(k_re)) if independent else None
    fit = clm.MixedLM(expected.endog, expected.exog, expected.groups, expected.exog_re).fit(reml=reml, free=free)
    r = expected.values
    assert_allclose(fit.fe_params, r["coef"].ravel(), atol=1e-4)
    assert_allclose(fit.cov_re, np.atleast_2d(r["cov_re"]), atol=1e-4)
    assert_allclose(fit.scale, r["scale"].ravel()[0], atol=1e-4)
    assert_allclose(fit.cov_params()[:k_fe, :k_fe], r["vcov"], atol=1e-4)
    assert fit.llf >= r["loglike"].ravel()[0] - 1e-4
    assert fit.llf == pytest.approx(r["loglike"].ravel()[0], abs=1e-3)
    if not independent:
        assert_allclose(fit.random_effects[0], np.atleast_1d(r["ranef_mean"]).ravel(), atol=1e-3)
        assert_allclose(fit.random_effects_cov[0], np.atleast_2d(r["ranef_condvar"]), atol=1e-3)


# --- the same model in other words -------------------------------------------------------------------


def test_arrays_and_formulas_agree(data):
    frame = data.assign(const=1.0)
    for re_formula, columns in ((None, None), ("~x", ["const", "x"]), ("0 + x", ["x"])):
        ours = clm.mixedlm("y ~ x", frame, groups="g", re_formula=re_formula).fit()
        exog_re = None if columns is None else frame[columns]
        arrays = clm.MixedLM(frame["y"], frame[["const", "x"]], frame["g"], exog_re=exog_re).fit()
        plain = clm.MixedLM(
            frame["y"].to_numpy(),
            frame[["const", "x"]].to_numpy(),
            frame["g"].to_numpy(),
            exog_re=None if columns is None else frame[columns].to_numpy(),
        ).fit()
        for other in (arrays, plain):
            assert other.llf == pytest.approx(ours.llf, abs=1e-10)
            assert_allclose(other.params, ours.params, rtol=1e-7)
            assert_allclose(other.fittedvalues, ours.fittedvalues, rtol=1e-9)
        assert isinstance(plain.params, np.ndarray)
        assert isinstance(arrays.params, pd.Series)


def test_matrices_of_components(data):
    """Dicts of matrices, the `VCSpec` of either package, and formulas."""
    groups = np.sort(data["g"].unique())
    rows = {g: np.flatnonzero(data["g"] == g) for g in groups}
    levels = {g: pd.get_dummies(data["c"].iloc[rows[g]], dtype=float) for g in groups}
    slopes = {g: data[["x", "z"]].iloc[rows[g]].to_numpy() for g in groups}
    exog = data.assign(const=1.0)[["const", "x"]]
    formula = clm.mixedlm("y ~ x", data, groups="g", vc_formula={"lev": "0 + C(c)", "two": "0 + x + z"}).fit()
    names = [[list(levels[g].columns) for g in groups], [["x", "z"] for _ in groups]]
    mats = [[levels[g].to_numpy() for g in groups], [slopes[g] for g in groups]]
    forms = [
        {"lev": levels, "two": slopes},
        clm.VCSpec(["lev", "two"], names, mats),
        theirs.VCSpec(["lev", "two"], names, mats),
    ]
    for exog_vc in forms:
        fit = clm.MixedLM(data["y"], exog, data["g"], exog_vc=exog_vc).fit()
        assert fit.llf == pytest.approx(formula.llf, abs=1e-9)
        assert_allclose(fit.vcomp, formula.vcomp, rtol=1e-6)
        assert list(fit.params.index[2:]) == ["lev Var", "two Var"]
        assert_allclose(fit.random_effects[3], formula.random_effects[3], rtol=1e-6)
        assert_allclose(fit.random_effects_cov[3], formula.random_effects_cov[3], rtol=1e-5, atol=1e-10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = theirs.MixedLM(data["y"], exog, data["g"], exog_vc=forms[2])
    expected = fit_from(reference, fit.params_object)
    assert list(fit.random_effects[3].index) == list(expected.random_effects[3].index)
    assert_allclose(fit.random_effects[3], expected.random_effects[3], atol=1e-3)


def test_bars_and_groups_are_one_model(data):
    bars = clm.lmer("y ~ x + (1 + x | g)", data)
    groups = clm.mixedlm("y ~ x", data, groups="g", re_formula="~x")
    assert groups.fit().llf == pytest.approx(bars.llf, abs=1e-9)
    assert groups.formula.random == bars.model.formula.random
    nested = clm.lmer("y ~ x + (1 | g) + (1 | g:c)", data)
    components = clm.mixedlm("y ~ x", data, groups="g", re_formula="1", vc_formula={"c": "0 + C(c)"}).fit()
    assert components.llf == pytest.approx(nested.llf, abs=1e-8)
    assert components.n_groups == nested.n_groups


def test_cross_products_of_a_model_with_groups(data):
    model = clm.mixedlm("y ~ x + C(c)", data, groups="g", re_formula="~x", vc_formula={"c": "0 + C(c)"})
    bars = clm.MixedLM.from_crossproducts(model.crossproducts)
    assert bars.formula.source == "y ~ x + C(c) + (1 + x | g) + (1 | g:c)"
    assert bars.fit().llf == model.fit().llf
    unstated = clm.mixedlm("y ~ x", data, groups="g", vc_formula={"two": "0 + x + z"})
    with pytest.raises(clm.ModelError, match="hold no formula"):
        clm.MixedLM.from_crossproducts(unstated.crossproducts)


def test_one_artificial_group_is_the_crossed_model(data):
    data = data.assign(y=data["y"] + data["c"].map({"a": -2.0, "b": 0.0, "c": 1.5}))
    ones = np.ones(len(data))
    fit = clm.mixedlm("y ~ x", data, groups=ones, vc_formula={"g": "0 + C(g)", "c": "0 + c"}).fit()
    crossed = clm.lmer("y ~ x + (1 | g) + (1 | c)", data)
    assert fit.llf == pytest.approx(crossed.llf, abs=1e-8)
    assert fit.n_groups == crossed.n_groups == {"g": 40, "c": 3}
    reference = mixedlm("y ~ x", data, groups=ones, vc_formula={"g": "0 + C(g)", "c": "0 + c"})
    expected = fit_from(reference, fit.params_object)
    assert list(fit.random_effects) == [1]
    assert list(fit.random_effects[1].index) == list(expected.random_effects[1].index)
    assert_allclose(fit.random_effects[1], expected.random_effects[1], atol=1e-3)
    assert_allclose(fit.random_effects_cov[1], expected.random_effects_cov[1], atol=1e-3)


def test_a_list_of_columns_means_crossed_intercepts(data):
    fit = clm.mixedlm("y ~ x", data, groups=["g", "c"]).fit()
    crossed = clm.lmer("y ~ x + (1 | g) + (1 | c)", data)
    assert fit.llf == crossed.llf
    assert set(fit.random_effects) == {"g", "c"}
    assert list(fit.random_effects["c"].columns) == ["Intercept"]
    one = clm.mixedlm("y ~ x", data, groups=["g"]).fit()
    assert one.params.equals(clm.mixedlm("y ~ x", data, groups="g").fit().params)


def test_the_iterative_engine_serves_the_artificial_group():
    rng = np.random.default_rng(8)
    n = 3000
    frame = pd.DataFrame({"a": rng.integers(0, 150, n), "b": rng.integers(0, 80, n), "x": rng.normal(size=n)})
    frame["y"] = frame["x"] + rng.normal(size=150)[frame["a"]] + rng.normal(size=80)[frame["b"]] + rng.normal(size=n)
    model = clm.mixedlm("y ~ x", frame, groups=np.ones(n), vc_formula={"a": "0 + C(a)", "b": "0 + C(b)"})
    exact, sampled = model.fit(), model.fit(engine="iterative")
    assert sampled.estimates.sampling is not None
    assert_allclose(sampled.params, exact.params, rtol=0.02)
    assert_allclose(sampled.bse, exact.bse, rtol=0.05)
    assert_allclose(sampled.random_effects[1], exact.random_effects[1], atol=0.02)


def test_groups_as_an_array_go_by_position(data):
    shuffled = data.sample(frac=1.0, random_state=1)
    by_name = clm.mixedlm("y ~ x", shuffled, groups="g").fit()
    for groups in (shuffled["g"], shuffled["g"].to_numpy(), list(shuffled["g"]), shuffled["g"].reset_index(drop=True)):
        assert clm.mixedlm("y ~ x", shuffled, groups=groups).fit().llf == by_name.llf
    texts = [f"level {g}" for g in shuffled["g"]]
    assert clm.mixedlm("y ~ x", shuffled, groups=texts).fit().llf == pytest.approx(by_name.llf, abs=1e-9)
