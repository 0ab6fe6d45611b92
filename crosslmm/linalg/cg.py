"""Preconditioned conjugate gradients for many right-hand sides at once, and what they tell of the spectrum.

Every column has steps of its own (Hestenes, Stiefel 1952; Golub, Van Loan 2013, algorithm 11.5.1); the columns only
share the passes over the matrix. A column that is done leaves the later passes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.errors import NumericalError

Operator = Callable[[FloatArray], FloatArray]

MOST_STEPS = 2_000
"""Steps after which a system is given up."""


@dataclass(frozen=True)
class Solution:
    """Approximate solution of ``S x = b`` for several b.

    Attributes
    ----------
    x : ndarray, shape (q, m)
    residual : ndarray, shape (q, m)
        ``b - S x``.
    image : ndarray, shape (q, m)
        ``S P^-1 b``, which the first step takes.
    steps : int
        Passes over the matrix.
    tridiagonals : tuple of (diagonal, off-diagonal), one per column
        The Lanczos matrix of ``P^-1/2 S P^-1/2`` started at ``P^-1/2 b``, P the preconditioner.
    """

    x: FloatArray
    residual: FloatArray
    image: FloatArray
    steps: int
    tridiagonals: tuple[tuple[FloatArray, FloatArray], ...]


def solve(
    matrix: Operator,
    precondition: Operator,
    B: FloatArray,
    tolerance: FloatArray,
    max_steps: int = MOST_STEPS,
) -> Solution:
    """Solve for every column of B until its residual has fallen to `tolerance` of it, in the norm of ``P^-1``.

    Parameters
    ----------
    matrix, precondition : callable
        ``S X`` and ``P^-1 X`` for X (q, m); symmetric positive definite.
    B : ndarray, shape (q, m)
    tolerance : ndarray, shape (m,)
    max_steps : int

    Raises
    ------
    NumericalError
        Not all columns are solved after `max_steps` steps, or the matrix is not positive definite in floating point.
    """
    m = B.shape[1]
    X, image, residual = np.zeros_like(B), np.zeros_like(B), B.copy()
    scalars = _Scalars(m)
    active = np.flatnonzero(np.einsum("qm,qm->m", B, B) > 0.0)
    if not active.size:
        return Solution(X, residual, image, 0, scalars.tridiagonals())
    x, r = X[:, active], residual[:, active]
    z = precondition(r)
    p = z
    rz = np.einsum("qm,qm->m", r, z)
    goal = tolerance[active] ** 2 * rz
    steps = 0
    while active.size:
        if steps == max_steps:
            raise NumericalError(
                f"{active.size} of {m} systems of {B.shape[0]:,} equations are not solved after {max_steps} steps of "
                "conjugate gradients: the other factors are nearly nested in each other at these covariance parameters"
            )
        Sp = matrix(p)
        if steps == 0:
            image[:, active] = Sp
        steps += 1
        curvature = np.einsum("qm,qm->m", p, Sp)
        if not np.all(curvature > 0.0):
            raise NumericalError("the equations are not positive definite at these covariance parameters")
        alpha = rz / curvature
        x = x + alpha * p
        r = r - alpha * Sp
        z = precondition(r)
        before, rz = rz, np.einsum("qm,qm->m", r, z)
        beta = rz / before
        scalars.add(active, alpha, beta)
        done = rz <= goal
        if done.any():
            X[:, active[done]], residual[:, active[done]] = x[:, done], r[:, done]
            keep = ~done
            active, goal, rz, beta = active[keep], goal[keep], rz[keep], beta[keep]
            x, r, z, p = (np.ascontiguousarray(v[:, keep]) for v in (x, r, z, p))
        p = z + beta * p
    return Solution(X, residual, image, steps, scalars.tridiagonals())


class _Scalars:
    """The coefficients of the steps, column by column; lives for one solve."""

    def __init__(self, m: int):
        self.alpha: list[list[float]] = [[] for _ in range(m)]
        self.beta: list[list[float]] = [[] for _ in range(m)]

    def add(self, columns: NDArray[np.intp], alpha: FloatArray, beta: FloatArray) -> None:
        for column, a, b in zip(columns, alpha, beta, strict=True):
            self.alpha[column].append(float(a))
            self.beta[column].append(float(b))

    def tridiagonals(self) -> tuple[tuple[FloatArray, FloatArray], ...]:
        """Golub, Van Loan 2013, section 11.3.5: the Lanczos matrix from the coefficients of the steps."""
        result = []
        for a, b in zip(self.alpha, self.beta, strict=True):
            alpha, beta = np.array(a), np.array(b)
            diagonal = 1.0 / alpha
            diagonal[1:] += beta[:-1] / alpha[:-1]
            result.append((diagonal, np.sqrt(beta[:-1]) / alpha[:-1]))
        return tuple(result)


def log_quadrature(tridiagonal: tuple[FloatArray, FloatArray]) -> float:
    """``e1' log(T) e1`` of a Lanczos matrix T: Gauss quadrature of ``v' log(S) v`` for its unit starting vector v.

    Golub, Meurant 2010, Matrices, Moments and Quadrature, theorem 6.6; Ubaru, Chen, Saad 2017, SIAM J. Matrix Anal.
    Appl. 38(4).
    """
    diagonal, off = tridiagonal
    if diagonal.size == 0:
        return 0.0
    T = np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1)
    values, vectors = np.linalg.eigh(T)
    return float(np.sum(vectors[0] ** 2 * np.log(values)))
