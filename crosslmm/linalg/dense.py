"""Dense symmetric positive definite matrices through LAPACK, in place and in Fortran order.

numpy and scipy each carry an OpenBLAS with threads of its own, which spin for a while after each call and take the
processors from the other's. The engine therefore leaves every large product to scipy's (`cross`) and the products
with small blocks to einsum, which uses neither.
"""

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


def cross(A: FloatArray, B: FloatArray) -> FloatArray:
    """``A' B`` for tall A (n, a) and B (n, b); shape (a, b)."""
    if A.size == 0 or B.size == 0:
        return np.zeros((A.shape[1], B.shape[1]))
    return blas.dgemm(1.0, A.T, B.T, trans_b=1)


def inverse_from_cholesky(L: FloatArray) -> FloatArray:
    """Lower triangle of ``(L L')^-1``, in a new array; the upper triangle is undefined."""
    if L.shape[0] == 0:
        return L.copy()
    W, _ = lapack.dpotri(L, lower=1, overwrite_c=0)
    return W
