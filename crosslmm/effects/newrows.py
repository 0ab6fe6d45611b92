"""Rows of a table as columns and codes of a fitted model; rows that miss a value are known, and stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.design.complete import row_values
from crosslmm.design.frame import column_names, missing_rows, read_columns
from crosslmm.effects.encoding import Encoding, shown
from crosslmm.effects.selection import Chosen
from crosslmm.errors import DataError
from crosslmm.layout import Layout


@dataclass(frozen=True)
class NewRows:
    """Complete rows of a table in the units of the data.

    Attributes
    ----------
    index : pandas.Index
        Labels of all rows, n.
    complete : ndarray of bool, shape (n,)
        Which of them miss no value; there are m.
    X : ndarray, shape (m, p)
    Z : tuple of ndarray, each (m, k)
        Columns of each factor; 0 for the terms that are left out.
    Z_out : tuple of ndarray, each (m, k)
        Columns of the terms that are left out, where these were asked for; else 0.
    codes : tuple of ndarray, each (m,)
        Levels; from the number of known levels upwards for new ones. Of no use for a factor that is left out.
    new : tuple of ndarray of object
        Labels of the new levels of each factor.
    offset, weights : ndarray, shape (m,), or None
    """

    index: pd.Index
    complete: NDArray[np.bool_]
    X: FloatArray
    Z: tuple[FloatArray, ...]
    Z_out: tuple[FloatArray, ...]
    codes: tuple[NDArray[Any], ...]
    new: tuple[NDArray[Any], ...]
    offset: FloatArray | None
    weights: FloatArray | None

    def spread(self, values: FloatArray) -> FloatArray:
        """Values of the complete rows among all rows, nan elsewhere."""
        if self.complete.all():
            return values
        result = np.full(self.complete.size, np.nan)
        result[self.complete] = values
        return result


@dataclass(frozen=True)
class Beside:
    """What may be given beside the columns of a table: a column's name, one number per row, or None."""

    offset: Any = None
    weights: Any = None


def new_rows(layout: Layout, encoding: Encoding, chosen: Chosen, data: Any, beside: Beside, *, whole: bool) -> NewRows:
    """Read the rows of a table.

    Parameters
    ----------
    layout : Layout
    encoding : Encoding
    chosen : Chosen
        Terms of the random effects that are wanted; grouping columns of others need not be there.
    data : table
    beside : Beside
        Offset and weights; by default the columns that the model was made with.
    whole : bool
        Whether weights and the columns of the terms that are left out are wanted too.

    Raises
    ------
    DataError
        A column is missing, has another type than in the fit, or holds a category that is not known.
    """
    terms = tuple(range(len(layout.terms))) if whole else chosen.terms
    part = encoding.part(terms)
    present, index = _columns_and_index(data)
    reads = encoding.columns(part, present)
    factors = [f for f in range(len(layout.factors)) if chosen.uses(layout, f)]
    grouping = [name for f in factors for name in encoding.groupings[f]]
    given = {"offset": _wanted("offset", beside.offset, encoding.offset, layout.offset)}
    given["weights"] = _wanted("weights", beside.weights, encoding.weights, layout.weighted) if whole else None
    names = list(dict.fromkeys([*reads, *grouping, *(v for v in given.values() if isinstance(v, str))]))
    frame = read_columns(data, names) if names else pd.DataFrame(index=index)
    values = {what: row_values(value, what, frame) for what, value in given.items()}
    complete = _complete(frame, values)
    rows = frame if complete.all() else frame[complete]
    values = {what: value if value is None else value[complete] for what, value in values.items()}
    if len(rows):
        X, *parts = encoding.matrices(part, terms, rows[reads])
    else:
        X = np.zeros((0, layout.n_fixed))
        parts = [np.zeros((0, len(layout.terms[t].columns))) for t in terms]
    made = dict(zip(terms, parts, strict=True))
    codes, new = _levels(layout, encoding, factors, rows)
    _check_weights(values["weights"])
    return NewRows(
        index=frame.index,
        complete=complete,
        X=X,
        Z=_by_factor(layout, {t: part for t, part in made.items() if t in chosen.terms}, len(rows)),
        Z_out=_by_factor(layout, {t: part for t, part in made.items() if t not in chosen.terms}, len(rows)),
        codes=codes,
        new=new,
        offset=values["offset"],
        weights=values["weights"],
    )


def _columns_and_index(data: Any) -> tuple[list[str], pd.Index]:
    present = column_names(data)
    if isinstance(data, pd.DataFrame):
        return present, data.index
    return present, read_columns(data, present[:1]).index


def _wanted(what: str, given: Any, learned: str | None, has: bool) -> Any:
    if given is not None or not has:
        return given
    if learned is None and what == "offset":
        raise DataError(
            "the model was made with an offset that is no column of the data: pass offset= with one number for "
            "each new "
            "row (0 where there is none)"
        )
    return learned


def _complete(frame: pd.DataFrame, values: Mapping[str, FloatArray | None]) -> NDArray[np.bool_]:
    flags = [missing_rows(frame[name]) for name in frame.columns]
    flags += [missing_rows(value) for value in values.values() if value is not None]
    found = [flag for flag in flags if flag is not None]
    return ~np.logical_or.reduce(found) if found else np.ones(len(frame), dtype=bool)


def _levels(
    layout: Layout, encoding: Encoding, factors: Sequence[int], rows: pd.DataFrame
) -> tuple[tuple[NDArray[Any], ...], tuple[NDArray[Any], ...]]:
    codes: list[NDArray[Any]] = [np.zeros(len(rows), dtype=np.int64) for _ in layout.factors]
    new: list[NDArray[Any]] = [np.empty(0, dtype=object) for _ in layout.factors]
    for f in factors:
        codes[f], new[f] = encoding.codes(f, rows)
    return tuple(codes), tuple(new)


def _by_factor(layout: Layout, parts: Mapping[int, FloatArray], n: int) -> tuple[FloatArray, ...]:
    Z = [np.zeros((n, factor.size)) for factor in layout.factors]
    for t, columns in parts.items():
        term = layout.terms[t]
        Z[term.factor][:, list(term.columns)] = columns
    return tuple(Z)


def _check_weights(weights: FloatArray | None) -> None:
    if weights is not None and not np.all(np.isfinite(weights) & (weights > 0.0)):
        raise DataError("weights must be finite and greater than 0: the residual variance of a row is sigma^2 / weight")


def check_known(layout: Layout, rows: NewRows) -> None:
    """Refuse levels that the fit has not seen.

    Raises
    ------
    DataError
        Names the factor and the levels.
    """
    for factor, new in zip(layout.factors, rows.new, strict=True):
        if len(new):
            here, there = type(new[0]).__name__, type(factor.levels[0]).__name__
            hint = f" They are {here} here and {there} in the fit: convert the column." if here != there else ""
            raise DataError(
                f"{factor.name!r} has levels that were not there when the model was fitted ({len(new)}): {shown(new)}."
                f"{hint} Pass new_levels='population' to predict them without a random effect, or "
                "new_levels='sample' to draw one"
            )
