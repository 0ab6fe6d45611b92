"""The rest: S = T' (A_rr - C' Psi C) T + I of all factors but the eliminated one, assembled and factorised.

Dense (LAPACK) or sparse (CHOLMOD with a selected inverse), behind one protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from crosslmm.covariance import FloatArray
from crosslmm.linalg import dense
from crosslmm.linalg.coupling import Scaled, Templates
from crosslmm.linalg.levels import congruence
from crosslmm.linalg.sparse_factor import SparseAnalysis, SparseCholesky


@dataclass(frozen=True)
class RestMatrix:
    """``A_rr = Z_r' W Z_r`` by blocks; columns numbered factor by factor, then ``column * L + level``.

    Attributes
    ----------
    offsets : tuple of int
        First column of every factor, and the total q.
    diagonal : tuple of ndarray, each (k, k, L)
    pairs : tuple of (int, int, rows, cols, values)
        For factors g < h of the rest: levels of both, and values (k_g, k_h, nnz).
    """

    offsets: tuple[int, ...]
    diagonal: tuple[FloatArray, ...]
    pairs: tuple[tuple[int, int, NDArray[np.int32], NDArray[np.int32], FloatArray], ...]

    @property
    def n_columns(self) -> int:
        """Number of columns q."""
        return self.offsets[-1]

    def entries(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and columns of the lower triangle's entries, in the order of `values`; each (nnz,)."""
        rows, cols = [], []
        for offset, D in zip(self.offsets, self.diagonal, strict=False):
            k, _, n_levels = D.shape
            index = offset + np.arange(k * n_levels).reshape(k, n_levels)
            lower = np.tril_indices(k)
            rows.append(index[lower[0]].ravel())
            cols.append(index[lower[1]].ravel())
        for g, h, levels_g, levels_h, V in self.pairs:
            k_g, k_h, nnz = V.shape
            columns_g = self._columns(g, k_g, levels_g)[:, None, :]
            columns_h = self._columns(h, k_h, levels_h)[None, :, :]
            cols.append(np.broadcast_to(columns_g, (k_g, k_h, nnz)).ravel())
            rows.append(np.broadcast_to(columns_h, (k_g, k_h, nnz)).ravel())
        if not rows:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        return np.concatenate(rows), np.concatenate(cols)

    def _columns(self, factor: int, k: int, levels: NDArray[np.int32]) -> NDArray[np.int64]:
        n_levels = self.diagonal[factor].shape[2]
        return self.offsets[factor] + np.arange(k)[:, None] * n_levels + levels.astype(np.int64)

    def values(self, templates: Templates) -> FloatArray:
        """Entries of ``T' A_rr T + I``; shape (nnz,)."""
        values = []
        for D, T in zip(self.diagonal, templates, strict=True):
            block = congruence(T, D, T)
            index = np.arange(block.shape[0])
            block[index, index] += 1.0
            values.append(block[np.tril_indices(block.shape[0])].ravel())
        for g, h, _, _, V in self.pairs:
            values.append(congruence(templates[g], V, templates[h]).ravel())
        return np.concatenate(values) if values else np.zeros(0)


class Assembled(Protocol):
    """S before it is factorised."""

    def columns(self, index: NDArray[np.int64]) -> FloatArray:
        """Full columns of S; shape (q, index.size)."""


class RestFactor(Protocol):
    """Cholesky factor of S at one theta."""

    @property
    def log_det(self) -> float:
        """log |S|."""

    def half_solve(self, B: FloatArray) -> FloatArray:
        """``L^-1 B`` (rows possibly permuted) for B (q, m)."""

    def half_solve_transposed(self, Y: FloatArray) -> FloatArray:
        """``L'^-1 Y``; after `half_solve` it completes a solve with S."""

    def inverse(self) -> RestInverse:
        """S^-1 where the gradient needs it."""


class RestInverse(Protocol):
    """Entries of S^-1 on the pattern of S."""

    def quadratic(self, coupling: Scaled) -> FloatArray:
        """``C_l T S^-1 T' C_l'`` for every level of the eliminated factor; shape (k_e, k_e, L_e)."""

    def block_sum(self, offset: int, size: int, n_levels: int) -> FloatArray:
        """Sum over levels of the diagonal blocks of one factor; shape (size, size)."""

    def blocks(self, offset: int, size: int, n_levels: int) -> FloatArray:
        """Diagonal blocks of one factor; shape (size, size, n_levels)."""


