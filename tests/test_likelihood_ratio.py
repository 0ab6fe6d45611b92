"""Likelihood-ratio tables, dropped terms and backward elimination, against lme4, lmerTest and fits of the data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from refdata import load_data, load_lrt, load_model, model_names
from scipy import stats

import crosslmm as clm
from crosslmm.inference.reduce import TermColumns, fixed_only_criterion, whole_term, with_fixed, with_terms

# lme4 stops 28 above the minimum (docs/theory.md, section 7)
STOPPED_EARLY = {"sitka_slope_ml", "sitka_slope_reml"}
RANOVA = [name for name in model_names() if "ranova" in load_model(name) and name not in STOPPED_EARLY]
TABLES = list(load_lrt())
SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep() -> pd.DataFrame:
    return clm.datasets.load_sleepstudy()


def r_label(label: str) -> str:
    """lmerTest's name of a row: it does not spell out the intercept."""
    return label.replace("(1 + ", "(")


@pytest.mark.parametrize("name", RANOVA)
def test_ranova_is_that_of_lmertest(name, reference_fit):
    want = pd.DataFrame(load_model(name)["ranova"]).set_index("term")
    got = reference_fit(name).ranova().rename(index=r_label)
    assert sorted(got.index) == sorted(want.index)
    got = got.loc[want.index]
    np.testing.assert_array_equal(got["npar"], want["npar"])
    # R's optimiser, without polish here, ends up to 3e-6 below the maximum
    above = (got["log_lik"] - want["logLik"]).to_numpy(float)
    assert above.min() > -1e-7 and above.max() < 5e-6
    np.testing.assert_allclose(got["aic"], want["AIC"], rtol=0, atol=1e-5)
    tested = slice(1, None)
    np.testing.assert_array_equal(got["df"][tested].astype(int), want["Df"][tested].astype(int))
    np.testing.assert_allclose(got["lrt"][tested], want["LRT"][tested].astype(float), rtol=0, atol=1e-5)
    np.testing.assert_allclose(got["p_value"][tested], want["p"][tested].astype(float), rtol=1e-4, atol=1e-300)


@pytest.mark.parametrize("table", TABLES)
def test_compare_is_lme4s_anova(table, reference_fit):
    want = pd.DataFrame(load_lrt()[table])
    got = clm.compare(*(reference_fit(name) for name in want["model"][::-1]))
    np.testing.assert_array_equal(got["npar"], want["npar"])
    for ours, theirs in {"aic": "AIC", "bic": "BIC", "log_lik": "logLik", "deviance": "deviance"}.items():
        np.testing.assert_allclose(got[ours], want[theirs], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(got["df"][1:].astype(int), want["Df"][1:].astype(int))
    np.testing.assert_allclose(got["chisq"][1:], want["Chisq"][1:].astype(float), rtol=0, atol=1e-6)
    np.testing.assert_allclose(got["p_value"][1:], want["p"][1:].astype(float), rtol=1e-4)
    assert pd.isna(got["df"].iloc[0]) and np.isnan(got["p_value"].iloc[0])


def test_mixture_halves_the_p_value_of_one_variance(reference_fit):
    fits = reference_fit("pastes_sample_ml"), reference_fit("pastes_nested_ml")
    plain, mixed = clm.compare(*fits), clm.compare(*fits, boundary="mixture")
    assert mixed["p_value"].iloc[1] == pytest.approx(0.5 * plain["p_value"].iloc[1], rel=1e-12)


def test_mixture_of_a_slope_with_its_covariance(sleep):
    fits = clm.lmer("Reaction ~ Days + (1 | Subject)", sleep), clm.lmer(SLEEP, sleep)
    table = clm.compare(*fits, boundary="mixture")
    x = table["chisq"].iloc[1]
    assert table["p_value"].iloc[1] == pytest.approx(0.5 * stats.chi2.sf(x, 1) + 0.5 * stats.chi2.sf(x, 2), rel=1e-10)


def test_mixture_refuses_more_than_one_variance(sleep):
    fits = clm.lmer("Reaction ~ 1 + (1 | Subject)", sleep, reml=False), clm.lmer(SLEEP, sleep, reml=False)
    with pytest.raises(clm.ModelError, match="one variance"):
        clm.compare(*fits, boundary="mixture")


def test_reml_fits_of_other_fixed_effects_need_a_refit(sleep):
    small, large = clm.lmer("Reaction ~ 1 + (Days | Subject)", sleep), clm.lmer(SLEEP, sleep)
    with pytest.raises(clm.ModelError, match="fixed effects differ"):
        clm.compare(small, large)
    by_ml = clm.compare(small.model.fit(reml=False), large.model.fit(reml=False))
    pd.testing.assert_frame_equal(clm.compare(small, large, refit=True), by_ml)
    with pytest.raises(clm.ModelError, match="some by ML"):
        clm.compare(large, small.model.fit(reml=False))


def test_reml_fits_of_the_same_fixed_effects_are_compared_as_they_are(sleep):
    fits = clm.lmer("Reaction ~ Days + (1 | Subject)", sleep), clm.lmer(SLEEP, sleep)
    table = clm.compare(*fits)
    assert table["chisq"].iloc[1] == pytest.approx(fits[0].criterion - fits[1].criterion, rel=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.iloc[1:], "different rows"),
        (
            lambda data: data.assign(Reaction=data["Reaction"].sample(frac=1.0, random_state=1).to_numpy() + 1.0),
            "values",
        ),
        (lambda data: data.rename(columns={"Reaction": "y"}), "different responses"),
    ],
)
def test_fits_of_other_data_are_refused(sleep, change, message):
    data = change(sleep)
    other = clm.lmer(f"{data.columns[0]} ~ Days + (1 | Subject)", data, reml=False)
    with pytest.raises(clm.ModelError, match=message):
        clm.compare(other, clm.lmer(SLEEP, sleep, reml=False))


