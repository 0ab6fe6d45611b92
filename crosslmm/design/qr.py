"""Triangular factors of tall matrices, and which columns of them are independent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from crosslmm.covariance import FloatArray

# R's lm, and lme4 after it: a column is a combination of earlier ones when what is left of it has
# this fraction of its length.
RANK_TOLERANCE = 1e-7
# A column whose standard deviation is this fraction of its size is measured by its deviations from the
# mean: to R it is constant, though float64 holds it well (seconds since 1970).
NEARLY_CONSTANT = 1e-5
# What rounding can leave of a column that is a combination of others, relative to its size.
ROUNDING = 1e-11
# Wider matrices are factorised by scipy's LAPACK, see crosslmm.blas; for narrow ones numpy's stacked call is faster.
FEW_COLUMNS = 8
# Rows factorised at a time: such a block of a few columns stays in the processor's cache.
BLOCK_ROWS = 1024


def triangular_factor(A: FloatArray) -> FloatArray:
    """R of a QR factorisation by Householder reflections, as accurate as LAPACK's on the whole matrix.

    Blocks of rows are factorised on their own, then their triangles stacked and factorised again
    (Demmel, Grigori, Hoemmen, Langou 2012, SIAM J. Sci. Comput. 34(1), sequential TSQR).

    Parameters
    ----------
    A : ndarray, shape (n, k)

    Returns
    -------
    ndarray, shape (min(n, k), k)
        Upper triangular (trapezoidal when n < k).
    """
    n, k = A.shape
    block = max(BLOCK_ROWS, 4 * k)
    while n > 2 * block:
        whole = n // block
        triangles = plain_factor(A[: whole * block].reshape(whole, block, k)).reshape(whole * k, k)
        A = np.concatenate([triangles, A[whole * block :]])
        n = A.shape[0]
    return plain_factor(A)


def plain_factor(A: FloatArray) -> FloatArray:
    """R of LAPACK's QR factorisation of a matrix, or of each of a stack of them."""
    if A.shape[-1] <= FEW_COLUMNS:
        return np.asarray(np.linalg.qr(A, mode="r"), dtype=np.float64)
    stack = A.reshape(-1, *A.shape[-2:])
    R = np.stack([np.triu(lapack.dgeqrf(block)[0][: block.shape[1]]) for block in stack])
    return R.reshape(*A.shape[:-2], *R.shape[1:])


def independent_columns(
    R: FloatArray, tolerance: float = RANK_TOLERANCE, *, intercept: bool = False
) -> NDArray[np.intp]:
    """Positions of the columns that are no combination of kept earlier ones, from left to right.

    Parameters
    ----------
    R : ndarray, shape (m, k)
        Any triangular factor of the matrix.
    tolerance : float
        Smallest length of a column's remainder, relative to the column.
    intercept : bool
        Whether the first column is constant. Then a nearly constant column is measured without its mean.
    """
    lengths = np.linalg.norm(R, axis=0)
    needed = tolerance * lengths
    if intercept:
        spread = np.linalg.norm(R[1:], axis=0)
        nearly = (spread < NEARLY_CONSTANT * lengths) & (np.arange(lengths.size) > 0)
        needed[nearly] = np.maximum(tolerance * spread, ROUNDING * lengths)[nearly]
    if R.shape[0] >= R.shape[1] and np.all(np.abs(np.diag(R)) > needed):
        return np.arange(R.shape[1])
    basis = np.zeros((R.shape[0], 0))
    kept = []
    for j, length in enumerate(lengths):
        if length == 0.0 or basis.shape[1] == R.shape[0]:
            continue
        rest = R[:, j] / length
        for _ in range(2):  # twice is enough (Giraud, Langou, Rozloznik 2005)
            rest = rest - basis @ (basis.T @ rest)
        remainder = np.linalg.norm(rest)
        if remainder > needed[j] / length:
            basis = np.column_stack([basis, rest / remainder])
            kept.append(j)
    return np.array(kept, dtype=np.intp)


def combinations(kept: FloatArray, dropped: FloatArray) -> FloatArray:
    """Coefficients (p, d) of dropped columns as combinations of the kept ones, from columns of a triangular factor."""
    if not (kept.size and dropped.size):
        return np.zeros((kept.shape[1], dropped.shape[1]))
    size = np.linalg.norm(kept, axis=0)
    return np.asarray(np.linalg.lstsq(kept / size, dropped, rcond=None)[0] / size[:, None], dtype=np.float64)
