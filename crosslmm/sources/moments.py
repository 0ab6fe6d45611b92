"""Ranges, means and sums of squares of columns, which add up over batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosslmm.covariance import FloatArray


@dataclass(frozen=True)
class Moments:
    """Of k columns over n rows; arrays (k,).

    Attributes
    ----------
    n : int
    low, high : ndarray
    mean : ndarray
    squares : ndarray
        Sums of squared deviations from the mean.
    """

    n: int
    low: FloatArray
    high: FloatArray
    mean: FloatArray
    squares: FloatArray

    def __add__(self, other: Moments) -> Moments:
        """Of both sets of rows (Chan, Golub, LeVeque 1983, Am. Stat. 37(3))."""
        n = self.n + other.n
        delta = other.mean - self.mean
        return Moments(
            n=n,
            low=np.minimum(self.low, other.low),
            high=np.maximum(self.high, other.high),
            mean=self.mean + delta * (other.n / n),
            squares=self.squares + other.squares + delta**2 * (self.n * other.n / n),
        )

    @property
    def mean_squares(self) -> FloatArray:
        """Of the columns, not of their deviations."""
        return self.mean**2 + self.squares / self.n

    @property
    def sizes(self) -> FloatArray:
        """Largest absolute values."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    @property
    def ones(self) -> bool:
        """Whether the first column is 1 in every row."""
        return bool(self.low.size and self.low[0] == 1.0 and self.high[0] == 1.0)


def moments(columns: FloatArray) -> Moments:
    """Of columns (n, k), n at least 1."""
    n, k = columns.shape
    if k == 0:
        empty = np.empty(0)
        return Moments(n, empty, empty, empty, empty)
    parts = [_column(np.ascontiguousarray(columns[:, j])) for j in range(k)]
    return Moments(n, *(np.array(values) for values in zip(*parts, strict=True)))


def _column(values: FloatArray) -> tuple[float, float, float, float]:
    low, high = float(values.min()), float(values.max())
    if low == high:
        return low, high, low, 0.0
    mean = float(values.mean())
    deviations = values - mean
    return low, high, mean, float(np.einsum("i,i->", deviations, deviations))
