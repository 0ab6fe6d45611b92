"""What statsmodels' results offer: names, signatures, tests, profiles, penalties, keeping."""

from __future__ import annotations

import inspect
import pickle
import re

import numpy as np
import pandas as pd
import pytest
from against_statsmodels import fit_from, mixedlm, simulated, theirs
from numpy.testing import assert_allclose

import crosslmm as clm

LEFT_OUT = {"bsejac", "bsejhj", "covjac", "covjhj", "score_obsv", "hessv", "cov_pen", "k_constant"}
"""Of statsmodels' results: what raises an error there for mixed models, what is a penalty (refused), and internals."""


@pytest.fixture(scope="module")
def data():
    return simulated(seed=5)


@pytest.fixture(scope="module")
def fit(data):
    return clm.mixedlm("y ~ x + C(c)", data, groups="g", re_formula="~x", vc_formula={"c": "0 + C(c)"}).fit()


@pytest.fixture(scope="module")
def reference(data, fit):
    model = mixedlm("y ~ x + C(c)", data, groups="g", re_formula="~x", vc_formula={"c": "0 + C(c)"})
    return fit_from(model, fit.params_object)


# --- names and signatures ----------------------------------------------------------------------------


def test_public_names_of_the_results(fit, reference):
    expected = {name for name in dir(reference) if not name.startswith("_")} - LEFT_OUT
    missing = {name for name in expected if name not in dir(fit)}
    assert not missing
    for name in expected:
        getattr(fit, name)


# fmt: off
METHODS = [
    "bootstrap", "conf_int", "cov_params", "f_test", "get_nlfun", "load", "predict", "profile_re",
    "remove_data", "save", "summary", "t_test", "t_test_pairwise", "wald_test", "wald_test_terms",
]
# fmt: on