def test_what_is_no_fit_is_refused(sleep):
    fit = clm.lmer(SLEEP, sleep)
    with pytest.raises(clm.ModelError, match="argument 2 is of type int"):
        clm.compare(fit, 3)
    with pytest.raises(clm.ModelError, match="refit='yes'"):
        clm.compare(fit, fit, refit="yes")
    with pytest.raises(clm.ModelError, match="reduce_terms='no'"):
        fit.ranova(reduce_terms="no")


def test_a_larger_model_that_fits_worse_is_not_tested(sleep):
    rng = np.random.default_rng(1)
    data = sleep.assign(noise=rng.normal(size=len(sleep)), more=rng.normal(size=len(sleep)))
    small = clm.lmer("Reaction ~ Days + (1 | Subject)", data, reml=False)
    other = clm.lmer("Reaction ~ noise + more + (1 | Subject)", data, reml=False)
    with pytest.warns(clm.errors.CrosslmmWarning, match="no special case of the other"):
        table = clm.compare(small, other)
    assert np.isnan(table["chisq"].iloc[1]) and np.isnan(table["p_value"].iloc[1])


def worse(fit, by):
    """The fit as if its search had ended early."""
    return replace(fit, estimates=replace(fit.estimates, criterion=fit.criterion + by))


def test_terms_of_a_search_that_ended_early_are_not_tested(sleep):
    fit = clm.lmer(SLEEP, sleep, reml=False)
    for table in (lambda: worse(fit, 60.0).ranova(), lambda: worse(fit, 60.0).drop1()):
        with pytest.warns(clm.ConvergenceWarning, match="ended early"):
            result = table()
        assert result["p_value"].isna().all() and result["lrt"].isna().all()
    with pytest.warns(clm.ConvergenceWarning):
        assert worse(fit, 60.0).step().random["eliminated"].tolist() == [0]  # what was not tested stays


