"""Coordinates in which no digits are lost: centred, scaled, orthogonal columns (docs/theory.md, eq. (9)-(12))."""

from __future__ import annotations

import numpy as np

from crosslmm.covariance import Covariance, FloatArray
from crosslmm.design.qr import independent_columns, plain_factor, positive_diagonal, triangular_factor
from crosslmm.errors import ModelError

# A residual this small relative to the response is rounding.
PERFECT_FIT = 1e-10


def inverse_factor(R: FloatArray, n: int) -> FloatArray:
    """Upper triangular basis that makes columns with triangular factor R orthogonal with mean square 1 over n rows."""
    # LU of a triangular matrix is the matrix itself, so this is back substitution.
    return np.linalg.solve(R, np.eye(R.shape[1]) * np.sqrt(n))


def fixed_coordinates(R: FloatArray, n: int, response: str) -> tuple[FloatArray, FloatArray, float]:
    """Basis of X, origin and unit of the response.

    Parameters
    ----------
    R : ndarray, shape (p + 1, p + 1)
        Triangular factor of ``[X, y - offset]``; the columns of X are independent.
    n : int
        Number of rows.
    response : str
        Its name, for messages.

    Returns
    -------
    x_basis : ndarray, shape (p, p)
    origin : ndarray, shape (p,)
        Coefficients of ordinary least squares.
    scale : float
        Root mean square of its residuals.

    Raises
    ------
    ModelError
        The fixed effects fit the response perfectly.
    """
    p = R.shape[1] - 1
    R = positive_diagonal(R)
    origin: FloatArray = np.linalg.solve(R[:p, :p], R[:p, p]).astype(np.float64, copy=False)
    residual, length = R[p, p], np.linalg.norm(R[:, p])
    if residual <= PERFECT_FIT * length:
        raise ModelError(
            f"the fixed effects fit the response {response!r} perfectly; nothing is left to model. "
            "Is the response, or a copy of it, among the predictors?"
        )
    return inverse_factor(R[:p, :p], n), origin, float(residual / np.sqrt(n))


def term_basis(Z: FloatArray, structure: Covariance) -> FloatArray:
    """Basis of the columns (n, k) of one random-effects term, within what its covariance structure allows.

    Unstructured: orthogonal columns with mean square 1; a column that depends on earlier ones is scaled only.
    Diagonal: each column scaled; identity: all by one factor. A column of zeros stays as it is.
    """
    n, k = Z.shape
    mean_squares = np.einsum("ij,ij->j", Z, Z) / n
    unit = 1.0 / np.sqrt(np.where(mean_squares > 0.0, mean_squares, 1.0))
    if structure.name == "identity":
        mean = mean_squares.mean()
        return np.eye(k) / np.sqrt(mean if mean > 0.0 else 1.0)
    basis = np.diag(unit)
    if structure.name == "unstructured" and k > 1:
        R = triangular_factor(Z * unit)
        kept = independent_columns(R)
        kept_R = R if kept.size == k else plain_factor(R[:, kept])
        block = inverse_factor(positive_diagonal(kept_R), n)
        basis[np.ix_(kept, kept)] = unit[kept][:, None] * block
    return basis