@pytest.mark.parametrize("name", METHODS)
def test_signatures_of_the_results(fit, reference, name):
    ours = inspect.signature(getattr(fit, name)).parameters
    expected = inspect.signature(getattr(reference, name)).parameters
    named = [p for p in expected.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    positional = [p for p in ours.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [p.name for p in positional[: len(named)]] == [p.name for p in named]
    assert [p.default for p in positional[: len(named)]] == [p.default for p in named]


@pytest.mark.parametrize("name", ["__init__", "fit", "fit_regularized", "loglike", "score", "hessian", "predict"])
def test_signatures_of_the_model(name):
    ours = list(inspect.signature(getattr(clm.MixedLM, name)).parameters.values())
    expected = list(inspect.signature(getattr(theirs.MixedLM, name)).parameters.values())
    named = [p for p in expected if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [(p.name, p.default) for p in ours[: len(named)]] == [(p.name, p.default) for p in named]


def test_signature_of_from_formula():
    ours = list(inspect.signature(clm.MixedLM.from_formula).parameters.values())
    expected = list(inspect.signature(theirs.MixedLM.from_formula).parameters.values())
    named = [p for p in expected if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [(p.name, p.default) for p in ours[: len(named)]] == [(p.name, p.default) for p in named]
    assert "groups" in inspect.signature(clm.mixedlm).parameters


def test_parameters_like_theirs():
    ours, other = clm.MixedLMParams(2, 2, 1), theirs.MixedLMParams(2, 2, 1)
    assert {n for n in vars(other) if not n.startswith("_")} <= set(vars(ours))
    cov, vcomp = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([0.7])
    for made in (clm.MixedLMParams, theirs.MixedLMParams):
        point = made.from_components(np.array([1.0, 2.0]), cov, None, vcomp)
        for use_sqrt in (True, False):
            packed = point.get_packed(use_sqrt, has_fe=True)
            back = made.from_packed(packed, 2, 2, use_sqrt, True)
            assert_allclose(back.cov_re, cov)
            assert_allclose(
                packed, clm.MixedLMParams.from_packed(packed, 2, 2, use_sqrt, True).get_packed(use_sqrt, True)
            )
    copy = point.copy()
    copy.vcomp[:] = 0.0
    assert point.vcomp[0] == 0.7


# --- tests -------------------------------------------------------------------------------------------


def test_contrasts_in_every_form(fit, reference):
    matrix = np.eye(fit.k_fe)[1:3]
    ours, expected = fit.t_test(matrix), reference.t_test(matrix)
    for name in ("effect", "statistic", "tvalue", "sd", "pvalue"):
        assert_allclose(getattr(ours, name), np.ravel(getattr(expected, name)), rtol=2e-2, err_msg=name)
    assert list(ours.summary_frame().columns) == list(expected.summary_frame().columns)
    assert ours.conf_int().shape == (2, 2)
    names = fit.fe_params.index
    for spec in (f"{names[1]}, {names[2]}", [names[1], names[2]], matrix.tolist(), f"{names[1]} = 0, {names[2]} = 0"):
        assert_allclose(fit.t_test(spec).pvalue, ours.pvalue)
    shifted = fit.t_test("x = 1")
    assert_allclose(shifted.statistic, (fit.fe_params["x"] - 1) / fit.bse_fe["x"])
    assert_allclose(fit.t_test((np.eye(fit.k_fe)[[3]], 1.0)).statistic, shifted.statistic)
    assert fit.t_test("x", use_t=True).pvalue > fit.t_test("x").pvalue


def test_joint_tests(fit, reference):
    full = np.eye(len(fit.params))[1:4]
    spec = "x = 0, C(c)[T.b] = 0"
    ours, expected = fit.wald_test(spec), reference.wald_test("x = 0, Intercept = 0")
    assert ours.distribution == "chi2"
    assert (ours.df_num, ours.df_denom) == (2, expected.df_denom)
    by_hand = full[[2, 0]] @ np.asarray(fit.params)
    cov = full[[2, 0]] @ np.asarray(fit.cov_params()) @ full[[2, 0]].T
    assert ours.statistic == pytest.approx(by_hand @ np.linalg.solve(cov, by_hand))
    ours, expected = fit.f_test("x = 1"), reference.f_test("x = 1")
    assert (ours.df_num, ours.df_denom) == (expected.df_num, expected.df_denom)
    assert ours.fvalue == pytest.approx(float(expected.fvalue), rel=2e-2)
    assert ours.pvalue == pytest.approx(float(expected.pvalue), rel=5e-2)
    assert re.sub(r"[-\d.e]+", "", repr(ours)) == re.sub(r"[-\d.e]+", "", str(expected))


def test_terms(fit, reference):
    ours, expected = fit.wald_test_terms(), reference.wald_test_terms()
    assert list(ours.table.index) == list(expected.table.index)
    assert list(ours.table.columns) == list(expected.table.columns)
    assert list(ours.summary_frame().columns) == list(expected.summary_frame().columns)
    assert_allclose(ours.table["statistic"], expected.table["statistic"].astype(float), rtol=3e-2)
    assert_allclose(ours.table["df_constraint"], expected.table["df_constraint"].astype(int))
    assert list(fit.wald_test_terms(skip_single=True).table.index) == ["C(c)"]
    joined = fit.wald_test_terms(combine_terms=["C("], extra_constraints=[("own", "x = 1")]).table
    assert joined.loc["C(", "statistic"] == joined.loc["C(c)", "statistic"]
    assert joined.loc["own", "statistic"] == pytest.approx(fit.wald_test("x = 1").statistic)


def test_pairs_of_levels(fit):
    """Statsmodels' own does not work for mixed models; differences of coefficients are the judge."""
    frame = fit.t_test_pairwise("C(c)").result_frame
    assert list(frame.index) == ["b-a", "c-a", "c-b"]
    b, c = fit.fe_params["C(c)[T.b]"], fit.fe_params["C(c)[T.c]"]
    assert_allclose(frame["coef"], [b, c, c - b])
    single = fit.t_test("C(c)[T.c] - C(c)[T.b]")
    assert frame.loc["c-b", "P>|z|"] == pytest.approx(single.pvalue[0])
    multipletests = pytest.importorskip("statsmodels.stats.multitest").multipletests
    for method in ("hs", "holm", "bonferroni", "sidak", "fdr_bh"):
        found = fit.t_test_pairwise("C(c)", method=method, alpha=0.1).result_frame
        rejected, adjusted = multipletests(found["P>|z|"], alpha=0.1, method=method)[:2]
        assert_allclose(found[f"pvalue-{method}"], adjusted)
        assert list(found[f"reject-{method}"]) == list(rejected)


def test_pairs_of_levels_without_an_intercept(data):
    fit = clm.mixedlm("y ~ 0 + C(c)", data, groups="g").fit()
    frame = fit.t_test_pairwise("C(c)").result_frame
    assert_allclose(frame.loc["b-a", "coef"], fit.fe_params["C(c)[b]"] - fit.fe_params["C(c)[a]"])


def test_function_of_the_parameters(fit):
    found = fit.get_nlfun(lambda params: params[3] / params[0])
    a, b = fit.params.iloc[3], fit.params.iloc[0]
    slopes = np.array([-a / b**2, 1 / b])
    cov = fit.cov_params().iloc[[0, 3], [0, 3]].to_numpy()
    assert found.effect[0] == pytest.approx(a / b)
    assert found.sd[0] == pytest.approx(np.sqrt(slopes @ cov @ slopes), rel=1e-6)


def test_covariance_of_functions(fit):
    cov = np.asarray(fit.cov_params())
    R = np.eye(len(cov))[:2]
    assert_allclose(fit.cov_params(r_matrix=R), cov[:2, :2])
    assert_allclose(fit.cov_params(column=1), cov[1, 1])
    assert_allclose(fit.cov_params(column=[0, 3]), cov[np.ix_([0, 3], [0, 3])])
    assert_allclose(fit.cov_params(scale=2.0), cov * 2.0 / fit.scale)
    assert_allclose(fit.cov_params(r_matrix=R, other=np.eye(len(cov))[3:4]), cov[:2, 3:4])


@pytest.mark.parametrize("spec", ["w = 0", np.eye(2), "x +", ["x", "w"]])
def test_hypotheses_that_cannot_be_read(fit, spec):
    with pytest.raises(clm.ModelError, match="hypothesis"):
        fit.t_test(spec)


# --- profiles ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1])
def test_profile_of_a_random_effect(which):
    data = simulated(seed=5)
    ours = clm.mixedlm("y ~ x", data, groups="g", re_formula="~x").fit()
    reference = fit_from(mixedlm("y ~ x", data, groups="g", re_formula="~x"), ours.params_object)
    options = {"num_low": 2, "dist_low": 0.3, "num_high": 2, "dist_high": 0.5}
    found = ours.profile_re(which, "re", **options)
    assert_allclose(found, reference.profile_re(which, "re", method="bfgs", **options), rtol=1e-4)
    assert found[2, 1] == pytest.approx(ours.llf, abs=1e-8)
    assert (found[[0, 1, 3, 4], 1] < ours.llf).all()


def test_profile_of_a_component(fit, reference):
    options = {"num_low": 1, "dist_low": 0.3, "num_high": 1, "dist_high": 0.4}
    found = fit.profile_re("c", "vc", **options)
    assert_allclose(found, reference.profile_re("c", "vc", method="bfgs", **options), rtol=1e-4)


def test_profiles_that_cannot_be(fit):
    with pytest.raises(clm.ModelError, match="smaller distance"):
        fit.profile_re(0, "re", dist_low=100.0)
    with pytest.raises(clm.ModelError, match="the variance components are 'c'"):
        fit.profile_re("d", "vc")
    with pytest.raises(clm.ModelError, match=r"'re'.*'vc'"):
        fit.profile_re(0, "fe")


# --- free --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reml", [True, False])
def test_independent_random_effects(data, reml):
    model = clm.mixedlm("y ~ x", data, groups="g", re_formula="~x")
    free = theirs.MixedLMParams.from_components(np.ones(2), np.eye(2))
    fit = model.fit(reml=reml, free=free)
    bars = clm.lmer("y ~ x + (x || g)", data, reml)
    assert fit.llf == pytest.approx(bars.llf, abs=1e-8)
    assert fit.aic == pytest.approx(bars.aic, abs=1e-7)
    assert fit.freepat is free
    assert fit.cov_re.iloc[0, 1] == fit.params["g x x Cov"] == fit.bse["g x x Cov"] == 0.0
    reference = fit_from(mixedlm("y ~ x", data, groups="g", re_formula="~x"), fit.params_object, free=free, reml=reml)
    assert fit.llf == pytest.approx(reference.llf, abs=1e-7)
    assert_allclose(fit.bse.iloc[2:], reference.bse.iloc[2:], rtol=1e-3)
    assert_allclose(fit.random_effects_cov[0], reference.random_effects_cov[0], atol=1e-4)
    assert_allclose(fit.predict(data.iloc[:9], random_effects=True), fit.fittedvalues.iloc[:9], rtol=1e-9)
    assert model.fit(reml=reml).llf > fit.llf  # the model is as it was


def test_sets_of_random_effects(data):
    """Two correlated columns, independent of a third, whatever their order."""
    blocks = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]])
    model = clm.mixedlm("y ~ x", data, groups="g", re_formula="~x + z")
    fit = model.fit(free=clm.MixedLMParams.from_components(np.ones(2), blocks))
    bars = clm.lmer("y ~ x + (z | g) + (0 + x | g)", data)
    assert fit.llf == pytest.approx(bars.llf, abs=1e-7)
    assert list(fit.cov_re.index) == ["g", "x", "z"]
    assert fit.cov_re.loc["g", "x"] == fit.cov_re.loc["x", "z"] == 0.0
    assert fit.cov_re.loc["g", "z"] == pytest.approx(bars.cov_re["g"].loc["Intercept", "z"], rel=1e-4)
    chain = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]])
    with pytest.raises(clm.ModelError, match="correlated with a third"):
        model.fit(free=clm.MixedLMParams.from_components(np.ones(2), chain))


