"""Conditional covariance of the random effects, where rows need it: within levels, and between levels of a row.

With e the eliminated factor and r the others (docs/theory.md, section 5), ``G = Lambda M^-1 Lambda'`` has the blocks

    G_rr = T S^-1 T',     G_er = -Psi C T S^-1 T',     G_ee = Psi + Psi (C T S^-1 T' C') Psi

and the entries of S^-1 that are needed for levels which occur together are those of its selected inverse.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts, PairBlock
from crosslmm.engine.direct import DirectSystem
from crosslmm.linalg.coupling import RestBlock
from crosslmm.linalg.levels import multiply
from crosslmm.linalg.rest import DenseInverse, RestInverse, SparseInverse

Inverse: TypeAlias = FloatArray | sparse.csc_array

WORK_ENTRIES = 4_000_000
"""Entries of a product with the inverse that are formed at once (32 MB)."""


@dataclass(frozen=True)
class SelectedCovariance:
    """Blocks of the covariance of the random effects given the data, theta and beta, over sigma**2.

    Standardised coordinates; see `raw`.

    Attributes
    ----------
    diagonal : tuple of ndarray, each (k, k, L)
        Of the effects of every level, one array per factor of the layout.
    pairs : tuple of (int, int, PairBlock)
        Between the levels of factors ``f < g`` that occur together.
    """

    diagonal: tuple[FloatArray, ...]
    pairs: tuple[tuple[int, int, PairBlock], ...]

    def raw(self, bases: tuple[FloatArray, ...]) -> SelectedCovariance:
        """The same in the units of the data: ``U G U'`` with the bases U (k, k) of the factors."""
        diagonal = tuple(
            np.einsum("ia,abl,jb->ijl", U, G, U, optimize=True) for U, G in zip(bases, self.diagonal, strict=True)
        )
        pairs = tuple(
            (f, g, replace(B, values=np.einsum("ia,abl,jb->ijl", bases[f], B.values, bases[g], optimize=True)))
            for f, g, B in self.pairs
        )
        return SelectedCovariance(diagonal, pairs)


def selected_covariance(system: DirectSystem, xp: CrossProducts) -> SelectedCovariance:
    """Blocks of the conditional covariance from the factorised equations.

    Parameters
    ----------
    system : DirectSystem
        At the estimates.
    xp : CrossProducts
        Of the same model: tells which levels occur together.
    """
    order, rest = system.equations.symbolic.order, system.equations.symbolic.rest.matrix
    psi, inverse = system.first.psi, system.rest.inverse()
    Q = inverse.quadratic(system.scaled)
    diagonal = [psi + multiply(multiply(psi, Q), psi)]
    W = _whole(inverse)
    for g, T in enumerate(system.templates[1:]):
        k, _, n_levels = rest.diagonal[g].shape
        own = rest.offsets[g] + np.arange(k)[:, None] * n_levels + np.arange(n_levels)
        inner = _picked(W, own[:, None, :], own[None, :, :])
        diagonal.append(np.einsum("ia,abl,jb->ijl", T, inner, T, optimize=True))
    cross = _CrossBlocks(system, W)
    pairs = []
    for f, g, block in xp.pairs:
        i, j = order.index(f), order.index(g)
        rows, cols = block.rows(), block.indices
        values = cross.between(i, j, rows, cols) if i < j else cross.between(j, i, cols, rows).transpose(1, 0, 2)
        pairs.append((f, g, replace(block, values=values)))
    return SelectedCovariance(tuple(diagonal[order.index(f)] for f in range(len(order))), tuple(pairs))


@dataclass(frozen=True)
class _CrossBlocks:
    """Blocks of G between factors; numbers of factors in the order of the elimination."""

    system: DirectSystem
    W: Inverse

    def between(self, f: int, g: int, rows: NDArray, cols: NDArray) -> FloatArray:
        """Blocks (k_f, k_g, nnz) between level rows[i] of factor f and level cols[i] of factor ``g > f``."""
        T = self.system.templates
        if f > 0:
            W = _picked(self.W, self._columns(f, rows)[:, None, :], self._columns(g, cols)[None, :, :])
            return np.einsum("ia,abn,jb->ijn", T[f], W, T[g], optimize=True)
        E = np.einsum("ibn,jb->ijn", self._explained(rows, self._columns(g, cols)), T[g])
        return -multiply(self.system.first.psi[:, :, rows], E)

    def _columns(self, g: int, levels: NDArray) -> NDArray[np.int64]:
        """Columns of the rest of some levels of factor g; shape (k, nnz)."""
        rest = self.system.equations.symbolic.rest.matrix
        k, _, n_levels = rest.diagonal[g - 1].shape
        return rest.offsets[g - 1] + np.arange(k)[:, None] * n_levels + levels.astype(np.int64)

    def _explained(self, rows: NDArray, columns: NDArray) -> FloatArray:
        """``(C T S^-1)`` at levels of e (nnz,) and columns of the rest (k, nnz); shape (k_e, k, nnz)."""
        equations = self.system.equations
        k_e, _, n_levels = self.system.first.psi.shape
        q = equations.symbolic.rest.matrix.n_columns
        coupling = _matrices(equations.symbolic.blocks, self.system.templates[1:], (k_e, n_levels, q))
        if isinstance(self.W, np.ndarray):
            return _by_products(coupling, self.W, rows, columns)
        return _by_visits(coupling, self.W, rows, columns)


