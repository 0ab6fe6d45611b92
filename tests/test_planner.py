"""The planner: which engine and storage, what they are predicted to cost, and refusals before anything is allocated."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import crosslmm as clm
from crosslmm.engine import choose as choose_module
from crosslmm.engine import plan as plan_module
from crosslmm.engine import symbolic
from crosslmm.engine.choose import PASS_SECONDS, PATIENCE, choose, forecast
from crosslmm.engine.direct import prepare
from crosslmm.engine.split import describe, oriented
from crosslmm.engine.symbolic import DENSE_AT_ONCE, DENSE_SECONDS, SPARSE_SECONDS

GB = 10**9


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    n = 400
    frame = pd.DataFrame({"a": rng.integers(0, 40, n), "c": rng.integers(0, 5, n), "x": rng.normal(size=n)})
    frame["b"] = (frame["a"] // 4 + rng.integers(0, 2, n)) % 10
    frame["y"] = rng.normal(size=40)[frame["a"]] + rng.normal(size=5)[frame["c"]] + rng.normal(size=n)
    return frame


def equations_of(formula, data, **options):
    xp = clm.MixedLM.from_formula(formula, data).crossproducts
    return xp, prepare(xp, clm.DirectEngine(**options))


def random_templates(xp):
    rng = np.random.default_rng(4)
    return tuple(np.tril(rng.uniform(0.3, 1.2, size=(f.size, f.size))) for f in xp.layout.factors)


# --- storage of the di---------------------------------------------------------------------------


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


# --- what is predicted of a factor ---------------------------------------------------------------


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


# --- the choice of the engine --------------------------------------------------------------------


def random_pairs(n, a, b, seed=0, **more):
    """Rows that meet at random."""
    rng = np.random.default_rng([6, seed, n])
    frame = pd.DataFrame({"a": rng.integers(0, a, n), "b": rng.integers(0, b, n), "x": rng.normal(size=n)})
    for name, levels in more.items():
        frame[name] = rng.integers(0, levels, n)
    return frame.assign(y=rng.normal(size=n))


def crossproducts(frame, formula="y ~ x + (1 | a) + (1 | b)"):
    return clm.MixedLM.from_formula(formula, frame).crossproducts


@pytest.fixture(scope="module")
def huge():
    """Few rows whose exact factor is out of proportion: 20,000 equations that fill, 3.2 GB and 8e12 multiply-adds."""
    return crossproducts(random_pairs(200_000, 30_000, 20_000))


@pytest.fixture(scope="module")
def full():
    """Coupled so closely that the factor is taken for full without being analysed."""
    return crossproducts(random_pairs(400_000, 2_600, 2_500))


@pytest.fixture
def memory(monkeypatch):
    """A function that sets the memory there is."""

    def available(n_bytes):
        for module in (choose_module, plan_module):
            monkeypatch.setattr(module, "available_memory", lambda: n_bytes)

    return available


@pytest.fixture
def no_work(monkeypatch):
    """Preparing the equations is an error."""

    def refuse(*arguments):
        raise AssertionError("the equations were prepared")

    for name in ("prepare", "prepare_iterative"):
        monkeypatch.setattr(choose_module, name, refuse)


def test_small_models_are_exact(data):
    for formula in ("y ~ x + (1 | a)", "y ~ x + (1 | a) + (1 + x | b) + (1 | c)", "y ~ x + (1 | a / b)"):
        assert clm.MixedLM.from_formula(formula, data).plan().engine == "direct"


def test_small_models_are_not_weighed(data, monkeypatch):
    monkeypatch.setattr(choose_module, "forecast", None)
    assert choose(crossproducts(data, "y ~ x + (1 | a) + (1 | b)"), None).plan.engine == "direct"


def test_nested_models_are_exact_however_large():
    rng = np.random.default_rng(7)
    n = 100_000
    frame = random_pairs(n, 40_000, 2).assign(b=rng.integers(0, 2, n))
    frame["b"] = frame["a"] // 8
    plan = choose(crossproducts(frame), None).plan
    assert (plan.engine, plan.rest, plan.rest_size) == ("direct", "sparse", 5_000)


def test_a_factor_out_of_proportion(huge, memory):
    memory(100 * GB)
    plan = choose(huge, None).plan
    assert (plan.engine, plan.rest) == ("iterative", "conjugate gradients")
    exact = prepare(huge, clm.DirectEngine()).plan
    assert f"an exact factor of {plan.rest_size:,} equations would take {exact.bytes / GB:,.1f} GB" in plan.reason
    assert f"{exact.flops:.1g} multiply-adds" in plan.reason
    assert exact.flops > 1e12


def test_a_full_factor_out_of_proportion(full, memory, no_work, monkeypatch):
    """Seen without an analysis."""
    memory(100 * GB)
    monkeypatch.setattr(choose_module, "PATIENCE", 0.1)
    monkeypatch.setattr(choose_module, "prepare_iterative", lambda xp, options, reason: reason)
    q = forecast(full).equations
    assert choose(full, None) == (
        f"an exact factor of {q:,} equations would take at least {16e-9 * q * q:.1f} GB and {float(q) ** 3:.1g} "
        "multiply-adds an evaluation"
    )


def test_a_full_factor_that_does_not_fit(full, memory):
    memory(45_000_000)
    plan = choose(full, None).plan
    q = forecast(full).equations
    assert plan.engine == "iterative"
    assert plan.reason == (
        f"an exact factor of {q:,} equations would take at least {16e-9 * q * q:.1f} GB and 0.0 GB are available"
    )


def test_a_factor_that_turns_out_not_to_fit(huge, memory):
    memory(GB)
    plan = choose(huge, None).plan
    assert plan.engine == "iterative"
    assert f"factor of {plan.rest_size:,} equations needs" in plan.reason
    assert plan.reason.endswith("GB and 1.0 GB are available")


def test_a_sparse_factor_out_of_proportion():
    """60,000 ratings by 26,000 of 19,000: 6% of a full factor, and yet 10,000 times the work of conjugate gradients."""
    xp = crossproducts(random_pairs(60_000, 30_000, 20_000))
    exact = prepare(xp, clm.DirectEngine()).plan
    assert exact.rest == "sparse"
    assert exact.flops * SPARSE_SECONDS > 5 * PATIENCE
    plan = choose(xp, None).plan
    assert plan.engine == "iterative"
    assert f"{exact.bytes / GB:,.1f} GB and {exact.flops:.1g} multiply-adds" in plan.reason


def test_a_factor_that_cannot_be_counted():
    """600,000 ratings by 90,000 of 60,000, all at random: CHOLMOD gives up, and so must not the planner."""
    plan = choose(crossproducts(random_pairs(600_000, 90_000, 60_000)), None).plan
    assert plan.engine == "iterative"
    assert plan.reason.endswith("equations is too large for CHOLMOD")


def test_patience(full, memory, monkeypatch):
    """The same model is exact for those who wait."""
    memory(100 * GB)
    q = forecast(full).equations
    seconds = DENSE_SECONDS * float(q) ** 3
    assert choose(full, None).plan.engine == ("direct" if seconds < PATIENCE else "iterative")
    monkeypatch.setattr(choose_module, "PATIENCE", 0.5 * seconds)
    assert choose(full, None).plan.engine == "iterative"
    monkeypatch.setattr(choose_module, "PATIENCE", 2.0 * seconds)
    assert choose(full, None).plan.engine == "direct"
    monkeypatch.setattr(choose_module, "PATIENCE", 0.0)
    assert choose(full, None).plan.engine == "iterative"
    # An exact evaluation is never too dear where an iterative one costs as much.
    monkeypatch.setattr(choose_module, "PASS_SECONDS", PASS_SECONDS * 1e6)
    assert choose(full, None).plan.engine == "direct"


@pytest.mark.parametrize("which", ["huge", "full"])
def test_neither_fits(request, which, memory, no_work):
    xp = request.getfixturevalue(which)
    memory(1_000_000)
    needed = describe(xp, clm.IterativeEngine(), "").bytes
    with pytest.raises(clm.ResourceError, match="would help") as caught:
        choose(xp, None)
    assert f"needs {needed / GB:,.1f} GB with the iterative engine" in str(caught.value)
    assert f"at least {forecast(xp).bytes / GB:,.1f} GB with the direct one" in str(caught.value)
    assert "0.0 GB are available" in str(caught.value)
    assert isinstance(caught.value, MemoryError)


# --- a forced engine -----------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["iterative", clm.IterativeEngine(), clm.IterativeEngine(border=0, n_probes=4)])
def test_forced_iterative(data, engine):
    model = clm.MixedLM.from_formula("y ~ x + (1 | a) + (1 + x | b) + (1 | c)", data)
    plan = model.plan(engine)
    assert (plan.engine, plan.reason) == ("iterative", "asked for")
    assert model.fit(engine=engine).estimates.plan == plan
    assert model.plan().engine == "direct"
    assert model.plan("direct").engine == "direct"


def test_forced_direct(huge, memory):
    memory(100 * GB)
    assert choose(huge, clm.DirectEngine(rest="dense")).plan.engine == "direct"
    assert choose(huge, clm.DirectEngine()).plan.engine == "direct"


def test_a_forced_engine_does_not_hide_behind_the_other(huge, memory, no_work):
    memory(1_000_000)
    needed = describe(huge, clm.IterativeEngine(), "").bytes
    with pytest.raises(clm.ResourceError, match=rf"the iterative engine needs {needed / GB:,.1f} GB and 0\.0 GB are"):
        choose(huge, clm.IterativeEngine())


def test_a_forced_direct_engine_that_does_not_fit(huge, memory):
    memory(GB)
    with pytest.raises(clm.ResourceError, match=r"GB and 1\.0 GB are available"):
        choose(huge, clm.DirectEngine())


# --- what is predicted before an analysis --------------------------------------------------------


def true_nonzeros(xp):
    """Lower triangle of the equations that remain, by forming their pattern."""
    factors = xp.layout.factors
    first = max(range(len(factors)), key=lambda f: factors[f].n_effects)
    columns = []
    for g, factor in enumerate(factors):
        if g != first:
            block = oriented(xp, first, g)
            entries = (np.ones(block.nnz, dtype=np.int32), (block.rows(), block.indices))
            columns += factor.size * [sparse.csr_array(entries, shape=(factors[first].n_levels, factor.n_levels))]
    C = sparse.hstack(columns, format="csr")
    return 0.5 * (C.T @ C).nnz


def heavy_tailed(spread):
    """Activity is log-normal on both sides."""
    rng = np.random.default_rng([8, int(10 * spread)])
    frame = random_pairs(40_000, 8_000, 5_000)
    for name, levels in (("a", 8_000), ("b", 5_000)):
        weight = np.exp(spread * rng.normal(size=levels))
        frame[name] = rng.choice(levels, len(frame), p=weight / weight.sum())
    return frame


def banded():
    frame = random_pairs(30_000, 6_000, 5)
    return frame.assign(b=frame["a"] // 3 + frame["b"])


PATTERNS = {
    "crossed": (lambda: random_pairs(30_000, 8_000, 5_000), "y ~ x + (1 | a) + (1 | b)"),
    "more": (lambda: random_pairs(80_000, 8_000, 5_000), "y ~ x + (1 | a) + (1 | b)"),
    "slopes": (lambda: random_pairs(30_000, 8_000, 5_000), "y ~ x + (1 + x | a) + (1 + x | b)"),
    "smaller first": (lambda: random_pairs(30_000, 3_000, 8_000), "y ~ x + (1 | a) + (1 | b)"),
    "three factors": (lambda: random_pairs(30_000, 8_000, 5_000, c=1_500), "y ~ x + (1 | a) + (1 + x | b) + (1 | c)"),
    "heavy tails": (lambda: heavy_tailed(1.0), "y ~ x + (1 | a) + (1 | b)"),
    "heavier tails": (lambda: heavy_tailed(1.5), "y ~ x + (1 | a) + (1 | b)"),
    "banded": (banded, "y ~ x + (1 | a) + (1 | b)"),
    "nested": (lambda: random_pairs(30_000, 8_000, 2).assign(b=lambda d: d["a"] // 4), "y ~ x + (1 | a) + (1 | b)"),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_forecast_of_nonzeros(name):
    frame, formula = PATTERNS[name]
    xp = crossproducts(frame(), formula)
    ours, truth = forecast(xp), true_nonzeros(xp)
    factors = xp.layout.factors
    assert ours.equations == sum(f.n_effects for f in factors) - max(f.n_effects for f in factors)
    assert ours.nonzeros == pytest.approx(truth, rel=0.25)
    assert ours.bytes == pytest.approx(symbolic.PATTERN_BYTES * ours.flops)
    assert ours.flops >= 1.8 * truth  # every nonzero is visited, on either side of the diagonal


def test_forecast_counts_every_level_where_they_are_few():
    """And is the count itself then."""
    xp = crossproducts(random_pairs(600, 400, 16))
    xp_slopes = crossproducts(random_pairs(600, 400, 12, c=9), "y ~ x + (1 | a) + (1 + x | b) + (1 | c)")
    for products in (xp, xp_slopes):
        q = forecast(products).equations
        assert forecast(products).nonzeros == 0.5 * q * (q + 1)  # all meet
    few = crossproducts(random_pairs(64, 64, 16), "y ~ 1 + (1 | a) + (1 | b)")
    assert choose_module._coupled(few, 0)[0] == true_nonzeros(few)


def test_forecast_of_a_full_factor(full):
    ours = forecast(full)
    q = ours.equations
    assert ours.nonzeros == 0.5 * q * (q + 1.0)
    assert ours.flops == float(q) ** 3
    assert ours.bytes == 16 * q * q
    assert true_nonzeros(full) > 0.9 * ours.nonzeros


# --- the plan of the iterative engine ------------------------------------------------------------


def test_iterative_plan(data):
    """Factors that fit in the border are in it; blocks are counted as they are stored."""
    xp = crossproducts(data, "y ~ x + (1 | a) + (1 + x | b) + (1 | c)")
    pairs = {frozenset((i, j)): block.nnz for i, j, block in xp.pairs}
    with_border = choose(xp, clm.IterativeEngine(border=5)).plan
    assert (with_border.eliminated, with_border.border) == ("a", ("c",))
    assert (with_border.rest, with_border.rest_size) == ("conjugate gradients", 20)
    assert with_border.nonzeros == 2 * pairs[frozenset((0, 1))]
    none = choose(xp, clm.IterativeEngine(border=0)).plan
    assert (none.border, none.rest_size) == ((), 25)
    assert none.nonzeros == 2 * pairs[frozenset((0, 1))] + pairs[frozenset((0, 2))] + 2 * pairs[frozenset((1, 2))]
    assert none.flops > with_border.flops
    everything = choose(xp, clm.IterativeEngine(border=25)).plan
    assert (everything.border, everything.rest, everything.rest_size) == (("b", "c"), "none", 0)
    assert everything.nonzeros == 0
    more = choose(xp, clm.IterativeEngine(border=0, n_probes=64)).plan
    assert more.flops > 2 * none.flops


def test_a_border_is_not_wider_than_its_memory(data, monkeypatch):
    from crosslmm.engine import split

    xp = crossproducts(data, "y ~ x + (1 | a) + (1 | b) + (1 | c)")
    monkeypatch.setattr(split, "BORDER_BYTES", 8 * 40 * 5)
    assert describe(xp, clm.IterativeEngine(), "").border == ("c",)
    monkeypatch.setattr(split, "BORDER_BYTES", 8 * 40 * 4)
    assert describe(xp, clm.IterativeEngine(), "").border == ()


def test_iterative_plan_as_text(data):
    text = str(
        clm.MixedLM.from_formula("y ~ x + (1 | a) + (1 | b) + (1 | c)", data).plan(clm.IterativeEngine(border=5))
    )
    for piece in [
        "engine        iterative: asked for",
        "eliminated    a (40 levels)",
        "rest          conjugate gradients (10 equations)",
        "border        c: exact, beside the fixed effects",
        "pairs         ",
        " multiply-adds",
        "MB of the cross-products",
        "blocks of the lower triangle",
        "c, fixed effects, response",
    ]:
        assert piece in text
