"""Terms and codings of the fixed part of a model that was written with groups, and the groups of new rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from formulaic import ModelSpec
from formulaic.parser.types import Factor
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.design.fixed import materialize_again
from crosslmm.design.frame import column_names, read_columns
from crosslmm.design.groups import label_values
from crosslmm.design.rows import Design
from crosslmm.design.variables import used_columns
from crosslmm.errors import DataError, ModelError
from crosslmm.formula import MixedFormula
from crosslmm.grouped.written import Written
from crosslmm.sources.stream import Streamed

if TYPE_CHECKING:
    from crosslmm.model import MixedLM


def fixed_part(model: MixedLM) -> tuple[ModelSpec, NDArray[np.intp]]:
    """What makes the fixed-effects columns, and which of them are kept.

    Raises
    ------
    ModelError
        The rows were removed.
    """
    design = model.design
    if isinstance(design, Design):
        return design.fixed_spec, design.fixed_kept
    if isinstance(design, Streamed):
        return design.schema.fixed.spec, design.kept
    raise ModelError("the data of this model were removed, and with them how new rows become columns; keep the model")


def columns_of_terms(model: MixedLM) -> list[tuple[str, list[int]]]:
    """Terms of the fixed part with the positions of their kept columns, in the order of these."""
    spec, kept = fixed_part(model)
    position = {int(j): i for i, j in enumerate(kept)}
    found, start = [], 0
    for part in spec.structure:
        own = range(start, start + len(part.columns))
        start += len(part.columns)
        name = "Intercept" if str(part.term) == "1" else str(part.term)
        found.append((name, sorted(position[j] for j in own if j in position)))
    return sorted(found, key=lambda term: term[1][:1])


def codings(model: MixedLM, term: str) -> tuple[list[Any], FloatArray]:
    """Levels of a term that is one category, and their rows in the fixed-effects columns; (L, p).

    Raises
    ------
    ModelError
        There is no such term.
    """
    spec, kept = fixed_part(model)
    part = next((part for part in spec.structure if str(part.term) == term), None)
    if part is None or len(part.term.factors) != 1:
        names = ", ".join(repr(name) for name, _ in columns_of_terms(model))
        raise ModelError(f"no term {term!r} of one category in the fixed part; its terms are {names}")
    kind, state = spec.encoder_state.get(term, (None, {}))
    if kind is not Factor.Kind.CATEGORICAL:
        raise ModelError(f"the term {term!r} is no category")
    levels = list(state["categories"])
    columns = list(spec.column_names)
    own = [columns.index(column) for column in part.columns]
    variable = used_columns(MixedFormula("", "0", term, ()), (), _context(model))[0]
    alone = spec.subset(f"0 + {term}") if "Intercept" not in columns else spec.subset(f"1 + {term}")
    frame = pd.DataFrame({variable: pd.Categorical(levels, categories=levels)})
    matrix = np.asarray(materialize_again([alone], frame, _context(model))[0], dtype=float)
    made = list(alone.column_names)
    rows = np.zeros((len(levels), len(columns)))
    rows[:, own] = matrix[:, [made.index(column) for column in part.columns]]
    return levels, rows[:, kept]


def _context(model: MixedLM) -> Any:
    return {} if model.written is None else model.written.context


def with_groups(table: Any, written: Written, groups: Any) -> Any:
    """New rows with the column of their groups.

    Raises
    ------
    DataError
        There is none.
    """
    if groups is None:
        if written.part.column not in column_names(table):
            raise DataError(
                f"the new rows have no column {written.part.column!r} of groups; pass groups= with one label per row"
            )
        return table
    frame = table if isinstance(table, pd.DataFrame) else read_columns(table, column_names(table))
    if np.shape(groups) != (len(frame),):
        raise DataError(f"groups must hold one label for each of the {len(frame)} new rows")
    return frame.assign(**{written.part.column: label_values(groups)})