def test_likelihood_ratios_of_sampled_fits_carry_their_error():
    rng = np.random.default_rng(4)
    n = 1200
    data = pd.DataFrame({"a": rng.integers(0, 400, n), "b": rng.integers(0, 300, n), "x": rng.normal(size=n)})
    data["y"] = 0.1 * data["x"] + rng.normal(size=n) + rng.normal(size=400)[data["a"]] + rng.normal(size=300)[data["b"]]
    model = clm.MixedLM.from_formula("y ~ x + (1 | a) + (1 | b)", data)
    exact, sampled = model.fit(), model.fit(engine=clm.IterativeEngine(n_probes=32, border=0))
    for table in (lambda fit: fit.ranova(), lambda fit: fit.drop1()):
        want, got = table(exact), table(sampled)
        assert "lrt_mc_error" not in want and np.isnan(got["lrt_mc_error"].iloc[0])
        assert ((got["lrt"] - want["lrt"]).abs()[1:] < 5 * got["lrt_mc_error"][1:]).all()
        assert (got["lrt_mc_error"][1:] > 0).all()


def test_fits_with_other_weights_are_refused(sleep):
    fits = [clm.lmer(SLEEP, sleep.assign(w=w), reml=False, weights="w") for w in (1.0, 2.0)]
    with pytest.raises(clm.ModelError, match="weights"):
        clm.compare(*fits)


@pytest.mark.parametrize("reml", [True, False])
def test_a_smaller_model_from_cross_products_is_the_model_of_the_data(reml):
    """Uncentred covariate, weights, two factors and slopes: coordinates and constants of the criterion."""
    rng = np.random.default_rng(5)
    n = 400
    data = pd.DataFrame({"x": 1e5 + rng.normal(size=n), "z": rng.normal(size=n), "w": rng.uniform(0.5, 2.0, n)})
    data["g"], data["h"] = rng.integers(0, 30, n), rng.integers(0, 12, n)
    slope = rng.normal(size=30)[data["g"]]
    data["y"] = data["z"] * (1 + slope) + rng.normal(size=12)[data["h"]] + rng.normal(size=n) + 3e3
    large = clm.lmer("y ~ x + z + (1 + z + x | g) + (1 | h)", data, reml, weights="w")
    layout = large.estimates.layout
    text = "y ~ z + (1 + z | g)"
    g = TermColumns(0, ("Intercept", "z"), np.eye(3)[:, [0, 1]], "(1 + z | g)")
    xp = with_fixed(with_terms(large.model.crossproducts, [g], text), [0, 2], text)
    small = clm.MixedLM.from_crossproducts(xp).fit(reml)
    want = clm.lmer(text, data, reml, weights="w")
    assert small.criterion == pytest.approx(want.criterion, abs=1e-6)
    np.testing.assert_allclose(small.fe_params, want.fe_params, rtol=1e-6)
    np.testing.assert_allclose(small.theta, want.theta, rtol=1e-4)
    np.testing.assert_allclose(small.bse_fe, want.bse_fe, rtol=1e-6)
    both = with_terms(large.model.crossproducts, [whole_term(layout, 0), whole_term(layout, 1)], layout.formula)
    same = clm.MixedLM.from_crossproducts(both).fit(reml)
    assert same.criterion == pytest.approx(large.criterion, abs=1e-6)


def test_criterion_without_random_effects_is_that_of_least_squares(sleep):
    xp = clm.lmer(SLEEP, sleep).model.crossproducts
    X, y = np.column_stack([np.ones(180), sleep["Days"]]), sleep["Reaction"].to_numpy()
    resid = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
    deviance = -2 * stats.norm.logpdf(resid, scale=np.sqrt(np.mean(resid**2))).sum()
    assert fixed_only_criterion(xp, reml=False) == pytest.approx(deviance, abs=1e-8)


def test_drop1_is_the_comparison_with_the_smaller_model():
    data = clm.datasets.load_cake()
    full = "angle ~ recipe * temperature + (1 | recipe:replicate)"
    table = clm.lmer(full, data).drop1()
    assert list(table.index) == ["<none>", "recipe:temperature"]
    smaller = clm.lmer(full.replace("*", "+"), data, reml=False)
    want = clm.compare(smaller, clm.lmer(full, data, reml=False))
    assert table["lrt"].iloc[1] == pytest.approx(want["chisq"].iloc[1], abs=1e-6)
    assert table["p_value"].iloc[1] == pytest.approx(want["p_value"].iloc[1], rel=1e-6)
    assert table["aic"].iloc[1] == pytest.approx(smaller.aic, abs=1e-6)


