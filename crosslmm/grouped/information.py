"""Covariance of the estimated parameters of a model written with groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.grouped.likelihood import Likelihood, covariance_hessian
from crosslmm.grouped.parameters import Point, Space
from crosslmm.precision import NEARBY, Spread

SINGULAR = 1e-8
"""Eigenvalue of the correlations of random effects below which their covariance counts as singular (theta**2 units)."""


def parameter_covariance(likelihood: Likelihood, point: Point, held: NDArray[np.bool_]) -> FloatArray:
    """Of the covariance parameters over the residual variance, from the observed information; shape (m, m).

    The fixed effects follow the covariance parameters. Parameters on the boundary have no such covariance: nan; the
    others are those of the model without them.

    Parameters
    ----------
    likelihood : Likelihood
    point : Point
        The estimates.
    held : ndarray of bool, shape (m,)
        Covariances held at 0; their rows are 0.
    """
    estimated = ~held & _inside(point)
    result = np.full((held.size, held.size), np.nan)
    result[held] = result[:, held] = 0.0
    if estimated.any():
        index = np.ix_(estimated, estimated)
        information = -covariance_hessian(likelihood, point, profile=True)[index]
        unit = np.sqrt(np.abs(np.diag(information)))
        scaled = information / np.outer(unit, unit)
        if np.all(np.isfinite(scaled)) and np.linalg.eigvalsh(scaled)[0] > 0.0:
            result[index] = np.linalg.inv(scaled) / np.outer(unit, unit)
    return result


def sampled_covariance(spread: Spread, space: Space, point: Point, held: NDArray[np.bool_]) -> FloatArray:
    """The same of a fit whose traces were sampled, by the average information and the delta method; shape (m, m).

    Parameters
    ----------
    spread : Spread
        Points around the estimates.
    space : Space
    point, held
        See `parameter_covariance`.
    """

    def ratios(theta: FloatArray) -> FloatArray:
        cov, vcomp = space.covariances(theta)
        return np.concatenate([cov[np.tril_indices(len(cov))], vcomp])

    up, down = (np.array([ratios(theta) for theta in side]) for side in spread.theta)
    slopes = ((up - down) / (2.0 * NEARBY)).reshape(-1, held.size)
    result = slopes.T @ slopes
    outside = ~held & ~_inside(point)
    result[outside] = result[:, outside] = np.nan
    return result


def held_covariances(sets: tuple[tuple[int, ...], ...], k_re: int, k_vc: int) -> NDArray[np.bool_]:
    """Which covariance parameters are held at 0 because their columns are in different sets; shape (m,)."""
    member = np.zeros(k_re, dtype=int)
    for i, own in enumerate(sets):
        member[list(own)] = i
    rows, cols = np.tril_indices(k_re)
    return np.append(member[rows] != member[cols], np.zeros(k_vc, dtype=bool))


def _inside(point: Point) -> NDArray[np.bool_]:
    """Which parameters are off the boundary."""
    sd = np.sqrt(np.diag(point.cov_re))
    rows, cols = np.tril_indices(sd.size)
    kept = np.flatnonzero(sd > 0.0)
    definite = False
    if kept.size:
        correlation = point.cov_re[np.ix_(kept, kept)] / np.outer(sd[kept], sd[kept])
        definite = bool(np.linalg.eigvalsh(correlation)[0] > SINGULAR)
    return np.append((sd[rows] > 0.0) & (sd[cols] > 0.0) & definite, point.vcomp > 0.0)
