"""The bootstrap of the iterative engine: the same draws as the direct engine's, refits within the error they carry."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest

import crosslmm as clm
from crosslmm.inference.bootstrap import bootstrap, sampling_errors
from crosslmm.inference.parameters import parameters

REPLICATES, SEEDS = 24, 20


@cache
def data() -> pd.DataFrame:
    rng = np.random.default_rng(21)
    n = 1500
    frame = pd.DataFrame({"a": rng.integers(0, 70, n), "b": rng.integers(0, 40, n), "x": rng.normal(size=n)})
    frame["y"] = 0.3 * frame["x"] + rng.normal(size=n) + 0.7 * rng.normal(size=70)[frame["a"]]
    return frame.assign(y=lambda d: d["y"] + (0.9 * rng.normal(size=40) + 0.4 * rng.normal(size=40))[d["b"]])


@cache
def model():
    return clm.MixedLM.from_formula("y ~ x + (1 | a) + (1 | b)", data())


def sampled(seed: int = 0, **options):
    return clm.IterativeEngine(border=0, max_probes=16, rng=seed, **options)


@cache
def exact():
    fit = model().fit()
    return fit, fit.bootstrap(REPLICATES, rng=1)


@cache
def all_seeds():
    fits = [model().fit(engine=sampled(seed)) for seed in range(SEEDS)]
    return [(fit, fit.bootstrap(REPLICATES, rng=1)) for fit in fits]


def values(boot) -> np.ndarray:
    return boot.to_frame()[[p.name for p in parameters(boot.layout)]].to_numpy(dtype=float)


def test_replicates_are_those_of_the_direct_engine_but_for_the_probes():
    """Refits repeat what the probes do to the fit: replicate by replicate the shift is twice that of the estimate."""
    _, want = exact()
    for fit, boot in all_seeds()[:5]:
        assert fit.estimates.plan.engine == "iterative" and boot.n_failed == 0
        shift = boot.estimates - want.estimates
        assert np.abs(shift[0]) > 0.0
        moved = values(boot) - values(want)
        spread = values(want).std(axis=0)
        assert np.abs(moved - 2.0 * shift).max(axis=0)[:3] == pytest.approx(0.0, abs=2e-3 * spread[:3].min())
        assert (np.abs(moved) < 0.02 * spread).all()


def test_errors_are_those_of_the_seeds():
    """Spread over seeds of the probes against what is stated: too small and too large an error would both show."""
    fits = all_seeds()
    names = [p.name for p in parameters(fits[0][1].layout)][:3]
    spread = {}
    for kind in ("percentile", "shortest", "basic", "normal"):
        bounds = np.array([boot.conf_int(kind=kind, which=names)["lower"] for _, boot in fits])
        spread[kind] = bounds.std(axis=0, ddof=1)
    stated = 2.0 * np.sqrt(np.mean([sampling_errors(fit.estimates)[:3] ** 2 for fit, _ in fits], axis=0))
    for kind in ("percentile", "shortest"):
        # a chi-squared of 19 degrees: its root is within these factors 999 times of 1,000
        assert (0.5 * stated < spread[kind]).all() and (spread[kind] < 1.7 * stated).all()
    for kind in ("basic", "normal"):  # the probes cancel, to first order
        assert (spread[kind] < 0.5 * spread["percentile"]).all()


def test_tables_carry_the_errors_of_the_probes():
    _, want = exact()
    fit, boot = all_seeds()[0]
    probes = sampling_errors(fit.estimates)
    assert (probes > 0.0).all() and (sampling_errors(exact()[0].estimates) == 0.0).all()
    for kind, times in (("percentile", 2.0), ("basic", 0.0)):
        got, plain = boot.conf_int(kind=kind), want.conf_int(kind=kind)
        assert np.allclose(got["upper_mc_error"] ** 2, plain["upper_mc_error"] ** 2 + (times * probes) ** 2, rtol=0.05)
    got, plain = boot.summary(), want.summary()
    assert np.allclose(got["bias_mc_error"] ** 2, plain["bias_mc_error"] ** 2 + probes**2, rtol=0.05)


def test_nothing_is_sampled_where_the_border_holds_all():
    """With the smaller factor beside the fixed effects the iterative engine is exact."""
    _, want = exact()
    fit = model().fit(engine=clm.IterativeEngine(border=64))
    boot = fit.bootstrap(REPLICATES, rng=1)
    np.testing.assert_allclose(values(boot), values(want), rtol=2e-4, atol=1e-5)
    assert (boot.sampling == 0.0).all()
    pd.testing.assert_frame_equal(boot.conf_int(), want.conf_int(), rtol=2e-3)


def test_threads_statistics_and_the_fit_itself():
    fit, boot = all_seeds()[0]
    before = fit.theta.copy()
    two = fit.bootstrap(REPLICATES, rng=1, n_jobs=2)
    pd.testing.assert_frame_equal(boot.to_frame(), two.to_frame(), check_exact=True)
    own = fit.bootstrap(6, rng=1, statistic=lambda again: [again.llf, *again.random_effects["b"].iloc[:2, 0]])
    np.testing.assert_allclose(values(own), values(boot)[:6], rtol=5e-3)
    assert own.conf_int().loc["statistic_0", "n"] == 6 and own.n_failed == 0
    pd.testing.assert_series_equal(fit.theta, before)


def test_cases():
    fit, _ = all_seeds()[0]
    got = fit.bootstrap(8, rng=3, kind="cases", by="b").to_frame()
    want = exact()[0].bootstrap(8, rng=3, kind="cases", by="b").to_frame()
    np.testing.assert_allclose(got["sigma"], want["sigma"], rtol=1e-3)
    np.testing.assert_allclose(got["sd_Intercept|b"], want["sd_Intercept|b"], rtol=5e-3)


@pytest.mark.parametrize("smaller", ["y ~ 1 + (1 | a) + (1 | b)", "y ~ x + (1 | b)"])
def test_the_likelihood_ratio_test(smaller):
    """Draw by draw the direct engine's statistic, but for the errors of the probes."""
    tests = {}
    for name, engine in (("exact", "direct"), ("sampled", sampled(3))):
        large = model().fit(reml=False, engine=engine)
        small = clm.lmer(smaller, data(), reml=False, engine=engine)
        tests[name] = large.bootstrap_test(small, 40, rng=2)
    got, want = tests["sampled"], tests["exact"]
    assert want.statistic_mc_error == 0.0 < got.statistic_mc_error
    assert abs(got.statistic - want.statistic) < 4.5 * got.statistic_mc_error
    assert np.abs(got.draws - want.draws).max() < 4.5 * got.statistic_mc_error + 1e-6
    assert got.p_value == want.p_value and got.n == 40
    assert "Monte Carlo error" in repr(got).splitlines()[3].split(", p-value")[0]


