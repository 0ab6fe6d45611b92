"""A smooth line through points: local straight lines with tricube weights (Cleveland 1979), on a grid."""

from __future__ import annotations

import numpy as np

GRID = 60
SPAN = 0.6
"""Share of the points that a local line sees."""

MOST_POINTS = 20_000
"""Of more points every k-th in the order of x is used: the line would look the same."""


def smooth(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Grid of x and the smooth values there; empty where x takes fewer than four values."""
    order = np.argsort(x, kind="stable")[:: max(x.size // MOST_POINTS, 1)]
    x, y = x[order], y[order]
    values = np.unique(x)
    if values.size < 4:
        return np.zeros(0), np.zeros(0)
    low, high = np.quantile(x, [0.005, 0.995])
    grid = np.linspace(low, high, GRID) if high > low else values[[0, -1]]
    n_near = max(int(SPAN * x.size), 4)
    fitted = np.array([_local(x, y, at, n_near) for at in grid])
    return grid, fitted


def _local(x: np.ndarray, y: np.ndarray, at: float, n_near: int) -> float:
    distance = np.abs(x - at)
    reach = np.partition(distance, min(n_near, x.size) - 1)[min(n_near, x.size) - 1]
    weight = np.clip(1.0 - (distance / (1.0001 * reach if reach > 0.0 else 1.0)) ** 3, 0.0, None) ** 3
    total = weight.sum()
    centre, mean = weight @ x / total, weight @ y / total
    spread = weight @ np.square(x - centre)
    slope = weight @ ((x - centre) * (y - mean)) / spread if spread > 0.0 else 0.0
    return float(mean + slope * (at - centre))
