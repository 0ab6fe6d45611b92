"""The plan: which factor is eliminated, how the rest is stored, what it costs, and that the storage does not matter."""

import numpy as np
import pandas as pd
import pytest

import crosslmm as clm
from crosslmm.engine import plan as plan_module
from crosslmm.engine.direct import prepare
from crosslmm.engine.symbolic import DENSE_AT_ONCE


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    n = 400
    frame = pd.DataFrame({"a": rng.integers(0, 40, n), "c": rng.integers(0, 5, n), "x": rng.normal(size=n)})
    frame["b"] = (frame["a"] // 4 + rng.integers(0, 2, n)) % 10
    frame["y"] = rng.normal(size=40)[frame["a"]] + rng.normal(size=5)[frame["c"]] + rng.normal(size=n)
    return frame


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


def equations_of(formula, data, **options):
    xp = clm.MixedLM.from_formula(formula, data).crossproducts
    return xp, prepare(xp, clm.DirectEngine(**options))


def random_templates(xp):
    rng = np.random.default_rng(4)
    return tuple(np.tril(rng.uniform(0.3, 1.2, size=(f.size, f.size))) for f in xp.layout.factors)


# --- the choice ----------------------------------------------------------------------------------


def test_one_factor(data):
    plan = clm.MixedLM.from_formula("y ~ x + (1 + x | a)", data).plan()
    assert (plan.engine, plan.eliminated, plan.eliminated_levels) == ("direct", "a", 40)
    assert (plan.rest, plan.rest_size) == ("none", 0)
    assert "one grouping factor" in plan.reason
    assert plan.blocks[0] == ("a", "a", "block diagonal", 40 * 4)
    assert not any(row.startswith("rest") for row, *_ in plan.blocks)


def test_crossed(data):
    """The factor with the most effects is eliminated, wherever it stands in the formula."""
    plan = clm.MixedLM.from_formula("y ~ x + (1 | c) + (1 + x | b) + (1 | a)", data).plan()
    assert (plan.eliminated, plan.rest, plan.rest_size) == ("a", "dense", 10 * 2 + 5)
    assert plan.reason == "the rest is small"
    assert plan.flops > 0
    assert plan.bytes > 0


def test_effects_count_not_levels(data):
    plan = clm.MixedLM.from_formula("y ~ x + (1 + x | b) + (1 | c)", data).plan()
    assert plan.eliminated == "b"
    few = clm.MixedLM.from_formula("y ~ x + (1 + x + I(x**2) + I(x**3) + I(x**4) | b) + (1 | a)", data).plan()
    assert (few.eliminated, few.rest_size) == ("b", 40)


@pytest.mark.parametrize("rest", ["dense", "sparse"])
def test_forced(data, rest):
    model = clm.MixedLM.from_formula("y ~ x + (1 | a) + (1 + x | b) + (1 | c)", data)
    assert model.plan(clm.DirectEngine(rest=rest)).rest == rest
    fit, auto = model.fit(engine=clm.DirectEngine(rest=rest)), model.fit()
    assert fit.estimates.plan.rest == rest
    assert fit.criterion == pytest.approx(auto.criterion, abs=1e-7)
    np.testing.assert_allclose(fit.fe_params, auto.fe_params, atol=1e-5)


@pytest.mark.parametrize("ordering", plan_module.ORDERINGS)
def test_orderings(data, ordering):
    model = clm.MixedLM.from_formula("y ~ x + (1 | a) + (1 | b) + (1 | c)", data)
    theta = np.array([0.8, 0.0, 0.6])
    value = model.objective(theta, engine=clm.DirectEngine(rest="sparse", ordering=ordering))
    expected = model.objective(theta)
    assert value.criterion == pytest.approx(expected.criterion, rel=1e-12)
    np.testing.assert_allclose(value.gradient, expected.gradient, atol=1e-8)


def test_a_large_crossed_rest_is_dense():
    """Pairs drawn at random fill the rest: that is seen without ordering it."""
    rng = np.random.default_rng(5)
    levels = DENSE_AT_ONCE + 50
    n = 130_000
    frame = pd.DataFrame({"a": rng.integers(0, levels + 10, n), "b": rng.integers(0, levels, n)})
    plan = clm.MixedLM.from_formula("y ~ 1 + (1 | a) + (1 | b)", frame.assign(y=rng.normal(size=n))).plan()
    assert plan.rest == "dense"
    assert plan.rest_size > DENSE_AT_ONCE
    assert "crossed" in plan.reason


def test_plan_as_text(data):
    text = str(clm.MixedLM.from_formula("y ~ x + (1 | a) + (1 | b)", data).plan())
    for piece in ["direct", "a (40 levels)", "dense (10 equations)", "blocks of the lower triangle", "rest: b"]:
        assert piece in text


@pytest.mark.parametrize("options", [{"rest": "none"}, {"rest": "Dense"}, {"ordering": "colamd"}, {"rest": None}])
def test_options_that_do_not_exist(options):
    (name,) = options
    with pytest.raises(clm.ModelError, match=f"{name}=.*expected one of"):
        clm.DirectEngine(**options)


# --- what is predicted ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "formula", ["y ~ x + (1 | a) + (1 | b)", "y ~ x + (1 + x | a) + (1 + x | b) + (1 | c)", "y ~ x + (1 | a / b)"]
)
@pytest.mark.parametrize("rest", ["dense", "sparse"])
def test_predicted_nonzeros_are_those_of_the_factor(data, formula, rest):
    xp, equations = equations_of(formula, data, rest=rest)
    system = equations.at(random_templates(xp))
    stored = {row: count for row, col, _, count in equations.plan.blocks if not col}
    (predicted,) = (count for row, count in stored.items() if row.startswith("rest"))
    if rest == "dense":
        q = equations.plan.rest_size
        assert system.rest.L.shape == (q, q)
        assert predicted == q * (q + 1) // 2
    else:
        assert predicted == system.rest.cholesky.lower().nnz
    first = xp.layout.factors[equations.symbolic.order[0]]
    p = xp.layout.n_fixed + 1
    coupled = sum(block.values.size for block in equations.symbolic.blocks)
    assert [count for _, col, _, count in equations.plan.blocks if col][1:] == [
        block.values.size for block in equations.symbolic.blocks
    ]
    own = first.n_levels * first.size * (first.size + 1) // 2
    assert equations.plan.nonzeros == predicted + coupled + own + p * (xp.layout.n_random + p)


@pytest.mark.parametrize("rest", ["dense", "sparse"])
def test_too_large_for_the_memory(data, rest, monkeypatch):
    """Refused by the prediction, before anything is allocated, with both sizes named."""
    model = clm.MixedLM.from_formula("y ~ x + (1 | a) + (1 | b)", data)
    monkeypatch.setattr(plan_module, "available_memory", lambda: 100)
    with pytest.raises(clm.ResourceError, match=r"needs .* GB and 0\.0 GB are available") as caught:
        model.fit(engine=clm.DirectEngine(rest=rest))
    assert isinstance(caught.value, MemoryError)
    monkeypatch.undo()
    assert model.fit(engine=clm.DirectEngine(rest=rest)).converged


def test_available_memory():
    assert 2**20 < plan_module.available_memory() < 2**50


# --- a sparse rest that was chosen ---------------------------------------------------------------


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
