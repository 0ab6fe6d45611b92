"""Profiles by the iterative engine: bounds of the direct one within their Monte Carlo errors, and errors that are true.

The designs are small enough for the direct engine, whose bounds are exact, and sparse enough that probes leave
something open.
"""

import pickle
import signal
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2, norm

import crosslmm as clm
from crosslmm.engine.direct import DirectEquations
from crosslmm.engine.iterative import IterativeEquations
from crosslmm.inference.profile import profile
from crosslmm.linalg import cg

ERRORS = 5.0
"""Standard errors within which what is sampled must lie."""

FOUND = 2e-6
"""Standard errors to which bounds are found, on both sides."""

SEEDS = 24
LUCK = 1e-3
"""Probability with which a correct error would be called wrong, on either side. One that is stated a third too small or
twice too large is found."""

INTERCEPTS = "y ~ x + (1 | a) + (1 | b)"
SLOPES = "y ~ x + (1 | a) + (1 + x | b)"

# sd of the intercepts of b and of their slopes
DESIGNS = {
    "intercepts": (INTERCEPTS, 0.9, 0.0),
    "slopes": (SLOPES, 0.9, 0.4),
    "no variance": (INTERCEPTS, 0.0, 0.0),
    "little variance": (SLOPES, 0.9, 0.05),
}


def rows(sd, slope, n_a=240, n_b=160, n=1500):
    rng = np.random.default_rng(21)
    data = pd.DataFrame({"a": rng.integers(0, n_a, n), "b": rng.integers(0, n_b, n), "x": rng.normal(size=n)})
    b = rng.normal(size=n_b)
    data["y"] = 0.3 * data["x"] + rng.normal(size=n) + 0.7 * rng.normal(size=n_a)[data["a"]] + sd * b[data["b"]]
    return data.assign(y=data["y"] + slope * (0.5 * b + rng.normal(size=n_b))[data["b"]] * data["x"])


def engine(seed=0, n_probes=32):
    return clm.IterativeEngine(border=0, n_probes=n_probes, max_probes=n_probes, rng=seed)


@cache
def model_of(name):
    formula, sd, slope = DESIGNS[name]
    return clm.MixedLM.from_formula(formula, rows(sd, slope))


@cache
def exact(name):
    fit = model_of(name).fit(reml=False, engine="direct")
    return fit, fit.profile()


@cache
def sampled(name):
    fit = model_of(name).fit(reml=False, engine=engine())
    return fit, fit.profile()


def bounds_and_errors(table):
    return table[[0, 1]].to_numpy(), table[["lower_mc_error", "upper_mc_error"]].to_numpy()


def standard_errors(table):
    """Roughly, from exact 95% intervals; shape (parameters, 1)."""
    return ((table[1] - table[0]) / 3.92).to_numpy()[:, None]


# --- bounds and their errors -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["intercepts", "slopes"])
def test_bounds_are_those_of_the_direct_engine(name):
    """Of standard deviations, correlations, sigma and fixed effects."""
    truth = exact(name)[1].conf_int()
    assert list(truth) == [0, 1]
    fit, curves = sampled(name)
    table = curves.conf_int()
    assert list(table) == [0, 1, "lower_mc_error", "upper_mc_error"]
    assert list(table.index) == list(truth.index)
    bounds, errors = bounds_and_errors(table)
    unit = standard_errors(truth)
    assert (np.abs(bounds - truth.to_numpy()) <= ERRORS * errors + FOUND * unit).all()
    assert (errors > 0.0).all()
    assert (errors < 0.01 * unit).all()
    # differences probe by probe leave far less open than the log-determinant itself, known to this:
    rise = 2.0 * norm.ppf(0.975) * errors / unit
    assert (rise < 0.3 * fit.estimates.sampling.criterion_error).all()


@pytest.mark.parametrize(
    ("name", "which"),
    [
        ("intercepts", ["sd_Intercept|b", "sigma"]),
        ("slopes", ["cor_x.Intercept|b", "sd_x|b", "x"]),
    ],
)
def test_stated_errors_of_bounds(name, which):
    """Over many seeds the bounds spread as their errors say, around the exact ones."""
    truth = exact(name)[1].conf_int().loc[which].to_numpy()
    z = []
    for seed in range(SEEDS):
        fit = model_of(name).fit(reml=False, engine=engine(seed))
        bounds, errors = bounds_and_errors(profile(fit, which, outermost=0.0).conf_int())
        z.append((bounds - truth) / errors)
    z = np.array(z)
    total = np.square(z).sum(axis=0)
    own = [i for i, parameter in enumerate(which) if parameter != "x"]
    assert (total[own] > chi2.ppf(LUCK, SEEDS)).all(), total
    assert (total < chi2.ppf(1 - LUCK, SEEDS)).all(), total
    assert (np.abs(z.mean(axis=0)) < 4.0 / np.sqrt(SEEDS)).all()


