"""Formulas that can be evaluated batch by batch: what they say of a row depends on that row alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from formulaic import ModelSpec

from crosslmm.covariance import FloatArray
from crosslmm.design.fixed import materialize, materialize_again
from crosslmm.design.variables import computed_pieces, named_calls
from crosslmm.errors import DataError
from crosslmm.formula import MixedFormula
from crosslmm.sources.moments import Moments
from crosslmm.sources.scalings import called, is_scaling, with_scalings

ALL_ROWS = {
    "bs": "its knots are quantiles of all rows",
    "cc": "its knots are quantiles of all rows",
    "cr": "its knots are quantiles of all rows",
    "cs": "its knots are quantiles of all rows",
    "poly": "its polynomials are orthogonal over all rows",
    "scale": "its options are taken from all rows",
    "standardize": "its options are taken from all rows",
    "center": "its options are taken from all rows",
    "lag": "it takes the value of another row",
    "hashed": "its categories are those of all rows",
}
"""Functions of the formula language that no batch can evaluate by itself, and why."""

ALONE = 6
"""Rows that are evaluated each by itself, to see whether that changes them."""

SAME = 1e-9
"""Relative difference below which two evaluations of a row are the same: other lengths may round otherwise."""

ROUNDING = 1e-12
"""The same relative to the largest value: what subtractions make of rounding."""


class NeedsAllRows(DataError):
    """The formula cannot be evaluated batch by batch."""


def check_functions(formula: MixedFormula, context: Mapping[str, Any]) -> None:
    """Refuse functions of the formula language that need all rows; those of `context` hide them.

    Raises
    ------
    NeedsAllRows
    """
    for call, piece in named_calls(formula):
        name = called(call)
        if name in ALL_ROWS and name not in context and not is_scaling(call):
            raise NeedsAllRows(
                f"'{piece}' needs all rows at once ({ALL_ROWS[name]}), and these rows come in batches; compute the "
                "column beforehand and use it by its name"
            )


def check_row_wise(
    formula: MixedFormula, used: pd.DataFrame, context: Mapping[str, Any], scalings: Mapping[str, Moments]
) -> None:
    """Evaluate what Python computes on some rows and on parts of them, and compare.

    Parameters
    ----------
    formula : MixedFormula
    used : DataFrame
        Rows, with the columns that formulaic reads.
    context : mapping
    scalings : mapping
        Moments of what is scaled.

    Raises
    ------
    NeedsAllRows
        A piece of the formula says something else of a row when other rows are with it.
    """
    for piece in computed_pieces(formula):
        spec = with_scalings(materialize(f"0 + {piece}", used, context).model_spec, scalings)
        whole = _values(spec, used, context)
        for part in _parts(len(used)):
            if not _same(_values(spec, used.iloc[part], context), None if whole is None else whole[part]):
                raise NeedsAllRows(
                    f"'{piece}' says something else of a row when other rows are with it, and these rows come in "
                    "batches; compute the column beforehand and use it by its name"
                )


def _parts(n: int) -> list[np.ndarray]:
    """Every other row, the others, and some rows alone."""
    rows = np.arange(n)
    alone = np.linspace(0, n - 1, min(n, ALONE)).astype(np.intp)
    return [part for part in (rows[::2], rows[1::2], *(rows[i : i + 1] for i in alone)) if 0 < part.size < n]


def _values(spec: ModelSpec, used: pd.DataFrame, context: Mapping[str, Any]) -> FloatArray | None:
    """Columns of a piece of a formula; None where they are no numbers."""
    values = np.asarray(materialize_again([spec], used, context)[0])
    return values.astype(np.float64) if np.can_cast(values.dtype, np.float64, "same_kind") else None


def _same(part: FloatArray | None, whole: FloatArray | None) -> bool:
    if part is None or whole is None:
        return part is whole
    if part.shape != whole.shape:
        return False
    size = np.abs(whole[np.isfinite(whole)]).max(initial=0.0)
    with np.errstate(all="ignore"):
        return bool(np.allclose(part, whole, rtol=SAME, atol=ROUNDING * size, equal_nan=True))


def check_part(formula: MixedFormula, whole: list[FloatArray], part: list[FloatArray], rows: np.ndarray) -> None:
    """Refuse matrices whose rows differ from those of the same rows alone.

    Raises
    ------
    NeedsAllRows
    """
    if not all(_same(one, matrix[rows]) for one, matrix in zip(part, whole, strict=True)):
        pieces = " or ".join(f"'{piece}'" for piece in computed_pieces(formula))
        raise NeedsAllRows(
            f"{pieces} says something else of a row when other rows are with it, and these rows come in batches; "
            "compute the column beforehand and use it by its name"
        )
