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


INSTEAD = "The iterative engine (engine='iterative') forms no factor. "

SPARSE_BYTES = 40
"""Bytes per nonzero of a sparse factor: CHOLMOD's, its copy as a matrix, the selected inverse, and their indices."""

PATTERN_BYTES = 8
"""Bytes per entry of the pattern of S while it is formed: a value and an index."""


def dense_bytes(q: int) -> int:
    """Bytes of a dense rest: the factor and its inverse."""
    return 2 * 8 * q * q


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
    plan = _describe(xp, order, blocks, rest, nonzeros, reason, options)
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
            require_memory(dense_bytes(q), f"a dense factor of {q:,} equations", INSTEAD)
            return DenseRest.build(matrix), full, reason
    require_memory(int(PATTERN_BYTES * min(visits, float(q) ** 2)), f"the pattern of {q:,} equations", INSTEAD)
    return _weigh(matrix, blocks, shape, options)


def _weigh(
    matrix: RestMatrix, blocks: tuple[RestBlock, ...], shape: tuple[int, int, int], options: DirectEngine
) -> tuple[Rest, int, str]:
    """Order the rest and take the cheaper of a sparse and a dense factor.

    The columns of one level share their pattern, so levels are weighed first and columns analysed only if needed.
    """
    from crosslmm.linalg import cholmod, selinv

    q = shape[2]
    levels = _level_pattern(matrix, blocks, shape[1])
    columns_per_level = q / levels.shape[0]
    by_level = _permuted_upper(levels, cholmod.analyze(levels, options.ordering).permutation)
    counts = selinv.column_counts(by_level.indptr, by_level.indices)[1] * columns_per_level
    sparse_cost = SPARSE_SECONDS * columns_per_level * float(counts @ counts)
    full = q * (q + 1) // 2
    share = f"{100.0 * columns_per_level * counts.sum() / full:.2g}% of a full one"
    if options.rest == "auto" and DENSE_SECONDS * float(q) ** 3 < sparse_cost:
        require_memory(dense_bytes(q), f"a dense factor of {q:,} equations", INSTEAD)
        return DenseRest.build(matrix), full, f"the sparse factor of the rest would have {share}"
    require_memory(int(columns_per_level * counts.sum()) * SPARSE_BYTES, f"a sparse factor of {q:,} equations", INSTEAD)
    pattern = _column_pattern(levels, matrix)
    analysis = cholmod.analyze(pattern, options.ordering)
    upper = _permuted_upper(pattern, analysis.permutation)
    parent, exact = selinv.column_counts(upper.indptr, upper.indices)
    factor = selinv.factor_pattern(upper.indptr, upper.indices, parent, exact)
    rest = build_sparse_rest(matrix, pattern, analysis, factor)
    return rest, int(exact.sum()), f"the sparse factor of the rest has {share}"


def _level_pattern(matrix: RestMatrix, blocks: tuple[RestBlock, ...], n_levels: int) -> sparse.csc_array:
    """Which levels of the rest share a block of S; lower triangle, rows sorted."""
    first = np.concatenate([[0], np.cumsum([b.n_levels for b in blocks])])
    rows = np.concatenate([b.rows for b in blocks])
    cols = np.concatenate([b.cols + start for b, start in zip(blocks, first, strict=False)])
    n = int(first[-1])
    C = sparse.csr_array((np.ones(cols.size, dtype=np.float32), (rows, cols)), shape=(n_levels, n))
    own = [sparse.eye_array(n, dtype=np.float32, format="csr")]
    for g, h, levels_g, levels_h, _ in matrix.pairs:
        entries = (levels_h + first[h], levels_g + first[g])
        own.append(sparse.csr_array((np.ones(levels_g.size, dtype=np.float32), entries), shape=(n, n)))
    pattern = sparse.csc_array(sparse.tril(sum(own, C.T @ C), format="csc")).astype(float)
    pattern.sort_indices()
    return pattern


def _column_pattern(levels: sparse.csc_array, matrix: RestMatrix) -> sparse.csc_array:
    """Pattern of S by columns from the pattern by levels; lower triangle, rows sorted."""
    q = matrix.n_columns
    start, columns = 0, []
    for offset, D in zip(matrix.offsets, matrix.diagonal, strict=False):
        k, _, n_levels = D.shape
        nodes = np.tile(np.arange(start, start + n_levels), k)
        columns.append(
            sparse.csr_array((np.ones(k * n_levels), (offset + np.arange(k * n_levels), nodes)), (q, levels.shape[0]))
        )
        start += n_levels
    expand = sum(columns[1:], columns[0])
    full = expand @ (levels + levels.T) @ expand.T
    pattern = sparse.csc_array(sparse.tril(full, format="csc"))
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
    xp: CrossProducts,
    order: tuple[int, ...],
    blocks: tuple[RestBlock, ...],
    rest: Rest,
    nonzeros: int,
    reason: str,
    options: DirectEngine,
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
        border=(),
        nonzeros=nonzeros + coupled + first.n_levels * k * (k + 1) // 2 + p * (layout.n_random + p),
        flops=per_level + k * _visits(blocks, first.n_levels) + factor_flops,
        bytes=(dense_bytes(q) if dense else SPARSE_BYTES * nonzeros)
        + 60 * coupled
        + 8 * 6 * first.n_levels * k * (k + p),
        held=xp.nbytes,
        reason=reason,
        blocks=tuple(rows),
        options=options,
    )
