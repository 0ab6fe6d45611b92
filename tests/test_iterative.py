"""The iterative engine: what it samples is unbiased, its errors are true, its fits are those of the direct engine."""

import pickle
import signal

import numpy as np
import pandas as pd
import pytest
from refdata import load_model, model_names
from scipy.stats import chi2
from standard import expected_of, model_of, oracle, standard_error, templates_of

import crosslmm as clm
from crosslmm.engine import iterative, probes
from crosslmm.engine.choose import choose
from crosslmm.linalg import cg, schur, schur_kernels, threads

LUCK = 1e-4
"""Probability with which a correct error would be called wrong, on either side."""

SEEDS = 100
"""With so many, an error that is stated a third too small or half too large is found."""

NOT_SAMPLED = 1e-7
"""Relative error below which the preconditioner left nothing to sample."""


# --- no bias -------------------------------------------------------------------------------------

# Numbers of levels: a 9, b 4, c 3, and no more than 8 equations for conjugate gradients.
TINY = {
    "crossed": "y ~ x + (1 | a) + (1 | b)",
    "slopes": "y ~ x + (1 + x | a) + (1 + z | b)",
    "three factors": "y ~ x + (1 | a) + (1 | b) + (1 | c)",
    "smallest with a slope": "y ~ x + (1 + x | a) + (1 + z | c)",
    "several terms": "y ~ x + (x || a) + (z || b)",
}
BITS = 8


def all_signs(shapes, numbers, seed):
    """In place of random signs: number i stands for the i-th of all sign vectors."""
    size = sum(k * n_levels for k, n_levels in shapes)
    assert size <= BITS
    r = 1.0 - 2.0 * ((np.array(numbers)[None, :] >> np.arange(size)[:, None]) & 1)
    ends = np.cumsum([k * n_levels for k, n_levels in shapes])[:-1]
    return tuple(part.reshape(k, n_levels, -1) for part, (k, n_levels) in zip(np.split(r, ends), shapes, strict=True))


@pytest.fixture(scope="module")
def tiny():
    rng = np.random.default_rng(31)
    n = 60
    data = pd.DataFrame({"a": rng.permutation(np.arange(n) % 9), "b": rng.permutation(np.arange(n) % 4)})
    data["c"], data["x"], data["z"] = rng.integers(0, 3, n), rng.normal(size=n), rng.uniform(-1, 2, size=n)
    return data.assign(y=rng.normal(size=n) + data["a"] - 2 * data["b"])


@pytest.mark.parametrize("kind", ["full rank", "deficient", "zero", "one zero", "another zero", "weak", "strong"])
@pytest.mark.parametrize("name", TINY)
def test_the_mean_over_all_signs_is_exact(name, kind, tiny, monkeypatch):
    monkeypatch.setattr(iterative, "signs", all_signs)
    for tolerance in ("DATA_TOLERANCE", "PROBE_TOLERANCE", "INNER_TOLERANCE"):
        monkeypatch.setattr(iterative, tolerance, 1e-13)
    model = clm.MixedLM.from_formula(TINY[name], tiny)
    rng = np.random.default_rng(32)
    factors = model.design.layout.factors
    scale = {"zero": 0.0, "weak": 1e-4, "strong": 30.0}.get(kind, 1.0)
    templates = [scale * (np.eye(f.size) + 0.4 * rng.normal(size=(f.size, f.size))) for f in factors]
    by_size = sorted(range(len(factors)), key=lambda f: factors[f].n_effects)
    if kind == "one zero":
        templates[by_size[-1]][:] = 0.0
    if kind == "another zero":
        templates[by_size[0]][:] = 0.0
    if kind == "deficient":
        templates = [T if len(T) == 1 else np.outer(T[0], T[1]) for T in templates]
    expected = oracle(model, tuple(templates))
    system = choose(model.crossproducts, clm.IterativeEngine(border=0, n_probes=2**BITS)).at(tuple(templates))
    assert system.log_det == pytest.approx(expected.log_det, rel=1e-9, abs=1e-9)
    for reml in (True, False):
        found = system.marginal(reml=reml)
        for block, B in zip(found.blocks, expected.marginal(reml), strict=True):
            unit = np.sqrt(np.outer(np.diag(B), np.diag(B)))
            np.testing.assert_allclose(block / unit, B / unit, rtol=0, atol=1e-9)
    if kind == "full rank":  # something was sampled
        assert system.log_det_error > 1e-4
        assert all(np.abs(d).max() > 1e-4 for d in found.deviations)


