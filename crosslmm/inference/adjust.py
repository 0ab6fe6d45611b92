"""p-values and intervals of several contrasts at once."""

from __future__ import annotations

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.errors import ModelError
from crosslmm.inference.hypothesis import t_quantile, t_tail

ADJUSTMENTS = ("tukey", "holm", "bonferroni", "none")

SIGNIFICANT = 6
"""Decimals of degrees of freedom that count for a quantile of the studentized range, which is slow to compute."""


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


def adjusted_p(t: FloatArray, df: FloatArray, adjust: str, n_means: int) -> FloatArray:
    """p-values of one family of contrasts; nan where there is no statistic.

    Parameters
    ----------
    t, df : ndarray, shape (m,)
    adjust : {"tukey", "holm", "bonferroni", "none"}
    n_means : int
        Means that are compared, for the studentized range.
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
    if adjust == "tukey" and n_means > 2:
        from scipy.stats import studentized_range

        result = p.copy()
        result[known] = studentized_range.sf(np.sqrt(2.0) * np.abs(t[known]), n_means, df[known])
        return result
    return p


def adjusted_half_width(level: float, df: FloatArray, adjust: str, n_means: int) -> FloatArray:
    """Half widths, in standard errors, of simultaneous intervals; Bonferroni's for ``"holm"``, which has none."""
    known = np.isfinite(df) | np.isposinf(df)
    if adjust in ("bonferroni", "holm"):
        return t_quantile(1.0 - (1.0 - level) / max(int(known.sum()), 1), df)
    if adjust == "tukey" and n_means > 2:
        from scipy.stats import studentized_range

        rounded = np.round(df, SIGNIFICANT)
        quantile = {v: float(studentized_range.ppf(level, n_means, v)) for v in np.unique(rounded[known])}
        return np.array([quantile.get(v, np.nan) for v in rounded]) / np.sqrt(2.0)
    return t_quantile(level, df)
