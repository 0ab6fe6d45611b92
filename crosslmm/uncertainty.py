"""Errors of theta and sigma at a minimum: by the sampling of the data, and by the probes of an engine that samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.engine.protocol import Equations
from crosslmm.objective import Derivatives, Directions, Evaluation, differentiate, evaluate
from crosslmm.precision import NEARBY, Precision, Spread, directions, precision, spread
from crosslmm.quadratic import can_move


@dataclass(frozen=True)
class Minimum:
    """What the errors are computed from.

    Attributes
    ----------
    theta : ndarray, shape (m,)
        Standardised coordinates.
    value : Evaluation
    slopes : Derivatives
    precision : Precision
    """

    theta: FloatArray
    value: Evaluation
    slopes: Derivatives
    precision: Precision


def examine(xp: CrossProducts, theta: FloatArray, value: Evaluation) -> Minimum:
    """Derivatives at a minimum, and the covariance of theta that they give."""
    layout = xp.layout
    slopes = differentiate(value, Directions(layout.theta_factor, layout.theta_basis))
    moving = can_move(layout.theta_column, theta)
    found = precision(slopes.information, slopes.curvature, slopes.deviations, slopes.fixed_slopes, moving)
    return Minimum(theta, value, slopes, found)


def monte_carlo(xp: CrossProducts, at: Minimum, sigma: float) -> Spread:
    """Of theta and sigma by the sampling of the probes; sigma is exact at a given theta."""
    steps = directions(at.precision.sampling)
    return _around(xp, at, sigma, steps, np.zeros(len(steps)))


def statistical(xp: CrossProducts, at: Minimum, sigma: float) -> Spread:
    """Of theta and sigma by the sampling of the data.

    At a given theta ``sigma**2`` has the error of a chi-squared on nu degrees of freedom.
    """
    steps = directions(at.precision.statistical)
    own = np.append(np.zeros(len(steps)), np.sqrt(2.0 / at.value.degrees))
    return _around(xp, at, sigma, np.vstack([steps, np.zeros(at.theta.size)]), own)


def statistical_at(xp: CrossProducts, equations: Equations, theta: FloatArray, sigma: float, *, reml: bool) -> Spread:
    """`statistical` at estimates in the units of the data."""
    standard = xp.layout.to_standard(theta)
    value = evaluate(equations, xp, xp.layout.templates(standard), reml=reml)
    return statistical(xp, examine(xp, standard, value), sigma)


def _around(xp: CrossProducts, at: Minimum, sigma: float, steps: FloatArray, log_variance: FloatArray) -> Spread:
    change = 0.5 * NEARBY * (log_variance - steps @ at.slopes.scores / at.value.degrees)
    return spread(at.theta, steps, sigma * np.exp([change, -change]), xp.layout.to_raw)