# --- what fits of bar formulas offer -----------------------------------------------------------------


def test_the_other_methods_give_what_they_give_for_bars(data):
    """The columns of the fixed part stand in another order, and must not be taken for each other."""
    formula = "y ~ x * C(c) + z"
    ours = clm.mixedlm(formula, data, groups="g", re_formula="~x").fit()
    bars = clm.lmer(formula + " + (x | g)", data)
    names = list(ours.fe_params.index)
    assert names != list(bars.fe_params.index)
    assert_allclose(ours.bse_fe, bars.bse_fe[names], rtol=1e-5)
    for kind in (2, 3):
        expected = bars.anova(type=kind)
        assert_allclose(ours.anova(type=kind).loc[expected.index], expected, rtol=1e-4, atol=1e-12)
    sequential = clm.lmer("y ~ C(c) + x + x:C(c) + z + (x | g)", data).anova(type=1)
    assert_allclose(ours.anova(type=1).loc[["C(c)", "x"]], sequential.loc[["C(c)", "x"]], rtol=1e-4, atol=1e-12)
    assert list(ours.anova(type=1).index) == ["C(c)", "x", "x:C(c)", "z"]
    expected = bars.drop1()
    assert_allclose(ours.drop1().loc[expected.index, "lrt"], expected["lrt"], rtol=1e-4)
    assert ours.test("x = 1").p_value == pytest.approx(bars.test("x = 1").p_value, rel=1e-4)
    assert_allclose(
        ours.conf_int(method="profile", which=["x"]), bars.conf_int(method="profile", which=["x"]), rtol=1e-4
    )
    assert ours.ranova()["lrt"].iloc[-1] == pytest.approx(bars.ranova()["lrt"].iloc[-1], rel=1e-4)
    new = data.iloc[:5]
    options = {"interval": "prediction", "random_effects": True}
    assert_allclose(ours.predict(new, **options), bars.predict(new, **options), rtol=1e-4)


