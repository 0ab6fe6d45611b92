"""The coupling C = Z_e' W Z_r of the eliminated factor e with the columns of all other factors.

Two stores with one set of operations: a dense array for small problems (BLAS, nothing to compile) and compressed
levels for large ones (`crosslmm.linalg.kernels`). Columns of the rest are numbered factor by factor and, within a
factor, ``column * L + level``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import counting_order
from crosslmm.linalg.threads import in_shares, n_threads

Templates = tuple[FloatArray, ...]

SMALL_DENSE_ENTRIES = 60_000
"""Up to this many entries (0.5 MB) a coupling is stored dense: BLAS calls on it cost less than loading numba."""

PARALLEL_WORK = 2_000_000
"""Multiply-adds below which starting threads costs more than it saves (about 1 ms)."""


@dataclass(frozen=True)
class RestBlock:
    """One factor of the rest as the coupling sees it.

    Attributes
    ----------
    offset : int
        First column.
    size, n_levels : int
        k and L of the factor.
    rows, cols : ndarray of int32, shape (nnz,)
        Pairs of levels (eliminated, this factor) that occur.
    values : ndarray, shape (k_e, k, nnz)
    """

    offset: int
    size: int
    n_levels: int
    rows: NDArray[np.int32]
    cols: NDArray[np.int32]
    values: FloatArray

    def columns(self) -> NDArray[np.int64]:
        """Column of the rest of every entry; shape (k, nnz)."""
        return self.offset + np.arange(self.size)[:, None] * self.n_levels + self.cols.astype(np.int64)

    def scaled(self, T: FloatArray) -> FloatArray:
        """Values times the factor's template; shape (k_e, r, nnz)."""
        if T.shape == (1, 1):
            return self.values * T[0, 0]
        return np.einsum("jr,ijn->irn", T, self.values)


class Scaled(Protocol):
    """``C T``: the coupling at one set of templates of the rest."""

    def apply(self, B: FloatArray) -> FloatArray:
        """``C T B`` for B (q, m); shape (k_e, L_e, m)."""

    def apply_transposed(self, V: FloatArray) -> FloatArray:
        """``T' C' V`` for V (k_e, L_e, m); shape (q, m)."""

    def subtract_schur(self, psi: FloatArray, S: FloatArray) -> None:
        """``S -= T' C' Psi C T`` in the lower triangle of a dense S (q, q), Fortran order."""

    def subtract_schur_sparse(self, psi: FloatArray, pattern: sparse.csc_array, data: FloatArray) -> None:
        """The same into the entries `data` of a lower triangular `pattern`."""

    def quadratic(self, W: FloatArray) -> FloatArray:
        """``C_l T W T' C_l'`` for every level, from the lower triangle of W (q, q); shape (k_e, k_e, L_e)."""

    def quadratic_sparse(self, pattern: sparse.csc_array, data: FloatArray) -> FloatArray:
        """The same from W known on the lower triangular `pattern`."""


class Coupling(Protocol):
    """The coupling in the units of the cross-products."""

    def scaled(self, templates: Templates) -> Scaled:
        """Multiply by the templates of the rest."""


def build_coupling(blocks: tuple[RestBlock, ...], shape: tuple[int, int, int], *, compiled: bool) -> Coupling:
    """Coupling of shape (k_e, L_e, q) from its blocks, stored dense unless `compiled` kernels are wanted."""
    if compiled:
        return _build_compressed(blocks, shape)
    return DenseCoupling(blocks, shape)


def wants_kernels(shape: tuple[int, int, int]) -> bool:
    """Whether a coupling of this shape (k_e, L_e, q) is large enough for compiled kernels."""
    return shape[0] * shape[1] * shape[2] > SMALL_DENSE_ENTRIES


