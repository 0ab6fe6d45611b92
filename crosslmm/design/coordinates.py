"""Which fixed-effects columns are kept, and the coordinates of the engine: from triangular factors, not from rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.design.fixed import Columns
from crosslmm.design.qr import NEARLY_CONSTANT, ROUNDING, combinations, independent_columns, plain_factor
from crosslmm.design.random import Arrangement
from crosslmm.design.standardize import TermSums, check_spread, fixed_coordinates, term_basis
from crosslmm.errors import ModelError, RankDeficiencyWarning, warn
from crosslmm.layout import Standardization


@dataclass(frozen=True)
class Ranges:
    """Smallest and largest values and standard deviations of columns; arrays (k,)."""

    low: FloatArray
    high: FloatArray
    sd: FloatArray


def ranges(columns: FloatArray) -> Ranges:
    """Of columns (n, k)."""
    return Ranges(columns.min(axis=0), columns.max(axis=0), columns.std(axis=0))


@dataclass(frozen=True)
class FixedSums:
    """What the coordinates of the fixed part need of the rows.

    Attributes
    ----------
    n : int
        Number of rows.
    factor : ndarray, shape (m, p + 1)
        Triangular factor of ``[X, y - offset]``.
    mean, spread : float
        Of ``y - offset``: its mean, and its length without it.
    intercept : bool
        Whether the first column of X is 1 in every row.
    ranges : callable
        `Ranges` of the columns of X at some positions.
    """

    n: int
    factor: FloatArray
    mean: float
    spread: float
    intercept: bool
    ranges: Callable[[NDArray[np.intp]], Ranges]


def coordinates(
    response: str, fixed: Columns, sums: FixedSums, arrangement: Arrangement, terms: Mapping[str, TermSums]
) -> tuple[NDArray[np.intp], Standardization]:
    """Which fixed-effects columns are kept, and the coordinates of the engine.

    Parameters
    ----------
    response : str
    fixed : Columns
        Names of the columns; the values are not looked at.
    sums : FixedSums
    arrangement : Arrangement
    terms : mapping
        Sums of the columns of each text of the arrangement.

    Returns
    -------
    kept : ndarray of intp
    standardization : Standardization

    Raises
    ------
    ModelError
        The fixed part has as many columns as there are rows or fits perfectly, or a random-effects term has dependent
        columns.

    Warns
    -----
    RankDeficiencyWarning
        Fixed-effects columns are dropped.
    """
    check_spread(sums.mean, sums.spread, sums.n, response)
    R, p = sums.factor, len(fixed.names)
    kept = independent_columns(R[:, :p], intercept=sums.intercept)
    if kept.size >= sums.n:
        raise ModelError(f"the fixed part has {kept.size} independent columns, but there are only {sums.n} rows")
    dropped = np.setdiff1d(np.arange(p), kept)
    aliases = combinations(R[:, kept], R[:, dropped])
    if dropped.size:
        _warn_dropped(fixed, dropped, sums)
        R = plain_factor(R[:, [*kept, p]])
    if fixed.empty:
        warn(
            f"{', '.join(map(repr, fixed.empty))} of the fixed part has one level only in the rows used and gives no "
            "column",
            RankDeficiencyWarning,
        )
    x_basis, origin, scale = fixed_coordinates(R, sums.n, response, sums.spread)
    z_bases = [np.zeros((factor.size, factor.size)) for factor in arrangement.factors]
    for term, text in arrangement.side_by_side:
        names = [arrangement.factors[term.factor].columns[j] for j in term.columns]
        basis = term_basis(terms[text], term.covariance, names, term.label)
        z_bases[term.factor][np.ix_(term.columns, term.columns)] = basis
    return kept, Standardization(x_basis, tuple(z_bases), origin, scale, aliases)


def _warn_dropped(fixed: Columns, dropped: NDArray[np.intp], sums: FixedSums) -> None:
    names = ", ".join(repr(fixed.names[j]) for j in dropped)
    message = f"dropped fixed-effects columns that are linear combinations of earlier ones: {names}"
    columns = sums.ranges(dropped)
    size = np.maximum(np.abs(columns.low), np.abs(columns.high))
    least = ROUNDING if sums.intercept else NEARLY_CONSTANT
    hardly = (columns.low < columns.high) & (columns.sd <= least * size)
    if hardly.any():
        centre = ", ".join(repr(fixed.names[j]) for j in dropped[hardly])
        message += f" ({centre}: hardly varies against its size; subtract its mean first)"
    warn(message, RankDeficiencyWarning)
