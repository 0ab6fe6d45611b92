"""Products with the root of a matrix that is only known by its products, by the Lanczos recurrence.

After k steps from a vector z the root is that of the small tridiagonal matrix T: ``B^1/2 z = |z| V T^1/2 e_1`` with V
the k vectors so far (Druskin, Knizhnerman 1989, USSR Comput. Math. Math. Phys. 29(6); Chow, Saad 2014, SIAM J. Sci.
Comput. 36(2)). The vectors are not kept: a first run finds T, a second adds them up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy.linalg import eigh_tridiagonal

from crosslmm.covariance import FloatArray
from crosslmm.errors import NumericalError

Operator = Callable[[FloatArray], FloatArray]

FIRST_CHECK = 5
SPACING = 1.2
"""Steps at the first check of what was found, and the ratio of the steps at two checks in turn."""

MOST_STEPS = 2_000


def root_product(matrix: Operator, Z: FloatArray, tolerance: float, max_steps: int = MOST_STEPS) -> FloatArray:
    """``B^1/2 z`` for every column z of Z.

    Parameters
    ----------
    matrix : callable
        ``B V`` for V (q, m); symmetric, positive semi-definite.
    Z : ndarray, shape (q, m)
    tolerance : float
        Change between two checks, relative to the result, at which a column is done.
    max_steps : int

    Raises
    ------
    NumericalError
        Not all columns are done after `max_steps` steps.
    """
    size = np.linalg.norm(Z, axis=0)
    unit = Z / np.where(size > 0.0, size, 1.0)
    coefficients = _coefficients(matrix, unit, tolerance, max_steps)
    result = np.zeros_like(Z)
    for row, (v, _, _) in zip(coefficients, _recurrence(matrix, unit), strict=False):
        result += row * v
    return result * size


def _recurrence(matrix: Operator, v: FloatArray) -> Iterator[tuple[FloatArray, FloatArray, FloatArray]]:
    """Lanczos vectors (q, m) with the diagonal and the next off-diagonal element of every column's T."""
    before, beta = np.zeros_like(v), np.zeros(v.shape[1])
    while True:
        w = matrix(v) - beta * before
        alpha = np.einsum("qm,qm->m", v, w)
        w -= alpha * v
        beta = np.linalg.norm(w, axis=0)
        yield v, alpha, beta
        before, v = v, w / np.where(beta > 0.0, beta, 1.0)


def _coefficients(matrix: Operator, unit: FloatArray, tolerance: float, max_steps: int) -> FloatArray:
    """``T^1/2 e_1`` for every column, with as many steps as it took; shape (steps, m), 0 after a column was done."""
    m = unit.shape[1]
    diagonal, off = [], []
    found = [np.zeros(0)] * m
    active = list(range(m))
    check = FIRST_CHECK
    for _, alpha, beta in _recurrence(matrix, unit):
        diagonal.append(alpha)
        off.append(beta)
        steps = len(diagonal)
        if steps < min(check, unit.shape[0]):
            continue
        check = int(np.ceil(SPACING * steps))
        D, E = np.array(diagonal), np.array(off)
        active = [j for j in active if not _settled(found, j, _root(D[:, j], E[:-1, j]), tolerance)]
        if not active or steps >= unit.shape[0]:
            return np.stack([np.pad(own, (0, steps - own.size)) for own in found], axis=1)
        if steps >= max_steps:
            raise NumericalError(
                f"the root of {unit.shape[0]:,} equations is not found after {max_steps:,} steps of the Lanczos "
                "recurrence: some factors are nearly nested in each other"
            )
    raise AssertionError("the recurrence does not end")


def _root(diagonal: FloatArray, off: FloatArray) -> FloatArray:
    """``T^1/2 e_1``."""
    values, vectors = eigh_tridiagonal(diagonal, off)
    return np.asarray(vectors @ (np.sqrt(np.maximum(values, 0.0)) * vectors[0]))


def _settled(found: list[FloatArray], j: int, new: FloatArray, tolerance: float) -> bool:
    """Enter what is known of column j, and whether it is as it was."""
    old = np.pad(found[j], (0, new.size - found[j].size))
    found[j] = new
    return bool(np.linalg.norm(new - old) <= tolerance * np.linalg.norm(new))
