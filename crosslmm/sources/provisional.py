"""Coordinates from a sample of the rows, in which all rows are summed; the final ones follow from the sums.

Both are linear, and the step from one to the other is between bases that are nearly orthogonal, so it costs no digits
however large means are against standard deviations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray, positive_diagonal
from crosslmm.design.qr import independent_columns, plain_factor, triangular_factor
from crosslmm.design.random import Arrangement
from crosslmm.design.standardize import inverse_factor
from crosslmm.layout import Standardization


def sample_basis(A: FloatArray) -> tuple[FloatArray, NDArray[np.intp]]:
    """Upper triangular, invertible basis (k, k) that makes what is independent in a sample A (n, k) orthogonal.

    A column that depends on earlier ones in the sample loses what they say of it, and is scaled: what is left of it is
    rounding in the sample.

    Returns
    -------
    basis : ndarray, shape (k, k)
    kept : ndarray of intp
        Columns that are independent in the sample.
    """
    n, k = A.shape
    sizes = np.sqrt(np.einsum("ij,ij->j", A, A) / max(n, 1))
    basis = np.diag(1.0 / np.where(sizes > 0.0, sizes, 1.0))
    if n == 0:
        return basis, np.arange(0)
    R = triangular_factor(A)
    kept = independent_columns(R)
    basis[np.ix_(kept, kept)] = inverse_factor(positive_diagonal(plain_factor(R[:, kept])), n)
    for j in np.setdiff1d(np.arange(k), kept):
        earlier = kept[kept < j]
        coefficients = np.linalg.lstsq(R[:, earlier], R[:, j], rcond=None)[0]
        basis[earlier, j] = -basis[j, j] * coefficients
    return basis, kept


def sample_coordinates(
    X: FloatArray, target: FloatArray, arrangement: Arrangement, Z: Mapping[str, FloatArray]
) -> Standardization:
    """Coordinates from the sample.

    Parameters
    ----------
    X : ndarray, shape (n, p)
    target : ndarray, shape (n,)
        Response without its known part.
    arrangement : Arrangement
    Z : mapping
        Columns of each text of the arrangement.
    """
    x_basis, kept = sample_basis(X)
    origin = x_basis[:, kept] @ np.linalg.lstsq(X @ x_basis[:, kept], target, rcond=None)[0]
    rest = target - X @ origin
    scale = next((s for s in (_size(rest), _size(target)) if s > 0.0), 1.0)
    z_bases = [np.zeros((factor.size, factor.size)) for factor in arrangement.factors]
    for term, text in arrangement.side_by_side:
        z_bases[term.factor][np.ix_(term.columns, term.columns)] = sample_basis(Z[text])[0]
    return Standardization(x_basis, tuple(z_bases), origin, scale)


def _size(values: FloatArray) -> float:
    return float(np.sqrt(np.mean(values**2))) if values.size else 0.0


def fixed_step(before: Standardization, after: Standardization, kept: NDArray[np.intp]) -> FloatArray:
    """Matrix (p + 1, q + 1) from ``[X, y]`` in coordinates `before` to its kept columns in coordinates `after`."""
    p, q = before.origin.size, kept.size
    first = np.zeros((p + 1, p + 1))
    first[:p, :p] = before.x_basis
    first[:p, p] = -before.origin / before.scale
    first[p, p] = 1.0 / before.scale
    second = np.zeros((p + 1, q + 1))
    second[kept, :q] = after.x_basis
    second[kept, q] = -after.origin / after.scale
    second[p, q] = 1.0 / after.scale
    # LU of a triangular matrix is the matrix itself, so this is back substitution.
    return cast(FloatArray, np.linalg.solve(first, second))


def random_steps(before: Standardization, after: Standardization) -> list[FloatArray]:
    """Matrices (k, k) that take the columns of each factor from one to the other."""
    return [
        cast(FloatArray, np.linalg.solve(one, other)) for one, other in zip(before.z_bases, after.z_bases, strict=True)
    ]
