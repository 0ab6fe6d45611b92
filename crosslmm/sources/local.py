"""Sources in this process: tables in memory, and what the sources of files share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from crosslmm.design.frame import column_names, read_columns
from crosslmm.errors import DataError
from crosslmm.sources.protocol import Add, Batch, Make, batch_errors, reading

T = TypeVar("T")

END = object()
"""What no batch is."""

NO_BATCHES = (
    "the source has no batches: it yields no frame (a function must return a new iterator each time it is called)"
)

MOST_TOGETHER = 1000
"""Small batches that are put together at most."""


class Local(ABC):
    """A source whose batches are read one after the other by this process."""

    @abstractmethod
    def columns(self) -> list[str]:
        """Names of the columns."""

    @abstractmethod
    def batches(self, columns: list[str], rows: int) -> Iterator[Batch]:
        """Batches of at most so many rows, as pandas frames."""

    def n_rows(self) -> int | None:
        """Unknown before all are read."""
        return None

    def reads(self, path: Path) -> bool:
        """Whether a file is one of those that are read."""
        return False

    def reduce(
        self,
        columns: list[str],
        rows: int,
        make: Make[T],
        add: Add[T],
        watch: Callable[[int], None],
        *,
        together: bool,
    ) -> T:
        """Sum over batches, in their order."""
        batches = self.batches(columns, rows)
        return fold(grouped(batches, rows // 2) if together else batches, make, add, watch)


class Tabled(Local):
    """A source of tables, of any kind and size."""

    @abstractmethod
    def tables(self) -> Iterator[Batch]:
        """Batches as they come."""

    def columns(self) -> list[str]:
        """Names of the columns of the first table."""
        for batch in self.tables():
            with batch_errors(batch.name):
                return column_names(batch.table)
        raise DataError(NO_BATCHES)

    def batches(self, columns: list[str], rows: int) -> Iterator[Batch]:
        """Tables, or stretches of their rows."""
        start = 0
        for batch in self.tables():
            with batch_errors(batch.name):
                frame = read_columns(batch.table, columns)
            yield from sliced(Batch(batch.name, numbered(frame, start)), rows)
            start += len(frame)


def fold(batches: Iterable[Batch], make: Make[T], add: Add[T], watch: Callable[[int], None]) -> T:
    """Sum of ``make(batch)`` from left to right."""
    iterator = iter(batches)
    first = next(iterator, None)
    if first is None:
        raise DataError(NO_BATCHES)
    total = make(first)
    watch(len(first.table))
    del first  # a batch is memory
    for batch in iterator:
        total = add(total, make(batch))
        watch(len(batch.table))
    return total


def numbered(frame: pd.DataFrame, start: int) -> pd.DataFrame:
    """A frame indexed by the numbers of its rows in the source."""
    return frame.set_axis(pd.RangeIndex(start, start + len(frame)))


def sliced(batch: Batch, rows: int) -> Iterator[Batch]:
    """A batch as pandas frames of at most so many rows; at least one."""
    frame = batch.table
    for start in range(0, max(len(frame), 1), rows):
        yield Batch(batch.name, frame if len(frame) <= rows else frame.iloc[start : start + rows])


def grouped(batches: Iterable[Batch], rows: int) -> Iterator[Batch]:
    """Small batches put together to about so many rows, so that what a batch costs in itself does not count."""
    waiting: list[Batch] = []
    size = 0
    for batch in batches:
        waiting.append(batch)
        size += len(batch.table)
        if size >= rows or len(waiting) >= MOST_TOGETHER:
            yield _together(waiting)
            waiting, size = [], 0
    if waiting:
        yield _together(waiting)


def _together(batches: list[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    name = f"{batches[0].name} to {batches[-1].name}"
    return Batch(name, pd.concat([batch.table for batch in batches]), tuple(batches))


@dataclass(frozen=True)
class Slices(Tabled):
    """A table in memory, read in stretches of rows."""

    frame: pd.DataFrame

    def n_rows(self) -> int:
        """Rows of the table."""
        return len(self.frame)

    def tables(self) -> Iterator[Batch]:
        """The table as one batch."""
        yield Batch("the data", self.frame)

    def batches(self, columns: list[str], rows: int) -> Iterator[Batch]:
        """Stretches of the table."""
        for start in range(0, len(self.frame), rows):
            part = self.frame.iloc[start : start + rows][columns]
            yield Batch(f"rows {start} to {start + len(part) - 1} of the data", part)


@dataclass(frozen=True)
class Tables(Tabled):
    """A list of tables."""

    parts: Sequence[Any]

    def tables(self) -> Iterator[Batch]:
        """The tables."""
        for i, part in enumerate(self.parts):
            yield Batch(f"batch {i}", part)


@dataclass(frozen=True)
class Calls(Tabled):
    """A callable that gives a new iterator over tables each time."""

    function: Callable[[], Iterable[Any]]

    def tables(self) -> Iterator[Batch]:
        """The tables of a new iterator."""
        with reading("the source"):
            made = self.function()
            if isinstance(made, (str, Path, Mapping, pd.DataFrame)):
                raise DataError(
                    f"the function returned a {type(made).__name__}, and must return an iterable of tables, such as a "
                    "list of one table"
                )
            iterator = iter(made)
        i = 0
        try:
            while True:
                with reading(f"batch {i}"):
                    part = next(iterator, END)
                if part is END:
                    return
                yield Batch(f"batch {i}", part)
                i += 1
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
