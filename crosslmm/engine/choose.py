"""Which engine: the exact one wherever its factor fits and is not out of all proportion, else the iterative one.

Costs are predicted from the pattern of the cross-products before anything is factorised, and nothing of the size of a
factor is formed for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosslmm.crossproducts import CrossProducts, PairBlock
from crosslmm.engine.direct import DirectEquations, prepare
from crosslmm.engine.iterative import IterativeEquations
from crosslmm.engine.plan import DirectEngine, Engine, IterativeEngine, Plan, available_memory, require_memory
from crosslmm.engine.split import describe, oriented, prepare_iterative
from crosslmm.engine.symbolic import DENSE_AT_ONCE, DENSE_SECONDS, PATTERN_BYTES, SPARSE_SECONDS, dense_bytes
from crosslmm.errors import ResourceError

PATIENCE = 3.0
"""Seconds per evaluation that an exact answer is worth; a fit takes about six."""

VISIT_SECONDS = 7e-10
"""Seconds per multiply-add of the Schur complement and of what its inverse gives back (2 cores)."""

ORDERING_SECONDS = 7e-7
"""Seconds per nonzero of a sparse rest that its ordering takes: once only, but where that is long the factor fills."""

PASS_SECONDS = 2e-10
"""Seconds per multiply-add of a pass of conjugate gradients (2 cores)."""

SAMPLED_LEVELS = 16
"""Levels of each factor of the rest whose coupling is counted to predict the nonzeros of all."""

MOSTLY_FULL = 0.3
"""Part of the nonzeros of the rest from which its factor is taken for full."""


@dataclass(frozen=True)
class Forecast:
    """What the direct engine would take.

    Attributes
    ----------
    equations : int
        That remain once the largest factor is eliminated.
    nonzeros : float
        Of these equations (lower triangle), before any is filled in.
    flops : float
        Multiply-adds of an evaluation, at least.
    bytes : float
        Memory, at least.
    seconds : float
        Per evaluation, at least.
    """

    equations: int
    nonzeros: float
    flops: float
    bytes: float
    seconds: float


def choose(xp: CrossProducts, engine: Engine | None) -> DirectEquations | IterativeEquations:
    """Equations of the engine that was asked for, or (None) of the one that suits.

    Raises
    ------
    ResourceError
        Neither engine fits in memory, or not the one asked for.
    """
    if isinstance(engine, DirectEngine):
        return prepare(xp, engine)
    if isinstance(engine, IterativeEngine):
        require_memory(describe(xp, engine, "").bytes, "the iterative engine")
        return prepare_iterative(xp, engine, "asked for")
    rest = sum(f.n_effects for f in xp.layout.factors) - max(f.n_effects for f in xp.layout.factors)
    if rest <= DENSE_AT_ONCE:
        return prepare(xp, DirectEngine())
    return _weigh(xp, forecast(xp))


def _weigh(xp: CrossProducts, direct: Forecast) -> DirectEquations | IterativeEquations:
    options = IterativeEngine()
    iterative = describe(xp, options, "")
    available = available_memory()
    seconds = PASS_SECONDS * iterative.flops
    limit = max(PATIENCE, seconds)
    reason = _reason(direct, available)
    if direct.bytes <= available and direct.seconds <= limit:
        try:
            equations = prepare(xp, DirectEngine())
        except ResourceError as error:  # the sparse factor turned out to be too large
            reason = str(error).split(". ")[0]
        else:
            if _factor_seconds(equations.plan) <= limit:
                return equations
            reason = _cost(direct.equations, "", equations.plan.bytes, equations.plan.flops)
    if iterative.bytes > available:
        raise ResourceError(
            f"this model needs {iterative.bytes / 1e9:,.1f} GB with the iterative engine and at least "
            f"{direct.bytes / 1e9:,.1f} GB with the direct one, and {available / 1e9:,.1f} GB are available. Fewer "
            "levels in the second largest factor, fewer random slopes, fewer fixed-effects columns, or a machine with "
            "more memory would help"
        )
    return prepare_iterative(xp, options, reason)


def _factor_seconds(plan: Plan) -> float:
    """Seconds per evaluation of a direct plan whose factor has been analysed."""
    return (SPARSE_SECONDS if plan.rest == "sparse" else DENSE_SECONDS) * plan.flops


def _reason(direct: Forecast, available: int) -> str:
    if direct.bytes > available:
        cost = f"an exact factor of {direct.equations:,} equations would take at least {direct.bytes / 1e9:,.1f} GB"
        return f"{cost} and {available / 1e9:,.1f} GB are available"
    return _cost(direct.equations, "at least ", direct.bytes, direct.flops)


def _cost(equations: int, least: str, n_bytes: float, flops: float) -> str:
    memory = f"{least}{n_bytes / 1e9:,.1f} GB"
    return f"an exact factor of {equations:,} equations would take {memory} and {flops:.1g} multiply-adds an evaluation"


def forecast(xp: CrossProducts) -> Forecast:
    """Predict the cost of the direct engine without forming the equations that remain."""
    factors = xp.layout.factors
    first = max(range(len(factors)), key=lambda f: factors[f].n_effects)
    q = sum(f.n_effects for f in factors) - factors[first].n_effects
    full = 0.5 * q * (q + 1.0)
    nonzeros, visits = _coupled(xp, first)
    nonzeros = min(nonzeros, full)
    if nonzeros > MOSTLY_FULL * full:
        flops = float(q) ** 3
        return Forecast(q, full, flops, dense_bytes(q), DENSE_SECONDS * flops + VISIT_SECONDS * visits)
    seconds = VISIT_SECONDS * visits + ORDERING_SECONDS * nonzeros
    return Forecast(q, nonzeros, visits, PATTERN_BYTES * min(visits, full), seconds)


def _coupled(xp: CrossProducts, first: int) -> tuple[float, float]:
    """Nonzeros of the rest (lower triangle), and visits: the sum of squared degrees.

    All visits are known; how many of them meet a column for the first time is seen from a sample of the levels.
    """
    others = [g for g in range(len(xp.layout.factors)) if g != first]
    sizes = [xp.layout.factors[g].size for g in others]
    blocks = [oriented(xp, first, g) for g in others]
    degree = sum(size * np.diff(block.indptr).astype(float) for size, block in zip(sizes, blocks, strict=True))
    nonzeros = 0.0
    for size, block, g in zip(sizes, blocks, others, strict=True):
        met, visited = _reached(block, blocks, sizes, xp.diagonal[g].shape[2])
        nonzeros += size * float(np.dot(np.diff(block.indptr), degree)) * met / max(visited, 1)
    return 0.5 * nonzeros, float(np.dot(degree, degree))


def _reached(block: PairBlock, blocks: list[PairBlock], sizes: list[int], n_levels: int) -> tuple[int, int]:
    """Columns that some levels of one factor meet through the levels of the eliminated one, and visits of them."""
    chosen = np.unique(np.linspace(0, n_levels - 1, min(SAMPLED_LEVELS, n_levels)).astype(np.int32))
    flag = np.zeros(n_levels, dtype=bool)
    flag[chosen] = True
    entries = np.flatnonzero(flag[block.indices])
    own = np.searchsorted(block.indptr, entries, side="right") - 1
    level = block.indices[entries]
    met, visited = 0, 0
    for c in chosen:
        rows = own[level == c]
        for other, size in zip(blocks, sizes, strict=True):
            starts, lengths = other.indptr[rows], np.diff(other.indptr)[rows]
            shift = np.repeat(starts - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
            visited += size * int(lengths.sum())
            met += size * np.unique(other.indices[shift + np.arange(lengths.sum())]).size
    return met, visited
