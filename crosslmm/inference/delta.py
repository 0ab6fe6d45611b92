"""Standard errors of theta, sigma and functions of them by the delta method, with any information.

Where the fit is sampled, so are they: by the probes, and by theta, which moves with the same probes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crosslmm.components import component_values, on_boundary
from crosslmm.covariance import FloatArray
from crosslmm.inference.information import Information, information, with_sigma
from crosslmm.inference.nearby import Point
from crosslmm.inference.state import State
from crosslmm.inference.traces import jackknife

DELTA = 1e-3
"""Steps of the numerical derivatives, in standard errors."""

Function = Callable[[FloatArray, float], FloatArray]
"""Of theta (m,) in the units of the data and sigma; to shape (v,)."""


@dataclass(frozen=True)
class Errors:
    """Of a function of theta and sigma.

    Attributes
    ----------
    values : ndarray, shape (v,)
    std_error : ndarray, shape (v,)
        nan for what lies on the boundary.
    mc_error : ndarray, shape (v,)
        Monte Carlo standard errors of `values`; 0 where nothing is sampled.
    std_error_mc_error : ndarray, shape (v,)
        The same of `std_error`.
    """

    values: FloatArray
    std_error: FloatArray
    mc_error: FloatArray
    std_error_mc_error: FloatArray


def parameter_covariance(state: State, kind: str) -> FloatArray:
    """Covariance of theta (units of the data) and sigma, shape (m + 1, m + 1); nan for elements on the boundary."""
    J = _jacobian(state, theta_and_sigma, state.minimum.theta, state.sigma)
    covariance = J @ information(state, kind, errors=False).covariance @ J.T
    unknown = ~J.any(axis=1)
    covariance[unknown] = np.nan
    covariance[:, unknown] = np.nan
    return np.asarray(covariance)


def parameter_errors(state: State, kind: str) -> Errors:
    """Errors of theta (units of the data) and, last, sigma."""
    values = theta_and_sigma(state.fit.theta, state.fit.sigma)
    return _errors(state, information(state, kind), theta_and_sigma, values, np.zeros(values.size, dtype=bool))


def component_errors(state: State, kind: str) -> Errors:
    """Errors of `crosslmm.components.component_values`, the columns one after the other."""
    layout = state.xp.layout

    def components(theta: FloatArray, sigma: float) -> FloatArray:
        return np.asarray(component_values(layout, theta, sigma).T.ravel())

    values = components(state.fit.theta, state.fit.sigma)
    boundary = on_boundary(layout, values.reshape(2, -1).T).T.ravel()
    return _errors(state, information(state, kind), components, values, boundary)


def theta_and_sigma(theta: FloatArray, sigma: float) -> FloatArray:
    """Both in one array; shape (m + 1,)."""
    return np.append(theta, sigma)


def _errors(
    state: State, known: Information, function: Function, values: FloatArray, boundary: NDArray[np.bool_]
) -> Errors:
    J = _jacobian(state, function, state.minimum.theta, state.sigma)
    inside = ~boundary & J.any(axis=1)

    def spread(J: FloatArray, covariance: FloatArray) -> FloatArray:
        return np.asarray(np.sqrt(np.einsum("va,ab,vb->v", J[inside], covariance, J[inside])))

    def spread_at(point: Point) -> FloatArray:
        covariance = with_sigma(point.theta_covariance, point.scores, known.degrees)
        return spread(_jacobian(state, function, point.theta, point.sigma), covariance)

    std_error, mc_error, of_error = (np.full(values.size, np.nan) for _ in range(3))
    std_error[inside], mc_error[inside], of_error[inside] = spread(J, known.covariance), 0.0, 0.0
    if known.nearby is not None:
        along = state.minimum.slopes.scores[state.free] / known.degrees
        by_theta = J[inside, :-1] - J[inside, -1:] * along
        mc_error[inside] = jackknife(known.nearby.shifts @ by_theta.T)
        replicates = np.array([spread(J, A) for A in known.covariance_replicates])
        of_error[inside] = known.monte_carlo(std_error[inside], replicates, known.nearby.factors(spread_at))
    return Errors(values, std_error, mc_error, of_error)


def _jacobian(state: State, function: Function, theta: FloatArray, sigma: float) -> FloatArray:
    """Derivatives by the free elements of theta, standardised coordinates, and by ``log sigma**2``; (v, r + 1)."""
    free = np.flatnonzero(state.free)
    errors = np.sqrt(np.diag(state.minimum.precision.statistical)[free])
    moves = [(step * np.eye(theta.size)[i], 0.0, step) for i, step in zip(free, DELTA * errors, strict=True)]
    own = DELTA * np.sqrt(2.0 / state.value.degrees)
    columns = []
    for along, log_variance, step in [*moves, (np.zeros(theta.size), own, own)]:
        column: FloatArray = np.zeros(())
        for part, weight in ((1.0, -1.0 / 3.0), (0.5, 4.0 / 3.0)):  # the error is of the fourth power of the step
            up, down = (
                function(
                    state.xp.layout.to_raw(theta + sign * part * along),
                    sigma * np.exp(0.5 * sign * part * log_variance),
                )
                for sign in (1.0, -1.0)
            )
            column = column + weight * (up - down) / (2.0 * part * step)
        columns.append(column)
    return np.stack(columns, axis=1)
