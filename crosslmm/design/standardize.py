"""Coordinates in which no digits are lost: centred, scaled, orthogonal columns (docs/theory.md, eq. (9)-(12))."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crosslmm.covariance import Covariance, FloatArray, positive_diagonal
from crosslmm.design.qr import independent_columns, triangular_factor
from crosslmm.errors import ModelError

# A residual this small relative to the spread of the response is no residual.
PERFECT_FIT = 1e-10
# What subtracting a fit can leave of a response by rounding alone, relative to the numbers subtracted.
ROUNDING = 32.0 * float(np.finfo(float).eps)
# Steps of float64 that the standard deviation of a response must span.
FEWEST_STEPS = 100


@dataclass(frozen=True)
class TermSums:
    """What the coordinates of a random-effects term need of its columns.

    Attributes
    ----------
    n : int
        Number of rows.
    mean_squares : ndarray, shape (k,)
    factor : ndarray, shape (m, k)
        Triangular factor of the columns.
    constant : bool
        Whether the first column is 1 in every row.
    """

    n: int
    mean_squares: FloatArray
    factor: FloatArray
    constant: bool


def term_sums(Z: FloatArray) -> TermSums:
    """Of the columns Z (n, k) of one term."""
    n, k = Z.shape
    mean_squares = np.einsum("ij,ij->j", Z, Z) / n
    factor = np.sqrt(n * mean_squares)[None, :] if k == 1 else triangular_factor(Z)
    return TermSums(n, mean_squares, factor, bool(k > 0 and np.all(Z[:, 0] == 1.0)))


def inverse_factor(R: FloatArray, n: int) -> FloatArray:
    """Upper triangular basis that makes columns with triangular factor R orthogonal with mean square 1 over n rows."""
    # LU of a triangular matrix is the matrix itself, so this is back substitution.
    return np.linalg.solve(R, np.eye(R.shape[1]) * np.sqrt(n))


def check_spread(mean: float, spread: float, n: int, response: str) -> None:
    """Refuse a response that varies by a few steps of float64 only.

    Parameters
    ----------
    mean, spread : float
        Of the n values: their mean, and their length without it.
    n : int
    response : str
        Its name, for messages.

    Raises
    ------
    ModelError
    """
    sd = spread / np.sqrt(n)
    if 0.0 < sd < FEWEST_STEPS * np.spacing(abs(mean)):
        raise ModelError(
            f"the response {response!r} varies by {sd:.3g} (standard deviation) about a mean of {mean:.6g}: float64 "
            f"resolves steps of {np.spacing(abs(mean)):.2g} there, too coarse to model. Subtract a constant before "
            "the data are stored in float64"
        )


def fixed_coordinates(R: FloatArray, n: int, response: str, spread: float) -> tuple[FloatArray, FloatArray, float]:
    """Basis of X, origin and unit of the response.

    Parameters
    ----------
    R : ndarray, shape (p + 1, p + 1)
        Triangular factor of ``[X, y - offset]``; the columns of X are independent.
    n : int
        Number of rows.
    response : str
        Its name, for messages.
    spread : float
        Length of ``y - offset`` without its mean.

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
    # lengths of the response and of the terms whose sum is subtracted from it
    lengths = np.linalg.norm(R, axis=0) * np.abs(np.append(origin, 1.0))
    residual = R[p, p]
    if residual <= max(PERFECT_FIT * spread, ROUNDING * lengths.max()):
        raise ModelError(
            f"the fixed effects fit the response {response!r} perfectly; nothing is left to model. "
            "Is the response, or a copy of it, among the predictors?"
        )
    return inverse_factor(R[:p, :p], n), origin, float(residual / np.sqrt(n))


def term_basis(sums: TermSums, structure: Covariance, names: Sequence[str], label: str) -> FloatArray:
    """Basis of the columns of one random-effects term, within what its covariance structure allows.

    Unstructured: orthogonal columns with mean square 1. Diagonal: each column scaled; identity: all by one factor. A
    column of zeros stays as it is.

    Parameters
    ----------
    sums : TermSums
    structure : Covariance
    names : sequence of str
        Of the k columns, for messages.
    label : str
        The term, for messages.

    Raises
    ------
    ModelError
        A column of an unstructured term is a combination of earlier ones: different covariances would be the same
        model.
    """
    k = sums.mean_squares.size
    unit = 1.0 / np.sqrt(np.where(sums.mean_squares > 0.0, sums.mean_squares, 1.0))
    if structure.name == "identity":
        mean = sums.mean_squares.mean()
        return np.eye(k) / np.sqrt(mean if mean > 0.0 else 1.0)
    if structure.name != "unstructured" or k == 1:
        return np.diag(unit)
    R = sums.factor * unit
    kept = independent_columns(R, intercept=sums.constant)
    if kept.size < k:
        dependent = ", ".join(repr(names[j]) for j in np.setdiff1d(np.arange(k), kept))
        raise ModelError(
            f"in the random-effects term {label}, {dependent} depends linearly on earlier columns, so its variance "
            "cannot be told from theirs; leave it out (or, where it hardly varies against its size, centre it)"
        )
    return unit[:, None] * inverse_factor(positive_diagonal(R), sums.n)
