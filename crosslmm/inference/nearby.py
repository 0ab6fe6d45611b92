"""A fit seen from nearby values of theta: how what follows from its information moves with theta.

Degrees of freedom and standard errors of variances are functions of second derivatives of the criterion, so how they
move is a matter of third derivatives. Probes that move theta move the second derivatives too, and the one makes up for
much of the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.inference.drift import theta_shifts
from crosslmm.inference.state import State, covariance_slopes, moved_covariances, white_scores


@dataclass(frozen=True)
class Point:
    """What is kept of the equations at one theta.

    Attributes
    ----------
    theta : ndarray, shape (m,)
        Standardised coordinates.
    sigma : float
        Residual standard deviation there, units of the data.
    root : ndarray, shape (p, p)
        H with ``cov(beta) = H H'``.
    slopes : ndarray, shape (r, p, p)
        D with derivatives ``H D H'`` of it by the free elements of theta at a given sigma.
    theta_covariance : ndarray, shape (r, r)
        Of the free elements of theta.
    scores : ndarray, shape (r,)
        Minus the derivative of ``nu log sigma**2`` by them.
    """

    theta: FloatArray
    sigma: float
    root: FloatArray
    slopes: FloatArray
    theta_covariance: FloatArray
    scores: FloatArray


def point_of(state: State, hessian: FloatArray) -> Point:
    """What is kept of the equations at the theta of a state, with a Hessian of the criterion there (m, m)."""
    free, at = state.free, state.minimum
    slopes = covariance_slopes(white_scores(state.value), moved_covariances(state))
    covariance = np.asarray(2.0 * np.linalg.inv(hessian[np.ix_(free, free)]), dtype=np.float64)
    return Point(at.theta, state.sigma, state.root, slopes, covariance, at.slopes.scores[free])


@dataclass(frozen=True)
class Nearby:
    """Points on both sides of the estimates, one pair per free element of theta.

    Attributes
    ----------
    shifts : ndarray, shape (n, r)
        Change of the free elements of theta as one probe after the other is left out.
    steps : ndarray, shape (r,)
        Half the distances of the pairs.
    up, down : tuple of Point
    """

    shifts: FloatArray
    steps: FloatArray
    up: tuple[Point, ...]
    down: tuple[Point, ...]

    def factors(self, function: Callable[[Point], FloatArray]) -> FloatArray:
        """What the shifts multiply a positive function (q,) of a point by, to first order; shape (n, q)."""
        rows = [
            (np.log(function(above)) - np.log(function(below))) / (2.0 * step)
            for step, above, below in zip(self.steps, self.up, self.down, strict=True)
        ]
        return np.exp(self.shifts @ np.array(rows)) if rows else np.ones((self.shifts.shape[0], 1))

    def with_hessian(self, hessian: FloatArray, bends: FloatArray) -> Nearby:
        """The same points with the covariance of theta that goes with a Hessian at the estimates.

        Parameters
        ----------
        hessian : ndarray, shape (r, r)
        bends : ndarray, shape (r, r)
            Second derivatives of the gradient along each element of theta (rows). They are the third derivatives but
            for those by three different elements, which are taken from the average information.
        """
        root = np.linalg.inv(np.linalg.cholesky(0.5 * hessian)).T  # root root' = 2 H^-1
        turns = [-0.5 * step * root.T @ T @ root for step, T in zip(self.steps, self._third(bends), strict=True)]
        up, down = (
            tuple(
                replace(point, theta_covariance=root @ _exponential(sign * turn) @ root.T)
                for point, turn in zip(points, turns, strict=True)
            )
            for points, sign in ((self.up, 1.0), (self.down, -1.0))
        )
        return replace(self, up=up, down=down)

    def _third(self, bends: FloatArray) -> FloatArray:
        r = self.steps.size
        by_average = [
            (np.linalg.inv(above.theta_covariance) - np.linalg.inv(below.theta_covariance)) / step
            for step, above, below in zip(self.steps, self.up, self.down, strict=True)
        ]
        T = np.array(by_average).reshape(r, r, r)
        T = np.mean([T, T.transpose(1, 2, 0), T.transpose(2, 0, 1)], axis=0)
        for a, b in np.ndindex(r, r):
            T[a, a, b] = T[a, b, a] = T[b, a, a] = bends[a, b]
        return np.asarray(T)


def _exponential(turn: FloatArray) -> FloatArray:
    """``I + turn`` to first order, and definite whatever the symmetric matrix `turn` is."""
    values, vectors = np.linalg.eigh(turn)
    return np.asarray((vectors * np.exp(values)) @ vectors.T)


def nearby(state: State, steps: FloatArray) -> Nearby:
    """Points at distances of `steps` (r,) in the free elements of theta, with the average information.

    What it lacks of a Hessian is 0 where the gradient is, also when one probe is left out and theta moves with it. Each
    point takes an evaluation and its gradient.
    """

    def point(element: int, step: float) -> Point:
        moved = state.at(state.stepped(element, step))
        return point_of(moved, moved.minimum.slopes.information)

    pairs = list(zip(map(int, np.flatnonzero(state.free)), steps, strict=True))
    up, down = (tuple(point(i, sign * step) for i, step in pairs) for sign in (1.0, -1.0))
    return Nearby(theta_shifts(state), steps, up, down)
