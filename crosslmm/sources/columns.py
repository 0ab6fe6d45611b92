"""What the batches of a column hold: its kind, and the distinct values of those whose values are levels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosslmm.design.covariates import OBJECT_KINDS
from crosslmm.design.frame import OBJECT_DTYPES, settle_column
from crosslmm.design.grouping import SHORT_TABLE, TABLE_FACTOR, no_levels
from crosslmm.errors import DataError

NOTHING, NUMBERS, TRUTH, TEXT, CATEGORIES = "nothing", "numbers", "truth values", "text", "categories"
"""Kinds of columns; others are called by what pandas infers."""

SEVERAL = (OBJECT_KINDS["mixed"], OBJECT_KINDS["mixed-integer"])
"""Kinds of columns of Python objects of which a batch may show one only."""


LARGEST_EXACT = 2**53
"""Integers beyond this are not all numbers in double precision."""

LARGEST_SIGNED = 2**63 - 1
"""The largest integer that a table over a range can hold."""


@dataclass(frozen=True)
class ColumnFacts:
    """What is known of a column of some batches.

    Attributes
    ----------
    kind : str
    where : str
        A batch in which it is of this kind.
    categories : pandas.Index or None
        Where all batches are categorical with these categories in this order.
    used : ndarray of bool or None
        Which of the categories occur.
    pieces : tuple of Series
        Elsewhere the distinct values; a value can be in several pieces.
    """

    kind: str
    where: str
    categories: pd.Index | None = None
    used: NDArray[np.bool_] | None = None
    pieces: tuple[pd.Series, ...] = ()

    def values(self) -> pd.Series:
        """Distinct values: in the order of the categories where there is one, else in no order."""
        if self.categories is not None and self.used is not None:
            return pd.Series(self.categories[self.used])
        return distinct(_joined(self.pieces)) if self.pieces else pd.Series([], dtype=object)

    @property
    def ordered(self) -> bool:
        """Whether the values have the order of categories."""
        return self.categories is not None


def facts_of(column: pd.Series, where: str, *, levels: bool, text: bool) -> ColumnFacts:
    """Facts of one batch of a column without missing values.

    Parameters
    ----------
    column : Series
    where : str
        Name of the batch.
    levels : bool
        Whether its values are levels, to be collected.
    text : bool
        Whether they are if the column holds text.
    """
    if len(column) == 0:
        return ColumnFacts(NOTHING, where)
    if isinstance(column.dtype, pd.CategoricalDtype):
        categories = column.dtype.categories
        used = np.bincount(column.cat.codes.to_numpy(), minlength=len(categories)) > 0
        return ColumnFacts(CATEGORIES, where, categories, used)
    settled = settle_column(column)
    kind = kind_of(settled)
    # Python objects stay what they are: what other batches hold decides what they become
    values = column if column.dtype == object else settled
    pieces = (distinct(values),) if levels or (text and kind == TEXT) else ()
    return ColumnFacts(kind, where, pieces=pieces)


def kind_of(column: pd.Series) -> str:
    """What a settled column holds."""
    dtype = column.dtype
    if pd.api.types.is_bool_dtype(dtype):
        return TRUTH
    if pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype):
        return NUMBERS
    if str(dtype) == "str":
        return TEXT
    inferred = pd.api.types.infer_dtype(column)
    if inferred in OBJECT_DTYPES:  # integers beyond 64 bits
        return NUMBERS
    return TEXT if inferred == "string" else OBJECT_KINDS.get(inferred, inferred)


def distinct(column: pd.Series) -> pd.Series:
    """Distinct values of a settled column, by a table over a short range of integers, else by hashing."""
    values = column.to_numpy() if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iu" else None
    if values is not None and values.size:
        low, high = int(values.min()), int(values.max())
        if high <= LARGEST_SIGNED and high - low < max(SHORT_TABLE, TABLE_FACTOR * values.size):
            occurs = np.zeros(high - low + 1, dtype=bool)
            # the range of small integers can be beyond their own type
            occurs[values.astype(np.int64, copy=False) - low] = True
            return pd.Series((np.flatnonzero(occurs) + low).astype(values.dtype), name=column.name)
    try:
        return pd.Series(column.unique(), name=column.name)
    except TypeError as error:
        raise no_levels(column, column.name) from error


def add_facts(name: str, a: ColumnFacts, b: ColumnFacts) -> ColumnFacts:
    """Facts of the batches of both.

    Raises
    ------
    DataError
        The column is of two kinds.
    """
    if NOTHING in (a.kind, b.kind):
        return b if a.kind == NOTHING else a
    if a.kind != b.kind:
        message = f"the column {name!r} holds {a.kind} in {a.where}, but {b.kind} in {b.where}"
        a, b = _alike(a, b)
        if a.kind != b.kind:
            raise DataError(f"{message}; make it one kind in all batches")
    if a.used is not None and b.used is not None and a.categories is not None and a.categories.equals(b.categories):
        return replace(a, used=a.used | b.used)
    return ColumnFacts(a.kind, a.where, pieces=merged((*_pieces(a), *_pieces(b))))


def _alike(a: ColumnFacts, b: ColumnFacts) -> tuple[ColumnFacts, ColumnFacts]:
    """Facts of columns whose kinds go together: categories of text with text, and anything with several kinds."""
    if a.kind in SEVERAL or b.kind in SEVERAL:
        a = ColumnFacts(SEVERAL[0], a.where, pieces=_pieces(a))
        return a, ColumnFacts(SEVERAL[0], b.where, pieces=_pieces(b))
    return _as_text(a), _as_text(b)


def _as_text(facts: ColumnFacts) -> ColumnFacts:
    """Categories that are text as the text they are."""
    if facts.kind != CATEGORIES:
        return facts
    values = facts.values()
    text = pd.api.types.infer_dtype(values) == "string"
    return ColumnFacts(TEXT, facts.where, pieces=(values.astype(object),)) if text else facts


def _pieces(facts: ColumnFacts) -> tuple[pd.Series, ...]:
    return facts.pieces if facts.categories is None else (facts.values().astype(object),)


def _joined(pieces: tuple[pd.Series, ...]) -> pd.Series:
    """Pieces one after the other.

    Raises
    ------
    DataError
        Integers would become floating-point numbers that cannot tell them apart.
    """
    joined = pd.concat(pieces, ignore_index=True)
    if joined.dtype.kind == "f":
        for piece in pieces:
            if piece.dtype.kind in "iu" and max(abs(int(piece.min())), int(piece.max())) > LARGEST_EXACT:
                raise DataError(
                    f"the column {piece.name!r} holds integers beyond 2^53 in some batches and other numbers in "
                    "others, beside which they could not be told apart; make it one type of integers in all batches "
                    "(Int64 where values are missing), or text"
                )
    return joined


def merged(pieces: tuple[pd.Series, ...]) -> tuple[pd.Series, ...]:
    """Pieces of distinct values, each at least twice as long as the next: many merge in linear time."""
    kept: list[pd.Series] = []
    for piece in pieces:
        while kept and len(kept[-1]) <= 2 * len(piece):
            piece = distinct(_joined((kept.pop(), piece)))
        kept.append(piece)
    return tuple(kept)
