"""A batch as rows of the model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from crosslmm.covariance import FloatArray
from crosslmm.design.complete import complete_part
from crosslmm.design.fixed import FIXED_PART, RESPONSE, as_columns, materialize_again
from crosslmm.design.frame import read_columns
from crosslmm.design.random import random_part
from crosslmm.design.rows import Rows
from crosslmm.sources.levels import Codes
from crosslmm.sources.protocol import Batch, batch_errors
from crosslmm.sources.rowwise import check_part
from crosslmm.sources.schema import Schema, encoded

COMPARED = 16
"""Rows of every batch that are evaluated apart from it too, where Python computes a piece of the formula."""


@dataclass(frozen=True)
class Evaluated:
    """Rows of a batch.

    Attributes
    ----------
    rows : Rows
        With all columns of the fixed part.
    columns : dict of str to ndarray
        Random-effects columns by their formula.
    index : pandas.Index
        Labels of the rows.
    """

    rows: Rows
    columns: dict[str, FloatArray]
    index: pd.Index


def evaluate(schema: Schema, batch: Batch) -> Evaluated | None:
    """Complete rows of a batch in the units of the data; None where there are none.

    Raises
    ------
    DataError
        The batch does not serve the formula, or holds levels that are not known; names it.
    """
    needs = schema.needs
    with batch_errors(batch.name):
        frame = read_columns(batch.table, needs.columns)
        complete = complete_part(frame, needs.weights, needs.offset, needs.missing)
        if len(complete.frame) == 0:
            return None
        used = encoded(complete.frame, needs, schema.categories)
        y, X, *parts = _matrices(schema, used)
        if schema.computes:
            some = np.linspace(0, len(used) - 1, min(len(used), COMPARED)).astype(np.intp)
            check_part(schema.formula, [y, X, *parts], _matrices(schema, used.iloc[some]), some)
        columns = dict(zip(schema.random, parts, strict=True))
        rows = Rows(
            y=y[:, 0],
            X=X,
            codes=_codes(schema, complete.frame),
            Z=tuple(_side_by_side([columns[text] for text in texts]) for texts in schema.arrangement.texts),
            weights=complete.weights,
            offset=complete.offset,
        )
    return Evaluated(rows, columns, complete.frame.index)


def _matrices(schema: Schema, used: pd.DataFrame) -> list[FloatArray]:
    whats = [RESPONSE, FIXED_PART, *map(random_part, schema.random)]
    matrices = materialize_again(schema.specs, used, schema.context)
    return [as_columns(matrix, what).values for matrix, what in zip(matrices, whats, strict=True)]


def _codes(schema: Schema, frame: pd.DataFrame) -> tuple[Codes, ...]:
    single = {name: schema.tables[name].look_up(frame[name]) for name in schema.needs.level_columns}
    return tuple(
        schema.combinations[names].look_up([single[name] for name in names]) if len(names) > 1 else single[names[0]]
        for names in schema.arrangement.names
    )


def _side_by_side(parts: list[FloatArray]) -> FloatArray:
    return parts[0] if len(parts) == 1 else np.hstack(parts)
