"""Sparse Cholesky factors by CHOLMOD: the only importer of scikit-sparse, for its 0.4 and 0.5 interfaces.

Chen, Davis, Hager, Rajamanickam 2008, ACM Trans. Math. Softw. 35(3). Matrices are lower triangles in CSC form.
scikit-sparse 0.4 wraps SuiteSparse 5 (``analyze``, ``Factor``), 0.5 wraps SuiteSparse 7 (``CholeskyFactor``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import sksparse
from numpy.typing import NDArray
from scipy import sparse
from sksparse import cholmod

from crosslmm.covariance import FloatArray
from crosslmm.errors import NumericalError, ResourceError
from crosslmm.linalg.sparse_factor import SparseAnalysis, SparseCholesky

HAS_CLASS_INTERFACE = tuple(int(part) for part in sksparse.__version__.split(".")[:2]) >= (0, 5)

TOO_LARGE = (
    cholmod.CholmodOverflowError if HAS_CLASS_INTERFACE else cholmod.CholmodTooLargeError,
    cholmod.CholmodOutOfMemoryError,
)
"""What an analysis ends with whose factor has more entries than can be counted, or than the memory holds."""


def analyze(pattern: sparse.csc_array, ordering: str = "default") -> SparseAnalysis:
    """Order the lower triangular `pattern` for low fill.

    Parameters
    ----------
    pattern : csc_array, shape (q, q)
    ordering : str
        CHOLMOD's name: ``"default"`` (AMD, then METIS if that is poor), ``"amd"``, ``"metis"``, ``"nesdis"``,
        ``"best"`` or ``"natural"``.

    Raises
    ------
    ResourceError
        The factor would be larger than CHOLMOD can count or the memory holds.
    """
    try:
        if HAS_CLASS_INTERFACE:
            symbolic = cholmod.CholeskyFactor(_csc(pattern), lower=True, order=ordering)
            return _ClassAnalysis(np.asarray(symbolic.get_perm(), dtype=np.intp), symbolic)
        symbolic = cholmod.analyze(_csc(pattern), mode="auto", ordering_method=ordering)
        return _FunctionAnalysis(np.asarray(symbolic.P(), dtype=np.intp), symbolic)
    except TOO_LARGE as error:
        raise ResourceError(
            f"a sparse factor of {pattern.shape[0]:,} equations is too large for CHOLMOD. The iterative engine does "
            "without one"
        ) from error


def _csc(S: sparse.csc_array) -> sparse.csc_matrix:
    return sparse.csc_matrix((S.data, S.indices, S.indptr), shape=S.shape)


def _not_positive_definite(error: Exception | str) -> NumericalError:
    return NumericalError(f"the mixed-model equations are not positive definite at these parameters (CHOLMOD: {error})")


@dataclass(frozen=True)
class _FunctionAnalysis:
    """scikit-sparse 0.4."""

    permutation: NDArray[np.intp]
    symbolic: Any

    def factorize(self, S: sparse.csc_array) -> SparseCholesky:
        try:
            factor = self.symbolic.cholesky(_csc(S))
        except cholmod.CholmodNotPositiveDefiniteError as error:
            raise _not_positive_definite(error) from error
        # small factors are L D L', which CHOLMOD computes of an indefinite matrix without complaint
        D = factor.D()
        if not np.all(D > 0.0):
            raise _not_positive_definite(f"pivot {int(np.argmin(D > 0.0)) + 1} of {D.size}")
        return _FunctionFactor(float(np.log(D).sum()), factor)


@dataclass(frozen=True)
class _FunctionFactor:
    """scikit-sparse 0.4."""

    log_det: float
    factor: Any

    def half_solve(self, B: FloatArray) -> FloatArray:
        return self.factor.solve_L(self.factor.apply_P(np.asfortranarray(B)), use_LDLt_decomposition=False)

    def half_solve_transposed(self, Y: FloatArray) -> FloatArray:
        return self.factor.apply_Pt(self.factor.solve_Lt(np.asfortranarray(Y), use_LDLt_decomposition=False))

    def lower(self) -> sparse.csc_array:
        L = sparse.csc_array(self.factor.L())
        L.sort_indices()
        return L


@dataclass(frozen=True)
class _ClassAnalysis:
    """scikit-sparse 0.5."""

    permutation: NDArray[np.intp]
    symbolic: Any

    def factorize(self, S: sparse.csc_array) -> SparseCholesky:
        factor = self.symbolic.copy()
        try:
            factor.factorize(_csc(S), ldl=False)
        except cholmod.CholmodNotPositiveDefiniteError as error:
            raise _not_positive_definite(error) from error
        return _ClassFactor(float(factor.logdet()), self.permutation, factor)


@dataclass(frozen=True)
class _ClassFactor:
    """scikit-sparse 0.5; its triangular solves leave the permutation to the caller."""

    log_det: float
    permutation: NDArray[np.intp]
    factor: Any

    def half_solve(self, B: FloatArray) -> FloatArray:
        return self.factor.solve(np.asfortranarray(B[self.permutation]), system="L")

    def half_solve_transposed(self, Y: FloatArray) -> FloatArray:
        X = np.empty(Y.shape)
        X[self.permutation] = self.factor.solve(np.asfortranarray(Y), system="Lt")
        return X

    def lower(self) -> sparse.csc_array:
        L = sparse.csc_array(self.factor.get_factor(kind="LL", lower=True))
        L.sort_indices()
        return L