def test_predictions_after_covariances_were_held(data):
    free = clm.MixedLMParams.from_components(np.ones(2), np.eye(2))
    ours = clm.mixedlm("y ~ x", data, groups="g", re_formula="~x").fit(free=free)
    bars = clm.lmer("y ~ x + (x || g)", data)
    options = {"interval": "confidence", "random_effects": True}
    assert_allclose(ours.predict(data.iloc[:5], **options), bars.predict(data.iloc[:5], **options), rtol=1e-4)


def test_new_categories_are_refused(fit, data):
    with pytest.raises(clm.DataError, match="categories that were not there"):
        fit.predict(data.iloc[:2].assign(c="d"))


# --- penalties, resampling, keeping -----------------------------------------------------------------


def test_lasso_against_statsmodels():
    rng = np.random.default_rng(3453)
    exog = rng.normal(size=(400, 5))
    groups = np.repeat(np.arange(100), 4)
    endog = exog[:, 0] - exog[:, 2] + rng.normal(size=100)[groups] + rng.normal(size=400)
    model = clm.MixedLM(endog, exog, groups)
    for alpha in (0.0, 1.0, 40.0, np.array([0.0, 60.0, 500.0, 1.0, 10.0])):
        fit = model.fit_regularized(alpha=alpha)
        reference = theirs.MixedLM(endog, exog, groups).fit_regularized(alpha=alpha, gtol=1e-9)
        assert_allclose(fit.fe_params, reference.fe_params, atol=1e-4)
        assert_allclose(fit.params, reference.params, atol=1e-3)
        assert fit.scale == pytest.approx(reference.scale, rel=1e-4)
        assert_allclose(fit.cov_re, reference.cov_re, rtol=1e-3)
        assert_allclose(np.isnan(fit.bse_fe), np.isnan(reference.bse_fe))
        assert "Coef." in fit.summary().as_text()
    assert_allclose(model.fit_regularized(alpha=0.0).fe_params, model.fit().fe_params, atol=1e-5)