def test_errors_along_the_curves():
    truth, curves = exact("slopes")[1], sampled("slopes")[1]
    assert "zeta_mc_error" not in truth.to_frame()
    frame = curves.to_frame()
    for curve in curves.curves:
        own = frame[frame["parameter"] == curve.parameter.name]
        at_estimate = own["value"] == curve.estimate
        assert own.loc[at_estimate, "zeta_mc_error"].tolist() == [0.0]
        own = own[~at_estimate & (own["zeta"].abs() < 2.5)]
        expected = truth.zeta(curve.parameter.name, own["value"])
        spline = 2e-3  # what monotone interpolation of the exact points is off
        assert (np.abs(own["zeta"] - expected) <= ERRORS * own["zeta_mc_error"] + spline).all()


@pytest.mark.parametrize("options", [{"border": 1000}, {}])
def test_without_sampling_nothing_is_different(options):
    """Everything in the border, or one factor only."""
    data = rows(0.9, 0.0, n_a=30, n_b=12, n=600)
    formula = INTERCEPTS if options else "y ~ x + (1 + x | a)"
    model = clm.MixedLM.from_formula(formula, data)
    truth = model.fit(reml=False, engine="direct").profile()
    curves = model.fit(reml=False, engine=clm.IterativeEngine(**options)).profile()
    assert curves.n_probes == 0
    pd.testing.assert_frame_equal(curves.conf_int(), truth.conf_int(), rtol=1e-6)
    assert list(curves.to_frame()) == list(truth.to_frame())
    assert "Monte Carlo" not in repr(curves)


def test_evaluations_are_about_as_many(monkeypatch):
    calls = []
    for kind in (DirectEquations, IterativeEquations):
        at = kind.at
        monkeypatch.setattr(kind, "at", lambda self, T, at=at: calls.append(type(self)) or at(self, T))
    for name in ("intercepts", "slopes"):
        exact(name)[0].profile()
        sampled(name)[0].profile()
    direct = calls.count(DirectEquations)
    assert direct > 100
    assert calls.count(IterativeEquations) < 1.1 * direct


# --- limits ----------------------------------------------------------------------------------------


def test_a_variance_estimated_as_zero():
    (fit, truth), (own, curves) = exact("no variance"), sampled("no variance")
    name = "sd_Intercept|b"
    assert fit.estimates.boundary == own.estimates.boundary == ("b.Intercept",)
    lower, upper, lower_error, upper_error = curves.conf_int().loc[name]
    assert (lower, lower_error) == (0.0, 0.0)
    assert upper_error > 0.0
    exact_upper = truth.conf_int().loc[name, 1]
    assert abs(upper - exact_upper) < ERRORS * upper_error + FOUND * exact_upper


@pytest.fixture(scope="module")
def at_zero():
    """The point without the slopes, exact and sampled: its zeta lies below that of 95% bounds."""
    points = []
    for curves in (exact("little variance")[1], sampled("little variance")[1]):
        curve = next(c for c in curves.curves if c.parameter.name == "sd_x|b")
        points.append(curve.points[0])
        assert points[-1].value == 0.0
        assert -1.9 < points[-1].zeta < -0.1
    return points


def test_the_limit_is_sampled_by_the_same_probes(at_zero):
    """The smaller model has other equations, but its deviance is read off those of the larger one."""
    truth, own = at_zero
    assert abs(own.zeta - truth.zeta) < ERRORS * own.zeta_error
    assert 0.0 < own.error < 0.3 * sampled("little variance")[0].estimates.sampling.criterion_error


def test_bounds_at_limits_are_certain_or_not_known(at_zero):
    curves = sampled("little variance")[1]
    table = curves.conf_int()
    assert table.loc["sd_x|b", [0, "lower_mc_error"]].tolist() == [0.0, 0.0]
    assert table.loc["cor_x.Intercept|b"].tolist() == [-1.0, 1.0, 0.0, 0.0]
    assert table.loc["sd_x|b", "upper_mc_error"] > 0.0
    beside = 2.0 * norm.sf(abs(at_zero[1].zeta) + at_zero[1].zeta_error)
    lower = curves.conf_int(beside).loc["sd_x|b", [0, "lower_mc_error"]]
    assert lower[0] == 0.0
    assert np.isnan(lower["lower_mc_error"])