@dataclass(frozen=True)
class DenseCoupling:
    """A small coupling as one array."""

    blocks: tuple[RestBlock, ...]
    shape: tuple[int, int, int]

    def scaled(self, templates: Templates) -> DenseScaled:
        """Multiply by the templates of the rest."""
        C = np.zeros(self.shape)
        for block, T in zip(self.blocks, templates, strict=True):
            C[:, block.rows, block.columns()] = block.scaled(T)
        return DenseScaled(C)


@dataclass(frozen=True)
class DenseScaled:
    """`Scaled` by array operations; C has shape (k_e, L_e, q)."""

    C: FloatArray

    def apply(self, B: FloatArray) -> FloatArray:
        """See `Scaled.apply`."""
        return self.C @ B

    def apply_transposed(self, V: FloatArray) -> FloatArray:
        """See `Scaled.apply_transposed`."""
        k, n_levels, q = self.C.shape
        return self.C.reshape(k * n_levels, q).T @ V.reshape(k * n_levels, V.shape[2])

    def subtract_schur(self, psi: FloatArray, S: FloatArray) -> None:
        """See `Scaled.subtract_schur`."""
        S -= self.apply_transposed(np.einsum("ijl,jlq->ilq", psi, self.C))

    def subtract_schur_sparse(self, psi: FloatArray, pattern: sparse.csc_array, data: FloatArray) -> None:
        """See `Scaled.subtract_schur_sparse`."""
        q = self.C.shape[2]
        S = np.zeros((q, q), order="F")
        self.subtract_schur(psi, S)
        data += S[pattern.indices, np.repeat(np.arange(q), np.diff(pattern.indptr))]

    def quadratic(self, W: FloatArray) -> FloatArray:
        """See `Scaled.quadratic`."""
        k, n_levels, q = self.C.shape
        if q == 0:
            return np.zeros((k, k, n_levels))
        full = np.tril(W) + np.tril(W, -1).T
        return np.einsum("ilq,jlq->ijl", self.C @ full, self.C)

    def quadratic_sparse(self, pattern: sparse.csc_array, data: FloatArray) -> FloatArray:
        """See `Scaled.quadratic_sparse`."""
        return self.quadratic(sparse.csc_array((data, pattern.indices, pattern.indptr), shape=pattern.shape).toarray())


@dataclass(frozen=True)
class CompressedCoupling:
    """A large coupling by level and by column; see `crosslmm.linalg.kernels` for the arrays."""

    blocks: tuple[RestBlock, ...]
    shape: tuple[int, int, int]
    slots: tuple[NDArray[np.intp], ...]
    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    colptr: NDArray[np.int64]
    levels: NDArray[np.int32]
    positions: NDArray[np.int64]
    bounds: tuple[int, ...]

    def scaled(self, templates: Templates) -> CompressedScaled:
        """Multiply by the templates of the rest."""
        values = np.empty((self.indices.size, self.shape[0]))
        for block, slots, T in zip(self.blocks, self.slots, templates, strict=True):
            values[slots] = block.scaled(T).transpose(1, 2, 0)
        return CompressedScaled(self, values)


def _build_compressed(blocks: tuple[RestBlock, ...], shape: tuple[int, int, int]) -> CompressedCoupling:
    _, n_levels, q = shape
    rows = np.concatenate([np.tile(b.rows, b.size) for b in blocks])
    cols = np.concatenate([b.columns().ravel() for b in blocks])
    by_column = counting_order(cols, q)
    order = by_column[counting_order(rows[by_column], n_levels)]
    slot_of = np.empty(order.size, dtype=np.intp)
    slot_of[order] = np.arange(order.size)
    indptr = _pointers(rows, n_levels)
    ends = np.cumsum([b.size * b.rows.size for b in blocks])[:-1]
    slots = tuple(s.reshape(b.size, -1) for s, b in zip(np.split(slot_of, ends), blocks, strict=True))
    positions = slot_of[by_column]
    levels = rows[by_column]
    colptr = _pointers(cols, q)
    visits = indptr[levels + 1] - positions
    return CompressedCoupling(
        blocks, shape, slots, indptr, cols[order].astype(np.int32), colptr, levels, positions, _shares(visits, colptr)
    )


