"""p-values and intervals of several contrasts at once."""

from __future__ import annotations

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.errors import ModelError
from crosslmm.inference.dunnett import dunnett_p, dunnett_quantile
from crosslmm.inference.hypothesis import t_quantile, t_tail

ADJUSTMENTS = ("tukey", "dunnett", "holm", "bonferroni", "none")

NODES = 14
"""Quantiles of the studentized range that are computed; they are slow, and smooth in the inverse of the degrees of
freedom, so more of them are interpolated by a polynomial (to 1e-8)."""


MOST_INTERPOLATED = 1e3
"""Largest ratio of degrees of freedom over which quantiles are interpolated."""

LARGE = 1e5
"""Degrees of freedom from which the studentized range is that of infinitely many (scipy)."""


def check_adjustment(adjust: object) -> str:
    """The name of an adjustment.

    Raises
    ------
    ModelError
        It is none.
    """
    if not isinstance(adjust, str) or adjust not in ADJUSTMENTS:
        raise ModelError(f"adjust={adjust!r}: expected one of {', '.join(map(repr, ADJUSTMENTS))}")
    return adjust


def adjusted_p(t: FloatArray, df: FloatArray, adjust: str, n_means: int, correlation: FloatArray) -> FloatArray:
    """p-values of one family of contrasts; nan where there is no statistic.

    Parameters
    ----------
    t, df : ndarray, shape (m,)
    adjust : {"tukey", "dunnett", "holm", "bonferroni", "none"}
    n_means : int
        Means that are compared, for the studentized range.
    correlation : ndarray, shape (m, m)
        Of the estimates, for Dunnett's adjustment.
    """
    p = t_tail(t, df)
    known = np.isfinite(p)
    m = int(known.sum())
    if adjust == "bonferroni":
        return np.minimum(m * p, 1.0)
    if adjust == "holm":
        order = np.argsort(p[known], kind="stable")
        steps = np.maximum.accumulate((m - np.arange(m)) * p[known][order])
        result = p.copy()
        result[np.flatnonzero(known)[order]] = np.minimum(steps, 1.0)
        return result
    if adjust == "dunnett" and m > 1:
        result = p.copy()
        result[known] = dunnett_p(t[known], df[known], correlation[np.ix_(known, known)], p[known])
        return result
    if adjust == "tukey" and n_means > 2:
        from scipy.stats import studentized_range

        result = p.copy()
        joint = studentized_range.sf(np.sqrt(2.0) * np.abs(t[known]), n_means, df[known])
        # scipy's tail is one minus a probability; between these bounds it must lie, and far out they all but meet
        pairs = 0.5 * n_means * (n_means - 1.0)
        result[known] = np.clip(joint, p[known], np.minimum(pairs * p[known], 1.0))
        return result
    return p


def adjusted_half_width(level: float, df: FloatArray, adjust: str, n_means: int, correlation: FloatArray) -> FloatArray:
    """Half widths, in standard errors, of simultaneous intervals; Bonferroni's for ``"holm"``, which has none."""
    known = np.isfinite(df) | np.isposinf(df)
    m = int(known.sum())
    single, widest = t_quantile(level, df), t_quantile(1.0 - (1.0 - level) / max(m, 1), df)
    if adjust in ("bonferroni", "holm"):
        return widest
    if adjust == "dunnett" and m > 1:
        half = np.full(df.size, np.nan)
        own = correlation[np.ix_(known, known)]
        half[known] = dunnett_quantile(level, df[known], own, single[known], widest[known])
        return half
    if adjust == "tukey" and n_means > 2:
        half = np.full(df.size, np.nan)
        half[known] = range_quantile(level, n_means, df[known]) / np.sqrt(2.0)
        return half
    return single


def range_quantile(level: float, n_means: int, df: FloatArray) -> FloatArray:
    """Quantiles of the studentized range of n means at degrees of freedom (m,)."""
    from scipy.stats import studentized_range

    inverse, back = np.unique(1.0 / df, return_inverse=True)
    if inverse.size <= NODES or inverse[-1] > MOST_INTERPOLATED * max(inverse[0], 1.0 / LARGE):
        return np.asarray(studentized_range.ppf(level, n_means, 1.0 / np.maximum(inverse, 1.0 / LARGE))[back])
    curve = np.polynomial.Chebyshev.interpolate(
        lambda v: np.log(studentized_range.ppf(level, n_means, 1.0 / v)),
        NODES - 1,
        domain=[max(inverse[0], 1.0 / LARGE), inverse[-1]],
    )
    return np.asarray(np.exp(curve(np.maximum(inverse, 1.0 / LARGE)))[back])
