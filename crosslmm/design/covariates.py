"""The columns that formulaic works with: numbers in double precision, categories, and nothing else.

Formulaic computes in the dtype of the data, where products of small integers overflow without a word.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from crosslmm.errors import DataError

CONVERT = "convert it to numbers first, or to text or a categorical if its values are categories"
OBJECT_KINDS = {
    "date": "dates",
    "datetime": "dates",
    "datetime64": "dates",
    "period": "periods",
    "timedelta": "lengths of time",
    "timedelta64": "lengths of time",
    "time": "times of day",
    "interval": "intervals",
    "complex": "complex numbers",
    "bytes": "bytes",
    "mixed": "values of several kinds",
    "mixed-integer": "numbers mixed with text",
}
"""What pandas infers about a column of Python objects that can be no covariate, in words."""


def covariates(frame: pd.DataFrame, plain: Collection[str], categories: Collection[str]) -> pd.DataFrame:
    """Columns for formulaic; the frame is not modified.

    Parameters
    ----------
    frame : pandas.DataFrame
        Complete and settled.
    plain : collection of str
        Columns that stand in the formula by themselves, so that they must be numbers or categories.
    categories : collection of str
        Columns used as categories only: integers keep their dtype, and their labels.

    Raises
    ------
    DataError
        A plain column holds dates, complex numbers or values of several kinds.
    """
    return pd.DataFrame(
        {name: _covariate(frame[name], name in plain, name in categories) for name in frame.columns},
        index=frame.index,
        copy=False,
    )


def _covariate(column: pd.Series, plain: bool, category: bool) -> pd.Series:
    dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "iuf":
        return column if category or dtype == np.float64 else column.astype(np.float64)
    kind = _kind(column)
    if kind == "integer":  # beyond 64 bits
        return column if category else column.astype(np.float64)
    if plain and kind in OBJECT_KINDS:
        raise DataError(f"column {column.name!r} holds {OBJECT_KINDS[kind]}; {CONVERT}")
    return column


def _kind(column: pd.Series) -> str:
    """What a column that is not numeric holds, in pandas' words."""
    dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind == "O":
        return pd.api.types.infer_dtype(column)
    if isinstance(dtype, np.dtype) and dtype.kind == "c":
        return "complex"
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return "datetime"
    return "timedelta" if pd.api.types.is_timedelta64_dtype(dtype) else "other"