class Rest(Protocol):
    """The rest at any theta."""

    @property
    def matrix(self) -> RestMatrix:
        """The cross-products that S is made of."""

    def assemble(self, templates: Templates, coupling: Scaled, psi: FloatArray) -> Assembled:
        """S at one theta."""

    def factorize(self, templates: Templates, coupling: Scaled, psi: FloatArray) -> RestFactor:
        """Assemble and factorise S."""


@dataclass(frozen=True)
class DenseRest:
    """S as a dense matrix."""

    matrix: RestMatrix
    rows: NDArray[np.int64]
    cols: NDArray[np.int64]

    @staticmethod
    def build(matrix: RestMatrix) -> DenseRest:
        """Rest with a dense S."""
        return DenseRest(matrix, *matrix.entries())

    def assemble(self, templates: Templates, coupling: Scaled, psi: FloatArray) -> DenseAssembled:
        """See `Rest.assemble`."""
        q = self.matrix.n_columns
        S = np.zeros((q, q), order="F")
        if q:
            S[self.rows, self.cols] = self.matrix.values(templates)
            coupling.subtract_schur(psi, S)
        return DenseAssembled(S)

    def factorize(self, templates: Templates, coupling: Scaled, psi: FloatArray) -> DenseFactor:
        """See `Rest.factorize`."""
        L = dense.cholesky_in_place(self.assemble(templates, coupling, psi).S)
        return DenseFactor(dense.log_det(L), L)


@dataclass(frozen=True)
class DenseAssembled:
    """`Assembled` with the lower triangle of S in a dense array."""

    S: FloatArray

    def columns(self, index: NDArray[np.int64]) -> FloatArray:
        """See `Assembled.columns`."""
        rows = np.arange(self.S.shape[0])[:, None]
        return self.S[np.maximum(rows, index), np.minimum(rows, index)]


@dataclass(frozen=True)
class DenseFactor:
    """`RestFactor` by LAPACK."""

    log_det: float
    L: FloatArray

    def half_solve(self, B: FloatArray) -> FloatArray:
        """See `RestFactor.half_solve`."""
        return dense.solve_lower(self.L, B)

    def half_solve_transposed(self, Y: FloatArray) -> FloatArray:
        """See `RestFactor.half_solve_transposed`."""
        return dense.solve_lower_transposed(self.L, Y)

    def inverse(self) -> DenseInverse:
        """See `RestFactor.inverse`."""
        return DenseInverse(dense.inverse_from_cholesky(self.L))


@dataclass(frozen=True)
class DenseInverse:
    """`RestInverse` as a dense lower triangle."""

    W: FloatArray

    def quadratic(self, coupling: Scaled) -> FloatArray:
        """See `RestInverse.quadratic`."""
        return coupling.quadratic(self.W)

    def block_sum(self, offset: int, size: int, n_levels: int) -> FloatArray:
        """See `RestInverse.block_sum`."""
        total = np.empty((size, size))
        levels = offset + np.arange(n_levels)
        for i in range(size):
            for j in range(i + 1):
                total[i, j] = total[j, i] = self.W[levels + i * n_levels, levels + j * n_levels].sum()
        return total

    def blocks(self, offset: int, size: int, n_levels: int) -> FloatArray:
        """See `RestInverse.blocks`."""
        found = np.empty((size, size, n_levels))
        levels = offset + np.arange(n_levels)
        for i in range(size):
            for j in range(i + 1):
                found[i, j] = found[j, i] = self.W[levels + i * n_levels, levels + j * n_levels]
        return found


@dataclass(frozen=True)
class SparseRest:
    """S as a sparse matrix with one symbolic analysis.

    Attributes
    ----------
    matrix : RestMatrix
    pattern : csc_array
        Lower triangle of S, rows sorted; its values are not used.
    slots : ndarray
        Where the entries of `matrix` stand in the pattern.
    analysis : SparseAnalysis
    l_indptr, l_indices : ndarray
        Pattern of the factor.
    selected : ndarray
        Where the entries of `pattern` stand in the pattern of the factor.
    """

    matrix: RestMatrix
    pattern: sparse.csc_array
    slots: NDArray[np.intp]
    analysis: SparseAnalysis
    l_indptr: NDArray[np.int64]
    l_indices: NDArray[np.int32]
    selected: NDArray[np.intp]

    def assemble(self, templates: Templates, coupling: Scaled, psi: FloatArray) -> SparseAssembled:
        """See `Rest.assemble`."""
        data = np.zeros(self.pattern.nnz)
        data[self.slots] = self.matrix.values(templates)
        coupling.subtract_schur_sparse(psi, self.pattern, data)
        return SparseAssembled(
            sparse.csc_array((data, self.pattern.indices, self.pattern.indptr), shape=self.pattern.shape)
        )

    def factorize(self, templates: Templates, coupling: Scaled, psi: FloatArray) -> SparseFactor:
        """See `Rest.factorize`."""
        cholesky = self.analysis.factorize(self.assemble(templates, coupling, psi).S)
        return SparseFactor(cholesky.log_det, cholesky, self)