@pytest.mark.parametrize("name", ["cake_temp_reml", "dietox_slope_reml", "machines_int_reml", "sleepstudy_slope_reml"])
def test_f_tests_of_dropped_terms_are_lmertests_type_iii(name, reference_fit):
    """Without interactions, dropping a term is the type III hypothesis."""
    want = pd.DataFrame(load_model(name)["anova_satterthwaite"]["III"]).set_index("term")
    got = reference_fit(name).drop1(test="satterthwaite").loc[want.index]
    np.testing.assert_allclose(got["f_value"], want["F"], rtol=1e-4)
    np.testing.assert_allclose(got["den_df"], want["den_df"], rtol=1e-3)
    np.testing.assert_allclose(got["p_value"], want["p"], rtol=1e-2)
    with pytest.raises(clm.ModelError, match="test='anova'"):
        reference_fit(name).drop1(test="anova")


def test_drop1_needs_something_to_drop(sleep):
    with pytest.raises(clm.ModelError, match="can be dropped"):
        clm.lmer("Reaction ~ 1 + (Days | Subject)", sleep).drop1()


def test_step_eliminates_random_then_fixed():
    rng = np.random.default_rng(7)
    n = 600
    data = pd.DataFrame({"x": rng.normal(size=n), "z": rng.normal(size=n), "g": np.arange(n) % 40})
    data["h"] = rng.integers(0, 15, n)
    data["y"] = 2.0 * data["x"] + rng.normal(size=40)[data["g"]] + rng.normal(size=n)
    found = clm.lmer("y ~ x * z + (1 + x | g) + (1 | h)", data).step()
    assert set(found.random.index[found.random["eliminated"] > 0]) == {"x in (1 + x | g)", "(1 | h)"}
    assert list(found.fixed.index[found.fixed["eliminated"] > 0]) == ["x:z", "z"]
    want = clm.lmer("y ~ x + (1 | g)", data)
    assert found.fit.criterion == pytest.approx(want.criterion, abs=1e-6)
    assert clm.lmer(found.formula, data).criterion == pytest.approx(want.criterion, abs=1e-9)
    assert "Model found: y ~ 1 + x + (1 | g)" in repr(found)


def test_step_without_anything_left(reference_fit):
    found = reference_fit("dyestuff2_reml").step()
    assert found.random["p_value"].tolist() == [1.0] and found.random["eliminated"].tolist() == [1]
    assert found.formula == "Yield ~ 1" and found.fixed.empty
    y = load_data("dyestuff2")["Yield"]
    assert found.fit.beta[0] == pytest.approx(y.mean(), rel=1e-12)
    assert found.fit.sigma == pytest.approx(y.std(ddof=1), rel=1e-12)
    assert "No random-effects term is left" in repr(found) and "nothing to eliminate" in repr(found)


# R: drop1(lm(angle ~ recipe * temperature), test = "F"), and so on down; test = "Chisq" for the likelihood ratio
BY_F = {"recipe:temperature": (10, 252, 0.33058, 0.97237), "recipe": (2, 262, 1.11247, 0.33029)}
BY_F["temperature"] = (5, 264, 6.91256, 4.3911e-06)
BY_RATIO = {"recipe:temperature": 0.96645, "recipe": 0.31931}


