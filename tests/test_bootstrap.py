"""The bootstrap: draws against rows made one by one, refits against fits, bookkeeping, interrupts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import crosslmm as clm
from crosslmm.engine.direct import prepare
from crosslmm.engine.plan import DirectEngine
from crosslmm.estimate import estimate
from crosslmm.inference import bootstrap as module
from crosslmm.inference.bootstrap import truth_of
from crosslmm.inference.cases import _groups, drawn
from crosslmm.inference.parameters import parameter_values, parameters
from crosslmm.inference.refit import refit, refitter
from crosslmm.inference.replicates import seeds
from crosslmm.inference.simulate import draw, simulator

SLEEP = "Reaction ~ Days + (Days | Subject)"


def sleep_data() -> pd.DataFrame:
    data = clm.datasets.load_sleepstudy()
    rng = np.random.default_rng(0)
    return data.assign(w=rng.uniform(0.3, 3.0, len(data)), h=np.arange(len(data)) % 7, x=rng.normal(size=len(data)))


MODELS = {
    "slopes": (SLEEP, None),
    "zerocorr": ("Reaction ~ Days + (Days || Subject)", None),
    "weighted": ("Reaction ~ Days + x + (1 + x | Subject)", "w"),
    "crossed": ("Reaction ~ Days + (Days | Subject) + (1 | h)", "w"),
    "no_fixed": ("Reaction ~ 0 + (1 | Subject)", None),
}


@pytest.fixture(scope="module")
def fits():
    data = sleep_data()
    return {name: clm.lmer(formula, data, weights=weights) for name, (formula, weights) in MODELS.items()}


def source(fit):
    xp = fit.model.crossproducts
    return simulator(xp, truth_of(fit.estimates, xp.layout))


def generators(n: int, seed: int = 1):
    return [np.random.default_rng(s) for s in seeds(seed, n)]


def rows_drawn(fit, n: int) -> np.ndarray:
    """Responses made row by row in the units of the data; shape (n, rows)."""
    rng = np.random.default_rng(99)
    design, estimates = fit.model.design, fit.estimates
    weights = np.ones(design.n) if design.weights is None else design.weights
    y = design.X @ estimates.beta + estimates.sigma * rng.standard_normal((n, design.n)) / np.sqrt(weights)
    for codes, Z, T, factor in zip(design.codes, design.Z, estimates.templates, design.layout.factors, strict=True):
        b = estimates.sigma * rng.standard_normal((n, factor.n_levels, factor.size)) @ T.T
        y += np.einsum("ij,rij->ri", Z, b[:, codes])
    return y


@pytest.mark.parametrize("name", MODELS)
def test_draws_are_distributed_as_rows_are(name, fits):
    """Means, variances and correlations of X'Wy, of Z'Wy of some levels and of y'Wy, both ways."""
    n = 20_000
    fit = fits[name]
    design, standard = fit.model.design, fit.estimates.layout.standardization
    y = draw(source(fit), generators(n))
    got = np.vstack([y.fixed, *(border.reshape(-1, n)[::5][:6] for border in y.border), np.log(y.squares)])
    raw = (rows_drawn(fit, n) - design.X @ standard.origin) / standard.scale
    weighted = raw if design.weights is None else raw * design.weights
    parts = [(weighted @ (design.X @ standard.x_basis)).T]
    for codes, Z, U, factor in zip(design.codes, design.Z, standard.z_bases, design.layout.factors, strict=True):
        columns = [
            np.where(codes == level, (Z @ U)[:, j], 0.0) for j in range(factor.size) for level in range(factor.n_levels)
        ]
        parts.append((weighted @ np.stack(columns, axis=1)).T[::5][:6])
    want = np.vstack([*parts, np.log(np.einsum("ri,ri->r", raw, weighted))])
    error = want.std(axis=1) * np.sqrt(2.0 / n)
    assert np.abs((got.mean(axis=1) - want.mean(axis=1)) / error).max() < 4.5
    np.testing.assert_allclose(got.std(axis=1), want.std(axis=1), rtol=4.5 / np.sqrt(n))
    assert np.abs(np.corrcoef(got) - np.corrcoef(want)).max() < 4.5 * np.sqrt(2.0 / n)


