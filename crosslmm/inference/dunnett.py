"""Several contrasts against one control (Dunnett 1955): the largest of correlated t statistics.

With k the rank of the correlation matrix and A a root of it, the statistics are ``sqrt(k F) A u``: u is uniform on the
unit sphere of k dimensions and F independent of it, with k and df degrees of freedom. So

    P(max |t| > h) = E_u P(F > h^2 / (k max |A u|^2)),

where the tail of F is known exactly and u runs over points that fill the sphere evenly (Genz and Bretz 2009).
"""

from __future__ import annotations

import numpy as np
from scipy import special

from crosslmm.covariance import FloatArray

LOG2_POINTS = 14
"""Points on the sphere, as a power of 2. Probabilities near 0.05 have errors of 1e-5 for 5 contrasts, 1e-4 for 9."""

SEED = 1
"""Of the scrambling of the points: the same contrasts have the same p-values in every call."""

NEGLIGIBLE = 1e-10
"""Eigenvalues of a correlation matrix, relative to the largest, that count as 0."""

QUANTILE_ERROR = 1e-8
"""To which a quantile is found, given the points."""


def spread(correlation: FloatArray) -> tuple[FloatArray, int]:
    """``max |A u|^2`` at each point (N,), and the rank k.

    Parameters
    ----------
    correlation : ndarray, shape (m, m)
        Of the estimates of the contrasts.
    """
    from scipy.stats import qmc

    values, vectors = np.linalg.eigh(correlation)
    kept = values > NEGLIGIBLE * values[-1]
    root = vectors[:, kept] * np.sqrt(values[kept])
    rank = int(kept.sum())
    normal = special.ndtri(qmc.Sobol(rank, seed=np.random.default_rng(SEED)).random_base2(LOG2_POINTS))
    u = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    return np.asarray(np.square(u @ root.T).max(axis=1)), rank


def tail(h: float, df: float, largest: FloatArray, rank: int) -> float:
    """``P(max |t| > h)`` from what `spread` gives."""
    with np.errstate(divide="ignore"):
        squares = h**2 / largest
    if np.isposinf(df):
        return float(special.chdtrc(rank, squares).mean())
    return float(special.fdtrc(rank, df, squares / rank).mean())


def dunnett_p(t: FloatArray, df: FloatArray, correlation: FloatArray, single: FloatArray) -> FloatArray:
    """Adjusted p-values; each with its own degrees of freedom.

    Parameters
    ----------
    t, df : ndarray, shape (m,)
    correlation : ndarray, shape (m, m)
    single : ndarray, shape (m,)
        p-values of the contrasts by themselves. An adjusted one lies between these and Bonferroni's.
    """
    largest, rank = spread(correlation)
    joint = [tail(abs(value), degrees, largest, rank) for value, degrees in zip(t, df, strict=True)]
    return np.clip(joint, single, np.minimum(t.size * single, 1.0))


def dunnett_quantile(
    level: float, df: FloatArray, correlation: FloatArray, low: FloatArray, high: FloatArray
) -> FloatArray:
    """Quantiles of ``max |t|``; shape (m,).

    Parameters
    ----------
    level : float
    df : ndarray, shape (m,)
    correlation : ndarray, shape (m, m)
    low, high : ndarray, shape (m,)
        Quantiles of a single contrast and Bonferroni's, between which they lie.
    """
    largest, rank = spread(correlation)
    found: dict[float, float] = {}
    for degrees, below, above in zip(df, low, high, strict=True):
        if degrees not in found:
            found[degrees] = _quantile(1.0 - level, degrees, below, above, largest, rank)
    return np.array([found[degrees] for degrees in df])


def _quantile(goal: float, df: float, low: float, high: float, largest: FloatArray, rank: int) -> float:
    from scipy.optimize import brentq

    if tail(low, df, largest, rank) <= goal:
        return low
    if tail(high, df, largest, rank) >= goal:
        return high
    return float(brentq(lambda h: tail(h, df, largest, rank) - goal, low, high, xtol=QUANTILE_ERROR))