# --- what a profile leaves as it is ----------------------------------------------------------------


def test_a_fit_by_reml_is_profiled_by_ml_with_the_same_options():
    by_reml = model_of("intercepts").fit(engine=engine(5, 20))
    by_ml = model_of("intercepts").fit(reml=False, engine=engine(5, 20))
    before = pickle.dumps(by_reml.estimates)
    which = ["sd_Intercept|a", "x"]
    table = by_reml.conf_int(method="profile", which=which)
    pd.testing.assert_frame_equal(table, by_ml.conf_int(method="profile", which=which), rtol=1e-12)
    assert by_reml.profile("x").n_probes == 20
    assert pickle.dumps(by_reml.estimates) == before
    other = model_of("intercepts").fit(reml=False, engine=engine(6, 20)).conf_int(method="profile", which=which)
    assert not np.array_equal(other, table)


def test_the_order_of_rows_does_not_matter():
    formula, sd, slope = DESIGNS["slopes"]
    data = rows(sd, slope)
    which = ["sd_x|b", "Intercept"]
    tables = []
    for order in (np.arange(len(data)), np.random.default_rng(1).permutation(len(data))):
        fit = clm.lmer(formula, data.iloc[order], reml=False, engine=engine(3))
        tables.append(fit.conf_int(method="profile", which=which))
    pd.testing.assert_frame_equal(*tables, rtol=1e-5)


def test_the_repr_tells_of_errors():
    text = repr(sampled("intercepts")[1])
    assert "95% intervals, Monte Carlo errors by 32 probes" in text
    assert "upper_mc_error" in text
    assert "probes" not in repr(exact("intercepts")[1])


def test_progress_is_told():
    fit = sampled("intercepts")[0]
    told = []
    table = fit.conf_int(method="profile", which=["sigma", "x"], progress=lambda *news: told.append(news))
    assert told == [("profile", done, 12) for done in range(1, 13)]
    pd.testing.assert_frame_equal(table, fit.conf_int(method="profile", which=["sigma", "x"], progress=False))
    with pytest.raises(clm.ModelError, match="expected None, True, False or a callable"):
        fit.profile("sigma", progress=3)


@pytest.mark.parametrize("call", [1, 3, 20])
def test_an_interrupted_profile_is_made_again(call, monkeypatch):
    """Ctrl-C ends at once and leaves nothing behind."""
    fit = sampled("intercepts")[0]
    before = pickle.dumps(fit.estimates)
    undisturbed = fit.profile("sigma").to_frame()
    solve, calls = cg.solve, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == call:
            signal.raise_signal(signal.SIGINT)
        return solve(*arguments)

    monkeypatch.setattr(cg, "solve", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit.profile("sigma")
    assert len(calls) == call
    monkeypatch.undo()
    assert pickle.dumps(fit.estimates) == before
    pd.testing.assert_frame_equal(fit.profile("sigma").to_frame(), undisturbed, check_exact=True)


def test_a_curve_that_jumps_by_less_than_its_error_has_a_bound():
    """The sampled deviance is not smooth where a variance becomes 0, and an interpolation went on for ever."""
    rng = np.random.default_rng(37)
    a, b, c = (rng.integers(0, 5, 30) for _ in range(3))
    y = rng.normal(size=5)[a] + rng.normal(size=5)[b] + 0.3 * rng.normal(size=30)
    data, name = pd.DataFrame({"y": y, "a": a, "b": b, "c": c}), "sd_Intercept|b"
    formula, engine = "y ~ 1 + (1 | a) + (1 | b) + (1 | c)", clm.IterativeEngine(border=0, max_probes=64)
    sampled = clm.lmer(formula, data, reml=False, engine=engine).profile(name).conf_int().loc[name]
    exact = clm.lmer(formula, data, reml=False).profile(name).conf_int().loc[name]
    width = exact[1] - exact[0]
    assert abs(sampled[0] - exact[0]) < 5 * sampled["lower_mc_error"] + 1e-3 * width
    assert abs(sampled[1] - exact[1]) < 5 * sampled["upper_mc_error"] + 1e-3 * width
