"""New rows of a model that was written with groups: columns of its fixed and random parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from formulaic import ModelSpec
from formulaic.parser.types import Factor
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.design.covariates import covariates
from crosslmm.design.fixed import materialize_again
from crosslmm.design.frame import read_columns, settle
from crosslmm.design.grouping import cross, encode
from crosslmm.design.rows import Design
from crosslmm.design.variables import column_uses, used_columns
from crosslmm.errors import DataError, ModelError
from crosslmm.formula import MixedFormula, RandomTerm
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


def new_fixed(model: MixedLM, table: Any) -> tuple[pd.Index, NDArray[np.bool_], FloatArray]:
    """Index of a table, which of its rows are complete, and their fixed-effects columns (kept ones)."""
    spec, kept = fixed_part(model)
    frame, complete, used = _complete(model, model.formula.fixed, (), table)
    matrix = materialize_again([spec], used, _context(model))[0]
    return frame.index, complete, np.asarray(matrix, dtype=float)[:, kept]


def _complete(
    model: MixedLM, fixed: str, random: tuple[RandomTerm, ...], table: Any
) -> tuple[pd.DataFrame, NDArray[np.bool_], pd.DataFrame]:
    """The columns that parts of a formula use, which rows are complete, and those for formulaic."""
    part = MixedFormula("", "0", fixed, random)
    context = _context(model)
    names = used_columns(part, _names(table), context)
    frame = read_columns(table, names) if names else pd.DataFrame(index=_index(table))
    complete = frame.notna().all(axis=1).to_numpy() if names else np.ones(len(frame), dtype=bool)
    return frame, complete, covariates(settle(frame[complete]), *column_uses(part))


def _names(table: Any) -> list[str]:
    from crosslmm.design.frame import column_names

    return column_names(table)


def _index(table: Any) -> pd.Index:
    if isinstance(table, pd.DataFrame):
        return table.index
    return pd.RangeIndex(len(table[next(iter(table))]) if isinstance(table, dict) else len(table))


def new_random(model: MixedLM, modes: tuple[FloatArray, ...], table: Any, groups: Any) -> FloatArray:
    """``Z b`` of new rows (n,); nan where a value is missing, 0 for levels that the model did not see.

    Parameters
    ----------
    model : MixedLM
    modes : tuple of ndarray, each (L, k)
    table : table
    groups : array or None
        Where the model's groups are no column.
    """
    design, written = model.design, model.written
    if not isinstance(design, Design) or written is None:
        raise ModelError("random effects of new rows need a model whose rows are in memory")
    specs = dict(zip(_texts_in_order(model, written), design.random_specs, strict=True))
    frame = _with_groups(table, written, groups)
    total = np.zeros(len(frame))
    filled = [0] * len(modes)
    for term in sorted(model.formula.random, key=lambda term: list(specs).index(term.text)):
        f = next(i for i, factor in enumerate(design.layout.factors) if factor.name == term.group)
        own, complete, used = _complete(model, "0", (term,), frame)
        levels = read_columns(frame, term.grouping)
        complete = complete & levels.notna().all(axis=1).to_numpy()
        used = used[complete[own.notna().all(axis=1).to_numpy()]] if len(own.columns) else used[complete]
        Z = np.asarray(materialize_again([specs[term.text]], used, written.context)[0], dtype=float)
        codes = _codes(levels[complete], design.layout.factors[f].levels)
        b = modes[f][:, filled[f] : filled[f] + Z.shape[1]]
        filled[f] += Z.shape[1]
        values = np.full(len(frame), np.nan)
        values[complete] = np.where(codes >= 0, np.einsum("ij,ij->i", Z, b[codes]), 0.0)
        total += values
    return total


def _texts_in_order(model: MixedLM, written: Written) -> list[str]:
    """Terms as they were written, in the order of the layout."""
    text = written.part.re_term
    labels = [
        text if text is not None and term.label.startswith(text) else term.label for term in model.design.layout.terms
    ]
    return list(dict.fromkeys(labels))


def _with_groups(table: Any, written: Written, groups: Any) -> pd.DataFrame:
    frame = table if isinstance(table, pd.DataFrame) else read_columns(table, _names(table))
    if groups is not None:
        if np.shape(groups) != (len(frame),):
            raise DataError(f"groups must hold one label for each of the {len(frame)} new rows")
        return frame.assign(**{written.part.column: np.asarray(groups)})
    if written.part.column not in frame.columns:
        raise DataError(
            f"the new rows have no column {written.part.column!r} of groups; pass groups= with one label per row"
        )
    return frame


def _codes(levels: pd.DataFrame, known: NDArray[Any]) -> NDArray[np.intp]:
    """Position of every row's level among the model's; -1 for one that it did not see."""
    if not len(levels):
        return np.zeros(0, dtype=np.intp)
    crossed = cross([encode(levels[name]) for name in levels.columns])
    place = {label: i for i, label in enumerate(known.tolist())}
    return np.array([place.get(label, -1) for label in crossed.levels.tolist()], dtype=np.intp)[crossed.codes]
