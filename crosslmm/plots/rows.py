"""Pictures of residuals: against fitted values, their size, their quantiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from crosslmm.plots.axes import BAND, LINE, POINT, QUIET, cloud, new_axes
from crosslmm.plots.smooth import smooth

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_QUANTILES = 2_000
"""Points of a quantile plot; where there are more values, the middle is thinned and both ends are kept."""

WHOLE_ENDS = 300
"""Values at either end that are all drawn."""


def residuals_against_fitted(
    fitted: np.ndarray, resid: np.ndarray, *, ylabel: str = "scaled residual", ax: Axes | None = None
) -> Axes:
    """Residuals (n,) against fitted values (n,), with a smooth line that should stay near 0."""
    ax = new_axes(ax)
    ax.axhline(0.0, color=QUIET, lw=1.0, zorder=1)
    cloud(ax, fitted, resid)
    ax.plot(*smooth(fitted, resid), color=LINE, lw=1.8, zorder=3)
    ax.set(xlabel="fitted value", ylabel=ylabel, title="Residuals against fitted values")
    return ax


def scale_location(fitted: np.ndarray, scaled: np.ndarray, *, ax: Axes | None = None) -> Axes:
    """Root of the absolute scaled residuals (n,) against fitted values (n,): a level line says equal variances."""
    ax = new_axes(ax)
    size = np.sqrt(np.abs(scaled))
    cloud(ax, fitted, size)
    ax.plot(*smooth(fitted, size), color=LINE, lw=1.8, zorder=3)
    ax.set_ylim(bottom=0.0)
    ax.set(xlabel="fitted value", ylabel="root of |scaled residual|", title="Size of residuals")
    return ax


def quantiles(values: np.ndarray, *, title: str, ylabel: str, ax: Axes | None = None) -> Axes:
    """Normal quantile plot of values (n,) with the line through their quartiles and a pointwise 95% band."""
    ax = new_axes(ax, (4.8, 4.2))
    ordered = np.sort(values[np.isfinite(values)])
    n = ordered.size
    shown = _thinned(n)
    expected = special.ndtri((shown + 0.5) / n)
    quarters = np.quantile(ordered, [0.25, 0.75])
    slope = float(np.diff(quarters)[0] / (2.0 * special.ndtri(0.75)))
    centre = float(quarters.mean())
    low, high = (special.ndtri(special.betaincinv(shown + 1.0, n - shown, p)) for p in (0.025, 0.975))
    ax.fill_between(expected, centre + slope * low, centre + slope * high, color=BAND, lw=0, zorder=1)
    ax.plot(expected, centre + slope * expected, color=LINE, lw=1.5, zorder=2)
    ax.plot(expected, ordered[shown], "o", color=POINT, ms=3.5, mec="none", alpha=0.8, zorder=3)
    ax.set(xlabel="normal quantile", ylabel=ylabel, title=title)
    return ax


def _thinned(n: int) -> np.ndarray:
    """Ranks to draw: all, or both ends and of the middle what is evenly spaced along the axis."""
    if n <= MOST_QUANTILES:
        return np.arange(n)
    inner = special.ndtri((np.array([WHOLE_ENDS, n - WHOLE_ENDS]) + 0.5) / n)
    middle = special.ndtr(np.linspace(inner[0], inner[1], MOST_QUANTILES - 2 * WHOLE_ENDS)) * n
    ends = np.r_[:WHOLE_ENDS, n - WHOLE_ENDS : n]
    return np.unique(np.concatenate([ends, middle.astype(np.intp)]))
