"""What is settled between the passes: levels, encodings, names, and the coordinates of a sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from formulaic import ModelSpec
from formulaic.parser.types import Factor

from crosslmm.covariance import FloatArray
from crosslmm.design.complete import check_any_complete, complete_part
from crosslmm.design.covariates import covariates
from crosslmm.design.fixed import FIXED_PART, Columns, as_columns, materialize, response_column
from crosslmm.design.frame import settle_column
from crosslmm.design.random import Arrangement, arrange, random_part
from crosslmm.design.variables import computed_pieces, is_coded_column
from crosslmm.formula import MixedFormula
from crosslmm.layout import Layout
from crosslmm.sources.columns import CATEGORIES, TEXT
from crosslmm.sources.learn import Learned, Needs
from crosslmm.sources.levels import Combinations, LevelTable
from crosslmm.sources.provisional import sample_coordinates
from crosslmm.sources.rowwise import NeedsAllRows, check_row_wise
from crosslmm.sources.scalings import with_scalings


@dataclass(frozen=True)
class Schema:
    """How a batch becomes rows of the model.

    Attributes
    ----------
    formula : MixedFormula
    needs : Needs
    context : mapping
    n, n_dropped : int
        Complete rows, and others.
    tables : dict of str to LevelTable
        Of the grouping columns.
    categories : dict of str to LevelTable
        Of the covariates that are categories.
    combinations : dict of tuple to Combinations
        Of the factors of several columns.
    response_spec : formulaic.ModelSpec
    fixed : Columns
        Names and encoding of the fixed part, without values.
    random : dict of str to Columns
        The same for the columns of random-effects terms, by their formula.
    arrangement : Arrangement
    layout : Layout
        With all columns of the fixed part and the coordinates of the sample.
    """

    formula: MixedFormula
    needs: Needs
    context: Mapping[str, Any]
    n: int
    n_dropped: int
    tables: Mapping[str, LevelTable]
    categories: Mapping[str, LevelTable]
    combinations: Mapping[tuple[str, ...], Combinations]
    response_spec: ModelSpec
    fixed: Columns
    random: Mapping[str, Columns]
    arrangement: Arrangement
    layout: Layout

    @property
    def specs(self) -> list[ModelSpec]:
        """Encodings of the response, the fixed part and the random parts."""
        return [self.response_spec, self.fixed.spec, *(columns.spec for columns in self.random.values())]

    @property
    def computes(self) -> bool:
        """Whether Python computes a piece of the formula."""
        return bool(computed_pieces(self.formula))


def make_schema(formula: MixedFormula, needs: Needs, learned: Learned, context: Mapping[str, Any]) -> Schema:
    """Settle what the first pass has learned.

    Raises
    ------
    DataError, ModelError
        As `crosslmm.design.build_design`.
    NeedsAllRows
        The formula says of a row what depends on others.
    """
    check_any_complete(learned.n, learned.missing)
    tables = {name: _table(name, learned) for name in needs.level_columns}
    categories = {name: _table(name, learned) for name in needs.covariates if _is_category(name, needs, learned)}
    combinations = {names: _combination(names, learned, tables) for names in learned.combinations}
    levels = {
        names: combinations[names].grouping.levels if len(names) > 1 else tables[names[0]].levels
        for names in needs.groupings
    }
    rows = complete_part(learned.sample.reset_index(drop=True), needs.weights, needs.offset, needs.missing)
    used = _finite_rows(formula, encoded(rows.frame, needs, categories), context)
    matrices = materialize(f"{formula.response} ~ {formula.fixed}", used, context)
    y = response_column(formula.response, matrices.lhs, used, context)
    fixed = as_columns(matrices.rhs, FIXED_PART)
    texts = dict.fromkeys(term.columns for term in formula.random)
    random = {text: as_columns(materialize(text, used, context), random_part(text)) for text in texts}
    specs = [matrices.lhs.model_spec, fixed.spec, *(columns.spec for columns in random.values())]
    _check_categories(specs)
    check_row_wise(formula, used, context, learned.scalings)
    arrangement = arrange(formula.random, levels, random, learned.n)
    offset = None if rows.offset is None else rows.offset[used.index]
    target = y if offset is None else y - offset
    standardization = sample_coordinates(
        fixed.values, target, arrangement, {text: columns.values for text, columns in random.items()}
    )
    return Schema(
        formula=formula,
        needs=needs,
        context=context,
        n=learned.n,
        n_dropped=learned.n_dropped,
        tables=tables,
        categories=categories,
        combinations=combinations,
        response_spec=with_scalings(matrices.lhs.model_spec, learned.scalings),
        fixed=_settled(fixed, learned),
        random={text: _settled(columns, learned) for text, columns in random.items()},
        arrangement=arrangement,
        layout=Layout(formula.response, fixed.names, (), arrangement.factors, arrangement.terms, standardization),
    )


def _table(name: str, learned: Learned) -> LevelTable:
    facts = learned.columns[name]
    return LevelTable.of(name, facts.values(), ordered=facts.ordered)


def _is_category(name: str, needs: Needs, learned: Learned) -> bool:
    """Whether a covariate is a category, wherever it is used as one."""
    if name in needs.categories:
        return True
    kind = learned.columns[name].kind
    if name in needs.coded and kind not in (TEXT, CATEGORIES):
        raise NeedsAllRows(
            f"the column {name!r} is used as a number and as categories in C({name}); rows that come in batches need a "
            "column for each: add a copy of it"
        )
    return kind in (TEXT, CATEGORIES) and (name in needs.plain or name in needs.coded or kind == CATEGORIES)


def _combination(names: tuple[str, ...], learned: Learned, tables: Mapping[str, LevelTable]) -> Combinations:
    rows = pd.concat(learned.combinations[names], ignore_index=True).drop_duplicates(ignore_index=True)
    parts = [tables[name] for name in names]
    return Combinations.of(parts, [table.look_up(rows[table.name]) for table in parts])


def encoded(frame: pd.DataFrame, needs: Needs, categories: Mapping[str, LevelTable]) -> pd.DataFrame:
    """The covariates of complete rows: numbers in double precision, categories with the levels of all rows."""
    columns = {}
    for name in needs.covariates:
        if name in categories:
            table = categories[name]
            values = pd.Categorical.from_codes(table.look_up(frame[name]), categories=table.values)
            columns[name] = pd.Series(values, index=frame.index)
        else:
            columns[name] = settle_column(frame[name])
    settled = pd.DataFrame(columns, index=frame.index, copy=False)
    return covariates(settled, needs.plain, needs.categories)


def _finite_rows(formula: MixedFormula, used: pd.DataFrame, context: Mapping[str, Any]) -> pd.DataFrame:
    """Rows of the sample on which all of the formula is finite, or all rows where none is.

    What is not finite is refused in the second pass, by the name of its batch.
    """
    used = used.set_axis(pd.RangeIndex(len(used)))
    texts = [f"0 + {formula.response}", formula.fixed, *(term.columns for term in formula.random)]
    good = np.ones(len(used), dtype=bool)
    for text in dict.fromkeys(texts):
        values = np.asarray(materialize(text, used, context))
        if values.dtype.kind == "f":
            good &= np.isfinite(values).all(axis=1)
    return used[good] if good.any() else used


def _check_categories(specs: list[ModelSpec]) -> None:
    """Refuse categories whose levels are known only when all rows have been computed."""
    for spec in specs:
        for name, (kind, _) in spec.encoder_state.items():
            if kind is Factor.Kind.CATEGORICAL and not is_coded_column(name):
                raise NeedsAllRows(
                    f"'{name}' makes categories of values that are computed, so their levels are known only when all "
                    "rows have been seen; add them to the data as a column"
                )


def _settled(columns: Columns, learned: Learned) -> Columns:
    """Names and encoding of columns, which scale by all rows, without the values of the sample."""
    values: FloatArray = np.empty((0, len(columns.names)))
    return replace(columns, values=values, spec=with_scalings(columns.spec, learned.scalings))
