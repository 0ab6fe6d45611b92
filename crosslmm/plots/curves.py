"""Pictures of curves: profiles, densities, the search for the minimum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from crosslmm.plots.axes import BAND, LINE, POINT, QUIET, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FLOOR = 1e-10
"""Deviance units: an excess below this is drawn here."""

LEVELS = {0.50: 0.674490, 0.80: 1.281552, 0.90: 1.644854, 0.95: 1.959964, 0.99: 2.575829}
"""Levels of intervals and the zeta at their bounds."""

GRID = 200


def profile_zeta(values: np.ndarray, zeta: np.ndarray, *, name: str, ax: Axes | None = None) -> Axes:
    """Signed root of the deviance, zeta (m,), against a parameter's values (m,), with intervals as steps.

    A straight line says that Wald intervals serve; bends say how they are wrong.
    """
    ax = new_axes(ax, (4.4, 3.4))
    order = np.argsort(values)
    values, zeta = values[order], zeta[order]
    ax.axhline(0.0, color=QUIET, lw=0.8, zorder=1)
    for level, bound in LEVELS.items():
        low, high = np.interp([-bound, bound], zeta, values, left=np.nan, right=np.nan)
        for at, side in ((low, -bound), (high, bound)):
            if np.isfinite(at):
                ax.plot([at, at], [0.0, side], color=LINE, lw=1.4 if level == 0.95 else 0.7, zorder=2)
    ax.plot(*_curve(values, zeta), color=POINT, lw=1.6, zorder=3)
    ax.set(xlabel=name, ylabel="zeta")
    return ax


def profile_density(values: np.ndarray, zeta: np.ndarray, *, name: str, ax: Axes | None = None) -> Axes:
    """Density that a profile implies, ``phi(zeta) dzeta / dvalue``: a normal curve where zeta is straight."""
    ax = new_axes(ax, (4.4, 3.4))
    order = np.argsort(values)
    at, curve = _curve(values[order], zeta[order])
    density = np.exp(-0.5 * np.square(curve)) / np.sqrt(2.0 * np.pi) * np.gradient(curve, at)
    inside = np.interp([-LEVELS[0.95], LEVELS[0.95]], curve, at)
    _filled(ax, at, density, (float(inside[0]), float(inside[1])))
    ax.set(xlabel=name, ylabel="density")
    return ax


def _curve(values: np.ndarray, zeta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points of a smooth curve through a profile that rises as the profile does."""
    from scipy.interpolate import CubicSpline, PchipInterpolator

    values, first = np.unique(values, return_index=True)
    if values.size < 3:
        return values, zeta[first]
    at = np.linspace(values[0], values[-1], GRID)
    smooth = CubicSpline(values, zeta[first])(at)
    return at, smooth if (np.diff(smooth) > 0.0).all() else PchipInterpolator(values, zeta[first])(at)


def sample_density(sample: np.ndarray, *, name: str, estimate: float | None = None, ax: Axes | None = None) -> Axes:
    """Density of a bootstrap sample (r,) with its middle 95% and the estimate; values that are nan are left out."""
    ax = new_axes(ax, (4.4, 3.4))
    sample = np.sort(sample[np.isfinite(sample)])
    low, high = np.quantile(sample, [0.025, 0.975])
    spread = min(float(sample.std()), float(np.subtract(*np.quantile(sample, [0.75, 0.25]))) / 1.349)
    width = 0.9 * (spread or float(sample.std())) * sample.size**-0.2
    if width > 0.0:
        at = np.linspace(sample[0] - width, sample[-1] + width, GRID)
        density = np.array([np.exp(-0.5 * np.square((sample - x) / width)).mean() for x in at])
        density /= width * np.sqrt(2.0 * np.pi)
        _filled(ax, at, density, (float(low), float(high)))
    else:
        ax.axvline(sample[0], color=POINT, lw=1.6)
    ax.plot(sample, np.zeros(sample.size), "|", color=QUIET, ms=6, alpha=0.4, zorder=1)
    if estimate is not None:
        ax.axvline(estimate, color=LINE, lw=1.5, zorder=4)
    ax.set(xlabel=name, ylabel="density")
    return ax


def _filled(ax: Axes, at: np.ndarray, density: np.ndarray, inner: tuple[float, float] | None = None) -> None:
    if inner is not None:
        inside = (at >= inner[0]) & (at <= inner[1])
        ax.fill_between(at[inside], density[inside], color=BAND, lw=0, zorder=1)
    ax.plot(at, density, color=POINT, lw=1.6, zorder=3)
    ax.set_ylim(bottom=0.0)


def convergence_trace(criterion: np.ndarray, accepted: np.ndarray, steps: list[str], *, ax: Axes | None = None) -> Axes:
    """How far above its minimum the criterion (m,) was at every evaluation, on a logarithmic axis.

    Parameters
    ----------
    accepted : ndarray of bool, shape (m,)
    steps : list of str
        What was tried.
    """
    ax = new_axes(ax)
    number = np.arange(1, criterion.size + 1)
    best = np.nanmin(criterion[accepted] if accepted.any() else criterion)
    excess = np.clip(criterion - best, FLOOR, None)
    ax.plot(number[accepted], excess[accepted], color=QUIET, lw=1.0, zorder=1)
    ax.plot(number[accepted], excess[accepted], "o", color=POINT, ms=5.5, zorder=3, label="accepted")
    if not accepted.all():
        ax.plot(number[~accepted], excess[~accepted], "x", color=LINE, ms=6, zorder=3, label="rejected")
        ax.legend(frameon=False, fontsize=8.5)
    ax.set_yscale("log")
    if criterion.size <= 25:
        for x, y, step in zip(number, excess, steps, strict=True):
            ax.annotate(step, (x, y), xytext=(5, 5), textcoords="offset points", fontsize=7.5, color=QUIET)
    ax.margins(x=0.12)
    ax.locator_params(axis="x", integer=True)
    ax.set(xlabel="evaluation", ylabel="criterion above its minimum", title="Search for the minimum")
    return ax
