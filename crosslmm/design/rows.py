"""The rows of a model: what formula and data become before they are summed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from formulaic import ModelSpec
from numpy.typing import NDArray

from crosslmm.blas import times
from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.design.given import Given
from crosslmm.layout import Layout

Progress = Callable[[str, int, int | None], None]
"""Called with the name of a phase, the rows done, and the rows in all (None where nobody knows)."""

STRETCH = 2**17
"""Rows of a table in memory that are worked on at once, so that work space does not grow with them."""


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

    def take(self, some: slice | NDArray) -> Rows:
        """Some of the rows: a slice, their positions, or whether to take each."""
        return Rows(
            y=self.y[some],
            X=self.X[some],
            codes=tuple(codes[some] for codes in self.codes),
            Z=tuple(Z[some] for Z in self.Z),
            weights=None if self.weights is None else self.weights[some],
            offset=None if self.offset is None else self.offset[some],
        )


@dataclass(frozen=True)
class Predicted:
    """Fitted values of some rows.

    Attributes
    ----------
    index : pandas.Index
        Labels of the rows.
    y, fitted : ndarray, shape (n,)
        Response, and ``offset + X beta + Z b``.
    weights : ndarray, shape (n,), or None
    """

    index: pd.Index
    y: FloatArray
    fitted: FloatArray
    weights: FloatArray | None


def predicted(index: pd.Index, rows: Rows, X: FloatArray, beta: FloatArray, modes: Sequence[FloatArray]) -> Predicted:
    """Fitted values of rows.

    Parameters
    ----------
    index : pandas.Index
    rows : Rows
    X : ndarray, shape (n, p)
        The fixed-effects columns that are kept.
    beta : ndarray, shape (p,)
    modes : sequence of ndarray, each (L, k)
        Conditional modes, one array per factor.
    """
    fitted = times(X, beta[:, None])[:, 0]
    if rows.offset is not None:
        fitted = fitted + rows.offset
    for codes, Z, b in zip(rows.codes, rows.Z, modes, strict=True):
        for j in range(Z.shape[1]):
            fitted = fitted + Z[:, j] * b[codes, j]
    return Predicted(index, rows.y, fitted, rows.weights)


class ModelRows(Protocol):
    """The rows of a model, wherever they are."""

    @property
    def layout(self) -> Layout:
        """What every column means."""
        ...

    @property
    def n(self) -> int:
        """Rows used."""
        ...

    @property
    def n_dropped(self) -> int:
        """Rows left out because of a missing value."""
        ...

    @property
    def streamed(self) -> bool:
        """Whether predictions read the rows again, or cannot."""
        ...

    def reads(self, path: Path) -> bool:
        """Whether a file is one of those that the rows come from."""
        ...

    def crossproducts(self) -> CrossProducts:
        """All that estimation needs of the rows."""
        ...

    def predictions(
        self, beta: FloatArray, modes: Sequence[FloatArray], progress: Progress | None = None
    ) -> Iterator[Predicted]:
        """Fitted values, in batches.

        Raises
        ------
        ModelError
            There are no rows.
        """
        ...

    def batches(self, progress: Progress | None = None) -> Iterator[tuple[pd.Index, Rows]]:
        """Labels and rows, in batches; X has the columns that are kept.

        Raises
        ------
        ModelError
            There are no rows.
        """
        ...


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
    given : Given or None
        What the design was built from.
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
    given: Given | None = None

    @property
    def streamed(self) -> bool:
        """No: the rows are at hand."""
        return False

    def reads(self, path: Path) -> bool:
        """Whether a file is one of those that the rows come from."""
        return False

    def crossproducts(self) -> CrossProducts:
        """All that estimation needs of the rows."""
        from crosslmm.design.accumulate import accumulate

        return replace(accumulate(self), n_dropped=self.n_dropped)

    def predictions(
        self, beta: FloatArray, modes: Sequence[FloatArray], progress: Progress | None = None
    ) -> Iterator[Predicted]:
        """Fitted values of all rows, at once."""
        yield predicted(self.row_labels, self.rows(), self.X, beta, modes)

    def batches(self, progress: Progress | None = None) -> Iterator[tuple[pd.Index, Rows]]:
        """The rows, in stretches."""
        for low in range(0, self.n, STRETCH):
            some = slice(low, low + STRETCH)
            yield self.row_labels[some], self.rows(some)

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
        return Rows(self.y, self.X, self.codes, self.Z, self.weights, self.offset).take(some)
