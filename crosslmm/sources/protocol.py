"""What a source of rows is: batches that can be read more than once, and reduced where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from crosslmm.errors import DataError, ModelError

T = TypeVar("T")

LEARNING, SUMMING, PREDICTING = "learning levels", "summing", "predicting"
"""Names of the phases."""


@dataclass(frozen=True)
class Batch:
    """A part of the rows.

    Attributes
    ----------
    name : str
        Which part: ``"file.parquet, row group 3"``.
    table : any table
    parts : tuple of Batch
        Those that were put together to this one; empty for a batch as it came.
    """

    name: str
    table: Any
    parts: tuple[Batch, ...] = ()


Make = Callable[[Batch], T]
Add = Callable[[T, T], T]


class Source(Protocol):
    """Rows in batches. Every pass gives the same rows in the same order."""

    def columns(self) -> list[str]:
        """Names of the columns."""
        ...

    def reads(self, path: Path) -> bool:
        """Whether a file is one of those that are read."""
        ...

    def n_rows(self) -> int | None:
        """Number of rows, where it is known without reading them."""
        ...

    def batches(self, columns: list[str], rows: int) -> Iterator[Batch]:
        """Batches of at most `rows` rows as pandas frames of `columns`, indexed by the number or label of the row."""
        ...

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
        """Sum over all batches of ``make(batch)``; `watch` is told the rows that were added.

        Parameters
        ----------
        columns : list of str
        rows : int
            The most rows of one batch.
        make, add : callable
            Picklable, without side effects; `add` is associative.
        watch : callable
        together : bool
            Whether small batches may be put together before they are made something of.

        Raises
        ------
        DataError
            There is no batch, or one cannot be read; names it.
        """
        ...


@contextmanager
def batch_errors(name: str) -> Iterator[None]:
    """Put the name of a batch before what is said of its rows."""
    try:
        yield
    except (DataError, ModelError) as error:
        raise type(error)(f"{name}: {error}") from error


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Say which batch could not be read, and why, in the words of what reads it."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:  # files and functions of the user can fail in any way
        first = (str(error).splitlines() or [""])[0]
        raise DataError(f"{name} cannot be read: {type(error).__name__}: {first}") from error
