"""What the iterative engine samples agrees with the exact answer within the error it carries."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import crosslmm as clm
from crosslmm.engine.choose import choose
from crosslmm.inference import traces
from crosslmm.inference.at_fit import state_at
from crosslmm.inference.information import expected_hessian, observed_hessian
from crosslmm.inference.kenward_roger import linear_parameters
from crosslmm.inference.state import state_of, white_scores

ERRORS = 5.0
"""Standard errors within which what is sampled must lie."""

SEARCH = 1e-4
"""A search ends at a predicted decrease of 1e-8, which leaves theta this part of its standard error."""


@cache
def fits():
    rng = np.random.default_rng(21)
    n = 3000
    data = pd.DataFrame({"a": rng.integers(0, 150, n), "b": rng.integers(0, 80, n), "x": rng.normal(size=n)})
    data["u"] = rng.normal(size=150)[data["a"]]  # between levels of a: few degrees of freedom
    data["y"] = 0.3 * data["x"] + rng.normal(size=n) + 0.7 * rng.normal(size=150)[data["a"]]
    data["y"] += 0.9 * rng.normal(size=80)[data["b"]] + 0.4 * rng.normal(size=80)[data["b"]] * data["x"]
    model = clm.MixedLM.from_formula("y ~ x + u + (1 | a) + (1 + x | b)", data)
    sampled = model.fit(engine=clm.IterativeEngine(n_probes=64, border=0))
    return model.fit(), sampled


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
def test_degrees_of_freedom(ddf):
    exact, sampled = (fit.coef_table(ddf=ddf) for fit in fits())
    assert "df_mc_error" not in exact
    for column in ("df", "std_error"):
        error = sampled[f"{column}_mc_error"]
        assert (error > 0).all()
        assert (error < 0.01 * sampled[column]).all()
        assert ((sampled[column] - exact[column]).abs() < ERRORS * error + SEARCH * exact[column]).all()
    want, result = (fit.test("x = 0, u = 0", ddf=ddf) for fit in fits())
    assert want.f_mc_error == want.den_df_mc_error == 0
    for name in ("f", "den_df"):
        value, exact_value = (getattr(r, "f_value" if name == "f" else name) for r in (result, want))
        error = getattr(result, f"{name}_mc_error")
        assert error > 0
        assert abs(value - exact_value) < ERRORS * error + SEARCH * exact_value
    assert repr(result).count("Monte Carlo error") == 2 and "Monte Carlo" not in repr(want)
    assert list(want.to_frame()) == ["num_df", "den_df", "f_value", "p_value"]
    assert list(result.to_frame()) == [*want.to_frame(), "f_mc_error", "den_df_mc_error"]


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
def test_tables_of_terms_and_means(ddf):
    exact, sampled = fits()
    errors = {"f_mc_error", "den_df_mc_error"}
    table = sampled.anova(ddf=ddf)
    assert not errors & set(exact.anova(ddf=ddf)) and (table[sorted(errors)] > 0).all().all()
    joint = sampled.test("u", ddf=ddf)
    assert table.loc["u", "f_mc_error"] == pytest.approx(joint.f_mc_error, rel=1e-6)
    means = sampled.emmeans("x", at={"x": [0, 1]}, ddf=ddf)
    for frame in (means.to_frame(), means.contrasts()):
        assert (frame[["std_error_mc_error", "df_mc_error"]] > 0).all().all()
    slope = sampled.coef_table(ddf=ddf).loc["x"]  # the difference of the means
    assert frame["std_error_mc_error"].iloc[0] == pytest.approx(slope["std_error_mc_error"], rel=1e-6)


@cache
def sparse_model():
    """Few rows per level, so that probes differ."""
    rng = np.random.default_rng(4)
    n = 1200
    data = pd.DataFrame({"a": rng.integers(0, 400, n), "b": rng.integers(0, 300, n), "x": rng.normal(size=n)})
    data["v"] = rng.normal(size=300)[data["b"]]
    data["y"] = 0.1 * data["x"] + rng.normal(size=n)
    data["y"] += 0.8 * rng.normal(size=400)[data["a"]] + 0.7 * rng.normal(size=300)[data["b"]]
    return clm.MixedLM.from_formula("y ~ x + v + (1 | a) + (1 | b)", data)


@cache
def of_seeds(n_seeds=20):
    """Fits with few probes that differ in their seeds only."""
    engines = [clm.IterativeEngine(n_probes=16, border=0, error=0.3, rng=100 + seed) for seed in range(n_seeds)]
    return [sparse_model().fit(engine=engine) for engine in engines]


def check_spread(values, stated):
    """Standard deviation over fits (n, q) against stated errors: inside what chi-squared allows in 999 of 1000."""
    values, stated = np.array(values, dtype=float), np.array(stated, dtype=float)
    ratio = values.std(axis=0, ddof=1) / np.sqrt(np.square(stated).mean(axis=0))
    low, high = np.sqrt(stats.chi2.ppf([0.0005, 0.9995], len(values) - 1) / (len(values) - 1))
    assert (ratio > low).all() and (ratio < high).all(), ratio


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
def test_sampled_tests_have_the_exact_ones_as_their_mean(ddf):
    exact, tables = sparse_model().fit().coef_table(ddf=ddf), [fit.coef_table(ddf=ddf) for fit in of_seeds()]
    for column in ("std_error", "df"):
        mean = np.mean([table[column] for table in tables], axis=0)
        error = np.mean([table[f"{column}_mc_error"] for table in tables], axis=0) / np.sqrt(len(tables))
        assert (np.abs(mean - exact[column]) < ERRORS * error).all()


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
def test_stated_errors_are_the_spread_over_seeds(ddf):
    tables = [fit.coef_table(ddf=ddf) for fit in of_seeds()]
    for column in ("std_error", "df"):
        check_spread([table[column] for table in tables], [table[f"{column}_mc_error"] for table in tables])
    results = [fit.test("x = 0, v = 0", ddf=ddf) for fit in of_seeds()]
    check_spread([[r.f_value, r.den_df] for r in results], [[r.f_mc_error, r.den_df_mc_error] for r in results])


@pytest.mark.parametrize("information", ["observed", "expected", "average"])
def test_stated_errors_of_standard_errors_are_the_spread_over_seeds(information):
    tables = [fit.varcorr_table(information) for fit in of_seeds()]
    for column in ("vcov", "sdcor", "vcov_se", "sdcor_se"):
        check_spread([table[column] for table in tables], [table[f"{column}_mc_error"] for table in tables])
    tables = [fit.parameter_table(information) for fit in of_seeds()]
    check_spread([table["estimate"] for table in tables], [table["mc_error"] for table in tables])
    check_spread([table["std_error"] for table in tables], [table["std_error_mc_error"] for table in tables])


@pytest.mark.parametrize("information", ["observed", "expected", "average"])
def test_errors_of_variance_components(information):
    """With slopes: standard errors agree with the exact ones, errors of components with those of the fit."""
    exact, sampled = (fit.varcorr_table(information) for fit in fits())
    assert list(exact.columns) == ["group", "name1", "name2", "vcov", "vcov_se", "sdcor", "sdcor_se"]
    for column in ("vcov", "vcov_se", "sdcor", "sdcor_se"):
        error = sampled[f"{column}_mc_error"]
        assert (error > 0).all() and (error < 0.01 * sampled[column].abs()).all()
        assert ((sampled[column] - exact[column]).abs() < ERRORS * error + SEARCH * exact[column].abs()).all()
    for column in ("vcov", "sdcor"):
        np.testing.assert_allclose(sampled[f"{column}_mc_error"], fits()[1].varcorr_mc_error[column], rtol=1e-5)
    table = fits()[1].parameter_table(information)
    np.testing.assert_allclose(table["mc_error"].iloc[:-1], fits()[1].theta_mc_error, rtol=1e-5)


def test_traces_by_signs_and_exactly():
    state = state_at(fits()[0])
    white, moved = white_scores(state.value), linear_parameters(state.xp.layout)
    exact = traces.trace_products(state.value.system, white, moved, n_probes=0)
    assert exact.deviations.shape[0] == 0
    sampled = traces.trace_products(state.value.system, white, moved, n_probes=300, seed=5)
    n = 300
    error = np.sqrt(np.square(sampled.deviations).sum(axis=0) / (n * (n - 1)))
    assert (error < 0.05 * np.abs(exact.mean).max()).all()
    assert (np.abs(sampled.mean - exact.mean) <= ERRORS * error + 1e-9 * np.abs(exact.mean)).all()


def test_stretches_of_levels_do_not_matter(monkeypatch):
    state = state_at(fits()[0])
    white, moved = white_scores(state.value), linear_parameters(state.xp.layout)
    whole = traces.trace_products(state.value.system, white, moved, n_probes=0)
    monkeypatch.setattr(traces, "STRETCH_BYTES", 8 * 310 * 7)
    parts = traces.trace_products(state.value.system, white, moved, n_probes=0)
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-10)


def test_jackknife_of_a_mean():
    sample = np.random.default_rng(0).normal(size=40)
    deviations = (sample - sample.mean())[:, None, None]
    of = traces.Sampled(np.array([[sample.mean()]]), deviations)
    error = traces.jackknife(of.replicates[:, 0, 0])
    assert float(error) == pytest.approx(sample.std(ddof=1) / np.sqrt(40))


def test_sampled_information():
    """The Hessian from sampled gradients, and traces by signs, at the same theta as the exact ones."""
    fit, model = fits()[0], fits()[0].model
    exact = state_at(fit)
    equations = choose(model.crossproducts, clm.IterativeEngine(n_probes=32, border=0, rng=3))
    sampled = state_of(model.crossproducts, equations, fit.estimates)
    pairs = [
        (observed_hessian(sampled)[0], observed_hessian(exact)[0]),
        (expected_hessian(sampled)[0], expected_hessian(exact)[0]),
    ]
    for ours, theirs in pairs:
        error = np.sqrt(np.square(ours.deviations).sum(axis=0) / (32 * 31))
        size = np.sqrt(np.outer(np.diag(theirs.mean), np.diag(theirs.mean)))
        assert (error < 0.02 * size).all()
        assert (np.abs(ours.mean - theirs.mean) <= ERRORS * error + 1e-6 * size).all()


def test_traces_of_few_levels_are_exact():
    """A factor with five levels beside two with many: sixteen signs would leave its part uncertain."""
    rng = np.random.default_rng(3)
    n = 3000
    data = pd.DataFrame({"a": rng.integers(0, 150, n), "b": rng.integers(0, 80, n), "c": rng.integers(0, 5, n)})
    data["y"] = rng.normal(size=n) + 0.7 * rng.normal(size=150)[data["a"]] + 0.5 * rng.normal(size=5)[data["c"]]
    data["y"] += 0.5 * rng.normal(size=80)[data["b"]]
    model = clm.MixedLM.from_formula("y ~ 1 + (1 | a) + (1 | b) + (1 | c)", data)
    exact = model.fit().coef_table(ddf="kenward-roger").loc["Intercept"]
    for seed in range(3):
        fit = model.fit(engine=clm.IterativeEngine(border=0, n_probes=64, rng=seed))
        found = fit.coef_table(ddf="kenward-roger").loc["Intercept"]
        assert found["df"] == pytest.approx(exact["df"], rel=0.1 * fit.estimates.sampling.ratio)
        assert found["std_error"] == pytest.approx(exact["std_error"], rel=fit.estimates.sampling.ratio)
