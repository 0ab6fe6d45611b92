"""Small blocks, one per level of a factor, stored as arrays (k, k, L) so that every operation runs along L.

The order (column, level) also makes a vector of random effects of one factor, (k, L), a plain reshape.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosslmm.covariance import FloatArray


@dataclass(frozen=True)
class Elimination:
    """What is left of a factor once it has been eliminated; see docs/theory.md, eq. (17)-(18).

    Attributes
    ----------
    log_det : float
        Sum over levels of ``log |T' A_l T + I|``.
    gain : ndarray, shape (k, k, L)
        ``T (T' A_l T + I)^-1``.
    psi : ndarray, shape (k, k, L)
        ``T (T' A_l T + I)^-1 T'``: covariance of the level's effects given all else, over sigma**2.
    """

    log_det: float
    gain: FloatArray
    psi: FloatArray


def by_factor(v: FloatArray, shapes: tuple[tuple[int, int], ...]) -> tuple[FloatArray, ...]:
    """Random effects (q, m) of several factors with so many columns and levels (k, L), each (k, L, m)."""
    parts, start = [], 0
    for k, n_levels in shapes:
        parts.append(v[start : start + k * n_levels].reshape(k, n_levels, v.shape[1]))
        start += k * n_levels
    return tuple(parts)


def congruence(T: FloatArray, blocks: FloatArray, U: FloatArray) -> FloatArray:
    """``T' B_l U`` for every level; (r, k, ...) blocks from T (k, r), B (k, m, L), U (m, s): shape (r, s, L)."""
    if T.shape == (1, 1) and U.shape == (1, 1):
        return (T[0, 0] * U[0, 0]) * blocks
    return np.einsum("iml,mj->ijl", np.einsum("ai,aml->iml", T, blocks), U)


def multiply(A: FloatArray, B: FloatArray) -> FloatArray:
    """``A_l B_l`` for every level; (i, j, L) and (j, m, L) give (i, m, L)."""
    if A.shape[:2] == (1, 1):
        return A[0] * B
    return np.einsum("ijl,jml->iml", A, B)


def apply(A: FloatArray, v: FloatArray) -> FloatArray:
    """``A_l v_l`` for every level and right-hand side; (i, j, L) and (j, L, m) give (i, L, m)."""
    if A.shape[:2] == (1, 1):
        return A[0, 0, :, None] * v
    return np.einsum("ijl,jlm->ilm", A, v)


def invert(blocks: FloatArray) -> tuple[FloatArray, float]:
    """Inverses and summed log-determinant of symmetric positive definite blocks, by Gauss-Jordan sweeps.

    Parameters
    ----------
    blocks : ndarray, shape (k, k, L)
        Eigenvalues at least 1, as ``T' A T + I`` has; no pivoting is needed then.
    """
    k = blocks.shape[0]
    if k == 1:
        return 1.0 / blocks, float(np.log(blocks).sum())
    W = blocks.copy()
    log_det = 0.0
    for j in range(k):
        pivot = W[j, j].copy()
        log_det += float(np.log(pivot).sum())
        row = W[j] / pivot
        col = W[:, j].copy()
        W -= col[:, None] * row
        W[j] = row
        W[:, j] = -col / pivot
        W[j, j] = 1.0 / pivot
    return W, log_det


def eliminate(diagonal: FloatArray, T: FloatArray) -> Elimination:
    """Eliminate a factor whose blocks of Z'WZ are `diagonal` (k, k, L), at template T (k, k)."""
    k = diagonal.shape[0]
    M = congruence(T, diagonal, T)
    index = np.arange(k)
    M[index, index] += 1.0
    inverse, log_det = invert(M)
    gain = T[0, 0] * inverse if k == 1 else np.einsum("ij,jml->iml", T, inverse)
    psi = T[0, 0] * gain if k == 1 else np.einsum("iml,jm->ijl", gain, T)
    return Elimination(log_det, gain, psi)