@pytest.mark.parametrize("kind", ["full rank", "weak"])
def test_signs(kind):
    shapes = ((1, 40), (2, 30), (3, 5))
    drawn = probes.signs(shapes, range(200), 5)
    assert [part.shape for part in drawn] == [(k, n_levels, 200) for k, n_levels in shapes]
    flat = np.concatenate([part.reshape(-1, 200) for part in drawn])
    assert (np.abs(flat) == 1.0).all()
    assert abs(flat.mean()) < 5 / np.sqrt(flat.size)
    between = flat @ flat.T / 200
    assert np.abs(between[~np.eye(len(flat), dtype=bool)]).max() < 6 / np.sqrt(200)
    again = probes.signs(shapes, range(150, 160), 5)  # each depends on its number alone
    for part, whole in zip(again, drawn, strict=True):
        np.testing.assert_array_equal(part, whole[:, :, 150:160])
    other = probes.signs(shapes, range(200), 6)
    assert 0.4 < np.mean(other[0] == drawn[0]) < 0.6


# --- stated errors -------------------------------------------------------------------------------


def check_errors(z):
    """Deviations over their stated errors, (n, ...), are of mean square 1 and without a common sign."""
    n = len(z)
    total = np.square(z).sum(axis=0)
    assert (total > chi2.ppf(LUCK, n)).all(), total
    assert (total < chi2.ppf(1 - LUCK, n)).all(), total
    assert (np.abs(z.mean(axis=0)) < 5 / np.sqrt(n)).all()


@pytest.mark.parametrize("kind", ["full rank", "another zero"])
@pytest.mark.parametrize("name", ["crossed", "crossed slopes", "three factors", "weights and offset"])
def test_stated_errors_of_a_system(name, kind):
    """Over many seeds the estimates spread as their errors say, around what is true."""
    model, templates = model_of(name), templates_of(name, kind)
    expected = expected_of(name, kind)
    truth = expected.marginal(True)
    rows = []
    for seed in range(SEEDS):
        system = choose(model.crossproducts, clm.IterativeEngine(n_probes=32, border=0, rng=seed)).at(templates)
        found = system.marginal(reml=True)
        off, error = [np.array([system.log_det - expected.log_det])], [np.array([system.log_det_error])]
        for block, B, deviations in zip(found.blocks, truth, found.deviations, strict=True):
            off.append(np.diag(block - B) / np.diag(B))
            error.append(np.diag(standard_error(deviations)) / np.diag(B))
        rows.append((np.concatenate(off), np.concatenate(error)))
    off, error = np.stack(rows, axis=1)
    random = error.max(axis=0) > NOT_SAMPLED
    assert random.all() or kind != "full rank"
    check_errors(off[:, random] / error[:, random])
    assert np.abs(off[:, ~random]).max(initial=0.0) < 5 * NOT_SAMPLED


@pytest.fixture(scope="module")
def ratings():
    rng = np.random.default_rng(33)
    n = 6_000
    data = pd.DataFrame({"user": rng.integers(0, 400, n), "film": rng.integers(0, 250, n), "x": rng.normal(size=n)})
    data["y"] = 1 + 0.3 * data["x"] + rng.normal(size=n)
    data["y"] += 0.7 * rng.normal(size=400)[data["user"]]
    data["y"] += (0.4 + 0.3 * data["x"]) * rng.normal(size=250)[data["film"]]
    data["y"] += 0.3 * data["x"] * rng.normal(size=250)[data["film"]]
    return clm.MixedLM.from_formula("y ~ x + (1 | user) + (1 + x | film)", data)


