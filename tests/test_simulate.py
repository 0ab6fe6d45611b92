"""Responses drawn from fits and from parameters, refits, updates, power."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_conditional import crossed_data

import crosslmm as clm
from crosslmm.effects.rewrite import updated_formula
from crosslmm.formula import parse

FORMULA = "y ~ x + (x | a) + (1 | b)"


@pytest.fixture(scope="module")
def fit():
    return clm.lmer(FORMULA, crossed_data(), weights="w")


def marginal_covariance(fit, *, random: bool) -> np.ndarray:
    design = fit.model.design
    V = np.diag(fit.scale / design.weights)
    if random:
        for codes, Z, cov in zip(design.codes, design.Z, fit.estimates.covariances, strict=True):
            V += (codes[:, None] == codes) * (Z @ cov @ Z.T)
    return V


# --- simulate ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["new", "fitted"])
@pytest.mark.parametrize("own_rows", [True, False])
def test_draws_have_the_mean_and_covariance_of_the_model(fit, mode, own_rows) -> None:
    n = 4000
    data = None if own_rows else crossed_data().drop(columns="y")
    drawn = fit.simulate(n, rng=3, random_effects=mode, data=data)
    assert drawn.shape == (180, n) and list(drawn.columns[:2]) == ["sim_1", "sim_2"]
    mean = fit.predict(random_effects=mode == "fitted")
    V = marginal_covariance(fit, random=mode == "new")
    z = (drawn.mean(axis=1) - mean) / np.sqrt(np.diag(V) / n)
    assert np.sqrt(np.mean(z**2)) < 1.5 and np.abs(z).max() < 5
    root = np.linalg.cholesky(V)
    white = np.linalg.solve(root, drawn.to_numpy() - mean.to_numpy()[:, None])
    S = white @ white.T / n
    np.testing.assert_allclose(np.diag(S), 1.0, atol=6 * np.sqrt(2 / n))
    assert np.abs(S - np.diag(np.diag(S))).max() < 6 / np.sqrt(n)


def test_draws_are_repeated_by_their_seed(fit) -> None:
    pd.testing.assert_frame_equal(fit.simulate(2, rng=1), fit.simulate(2, rng=np.random.default_rng(1)))
    assert not fit.simulate(1, rng=1).equals(fit.simulate(1, rng=2))


def test_other_rows_new_levels_and_missing_values(fit) -> None:
    data = crossed_data().iloc[:4].drop(columns="y")
    data.loc[data.index[1], "x"] = np.nan
    data["a"] = [100, 0, 100, 101]
    drawn = fit.simulate(3000, rng=5, data=data)
    assert drawn.iloc[1].isna().all() and drawn.drop(index=1).notna().all(axis=None)
    shared = np.cov(drawn.iloc[0], drawn.iloc[2])[0, 1]  # rows of one new level share its effects
    z0, z2 = np.array([1.0, data.x.iloc[0]]), np.array([1.0, data.x.iloc[2]])
    expected = z0 @ fit.cov_re["a"].to_numpy() @ z2 + (data.b.iloc[0] == data.b.iloc[2]) * fit.cov_re["b"].iloc[0, 0]
    assert shared == pytest.approx(expected, abs=5 * np.sqrt(drawn.iloc[0].var() * drawn.iloc[2].var() / 3000))
    with pytest.raises(clm.DataError, match="'a' has levels"):
        fit.simulate(1, data=data, random_effects="fitted")
    flat = fit.simulate(4000, rng=1, data=data, random_effects="fitted", new_levels="population")
    mean = fit.predict(data, new_levels="population")
    assert flat.mean(axis=1).iloc[3] == pytest.approx(mean.iloc[3], abs=5 * flat.iloc[3].std() / np.sqrt(4000))


def test_streamed_models_simulate() -> None:
    data = crossed_data()
    streamed = clm.lmer(FORMULA, [data.iloc[:90], data.iloc[90:]], weights="w")
    assert streamed.simulate(2, rng=1).shape == (180, 2)


def test_simulate_from_parameters() -> None:
    data = crossed_data().drop(columns="y")
    beta, theta = {"x": 0.5, "Intercept": 2.0}, [0.8, 0.01, 0.02, 0.5]
    drawn = clm.simulate("~ x + (x | a) + (1 | b)", data, beta, theta, 2.0, rng=4, n=3000)
    T = np.array([[0.8, 0.0], [0.01, 0.02]])
    Z = np.column_stack([np.ones(180), data.x])
    V = 4.0 * np.eye(180) + 4.0 * (data.a.to_numpy()[:, None] == data.a.to_numpy()) * (Z @ T @ T.T @ Z.T)
    V += 4.0 * 0.25 * (data.b.to_numpy()[:, None] == data.b.to_numpy())
    white = np.linalg.solve(np.linalg.cholesky(V), drawn.to_numpy() - (2.0 + 0.5 * data.x).to_numpy()[:, None])
    np.testing.assert_allclose(np.mean(white**2, axis=1), 1.0, atol=6 * np.sqrt(2 / 3000))
    assert np.abs(white.mean(axis=1)).max() < 5 / np.sqrt(3000)
    named = clm.simulate("anything ~ x + (x | a) + (1 | b)", data, beta, np.array(theta), 2.0, rng=4, n=1)
    np.testing.assert_array_equal(named["sim_1"], clm.simulate(FORMULA, data, beta, theta, 2.0, rng=4)["sim_1"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": [1.0]}, "beta has 1 numbers, expected 2: Intercept, x"),
        ({"beta": {"Intercept": 1.0, "z": 2.0}}, "one number for each of Intercept, x; no x; unknown z"),
        ({"beta": ["a", "b"]}, "beta must be numbers"),
        ({"theta": [np.nan]}, "theta holds values that are not finite"),
        ({"sigma": 0.0}, "sigma=0.0: expected a positive number"),
        ({"n": 0}, "n=0: expected a whole number"),
        ({"rng": "x"}, "rng='x': expected a whole number"),
        ({"formula": "log(y) ~ x + (1 | a)"}, r"the response 'log\(y\)' is a formula of its own"),
    ],
)
def test_parameters_are_checked(change, message) -> None:
    arguments = {"formula": "~ x + (1 | a)", "data": crossed_data(), "beta": [1.0, 2.0], "theta": [1.0], "sigma": 1.0}
    with pytest.raises(clm.ModelError, match=message):
        clm.simulate(**(arguments | change))


@pytest.mark.slow
def test_refits_of_simulated_data_recover_the_parameters() -> None:
    rng = np.random.default_rng(8)
    data = pd.DataFrame(
        {"a": rng.integers(0, 60, 1500), "b": rng.integers(0, 30, 1500), "x": rng.standard_normal(1500)}
    )
    beta, theta, sigma = [1.0, -0.5], [0.7, 0.2, 0.4, 0.5], 1.5
    drawn = clm.simulate("~ x + (x | a) + (1 | b)", data, beta, theta, sigma, rng=2, n=60)
    first = clm.lmer(FORMULA, data.assign(y=drawn["sim_1"]))
    fits = [first.refit(drawn[name]) for name in drawn]
    for found, truth in (
        ([fit.fe_params for fit in fits], beta),
        ([fit.theta for fit in fits], theta),
        ([[fit.sigma] for fit in fits], [sigma]),
    ):
        mean, se = np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(60)
        np.testing.assert_array_less(np.abs(mean - truth), 4 * se)


# --- refit ---------------------------------------------------------------------------------------


def test_refit_is_a_fit_of_the_new_response(fit) -> None:
    y = fit.simulate(1, rng=9)["sim_1"]
    for scale in (1.0, 1e6):
        again = fit.refit(scale * y)
        fresh = clm.lmer(FORMULA, crossed_data().assign(y=scale * y), weights="w")
        np.testing.assert_allclose(again.fe_params, fresh.fe_params, rtol=1e-6)
        np.testing.assert_allclose(again.criterion, fresh.criterion, rtol=1e-10)
        np.testing.assert_allclose(again.fittedvalues, fresh.fittedvalues, rtol=1e-5)
        np.testing.assert_allclose(again.predict(crossed_data()), fresh.fittedvalues, rtol=1e-5)
    same = fit.refit(crossed_data()["y"].sample(frac=1.0, random_state=1))  # matched by its index
    np.testing.assert_allclose(same.theta, fit.theta, rtol=1e-5)
    assert clm.lmer(FORMULA, crossed_data(), reml=False).refit(y).method == "ML"


def test_refit_refuses_what_does_not_fit(fit) -> None:
    y = crossed_data()["y"]
    for bad, message in (
        (y.to_numpy()[:-1], r"one number for each of the 180 rows used .* has shape \(179,\)"),
        (y.iloc[1:], "does not match that of the 180 rows"),
        (y.where(y.index != 3), "not finite"),
        (np.ones(180), "is 1 in all 180 rows"),
        (["a"] * 180, "must be numbers"),
    ):
        with pytest.raises(clm.DataError, match=message):
            fit.refit(bad)
    with pytest.raises(clm.ModelError, match="start='zero'"):
        fit.refit(y, start="zero")
    streamed = clm.lmer(FORMULA, [crossed_data()])
    with pytest.raises(clm.ModelError, match="rows of the model in memory"):
        streamed.refit(y)


# --- update --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "change", "new"),
    [
        ("y ~ x + z + (1 | a)", "~ . - x", "y ~ z + (1 | a)"),
        ("y ~ x + z + (1 | a)", ". ~ . + w", "y ~ x + z + (1 | a) + w"),
        ("y ~ x + z + (1 | a)", "log(.) ~ .", "log(y) ~ x + z + (1 | a)"),
        ("y ~ x + (1 + x | a) + (1 | b)", "~ . - (x|a) + (1 | a)", "y ~ x + (1 | b) + (1 | a)"),
        ("y ~ x + (1 | a/b)", "~ . - (1 | a)", "y ~ x + (1 | b:a)"),
        ("y ~ a*b + (1 | g)", "~ . - a:b", "y ~ a + b + (1 | g)"),
        ("y ~ x + (1 | a)", "~ z + (1 | b)", "y ~ z + (1 | b)"),
        ("y ~ x + (1 | a)", "~ . - 1", "y ~ 0 + x + (1 | a)"),
        ("y ~ x + (1 | a)", "~ . - x", "y ~ 1 + (1 | a)"),
    ],
)
def test_changes_of_a_formula(old, change, new) -> None:
    found, wanted = parse(updated_formula(parse(old), change)), parse(new)
    terms = lambda parsed: {term.text for term in parsed.random}  # noqa: E731
    assert found.response == wanted.response and terms(found) == terms(wanted)
    rows = crossed_data().assign(z=np.arange(180) % 7, g=1.0)
    columns = lambda parsed: set(clm.mixedlm(f"y ~ {parsed.fixed} + (1 | c)", rows).design.fixed_names)  # noqa: E731
    assert columns(found) == columns(wanted)


def test_update_fits_the_changed_model(fit) -> None:
    data = crossed_data()
    smaller = fit.update("~ . - (x | a) + (1 | a)")
    fresh = clm.lmer("y ~ x + (1 | b) + (1 | a)", data, weights="w")
    assert smaller.criterion == pytest.approx(fresh.criterion, rel=1e-10)
    by_ml = fit.update(reml=False)
    assert by_ml.method == "ML" and by_ml.formula == FORMULA
    half = fit.update(data=data.iloc[:90])
    assert half.nobs == 90 and half.model.design.weights is not None
    streamed = clm.lmer(FORMULA, [data.iloc[:90], data.iloc[90:]], weights="w")
    assert streamed.update("~ . - (x | a) + (1 | a)").criterion == pytest.approx(fresh.criterion, rel=1e-9)


def test_updates_that_cannot_be(fit) -> None:
    import pickle

    for change, message in (("~ . - (1 | c)", r"no random-effects term \(1 \| c\)"), (". - x", "has one '~'")):
        with pytest.raises(clm.FormulaError, match=message):
            fit.update(change)
    with pytest.raises(clm.FormulaError, match="no term z"):
        fit.update("~ . - z")
    again = pickle.loads(pickle.dumps(fit))
    with pytest.raises(clm.ModelError, match=r"data of this model are not known any more .*: pass data="):
        again.update("~ . - x")
    assert again.update("~ . - x", crossed_data()).model.design.weights is not None


# --- power ---------------------------------------------------------------------------------------


def test_power_of_a_balanced_design_is_that_of_the_t_test() -> None:
    """Groups treated as wholes: the test is a two-sample t test of their means, whose power is known."""
    from scipy import stats

    data = pd.DataFrame({"s": np.repeat(np.arange(20), 5), "x": np.repeat([0.0, 1.0], 50)})
    found = clm.power("~ x + (1 | s)", data, [0.0, 1.2], [0.8], 1.0, "x", n=400, rng=6)
    ncp = 1.2 / np.sqrt(2 * (0.64 + 0.2) / 10)
    t = stats.t.ppf(0.975, 18)
    truth = stats.nct.sf(t, 18, ncp) + stats.nct.cdf(-t, 18, ncp)
    assert found.power == pytest.approx(truth, abs=3.5 * found.se)
    low, high = found.interval
    assert low < truth < high and found.n == 400 and found.n_failed == 0
    assert found.se == pytest.approx(np.sqrt(found.power * (1 - found.power) / 400))
    assert "power 0." in str(found) and "400 simulated studies" in str(found)
    expected = stats.binomtest(found.rejected, 400).proportion_ci(0.95, "exact")
    np.testing.assert_allclose(found.interval, (expected.low, expected.high), rtol=1e-10)


def test_size_of_the_test_and_of_its_interval_at_the_ends() -> None:
    data = pd.DataFrame({"s": np.repeat(np.arange(10), 6), "x": np.tile([0.0, 1.0], 30)})
    null = clm.power("~ x + (1 | s)", data, [3.0, 0.0], [0.5], 1.0, "x = 0", n=300, rng=1)
    assert null.interval[0] < 0.05 < null.interval[1]
    sure = clm.power("~ x + (1 | s)", data, [3.0, 50.0], [0.5], 1.0, "x", n=20, rng=1)
    assert sure.power == 1.0 and sure.interval[1] == 1.0 and 0.8 < sure.interval[0] < 1.0
    with pytest.raises(clm.ModelError, match="alpha must lie between 0 and 1, not 5"):
        clm.power("~ x + (1 | s)", data, [3.0, 0.0], [0.5], 1.0, "x", alpha=5)
    with pytest.raises(clm.ModelError):
        clm.power("~ x + (1 | s)", data, [3.0, 0.0], [0.5], 1.0, "nothing", n=2)
