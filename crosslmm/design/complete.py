"""The complete rows of the data, with their weights and offset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.design.fixed import check_finite
from crosslmm.design.frame import missing_rows, settle
from crosslmm.errors import DataError

LARGEST_WEIGHT = 1e60
"""The largest weight, and the inverse of the smallest, that the square of a large number can be multiplied by."""

PLAIN = ("integer", "floating", "mixed-integer-float", "decimal", "empty")
"""What pandas infers about Python objects that are plain numbers."""


@dataclass(frozen=True)
class CompleteRows:
    """Rows without missing values.

    Attributes
    ----------
    frame : pandas.DataFrame
        Columns that the formula uses.
    weights, offset : ndarray, shape (n,), or None
    n_dropped : int
        Rows left out.
    missing : dict of str to int
        Columns that miss values, and in how many rows.
    """

    frame: pd.DataFrame
    weights: FloatArray | None
    offset: FloatArray | None
    n_dropped: int
    missing: Mapping[str, int]


def complete_rows(frame: pd.DataFrame, weights: Any, offset: Any, missing: str) -> CompleteRows:
    """Leave out, or refuse, rows that miss a value; check weights and offset of the others.

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns that the formula, `weights` and `offset` use.
    weights, offset : str, array or None
        A column of `frame`, or one number per row of it.
    missing : {"drop", "raise"}

    Raises
    ------
    DataError
        Values are missing and may not be; no row is complete; weights or offset are no proper numbers.
    """
    rows = complete_part(frame, weights, offset, missing)
    check_any_complete(len(rows.frame), rows.missing)
    return replace(rows, frame=settle(rows.frame))


def check_any_complete(n: int, missing: Mapping[str, int]) -> None:
    """Refuse data without a complete row."""
    if n == 0 and not missing:
        raise DataError("the data have no rows")
    if n == 0:
        raise DataError(f"every row misses a value; missing in columns (rows): {_counts(missing)}")


def complete_part(frame: pd.DataFrame, weights: Any, offset: Any, missing: str) -> CompleteRows:
    """`complete_rows` of a part of the data, which may have none; dtypes stay as they are."""
    given = {"weights": weights, "offset": offset}
    values = {what: row_values(value, what, frame) for what, value in given.items()}
    columns: dict[str, Any] = {name: frame[name] for name in frame.columns}
    columns.update({what: values[what] for what, value in given.items() if not isinstance(value, str)})
    keep, counts = _complete(columns, missing)
    if keep is not None:
        frame = frame[keep]
        values = {what: None if value is None else value[keep] for what, value in values.items()}
    _check_values(values["weights"], values["offset"])
    n_dropped = 0 if keep is None else int(keep.size - keep.sum())
    return CompleteRows(frame, values["weights"], values["offset"], n_dropped, counts)


def row_values(values: Any, what: str, frame: pd.DataFrame) -> FloatArray | None:
    """Weights or offset as floats, one per row of the data; missing values are nan."""
    if values is None:
        return None
    if isinstance(values, pd.Series) and not values.index.equals(frame.index):
        raise DataError(
            f"the index of {what} differs from that of the data; add it to the data as a column and pass its name"
        )
    array = _plain_numbers(frame[values] if isinstance(values, str) else values, what)
    if array.shape != (len(frame),):
        raise DataError(
            f"{what} must hold one number for each of the {len(frame)} rows of the data (before any are dropped), "
            f"but has shape {array.shape}"
        )
    return array


def _plain_numbers(values: Any, what: str) -> FloatArray:
    """Numbers as floats; masked and missing ones are nan.

    Raises
    ------
    DataError
        The values are text, dates, categories, truth values, complex numbers or a mixture.
    """
    if isinstance(values, np.ma.MaskedArray):
        numbers = np.array(_plain_numbers(np.asarray(values.data), what))
        numbers[np.ma.getmaskarray(values)] = np.nan
        return numbers
    if isinstance(values, (pd.Series, pd.Index, pd.api.extensions.ExtensionArray)):
        series = pd.Series(values)
        if pd.api.types.is_numeric_dtype(series.dtype) and not (
            pd.api.types.is_bool_dtype(series.dtype) or pd.api.types.is_complex_dtype(series.dtype)
        ):
            return series.to_numpy(dtype=np.float64, na_value=np.nan)
        values = series.to_numpy() if series.dtype == object else np.array("")
    array = np.asarray(values)
    if array.dtype == object and array.ndim == 1 and pd.api.types.infer_dtype(array) in PLAIN:
        array = np.where(pd.isna(array), np.nan, array).astype(np.float64)
    if array.dtype.kind not in "iuf":
        raise DataError(
            f"{what} must be numbers, a column of the data or one number per row of it; convert text, dates, "
            "categories, truth values and complex numbers first"
        )
    return array.astype(np.float64, copy=False)


def _counts(missing: Mapping[str, int]) -> str:
    return ", ".join(f"{name!r} ({count})" for name, count in missing.items())


def _complete(columns: Mapping[str, Any], missing: str) -> tuple[NDArray[np.bool_] | None, dict[str, int]]:
    """Which rows have a value in every column (None when all have), and how many miss one in each."""
    flags = {name: missing_rows(values) for name, values in columns.items() if values is not None}
    found = {name: flag for name, flag in flags.items() if flag is not None}
    if not found:
        return None, {}
    counts = {name: int(flag.sum()) for name, flag in found.items()}
    if missing == "raise":
        raise DataError(
            f"values are missing in columns (rows): {_counts(counts)}; drop or fill them, or pass missing='drop'"
        )
    return ~np.logical_or.reduce(list(found.values())), counts


def _check_values(weights: FloatArray | None, offset: FloatArray | None) -> None:
    if offset is not None:
        check_finite(offset[:, None], ("offset",), "the offset")
    if weights is not None and weights.size:
        bad = int(np.sum(~(np.isfinite(weights) & (weights > 0.0))))
        if not bad and (weights.max() > LARGEST_WEIGHT or weights.min() < 1.0 / LARGEST_WEIGHT):
            raise DataError(
                f"weights run from {weights.min():.1g} to {weights.max():.1g}; rescale them (sizes from "
                f"{1.0 / LARGEST_WEIGHT:.0e} to {LARGEST_WEIGHT:.0e} can be used)"
            )
        if bad:
            raise DataError(
                f"weights must be finite and greater than 0, but {bad} are not: "
                "the residual variance of a row is sigma^2 / weight; leave rows of weight 0 out of the data"
            )