def _by_products(coupling: list[sparse.csr_array], W: FloatArray, rows: NDArray, columns: NDArray) -> FloatArray:
    """Entries (rows, columns) of ``C T W`` for a dense W, from whole rows of the product."""
    n_levels, q = coupling[0].shape
    order = np.argsort(rows, kind="stable")
    size = max(WORK_ENTRIES // max(q, 1), 1)
    E = np.empty((len(coupling), *columns.shape))
    for low in range(0, n_levels, size):
        first, last = np.searchsorted(rows[order], [low, low + size])
        some = order[first:last]
        for a, matrix in enumerate(coupling):
            product = matrix[low : low + size] @ W
            E[a][:, some] = product[rows[some] - low, columns[:, some]]
    return E


def _by_visits(coupling: list[sparse.csr_array], W: sparse.csc_array, rows: NDArray, columns: NDArray) -> FloatArray:
    """The same for a sparse W, whose entries are looked up for all columns that a level is coupled with."""
    indptr, indices = coupling[0].indptr, coupling[0].indices
    degree = np.diff(indptr)[rows].astype(np.int64)
    ends = np.cumsum(degree)
    E = np.empty((len(coupling), *columns.shape))
    low = 0
    while low < rows.size:
        before = ends[low] - degree[low]
        high = max(int(np.searchsorted(ends, before + WORK_ENTRIES, side="right")), low + 1)
        some = slice(low, high)
        starts = ends[some] - degree[some] - before
        pair = np.repeat(np.arange(low, high), degree[some])
        entry = indptr[rows[pair]] + np.arange(pair.size) - starts[pair - low]
        for i, column in enumerate(columns):
            found = _picked(W, indices[entry], column[pair])
            for a, matrix in enumerate(coupling):
                E[a, i, some] = np.add.reduceat(matrix.data[entry] * found, starts)
        low = high
    return E


def _matrices(
    blocks: tuple[RestBlock, ...], templates: tuple[FloatArray, ...], shape: tuple[int, int, int]
) -> list[sparse.csr_array]:
    """``C T``, one sparse matrix (L_e, q) per column of the eliminated factor."""
    parts = [(block, block.scaled(T)) for block, T in zip(blocks, templates, strict=True)]
    rows = np.concatenate([np.tile(block.rows, block.size) for block, _ in parts])
    cols = np.concatenate([block.columns().ravel() for block, _ in parts])
    values = [np.concatenate([scaled[a].ravel() for _, scaled in parts]) for a in range(shape[0])]
    return [sparse.csr_array((v, (rows, cols)), shape=shape[1:]) for v in values]


def _whole(inverse: RestInverse) -> Inverse:
    """Both triangles: an array, or a sparse matrix on the pattern of S."""
    if isinstance(inverse, DenseInverse):
        return np.tril(inverse.W) + np.tril(inverse.W, -1).T
    assert isinstance(inverse, SparseInverse)
    pattern = inverse.pattern
    lower = sparse.csc_array((inverse.data, pattern.indices, pattern.indptr), shape=pattern.shape)
    return sparse.csc_array(lower + sparse.tril(lower, -1).T)


def _picked(A: Inverse | sparse.csr_array, rows: NDArray, cols: NDArray) -> FloatArray:
    """Entries at rows and columns that broadcast."""
    if isinstance(A, np.ndarray):
        return A[rows, cols]
    shape = np.broadcast_shapes(rows.shape, cols.shape)
    at = (np.broadcast_to(index, shape).ravel() for index in (rows, cols))
    return np.asarray(A[tuple(at)]).reshape(shape)