def test_penalties_are_refused_by_name(data):
    model = clm.mixedlm("y ~ x", data, groups="g")
    penalty = pytest.importorskip("statsmodels.base._penalties").L2()
    with pytest.raises(clm.ModelError, match="fe_pen is not supported"):
        model.fit(fe_pen=penalty)
    with pytest.raises(clm.ModelError, match="cov_pen is not supported"):
        model.fit(cov_pen=penalty)
    with pytest.raises(clm.ModelError, match="'L2' is not supported"):
        model.fit_regularized(method=penalty, alpha=1.0)
    with pytest.raises(clm.ModelError, match="alpha must be a number"):
        model.fit_regularized(alpha=[1.0])


def test_bootstrap_draws_groups(data):
    fit = clm.mixedlm("y ~ 1", data, groups="g", vc_formula={"c": "0 + c"}, re_formula="1").fit()
    mean, sd, results = fit.bootstrap(nrep=60, rng=1)
    assert results.params.shape == (60, 3)
    assert_allclose(mean, results.params.mean())
    assert 0.6 < sd[0] / fit.bse_fe["Intercept"] < 1.6
    again = fit.bootstrap(nrep=60, rng=1)[2]
    pd.testing.assert_frame_equal(results.params, again.params)
    one = clm.mixedlm("y ~ 1", data, groups=np.ones(len(data)), vc_formula={"g": "0 + C(g)"}).fit()
    with pytest.raises(clm.ModelError, match="one group only"):
        one.bootstrap(nrep=2)


