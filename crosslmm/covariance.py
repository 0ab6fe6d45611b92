"""Covariance structures: how a stretch of theta becomes the small factor of one random term.

A term with k columns has covariance ``sigma**2 * T @ T.T`` per level, where the *template* T is
lower triangular (k, k) and linear in theta: ``T[rows[i], cols[i]] = theta[params[i]]``
(Bates, Maechler, Bolker, Walker 2015, eq. 4: Lambda_theta is block diagonal in copies of T).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]


@dataclass(frozen=True)
class Covariance:
    """A linear map from theta to the template of one term.

    Attributes
    ----------
    name : str
        ``"unstructured"``, ``"diagonal"`` or ``"identity"`` (one variance for all columns).
    size : int
        Number of columns k of the term.
    rows, cols, params : ndarray of intp, shape (e,)
        Element ``(rows[i], cols[i])`` of the template is ``theta[params[i]]``; all others are 0.
    """

    name: str
    size: int
    rows: IntArray
    cols: IntArray
    params: IntArray

    @property
    def n_theta(self) -> int:
        """Number of parameters of the structure."""
        return int(self.params.max()) + 1

    @property
    def on_diagonal(self) -> NDArray[np.bool_]:
        """Which parameters stand on the diagonal, hence are bounded below by 0; shape (n_theta,)."""
        flags = np.zeros(self.n_theta, dtype=bool)
        flags[self.params[self.rows == self.cols]] = True
        return flags

    def template(self, theta: FloatArray) -> FloatArray:
        """Template T at `theta`; shape (k, k), lower triangular."""
        T = np.zeros((self.size, self.size))
        T[self.rows, self.cols] = np.asarray(theta)[self.params]
        return T

    def theta(self, template: FloatArray) -> FloatArray:
        """Parameters of a lower triangular template that the structure can represent; shape (n_theta,)."""
        theta = np.zeros(self.n_theta)
        theta[self.params] = template[self.rows, self.cols]
        return theta

    def basis(self) -> FloatArray:
        """Derivatives of the template by each parameter; shape (n_theta, k, k)."""
        E = np.zeros((self.n_theta, self.size, self.size))
        E[self.params, self.rows, self.cols] = 1.0
        return E


def unstructured(size: int) -> Covariance:
    """Any positive semi-definite covariance; theta is the lower triangle, column by column (as lme4)."""
    cols, rows = np.triu_indices(size)
    return Covariance("unstructured", size, rows, cols, np.arange(rows.size))


def diagonal(size: int) -> Covariance:
    """Independent columns, one variance each."""
    index = np.arange(size)
    return Covariance("diagonal", size, index, index, index)


def identity(size: int) -> Covariance:
    """Independent columns that share one variance (statsmodels' variance components)."""
    index = np.arange(size)
    return Covariance("identity", size, index, index, np.zeros(size, dtype=np.intp))


def lower_factor(factor: FloatArray) -> FloatArray:
    """Lower triangular L with ``L @ L.T == factor @ factor.T``, nonnegative diagonal and exact zeros.

    Columns of `factor` that are exactly zero give as many exactly zero trailing columns of L, so a
    singular covariance stays exactly singular under a change of basis.

    Parameters
    ----------
    factor : ndarray, shape (k, r)
        Any square root of a covariance.
    """
    nonzero = factor[:, np.any(factor != 0.0, axis=0)]
    size, rank = nonzero.shape
    lower = np.zeros((size, size))
    if rank:
        R = cast(FloatArray, np.linalg.qr(nonzero.T, mode="r"))
        lower[:, : R.shape[0]] = np.tril(positive_diagonal(R).T)
    return lower


def positive_diagonal(R: FloatArray) -> FloatArray:
    """A triangular factor with the signs of its rows chosen so that its diagonal is not negative."""
    return np.where(np.diag(R) < 0.0, -1.0, 1.0)[:, None] * R