@dataclass(frozen=True)
class SparseAssembled:
    """`Assembled` with the lower triangle of S in CSC form."""

    S: sparse.csc_array

    @cached_property
    def _full(self) -> sparse.csc_array:
        return sparse.csc_array(self.S + sparse.tril(self.S, -1).T)

    def columns(self, index: NDArray[np.int64]) -> FloatArray:
        """See `Assembled.columns`."""
        return self._full[:, index].toarray()


@dataclass(frozen=True)
class SparseFactor:
    """`RestFactor` by CHOLMOD."""

    log_det: float
    cholesky: SparseCholesky
    rest: SparseRest

    def half_solve(self, B: FloatArray) -> FloatArray:
        """See `RestFactor.half_solve`."""
        return self.cholesky.half_solve(B) if B.size else B.copy()

    def half_solve_transposed(self, Y: FloatArray) -> FloatArray:
        """See `RestFactor.half_solve_transposed`."""
        return self.cholesky.half_solve_transposed(Y) if Y.size else Y.copy()

    def inverse(self) -> SparseInverse:
        """See `RestFactor.inverse`."""
        from crosslmm.linalg import selinv

        rest = self.rest
        L = self.cholesky.lower()
        l_data = selinv.onto_pattern(L.indptr, L.indices, L.data, rest.l_indptr, rest.l_indices)
        z = selinv.selected_inverse(rest.l_indptr, rest.l_indices, l_data)
        return SparseInverse(rest.pattern, z[rest.selected])


@dataclass(frozen=True)
class SparseInverse:
    """`RestInverse` on the pattern of S (lower triangle)."""

    pattern: sparse.csc_array
    data: FloatArray

    def quadratic(self, coupling: Scaled) -> FloatArray:
        """See `RestInverse.quadratic`."""
        return coupling.quadratic_sparse(self.pattern, self.data)

    def block_sum(self, offset: int, size: int, n_levels: int) -> FloatArray:
        """See `RestInverse.block_sum`."""
        return self.blocks(offset, size, n_levels).sum(axis=2)

    def blocks(self, offset: int, size: int, n_levels: int) -> FloatArray:
        """See `RestInverse.blocks`."""
        cols = np.repeat(np.arange(self.pattern.shape[1]), np.diff(self.pattern.indptr)) - offset
        rows = self.pattern.indices - offset
        last = size * n_levels
        inside = (rows >= 0) & (rows < last) & (cols >= 0) & (cols < last)
        rows, cols, values = rows[inside], cols[inside], self.data[inside]
        same = rows % n_levels == cols % n_levels
        rows, cols = rows[same], cols[same]
        found = np.zeros((size, size, n_levels))
        found[rows // n_levels, cols // n_levels, rows % n_levels] = values[same]
        found[cols // n_levels, rows // n_levels, rows % n_levels] = values[same]
        return found


def build_sparse_rest(
    matrix: RestMatrix, pattern: sparse.csc_array, analysis: SparseAnalysis, factor: tuple[NDArray, NDArray]
) -> SparseRest:
    """Rest with a sparse S from its pattern, ordering and the pattern of its factor."""
    q = matrix.n_columns
    rows, cols = matrix.entries()
    slots = _find(pattern.indptr, pattern.indices, rows, cols)
    l_indptr, l_indices = factor
    place = np.empty(q, dtype=np.int64)
    place[analysis.permutation] = np.arange(q)
    p_rows = place[pattern.indices]
    p_cols = place[np.repeat(np.arange(q), np.diff(pattern.indptr))]
    selected = _find(l_indptr, l_indices, np.maximum(p_rows, p_cols), np.minimum(p_rows, p_cols))
    return SparseRest(matrix, pattern, slots, analysis, l_indptr, l_indices, selected)


def _find(indptr: NDArray, indices: NDArray, rows: NDArray, cols: NDArray) -> NDArray[np.intp]:
    """Positions of entries (rows, cols) in a CSC pattern with sorted rows."""
    n = indptr.size - 1
    keys = np.repeat(np.arange(n, dtype=np.int64), np.diff(indptr)) * n + indices
    return np.searchsorted(keys, cols.astype(np.int64) * n + rows)
