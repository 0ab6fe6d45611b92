"""The cross-products of a model: all that estimation needs of the rows.

Sums over rows of products of the standardised columns (see `crosslmm.layout.Standardization`), so
``a + b`` is the value for both sets of rows, provided both were formed under one layout.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from crosslmm.covariance import FloatArray
from crosslmm.layout import Layout

FEW_PAIRS = 200_000
"""Up to here pairs are sorted by numpy and scipy, so that nothing has to be compiled for them."""


@dataclass(frozen=True)
class PairBlock:
    """``Z_f' W Z_g`` of two factors, block sparse over the pairs of levels that occur together.

    Attributes
    ----------
    indptr : ndarray of int64, shape (L_f + 1,)
        The pairs of level i of factor f are ``indptr[i]:indptr[i + 1]``.
    indices : ndarray of int32, shape (nnz,)
        Level of factor g of each pair, increasing within a level of f.
    values : ndarray, shape (k_f, k_g, nnz)
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: FloatArray

    @property
    def nnz(self) -> int:
        """Number of pairs of levels that occur together."""
        return self.indices.size

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return self.indptr.nbytes + self.indices.nbytes + self.values.nbytes

    def rows(self) -> NDArray[np.int32]:
        """Level of factor f of each pair; shape (nnz,)."""
        counts = np.diff(self.indptr)
        return np.repeat(np.arange(counts.size, dtype=np.int32), counts)


def counting_order(codes: NDArray, n_levels: int) -> NDArray[np.intp]:
    """Stable order that sorts `codes` (n,), in O(n): the transpose of a one-hot matrix is a counting sort."""
    n = codes.size
    one_hot = sparse.csr_array((np.arange(n), codes, np.arange(n + 1)), shape=(n, n_levels))
    return one_hot.tocsc().data


def pair_block(rows: NDArray, cols: NDArray, values: FloatArray, shape: tuple[int, int]) -> PairBlock:
    """Sum values that share a pair of levels.

    Parameters
    ----------
    rows, cols : ndarray of int, shape (n,)
        Levels of the two factors.
    values : ndarray, shape (k_f, k_g, n)
    shape : tuple of int
        Numbers of levels (L_f, L_g).
    """
    if rows.size > FEW_PAIRS:
        return _compiled_block(rows, cols, values, shape)
    perm = counting_order(cols, shape[1])
    perm = perm[counting_order(rows[perm], shape[0])]
    rows, cols = rows[perm], cols[perm]
    first = np.ones(rows.size, dtype=bool)
    np.logical_or(rows[1:] != rows[:-1], cols[1:] != cols[:-1], out=first[1:])
    starts = np.flatnonzero(first)
    indptr = np.zeros(shape[0] + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows[starts], minlength=shape[0]), out=indptr[1:])
    summed = np.add.reduceat(np.take(values, perm, axis=2), starts, axis=2)
    return PairBlock(indptr, cols[starts].astype(np.int32), summed)


def _compiled_block(rows: NDArray, cols: NDArray, values: FloatArray, shape: tuple[int, int]) -> PairBlock:
    from crosslmm import merge

    flat = _flat(values)
    order, begin = merge.sorted_pairs(rows, merge.counting_sort(cols, shape[1]), shape[0])
    indptr = merge.count_pairs(cols, order, begin)
    indices, sums = np.empty(indptr[-1], dtype=np.int32), np.empty((len(flat), indptr[-1]))
    merge.fill_pairs(cols, order, begin, flat, indices, sums)
    return PairBlock(indptr, indices, sums.reshape(*values.shape[:2], indptr[-1]))


@dataclass(frozen=True)
class CrossProducts:
    """Weighted cross-products of random-effect columns Z, fixed-effect columns X and response y.

    Attributes
    ----------
    layout : Layout
    n : int
        Number of rows.
    sum_log_weights : float
    diagonal : tuple of ndarray, each (k, k, L)
        ``Z_f' W Z_f``, one (k, k) block per level.
    pairs : tuple of (int, int, PairBlock)
        ``Z_f' W Z_g`` for every ``f < g``.
    border : tuple of ndarray, each (k, L, p + 1)
        ``Z_f' W [X, y]``.
    fixed : ndarray, shape (p + 1, p + 1)
        ``[X, y]' W [X, y]``.
    n_dropped : int
        Rows left out because of a missing value.
    """

    layout: Layout
    n: int
    sum_log_weights: float
    diagonal: tuple[FloatArray, ...]
    pairs: tuple[tuple[int, int, PairBlock], ...]
    border: tuple[FloatArray, ...]
    fixed: FloatArray
    n_dropped: int = 0

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        arrays = (*self.diagonal, *self.border, self.fixed)
        return sum(a.nbytes for a in arrays) + sum(block.nbytes for _, _, block in self.pairs)

    def restrict(self, factor: int) -> CrossProducts:
        """Cross-products of the model with the terms of one factor only."""
        return replace(
            self,
            layout=self.layout.restrict(factor),
            diagonal=(self.diagonal[factor],),
            pairs=(),
            border=(self.border[factor],),
        )

    def __add__(self, other: CrossProducts) -> CrossProducts:
        """Cross-products of both sets of rows; both must have been formed under the same layout."""
        if not self.layout.same(other.layout):
            raise ValueError("cross-products add up only when both were formed under the same layout")
        return CrossProducts(
            layout=self.layout,
            n=self.n + other.n,
            sum_log_weights=self.sum_log_weights + other.sum_log_weights,
            diagonal=tuple(a + b for a, b in zip(self.diagonal, other.diagonal, strict=True)),
            pairs=tuple((f, g, add_pairs(a, b)) for (f, g, a), (_, _, b) in zip(self.pairs, other.pairs, strict=True)),
            border=tuple(a + b for a, b in zip(self.border, other.border, strict=True)),
            fixed=self.fixed + other.fixed,
            n_dropped=self.n_dropped + other.n_dropped,
        )


def add_pairs(a: PairBlock, b: PairBlock) -> PairBlock:
    """Sum of two blocks over the same levels."""
    if a.nnz + b.nnz > FEW_PAIRS:
        return _merged_blocks(a, b)
    rows = np.concatenate([a.rows(), b.rows()])
    cols = np.concatenate([a.indices, b.indices])
    n_cols = int(cols.max(initial=-1)) + 1
    return pair_block(rows, cols, np.concatenate([a.values, b.values], axis=2), (a.indptr.size - 1, n_cols))


def _merged_blocks(a: PairBlock, b: PairBlock) -> PairBlock:
    from crosslmm import merge

    ours, theirs = _flat(a.values), _flat(b.values)
    indptr = merge.count_merged(a.indptr, a.indices, b.indptr, b.indices)
    indices, values = np.empty(indptr[-1], dtype=np.int32), np.empty((len(ours), indptr[-1]))
    merge.fill_merged(a.indptr, a.indices, ours, b.indptr, b.indices, theirs, indices, values)
    return PairBlock(indptr, indices, values.reshape(*a.values.shape[:2], indptr[-1]))


def _flat(values: FloatArray) -> FloatArray:
    k_f, k_g, nnz = values.shape
    return values.reshape(k_f * k_g, nnz)
