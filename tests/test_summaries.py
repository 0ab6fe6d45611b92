"""Summaries of a fit against R, formulas written out, and frames that are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from standard import CASES, frame

import crosslmm as clm
from crosslmm.engine.plan import IterativeEngine
from crosslmm.errors import DataError, ModelError


@pytest.fixture(scope="module")
def sleepstudy():
    return clm.lmer("Reaction ~ Days + (Days | Subject)", clm.datasets.load_sleepstudy())


def by_rows(fit):
    """Variance of X beta, of the random effects of every row, and of their errors, from n x n matrices."""
    rows = fit.model.design
    random = np.zeros((rows.n, rows.n))
    for codes, Z, cov in zip(rows.codes, rows.Z, fit.estimates.covariances, strict=True):
        random += np.where(codes[:, None] == codes, Z @ cov @ Z.T, 0.0)
    weights = np.ones(rows.n) if rows.weights is None else rows.weights
    return np.var(rows.X @ fit.estimates.beta, ddof=1), np.trace(random) / rows.n, np.mean(fit.scale / weights)


@pytest.mark.parametrize("name", ["crossed slopes", "several terms", "weights and offset", "nested"])
def test_r2_by_its_definition(name):
    fit = clm.lmer(CASES[name].formula, frame(), **CASES[name].options)
    fixed, random, residual = by_rows(fit)
    found = fit.r2()
    assert found.fixed == pytest.approx(fixed) and found.residual == pytest.approx(residual)
    assert found.random.sum() == pytest.approx(random)
    assert found.marginal == pytest.approx(fixed / (fixed + random + residual))
    assert found.conditional == pytest.approx((fixed + random) / (fixed + random + residual))
    assert fit.icc().loc["all", "icc"] == pytest.approx(random / (random + residual))


def test_r2_of_sleepstudy_is_what_is_published(sleepstudy):
    # performance::r2 of this model: conditional 0.799, marginal 0.279; icc 0.722
    found = sleepstudy.r2()
    assert (round(found.conditional, 3), round(found.marginal, 3)) == (0.799, 0.279)
    assert round(sleepstudy.icc().loc["all", "icc"], 3) == 0.722


def test_r2_needs_no_rows_where_cross_products_say_it():
    far = frame().assign(x=lambda d: d["x"] + 1e6)
    whole = clm.lmer("y ~ x + (1 + z | a) + (0 + o | a)", far)
    parts = clm.MixedLM.from_crossproducts(clm.accumulate("y ~ x + (1 + z | a) + (0 + o | a)", far)).fit()
    fixed, random, _ = by_rows(whole)
    assert parts.r2().fixed == pytest.approx(fixed, rel=1e-6)
    assert parts.r2().random.sum() == pytest.approx(random, rel=1e-6)
    np.testing.assert_allclose(parts.icc(), whole.icc(), rtol=1e-6)
    weighted = clm.MixedLM.from_crossproducts(clm.accumulate("y ~ x + (1 | a)", frame(), weights="w")).fit()
    with pytest.raises(ModelError, match="has no rows"):
        weighted.r2()
    plain = clm.lmer("y ~ 0 + x + (1 | a)", frame())  # no intercept: by the rows
    assert plain.r2().fixed == pytest.approx(by_rows(plain)[0])


def test_r2_over_batches(monkeypatch):
    fit = clm.lmer(CASES["weights and offset"].formula, frame(), **CASES["weights and offset"].options)
    whole = fit.r2()
    monkeypatch.setattr("crosslmm.design.rows.STRETCH", 37)
    parts = fit.r2()
    assert parts.marginal == pytest.approx(whole.marginal, rel=1e-12)
    assert parts.fixed == pytest.approx(whole.fixed, rel=1e-12)


def test_icc_interval_against_a_simulation():
    """One factor: the error of the ICC is that of refits to data drawn from the fit."""
    rng = np.random.default_rng(8)
    groups = np.repeat(np.arange(60), 5)

    def fitted():
        y = rng.normal(size=60)[groups] + rng.normal(size=300)
        return clm.lmer("y ~ 1 + (1 | g)", pd.DataFrame({"y": y, "g": groups}))

    tables = [fitted().icc() for _ in range(80)]
    values = np.array([table.loc["g", "icc"] for table in tables])
    errors = np.array([table.loc["g", "std_error"] for table in tables])
    inside = np.mean([table.loc["g", "lower"] < 0.5 < table.loc["g", "upper"] for table in tables])
    assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.25)  # 80 draws: 8% is one standard error
    assert inside > 0.86  # 95% less four standard errors


def test_icc_of_a_variance_of_0_has_no_interval():
    table = clm.lmer("Yield ~ 1 + (1 | Batch)", clm.datasets.load_dyestuff2()).icc()
    assert table.loc["Batch", "icc"] == 0.0 and table.loc["Batch", ["std_error", "lower", "upper"]].isna().all()


def test_vif_of_single_columns_is_the_inverse_of_the_correlations():
    fit = clm.lmer("y ~ x + z + o + (1 | a)", frame())
    cov = fit.cov_params().iloc[1:, 1:].to_numpy()
    sd = np.sqrt(np.diag(cov))
    expected = np.diag(np.linalg.inv(cov / np.outer(sd, sd)))
    table = fit.vif()
    np.testing.assert_allclose(table["vif"], expected)
    np.testing.assert_allclose(table["adjusted"], np.sqrt(expected))
    assert list(table.index) == ["x", "z", "o"]


def test_generalised_vif_does_not_depend_on_the_coding():
    data = frame().assign(k=lambda d: (d["c"] % 3).map({0: "u", 1: "v", 2: "w"}))
    data["x"] += data["c"] % 3
    one = clm.lmer("y ~ x + k + (1 | a)", data).vif()
    other = clm.lmer("y ~ x + C(k, contr.sum) + (1 | a)", data).vif()
    np.testing.assert_allclose(one.to_numpy(), other.to_numpy(), rtol=1e-4)
    assert one.loc["k", "df"] == 2
    assert one.loc["k", "adjusted"] == pytest.approx(one.loc["k", "vif"] ** 0.25)
    assert one.loc["k", "vif"] == pytest.approx(one.loc["x", "vif"])  # two terms: the same overlap seen from both


def test_vif_without_terms():
    with pytest.raises(ModelError, match="no term besides the intercept"):
        clm.lmer("y ~ 1 + (1 | a)", frame()).vif()


def test_principal_components_are_those_of_lme4(sleepstudy):
    found = sleepstudy.rePCA()
    # lme4 1.1-31, bobyqa to 1e-10
    np.testing.assert_allclose(found.table["sdev"], [0.9668589910629, 0.2308794585332], rtol=2e-5)
    np.testing.assert_allclose(found.table["cumulative"], [0.9460517, 1.0], rtol=1e-5)
    rotation = found.rotations["Subject"].to_numpy()
    np.testing.assert_allclose(np.abs(rotation), [[0.99986158, 0.01663769], [0.01663769, 0.99986158]], rtol=1e-3)


def test_tidy_has_brooms_columns_and_the_numbers_of_the_fit(sleepstudy):
    table = sleepstudy.tidy(conf_int=True)
    assert list(table.columns) == [
        *("effect", "group", "term", "estimate", "std.error", "statistic", "df", "p.value", "conf.low", "conf.high")
    ]
    assert list(table["term"]) == [
        *("Intercept", "Days", "sd__Intercept", "sd__Days", "cor__Intercept.Days", "sd__Observation")
    ]
    np.testing.assert_allclose(table["estimate"][:2], sleepstudy.fe_params)
    np.testing.assert_allclose(table["estimate"][2:], sleepstudy.varcorr["sdcor"])
    intervals = sleepstudy.conf_int(which=["sd_Intercept|Subject", "sd_Days|Subject", "cor_Days.Intercept|Subject"])
    np.testing.assert_allclose(table[["conf.low", "conf.high"]][2:5], intervals, rtol=1e-5)
    assert "conf.low" not in sleepstudy.tidy() and set(sleepstudy.tidy("fixed")["effect"]) == {"fixed"}
    satterthwaite = sleepstudy.tidy("fixed", ddf="satterthwaite")
    np.testing.assert_allclose(satterthwaite["df"], [17.0, 17.0], rtol=1e-3)


def test_tidy_modes_have_lme4s_conditional_standard_deviations(reference_fit):
    from refdata import load_model

    for name in ("sleepstudy_slope_reml", "penicillin_reml", "pastes_nested_reml"):
        table, ref = reference_fit(name).tidy("ran_vals"), load_model(name)
        for group, expected in ref["ranef"].items():
            own = table[table["group"] == group].pivot(index="level", columns="term", values="std.error")
            own = own.loc[expected["levels"], [c.replace("(Intercept)", "Intercept") for c in expected["columns"]]]
            np.testing.assert_allclose(own.to_numpy() ** 2, expected["condvar_diag"], rtol=1e-5)


@pytest.mark.filterwarnings("ignore:the fit did not converge")
def test_some_modes_by_solves():
    from crosslmm.diagnosis.modes import mode_sds, some_mode_sds

    model = clm.MixedLM.from_formula(CASES["crossed slopes"].formula, frame())
    direct = model.fit(engine="direct")
    at_theta = {"start": direct.theta, "max_evaluations": 1}
    iterative = model.fit(engine=IterativeEngine(border=0), **at_theta)
    np.testing.assert_allclose(iterative.theta, direct.theta)
    assert mode_sds(iterative) is None
    assert iterative.tidy("ran_vals")["std.error"].isna().all()
    levels = np.array([5, 0, 11])
    for f in range(2):
        expected = mode_sds(direct)[f][levels]
        for fit in (direct, iterative):
            np.testing.assert_allclose(some_mode_sds(fit, f, levels), expected, rtol=1e-6)


def test_glance(sleepstudy):
    row = sleepstudy.glance()
    assert list(row.columns) == ["nobs", "sigma", "logLik", "AIC", "BIC", "REMLcrit", "df.residual"]
    assert row["df.residual"].item() == 174  # lme4's df.residual
    assert row["REMLcrit"].item() == pytest.approx(1743.6283)
    assert "deviance" in sleepstudy.model.fit(reml=False).glance()


def test_augment_puts_the_rows_side_by_side(sleepstudy):
    data = clm.datasets.load_sleepstudy().sample(frac=1.0, random_state=2)
    data["Days"] = data["Days"].astype(float)
    data.iloc[4, data.columns.get_loc("Days")] = np.nan
    fit = clm.lmer("Reaction ~ Days + (Days | Subject)", data)
    table = fit.augment(data)
    assert len(table) == 179 and list(table.index) == list(data.index.delete(4))
    pd.testing.assert_series_equal(table["Subject"], data["Subject"].drop(data.index[4]))
    np.testing.assert_allclose(table[".fitted"] + table[".resid"], table["Reaction"])
    np.testing.assert_allclose(table[".hat"], fit.leverage())
    np.testing.assert_allclose(table[".cooksd"], fit.cooks_distance())
    np.testing.assert_allclose(table[".fixed"], fit.fe_params.iloc[0] + fit.fe_params.iloc[1] * table["Days"])
    assert list(fit.augment().columns)[:3] == ["Reaction", ".fitted", ".resid"]
    with pytest.raises(DataError, match="table of the fit"):
        fit.augment(data.head(10))
    polars = pytest.importorskip("polars")
    plain = clm.datasets.load_sleepstudy()
    whole = clm.lmer("Reaction ~ Days + (Days | Subject)", plain).augment(polars.from_pandas(plain))
    assert list(whole["Subject"]) == list(plain["Subject"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda fit: fit.tidy("random"), "expected some of 'fixed'"),
        (lambda fit: fit.tidy(level=95), "between 0 and 1"),
        (lambda fit: fit.icc(level=1.0), "between 0 and 1"),
    ],
)
def test_what_cannot_be_asked(sleepstudy, call, message):
    with pytest.raises(ModelError, match=message):
        call(sleepstudy)


# --- check ---------------------------------------------------------------------------------------


def topics(fit):
    return {finding.topic for finding in fit.check()}


def test_a_fit_with_nothing_to_report(sleepstudy):
    found = sleepstudy.check()
    assert len(found) == 0 and found.ok and repr(found) == "Nothing to report."


def test_singular_fits_are_named():
    found = clm.lmer("Yield ~ 1 + (1 | Batch)", clm.datasets.load_dyestuff2()).check()
    assert found.ok and [finding.topic for finding in found] == ["singular"]
    assert "Intercept for Batch is estimated as 0" in repr(found)


def test_fits_that_did_not_converge_are_a_problem():
    model = clm.MixedLM.from_formula("Reaction ~ Days + (Days | Subject)", clm.datasets.load_sleepstudy())
    with pytest.warns(clm.errors.ConvergenceWarning):
        found = model.fit(max_evaluations=2).check()
    assert not found.ok and found.findings[0].kind == "problem" and found.findings[0].topic == "not converged"


def test_covariates_that_overlap_or_lie_far_apart():
    data = frame().assign(near=lambda d: d["x"] + 0.05 * d["z"], tiny=lambda d: 1e-6 * d["o"])
    fit = clm.lmer("y ~ x + near + tiny + (1 | a)", data)
    assert topics(fit) == {"near-collinear", "scales"}
    text = repr(fit.check())
    assert "the variance of near is" in text and "times as large as tiny" in text


def test_few_levels_and_dropped_columns():
    data = frame()
    data["y"] += 3.0 * np.array([0.0, 1.0, 2.0, -1.0])[data["d"]]
    data["same"] = 2.0 * data["x"]
    with pytest.warns(clm.errors.RankDeficiencyWarning):
        fit = clm.lmer("y ~ x + same + (1 | d)", data)
    assert topics(fit) == {"few levels", "dropped columns"}
    assert "d has 4 levels" in repr(fit.check())
    assert list(fit.check().to_frame().columns) == ["kind", "topic", "message"]


def test_levels_that_hardly_repeat():
    data = frame().assign(pair=lambda d: np.where(np.arange(400) < 300, np.arange(400), 0))
    data["y"] += np.random.default_rng(5).normal(size=400)[data["pair"]]
    assert "hardly repeated" in topics(clm.lmer("y ~ x + (1 | pair)", data))