@pytest.mark.parametrize("name", MODELS)
def test_degrees_of_the_noise_are_those_of_the_columns(name, fits):
    design = fits[name].model.design
    columns = [design.X]
    for codes, Z, factor in zip(design.codes, design.Z, design.layout.factors, strict=True):
        columns += [np.where(codes[:, None] == np.arange(factor.n_levels), Z[:, [j]], 0.0) for j in range(factor.size)]
    assert source(fits[name]).noise.degrees == design.n - np.linalg.matrix_rank(np.hstack(columns))


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_refits_are_the_fits_of_the_same_responses(name, reml, fits):
    """Refits at once against `estimate` from its own start, replicate by replicate."""
    if name == "no_fixed" and reml:
        pytest.skip("REML is ML without fixed effects")
    fit = fits[name].model.fit(reml)
    xp = fit.model.crossproducts
    y = draw(source(fit), generators(60))
    equations = prepare(xp, DirectEngine())
    got = refit(refitter(xp, equations, fit.estimates.theta, reml=reml), y)
    for r in range(y.size):
        own = y.one(xp, r)
        ordered = tuple(own.border[f] for f in equations.symbolic.order)
        again = replace(equations, border=ordered, fixed=own.fixed)
        want = estimate(own, again, reml=reml, tolerance=1e-9, max_evaluations=300)
        assert got.criterion[r] <= want.criterion + 1e-6
        if got.criterion[r] < want.criterion - 1e-4:
            continue  # the other start led to a higher minimum
        np.testing.assert_allclose(got.beta[r], want.beta, rtol=1e-3, atol=1e-3 * np.abs(want.beta).max(initial=0.0))
        np.testing.assert_allclose(got.sigma[r], want.sigma, rtol=1e-3)
        np.testing.assert_allclose(got.theta[r], want.theta, rtol=0, atol=3e-3 * np.abs(want.theta).max())
        assert got.singular[r] == want.singular


def test_sets_hand_singular_replicates_to_the_full_search():
    data = clm.datasets.load_dyestuff2()
    boot = clm.lmer("Yield ~ 1 + (1 | Batch)", data).bootstrap(400, rng=3)
    sd = boot.to_frame()["sd_Intercept|Batch"]
    assert boot.n_failed == 0 and boot.n_singular == (sd == 0.0).sum() > 200
    # the one-way layout has a zero exactly where the mean squares say so: F < 1
    assert boot.n_singular / 400 == pytest.approx(stats.f.cdf(1.0, 5, 24), abs=4 * np.sqrt(0.25 / 400))


def test_the_same_for_any_number_of_threads(fits):
    one, three = (fits["slopes"].bootstrap(700, rng=5, n_jobs=n) for n in (1, 3))
    pd.testing.assert_frame_equal(one.to_frame(), three.to_frame(), check_exact=True)
    again = fits["slopes"].bootstrap(700, rng=5)
    pd.testing.assert_frame_equal(one.to_frame(), again.to_frame(), check_exact=True)
    other = fits["slopes"].bootstrap(700, rng=6)
    assert not np.allclose(one.refits.criterion, other.refits.criterion)
    generator = np.random.default_rng(5)
    assert not np.allclose(fits["slopes"].bootstrap(9, rng=generator).refits.criterion, one.refits.criterion[:9])


def test_a_smaller_number_is_the_beginning_of_a_larger(fits):
    few, many = (fits["crossed"].bootstrap(n, rng=5).to_frame() for n in (16, 40))
    pd.testing.assert_frame_equal(few, many.iloc[:16], rtol=1e-6)


def test_means_and_standard_errors_are_those_of_the_estimates(fits):
    boot = fits["slopes"].bootstrap(4000, rng=11)
    table = boot.summary()
    for name, se in fits["slopes"].bse_fe.items():
        row = table.loc[name]
        assert abs(row["bias"]) < 4.5 * row["bias_mc_error"]
        assert abs(row["std_error"] - se) < 4.5 * row["std_error_mc_error"]
    sigma = table.loc["sigma"]
    assert abs(sigma["bias"]) < 0.1 and sigma["std_error"] == pytest.approx(25.59 / np.sqrt(2 * 144), rel=0.05)