def test_saving_and_loading(fit, tmp_path):
    fit.save(tmp_path / "whole.pickle")
    fit.save(tmp_path / "small.pickle", remove_data=True)
    assert (tmp_path / "small.pickle").stat().st_size < (tmp_path / "whole.pickle").stat().st_size
    whole, small = (type(fit).load(tmp_path / f"{name}.pickle") for name in ("whole", "small"))
    for other in (whole, small):
        assert other.summary().as_text() == fit.summary().as_text()
        pd.testing.assert_series_equal(other.random_effects[3], fit.random_effects[3])
        pd.testing.assert_frame_equal(other.random_effects_cov[3], fit.random_effects_cov[3])
    pd.testing.assert_series_equal(whole.predict(), fit.predict())
    with pytest.raises(clm.ModelError, match="rows"):
        _ = small.fittedvalues
    assert fit.fittedvalues.size == fit.nobs
    (tmp_path / "other.pickle").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(clm.DataError, match="holds no results"):
        type(fit).load(tmp_path / "other.pickle")


# --- report ------------------------------------------------------------------------------------------


def test_report_of_dietox_character_by_character():
    dietox = clm.datasets.load_dietox()
    fit = clm.mixedlm("Weight ~ Time", dietox, groups=dietox["Pig"]).fit()
    reference = fit_from(mixedlm("Weight ~ Time", dietox, groups=dietox["Pig"].astype(str)), fit.params_object)
    assert fit.summary().as_text() == reference.summary().as_text()
    for ours, theirs_ in zip(fit.summary().tables, reference.summary().tables, strict=True):
        assert ours.shape == theirs_.shape


def test_wide_reports_keep_statsmodels_layout(data):
    long = data.rename(columns={"x": "a_covariate_with_a_very_long_name_indeed"})
    name = "a_covariate_with_a_very_long_name_indeed"
    for frame, formula in ((long, f"y ~ {name}"), (data.assign(y=data["y"] * 1e7), "y ~ 1")):
        fit = clm.mixedlm(formula, frame, groups="g").fit()
        reference = fit_from(mixedlm(formula, frame, groups="g"), fit.params_object)
        ours, expected = fit.summary().as_text().splitlines(), reference.summary().as_text().splitlines()
        assert [re.sub(r"\d", "0", line) for line in ours[:11]] == [re.sub(r"\d", "0", line) for line in expected[:11]]
        assert [len(line) for line in ours] == [len(line) for line in expected]


def test_names_in_the_report(fit):
    report = fit.summary(
        yname="response", xname_fe=list("ABCD"), xname_re=["v1", "v2", "v3", "v4"], title="A title", alpha=0.1
    )
    text = report.as_text()
    assert "response" in text
    assert text.splitlines()[0].strip() == report.title == "A title"
    assert list(report.tables[1].index) == ["A", "B", "C", "D", "v1", "v2", "v3", "v4"]
    assert list(report.tables[1].columns[4:]) == ["[0.05", "0.95]"]
    with pytest.raises(clm.ModelError, match="xname_fe should be a list of length 4"):
        fit.summary(xname_fe=["a"])
    html, latex = report.as_html(), report.as_latex("tab:one")
    assert html.count("<tr>") == 6 + 9
    assert "\\label{tab:one}" in latex
    assert latex.count("\\\\") >= 15
    assert "A title" in html
    assert str(fit.summary()) == repr(fit) == fit.summary().as_text()


def test_report_says_what_else_must_be_known():
    classroom = clm.datasets.load_classroom()
    fit = clm.mixedlm("score ~ edu", classroom, groups="classroom", re_formula="~1 + edu").fit()
    assert "Singular fit: the correlation of Intercept and edu" in " ".join(fit.summary().extra_txt)
    missing = classroom.assign(edu=classroom["edu"].where(classroom.index != 4))
    fit = clm.mixedlm("score ~ edu", missing, groups="classroom", missing="drop").fit()
    assert "1 row was left out" in fit.summary().as_text()
