"""Any table as a pandas frame of the columns a model uses, and the rows of it that are complete."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosslmm.errors import DataError

# What pandas infers about Python objects, and the dtype that serves them.
OBJECT_DTYPES = {
    "boolean": bool,
    "integer": np.int64,
    "floating": np.float64,
    "mixed-integer-float": np.float64,
    "decimal": np.float64,
}


def read_frame(data: Any, names: Iterable[str]) -> pd.DataFrame:
    """Columns `names` of a table as a pandas frame; the input is never modified.

    Parameters
    ----------
    data : pandas.DataFrame, mapping of columns, or any eager table that narwhals reads (polars, pyarrow, ...)
    names : iterable of str
        Columns wanted.

    Raises
    ------
    DataError
        `data` is no table, has no rows, lacks a column or has it twice, or its columns differ in length.
    """
    frame = read_columns(data, names)
    if len(frame) == 0:
        raise DataError("the data have no rows")
    return frame


def read_columns(data: Any, names: Iterable[str]) -> pd.DataFrame:
    """`read_frame` of a table that may have no rows."""
    names = list(names)
    check_names(names, column_names(data))
    if isinstance(data, pd.DataFrame):
        series = {name: _one_column(data, name) for name in names}
        index = data.index
    elif isinstance(data, Mapping):
        lengths = {name: np.shape(data[name])[0] if np.ndim(data[name]) == 1 else None for name in names}
        if len(set(lengths.values())) != 1 or None in lengths.values():
            raise DataError(
                f"the columns of the data must be arrays of one length, but have lengths {lengths} (None: no array)"
            )
        series = {name: pd.Series(data[name]).reset_index(drop=True) for name in names}
        index = pd.RangeIndex(len(next(iter(series.values()))))
    else:
        series, index = _read_foreign(data, names)
    return pd.DataFrame(series, index=index, copy=False)


def column_names(data: Any) -> list[str]:
    """Names of the columns of a table of any kind, those that are text."""
    if isinstance(data, pd.DataFrame) and isinstance(data.columns, pd.MultiIndex):
        raise DataError(
            "the columns of the data have names of several parts (a MultiIndex); give each one name, for example "
            "data.columns = ['_'.join(map(str, name)) for name in data.columns]"
        )
    names = (
        data.columns
        if isinstance(data, pd.DataFrame)
        else data
        if isinstance(data, Mapping)
        else _foreign(data).columns
    )
    texts = [name for name in names if isinstance(name, str)]
    if not texts:
        if len(names) == 0:
            raise DataError("the data have no columns")
        raise DataError(
            f"none of the data's columns has a name that is text (they are called {_some(list(names), 4)}); name them: "
            "data.columns = ['y', ...]"
        )
    return texts


def check_names(names: Iterable[str], present: list[str]) -> None:
    """Refuse names that the data lack, with close matches."""
    known = set(present)
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, present, n=3) or [
                other for other in present if other.lower() == name.lower()
            ]
            hint = (
                f"; did you mean {' or '.join(map(repr, close))}?" if close else f"; its columns are {_some(present)}"
            )
            raise DataError(f"the data have no column {name!r}{hint}")


def _some(names: list[Any], most: int = 12) -> str:
    return ", ".join(map(repr, names[:most])) + (", ..." if len(names) > most else "")


def _one_column(data: pd.DataFrame, name: str) -> pd.Series:
    column = data[name]
    if isinstance(column, pd.DataFrame):
        raise DataError(f"the data have {column.shape[1]} columns named {name!r}; rename all but one")
    return column


def _foreign(data: Any) -> Any:
    """The table as a narwhals frame."""
    import narwhals as nw

    try:
        return nw.from_native(data, eager_only=True)
    except TypeError as error:
        hint = "; collect a lazy frame first" if "Lazy" in type(data).__name__ else ""
        kind = f"{type(data).__module__}.{type(data).__name__}"
        raise DataError(
            f"data must be a pandas, polars or pyarrow table or a dict of columns, not {kind}{hint}"
        ) from error


def _read_foreign(data: Any, names: Iterable[str]) -> tuple[dict[str, pd.Series], pd.RangeIndex]:
    frame = _foreign(data)
    return {name: _foreign_column(frame[name]) for name in names}, pd.RangeIndex(len(frame))


def _foreign_column(column: Any) -> pd.Series:
    """A narwhals series in pandas, without polars' own converter (it needs pyarrow)."""
    import narwhals as nw

    dtype = column.dtype
    if column.implementation.is_pyarrow() and dtype in (nw.Categorical, nw.String):
        return pd.Series(column.to_native().to_pandas())
    if dtype in (nw.Categorical, nw.Enum):
        # The categories of a polars Categorical have no order of their own.
        enumerated = isinstance(dtype, nw.Enum)
        categories = list(dtype.categories) if enumerated else sorted(column.drop_nulls().unique().to_list())
        if not categories:
            return pd.Series([None] * len(column), dtype=object)
        codes = column.replace_strict(categories, list(range(len(categories))), return_dtype=nw.Int32)
        return pd.Series(pd.Categorical.from_codes(codes.fill_null(-1).to_numpy(), categories=pd.Index(categories)))
    if dtype.is_nested():  # refused where it is used, by its name
        return pd.Series(column.to_list(), dtype=object)
    if dtype == nw.String or (dtype == nw.Boolean and column.null_count() > 0) or dtype == nw.Date:
        values = pd.Series(column.to_list())
        return pd.Series(pd.to_datetime(values)) if dtype == nw.Date else values
    if isinstance(dtype, nw.Decimal):
        column = column.cast(nw.Float64)
    elif dtype.is_integer() and column.null_count() > 0:
        filled = pd.array(column.fill_null(0).to_numpy(), dtype="UInt64" if dtype == nw.UInt64 else "Int64")
        filled[column.is_null().to_numpy()] = pd.NA
        return pd.Series(filled)
    return pd.Series(column.to_numpy())


