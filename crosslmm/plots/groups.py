"""Pictures of groups: modes with intervals, fitted lines, shrinkage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from crosslmm.plots.axes import LINE, POINT, QUIET, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LEVELS = 40
"""Levels that a caterpillar shows by name; of more, the smallest and the largest."""

MOST_LINES = 150
"""Groups whose lines are drawn; of more, every k-th in the order of their level."""


def ends(modes: np.ndarray, most: int = MOST_LEVELS) -> np.ndarray:
    """Positions to show, in increasing order of the modes (L,): all, or the smallest and largest half of `most`."""
    order = np.argsort(modes, kind="stable")
    if order.size <= most:
        return order
    half = max(most // 2, 1)
    return np.concatenate([order[:half], order[-half:]])


def caterpillar(
    modes: np.ndarray,
    sds: np.ndarray,
    labels: Sequence[Any],
    *,
    n_levels: int,
    title: str,
    z: float = 1.96,
    ax: Axes | None = None,
) -> Axes:
    """Modes (m,) with intervals of z conditional standard deviations (m,), in increasing order.

    Parameters
    ----------
    labels : sequence, length m
    n_levels : int
        Levels in all; where it is larger than m, the shown ones are the m / 2 smallest and largest.
    """
    m = modes.size
    ax = new_axes(ax, (5.4, 1.3 + 0.19 * max(m, 8)))
    whole = m == n_levels
    gap = 0.0 if whole else 1.6
    place = np.arange(m) + np.where(np.arange(m) >= m // 2, gap, 0.0)
    clear = np.abs(modes) > z * sds
    ax.axvline(0.0, color=QUIET, lw=1.0, zorder=1)
    for some, colour in ((clear, POINT), (~clear, QUIET)):
        ax.hlines(place[some], (modes - z * sds)[some], (modes + z * sds)[some], color=colour, lw=1.3, zorder=2)
        ax.plot(modes[some], place[some], "o", color=colour, ms=4.5, mec="white", mew=0.5, zorder=3)
    ax.set_yticks(place, [str(label) for label in labels], fontsize=7.5 if m > 20 else 9)
    ax.set_ylim(-0.8, place[-1] + 0.8)
    if not whole:
        middle = 0.5 * (place[m // 2 - 1] + place[m // 2])
        ax.axhspan(middle - 0.25, middle + 0.25, color="#f1f3f5", zorder=0)
        ax.text(0.01, middle, f"{n_levels - m:,} between", va="center", fontsize=7, transform=ax.get_yaxis_transform())
        title += f"\n{m // 2} smallest and {m - m // 2} largest of {n_levels:,}"
    ax.set(xlabel="conditional mode (blue: 0 is outside the interval)", title=title)
    return ax


def fitted_lines(
    points: tuple[np.ndarray, np.ndarray],
    groups: Sequence[tuple[np.ndarray, np.ndarray]],
    population: tuple[np.ndarray, np.ndarray],
    *,
    n_groups: int,
    labels: tuple[str, str, str],
    ax: Axes | None = None,
) -> Axes:
    """Rows as points, one line per group and the population line.

    Parameters
    ----------
    points : pair of ndarray
        x and y of the rows.
    groups : sequence of pairs of ndarray
        x and y of the line of each group that is drawn.
    population : pair of ndarray
    n_groups : int
        Groups in all.
    labels : tuple of str
        Of x, of y, and of the groups.
    """
    ax = new_axes(ax, (6.2, 4.4))
    x, y = points
    few = x.size <= 2_000
    step = max(x.size // 6_000, 1)
    ax.plot(x[::step], y[::step], "o", color=QUIET, ms=3.5 if few else 1.5, mec="none", alpha=0.6 if few else 0.25)
    width, alpha = (1.2, 0.8) if len(groups) <= 30 else (0.7, 0.45)
    label = f"each {labels[2]}"
    if len(groups) < n_groups:
        label = f"{len(groups)} of {n_groups:,} levels of {labels[2]}"
    ax.plot([], [], color=POINT, lw=width, label=label)
    for at, line in groups:
        if at.size > 1:
            ax.plot(at, line, color=POINT, lw=width, alpha=alpha, zorder=2)
        else:
            ax.plot(at, line, "o", color=POINT, ms=3.0, mec="none", alpha=alpha, zorder=2)
    ax.plot(*population, color=LINE, lw=2.6, zorder=3, label="population")
    ax.legend(frameon=False, fontsize=8.5)
    ax.set(xlabel=labels[0], ylabel=labels[1], title=f"Fitted lines by {labels[2]}")
    return ax


def shrinkage(
    alone: np.ndarray, shrunk: np.ndarray, *, names: Sequence[str], factor: str, ax: Axes | None = None
) -> Axes:
    """Where the effects of levels go: from estimates by each level alone (L, k) to conditional modes (L, k).

    One column: modes against estimates alone, with the line of no shrinkage. Two: arrows in their plane.
    """
    ax = new_axes(ax, (5.2, 4.6))
    n = len(alone)
    if alone.shape[1] == 1:
        x, y = alone[:, 0], shrunk[:, 0]
        bounds = np.array([min(x.min(), y.min()), max(x.max(), y.max())])
        ax.plot(bounds, bounds, color=QUIET, lw=1.0, ls="--", zorder=1, label="no shrinkage")
        ax.axhline(0.0, color=LINE, lw=1.2, zorder=1, label="complete pooling")
        ax.plot(x, y, "o", color=POINT, ms=4.0 if n <= 400 else 2.2, mec="none", alpha=0.8 if n <= 400 else 0.35)
        ax.set(xlabel=f"{names[0]} by each {factor} alone", ylabel="conditional mode")
    else:
        start, move = alone[:, :2], shrunk[:, :2] - alone[:, :2]
        ax.plot(*start.T, "o", color=QUIET, ms=4.0 if n <= 60 else 1.8, mec="none", label=f"{factor} alone")
        ax.quiver(
            *start.T,
            *move.T,
            angles="xy",
            scale_units="xy",
            scale=1.0,
            color=POINT,
            alpha=0.8 if n <= 60 else 0.3,
            width=0.003 if n <= 60 else 0.0012,
            headwidth=4.0,
        )
        ax.plot(*shrunk[:, :2].T, "o", color=POINT, ms=4.0 if n <= 60 else 1.8, mec="none", label="conditional mode")
        ax.plot(0.0, 0.0, "P", color=LINE, ms=9, mec="white", label="population")
        ax.set(xlabel=names[0], ylabel=names[1])
    ax.legend(frameon=False, fontsize=8.5)
    ax.set_title(f"Shrinkage of {factor}")
    return ax