def test_ties_count_as_large():
    """At the boundary the statistic is 0 and so are half of the draws; the probes must not order them by chance."""
    rng = np.random.default_rng(5)
    frame = data().assign(y=lambda d: rng.normal(size=len(d)) + 0.5 * (d["a"] % 3))
    engine = sampled(1)
    large = clm.lmer("y ~ x + (1 | a) + (1 | b)", frame, reml=False, engine=engine)
    small = clm.lmer("y ~ x + (1 | a)", frame, reml=False, engine=engine)
    assert large.singular
    test = large.bootstrap_test(small, 40, rng=2)
    assert abs(test.statistic) <= 4.5 * test.statistic_mc_error + 1e-6
    assert test.p_value > 0.9


def test_options_of_the_engine_are_kept_for_ml(monkeypatch):
    """A fit by REML is fitted by ML for the test: with the probes, the seed and the border that it had."""
    from crosslmm.inference.likelihood_ratio import by_ml

    fit = model().fit(engine=sampled(7))
    assert by_ml(fit).estimates.plan.options == fit.estimates.plan.options


def test_large_designs_draw_by_lanczos(monkeypatch):
    from crosslmm.inference import simulate
    from crosslmm.inference.noise_lanczos import LanczosNoise

    made = []
    true = simulate.lanczos_noise
    monkeypatch.setattr(simulate, "FACTORED", 10)
    monkeypatch.setattr(simulate, "lanczos_noise", lambda *args: made.append(true(*args)) or made[-1])
    fit, _ = all_seeds()[0]
    boot = bootstrap(fit, 200, rng=4)
    assert isinstance(made[0], LanczosNoise) and boot.n_failed == 0
    se = fit.bse_fe["x"] if "x" in fit.bse_fe else fit.bse["x"]
    assert boot.to_frame()["x"].std() == pytest.approx(se, rel=4.5 / np.sqrt(400))
    assert boot.to_frame()["x"].mean() == pytest.approx(fit.fe_params["x"], abs=4.5 * se / np.sqrt(200))


def test_a_fit_without_any_variance():
    """Nothing moves with the probes; refits that have variances again are those of the direct engine, nearly."""
    rng = np.random.default_rng(3)
    rows = pd.DataFrame({"a": rng.integers(0, 8, 60), "b": rng.integers(0, 6, 60), "y": rng.normal(size=60)})
    fits = [clm.lmer("y ~ 1 + (1 | a) + (1 | b)", rows, engine=engine) for engine in (sampled(), "direct")]
    assert all((fit.theta == 0.0).all() for fit in fits)
    boot, want = (fit.bootstrap(20, rng=1) for fit in fits)
    np.testing.assert_array_equal(boot.sampling, 0.0)
    np.testing.assert_allclose(values(boot), values(want), atol=0.01 * values(want).std(axis=0).max())