def test_intervals_are_quantiles_of_the_table(fits):
    boot = fits["slopes"].bootstrap(999, rng=2)
    values = boot.to_frame()["sd_Days|Subject"].to_numpy()
    target = fits["slopes"].varcorr.query("name1 == 'Days' and name2.isna()")["sdcor"].iloc[0]
    low, high = np.quantile(values, [0.05, 0.95])
    at = {k: boot.conf_int(0.1, kind=k).loc["sd_Days|Subject"] for k in ("percentile", "basic", "normal", "shortest")}
    np.testing.assert_allclose(at["percentile"][["lower", "upper"]].to_numpy(float), [low, high], rtol=1e-12)
    np.testing.assert_allclose(at["basic"][["lower", "upper"]].to_numpy(float), [2 * target - high, 2 * target - low])
    half = stats.norm.ppf(0.95) * values.std(ddof=1)
    center = 2 * target - values.mean()
    np.testing.assert_allclose(at["normal"][["lower", "upper"]].to_numpy(float), [center - half, center + half])
    inside = (values >= at["shortest"]["lower"]) & (values <= at["shortest"]["upper"])
    assert inside.sum() == int(np.ceil(0.9 * 999))
    assert at["shortest"]["upper"] - at["shortest"]["lower"] <= high - low + 1e-12
    short = fits["slopes"].conf_int(0.1, method="bootstrap", n=999, rng=2, which=["sd_Days|Subject"])
    np.testing.assert_allclose(short.to_numpy()[0], [low, high], rtol=1e-12)


def test_monte_carlo_errors_of_bounds_are_those_of_repetition(fits):
    """Told by each of 60 runs, on average the spread of the bounds that they find."""
    for kind in ("percentile", "normal"):
        tables = [fits["slopes"].bootstrap(500, rng=s).conf_int(kind=kind).loc["Days"] for s in range(60)]
        told = np.mean([table["lower_mc_error"] for table in tables])
        assert told == pytest.approx(np.std([table["lower"] for table in tables], ddof=1), rel=0.35)


def test_a_statistic_of_ones_own(fits):
    fit = fits["slopes"]
    boot = fit.bootstrap(40, rng=4, statistic=lambda again: [again.llf, *again.varcorr["vcov"].iloc[:2]])
    plain = fit.bootstrap(40, rng=4)
    frame = boot.to_frame()
    np.testing.assert_allclose(frame["statistic_0"], -0.5 * plain.refits.criterion, rtol=1e-7)
    np.testing.assert_allclose(frame["statistic_2"], plain.to_frame()["sd_Days|Subject"] ** 2, rtol=1e-2)
    assert boot.observed[0] == fit.llf and "statistic_1" in boot.conf_int().index
    with pytest.raises(clm.ModelError, match="expected a number"):
        fit.bootstrap(3, rng=1, statistic=lambda again: "text")
    counts = iter([1, 2, 3, 4])
    with pytest.raises(clm.ModelError, match="as many for each"):
        fit.bootstrap(3, rng=1, statistic=lambda again: np.zeros(next(counts)))


def test_an_interrupt_keeps_what_is_done(fits, monkeypatch):
    calls = []
    true_draw = module.draw

    def interrupted(of, own):
        calls.append(len(own))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return true_draw(of, own)

    whole = fits["slopes"].bootstrap(700, rng=8)
    monkeypatch.setattr(module, "draw", interrupted)
    part = fits["slopes"].bootstrap(700, rng=8)
    assert part.asked == 700 and part.n == sum(calls[:2]) < 700
    pd.testing.assert_frame_equal(part.to_frame(), whole.to_frame().iloc[: part.n], check_exact=True)
    assert "interrupted: 700 were asked for" in repr(part)


def test_failures_are_kept_in_the_table(fits, monkeypatch):
    from crosslmm.errors import NumericalError

    fit = fits["crossed"]
    true_minimize = module.refit.__globals__["minimize"]
    calls = []

    def sometimes(*args, **options):
        calls.append(1)
        if len(calls) % 3 == 0:
            raise NumericalError("made to fail")
        return true_minimize(*args, **options)

    monkeypatch.setitem(module.refit.__globals__, "minimize", sometimes)
    boot = fit.bootstrap(12, rng=1)
    frame = boot.to_frame()
    assert boot.n == 12 and boot.n_failed == 4 and (frame["failure"] == "made to fail").sum() == 4
    assert frame.loc[frame["failure"] != "", "sigma"].isna().all() and (boot.conf_int()["n"] == 8).all()


def test_progress_is_told(fits):
    told = []
    fits["slopes"].bootstrap(600, rng=1, progress=lambda *said: told.append(said))
    assert told[-1] == ("bootstrap", 600, 600) and [s[1] for s in told] == sorted(s[1] for s in told)


