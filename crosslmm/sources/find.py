"""Which source a value is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crosslmm.errors import DataError
from crosslmm.sources.local import Calls, Local, Tables
from crosslmm.sources.parquet import parquet_files
from crosslmm.sources.partitions import Partitions
from crosslmm.sources.protocol import Source


def find_source(data: Any) -> Source | None:
    """The source that `data` is, or None for a table in memory.

    Parameters
    ----------
    data : path, list of paths, list or other collection of tables, callable, dask DataFrame, or table

    Raises
    ------
    DataError
        It can be read once only, or is an empty list.
    """
    if isinstance(data, (Local, Partitions)):
        return data
    if isinstance(data, (str, Path)):
        return parquet_files([data])
    if isinstance(data, (list, tuple)):
        if not data:
            raise DataError("the list of tables or files is empty")
        if all(isinstance(part, (str, Path)) for part in data):
            return parquet_files(data)
        return Tables(tuple(data))
    if isinstance(data, Iterator):
        raise DataError(
            "the rows are read twice, and an iterator or generator can be read once only: pass a function that returns "
            "a new one each time, such as lambda: pandas.read_csv(path, chunksize=100_000)"
        )
    if _is_dask(data):
        return Partitions(data)
    if callable(data):
        return Calls(data)
    return Calls(data.__iter__) if _gives_tables(data) else None


def _gives_tables(data: Any) -> bool:
    """Whether an object that is no table itself can be iterated over any number of times."""
    import narwhals as nw

    if not isinstance(data, Iterable) or isinstance(data, (Mapping, np.ndarray, pd.Series, pd.Index)):
        return False
    return nw.from_native(data, pass_through=True) is data


def _is_dask(data: Any) -> bool:
    kind = type(data)
    return kind.__name__ == "DataFrame" and kind.__module__.partition(".")[0] in ("dask", "dask_expr")
