"""Satterthwaite's degrees of freedom: a variance is a multiple of chi-squared with the mean and variance it has.

With ``f = l' C l`` the variance of a contrast, g its gradient by the variance parameters and A their covariance,
``df = 2 f**2 / g'A g`` (Satterthwaite 1946; Giesbrecht and Burns 1985). The gradient is exact: the derivative of C by
theta is ``C X' V^-1 (dV) V^-1 X C / sigma**2``, which takes one solve per column of X.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.inference.information import Information
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
    slopes : ndarray, shape (r + 1, p, p)
        D with derivatives ``H D H'`` of the covariance by the free elements of theta and by ``log sigma**2``.
    information : Information
    left_out : tuple of str
        Elements of theta on the boundary, which are taken as known.
    """

    root: FloatArray
    slopes: FloatArray
    information: Information
    left_out: tuple[str, ...]

    @property
    def covariance(self) -> FloatArray:
        """Covariance of the fixed effects; shape (p, p)."""
        return self.root @ self.root.T

    def degrees(self, L: FloatArray) -> FloatArray:
        """Degrees of freedom of each row of L (q, p); shape (q,)."""
        return self._degrees(L, self.information.hessian.mean)

    def degrees_replicates(self, L: FloatArray) -> FloatArray:
        """The same without one probe each; shape (n, q), n = 0 where nothing is sampled."""
        replicates = self.information.hessian.replicates
        values = [self._degrees(L, H) for H in replicates]
        return np.array(values).reshape(len(replicates), L.shape[0])

    def _degrees(self, L: FloatArray, hessian: FloatArray) -> FloatArray:
        white = L @ self.root
        variance = np.einsum("qp,qp->q", white, white)
        gradient = np.einsum("qp,rpo,qo->qr", white, self.slopes, white, optimize=True)
        spread = np.einsum("qr,rs,qs->q", gradient, self.information.covariance(hessian), gradient, optimize=True)
        return np.asarray(2.0 * variance**2 / spread)


def satterthwaite(state: State, known: Information) -> Satterthwaite:
    """Derivatives of the covariance of the fixed effects at the estimates of a fit.

    Parameters
    ----------
    state : State
    known : Information
    """
    slopes = covariance_slopes(white_scores(state.value), moved_covariances(state))
    p = state.fit.beta.size
    return Satterthwaite(state.root, np.concatenate([slopes, np.eye(p)[None]]), known, state.left_out)


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
