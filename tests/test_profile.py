"""Profiles of the deviance against R's root finding, the dense deviance, and what lies on a boundary."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from dense import Dense
from refdata import load_data, load_model, model_names, pieces, r_name
from scipy import optimize, stats

import crosslmm as clm
from crosslmm.inference.curve import Point
from crosslmm.inference.search import point_at, start_of_search

PROFILED = [name for name in model_names() if load_model(name).get("profile_ci")]


def r_parameter(name: str) -> str:
    return name.replace("Intercept", "(Intercept)") if "|" in name else r_name(name)


@pytest.mark.parametrize("name", PROFILED)
def test_bounds_are_those_of_root_finding(name, reference_fit):
    want = pd.DataFrame(load_model(name)["profile_ci"]["root_finding"]).set_index("param")
    got = reference_fit(name).conf_int(method="profile").rename(index=r_parameter).loc[want.index]
    np.testing.assert_allclose(got[0], want["lower"].astype(float), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(got[1], want["upper"].astype(float), rtol=1e-6, atol=1e-9)


def test_a_fit_by_reml_is_profiled_by_ml_and_left_as_it_was(reference_fit):
    by_reml, by_ml = reference_fit("sleepstudy_slope_reml"), reference_fit("sleepstudy_slope_ml")
    before = by_reml.estimates
    pd.testing.assert_frame_equal(by_reml.profile().conf_int(), by_ml.profile().conf_int(), rtol=1e-6)
    assert by_reml.estimates is before and by_reml.method == "REML"


def test_curves_are_the_least_deviance_of_the_dense_model(reference_fit):
    """Nelder and Mead over what is left, at the points of the curves of a standard deviation and of sigma."""
    ref = load_model("sleepstudy_int_ml")
    parts = pieces(ref)
    dense = Dense(parts.y, parts.X, parts.terms)
    n = parts.y.size
    profile = reference_fit("sleepstudy_int_ml").profile()

    def deviance(theta: float, sigma: float) -> float:
        fit = dense.fit([theta], False)
        ratio = (fit.sigma / sigma) ** 2
        return fit.criterion + n * (ratio - 1 - np.log(ratio))

    for name, at in {
        "sd_Intercept|Subject": lambda v: lambda x: deviance(v / np.exp(x), np.exp(x)),
        "sigma": lambda v: lambda x: deviance(np.exp(x), v),
    }.items():
        for point in profile.to_frame().query("parameter == @name").itertuples():
            start = 3.4 if name != "sigma" else 0.2
            best = optimize.minimize_scalar(at(point.value), bracket=(start, start + 0.1), tol=1e-10)
            assert point.deviance == pytest.approx(best.fun, abs=1e-6)


def test_the_curve_of_a_fixed_effect_is_a_fit_with_an_offset():
    data = load_data("sleepstudy")
    profile = clm.lmer("Reaction ~ Days + (Days | Subject)", data, reml=False).profile("Days")
    for point in profile.to_frame().itertuples():
        held = clm.lmer("Reaction ~ 1 + (Days | Subject)", data, reml=False, offset=point.value * data["Days"])
        assert point.deviance == pytest.approx(held.criterion, abs=2e-6)


def test_three_columns_have_three_correlations(reference_fit):
    """Each correlation by a constrained search of scipy over the other parameters."""
    fit = reference_fit("machines_vector_ml")
    name = "cor_Machine[C].Machine[A]|Worker"
    profile = fit.profile([name])
    estimate = fit.varcorr.query("name1 == 'Machine[A]' and name2 == 'Machine[C]'")["sdcor"].iloc[0]
    assert profile.curves[0].estimate == pytest.approx(estimate, abs=1e-6)
    bound = profile.conf_int()[0].iloc[0]
    got = profile.to_frame().set_index("value").loc[bound, "deviance"]
    assert got - fit.criterion == pytest.approx(stats.chi2.ppf(0.95, 1), abs=1e-5)

    def correlation(theta):
        T = fit.estimates.layout.templates(theta)[0]
        V = T @ T.T
        return V[0, 2] / np.sqrt(V[0, 0] * V[2, 2])

    best = optimize.minimize(
        lambda t: fit.model.objective(t, reml=False).criterion,
        fit.theta.to_numpy(),
        jac=lambda t: fit.model.objective(t, reml=False).gradient,
        constraints={"type": "eq", "fun": lambda t: correlation(t) - bound},
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )
    assert got == pytest.approx(best.fun, abs=1e-4) and got <= best.fun + 1e-6


def test_a_variance_of_zero_gives_an_interval_from_zero(reference_fit):
    fit = reference_fit("dyestuff2_ml")
    interval = fit.conf_int(method="profile", which=["sd_Intercept|Batch"])
    assert interval[0].iloc[0] == 0.0 and interval[1].iloc[0] > 0.0
    upper, sigma = interval[1].iloc[0], fit.sigma
    theta = optimize.minimize_scalar(
        lambda t: _deviance(fit, t, upper / t), bounds=(0.1 * upper / sigma, 10 * upper / sigma), method="bounded"
    )
    assert theta.fun - fit.criterion == pytest.approx(stats.chi2.ppf(0.95, 1), abs=1e-5)


def _deviance(fit, theta: float, sigma: float) -> float:
    """Deviance at theta and any sigma, from the profiled one."""
    best = fit.model.objective([theta], reml=False).criterion
    log_det = best - fit.nobs * (1 + np.log(2 * np.pi * _residual(fit, theta)))
    return log_det + fit.nobs * np.log(2 * np.pi * sigma**2) + fit.nobs * _residual(fit, theta) / sigma**2


def _residual(fit, theta: float) -> float:
    """Residual variance at theta of the balanced one-way layout, by the book."""
    data = load_data("dyestuff2")
    y = data["Yield"].to_numpy()
    groups = data.groupby("Batch", observed=True)["Yield"]
    m = groups.size().iloc[0]
    within = float(((y - groups.transform("mean")) ** 2).sum())
    between = m * float(((groups.mean() - y.mean()) ** 2).sum())
    return (within + between / (1 + m * theta**2)) / y.size


def test_a_crossed_variance_of_zero_gives_an_interval_from_zero():
    """Its upper bound, by a search of scipy over both relative standard deviations with sigma fixed by them."""
    rng = np.random.default_rng(21)
    n = 1500
    data = pd.DataFrame({"a": rng.integers(0, 240, n), "b": rng.integers(0, 160, n)})
    data["y"] = rng.normal(size=n) + 0.7 * rng.normal(size=240)[data["a"]]
    fit = clm.lmer("y ~ 1 + (1 | a) + (1 | b)", data, reml=False)
    assert fit.estimates.boundary == ("b.Intercept",)
    interval = fit.conf_int(method="profile", which=["sd_Intercept|b"])
    assert interval[0].iloc[0] == 0.0
    upper = interval[1].iloc[0]

    def deviance(logs):
        theta = np.exp(logs)
        at = fit.model.fit(reml=False, start=theta, do_cg=False)
        ratio = (at.sigma * theta[1] / upper) ** 2
        return at.criterion + n * (ratio - 1.0 - np.log(ratio))

    best = optimize.minimize(deviance, np.log([0.7, upper / fit.sigma]), method="Nelder-Mead", options={"fatol": 1e-9})
    assert best.fun - fit.criterion == pytest.approx(stats.chi2.ppf(0.95, 1), abs=1e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_correlation_estimated_at_its_limit(sign):
    """The interval ends at the estimate, whichever limit that is."""
    rng = np.random.default_rng(5)
    data = pd.DataFrame({"x": np.tile(np.arange(6.0) - 2.5, 12), "g": np.repeat(np.arange(12), 6)})
    u = rng.normal(size=12)[data["g"]]
    data["y"] = rng.normal(size=72) + 2.0 * u + 0.8 * u * data["x"]
    intervals = []
    for name in ("x", "z"):
        fit = clm.lmer(f"y ~ {name} + ({name} | g)", data.assign(z=sign * data["x"]), reml=False)
        intervals.append(fit.conf_int(method="profile", which=[f"cor_{name}.Intercept|g"]).iloc[0])
    assert intervals[0][1] == 1.0
    assert 0.5 < intervals[0][0] < 0.99
    assert sorted(sign * intervals[1]) == pytest.approx(sorted(intervals[0]), abs=1e-6)


def test_a_correlation_without_a_variance_is_not_known():
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"x": np.tile(np.arange(10.0), 20), "g": np.repeat(np.arange(20), 10)})
    data["y"] = rng.normal(size=200)
    data["y"] -= data.groupby("g")["y"].transform("mean")
    fit = clm.lmer("y ~ x + (x | g)", data, reml=False)
    interval = fit.conf_int(method="profile", which="random")
    correlation = interval.loc["cor_x.Intercept|g"]
    assert (correlation[0], correlation[1]) == (-1.0, 1.0)
    assert (interval[0] <= interval[1]).all() and (interval.drop("sigma")[0].iloc[0]) == 0.0


def test_a_bound_just_inside_the_limit_is_found(reference_fit):
    """The level at which the upper bound of a correlation comes to lie between 0.9999 and 1."""
    fit = reference_fit("dietox_slope_ml")
    name = "cor_Time.Intercept|Pig"
    limit = fit.profile([name]).ready[0]
    at_one = limit.constrained.problem(1.0)
    top = optimize.minimize(lambda x: at_one.value(np.abs(x)).criterion, limit.constrained.start, method="Nelder-Mead")
    zeta = np.sqrt(top.fun - fit.criterion)
    inside = fit.conf_int(2 * stats.norm.sf(0.9999 * zeta), method="profile", which=[name])
    outside = fit.conf_int(2 * stats.norm.sf(1.0001 * zeta), method="profile", which=[name])
    assert 0.99 < inside[1].iloc[0] < 1.0 and outside[1].iloc[0] == 1.0


def test_levels_nest_and_other_levels_are_found_later(reference_fit):
    profile = reference_fit("sleepstudy_slope_ml").profile()
    narrow, middle, wide = (profile.conf_int(alpha) for alpha in (0.5, 0.05, 0.005))
    assert (narrow[0] > middle[0]).all() and (middle[0] > wide[0]).all()
    assert (narrow[1] < middle[1]).all() and (middle[1] < wide[1]).all()
    at_once = reference_fit("sleepstudy_slope_ml").profile(alpha=0.5).conf_int(0.5)
    pd.testing.assert_frame_equal(narrow, at_once, rtol=1e-5)


def test_zeta_of_a_curve_is_monotone_and_zero_at_the_estimate(reference_fit):
    profile = reference_fit("sleepstudy_slope_ml").profile()
    for curve in profile.curves:
        zeta = np.array([p.zeta for p in curve.points])
        assert (np.diff(zeta) > 0).all() and zeta[0] < -1.9 and zeta[-1] > 1.9
        assert profile.zeta(curve.parameter.name, [curve.estimate])[0] == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(clm.ModelError, match="no profile"):
        profile.zeta("nobody", [1.0])


def test_wald_intervals_stay_inside_their_limits(reference_fit):
    fit = reference_fit("sleepstudy_slope_reml")
    wald = fit.conf_int(which="all")
    half = 1.959963984540054 * fit.bse_fe
    np.testing.assert_allclose(wald.loc["Days"], fit.fe_params["Days"] + np.array([-1, 1]) * half["Days"], rtol=1e-12)
    assert (wald.filter(like="sd_", axis=0)[0] > 0).all() and wald.loc["cor_Days.Intercept|Subject"].abs().max() < 1
    sd = fit.varcorr.query("group == 'Residual'")["sdcor"].iloc[0]
    error = fit.varcorr_se.query("group == 'Residual'")["sdcor"].iloc[0]
    np.testing.assert_allclose(wald.loc["sigma"], sd * np.exp(np.array([-1, 1]) * 1.95996398 * error / sd), rtol=1e-5)
    pd.testing.assert_frame_equal(fit.conf_int(), wald.loc[["Intercept", "Days"]])


def test_what_is_refused(reference_fit):
    fit = reference_fit("sleepstudy_slope_ml")
    with pytest.raises(clm.ModelError, match="expected 'all', 'fixed', 'random' or names among"):
        fit.profile("Sex")
    with pytest.raises(clm.ModelError, match="expected 'wald'"):
        fit.conf_int(method="likelihood")
    with pytest.raises(ValueError, match="alpha must lie between"):
        fit.profile(alpha=1.0)


@pytest.mark.simulation
def test_coverage_of_profile_and_wald_intervals():
    """400 responses drawn from the fit of sleepstudy by ML; results in docs/profile.md."""
    from crosslmm.inference.bootstrap import truth_of
    from crosslmm.inference.replicates import seeds
    from crosslmm.inference.simulate import draw, simulator
    from crosslmm.inference.wald import estimates_of

    fit = clm.lmer("Reaction ~ Days + (Days | Subject)", load_data("sleepstudy"), reml=False)
    xp, true = fit.model.crossproducts, estimates_of(fit)
    y = draw(simulator(xp, truth_of(fit.estimates, xp.layout)), [np.random.default_rng(s) for s in seeds(1, 400)])
    inside: dict[str, list[pd.Series]] = {"profile": [], "wald": []}
    for r in range(y.size):
        again = clm.MixedLM.from_crossproducts(y.one(xp, r)).fit(reml=False)
        for method, rows in inside.items():
            interval = again.conf_int(method=method, which="all")
            rows.append((interval[0] <= true) & (true <= interval[1]))
    coverage = pd.DataFrame({method: pd.concat(rows, axis=1).mean(axis=1) for method, rows in inside.items()})
    print(coverage)
    assert coverage["profile"].between(0.90, 0.985).all()


def test_a_curve_that_no_longer_rises_goes_on_to_its_limit():
    """The correlation with slopes of little variance: beyond some value the best fit has no slopes at all."""
    rng = np.random.default_rng(21)
    data = pd.DataFrame({"a": rng.integers(0, 240, 1500), "b": rng.integers(0, 160, 1500), "x": rng.normal(size=1500)})
    b = rng.normal(size=160)
    data["y"] = 0.3 * data["x"] + rng.normal(size=1500) + 0.7 * rng.normal(size=240)[data["a"]] + 0.9 * b[data["b"]]
    data["y"] += 0.05 * (0.5 * b + rng.normal(size=160))[data["b"]] * data["x"]
    fit = clm.lmer("y ~ x + (1 | a) + (1 + x | b)", data, reml=False)
    name = "cor_x.Intercept|b"
    profile = fit.profile([name])
    plateau = clm.lmer("y ~ x + (1 | a) + (1 | b)", data, reml=False).criterion - fit.criterion
    assert plateau < stats.chi2.ppf(0.95, 1)
    assert profile.curves[0].points[-1].zeta ** 2 == pytest.approx(plateau, abs=1e-6)
    assert profile.conf_int().loc[name].tolist() == [-1.0, 1.0]
    assert len(profile.curves[0].points) < 12


def grouped_data(seed: int, n: int, levels: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    b, a, w = rng.integers(0, levels, n), rng.integers(0, 5, n), rng.normal(size=n)
    y = 0.6 * rng.normal(size=levels)[b] + 0.6 * rng.normal(size=levels)[b] * w + 0.6 * rng.normal(size=5)[a]
    return pd.DataFrame({"y": y + rng.normal(size=n), "w": w, "a": a, "b": b})


@pytest.mark.parametrize("engine", ["direct", clm.IterativeEngine(border=0)])
@pytest.mark.parametrize("seed", [1, 52])
def test_a_correlation_is_nowhere_worse_than_without_its_effects(seed, engine):
    """Searches for other minima at a correlation held far away ended higher than with no intercepts, or no slopes."""
    data = grouped_data(seed, 60, 6)
    fit = clm.lmer("y ~ 1 + (w | b)", data, reml=False, engine=engine)
    name = "cor_w.Intercept|b"
    profile = fit.profile([name])
    smaller = [clm.lmer(f"y ~ 1 + ({term} | b)", data, reml=False, engine=engine) for term in ("1", "0 + w")]
    plateau = min(other.criterion for other in smaller) - fit.criterion
    assert plateau < stats.chi2.ppf(0.95, 1)
    assert profile.conf_int().loc[name].tolist() == [-1.0, 1.0]
    assert (profile.to_frame()["zeta"] ** 2 <= plateau + 1e-6).all()


@pytest.mark.parametrize(("seed", "name", "side"), [(39, "w", 0), (101, "Intercept", 0), (104, "Intercept", 1)])
def test_bounds_belong_to_the_lowest_of_several_minima(seed, name, side):
    """One variance or the other is 0 where the fixed effect is held; the dense deviance from many starts."""
    data = grouped_data(seed, 24, 5)
    fit = clm.lmer("y ~ w + (1 | a) + (1 | b)", data, reml=False)
    bound = fit.conf_int(method="profile", which=[name]).loc[name, side]
    X = np.column_stack([np.ones(24), data["w"]])
    held = ["Intercept", "w"].index(name)
    terms = [(data[g].to_numpy(), np.ones((24, 1))) for g in ("a", "b")]
    dense = Dense(data["y"], X[:, [1 - held]], terms, offset=X[:, held] * bound)
    starts = [(0.0, 1.0), (1.0, 0.0), (0.1, 0.1), (2.0, 2.0)]
    found = [
        optimize.minimize(lambda x: dense.criterion(np.abs(x), False), start, method="Nelder-Mead", tol=1e-9).fun
        for start in starts
    ]
    assert min(found) - fit.criterion == pytest.approx(stats.chi2.ppf(0.95, 1), abs=1e-5)


def test_a_deviance_below_that_of_the_fit_is_said(reference_fit):
    fit = reference_fit("sleepstudy_slope_ml")
    of = fit.profile("Days").ready[0]
    worse = replace(of, best=replace(of.best, deviance=of.best.deviance + 1.0))
    with pytest.raises(clm.NumericalError, match="fit again from another start"):
        point_at(worse, [of.own_point()], 1.01 * of.estimate)


def test_searches_start_near_their_neighbours(reference_fit):
    """Extrapolated starts were negative standard deviations, or 1e11, where neighbours had ended in other minima."""
    of = reference_fit("sleepstudy_slope_ml").profile("Days").ready[0]
    diagonal = of.model.xp.layout.on_diagonal

    def start(*xs, beyond=1):
        points = [Point(of.estimate + i, 0.5 * i, np.array(x)) for i, x in enumerate(xs)]
        return start_of_search(of, points, of.estimate + len(xs) - 1 + beyond, diagonal)

    np.testing.assert_allclose(start([1.0, 0.3, 0.4], [1.1, 0.2, 0.5]), [1.2, 0.1, 0.6])
    np.testing.assert_allclose(start([1.0, 0.3, 0.4], [1.1, 0.2, 0.0]), [1.2, 0.1, 0.0])
    wild = [[1.0, 0.3, 0.4], [1.1, 0.3, 0.4], [1.0, 0.3, 0.4], [2.0, 0.3, 0.4]]
    assert start(*wild)[0] > 2.0
    np.testing.assert_array_equal(start(*wild, beyond=9), wild[-1])