def missing_rows(column: pd.Series | NDArray[np.float64]) -> NDArray[np.bool_] | None:
    """Which rows have no value, or None when every row has one."""
    flags = np.asarray(pd.isna(column))
    return flags if flags.any() else None


def settle(frame: pd.DataFrame) -> pd.DataFrame:
    """A complete frame in dtypes that formulaic knows: numbers as numpy's, text as text, no unused categories."""
    return pd.DataFrame({name: settle_column(frame[name]) for name in frame.columns}, index=frame.index, copy=False)


def settle_column(column: pd.Series) -> pd.Series:
    """A complete column in a dtype that formulaic knows."""
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        used = np.bincount(column.cat.codes.to_numpy(), minlength=len(dtype.categories)) > 0
        return column if used.all() else column.cat.remove_unused_categories()
    if isinstance(dtype, np.dtype):
        return _settle_objects(column) if dtype.kind == "O" else column
    if pd.api.types.is_bool_dtype(dtype):
        return pd.Series(column.to_numpy(dtype=bool), index=column.index)
    if pd.api.types.is_integer_dtype(dtype):
        wide = np.uint64 if str(dtype).lower().startswith("uint64") else np.int64
        return pd.Series(column.to_numpy(dtype=wide), index=column.index)
    if pd.api.types.is_float_dtype(dtype):
        return pd.Series(column.to_numpy(dtype=float), index=column.index)
    if str(dtype) == "str" or pd.api.types.is_datetime64_any_dtype(dtype):
        return column
    return column.astype(object)


def _settle_objects(column: pd.Series) -> pd.Series:
    dtype = OBJECT_DTYPES.get(pd.api.types.infer_dtype(column))
    try:
        return column if dtype is None else column.astype(dtype)
    except OverflowError:  # integers beyond 64 bits stay as they are: levels, not numbers
        return column
