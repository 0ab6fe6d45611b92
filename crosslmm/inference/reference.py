"""Linear functions of the fixed effects: means at levels and values, averaged over all other categories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from formulaic.materializers import PandasMaterializer

from crosslmm.covariance import FloatArray
from crosslmm.errors import ModelError
from crosslmm.inference.structure import Piece, Structure, Variable, products

WEIGHTS = ("equal", "proportional", "outer")

MOST_POINTS = 20_000
"""Rows of a reference grid at most."""


@dataclass(frozen=True)
class Reference:
    """What a mean is taken at, and over.

    Attributes
    ----------
    structure : Structure
    context : mapping
        Further names that expressions of the formula may use.
    at : mapping
        Values of numbers, by column of the data or by expression of the formula.
    weights : {"equal", "proportional", "outer"}
    column_means : ndarray, shape (all,)
        Means of all columns of X over the rows.
    tables : dict
        Weights of combinations of levels found so far, by the positions of their variables.
    """

    structure: Structure
    context: Mapping[str, Any]
    at: Mapping[str, Any]
    weights: str
    column_means: FloatArray
    tables: dict[tuple[int, ...], FloatArray] = field(default_factory=dict)

    def row(self, levels: Mapping[int, int], numbers: Mapping[str, float]) -> FloatArray:
        """The function for some categories at levels and some data columns at values; shape (all,)."""
        structure = self.structure
        values = {
            i: self.number(v, {**self.at, **numbers}) for i, v in enumerate(structure.variables) if not v.is_category
        }
        parts = [self._piece(piece, levels, values) for term in structure.terms for piece in term.pieces]
        return np.concatenate(parts)

    def _piece(self, piece: Piece, levels: Mapping[int, int], values: Mapping[int, FloatArray]) -> FloatArray:
        """Columns of one piece, averaged over the categories that are not at a level."""
        structure = self.structure
        codes = {v: structure.variables[v].codes(less) for v, less in piece.variables if v not in values}
        averaged = tuple(v for v in codes if v not in levels)
        fixed = {v: values[v] if v in values else codes[v][levels[v]] for v, _ in piece.variables if v not in averaged}
        if self.weights == "equal" or len(averaged) <= 1:
            rows = {v: self.table((v,)) @ codes[v] for v in averaged}
            return piece.scale * _product(piece, {**fixed, **rows})
        table = self.table(averaged)
        parts = [
            table[index] * _product(piece, {**fixed, **{v: codes[v][i] for v, i in zip(averaged, index, strict=True)}})
            for index in np.ndindex(table.shape)
        ]
        return piece.scale * np.sum(parts, axis=0)

    def table(self, variables: tuple[int, ...]) -> FloatArray:
        """Weights of the combinations of levels of categories that are averaged over; they sum to 1."""
        if variables not in self.tables:
            self.tables[variables] = self._table(variables)
        return self.tables[variables]

    def _table(self, variables: tuple[int, ...]) -> FloatArray:
        shape = tuple(len(self.structure.variables[v].levels) for v in variables)
        if self.weights == "equal" or not variables:
            return np.full(shape, 1.0 / np.prod(shape, dtype=float))
        if self.weights == "outer" and len(variables) > 1:
            outer = np.ones(())
            for v in variables:
                outer = np.multiply.outer(outer, self.table((v,)))
            return outer
        made = self.structure.rows
        means = self.mean(products([made.values[v] for v in variables], len(made.own)))
        if means is None:
            names = ", ".join(repr(self.structure.variables[v].name) for v in variables)
            raise ModelError(
                f"weights={self.weights!r} needs how often the levels of {names} occur, which the columns of this "
                "fixed part do not tell: use weights='equal'"
            )
        return np.clip(means, 0.0, 1.0).reshape(shape, order="F")

    def mean(self, columns: FloatArray) -> FloatArray | None:
        """Means over the rows of the data of columns made for the made-up rows; None where X does not hold them."""
        C = self.structure.rows.combination(columns)
        return None if C is None else self.column_means @ C

    def number(self, variable: Variable, given: Mapping[str, Any]) -> FloatArray:
        """Value of numbers: as given, evaluated at what is given, or the mean over the rows; shape (width,)."""
        if variable.name in given:
            if variable.width != 1:
                raise ModelError(
                    f"{variable.name!r} has {variable.width} columns: give values of {list(variable.data)}"
                )
            return np.array([float(given[variable.name])])
        missing = [name for name in variable.data if name not in given]
        if variable.data and not missing:
            return evaluated(self.structure, variable, given, self.context)
        if len(missing) < len(variable.data):
            raise ModelError(
                f"{variable.name!r} needs values of {', '.join(map(repr, missing))} too: add them to at={{}}"
            )
        made = self.structure.rows
        place = self.structure.variables.index(variable)
        means = self.mean(made.values[place])
        if means is None:
            raise ModelError(
                f"the mean of {variable.name!r} is not known: give its value, at={{{variable.name!r}: ...}}"
            )
        return means


def _product(piece: Piece, by_variable: Mapping[int, FloatArray]) -> FloatArray:
    return products([by_variable[v][None] for v, _ in piece.variables], 1)[0]


def evaluated(
    structure: Structure, variable: Variable, given: Mapping[str, Any], context: Mapping[str, Any]
) -> FloatArray:
    """A variable of the formula at values of its data columns; shape (width,).

    Raises
    ------
    ModelError
        It cannot be evaluated there.
    """
    row: dict[str, Any] = {}
    for other in structure.variables:
        for name in other.data:
            row[name] = other.levels[0] if other.is_category else 1.0
    row |= {name: float(given[name]) for name in variable.data}
    try:
        materializer = PandasMaterializer(pd.DataFrame({k: [v] for k, v in row.items()}), context=context)
        with np.errstate(all="ignore"):
            materializer.get_model_matrix(structure.spec)
        values = np.asarray(materializer.factor_cache[variable.name].values, dtype=np.float64).reshape(-1)
    except Exception as error:  # the formula may call any function
        raise ModelError(
            f"{variable.name!r} cannot be evaluated at {dict(given)}: {error}. Give its own value, "
            f"at={{{variable.name!r}: ...}}"
        ) from error
    if values.size != variable.width or not np.isfinite(values).all():
        raise ModelError(f"{variable.name!r} is not finite at {dict(given)}")
    return values


def column_means(structure: Structure, X: FloatArray | None) -> FloatArray:
    """Means of all columns of X over the rows, without weights; shape (all,).

    Where columns add up to 1, as with an intercept, X'X tells them; else the rows are needed.

    Raises
    ------
    ModelError
        There are no rows and no constant.
    """
    B = structure.to_kept
    ones = structure.rows.combination(np.ones((len(structure.rows.own), 1)))
    if ones is not None:
        R = structure.triangle
        return np.asarray((R @ (B @ ones[:, 0])) @ R @ B)
    if X is None:
        raise ModelError(
            "the means of the fixed-effects columns are not known: rows that are not in memory need an intercept in "
            "the formula for marginal means"
        )
    return np.asarray(X.mean(axis=0) @ B)
