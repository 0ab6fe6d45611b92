"""Dense symmetric positive definite matrices through LAPACK, in place and in Fortran order."""

from __future__ import annotations

import numpy as np
from scipy.linalg import blas, lapack

from crosslmm.covariance import FloatArray
from crosslmm.errors import NumericalError


def cholesky_in_place(S: FloatArray) -> FloatArray:
    """Lower Cholesky factor, overwriting the lower triangle of S; the upper triangle is left as it was.

    Parameters
    ----------
    S : ndarray, shape (n, n), Fortran order

    Raises
    ------
    NumericalError
        When S is not positive definite.
    """
    if S.shape[0] == 0:
        return S
    L, info = lapack.dpotrf(S, lower=1, clean=0, overwrite_a=1)
    if info != 0:
        raise NumericalError(f"a matrix that should be positive definite is not (pivot {info} of {S.shape[0]})")
    return L


def log_det(L: FloatArray) -> float:
    """log |L L'|."""
    return 2.0 * float(np.log(np.diagonal(L)).sum())


def solve_lower(L: FloatArray, B: FloatArray) -> FloatArray:
    """``L^-1 B`` for lower triangular L (n, n) and B (n, m)."""
    if B.size == 0:
        return B.copy()
    return blas.dtrsm(1.0, L, B, lower=1)


def solve_lower_transposed(L: FloatArray, B: FloatArray) -> FloatArray:
    """``L'^-1 B`` for lower triangular L (n, n) and B (n, m)."""
    if B.size == 0:
        return B.copy()
    return blas.dtrsm(1.0, L, B, lower=1, trans_a=1)


def inverse_from_cholesky(L: FloatArray) -> FloatArray:
    """Lower triangle of ``(L L')^-1``, in a new array; the upper triangle is undefined."""
    if L.shape[0] == 0:
        return L.copy()
    W, _ = lapack.dpotri(L, lower=1, overwrite_c=0)
    return W