def _pointers(codes: NDArray, n_codes: int) -> NDArray[np.int64]:
    pointers = np.zeros(n_codes + 1, dtype=np.int64)
    np.cumsum(np.bincount(codes, minlength=n_codes), out=pointers[1:])
    return pointers


def _shares(visits: NDArray, colptr: NDArray) -> tuple[int, ...]:
    """Column bounds that share the multiply-adds evenly among the processors (one share when there are few)."""
    total = np.concatenate([[0], np.cumsum(visits)])[colptr]
    n_shares = n_threads() if total[-1] > PARALLEL_WORK else 1
    inner = np.searchsorted(total, total[-1] * np.arange(1, n_shares) / n_shares)
    return (0, *(int(b) for b in inner), colptr.size - 1)


@dataclass(frozen=True)
class CompressedScaled:
    """`Scaled` by compiled kernels; values (nnz, k_e) in the order of the coupling's levels."""

    coupling: CompressedCoupling
    values: FloatArray

    @cached_property
    def _matrices(self) -> list[sparse.csr_array]:
        c = self.coupling
        k, n_levels, q = c.shape
        columns = np.ascontiguousarray(self.values.T)
        return [sparse.csr_array((columns[i], c.indices, c.indptr), shape=(n_levels, q)) for i in range(k)]

    def _arrays(self) -> tuple[NDArray, ...]:
        c = self.coupling
        return (c.indptr, c.indices, self.values, c.colptr, c.levels, c.positions)

    def apply(self, B: FloatArray) -> FloatArray:
        """See `Scaled.apply`."""
        return np.stack([M @ B for M in self._matrices])

    def apply_transposed(self, V: FloatArray) -> FloatArray:
        """See `Scaled.apply_transposed`."""
        return sum(M.T @ V[i] for i, M in enumerate(self._matrices))

    def subtract_schur(self, psi: FloatArray, S: FloatArray) -> None:
        """See `Scaled.subtract_schur`."""
        from crosslmm.linalg import kernels

        arrays = self._arrays()
        in_shares(self.coupling.bounds, lambda _, a, b: kernels.schur_dense(a, b, *arrays, psi, S))

    def subtract_schur_sparse(self, psi: FloatArray, pattern: sparse.csc_array, data: FloatArray) -> None:
        """See `Scaled.subtract_schur_sparse`."""
        from crosslmm.linalg import kernels

        arrays = (*self._arrays(), psi, pattern.indptr, pattern.indices, data)
        in_shares(self.coupling.bounds, lambda _, a, b: kernels.schur_sparse(a, b, *arrays))

    def quadratic(self, W: FloatArray) -> FloatArray:
        """See `Scaled.quadratic`."""
        from crosslmm.linalg import kernels

        arrays = self._arrays()
        Q = self._accumulators()
        in_shares(self.coupling.bounds, lambda i, a, b: kernels.quadratic_dense(a, b, *arrays, W, Q[i]))
        half = Q.sum(axis=0)
        return half + half.transpose(1, 0, 2)

    def quadratic_sparse(self, pattern: sparse.csc_array, data: FloatArray) -> FloatArray:
        """See `Scaled.quadratic_sparse`."""
        from crosslmm.linalg import kernels

        arrays = (*self._arrays(), pattern.indptr, pattern.indices, data)
        Q = self._accumulators()
        in_shares(self.coupling.bounds, lambda i, a, b: kernels.quadratic_sparse(a, b, *arrays, Q[i]))
        half = Q.sum(axis=0)
        return half + half.transpose(1, 0, 2)

    def _accumulators(self) -> FloatArray:
        k, n_levels, _ = self.coupling.shape
        return np.zeros((len(self.coupling.bounds) - 1, k, k, n_levels))
