"""The studentized range: the largest difference of several means, in units of an independent standard deviation.

With T the tail of the range of k standard normal variables, and s a chi variable over the root of its df degrees of
freedom,

    P(range / s > q) = E T(q s),    T(w) = k int phi(z) [Phi(z)^(k - 1) - (Phi(z) - Phi(z - w))^(k - 1)] dz.

Both integrands are smooth and vanish at both ends, the one over s once it is written in log s, so that the trapezoidal
rule has no error to speak of (Trefethen and Weideman 2014). T is computed at some points only and interpolated.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.polynomial import Chebyshev
from scipy import special

from crosslmm.covariance import FloatArray

WIDEST = 13.0
"""Range from which two means decide: the sum of the tails of all pairs is its tail to rounding."""

DEGREE = 160
"""Of the polynomial that interpolates log T up to there."""

Z = np.arange(-9.0, WIDEST + 4.0, 0.1)
"""Points of the integral over z."""

NODES = 400
"""Points of the integral over log s."""

NEGLIGIBLE = 50.0
"""Density of log s, as minus its logarithm relative to the peak, that is left out."""

LARGE = 1e10
"""Degrees of freedom that are as good as infinitely many."""

QUANTILE_ERROR = 1e-10
"""To which a quantile is found."""


class StudentizedRange:
    """Of k means."""

    def __init__(self, n_means: int):
        self.n_means = n_means

    def tail(self, q: FloatArray, df: FloatArray) -> FloatArray:
        """Probability that the studentized range exceeds q (m,), each with its own degrees of freedom; shape (m,)."""
        result = self._tail_of_range(q)
        finite = df < LARGE
        if finite.any():
            reach = np.sqrt(NEGLIGIBLE / df[finite])
            x = np.linspace(-reach - np.square(reach), reach, NODES, axis=1)
            weight = np.exp(df[finite, None] * (x - 0.5 * np.expm1(2.0 * x)))
            at = self._tail_of_range(q[finite, None] * np.exp(x))
            result[finite] = np.einsum("mn,mn->m", weight, at) / weight.sum(axis=1)
        return result

    def quantile(self, level: float, df: float) -> float:
        """Number that the studentized range exceeds with probability ``1 - level``."""
        from scipy.optimize import brentq

        def excess(log_q: float) -> float:
            return float(np.log(self.tail(np.exp([log_q]), np.array([df]))[0]) - np.log(1.0 - level))

        low, high = -1.0, 1.0
        while excess(low) < 0.0:
            low -= 2.0
        while excess(high) > 0.0:
            high += 2.0
        return float(np.exp(brentq(excess, low, high, xtol=QUANTILE_ERROR)))

    def _tail_of_range(self, w: FloatArray) -> FloatArray:
        """T, any shape."""
        far = self.n_means * (self.n_means - 1.0) * special.ndtr(-w / np.sqrt(2.0))
        return np.asarray(np.where(w < WIDEST, np.exp(self._log_tail(np.minimum(w, WIDEST))), far))

    @cached_property
    def _log_tail(self) -> Chebyshev:
        return Chebyshev.interpolate(self._computed, DEGREE, domain=[0.0, WIDEST])

    def _computed(self, w: FloatArray) -> FloatArray:
        """log T by its integral, for w (n,); shape (n,)."""
        k, below = self.n_means, special.ndtr(Z)
        outside = special.ndtr(Z - w[:, None]) / below
        with np.errstate(divide="ignore"):
            parts = -np.expm1((k - 1) * np.log1p(-np.minimum(outside, 1.0)))
        density = np.exp(-0.5 * np.square(Z)) / np.sqrt(2.0 * np.pi)
        return np.asarray(np.log(k * (Z[1] - Z[0]) * (parts * density * below ** (k - 1)).sum(axis=1)))
