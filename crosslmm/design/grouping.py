"""Grouping variables of any dtype as integer codes and level labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosslmm.errors import DataError

# A table over a range of integers is faster than hashing while it is short, or not much longer than the column.
SHORT_TABLE = 100_000
TABLE_FACTOR = 4
UNHASHABLE = (list, dict, set, np.ndarray)


@dataclass(frozen=True)
class Grouping:
    """Levels of a grouping factor.

    Attributes
    ----------
    codes : ndarray of int32, shape (n,)
        Level of every row.
    levels : ndarray of object, shape (L,)
        Labels; every level occurs.
    """

    codes: NDArray[np.int32]
    levels: NDArray[Any]


def encode(column: pd.Series) -> Grouping:
    """Levels of one complete column: in category order for a categorical, else sorted."""
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        present, used = _compress(column.cat.codes.to_numpy(), len(dtype.categories))
        return Grouping(present, _objects(dtype.categories[used]))
    values = column.to_numpy() if isinstance(dtype, np.dtype) and dtype.kind not in "mM" else column.array
    if isinstance(dtype, np.dtype) and dtype.kind in "bui" and dtype != np.uint64:
        numbers = values.astype(np.int64) if dtype.kind != "b" else values.astype(np.int8)
        low, high = int(numbers.min()), int(numbers.max())
        if high - low < max(SHORT_TABLE, TABLE_FACTOR * numbers.size):
            present, used = _compress(numbers - low, high - low + 1)
            return Grouping(present, _objects((used + low).astype(dtype)))
    try:
        codes, uniques = pd.factorize(values, sort=True)
    except TypeError:
        codes, uniques = _factorize_mixed(values, column.name)
    if isinstance(dtype, np.dtype) and dtype.kind == "f":
        uniques = _whole(uniques, column.name)
    return Grouping(codes.astype(np.int32), _objects(uniques))


def cross(groupings: Sequence[Grouping]) -> Grouping:
    """Combinations of levels that occur, the first grouping varying slowest; labels are joined by ``:``."""
    if len(groupings) == 1:
        return groupings[0]
    codes = groupings[0].codes.astype(np.int64)
    parts = np.arange(len(groupings[0].levels))[:, None]
    for grouping in groupings[1:]:
        size = len(grouping.levels)
        compressed, used = _compress(codes * size + grouping.codes, len(parts) * size)
        codes = compressed.astype(np.int64)
        parts = np.column_stack([parts[used // size], used % size])
    texts = [
        np.array([str(level) for level in grouping.levels], dtype=object)[parts[:, i]]
        for i, grouping in enumerate(groupings)
    ]
    labels = np.array([":".join(labels) for labels in zip(*texts, strict=True)], dtype=object)
    return Grouping(codes.astype(np.int32), labels)


def _compress(codes: NDArray[Any], size: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Codes in [0, size) renumbered over the values that occur, and these values, increasing."""
    if size > max(SHORT_TABLE, TABLE_FACTOR * codes.size):
        renumbered, used = pd.factorize(codes, sort=True)
        return renumbered.astype(np.int32), np.asarray(used, dtype=np.int64)
    occurs = np.zeros(size, dtype=bool)
    occurs[codes] = True
    used = np.flatnonzero(occurs)
    if used.size == size:
        return codes.astype(np.int32), used
    table = np.zeros(size, dtype=np.int32)
    table[used] = np.arange(used.size, dtype=np.int32)
    return table[codes], used


def _factorize_mixed(values: Any, name: Any) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Codes of values that cannot be compared with each other, ordered by their text."""
    try:
        codes, uniques = pd.factorize(values)
    except TypeError as error:
        raise no_levels(values, name) from error
    order = np.argsort([str(value) for value in uniques], kind="stable")
    return np.argsort(order)[codes], np.asarray(uniques, dtype=object)[order]


def no_levels(values: Any, name: Any) -> DataError:
    """The refusal of values that cannot be told apart by hashing."""
    kind = next((type(value).__name__ for value in values if isinstance(value, UNHASHABLE)), "unhashable values")
    return DataError(
        f"the grouping column {name!r} holds values that cannot be levels ({kind}); make them text or numbers first"
    )


def _whole(uniques: NDArray[np.float64], name: Any) -> NDArray[Any]:
    """Labels of floats: integers when all are whole."""
    if not np.isfinite(uniques).all():
        raise DataError(f"the grouping column {name!r} has infinite values")
    exact = np.all(np.abs(uniques) < 2.0**53) and np.all(uniques == np.floor(uniques))
    return uniques.astype(np.int64) if exact else uniques


def _objects(values: Any) -> NDArray[Any]:
    """Labels as an array of Python objects."""
    labels = np.empty(len(values), dtype=object)
    labels[:] = values.tolist() if isinstance(values, np.ndarray) and values.dtype.kind in "bifu" else list(values)
    return labels