@pytest.fixture(scope="module")
def exact(ratings):
    return ratings.fit(engine="direct")


def test_stated_errors_of_a_fit(ratings, exact):
    """Theta, sigma and the criterion spread over the seeds as the fit says of each."""
    rows = []
    for seed in range(SEEDS):
        fit = ratings.fit(engine=clm.IterativeEngine(n_probes=32, max_probes=32, rng=seed))
        sampling = fit.estimates.sampling
        assert fit.converged
        assert sampling.n_probes == 32
        theta = (fit.theta - exact.theta).to_numpy() / sampling.monte_carlo.error(lambda theta, sigma: theta)
        sigma = (fit.sigma - exact.sigma) / sampling.monte_carlo.error(lambda theta, sigma: np.array(sigma))
        criterion = (fit.criterion - exact.criterion) / sampling.criterion_error
        rows.append(np.append(theta, [sigma, criterion]))
    check_errors(np.array(rows))


# --- fits of the direct engine -------------------------------------------------------------------

RESOLUTION = 1e-4
"""Standard errors that a search may leave of any theta."""

SMALL = [name for name in model_names() if not name.startswith("insteval")]
CROSSED = [name for name in SMALL if len(load_model(name)["groups"]) > 1]


def check_fit(fit, expected):
    """A fit against that of the direct engine, within five of its stated Monte Carlo errors."""
    assert fit.converged
    assert fit.estimates.plan.engine == "iterative"
    assert fit.singular == expected.singular
    sampling = fit.estimates.sampling
    beta = ((fit.fe_params - expected.fe_params) / expected.bse_fe).to_numpy()
    if sampling is None:
        np.testing.assert_allclose(fit.theta, expected.theta, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(beta, 0.0, atol=1e-6)
        assert fit.sigma == pytest.approx(expected.sigma, rel=1e-6)
        assert fit.criterion == pytest.approx(expected.criterion, rel=1e-12, abs=1e-6)
        return
    off = np.abs(fit.theta - expected.theta).to_numpy()
    monte_carlo = sampling.monte_carlo.error(lambda theta, sigma: theta)
    statistical = sampling.statistical.error(lambda theta, sigma: theta)
    second_order = (5 * sampling.ratio) ** 2  # the stated errors are those of the delta method
    assert (off <= 5 * monte_carlo + (RESOLUTION + second_order) * statistical).all()
    assert np.abs(beta).max(initial=0.0) < 1e-3
    assert abs(fit.criterion - expected.criterion) <= 5 * sampling.criterion_error + 1e-6
    assert fit.criterion == pytest.approx(expected.criterion, rel=1e-3)


@pytest.mark.parametrize("name", model_names())
def test_reference_models(name, reference_fit):
    expected = reference_fit(name)
    fit = expected.model.fit(load_model(name)["reml"], engine=clm.IterativeEngine())
    check_fit(fit, expected)
    sampling = fit.estimates.sampling
    assert (sampling is not None) == name.startswith("insteval")  # else all factors but one are in the border
    assert sampling is None or sampling.ratio <= 0.01


@pytest.mark.parametrize("name", CROSSED)
def test_reference_models_without_a_border(name, reference_fit):
    """Every factor but one by conjugate gradients; probes enough that fixed effects move by 1e-3 errors at most."""
    expected = reference_fit(name)
    fit = expected.model.fit(load_model(name)["reml"], engine=clm.IterativeEngine(border=0, error=0.003))
    check_fit(fit, expected)
    assert fit.estimates.sampling.ratio <= 0.003


@pytest.mark.slow
def test_three_large_factors_without_a_border(reference_fit):
    """Departments shift all lecturers: the hardest case, whose probes are spent before the error is reached."""
    expected = reference_fit("insteval_reml")
    fit = expected.model.fit(engine=clm.IterativeEngine(border=0, max_probes=256))
    check_fit(fit, expected)


# --- probes --------------------------------------------------------------------------------------


def same(one, other):
    """Bit by bit, times apart."""
    a, b = one.estimates, other.estimates
    values = (lambda fit: fit.theta), (lambda fit: fit.beta), (lambda fit: fit.beta_cov), (lambda fit: fit.modes)
    return (
        all(np.array_equal(u, v) for value in values for u, v in zip(value(a), value(b), strict=True))
        and (a.criterion, a.sigma) == (b.criterion, b.sigma)
        and (a.sampling.n_probes, a.sampling.ratio) == (b.sampling.n_probes, b.sampling.ratio)
        and a.sampling.criterion_error == b.sampling.criterion_error
        and np.array_equal(a.sampling.monte_carlo.theta, b.sampling.monte_carlo.theta)
        and len(a.iterations) == len(b.iterations)
    )


def test_the_same_rng_gives_the_same_answer(ratings):
    fit = ratings.fit(engine=clm.IterativeEngine(rng=5))
    again = clm.MixedLM.from_crossproducts(ratings.crossproducts).fit(engine=clm.IterativeEngine(rng=5))
    assert same(fit, again)
    other = ratings.fit(engine=clm.IterativeEngine(rng=6))
    assert not same(fit, other)
    assert not np.array_equal(fit.theta, other.theta)
    assert other.criterion != fit.criterion


def test_a_generator_as_rng(ratings):
    """It is asked for one seed; the engine that got it gives the same answer again."""
    engine = clm.IterativeEngine(rng=np.random.default_rng(8))
    seed = int(np.random.default_rng(8).integers(2**63))
    assert engine.seed == seed
    assert same(ratings.fit(engine=engine), ratings.fit(engine=engine))
    assert same(ratings.fit(engine=engine), ratings.fit(engine=clm.IterativeEngine(rng=seed)))
    generator = np.random.default_rng(8)
    first, second = clm.IterativeEngine(rng=generator), clm.IterativeEngine(rng=generator)
    assert first.seed != second.seed


def test_threads_change_rounding_only(ratings, monkeypatch):
    monkeypatch.setattr(schur, "SERIAL_PAIRS", 0)
    fits = []
    for n in (1, 3):
        monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _, n=n: range(n))
        fits.append(ratings.fit(engine=clm.IterativeEngine(rng=5)))
        assert same(fits[-1], ratings.fit(engine=clm.IterativeEngine(rng=5)))
    np.testing.assert_allclose(fits[0].theta, fits[1].theta, rtol=1e-7)
    assert fits[0].criterion == pytest.approx(fits[1].criterion, rel=1e-10)


