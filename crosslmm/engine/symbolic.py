"""Symbolic analysis: which factor is eliminated, what the rest looks like, and how it is best stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from crosslmm.crossproducts import CrossProducts, PairBlock
from crosslmm.engine.plan import DirectEngine, Plan, require_memory
from crosslmm.linalg.coupling import RestBlock, wants_kernels
from crosslmm.linalg.rest import DenseRest, Rest, RestMatrix, build_sparse_rest

DENSE_AT_ONCE = 1_350
"""A rest of up to this many equations is factorised densely in under 50 ms: less than an ordering would cost."""

CERTAINLY_FULL = 4.0
"""Visits per entry of S above which S is taken for full: with random pairs less than exp(-4) = 2% would stay zero."""

DENSE_SECONDS = 2.5e-11
"""Seconds per multiply-add of LAPACK's factor and inverse (2 cores), and of the sparse ones below.

Only their ratio counts.
"""

SPARSE_SECONDS = 2.0e-9


@dataclass(frozen=True)
class Symbolic:
    """Everything of the equations that does not depend on theta.

    Attributes
    ----------
    plan : Plan
    order : tuple of int
        Factors of the layout, the eliminated one first.
    blocks : tuple of RestBlock
        Coupling of the eliminated factor with every other, in `order`.
    compiled : bool
        Whether the coupling is large enough for compiled kernels.
    rest : Rest
    """

    plan: Plan
    order: tuple[int, ...]
    blocks: tuple[RestBlock, ...]
    compiled: bool
    rest: Rest


def analyze(xp: CrossProducts, options: DirectEngine) -> Symbolic:
    """Choose the elimination and the storage for `xp`.

    Raises
    ------
    ResourceError
        When the factor would not fit in memory.
    """
    factors = xp.layout.factors
    eliminated = max(range(len(factors)), key=lambda f: factors[f].n_effects)
    order = (eliminated, *(f for f in range(len(factors)) if f != eliminated))
    sizes = [factors[f].n_effects for f in order[1:]]
    offsets = tuple(int(o) for o in np.concatenate([[0], np.cumsum(sizes)]))
    blocks = _coupling_blocks(xp, order, offsets)
    matrix = _rest_matrix(xp, order, offsets)
    shape = (factors[eliminated].size, factors[eliminated].n_levels, offsets[-1])
    rest, nonzeros, reason = _store_rest(matrix, blocks, shape, options)
    plan = _describe(xp, order, blocks, rest, nonzeros, reason)
    compiled = wants_kernels(shape) or not isinstance(rest, DenseRest)
    return Symbolic(plan, order, blocks, compiled, rest)


def _oriented(xp: CrossProducts, f: int, g: int) -> tuple[NDArray, NDArray, NDArray]:
    """Levels of f, levels of g and values (k_f, k_g, nnz) of their pair block."""
    block: PairBlock = next(b for i, j, b in xp.pairs if {i, j} == {f, g})
    if f < g:
        return block.rows(), block.indices, block.values
    return block.indices, block.rows(), np.ascontiguousarray(block.values.transpose(1, 0, 2))


def _coupling_blocks(xp: CrossProducts, order: tuple[int, ...], offsets: tuple[int, ...]) -> tuple[RestBlock, ...]:
    blocks = []
    for offset, g in zip(offsets, order[1:], strict=False):
        factor = xp.layout.factors[g]
        blocks.append(RestBlock(offset, factor.size, factor.n_levels, *_oriented(xp, order[0], g)))
    return tuple(blocks)


def _rest_matrix(xp: CrossProducts, order: tuple[int, ...], offsets: tuple[int, ...]) -> RestMatrix:
    rest = order[1:]
    pairs = tuple((i, j, *_oriented(xp, rest[i], rest[j])) for i in range(len(rest)) for j in range(i + 1, len(rest)))
    return RestMatrix(offsets, tuple(xp.diagonal[f] for f in rest), pairs)


def _visits(blocks: tuple[RestBlock, ...], n_levels: int) -> float:
    """Sum over levels of the squared number of coupled columns: multiply-adds of the Schur complement, twice."""
    degree = sum((b.size * np.bincount(b.rows, minlength=n_levels) for b in blocks), np.zeros(n_levels))
    return float(degree @ degree)


def _store_rest(
    matrix: RestMatrix, blocks: tuple[RestBlock, ...], shape: tuple[int, int, int], options: DirectEngine
) -> tuple[Rest, int, str]:
    q = shape[2]
    full = q * (q + 1) // 2
    dense_bytes = 2 * 8 * q * q
    visits = _visits(blocks, shape[1])
    if q == 0:
        return DenseRest.build(matrix), 0, "one grouping factor, solved level by level"
    if options.rest != "sparse":
        reason = None
        if options.rest == "dense":
            reason = "a dense rest was asked for"
        elif q <= DENSE_AT_ONCE:
            reason = "the rest is small"
        elif visits / 2 > CERTAINLY_FULL * full:
            reason = "crossed factors fill the rest"
        if reason is not None:
            require_memory(dense_bytes, f"a dense factor of {q:,} equations")
            return DenseRest.build(matrix), full, reason
    pattern = _rest_pattern(matrix, blocks, shape)
    return _weigh(matrix, pattern, dense_bytes, options)


def _weigh(
    matrix: RestMatrix, pattern: sparse.csc_array, dense_bytes: int, options: DirectEngine
) -> tuple[Rest, int, str]:
    """Order the rest and take the cheaper of a sparse and a dense factor."""
    from crosslmm.linalg import cholmod, selinv

    q = pattern.shape[0]
    analysis = cholmod.analyze(pattern, options.ordering)
    upper = _permuted_upper(pattern, analysis.permutation)
    parent, counts = selinv.column_counts(upper.indptr, upper.indices)
    nonzeros = int(counts.sum())
    sparse_cost = SPARSE_SECONDS * float(counts.astype(float) @ counts)
    dense_cost = DENSE_SECONDS * float(q) ** 3
    share = f"{200.0 * nonzeros / (q * (q + 1.0)):.2g}% of a full one"
    if options.rest == "auto" and dense_cost < sparse_cost:
        require_memory(dense_bytes, f"a dense factor of {q:,} equations")
        return DenseRest.build(matrix), q * (q + 1) // 2, f"the sparse factor would have {share}"
    require_memory(nonzeros * 40, f"a sparse factor of {nonzeros:,} nonzeros")
    factor = selinv.factor_pattern(upper.indptr, upper.indices, parent, counts)
    reason = f"the sparse factor of the rest has {share}"
    return build_sparse_rest(matrix, pattern, analysis, factor), nonzeros, reason


def _rest_pattern(matrix: RestMatrix, blocks: tuple[RestBlock, ...], shape: tuple[int, int, int]) -> sparse.csc_array:
    """Lower triangle of the pattern of S, rows sorted."""
    _, n_levels, q = shape
    cols = np.concatenate([b.columns().ravel() for b in blocks])
    rows = np.concatenate([np.tile(b.rows, b.size) for b in blocks])
    C = sparse.csr_array((np.ones(cols.size), (rows, cols)), shape=(n_levels, q))
    own = sparse.csc_array((np.ones(matrix.entries()[0].size), matrix.entries()), shape=(q, q))
    pattern = sparse.csc_array(sparse.tril(C.T @ C + own, format="csc"))
    pattern.sort_indices()
    return pattern


def _permuted_upper(pattern: sparse.csc_array, permutation: NDArray[np.intp]) -> sparse.csc_array:
    """Strict upper triangle of the permuted symmetric pattern."""
    q = pattern.shape[0]
    place = np.empty(q, dtype=np.int64)
    place[permutation] = np.arange(q)
    rows = place[pattern.indices]
    cols = place[np.repeat(np.arange(q), np.diff(pattern.indptr))]
    off = rows != cols
    entries = (np.minimum(rows, cols)[off], np.maximum(rows, cols)[off])
    return sparse.csc_array((np.ones(entries[0].size), entries), shape=(q, q))


def _describe(
    xp: CrossProducts, order: tuple[int, ...], blocks: tuple[RestBlock, ...], rest: Rest, nonzeros: int, reason: str
) -> Plan:
    layout = xp.layout
    factors = [layout.factors[f] for f in order]
    first = factors[0]
    k = first.size
    q = rest.matrix.n_columns
    p = layout.n_fixed + 1
    coupled = sum(b.values.size for b in blocks)
    dense = isinstance(rest, DenseRest)
    storage = "dense" if dense else "sparse"
    rows: list[tuple[str, str, str, int]] = [(first.name, first.name, "block diagonal", first.n_levels * k * k)]
    rows += [(f.name, first.name, "sparse", b.values.size) for f, b in zip(factors[1:], blocks, strict=True)]
    if q:
        rows.append(("rest: " + ", ".join(f.name for f in factors[1:]), "", storage, nonzeros))
    rows.append(("fixed effects, response", "", "dense", p * (layout.n_random + p)))
    per_level = first.n_levels * k * k * (k + p)
    factor_flops = float(q) ** 3 if dense else 3.0 * nonzeros**2 / max(q, 1)
    return Plan(
        engine="direct",
        eliminated=first.name,
        eliminated_levels=first.n_levels,
        rest=storage if q else "none",
        rest_size=q,
        factor_nonzeros=nonzeros + coupled + first.n_levels * k * (k + 1) // 2 + p * (layout.n_random + p),
        flops=per_level + k * _visits(blocks, first.n_levels) + factor_flops,
        bytes=(2 * 8 * q * q if dense else 40 * nonzeros) + 60 * coupled + 8 * 6 * first.n_levels * k * (k + p),
        reason=reason,
        blocks=tuple(rows),
    )
