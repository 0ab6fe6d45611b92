"""Information on the variance parameters: observed, expected and average, and the covariance of theta and sigma.

The parameters are the elements of theta off the boundary, in standardised coordinates, and ``t = log sigma**2``. With
``nu`` and the scores ``s_i = y'P V_i P y / sigma**2`` of docs/theory.md, eq. (13)-(15), the Hessian of the criterion,
sigma not profiled out, is

    [ H + s s' / nu    s  ]
    [ s'               nu ]

where H is that of the profiled criterion; so its inverse needs the inverse of H alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.errors import ModelError, NumericalError
from crosslmm.inference.state import State, moved_covariances, white_scores
from crosslmm.inference.traces import Sampled, trace_products
from crosslmm.objective import Directions, differentiate
from crosslmm.quadratic import DEFINITE
from crosslmm.start import natural_scale

KINDS = ("observed", "expected", "average")

STEP = 0.01
"""Steps of the differenced gradient, in standard errors (or natural scales, whichever is smaller). Two of them are
combined, so the error is of the fourth power of this."""

SAMPLED_STEP = 0.1
"""The same where the gradient is sampled and its equations are solved to a few digits only."""


@dataclass(frozen=True)
class Information:
    """What is known of theta and sigma.

    Attributes
    ----------
    kind : str
        ``"observed"``, ``"expected"`` or ``"average"``.
    hessian : Sampled
        Of the profiled criterion by the free elements of theta: twice the information; (r, r).
    scores : ndarray, shape (r,)
        Minus the derivative of ``nu log sigma**2`` by them, or its expectation ``tr(P V_i)``.
    degrees : int
        nu.
    """

    kind: str
    hessian: Sampled
    scores: FloatArray
    degrees: int

    def covariance(self, hessian: FloatArray) -> FloatArray:
        """Covariance of the free elements of theta and ``log sigma**2`` for one Hessian; shape (r + 1, r + 1)."""
        r = self.scores.size
        inverse = 2.0 * np.linalg.inv(hessian) if r else np.zeros((0, 0))
        along = -self.scores / self.degrees
        J = np.vstack([np.eye(r), along[None]])
        result = J @ inverse @ J.T
        result[r, r] += 2.0 / self.degrees
        return np.asarray(result)


def information(state: State, kind: str = "observed") -> Information:
    """Information of one kind at the estimates.

    Parameters
    ----------
    state : State
    kind : {"observed", "expected", "average"}
        Second derivatives of the criterion (central differences of its exact gradient), their expectation, or the
        average of both, the traces being replaced by what cancels them (theory eq. (14)).

    Raises
    ------
    ModelError
        Another kind.
    NumericalError
        The matrix is not positive definite: theta is not at a minimum, or not identified there.
    """
    if kind not in KINDS:
        raise ModelError(f"information={kind!r}: expected 'observed', 'expected' or 'average'")
    scores = state.minimum.slopes.scores[state.free]
    if kind == "expected":
        hessian, scores = expected_hessian(state)
    else:
        hessian = observed_hessian(state) if kind == "observed" else average_hessian(state)
    _check_definite(hessian.mean, kind)
    return Information(kind, hessian, scores, state.value.degrees)


def _check_definite(H: FloatArray, kind: str) -> None:
    unit = np.sqrt(np.abs(np.diag(H)))
    if H.size and (not (unit > 0.0).all() or np.linalg.eigvalsh(H / np.outer(unit, unit))[0] < DEFINITE):
        other = "information='expected'" if kind != "expected" else "a simpler random part"
        raise NumericalError(
            f"the {kind} information on the variance parameters is not positive definite, so their covariance is not "
            "known: the search may have stopped early (see fit.optimization), or two variances can replace each other. "
            f"Try {other}"
        )


def average_hessian(state: State) -> Sampled:
    """Average information with what the second derivative of V adds, as in `crosslmm.precision`."""
    index = np.ix_(state.free, state.free)
    slopes = state.minimum.slopes
    H, r = (slopes.information + slopes.curvature)[index], int(state.free.sum())
    return Sampled(H, np.zeros((0, r, r)))


def expected_hessian(state: State) -> tuple[Sampled, FloatArray]:
    """``tr(P V_i P V_j) - tr(P V_i) tr(P V_j) / nu`` (ML: ``V^-1`` for P), and ``tr(P V_i)``."""
    moved, value = moved_covariances(state), state.value
    if not moved:
        return Sampled(np.zeros((0, 0)), np.zeros((0, 0, 0))), np.zeros(0)
    white = white_scores(value) if value.reml else None
    traces = trace_products(value.system, white, moved, n_probes=state.equations.n_probes)
    marginal = value.system.marginal(reml=value.reml).blocks
    single = np.array([np.vdot(marginal[f], D) for f, D in moved])
    return Sampled(traces.mean - np.outer(single, single) / value.degrees, traces.deviations), single


def observed_hessian(state: State) -> Sampled:
    """Second derivatives of the profiled criterion: central differences of its gradient, at two steps each."""
    free = np.flatnonzero(state.free)
    n, r = state.minimum.slopes.deviations.shape[0], free.size
    H, deviations = np.zeros((r, r)), np.zeros((n, r, r))
    steps = _steps(state)
    for a, i in enumerate(free):
        for step, weight in ((steps[i], -1.0 / 3.0), (0.5 * steps[i], 4.0 / 3.0)):
            for sign in (1.0, -1.0):
                theta = state.minimum.theta.copy()
                theta[i] += sign * step
                gradient, spread = _gradient(state, theta)
                H[a] += sign * weight * gradient[free] / (2.0 * step)
                deviations[:, a] += sign * weight * spread[:, free] / (2.0 * step)
    return Sampled(0.5 * (H + H.T), 0.5 * (deviations + deviations.transpose(0, 2, 1)))


def _steps(state: State) -> FloatArray:
    slopes = state.minimum.slopes
    size = np.abs(np.diag(slopes.information)) + np.abs(np.diag(slopes.curvature))
    errors = np.sqrt(2.0 / np.where(size > 0.0, size, np.inf))
    scale = natural_scale(state.xp)
    part = SAMPLED_STEP if state.equations.n_probes else STEP
    return np.asarray(part * np.where(errors > 0.0, np.minimum(errors, scale), scale))


def _gradient(state: State, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
    layout = state.xp.layout
    slopes = differentiate(state.at(theta), Directions(layout.theta_factor, layout.theta_basis))
    return slopes.gradient, slopes.deviations
