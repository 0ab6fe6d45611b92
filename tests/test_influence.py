"""Deletion of rows and groups against fits of the data without them, dense algebra, and R."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from dense import Dense
from standard import CASES, frame

import crosslmm as clm
from crosslmm.errors import DataError, ModelError

# lme4 1.1-31: influence(m, "Subject") of m = lmer(Reaction ~ Days + (Days | Subject), sleepstudy), bobyqa to 1e-10
LME4_FIXED = {
    "308": (251.82936577540, 9.8027320499105),
    "309": (254.13158481283, 10.9499624598932),
    "310": (254.22398010695, 10.7233087344026),
    "330": (249.15334085561, 10.9060632085554),
}
LME4_VARIANCES = {  # sigma^2, var Intercept, covariance, var Days
    "308": (559.17730176893, 694.13096196783, 8.1460407348356, 30.474730144940),
    "309": (688.83310446723, 510.60731358910, -15.3437899900258, 32.893180196707),
    "310": (684.54252475934, 502.26989448884, -4.2097382929868, 36.145733737721),
    "330": (664.22400642126, 564.30868275927, 27.3753051269552, 33.965380019828),
}
LME4_COOK = {"308": 0.082148479781535, "309": 0.132022041841100, "310": 0.098241878285406, "330": 0.074146951406354}


@pytest.fixture(scope="module")
def sleepstudy():
    return clm.lmer("Reaction ~ Days + (Days | Subject)", clm.datasets.load_sleepstudy())


def test_groups_left_out_as_lme4_does(sleepstudy):
    found = sleepstudy.influence("Subject")
    assert found.method == "refit" and found.groups == "Subject" and not found.refused
    assert len(found.fixed) == 18
    for subject, fixed in LME4_FIXED.items():
        np.testing.assert_allclose(found.fixed.loc[subject], fixed, rtol=1e-7)
    # lme4's refit without 308 stops 1.9e-8 of the criterion above the minimum: 1.4e-4 standard errors
    intercept_error, days_error, both_error, residual_error = 2e-4 * sleepstudy.varcorr_se["vcov"]
    for subject, (residual, intercept, both, days) in LME4_VARIANCES.items():
        sigma, correlation = found.components.loc[subject, ["sigma", "cor_Days.Intercept|Subject"]]
        sds = found.components.loc[subject, ["sd_Intercept|Subject", "sd_Days|Subject"]]
        assert sigma**2 == pytest.approx(residual, abs=residual_error)
        assert sds.iloc[0] ** 2 == pytest.approx(intercept, abs=intercept_error)
        assert sds.iloc[1] ** 2 == pytest.approx(days, abs=days_error)
        assert correlation * sds.prod() == pytest.approx(both, abs=both_error)
    for subject, cook in LME4_COOK.items():  # lme4 counts its groups for rows: (n - p) / n
        assert found.cooks_distance[subject] * (18 - 2) / 18 == pytest.approx(cook, rel=1e-6)


@pytest.mark.parametrize(("name", "group"), [("weights and offset", "c"), ("crossed slopes", "b"), ("nested", "c")])
def test_a_group_left_out_against_a_fit_of_the_other_rows(name, group):
    data = frame()
    case = CASES[name]
    fit = clm.lmer(case.formula, data, reml=False, **case.options)
    level = fit.random_effects[group].index[3]
    found = fit.influence(group, levels=[level])
    other = clm.lmer(case.formula, data[data[group] != level].reset_index(drop=True), reml=False, **case.options)
    np.testing.assert_allclose(found.fixed.loc[level], other.fe_params, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.dfbeta.loc[level], fit.fe_params - other.fe_params, rtol=1e-3, atol=1e-6)
    assert found.components.loc[level, "sigma"] == pytest.approx(other.sigma, rel=1e-5)


@pytest.mark.parametrize(("name", "group", "f"), [("weights and offset", "c", 2), ("crossed", "b", 1)])
def test_one_step_comes_nearer_the_refit_than_theta_held(name, group, f):
    fit = clm.lmer(CASES[name].formula, frame(), **CASES[name].options)
    step, whole = (fit.influence(group, method=method) for method in ("one-step", "refit"))
    assert step.method == "one-step" and whole.method == "refit"
    codes = fit.model.design.codes[f]
    held = np.stack([without(fit, codes != code) for code in range(len(whole.fixed))])
    away = [np.square(fixed - whole.fixed.to_numpy()).sum(axis=0) for fixed in (step.fixed.to_numpy(), held)]
    assert (away[0] > 0.0).all() and (away[0] < 0.05 * away[1]).all()


def without(fit, keep):
    """Fixed effects by n x n matrices from some of the rows, theta as it was estimated from all."""
    rows = fit.model.design
    dense = Dense(
        rows.y[keep],
        rows.X[keep],
        [(rows.codes[t.factor][keep], rows.Z[t.factor][keep][:, list(t.columns)]) for t in fit.estimates.layout.terms],
        weights=None if rows.weights is None else rows.weights[keep],
        offset=None if rows.offset is None else rows.offset[keep],
    )
    return dense.fit(fit.estimates.theta, True).beta


def test_rows_left_out_against_dense_matrices():
    case = CASES["weights and offset"]
    fit = clm.lmer(case.formula, frame(), **case.options)
    found = fit.influence()
    assert found.method == "theta held" and found.components is None
    for i in (0, 57, 399):
        np.testing.assert_allclose(found.fixed.iloc[i], without(fit, np.arange(400) != i), rtol=1e-9)
    change = found.dfbeta.to_numpy()
    expected = np.einsum("ni,ij,nj->n", change, np.linalg.inv(fit.cov_params()), change) / change.shape[1]
    np.testing.assert_allclose(found.cooks_distance, expected, rtol=1e-9)


def test_groups_that_are_no_factor_of_the_model(sleepstudy):
    data = clm.datasets.load_sleepstudy()
    half = pd.Series(np.where(data["Days"] < 5, "early", "late"), index=data.index, name="half")
    found = sleepstudy.influence(half.sample(frac=1.0, random_state=1))  # matched by index
    assert list(found.fixed.index) == ["early", "late"] and found.groups == "half"
    other = clm.lmer("Reaction ~ Days + (Days | Subject)", data[data["Days"] >= 5])
    np.testing.assert_allclose(found.fixed.loc["early"], other.fe_params, rtol=1e-4)
    np.testing.assert_allclose(sleepstudy.influence(half.to_numpy()).fixed, found.fixed, rtol=1e-12)


def test_groups_that_the_model_cannot_do_without():
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"g": np.repeat(np.arange(8), 6), "y": rng.normal(size=48)})
    data["only"] = (data["g"] == 2).astype(float)
    data["y"] += rng.normal(size=8)[data["g"]]
    found = clm.lmer("y ~ only + (1 | g)", data).influence("g")
    assert set(found.refused) == {2} and "told apart" in found.refused[2]
    assert found.fixed.loc[2].isna().all() and np.isnan(found.cooks_distance[2])
    assert found.fixed.drop(2).notna().all(axis=None)
    assert "Not estimated without 2" in repr(found)


def test_two_levels_leave_one():
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"g": np.repeat([0, 1], 20), "h": np.tile(np.arange(10), 4), "y": rng.normal(size=40)})
    data["y"] += 2.0 * data["g"] + rng.normal(size=10)[data["h"]]
    found = clm.lmer("y ~ 1 + (1 | h) + (1 | g)", data).influence("g")
    assert set(found.refused) == {0, 1} and "one level of g is left" in found.refused[0]


def test_rows_in_batches_give_the_same():
    data = frame()
    formula = CASES["crossed"].formula
    whole, parts = clm.lmer(formula, data), clm.lmer(formula, [data.iloc[:100], data.iloc[100:]])
    some = list(whole.random_effects["b"].index[:2])
    expected = whole.influence("b", levels=some)
    np.testing.assert_allclose(parts.influence("b", levels=some).fixed, expected.fixed, rtol=1e-6)
    np.testing.assert_allclose(parts.influence().dfbeta, whole.influence().dfbeta, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"groups": "school"}, ModelError, "no grouping factor of this model .it has 'Subject'"),
        (
            {"groups": "Subject", "levels": ["999"]},
            ModelError,
            "'999', which is no level of Subject; they are as '308'",
        ),
        ({"groups": "Subject", "method": "jackknife"}, ModelError, "expected one of"),
        ({"method": "refit"}, ModelError, "theta held"),
        ({"groups": [1, 2, 3]}, DataError, "one label for each of the 180 rows"),
        ({"groups": pd.Series(range(180), index=range(1, 181))}, DataError, "index"),
    ],
)
def test_what_cannot_be_asked(sleepstudy, arguments, error, message):
    with pytest.raises(error, match=message):
        sleepstudy.influence(**arguments)


def test_progress_is_told(sleepstudy):
    told = []
    some = list(sleepstudy.random_effects["Subject"].index[:3])
    sleepstudy.influence("Subject", levels=some, progress=lambda *said: told.append(said))
    assert told == [("influence", 1, 3), ("influence", 2, 3), ("influence", 3, 3)]
