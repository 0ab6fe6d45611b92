"""Intervals from replicates, with the errors of their bounds that the number of replicates leaves.

Davison and Hinkley 1997, chapter 5.
"""

from __future__ import annotations

from numbers import Real

import numpy as np
from scipy import special

from crosslmm.covariance import FloatArray
from crosslmm.errors import ModelError

KINDS = ("percentile", "basic", "normal", "shortest")

REFLECTED = ("basic", "normal")
"""Kinds in which the replicates' error is subtracted from the estimate."""


def check_alpha(alpha: object) -> float:
    """One minus the level of an interval, or the size of a test.

    Raises
    ------
    ModelError
        It is no number between 0 and 1.
    """
    if isinstance(alpha, bool) or not isinstance(alpha, Real) or not 0.0 < float(alpha) < 1.0:
        raise ModelError(f"alpha must lie between 0 and 1, not {alpha!r}; 0.05 gives 95% intervals")
    return float(alpha)


def interval(values: FloatArray, target: float, alpha: float, kind: str) -> tuple[float, float, float, float]:
    """Lower and upper bound with their Monte Carlo standard errors."""
    n = values.size
    if n < 2:
        return np.nan, np.nan, np.nan, np.nan
    ordered = np.sort(values)
    if kind == "normal":
        spread = ordered.std(ddof=1)
        z = -special.ndtri(0.5 * alpha)
        center = 2.0 * target - ordered.mean()
        error = spread * np.sqrt((1.0 + 0.5 * z**2) / n)
        return center - z * spread, center + z * spread, error, error
    low, high = 0.5 * alpha, 1.0 - 0.5 * alpha
    if kind == "shortest":
        held = min(int(np.ceil((1.0 - alpha) * n)), n)
        first = int(np.argmin(ordered[held - 1 :] - ordered[: n - held + 1]))
        low, high = (first + 0.5) / n, (first + held - 0.5) / n
        bounds = ordered[first], ordered[first + held - 1]
    else:
        bounds = np.quantile(ordered, low), np.quantile(ordered, high)
    errors = _quantile_error(ordered, low), _quantile_error(ordered, high)
    if kind == "basic":
        return 2.0 * target - bounds[1], 2.0 * target - bounds[0], errors[1], errors[0]
    return float(bounds[0]), float(bounds[1]), *errors


def _quantile_error(ordered: FloatArray, part: float) -> float:
    """Standard error of a quantile (Maritz and Jarrett 1978): the order statistic's own distribution is a beta one."""
    n = ordered.size
    rank = part * (n - 1) + 1.0
    weights = np.diff(special.betainc(rank, n + 1.0 - rank, np.arange(n + 1) / n))
    mean = float(weights @ ordered)
    return float(np.sqrt(max(weights @ (ordered - mean) ** 2, 0.0)))