@pytest.mark.parametrize("reml", [True, False])
def test_cases_are_fits_of_the_drawn_rows(reml):
    """Batches drawn with all their rows; a cask drawn twice is two casks."""
    data = clm.datasets.load_pastes()
    fit = clm.lmer("strength ~ 1 + (1 | batch / cask)", data, reml)
    groups = _groups(fit, None)
    names = list(data["batch"].cat.categories)
    for seed in range(5):
        xp = drawn(groups, np.random.default_rng(seed))
        levels = fit.estimates.layout.factors[groups.factor].levels
        chosen = np.random.default_rng(seed).integers(len(names), size=len(names))
        rows = pd.concat([data[data["batch"] == levels[g]].assign(batch=f"copy{i}") for i, g in enumerate(chosen)])
        want = clm.lmer("strength ~ 1 + (1 | batch / cask)", rows, reml)
        got = clm.MixedLM.from_crossproducts(xp).fit(reml)
        assert got.criterion == pytest.approx(want.criterion, abs=1e-6)
        np.testing.assert_allclose(got.fe_params, want.fe_params, rtol=1e-7)


def test_cases_by_a_crossed_factor_keep_the_other():
    data = clm.datasets.load_penicillin()
    fit = clm.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", data)
    layout = fit.estimates.layout
    boot = fit.bootstrap(30, rng=1, kind="cases", by="plate")
    assert boot.kind == "cases" and boot.n == 30 and boot.n_failed == 0
    plate = [f.name for f in layout.factors].index("plate")
    xp = drawn(_groups(fit, "plate"), np.random.default_rng(0))
    assert xp.layout.factors[plate].n_levels == 24 and xp.layout.factors[1 - plate].n_levels == 6 and xp.n == 144
    with pytest.raises(clm.ModelError, match="'plate', 'sample'"):
        fit.bootstrap(3, kind="cases", by="tree")
    without = clm.MixedLM.from_crossproducts(fit.model.crossproducts).fit()
    with pytest.raises(clm.ModelError, match="none in memory"):
        without.bootstrap(3, kind="cases")
    assert without.bootstrap(5, rng=1).n == 5


def test_cases_without_a_level_of_a_fixed_effect_are_failures():
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"g": np.repeat(np.arange(6), 10)})
    data["f"] = np.where(data["g"] == 0, "a", "b")
    data["y"] = rng.normal(size=60) + rng.normal(size=6)[data["g"]]
    boot = clm.lmer("y ~ f + (1 | g)", data).bootstrap(40, rng=1, kind="cases")
    assert 0 < boot.n_failed < 40


def test_the_likelihood_ratio_test_by_simulation():
    data = sleep_data()
    small, large = clm.lmer("Reaction ~ 1 + (Days | Subject)", data), clm.lmer(SLEEP, data)
    test = large.bootstrap_test(small, 400, rng=1)
    table = clm.compare(small, large, refit=True)
    assert test.statistic == pytest.approx(table["chisq"].iloc[1], abs=1e-6) and test.df == 1
    assert test.p_value == 1 / 401 and test.p_chi_squared == pytest.approx(table["p_value"].iloc[1], rel=1e-6)
    assert "p-value 0.002494" in repr(test)


def test_draws_of_the_test_are_ratios_of_both_fits():
    """The same responses made of rows: both models fitted to the first draws."""
    data = sleep_data()
    small, large = "Reaction ~ 1 + (1 | Subject)", "Reaction ~ Days + (Days | Subject)"
    fits = clm.lmer(small, data, reml=False), clm.lmer(large, data, reml=False)
    test = fits[1].bootstrap_test(fits[0], 300, rng=1)
    rng = np.random.default_rng(8)
    y = rows_drawn(fits[0], 300)[rng.permutation(300)][:120]
    ratios = []
    for response in y:
        both = [clm.lmer(f, data.assign(Reaction=response), reml=False).criterion for f in (small, large)]
        ratios.append(both[0] - both[1])
    assert stats.ks_2samp(ratios, test.draws).pvalue > 1e-3
    assert np.mean(test.draws) == pytest.approx(np.mean(ratios), abs=4.5 * np.std(ratios) / np.sqrt(120))


def test_the_size_of_the_test_is_right_where_chi_squared_is_not():
    """p-values of responses drawn from the smaller model are uniform."""
    data = sleep_data()
    small = clm.lmer("Reaction ~ 1 + (1 | h)", data, reml=False)
    large = clm.lmer("Reaction ~ 1 + (1 | h) + (1 | Subject)", data, reml=False)
    test = large.bootstrap_test(small, 300, rng=2)
    # one variance at its boundary: half of the ratios are 0
    assert np.mean(test.draws < 1e-6) == pytest.approx(0.55, abs=0.15)


