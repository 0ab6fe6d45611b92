"""What the probes of a sampled fit leave uncertain in its fixed effects and their covariance, by way of theta.

Both are exact at a given theta (docs/theory.md, section 8), so their Monte Carlo error is that of theta, carried over
by exact derivatives: ``d C = H (D_k - s_k / nu) H' d theta_k``, sigma moving with theta.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.inference.state import State


@dataclass(frozen=True)
class Drift:
    """How estimates move as one probe after the other is left out, to first order; n = 0 where nothing is sampled.

    Attributes
    ----------
    shifts : ndarray, shape (n, r)
        Of the free elements of theta, standardised coordinates.
    root : ndarray, shape (p, p)
        H with ``cov(beta) = H H'``.
    beta : ndarray, shape (p, r)
        Derivative of the fixed effects is ``H`` times this.
    slopes : ndarray, shape (r, p, p)
        D with derivatives ``H D H'`` of the covariance of the fixed effects, sigma moving with theta.
    """

    shifts: FloatArray
    root: FloatArray
    beta: FloatArray
    slopes: FloatArray

    def estimates(self, L: FloatArray) -> FloatArray:
        """Changes of ``L beta`` for L (q, p); shape (n, q)."""
        return self.shifts @ (L @ self.root @ self.beta).T

    def covariances(self, L: FloatArray) -> FloatArray:
        """Changes of ``L C L'``; shape (n, q, q)."""
        white = L @ self.root
        by_theta = np.einsum("qp,rpo,so->rqs", white, self.slopes, white, optimize=True)
        return np.tensordot(self.shifts, by_theta, axes=1)

    def variances(self, L: FloatArray) -> FloatArray:
        """The diagonals of `covariances`; shape (n, q)."""
        white = L @ self.root
        return self.shifts @ np.einsum("qp,rpo,qo->rq", white, self.slopes, white, optimize=True)


def theta_shifts(state: State) -> FloatArray:
    """Change of the free elements of theta as one probe is left out, standardised coordinates; shape (n, r).

    The gradient is a mean over probes and theta its root: without probe i it moves by ``H^-1 (g_i - g) / (n - 1)``.
    """
    at = state.minimum
    n = at.slopes.deviations.shape[0]
    inverse = 0.5 * at.precision.statistical[np.ix_(state.free, state.free)]
    return at.slopes.deviations[:, state.free] @ inverse / max(n - 1, 1)


def drift(state: State, slopes: FloatArray) -> Drift:
    """How the fixed effects of a fit and their covariance move with its probes.

    Parameters
    ----------
    state : State
    slopes : ndarray, shape (r, p, p)
        Derivatives of the covariance by the free elements of theta at a given sigma, between its roots.
    """
    at, p = state.minimum, state.fit.beta.size
    along = at.slopes.scores[state.free] / state.value.degrees
    whole = slopes - along[:, None, None] * np.eye(p)
    return Drift(theta_shifts(state), state.root, at.slopes.fixed_slopes[:, state.free], whole)