def test_probes_are_added_until_the_error_is_reached(ratings, exact):
    few = ratings.fit(engine=clm.IterativeEngine(n_probes=4, max_probes=4))
    ratio = few.estimates.sampling.ratio
    asked = ratio / 3
    fit = ratings.fit(engine=clm.IterativeEngine(n_probes=4, error=asked))
    sampling = fit.estimates.sampling
    assert sampling.asked == asked
    assert sampling.ratio <= asked
    assert sampling.n_probes >= 4 * 3
    assert [step.step for step in fit.estimates.iterations].count("probes") >= 1
    check_fit(fit, exact)
    enough = ratings.fit(engine=clm.IterativeEngine(n_probes=4, error=2 * ratio))
    assert same(few, enough)


def test_probes_may_not_suffice(ratings):
    fit = ratings.fit(engine=clm.IterativeEngine(n_probes=4, max_probes=10, error=1e-5))
    sampling = fit.estimates.sampling
    assert fit.converged
    assert sampling.n_probes == 10
    assert sampling.ratio > sampling.asked == 1e-5
    statistical = sampling.statistical.error(lambda theta, sigma: theta)
    monte_carlo = sampling.monte_carlo.error(lambda theta, sigma: theta)
    assert sampling.ratio == pytest.approx(np.max(monte_carlo / statistical), rel=0.2)