def test_step_goes_on_with_least_squares(reference_fit):
    fit = reference_fit("cake_reml")
    found = fit.step(alpha_random=0.0, test="satterthwaite")
    assert list(found.random["eliminated"]) == [1] and list(found.fixed["eliminated"]) == [1, 2, 0]
    assert list(found.fixed.index) == list(BY_F)
    np.testing.assert_allclose(found.fixed.iloc[:, :4], list(BY_F.values()), rtol=2e-5)
    assert found.formula == found.fit.formula == "angle ~ 1 + temperature"
    by_ratio = fit.step(alpha_random=0.0).fixed
    np.testing.assert_allclose(by_ratio["p_value"].iloc[:2], list(BY_RATIO.values()), rtol=2e-5)
    assert found.fit.llf == pytest.approx(-934.532400517, abs=1e-8)
    normal = fit.step(alpha_random=0.0, test="normal").fixed
    np.testing.assert_allclose(normal["p_value"], stats.chi2.sf(normal["num_df"] * normal["f_value"], normal["num_df"]))


def test_least_squares_with_weights_and_a_covariate_far_from_zero():
    rng = np.random.default_rng(3)
    n = 300
    data = pd.DataFrame({"x": 1e5 + rng.normal(size=n), "z": rng.normal(size=n), "w": rng.uniform(0.5, 2.0, n)})
    data["g"] = rng.integers(0, 30, n)
    data["y"] = data["x"] + rng.normal(size=n) / np.sqrt(data["w"])
    found = clm.lmer("y ~ x + z + (1 | g)", data, weights="w").step(alpha_random=0.0, alpha_fixed=0.0001)
    assert found.formula == "y ~ 1 + x"
    centre = data["x"].mean()
    X, W = np.column_stack([np.ones(n), data["x"] - centre]), data["w"].to_numpy()
    C = np.linalg.inv(X.T @ (W[:, None] * X))
    beta = C @ X.T @ (W * data["y"])
    resid = data["y"] - X @ beta
    sigma = np.sqrt(np.sum(W * resid**2) / (n - 2))
    table = found.fit.coef_table(level=0.9)
    assert table.loc["x", "estimate"] == pytest.approx(beta[1], rel=1e-9)
    assert table.loc["Intercept", "estimate"] == pytest.approx(beta[0] - centre * beta[1], rel=1e-6)
    assert table.loc["x", "std_error"] == pytest.approx(sigma * np.sqrt(C[1, 1]), rel=1e-9)
    half = stats.t.ppf(0.95, n - 2) * sigma * np.sqrt(C[1, 1])
    assert table.loc["x", "upper"] - table.loc["x", "estimate"] == pytest.approx(half, rel=1e-8)
    deviance = -2 * stats.norm.logpdf(resid, scale=np.sqrt(np.sum(W * resid**2) / n / W)).sum()
    assert found.fit.deviance == pytest.approx(deviance, abs=1e-6)
    assert found.fit.aic == pytest.approx(deviance + 6, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha_random": 2}, "alpha_random=2"),
        ({"alpha_fixed": "0.05"}, "alpha_fixed='0.05'"),
        ({"test": "F"}, "test='F'"),
    ],
)
def test_step_refuses(sleep, arguments, message):
    with pytest.raises(clm.ModelError, match=message):
        clm.lmer(SLEEP, sleep).step(**arguments)


def test_a_component_of_several_columns_is_dropped_at_once():
    rng = np.random.default_rng(0)
    data = pd.DataFrame(rng.normal(size=(400, 3)), columns=["x", "z", "w"]).assign(g=np.repeat(np.arange(20), 20))
    data["y"] = data["x"] + rng.normal(size=20)[data["g"]] * (1 + data["z"]) + rng.normal(size=400)
    written = {"groups": "g", "re_formula": "1", "vc_formula": {"a": "0 + z + w"}}
    fit = clm.MixedLM.from_formula("y ~ x", data, **written).fit()
    table = fit.ranova()
    assert len(table) == 3 and list(table["df"][1:]) == [1, 1]
    without = clm.lmer("y ~ x + (1 | g)", data)
    assert table["log_lik"].iloc[2] == pytest.approx(without.llf, abs=1e-6)
    smaller = clm.MixedLM.from_formula("y ~ 1", data, **written).fit(reml=False)
    assert fit.drop1()["aic"].iloc[1] == pytest.approx(-2 * smaller.llf + 2 * 4, abs=1e-6)
    with pytest.raises(clm.ModelError, match="no form for a variance component"):
        fit.step()
