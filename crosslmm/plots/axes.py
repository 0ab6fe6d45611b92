"""Axes to draw on, and the few colours that all pictures share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from crosslmm.errors import ModelError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINT = "#33658a"
LINE = "#d1495b"
QUIET = "#8a8f98"
BAND = "#dfe5ec"

MANY_POINTS = 4_000
"""More points than this hide one another: their density is drawn instead."""

SIZE = (6.0, 4.2)
"""Inches."""


def new_axes(ax: Axes | None, size: tuple[float, float] = SIZE) -> Axes:
    """The axes given, or new ones in a figure of their own; without the frame that nobody needs.

    Raises
    ------
    ModelError
        matplotlib is not installed, or `ax` is no axes.
    """
    if ax is None:
        ax = pyplot().subplots(figsize=size, layout="constrained")[1]
    if not callable(getattr(ax, "plot", None)):
        raise ModelError(f"ax={ax!r}: expected matplotlib axes")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def new_panels(n: int, size: tuple[float, float] = SIZE, columns: int = 3) -> np.ndarray:
    """A row, or several, of n axes; shape (n,)."""
    columns = min(n, columns)
    rows = -(-n // columns)
    width, height = size
    figure, grid = pyplot().subplots(
        rows, columns, figsize=(0.72 * width * columns, 0.85 * height * rows), layout="constrained", squeeze=False
    )
    for unused in grid.ravel()[n:]:
        figure.delaxes(unused)
    return np.asarray(grid.ravel()[:n])


def pyplot() -> Any:
    """matplotlib.pyplot.

    Raises
    ------
    ModelError
        It is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ModelError("pictures need matplotlib: pip install 'crosslmm[plot]'") from error
    return plt


def cloud(ax: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Points, or where there are many, how densely they lie (logarithmic)."""
    if x.size <= MANY_POINTS:
        few = x.size <= 400
        ax.plot(x, y, "o", color=POINT, ms=4.0 if few else 2.5, mec="none", alpha=0.8 if few else 0.4, zorder=2)
        return
    picture = ax.hexbin(x, y, gridsize=60, bins="log", mincnt=1, cmap="Blues", linewidths=0.1, zorder=2)
    ax.figure.colorbar(picture, ax=ax, label="rows", shrink=0.8, pad=0.02)
