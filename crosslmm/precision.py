"""How exactly theta and sigma are known: their statistical error, and the Monte Carlo error of an engine that samples.

Both come as pairs of points around the estimates, so that the error of any function of theta and sigma is a difference
of its values (the delta method with numerical derivatives).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.quadratic import DEFINITE

NEARBY = 1e-3
"""Distance of the points from the estimates, in standard errors: small against any curvature."""


@dataclass(frozen=True)
class Spread:
    """Pairs of points `NEARBY` standard errors from the estimates, along independent directions.

    Attributes
    ----------
    theta : ndarray, shape (2, r, m)
        Units of the data.
    sigma : ndarray, shape (2, r)
    """

    theta: FloatArray
    sigma: FloatArray

    def error(self, function: Callable[[FloatArray, float], FloatArray]) -> FloatArray:
        """Standard error of a function of theta (m,) and sigma."""
        up, down = (
            [function(theta, float(sigma)) for theta, sigma in zip(*side, strict=True)]
            for side in zip(self.theta, self.sigma, strict=True)
        )
        slopes = [(a - b) / (2.0 * NEARBY) for a, b in zip(up, down, strict=True)]
        return np.sqrt(np.sum(np.square(slopes), axis=0))


@dataclass(frozen=True)
class Precision:
    """Covariances of theta in standardised coordinates; rows of parameters that cannot move are 0.

    Attributes
    ----------
    statistical : ndarray, shape (m, m)
        Twice the inverse of the information.
    sampling : ndarray, shape (m, m)
        By the deviations of the probes.
    fixed_slopes : ndarray, shape (p, m)
        Derivative of the fixed effects by theta, in units of their errors.
    """

    statistical: FloatArray
    sampling: FloatArray
    fixed_slopes: FloatArray

    @property
    def fixed_ratio(self) -> float:
        """Largest Monte Carlo error of a combination of fixed effects over its standard error."""
        moved = self.fixed_slopes @ self.sampling @ self.fixed_slopes.T
        return float(np.sqrt(np.linalg.eigvalsh(moved)[-1].clip(0.0))) if moved.size else 0.0

    @property
    def ratio(self) -> float:
        """Largest Monte Carlo error of a theta over its standard error."""
        statistical, sampling = np.diag(self.statistical), np.diag(self.sampling)
        known = statistical > 0.0
        return float(np.sqrt(np.max(sampling[known] / statistical[known], initial=0.0)))


def precision(
    information: FloatArray,
    curvature: FloatArray,
    deviations: FloatArray,
    fixed_slopes: FloatArray,
    free: NDArray[np.bool_],
) -> Precision:
    """Errors of theta at a minimum.

    Parameters
    ----------
    information, curvature : ndarray, shape (m, m)
        See `crosslmm.objective.Derivatives`.
    deviations : ndarray, shape (n, m)
        Gradient by each probe less the mean.
    fixed_slopes : ndarray, shape (p, m)
        Derivative of the fixed effects by theta, in units of their errors.
    free : ndarray of bool, shape (m,)
        Parameters off their bounds.
    """
    index = np.ix_(free, free)
    H = (information + curvature)[index]
    unit = np.sqrt(np.diag(information)[free])
    if H.size and np.linalg.eigvalsh(H / np.outer(unit, unit))[0] < DEFINITE:
        H = information[index]
    inverse = np.linalg.inv(H / np.outer(unit, unit)) / np.outer(unit, unit)
    n = deviations.shape[0]
    G = deviations[:, free]
    statistical, sampling = np.zeros_like(information), np.zeros_like(information)
    statistical[index] = 2.0 * inverse
    sampling[index] = inverse @ (G.T @ G) @ inverse / max(n * (n - 1), 1)
    return Precision(statistical, sampling, fixed_slopes)


def directions(covariance: FloatArray) -> FloatArray:
    """Rows r (r, m) with ``sum r r' = covariance``."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > 0.0
    return np.sqrt(values[kept])[:, None] * vectors[:, kept].T


def spread(
    theta: FloatArray,
    steps: FloatArray,
    sigma: FloatArray,
    to_raw: Callable[[FloatArray], FloatArray],
) -> Spread:
    """Pairs of points around theta.

    Parameters
    ----------
    theta : ndarray, shape (m,)
        Estimates, standardised coordinates.
    steps : ndarray, shape (r, m)
        One standard error along each direction.
    sigma : ndarray, shape (2, r)
        Residual standard deviation at either end of each direction.
    to_raw : callable
        Theta in the units of the data.
    """
    points = np.array([[to_raw(theta + sign * NEARBY * step) for step in steps] for sign in (1.0, -1.0)])
    return Spread(points.reshape(2, len(steps), theta.size), sigma)
