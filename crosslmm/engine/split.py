"""From cross-products to the equations of the iterative engine: core, border and what a fit will cost."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts, PairBlock, pair_block
from crosslmm.engine.border import Border
from crosslmm.engine.core import CoreBlocks
from crosslmm.engine.iterative import PROBES_AT_ONCE, IterativeEquations
from crosslmm.engine.plan import IterativeEngine, Plan
from crosslmm.linalg.pairs import gram_operator
from crosslmm.linalg.schur import sparse_coupling
from crosslmm.linalg.threads import n_threads

BORDER_BYTES = 2**28
"""The border is dense over the levels of the eliminated factor; it takes no more than this."""

USUAL_STEPS = 20
"""Steps of conjugate gradients that the cost of an evaluation is predicted with; most designs take 10 to 40."""

SOLVER_VECTORS = 14
"""Vectors of the equations that conjugate gradients hold at once for each right-hand side, beside one per thread."""

ELIMINATED_VECTORS, BORDER_VECTORS = 6, 5
"""Vectors of the eliminated factor that are held at once for each probe, and for each column of the border."""


def prepare_iterative(xp: CrossProducts, options: IterativeEngine, reason: str) -> IterativeEquations:
    """Split the cross-products into core and border."""
    order, n_core = split(xp, options)
    first, middle, last = order[0], order[1:n_core], order[n_core:]
    blocks = tuple(oriented(xp, first, g) for g in middle)
    core_pairs = tuple(
        (i, j, oriented(xp, middle[i], middle[j])) for i in range(len(middle)) for j in range(i + 1, len(middle))
    )
    core = CoreBlocks(
        diagonal=xp.diagonal[first],
        gram=gram_operator(tuple(xp.diagonal[g] for g in middle), core_pairs),
        coupling=sparse_coupling(blocks, tuple(xp.diagonal[g].shape[2] for g in middle)) if middle else None,
    )
    n = options.n_probes if core.n_equations else 0
    return IterativeEquations(
        plan=describe(xp, options, reason),
        options=options,
        n_probes=n,
        order=order,
        core=core,
        border=_border(xp, first, middle, last),
    )


def split(xp: CrossProducts, options: IterativeEngine) -> tuple[tuple[int, ...], int]:
    """Factors in the order eliminated, conjugate gradients, border; and how many of them are not in the border."""
    factors = xp.layout.factors
    by_size = sorted(range(len(factors)), key=lambda f: -factors[f].n_effects)
    first, others = by_size[0], by_size[1:]
    room = min(options.border, BORDER_BYTES // (8 * factors[first].n_effects))
    last: list[int] = []
    for f in reversed(others):
        room -= factors[f].n_effects
        if room < 0:
            break
        last.insert(0, f)
    middle = [f for f in others if f not in last]
    return (first, *middle, *last), 1 + len(middle)


def oriented(xp: CrossProducts, f: int, g: int) -> PairBlock:
    """``Z_f' W Z_g`` with the levels of f as rows."""
    block = next(b for i, j, b in xp.pairs if {i, j} == {f, g})
    if f < g:
        return block
    shape = (xp.layout.factors[f].n_levels, xp.layout.factors[g].n_levels)
    return pair_block(block.indices, block.rows(), np.ascontiguousarray(block.values.transpose(1, 0, 2)), shape)


def _border(xp: CrossProducts, first: int, middle: tuple[int, ...], last: tuple[int, ...]) -> Border:
    shapes = tuple((xp.diagonal[s].shape[0], xp.diagonal[s].shape[2]) for s in last)
    effects = [_dense_rows(xp, f, last) for f in (first, *middle)]
    alone = Border(shapes, effects[0], tuple(effects[1:]), _small_gram(xp, last))
    return alone.with_columns(tuple(xp.border[f] for f in (first, *middle, *last)), xp.fixed)


def _dense_rows(xp: CrossProducts, f: int, last: tuple[int, ...]) -> FloatArray:
    """``Z_f' W Z_s`` of all factors of the border, side by side; shape (k_f, L_f, effects of the border)."""
    k, _, n_levels = xp.diagonal[f].shape
    parts = [np.zeros((k, n_levels, 0))]
    for s in last:
        block = oriented(xp, f, s)
        k_s, _, n_s = xp.diagonal[s].shape
        dense = np.zeros((k, n_levels, k_s, n_s))
        dense[:, block.rows(), :, block.indices] = block.values.transpose(2, 0, 1)
        parts.append(dense.reshape(k, n_levels, k_s * n_s))
    return np.concatenate(parts, axis=2)


def _small_gram(xp: CrossProducts, last: tuple[int, ...]) -> FloatArray:
    """``Z_s' W Z_s`` of all factors of the border."""
    gram = np.zeros((0, 0))
    for i, s in enumerate(last):
        k, _, n = xp.diagonal[s].shape
        own = np.zeros((k, n, k, n))
        level = np.arange(n)
        own[:, level, :, level] = xp.diagonal[s].transpose(2, 0, 1)
        beside = _dense_rows(xp, s, last[:i]).reshape(k * n, -1)
        gram = np.block([[gram, beside.T], [beside, own.reshape(k * n, k * n)]])
    return gram


def describe(xp: CrossProducts, options: IterativeEngine, reason: str) -> Plan:
    """What the iterative engine will do with `xp`, and what it will take."""
    order, n_core = split(xp, options)
    factors = [xp.layout.factors[f] for f in order]
    first, middle, last = factors[0], factors[1:n_core], factors[n_core:]
    sizes = {frozenset((i, j)): block.values.size for i, j, block in xp.pairs}
    coupled = [sizes[frozenset((order[0], g))] for g in order[1:n_core]]
    within = [sizes[frozenset(pair)] for pair in combinations(order[1:n_core], 2)]
    pairs = sum(coupled) + sum(within)
    q = sum(f.n_effects for f in middle)
    s = sum(f.n_effects for f in last)
    c = s + xp.layout.n_fixed + 1
    shifts = sum(f.size for f in middle)
    width = c + (shifts + options.n_probes if q else 0)
    most = min(options.max_probes, PROBES_AT_ONCE) if q else 0
    rows = [(first.name, first.name, "block diagonal", first.n_levels * first.size**2)]
    rows += [(f.name, first.name, "pairs", n) for f, n in zip(middle, coupled, strict=True)]
    if within:
        rows.append(("between: " + ", ".join(f.name for f in middle), "", "pairs", sum(within)))
    border = ", ".join([*(f.name for f in last), "fixed effects", "response"])
    rows.append((border, "", "dense", c * (first.n_effects + q + c)))
    vectors = (SOLVER_VECTORS + n_threads()) * 8 * q * (c + shifts + most)
    dense = 8 * first.n_effects * (BORDER_VECTORS * c + ELIMINATED_VECTORS * most + 6 * first.size)
    reversed_pairs = sum(12 * n for n, g in zip(coupled, order[1:n_core], strict=True) if g < order[0])
    return Plan(
        engine="iterative",
        eliminated=first.name,
        eliminated_levels=first.n_levels,
        rest="conjugate gradients" if q else "none",
        rest_size=q,
        border=tuple(f.name for f in last),
        nonzeros=pairs,
        flops=2.0 * pairs * width * USUAL_STEPS,
        bytes=vectors + dense + reversed_pairs,
        held=xp.nbytes,
        reason=reason,
        blocks=tuple(rows),
        options=options,
    )
