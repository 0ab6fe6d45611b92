"""The learned encoding of a model: how rows become columns and codes, without the rows it was learned from."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from formulaic import ModelSpec
from formulaic.errors import DataMismatchWarning
from formulaic.parser.types import Factor
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype

from crosslmm.covariance import FloatArray
from crosslmm.design.covariates import covariates
from crosslmm.design.fixed import FIXED_PART, Columns, as_columns, materialize_again
from crosslmm.design.frame import settle
from crosslmm.design.grouping import cross, encode
from crosslmm.design.random import random_part
from crosslmm.design.rows import Design, ModelRows
from crosslmm.design.variables import coded_column, column_uses, computed_pieces, used_columns
from crosslmm.errors import DataError, ModelError
from crosslmm.formula import MixedFormula, RandomTerm
from crosslmm.formula.bars import term_text
from crosslmm.layout import Layout, Term
from crosslmm.sources.rowwise import NeedsAllRows, check_part
from crosslmm.sources.stream import Streamed

SHOWN = 5
"""Values that a message lists at most."""

NEARBY = 1.001
"""How much larger the numbers of a row's neighbour are."""

COMPARED = 16
"""Rows that are evaluated apart from the others too, where Python computes a piece of the formula."""


@dataclass(frozen=True)
class Encoded:
    """The columns that one text of a formula makes.

    Attributes
    ----------
    text : str
        Right-hand side for formulaic.
    spec : formulaic.ModelSpec
        With the categories and transformations of the rows it was learned from.
    names : tuple of str
        Of its columns.
    kept : ndarray of intp
        Positions of the columns that are used.
    """

    text: str
    spec: ModelSpec
    names: tuple[str, ...]
    kept: NDArray[np.intp]


