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
from crosslmm.inference.drift import theta_shifts
from crosslmm.inference.nearby import Nearby, Point, nearby, point_of
from crosslmm.inference.state import State, moved_covariances, white_scores
from crosslmm.inference.traces import Sampled, jackknife, trace_products
from crosslmm.quadratic import DEFINITE
from crosslmm.start import natural_scale

KINDS = ("observed", "expected", "average")

STEP = 0.01
"""Steps of the differenced gradient, in standard errors (or natural scales, whichever is smaller). Two of them are
combined, so the error is of the fourth power of this."""

SAMPLED_STEP = 0.1
"""The same where the gradient is sampled and its equations are solved to a few digits only."""

NEARER = 0.5
"""The second step, in units of the first."""


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
    nearby : Nearby or None
        None where nothing is sampled, or no Monte Carlo errors are wanted.
    """

    kind: str
    hessian: Sampled
    scores: FloatArray
    degrees: int
    nearby: Nearby | None

    @property
    def covariance(self) -> FloatArray:
        """Covariance of the free elements of theta and ``log sigma**2``; shape (r + 1, r + 1)."""
        return self._covariance(self.hessian.mean)

    @property
    def covariance_replicates(self) -> FloatArray:
        """The same without one probe each, at the same theta; shape (n, r + 1, r + 1)."""
        size = self.scores.size + 1
        replicates = [self._covariance(H) for H in self.hessian.replicates]
        return np.array(replicates).reshape(len(replicates), size, size)

    def monte_carlo(self, value: FloatArray, replicates: FloatArray, factors: FloatArray) -> FloatArray:
        """Monte Carlo errors of functions of the covariance.

        Parameters
        ----------
        value : ndarray, shape (q,)
        replicates : ndarray, shape (n, q)
            By `covariance_replicates`; n = 0 where the information is not sampled at a given theta.
        factors : ndarray, shape (n', q)
            What multiplies them as theta moves with the probes.
        """
        if self.kind == "observed":  # of the same probes
            return jackknife(replicates * factors)
        return np.hypot(jackknife(replicates.reshape(-1, value.size)), jackknife(value * factors))

    def _covariance(self, hessian: FloatArray) -> FloatArray:
        inverse = np.asarray(2.0 * np.linalg.inv(hessian), dtype=np.float64)
        return with_sigma(inverse, self.scores, self.degrees)


def with_sigma(theta_covariance: FloatArray, scores: FloatArray, degrees: int) -> FloatArray:
    """Covariance of theta and ``log sigma**2``, shape (r + 1, r + 1), from that of theta (r, r)."""
    r = scores.size
    J = np.vstack([np.eye(r), -scores[None] / degrees])
    result = J @ theta_covariance @ J.T
    result[r, r] += 2.0 / degrees
    return np.asarray(result)


def information(state: State, kind: str = "observed", *, errors: bool = True) -> Information:
    """Information of one kind at the estimates.

    Parameters
    ----------
    state : State
    kind : {"observed", "expected", "average"}
        Second derivatives of the criterion (central differences of its exact gradient), their expectation, or the
        average of both, the traces being replaced by what cancels them (theory eq. (14)).
    errors : bool
        Whether Monte Carlo errors are wanted of what is sampled, which takes evaluations nearby.

    Raises
    ------
    ModelError
        Another kind.
    NumericalError
        The matrix is not positive definite: theta is not at a minimum, or not identified there.
    """
    if kind not in KINDS:
        raise ModelError(f"information={kind!r}: expected 'observed', 'expected' or 'average'")
    scores, near = state.minimum.slopes.scores[state.free], None
    if kind == "observed":
        hessian, near = observed_hessian(state)
    else:
        near = nearby(state, NEARER * _steps(state)) if errors and state.equations.n_probes else None
        hessian, scores = expected_hessian(state) if kind == "expected" else (average_hessian(state), scores)
    _check_definite(hessian.mean, kind)
    return Information(kind, hessian, scores, state.value.degrees, near)


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
    traces = trace_products(value.system, white, moved, n_probes=state.equations.n_probes, seed=state.seed)
    marginal = value.system.marginal(reml=value.reml).blocks
    single = np.array([np.vdot(marginal[f], D) for f, D in moved])
    return Sampled(traces.mean - np.outer(single, single) / value.degrees, traces.deviations), single


def observed_hessian(state: State) -> tuple[Sampled, Nearby | None]:
    """Second derivatives of the profiled criterion: central differences of its gradient, at two steps each.

    Where the gradient is sampled, the points nearer by are kept.
    """
    free, here = np.flatnonzero(state.free), state.minimum.slopes
    n, r = here.deviations.shape[0], free.size
    H, bends, deviations = np.zeros((r, r)), np.zeros((r, r)), np.zeros((n, r, r))
    steps = _steps(state)
    kept: dict[float, list[Point]] = {1.0: [], -1.0: []}
    for a, i in enumerate(free):
        for part, weight in ((1.0, -1.0 / 3.0), (NEARER, 4.0 / 3.0)):
            for sign in (1.0, -1.0):
                step = part * steps[a]
                moved = state.at(state.stepped(int(i), sign * step))
                there = moved.minimum.slopes
                H[a] += sign * weight * there.gradient[free] / (2.0 * step)
                deviations[:, a] += sign * weight * there.deviations[:, free] / (2.0 * step)
                bends[a] += weight * (there.gradient - here.gradient)[free] / step**2
                if n and part == NEARER:
                    kept[sign].append(point_of(moved, there.information + there.curvature))
    H = 0.5 * (H + H.T)
    sampled = Sampled(H, 0.5 * (deviations + deviations.transpose(0, 2, 1)))
    if not n:
        return sampled, None
    _check_definite(H, "observed")
    near = Nearby(theta_shifts(state), NEARER * steps, tuple(kept[1.0]), tuple(kept[-1.0]))
    return sampled, near.with_hessian(H, bends)


def _steps(state: State) -> FloatArray:
    """Of the free elements of theta; shape (r,)."""
    slopes = state.minimum.slopes
    size = np.abs(np.diag(slopes.information)) + np.abs(np.diag(slopes.curvature))
    errors = np.sqrt(2.0 / np.where(size > 0.0, size, np.inf))
    scale = natural_scale(state.xp)
    part = SAMPLED_STEP if state.equations.n_probes else STEP
    return np.asarray(part * np.where(errors > 0.0, np.minimum(errors, scale), scale))[state.free]
