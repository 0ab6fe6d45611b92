"""The rows of a model: what formula and data become before they are summed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from formulaic import ModelSpec
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.layout import Layout


@dataclass(frozen=True)
class Rows:
    """Some rows of a model in the units of the data.

    Attributes
    ----------
    y : ndarray, shape (n,)
    X : ndarray, shape (n, p)
    codes : tuple of ndarray of int32, each (n,)
        Level of every row, one array per factor.
    Z : tuple of ndarray, each (n, k)
        Random-effects columns, one array per factor.
    weights, offset : ndarray, shape (n,), or None
    """

    y: FloatArray
    X: FloatArray
    codes: tuple[NDArray[np.int32], ...]
    Z: tuple[FloatArray, ...]
    weights: FloatArray | None
    offset: FloatArray | None

    @property
    def target(self) -> FloatArray:
        """Response without its known part; shape (n,)."""
        return self.y if self.offset is None else self.y - self.offset


@dataclass(frozen=True)
class Design:
    """Rows of a model in the units of the data.

    Attributes
    ----------
    n, n_dropped : int
        Rows used, and rows left out because of a missing value.
    response : str
    y : ndarray, shape (n,)
    X : ndarray, shape (n, p)
        Fixed-effects columns that are kept.
    codes : tuple of ndarray of int32, each (n,)
        Level of every row, one array per factor of the layout.
    Z : tuple of ndarray, each (n, k)
        Random-effects columns, one array per factor of the layout.
    weights, offset : ndarray, shape (n,), or None
    layout : Layout
    row_labels : pandas.Index
        Index of the rows used.
    fixed_spec : formulaic.ModelSpec
        Makes the fixed-effects columns (kept and dropped) from new data.
    fixed_kept : ndarray of intp, shape (p,)
        Positions of the kept columns among those that `fixed_spec` makes.
    random_specs : tuple of formulaic.ModelSpec
        The same for the columns of each term of ``layout.terms``.
    groupings : tuple of tuple of str
        Data columns whose combinations are the levels of each factor of the layout.
    """

    n: int
    n_dropped: int
    response: str
    y: FloatArray
    X: FloatArray
    codes: tuple[NDArray[np.int32], ...]
    Z: tuple[FloatArray, ...]
    weights: FloatArray | None
    offset: FloatArray | None
    layout: Layout
    row_labels: pd.Index
    fixed_spec: ModelSpec
    fixed_kept: NDArray[np.intp]
    random_specs: tuple[ModelSpec, ...]
    groupings: tuple[tuple[str, ...], ...]

    @property
    def fixed_names(self) -> tuple[str, ...]:
        """Columns kept."""
        return self.layout.fixed

    @property
    def dropped_names(self) -> tuple[str, ...]:
        """Columns left out as combinations of earlier ones, and factors of one level."""
        return self.layout.dropped

    def rows(self, some: slice = slice(None)) -> Rows:
        """A stretch of the rows."""
        return Rows(
            y=self.y[some],
            X=self.X[some],
            codes=tuple(codes[some] for codes in self.codes),
            Z=tuple(Z[some] for Z in self.Z),
            weights=None if self.weights is None else self.weights[some],
            offset=None if self.offset is None else self.offset[some],
        )
