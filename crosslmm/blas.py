"""Products of tall matrices, all through one BLAS.

numpy and scipy each carry an OpenBLAS with threads of its own, which spin for a while after each call and take the
processors from the other's. Large products are therefore left to scipy's, where LAPACK's factorisations run too;
products with small blocks go through einsum, which uses neither.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import blas

from crosslmm.covariance import FloatArray


def cross(A: FloatArray, B: FloatArray) -> FloatArray:
    """``A' B`` for tall A (n, a) and B (n, b); shape (a, b)."""
    if A.size == 0 or B.size == 0:
        return np.zeros((A.shape[1], B.shape[1]))
    return blas.dgemm(1.0, A.T, B.T, trans_b=1)


def times(A: FloatArray, B: FloatArray) -> FloatArray:
    """``A B`` for tall A (n, a) and small B (a, b); shape (n, b)."""
    if A.size == 0 or B.size == 0:
        return np.zeros((A.shape[0], B.shape[1]))
    return blas.dgemm(1.0, B.T, A.T).T


def length(v: FloatArray) -> float:
    """Euclidean norm of a long vector."""
    return float(blas.dnrm2(v)) if v.size else 0.0