def test_probes_in_sets_are_probes_at_once(ratings, monkeypatch):
    options = clm.IterativeEngine(n_probes=20, max_probes=20)
    fit = ratings.fit(engine=options)
    monkeypatch.setattr(iterative, "PROBES_AT_ONCE", 7)
    other = ratings.fit(engine=options)
    np.testing.assert_allclose(other.theta, fit.theta, rtol=1e-7)
    assert other.estimates.sampling.ratio == pytest.approx(fit.estimates.sampling.ratio, rel=1e-5)
    assert other.criterion == pytest.approx(fit.criterion, rel=1e-10)


@pytest.mark.parametrize(
    "option",
    [
        {"n_probes": 3},
        {"n_probes": 8.0},
        {"n_probes": True},
        {"n_probes": "8"},
        {"n_probes": None},
        {"max_probes": 7},
        {"max_probes": 1e3},
        {"border": -1},
        {"border": 2.5},
        {"border": None},
        {"error": 0},
        {"error": -0.01},
        {"error": float("nan")},
        {"error": "1%"},
        {"error": None},
        {"rng": -1},
        {"rng": 1.5},
        {"rng": None},
        {"rng": True},
        {"rng": "seed"},
        {"rng": np.random.RandomState(1)},
    ],
    ids=str,
)
def test_options_that_make_no_sense(option):
    (name,) = option
    with pytest.raises(clm.ModelError, match=rf"IterativeEngine\({name}=.*: expected a"):
        clm.IterativeEngine(**option)


def test_options_of_numpy_types():
    engine = clm.IterativeEngine(n_probes=np.int64(16), rng=np.uint32(3), error=np.float32(0.02), border=np.int8(5))
    assert (engine.n_probes, engine.seed, engine.border) == (16, 3, 5)


# --- interruptions -------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [1, 2, 4, 6])
def test_an_interrupted_fit_is_fitted_again(ratings, call, monkeypatch):
    """Ctrl-C at any product with the matrix leaves nothing behind: the next fit is the undisturbed one."""
    engine = clm.IterativeEngine(rng=5)
    undisturbed = clm.MixedLM.from_crossproducts(ratings.crossproducts).fit(engine=engine)
    model = clm.MixedLM.from_crossproducts(ratings.crossproducts)
    before = pickle.dumps(model.crossproducts)
    solve, calls = cg.solve, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == call:
            signal.raise_signal(signal.SIGINT)
        return solve(*arguments)

    monkeypatch.setattr(cg, "solve", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fit(engine=engine)
    assert len(calls) == call
    monkeypatch.undo()
    assert pickle.dumps(model.crossproducts) == before
    assert same(model.fit(engine=engine), undisturbed)
    assert model.plan().engine == "direct"


def test_an_interrupted_thread(ratings, monkeypatch):
    """An error inside the threads that share a pass reaches the caller, and the next fit is right."""
    monkeypatch.setattr(schur, "SERIAL_PAIRS", 0)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: range(2))
    engine = clm.IterativeEngine(rng=5)
    undisturbed = ratings.fit(engine=engine)
    kernel, calls = schur_kernels.schur_product, []

    def interrupted(first, last, *arguments):
        calls.append(1)
        if len(calls) == 30 and first > 0:
            raise KeyboardInterrupt
        return kernel(first, last, *arguments)

    monkeypatch.setattr(schur_kernels, "schur_product", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ratings.fit(engine=engine)
    monkeypatch.setattr(schur_kernels, "schur_product", kernel)
    assert same(ratings.fit(engine=engine), undisturbed)