def test_the_test_refuses_what_is_not_nested():
    data = sleep_data()
    large = clm.lmer(SLEEP, data, reml=False)
    with pytest.raises(clm.ModelError, match="no column 'x'"):
        large.bootstrap_test(clm.lmer("Reaction ~ x + (1 | Subject)", data, reml=False), 3)
    with pytest.raises(clm.ModelError, match="not among those of the larger"):
        large.bootstrap_test(clm.lmer("Reaction ~ Days + (1 | h)", data, reml=False), 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "number of replicates"),
        ({"rng": -1}, "rng=-1"),
        ({"rng": "one"}, "rng='one'"),
        ({"n_jobs": 0}, "n_jobs=0"),
        ({"kind": "rows"}, "kind='rows'"),
        ({"by": "Subject"}, "leave it out"),
    ],
)
def test_bad_arguments_are_refused(fits, options, message):
    with pytest.raises(clm.ModelError, match=message):
        fits["slopes"].bootstrap(**{"n": 3, **options})


def test_the_test_refuses_a_fit_that_is_no_smaller(fits):
    with pytest.raises(clm.ModelError, match="the larger fit comes first"):
        fits["slopes"].bootstrap_test(fits["slopes"], 5)


@pytest.mark.parametrize("alpha", [0.0, 2, "x", None, True, "profile"])
def test_levels_that_are_none_are_refused(alpha, fits):
    fit = fits["slopes"]
    for method in ("wald", "profile", "bootstrap"):
        with pytest.raises(clm.ModelError, match="alpha must lie between 0 and 1"):
            fit.conf_int(alpha, method=method)
    with pytest.raises(clm.ModelError, match="alpha must lie between 0 and 1"):
        fit.profile("sigma", alpha=alpha)
    with pytest.raises(clm.ModelError, match="which=3"):
        fit.conf_int(which=3)


def test_unknown_intervals_are_refused(fits):
    boot = fits["slopes"].bootstrap(5, rng=1)
    with pytest.raises(clm.ModelError, match="'shortest'"):
        boot.conf_int(kind="bca")
    with pytest.raises(clm.ModelError, match="which='Sex'"):
        boot.conf_int(which="Sex")


def test_names_and_values_of_parameters(fits):
    fit = fits["slopes"]
    names = [p.name for p in parameters(fit.estimates.layout)]
    assert names[:4] == ["sd_Intercept|Subject", "cor_Days.Intercept|Subject", "sd_Days|Subject", "sigma"]
    values = parameter_values(
        fit.estimates.layout, fit.estimates.theta[None], np.array([fit.sigma]), fit.estimates.beta[None]
    )[0]
    want = fit.varcorr["sdcor"].to_numpy()
    np.testing.assert_allclose(values[[0, 2, 1, 3]], want, rtol=1e-12)


@pytest.mark.simulation
@pytest.mark.parametrize(
    ("small", "large"),
    [
        ("Reaction ~ 1 + (Days | Subject)", "Reaction ~ Days + (Days | Subject)"),
        ("Reaction ~ Days + (1 | Subject)", "Reaction ~ Days + (Days | Subject)"),
    ],
)
def test_the_size_of_the_likelihood_ratio_test(small, large):
    """300 responses drawn from the smaller fit, 199 draws each; results in docs/bootstrap.md."""
    data = clm.datasets.load_sleepstudy()
    fits = [clm.lmer(formula, data, reml=False) for formula in (small, large)]
    y = rows_drawn(fits[0], 300)
    p_values, plain, mixture = [], [], []
    for r, response in enumerate(y):
        again = [clm.lmer(formula, data.assign(Reaction=response), reml=False) for formula in (small, large)]
        test = again[1].bootstrap_test(again[0], 199, rng=r)
        p_values.append(test.p_value)
        plain.append(test.p_chi_squared)
        if "(1 |" in small:
            mixture.append(clm.compare(*again, boundary="mixture")["p_value"].iloc[1])
    sizes = {name: float(np.mean(np.array(p) <= 0.05)) for name, p in [("simulation", p_values), ("chi2", plain)]}
    print(small, large, sizes, "mixture", np.mean(np.array(mixture) <= 0.05) if mixture else "")
    assert abs(sizes["simulation"] - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 300)
