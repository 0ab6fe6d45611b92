"""Satterthwaite's degrees of freedom: a variance is a multiple of chi-squared with the mean and variance it has.

With ``f = l' C l`` the variance of a contrast, g its gradient by the variance parameters and A their covariance,
``df = 2 f**2 / g'A g`` (Satterthwaite 1946; Giesbrecht and Burns 1985). The gradient is exact: the derivative of C by
theta is ``C X' V^-1 (dV) V^-1 X C / sigma**2``, which takes one solve per column of X.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.inference.drift import Drift, drift
from crosslmm.inference.information import Information, with_sigma
from crosslmm.inference.nearby import Point
from crosslmm.inference.state import State, covariance_slopes, moved_covariances, white_scores

EQUAL = 1e-8
"""Degrees of freedom that differ by less are one number (lmerTest)."""

LEAST_DEGREES = 2.0
"""The F distribution has no mean with so few denominator degrees of freedom; joint tests then use this (lmerTest)."""


@dataclass(frozen=True)
class Satterthwaite:
    """Covariance of the fixed effects with its derivatives.

    Attributes
    ----------
    root : ndarray, shape (p, p)
        H with ``cov(beta) = H H'``.
    slopes : ndarray, shape (r, p, p)
        D with derivatives ``H D H'`` of the covariance by the free elements of theta at a given sigma.
    information : Information
    drift : Drift
        How the fixed effects and their covariance move with the probes.
    left_out : tuple of str
        Elements of theta on the boundary, which are taken as known.
    """

    root: FloatArray
    slopes: FloatArray
    information: Information
    drift: Drift
    left_out: tuple[str, ...]

    @property
    def covariance(self) -> FloatArray:
        """Covariance of the fixed effects; shape (p, p)."""
        return self.root @ self.root.T

    def degrees(self, L: FloatArray) -> FloatArray:
        """Degrees of freedom of each row of L (q, p); shape (q,)."""
        return _degrees(L, self.root, self.slopes, self.information.covariance)

    def degrees_replicates(self, L: FloatArray) -> FloatArray:
        """The same without one probe each; shape (n, q), n = 0 where nothing is sampled."""
        known = self.information
        if known.nearby is None:
            return np.zeros((0, L.shape[0]))

        def degrees(at: Point) -> FloatArray:
            return _degrees(L, at.root, at.slopes, with_sigma(at.theta_covariance, at.scores, known.degrees))

        here = np.array([_degrees(L, self.root, self.slopes, A) for A in known.covariance_replicates])
        return here * known.nearby.factors(degrees)


def _degrees(L: FloatArray, root: FloatArray, slopes: FloatArray, covariance: FloatArray) -> FloatArray:
    """Degrees of freedom of each row of L (q, p), with the covariance of theta and ``log sigma**2``."""
    white = L @ root
    variance = np.einsum("qp,qp->q", white, white)
    by_theta = np.einsum("qp,rpo,qo->qr", white, slopes, white, optimize=True)
    gradient = np.column_stack([by_theta, variance])
    return np.asarray(2.0 * variance**2 / np.einsum("qr,rs,qs->q", gradient, covariance, gradient, optimize=True))


def satterthwaite(state: State, known: Information) -> Satterthwaite:
    """Derivatives of the covariance of the fixed effects at the estimates of a fit.

    Parameters
    ----------
    state : State
    known : Information
    """
    slopes = covariance_slopes(white_scores(state.value), moved_covariances(state))
    return Satterthwaite(state.root, slopes, known, drift(state, slopes), state.left_out)


def pooled_degrees(degrees: FloatArray) -> float:
    """Denominator degrees of freedom of an F test from those of its independent parts (Fai and Cornelius 1996).

    The sum of squared t statistics has the mean ``sum_m nu_m / (nu_m - 2)``, which is set equal to that of the F
    statistic, as in lmerTest.

    Parameters
    ----------
    degrees : ndarray, shape (q,)
    """
    q = degrees.size
    if q == 1 or np.all(np.abs(np.diff(degrees)) < EQUAL):
        return float(degrees.mean())
    if np.any(degrees <= LEAST_DEGREES):
        return LEAST_DEGREES
    expected = float(np.sum(degrees / (degrees - 2.0)))
    return 2.0 * expected / (expected - q)