@dataclass(frozen=True)
class Encoding:
    """How rows become columns and codes.

    Attributes
    ----------
    formula : MixedFormula
    fixed : Encoded
    terms : tuple of Encoded
        Columns of each term of the layout.
    groupings : tuple of tuple of str
        Data columns whose combinations are the levels of each factor of the layout.
    levels : tuple of ndarray of object
        Labels of the levels of each factor.
    context : mapping
        Further names that the formula uses.
    weights, offset : str or None
        Columns of prior weights and of the known part of the response.
    """

    formula: MixedFormula
    fixed: Encoded
    terms: tuple[Encoded, ...]
    groupings: tuple[tuple[str, ...], ...]
    levels: tuple[NDArray[Any], ...]
    context: Mapping[str, Any]
    weights: str | None
    offset: str | None

    def part(self, terms: Sequence[int]) -> MixedFormula:
        """The fixed part and some terms, as a formula without a response."""
        random = tuple(RandomTerm(self.terms[t].text, (), "", "", "") for t in terms)
        return MixedFormula("", "0", self.fixed.text, random)

    def columns(self, part: MixedFormula, present: Sequence[str]) -> list[str]:
        """Data columns that formulaic reads for a part."""
        return used_columns(part, present, self.context)

    def matrices(self, part: MixedFormula, terms: Sequence[int], complete: pd.DataFrame) -> list[FloatArray]:
        """Columns of the fixed part and of some terms for complete rows; each (n, k).

        Raises
        ------
        DataError
            A column has another type than in the fit, a category that the fit has not seen, or a value of which the
            formula makes nothing finite.
        """
        used = covariates(settle(complete), *column_uses(part))
        pieces = [self.fixed, *(self.terms[t] for t in terms)]
        whats = [FIXED_PART, *(random_part(self.terms[t].text) for t in terms)]
        for piece in pieces:
            check_categories(piece.spec, used)
        made = self._evaluated(pieces, whats, used)
        if computed_pieces(part):
            self._check_row_wise(part, pieces, whats, used, made)
        return [_kept(matrix, piece) for matrix, piece in zip(made, pieces, strict=True)]

    def _evaluated(self, pieces: Sequence[Encoded], whats: Sequence[str], used: pd.DataFrame) -> list[FloatArray]:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DataMismatchWarning)  # categories of values that Python computes
            made = materialize_again([_copied(piece.spec) for piece in pieces], used, self.context)
        return [_checked(as_columns(*pair), piece) for *pair, piece in zip(made, whats, pieces, strict=True)]

    def _check_row_wise(
        self,
        part: MixedFormula,
        pieces: Sequence[Encoded],
        whats: Sequence[str],
        used: pd.DataFrame,
        made: Sequence[FloatArray],
    ) -> None:
        """Refuse pieces that say something else of a row when other rows are with it."""
        rows = np.linspace(0, len(used) - 1, max(min(len(used) // 2, COMPARED), 1)).astype(np.intp)
        other = used.iloc[rows]
        try:
            again = self._evaluated(pieces, whats, _with_a_neighbour(other) if len(used) == 1 else other)
        except DataError:
            return  # the neighbour is outside what the formula can do
        again = [matrix[: rows.size] for matrix in again]
        try:
            check_part(part, list(made), again, rows)
        except NeedsAllRows as error:
            texts = " or ".join(f"'{piece}'" for piece in computed_pieces(part))
            raise DataError(
                f"{texts} says something else of a row when other rows are with it, and has no meaning for new rows; "
                "functions that remember the rows of the fit, such as center(x) and scale(x), have"
            ) from error

    def codes(self, factor: int, complete: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Levels of complete rows, and the labels of new ones.

        Returns
        -------
        codes : ndarray, shape (n,)
            Position among the known levels, and from their number upwards for new ones.
        new : ndarray of object
            Labels of new levels.
        """
        names = self.groupings[factor]
        known = self.levels[factor]
        if len(complete) == 0:
            return np.zeros(0, dtype=np.int64), np.empty(0, dtype=object)
        settled = settle(complete[list(names)])
        found = cross([encode(settled[name]) for name in names])
        place = {label: i for i, label in enumerate(known.tolist())}
        where = np.array([place.get(label, -1) for label in found.levels.tolist()], dtype=np.int64)
        unknown = where < 0
        where[unknown] = len(known) + np.arange(int(unknown.sum()))
        return where[found.codes], found.levels[unknown]


def _copied(spec: ModelSpec) -> ModelSpec:
    """The specification with a state of its own: formulaic writes into it, and rows may be refused after that."""
    states = {"encoder_state": deepcopy(spec.encoder_state), "transform_state": deepcopy(spec.transform_state)}
    return spec.update(**states)


def _with_a_neighbour(row: pd.DataFrame) -> pd.DataFrame:
    """One row, and another whose numbers are a little larger."""
    other = row.copy()
    for name in row.columns:
        if row[name].dtype == np.float64:
            other[name] = NEARBY * row[name] + (NEARBY - 1.0)
    return pd.concat([row, other])


def _kept(matrix: FloatArray, piece: Encoded) -> FloatArray:
    """The columns that are used, in their order."""
    whole = np.array_equal(piece.kept, np.arange(matrix.shape[1]))
    return matrix if whole else matrix[:, piece.kept]


def _checked(made: Columns, piece: Encoded) -> FloatArray:
    """Columns, once they are those of the fit."""
    if made.names != piece.names:
        now, then = ", ".join(made.names), ", ".join(piece.names)
        raise ModelError(
            f"'{piece.text}' makes the columns {now} of these rows and made {then} when the model was fitted"
        )
    return made.values


def check_categories(spec: ModelSpec, used: pd.DataFrame) -> None:
    """Refuse text for a number, and a category that the fit has not seen where a piece is a column or ``C(column)``.

    Raises
    ------
    DataError
        Names the piece of the formula and the categories.
    """
    for piece, (kind, state) in spec.encoder_state.items():
        if kind is Factor.Kind.NUMERICAL and piece in used.columns and not is_numeric_dtype(used[piece].dtype):
            held = shown(used[piece].unique())
            raise DataError(f"{piece!r} was a number when the model was fitted, and here it holds {held}: convert it")
        if "categories" not in state:
            continue
        column = piece if piece in used.columns else coded_column(piece)
        if column not in used.columns:
            continue
        new = pd.Index(used[column].unique()).difference(pd.Index(state["categories"]), sort=False)
        if len(new):
            raise DataError(
                f"{piece!r} has categories that were not there when the model was fitted: {shown(new)} (it knows "
                f"{shown(state['categories'])}); nothing is known of their effects: leave these rows out, or "
                "recode them"
            )


def shown(values: Any) -> str:
    """The first of some values, for messages."""
    listed = [str(value) if isinstance(value, np.generic) else repr(value) for value in list(values)[:SHOWN]]
    return ", ".join(listed) + (", ..." if len(values) > SHOWN else "")


def encoding_of(design: ModelRows, formula: MixedFormula) -> Encoding:
    """The encoding of the rows of a model.

    Raises
    ------
    ModelError
        The model was made from cross-products, or its data were removed.
    """
    from crosslmm.effects.saved import SavedRows

    if isinstance(design, SavedRows):
        return design.encoding
    layout = design.layout
    levels = tuple(factor.levels for factor in layout.factors)
    if isinstance(design, Design):
        given = design.given
        return Encoding(
            formula=formula,
            fixed=_encoded(formula.fixed, design.fixed_spec, design.fixed_kept),
            terms=_terms(layout, formula, design.random_specs),
            groupings=design.groupings,
            levels=levels,
            context={} if given is None else given.context,
            weights=None if given is None else given.column("weights"),
            offset=None if given is None else given.column("offset"),
        )
    if isinstance(design, Streamed):
        schema = design.schema
        return Encoding(
            formula=formula,
            fixed=_encoded(formula.fixed, schema.fixed.spec, design.kept),
            terms=_terms(layout, formula, [schema.random[text].spec for text in schema.arrangement.term_texts]),
            groupings=schema.arrangement.names,
            levels=levels,
            context=schema.context,
            weights=schema.needs.weights,
            offset=schema.needs.offset,
        )
    raise ModelError(
        "this model was made from cross-products, or its data were removed, and with them how new rows become its "
        "columns; "
        "make it with MixedLM.from_formula(formula, data)"
    )


def _terms(layout: Layout, formula: MixedFormula, specs: Sequence[ModelSpec]) -> tuple[Encoded, ...]:
    """Columns of the terms of a layout; one term of the formula can be several there, each with some of its columns."""
    labels = [_written(term.label, formula) for term in layout.terms]
    spec_of = dict(zip(dict.fromkeys(labels), specs, strict=True))
    return tuple(
        _columns_of(layout, term, spec_of[label], formula) for term, label in zip(layout.terms, labels, strict=True)
    )


def _written(label: str, formula: MixedFormula) -> str:
    """Text of the term of the formula that a term of the layout came from."""
    return next((t.text for t in formula.random if label == t.text or label.startswith(f"{t.text} ")), label)


def _columns_of(layout: Layout, term: Term, spec: ModelSpec, formula: MixedFormula) -> Encoded:
    """The columns of one term of a layout."""
    label = _written(term.label, formula)
    written = next((own.columns for own in formula.random if own.text == label), None)
    terms = [term_text(part) for part in spec.formula]
    text = written or " + ".join(terms if "1" in terms else ["0", *terms])
    made = list(spec.column_names)
    names = [layout.factors[term.factor].columns[j] for j in term.columns]
    return _encoded(text, spec, np.array([made.index(name) for name in names], dtype=np.intp))


def _encoded(text: str, spec: ModelSpec, kept: NDArray[np.intp]) -> Encoded:
    return Encoded(text, spec, tuple(spec.column_names), kept)
