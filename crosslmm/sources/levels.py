"""Tables from values to the codes of levels, made once for all batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosslmm.design.frame import settle_column
from crosslmm.design.grouping import TABLE_FACTOR, Grouping, cross, encode
from crosslmm.errors import DataError

LARGEST_TABLE = 2**24
"""Entries (of 4 bytes) of a table over a range of integers that is always affordable."""

UNKNOWN = -1

Codes = NDArray[np.int32]


@dataclass(frozen=True)
class IntegerTable:
    """Codes of integers: a table over their range where it is short, else a hash table.

    Attributes
    ----------
    low : int
        The integer that ``table[0]`` stands for.
    table : ndarray of int32, or None
        Codes over the range; -1 where no level is.
    index : pandas.Index
        The integers, for hashing.
    codes : ndarray of int32
        Their codes.
    """

    low: int
    table: Codes | None
    index: pd.Index
    codes: Codes

    @classmethod
    def of(cls, integers: NDArray[np.int64], codes: Codes) -> IntegerTable:
        """Table of distinct integers and their codes."""
        low, high = (int(integers.min()), int(integers.max())) if integers.size else (0, -1)
        table = None
        if high - low < max(LARGEST_TABLE, TABLE_FACTOR * integers.size):
            table = np.full(high - low + 1, UNKNOWN, dtype=np.int32)
            table[integers - low] = codes
        return cls(low, table, pd.Index(integers), codes)

    def look_up(self, integers: NDArray[Any]) -> Codes:
        """Codes of integers (n,); -1 for those that are unknown."""
        if self.table is None:
            return _from_index(self.index, self.codes, integers)
        if integers.size == 0:
            return np.empty(0, dtype=np.int32)
        low, high = int(integers.min()), int(integers.max())
        if low >= self.low and high < self.low + self.table.size:
            return self.table[integers if self.low == 0 else integers.astype(np.int64, copy=False) - self.low]
        inside = (integers >= self.low) & (integers < self.low + self.table.size)
        codes = np.full(integers.size, UNKNOWN, dtype=np.int32)
        codes[inside] = self.table[integers[inside].astype(np.int64) - self.low]
        return codes


def _from_index(index: pd.Index, codes: Codes, values: Any) -> Codes:
    found = index.get_indexer(values)
    return np.where(found < 0, UNKNOWN, codes[found]).astype(np.int32) if codes.size else np.full(len(found), UNKNOWN)


@dataclass(frozen=True)
class LevelTable:
    """Levels of a column and the codes of its values.

    Attributes
    ----------
    name : str
    levels : ndarray of object, shape (L,)
        Labels in the order of the codes.
    index : pandas.Index
        Distinct values of the column, in no order.
    codes : ndarray of int32
        Their levels.
    integers : IntegerTable or None
        The same for a column of integers or truth values.
    """

    name: str
    levels: NDArray[Any]
    index: pd.Index
    codes: Codes
    integers: IntegerTable | None

    @classmethod
    def of(cls, name: str, values: pd.Series, *, ordered: bool) -> LevelTable:
        """Table of distinct values; sorted like the levels of a column in memory, unless they are in order already."""
        values = pd.Series(values.array, name=name)
        column = pd.Series(pd.Categorical(values, categories=values), name=name) if ordered else settle_column(values)
        grouping = encode(column)
        plain = settle_column(values)
        kind = plain.dtype.kind if isinstance(plain.dtype, np.dtype) else "O"
        integers = None
        if kind in "bi" or (kind == "u" and plain.dtype != np.uint64):
            integers = IntegerTable.of(plain.to_numpy().astype(np.int64), grouping.codes)
        return cls(name, grouping.levels, pd.Index(plain), grouping.codes, integers)

    @property
    def values(self) -> pd.Index:
        """Values in the order of the codes."""
        return self.index[np.argsort(self.codes)]

    def look_up(self, column: pd.Series) -> Codes:
        """Codes of the rows of a complete column.

        Raises
        ------
        DataError
            A value is no level: it was not there when the levels were learned.
        """
        if isinstance(column.dtype, pd.CategoricalDtype):
            by_category = self._codes(pd.Series(column.dtype.categories))
            codes = by_category[column.cat.codes.to_numpy()] if len(by_category) else np.empty(0, dtype=np.int32)
        else:
            codes = self._codes(column)
        if codes.size and int(codes.min()) == UNKNOWN:
            value = column.iloc[int(np.argmin(codes))]
            raise DataError(
                f"the column {self.name!r} holds {value!r}, which was not there in the first pass: the rows of a "
                "source must be the same each time they are read"
            )
        return codes

    def _codes(self, column: pd.Series) -> Codes:
        column = settle_column(column)
        values = column.to_numpy() if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf" else None
        if self.integers is not None and values is not None:
            if values.dtype.kind == "f" and np.array_equal(values, np.floor(values)):  # integers beside missing values
                values = values.astype(np.int64)
            if values.dtype.kind in "biu":
                return self.integers.look_up(values.astype(np.int8) if values.dtype.kind == "b" else values)
        # few distinct values are looked up, not all
        codes, uniques = pd.factorize(values if values is not None else column.array)
        return _from_index(self.index, self.codes, uniques)[codes]


@dataclass(frozen=True)
class Combinations:
    """Combinations of the levels of several columns that occur.

    Attributes
    ----------
    grouping : Grouping
        Its codes are those of the distinct combinations, not of rows.
    sizes : tuple of int
        Numbers of levels of the second column and those after it.
    stages : tuple of IntegerTable
        From the code so far times a size, plus the code of the next column, to the code so far.
    """

    grouping: Grouping
    sizes: tuple[int, ...]
    stages: tuple[IntegerTable, ...]

    @classmethod
    def of(cls, tables: Sequence[LevelTable], distinct: Sequence[Codes]) -> Combinations:
        """From the codes of the columns of the distinct combinations."""
        groupings = [Grouping(codes, table.levels) for codes, table in zip(distinct, tables, strict=True)]
        stages = []
        so_far = distinct[0].astype(np.int64)
        for table, codes in zip(tables[1:], distinct[1:], strict=True):
            keys = so_far * len(table.levels) + codes
            renumbered, used = pd.factorize(keys, sort=True)
            stages.append(IntegerTable.of(np.asarray(used, dtype=np.int64), np.arange(len(used), dtype=np.int32)))
            so_far = renumbered.astype(np.int64)
        return cls(cross(groupings), tuple(len(table.levels) for table in tables[1:]), tuple(stages))

    def look_up(self, parts: Sequence[Codes]) -> Codes:
        """Codes of the rows from those of the columns."""
        codes = parts[0]
        for size, stage, part in zip(self.sizes, self.stages, parts[1:], strict=True):
            codes = stage.look_up(codes.astype(np.int64) * size + part)
        return codes
