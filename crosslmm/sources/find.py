"""Which source a value is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crosslmm.errors import DataError
from crosslmm.sources.local import Calls, Local, Tables
from crosslmm.sources.parquet import parquet_files
from crosslmm.sources.partitions import Partitions
from crosslmm.sources.protocol import Source


def find_source(data: Any) -> Source | None:
    """The source that `data` is, or None for a table in memory.

    Parameters
    ----------
    data : path, list of paths, list of tables, callable, dask DataFrame, or table

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
    return Calls(data) if callable(data) else None


def _is_dask(data: Any) -> bool:
    kind = type(data)
    return kind.__name__ == "DataFrame" and kind.__module__.partition(".")[0] in ("dask", "dask_expr")
