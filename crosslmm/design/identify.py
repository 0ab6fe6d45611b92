"""Variances that no data could tell apart, found before a search for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.design.fixed import Columns
from crosslmm.design.grouping import Grouping
from crosslmm.design.qr import RANK_TOLERANCE
from crosslmm.design.random import Arrangement
from crosslmm.errors import ModelError

FIRST_ROWS = 1000
"""Columns are compared on so many rows before they are compared on all."""


def check_identified(
    arrangement: Arrangement,
    made: Mapping[str, Columns],
    alike: Callable[[int, int], bool],
    proportional: Callable[[str, str], tuple[int, int] | None],
) -> None:
    """Refuse two terms that vary over the same division of the rows with proportional columns.

    Such a column z adds ``(v1 + v2) z z'`` to the covariance of the rows of a level: only the sum of its two variances
    can be estimated.

    Parameters
    ----------
    arrangement : Arrangement
    made : mapping
        Names of the columns of each text.
    alike : callable
        Whether two factors, by their positions, have the same levels under other names.
    proportional : callable
        Positions of two columns of two texts that are multiples of each other, if any are.

    Raises
    ------
    ModelError
        Names both terms.
    """
    same = {(f, g) for f, g in combinations(range(len(arrangement.factors)), 2) if alike(f, g)}
    for (one, first), (other, second) in combinations(arrangement.side_by_side, 2):
        if one.factor != other.factor and (one.factor, other.factor) not in same:
            continue
        # An identity structure of several columns has no variance of a column's own.
        if any(t.covariance.name == "identity" and len(t.columns) > 1 for t in (one, other)):
            continue
        found = proportional(first, second)
        if found is None:
            continue
        a, b = made[first].names[found[0]], made[second].names[found[1]]
        shared = f"the column {a!r}" if a == b else f"the columns {a!r} and {b!r}, which are proportional"
        if one.factor == other.factor:
            message = f"the terms {one.label} and {other.label} share {shared}"
        else:
            names = [arrangement.factors[t.factor].name for t in (one, other)]
            message = (
                f"the grouping factors {names[0]!r} and {names[1]!r} divide the rows in the same way, and the terms "
                f"{one.label} and {other.label} share {shared}"
            )
        raise ModelError(f"{message}: two of their variances cannot be told apart; leave one out")


def same_partition(one: Grouping, other: Grouping) -> bool:
    """Whether two factors have the same levels under other names."""
    if len(one.levels) != len(other.levels):
        return False
    head = slice(FIRST_ROWS)
    return _translates(one.codes[head], other.codes[head], len(one.levels)) and _translates(
        one.codes, other.codes, len(one.levels)
    )


def _translates(codes: NDArray[np.int32], others: NDArray[np.int32], n_levels: int) -> bool:
    """Whether every level in `codes` goes with one level in `others` only."""
    table = np.zeros(n_levels, dtype=np.int32)
    table[codes] = others
    return bool(np.array_equal(table[codes], others))


def proportional_columns(A: FloatArray, B: FloatArray) -> tuple[int, int] | None:
    """Positions of a column of A and one of B that are multiples of each other."""
    for i in range(A.shape[1]):
        for j in range(B.shape[1]):
            a, b = A[:, i], B[:, j]
            if _parallel(a[:FIRST_ROWS], b[:FIRST_ROWS]) and _parallel(a, b):
                return i, j
    return None


def _parallel(a: FloatArray, b: FloatArray) -> bool:
    """Whether two columns are multiples of each other; those of a triangular factor are where those of the rows are."""
    a, b = (column / max(float(np.abs(column).max()), np.finfo(float).tiny) for column in (a, b))
    squares = float(a @ a)
    rest = b - a * (float(a @ b) / squares if squares else 0.0)
    return not squares or bool(np.linalg.norm(rest) <= RANK_TOLERANCE * np.linalg.norm(b))
