"""The contract of `crosslmm.engine.protocol`: engines give what dense algebra gives and say how far they may be off."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from standard import CASES, TEMPLATES, expected_of, frame, model_of, standard_error, templates_of

import crosslmm as clm
from crosslmm.engine.choose import choose
from crosslmm.engine.plan import ORDERINGS
from crosslmm.engine.symbolic import DENSE_AT_ONCE

PROBES = 256
ENGINES = {
    "direct, dense": clm.DirectEngine(rest="dense"),
    "direct, sparse": clm.DirectEngine(rest="sparse"),
    "iterative": clm.IterativeEngine(n_probes=PROBES, rng=1),
    "iterative, no border": clm.IterativeEngine(n_probes=PROBES, rng=2, border=0),
}
ERRORS = 5.0
"""Standard errors within which what is sampled must lie."""

EXACT, SOLVED = 1e-9, 1e-7
"""Relative error of what is linear in a factorised, and in an iterated, solution."""


@cache
def system_of(name, kind, engine):
    return choose(model_of(name).crossproducts, ENGINES[engine]).at(templates_of(name, kind))


every_case = pytest.mark.parametrize("name", CASES)
every_template = pytest.mark.parametrize("kind", TEMPLATES)
every_engine = pytest.mark.parametrize("engine", ENGINES)


def sampled(name, engine):
    """Whether conjugate gradients solve for a factor: there is one that is not eliminated and not in the border."""
    if not engine.startswith("iterative"):
        return False
    sizes = sorted(f.n_effects for f in model_of(name).design.layout.factors)[:-1]
    return bool(sizes) and sum(sizes) > ENGINES[engine].border


@every_engine
@every_template
@every_case
def test_log_det(name, kind, engine):
    system, expected = system_of(name, kind, engine), expected_of(name, kind).log_det
    if sampled(name, engine):
        assert 0.0 <= system.log_det_error < 0.1 * (1.0 + abs(expected))
        assert abs(system.log_det - expected) <= ERRORS * system.log_det_error + 1e-9 * (1.0 + abs(expected))
    else:
        assert system.log_det_error == 0.0
        assert system.log_det == pytest.approx(expected, rel=1e-9, abs=1e-9)


@every_engine
@every_template
@every_case
def test_fixed(name, kind, engine):
    ours, expected = system_of(name, kind, engine).fixed, expected_of(name, kind).fixed
    size = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(ours / np.outer(size, size), expected / np.outer(size, size), rtol=0, atol=1e-9)


@every_engine
@every_template
@every_case
def test_effects(name, kind, engine):
    model = model_of(name)
    beta = np.random.default_rng(13).normal(size=model.design.layout.n_fixed)
    ours, (modes, scores) = system_of(name, kind, engine).effects(beta), expected_of(name, kind).effects(beta)
    _, without = expected_of(name, "zero").effects(beta)  # the scores that the random effects take their part of
    part = SOLVED if sampled(name, engine) else EXACT
    for b, s, mode, score, whole in zip(ours.modes, ours.scores, modes, scores, without, strict=True):
        np.testing.assert_allclose(b, mode, rtol=0, atol=max(part * np.abs(mode).max(), 1e-300))
        np.testing.assert_allclose(s, score, rtol=0, atol=part * np.abs(whole).max())


@every_engine
@every_template
@every_case
def test_inner(name, kind, engine):
    rng = np.random.default_rng(14)
    z = tuple(rng.normal(size=(f.size, f.n_levels, 4)) for f in model_of(name).design.layout.factors)
    for part in z[1:]:
        part[:, :, 0] = 0.0  # one direction within a factor alone, as the average information has them
    ours, (zz, zx) = system_of(name, kind, engine).inner(z), expected_of(name, kind).inner(z)
    # Quadratic in the error of the solution, which is a part of what the random effects may explain.
    whole, atol = (expected_of(name, "zero"), 1e-8) if sampled(name, engine) else (expected_of(name, kind), EXACT)
    size, x_size = np.sqrt(np.diag(whole.inner(z)[0])), np.sqrt(np.diag(whole.fixed)[:-1])
    np.testing.assert_allclose(ours.zz / np.outer(size, size), zz / np.outer(size, size), rtol=0, atol=atol)
    np.testing.assert_allclose(ours.zx / np.outer(size, x_size), zx / np.outer(size, x_size), rtol=0, atol=atol)
    assert sampled(name, engine) or ours.steps == 0


@pytest.mark.parametrize("reml", [True, False], ids=["reml", "ml"])
@every_engine
@every_template
@every_case
def test_marginal(name, kind, engine, reml):
    ours, expected = system_of(name, kind, engine).marginal(reml=reml), expected_of(name, kind).marginal(reml)
    n = PROBES if sampled(name, engine) else 0
    for block, deviations, B in zip(ours.blocks, ours.deviations, expected, strict=True):
        assert deviations.shape == (n, *B.shape)
        np.testing.assert_allclose(deviations.sum(axis=0), 0.0, atol=1e-8 * (1.0 + np.abs(deviations).sum()))
        unit = np.sqrt(np.outer(np.diag(B), np.diag(B)))
        error = standard_error(deviations)
        assert (error <= 0.1 * unit).all()
        assert (np.abs(block - B) <= ERRORS * error + 1e-7 * unit).all()
        np.testing.assert_allclose(block / unit, block.T / unit, rtol=0, atol=1e-9)


@every_engine
@every_case
def test_steps_are_counted(name, engine):
    system = system_of(name, "full rank", engine)
    assert (system.steps > 0) == sampled(name, engine)
    assert system.equations.n_probes == (PROBES if sampled(name, engine) else 0)


# --- storage of the direct engine ----------------------------------------------------------------


@pytest.mark.parametrize("rest", ["dense", "sparse"])
def test_storage_changes_nothing(rest):
    model = clm.MixedLM.from_formula("y ~ x + (1 | a) + (1 + x | b) + (1 | c)", frame())
    assert model.plan(clm.DirectEngine(rest=rest)).rest == rest
    fit, auto = model.fit(engine=clm.DirectEngine(rest=rest)), model.fit()
    assert fit.estimates.plan.rest == rest
    assert fit.criterion == pytest.approx(auto.criterion, abs=1e-7)
    np.testing.assert_allclose(fit.fe_params, auto.fe_params, atol=1e-5)


@pytest.mark.parametrize("ordering", ORDERINGS)
def test_orderings(ordering):
    model = clm.MixedLM.from_formula("y ~ x + (1 | a) + (1 | b) + (1 | c)", frame())
    theta = np.array([0.8, 0.0, 0.6])
    value = model.objective(theta, engine=clm.DirectEngine(rest="sparse", ordering=ordering))
    expected = model.objective(theta)
    assert value.criterion == pytest.approx(expected.criterion, rel=1e-12)
    np.testing.assert_allclose(value.gradient, expected.gradient, atol=1e-8)


@pytest.fixture(scope="module")
def nested():
    """1,500 schools of two classes each: a rest of more than `DENSE_AT_ONCE` equations."""
    rng = np.random.default_rng(2)
    n_schools = 1_500
    school = np.repeat(np.arange(n_schools), 6)
    frame = pd.DataFrame({"school": school, "klass": 2 * school + np.tile([0, 0, 0, 1, 1, 1], n_schools)})
    frame["x"] = rng.normal(size=len(frame))
    frame["y"] = 1 + 0.5 * frame["x"] + 0.7 * rng.normal(size=n_schools)[school] + rng.normal(size=len(frame))
    frame["y"] += 0.5 * rng.normal(size=2 * n_schools)[frame["klass"]]
    return frame


@pytest.fixture(scope="module")
def blocks():
    """Crossed within 120 blocks of 26 pupils, 13 teachers and 3 rooms: block by block full, sparse as a whole."""
    rng = np.random.default_rng(3)
    block = np.repeat(np.arange(120), 80)
    frame = pd.DataFrame({"pupil": 26 * block + rng.integers(0, 26, block.size)})
    frame["teacher"] = 13 * block + rng.integers(0, 13, block.size)
    frame["room"] = 3 * block + rng.integers(0, 3, block.size)
    frame["y"] = rng.normal(size=block.size)
    for name, sd in (("pupil", 0.8), ("teacher", 0.6), ("room", 0.5)):
        frame["y"] += sd * rng.normal(size=frame[name].max() + 1)[frame[name]]
    return frame


@pytest.mark.parametrize("reml", [True, False], ids=["reml", "ml"])
@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("nested", "y ~ x + (1 | school) + (1 | klass)"),
        ("nested", "y ~ x + (1 + x | school) + (1 | klass)"),
        ("blocks", "y ~ 1 + (1 | pupil) + (1 | teacher) + (1 | room)"),
    ],
)
def test_a_sparse_rest_fits_as_a_dense_one(request, name, formula, reml):
    model = clm.MixedLM.from_formula(formula, request.getfixturevalue(name))
    plan = model.plan()
    assert plan.rest == "sparse"
    assert plan.rest_size > DENSE_AT_ONCE
    assert plan.bytes < 8 * plan.rest_size**2
    fit = model.fit(reml)
    theta = fit.theta.to_numpy()
    assert fit.converged

    dense = model.objective(theta, reml, engine=clm.DirectEngine(rest="dense"))
    sparse = model.objective(theta, reml)
    assert fit.criterion == pytest.approx(dense.criterion, rel=1e-12)
    scale = np.abs(np.diag(dense.information)).max()
    np.testing.assert_allclose(sparse.gradient, dense.gradient, atol=1e-8 * scale)
    np.testing.assert_allclose(sparse.information, dense.information, atol=1e-8 * scale)

    other = model.fit(reml, engine=clm.DirectEngine(rest="dense"), start=theta)
    assert other.criterion == pytest.approx(fit.criterion, abs=1e-6)
    np.testing.assert_allclose(other.fe_params, fit.fe_params, atol=1e-4 * fit.bse_fe.min())
    np.testing.assert_allclose(other.bse_fe, fit.bse_fe, rtol=1e-4)
    for factor, modes in fit.random_effects.items():
        np.testing.assert_allclose(other.random_effects[factor], modes, atol=1e-4 * fit.sigma)


@pytest.mark.parametrize("rest", ["dense", "sparse"])
def test_a_rest_at_a_singular_template(nested, rest):
    """Schools without variance: the equations of the rest are the identity, and the gradient there is exact."""
    model = clm.MixedLM.from_formula("y ~ x + (1 | school) + (1 | klass)", nested)
    engine = clm.DirectEngine(rest=rest)
    names = model.theta_names
    theta = np.array([0.0 if name.startswith("school") else 0.6 for name in names])
    value = model.objective(theta, engine=engine)
    alone = clm.MixedLM.from_formula("y ~ x + (1 | klass)", nested).objective([0.6])
    assert value.criterion == pytest.approx(alone.criterion, rel=1e-12)
    klass = [name.startswith("klass") for name in names].index(True)
    assert value.gradient[klass] == pytest.approx(alone.gradient[0], rel=1e-8)
    assert value.gradient[1 - klass] == 0.0
