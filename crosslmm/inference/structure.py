"""Terms of the fixed part, the variables in them and how these are coded: what anova tables and means are made of.

A column of X is a product over the variables of its term, so any column can be made for any levels and values
without data: what holds on all combinations of levels holds on the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from formulaic import ModelSpec
from formulaic.parser.types import Factor
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.design.rows import Design
from crosslmm.errors import ModelError
from crosslmm.layout import Layout
from crosslmm.sources.stream import Streamed

if TYPE_CHECKING:
    from crosslmm.results import MixedLMResults

SAME = 1e-7
"""What may be left of a column, relative to its size, when it is a combination of others."""

REPEATS = 4
"""Made-up rows per combination of levels; other variables vary at random between them."""

MOST_ROWS = 200_000
"""Made-up rows at most."""

INTERCEPT = "1"


@dataclass(frozen=True)
class Variable:
    """A factor of a formula, in the sense of formulaic.

    Attributes
    ----------
    name : str
        As written: ``"dept"``, ``"np.log(x)"``, ``"C(dept, contr.sum)"``.
    data : tuple of str
        Columns of the data in it.
    levels : tuple
        Of a category; empty for numbers.
    coding : ndarray, shape (L, c)
        Columns of a category by level, where it is coded with one column less.
    width : int
        Columns: c, or those of numbers such as ``poly(x, 2)``.
    """

    name: str
    data: tuple[str, ...]
    levels: tuple[Any, ...]
    coding: FloatArray
    width: int

    @property
    def is_category(self) -> bool:
        """Whether it has levels."""
        return bool(self.levels)

    def codes(self, less: bool) -> FloatArray:
        """Columns of a category by level, with or without one column less."""
        return self.coding if less else np.eye(len(self.levels))


@dataclass(frozen=True)
class Piece:
    """Consecutive columns of a term: products of its variables, the first varying fastest.

    Attributes
    ----------
    variables : tuple of (int, bool)
        Position of a variable, and whether it is coded with one column less.
    scale : float
    """

    variables: tuple[tuple[int, bool], ...]
    scale: float


@dataclass(frozen=True)
class DesignTerm:
    """A term.

    Attributes
    ----------
    name : str
        ``"1"`` for the intercept.
    variables : tuple of int
    pieces : tuple of Piece
    columns : tuple of int
        Positions among all columns, the dropped ones included.
    """

    name: str
    variables: tuple[int, ...]
    pieces: tuple[Piece, ...]
    columns: tuple[int, ...]


@dataclass(frozen=True)
class Structure:
    """The fixed part.

    Attributes
    ----------
    variables : tuple of Variable
    terms : tuple of DesignTerm
    n_columns : int
        All columns, the dropped ones included.
    kept : ndarray of intp, shape (p,)
        Which are kept.
    layout : Layout
    spec : formulaic.ModelSpec
    """

    variables: tuple[Variable, ...]
    terms: tuple[DesignTerm, ...]
    n_columns: int
    kept: NDArray[np.intp]
    layout: Layout
    spec: ModelSpec

    @cached_property
    def to_kept(self) -> FloatArray:
        """B (p, all) with ``X_all = X_kept B`` on the rows of the data."""
        B = np.zeros((self.kept.size, self.n_columns))
        B[:, self.kept] = np.eye(self.kept.size)
        dropped = np.setdiff1d(np.arange(self.n_columns), self.kept)
        aliases = self.layout.standardization.aliases
        if aliases.shape != (self.kept.size, dropped.size):
            raise ModelError("it is not known which combinations the dropped fixed-effects columns are")
        B[:, dropped] = aliases
        return B

    @cached_property
    def triangle(self) -> FloatArray:
        """R (p, p), upper triangular, with ``X'X = n R'R`` for the kept columns, without weights (theory eq. (9))."""
        return np.asarray(np.triu(np.linalg.inv(self.layout.standardization.x_basis)))

    def kept_columns(self, term: DesignTerm) -> NDArray[np.intp]:
        """Positions of a term's columns among the kept ones."""
        return np.flatnonzero(np.isin(self.kept, term.columns))

    def contains(self, inner: DesignTerm, outer: DesignTerm) -> bool:
        """Whether a term is contained in another one, as SAS has it: more categories, the same numbers."""
        small, large = set(inner.variables), set(outer.variables)
        numbers = [{v for v in side if not self.variables[v].is_category} for side in (small, large)]
        return small < large and numbers[0] == numbers[1] and inner.name != INTERCEPT

    @cached_property
    def rows(self) -> MadeUp:
        """Made-up rows on which the columns are as independent as they can be."""
        return make_rows(self)


@dataclass(frozen=True)
class MadeUp:
    """Made-up rows.

    Attributes
    ----------
    values : tuple of ndarray, each (n, L) or (n, width)
        Indicators or numbers of every variable.
    own, treatment : ndarray, shape (n, all)
        Columns of X in the coding of the model, and in treatment coding.
    """

    values: tuple[FloatArray, ...]
    own: FloatArray
    treatment: FloatArray

    def combination(self, columns: FloatArray) -> FloatArray | None:
        """C with ``columns = own C``; None where there is none."""
        size = np.linalg.norm(self.own, axis=0)
        size = np.where(size > 0.0, size, 1.0)
        C = np.linalg.lstsq(self.own / size, columns, rcond=None)[0] / size[:, None]
        left = np.linalg.norm(columns - self.own @ C, axis=0)
        return C if np.all(left <= SAME * np.linalg.norm(columns, axis=0)) else None


def structure_of(fit: MixedLMResults, what: str) -> Structure:
    """Structure of the fixed part of a fit.

    Parameters
    ----------
    what : str
        What needs it, for the message.

    Raises
    ------
    ModelError
        The model was made from cross-products, which do not know how columns were coded.
    """
    design = fit.model.design
    layout = fit.estimates.layout
    if isinstance(design, Design):
        return read_structure(design.fixed_spec, design.fixed_kept, layout)
    if isinstance(design, Streamed):
        return read_structure(design.schema.fixed.spec, design.kept, layout)
    raise ModelError(
        f"for {what} it must be known how the columns of the fixed part were made, and this model was made from "
        "cross-products only: make it with MixedLM.from_formula(formula, data), or test coefficients with fit.test"
    )


def context_of(fit: MixedLMResults) -> Mapping[str, Any]:
    """Further names that the formula may use, as far as they are still known."""
    design = fit.model.design
    return design.schema.context if isinstance(design, Streamed) else {}


def read_structure(spec: ModelSpec, kept: NDArray[np.intp], layout: Layout) -> Structure:
    """Terms and variables from what formulaic learned."""
    names = list(dict.fromkeys(factor.expr for part in spec.structure for factor in part.term.factors))
    names = [name for name in names if name in spec.encoder_state]
    place = {name: i for i, name in enumerate(names)}
    terms, start = [], 0
    for part in spec.structure:
        pieces = tuple(
            Piece(tuple((place[f.factor.expr], bool(f.reduced)) for f in scoped.factors), float(scoped.scale))
            for scoped in part.scoped_terms
        )
        members = tuple(place[factor.expr] for factor in part.term.factors if factor.expr in place)
        columns = tuple(range(start, start + len(part.columns)))
        start += len(part.columns)
        terms.append(DesignTerm(str(part.term), members, pieces, columns))
    bare = tuple(_variable(spec, name) for name in names)
    return Structure(_with_widths(bare, terms), tuple(terms), start, kept, layout, spec)


def _variable(spec: ModelSpec, name: str) -> Variable:
    """A variable; the width of numbers is still 0."""
    kind, state = spec.encoder_state[name]
    factor = next(f for part in spec.structure for f in part.term.factors if f.expr == name)
    data = tuple(sorted(str(v) for v in spec.factor_variables.get(factor, ()) if getattr(v, "source", None) == "data"))
    if kind is not Factor.Kind.CATEGORICAL:
        return Variable(name, data, (), np.zeros((0, 0)), 0)
    levels = tuple(state["categories"])
    coding = np.asarray(state["contrasts"].get_coding_matrix(reduced_rank=True), dtype=np.float64)
    coding = coding.reshape(len(levels), -1)
    return Variable(name, data, levels, coding, coding.shape[1])


def _with_widths(variables: tuple[Variable, ...], terms: list[DesignTerm]) -> tuple[Variable, ...]:
    """Widths of numbers from the numbers of columns of the terms they are in."""
    width = {i: 1 for i, v in enumerate(variables) if not v.is_category}
    for term in sorted(terms, key=lambda t: len(t.variables)):
        numbers = [v for v in term.variables if v in width]
        if numbers and term.columns:
            categories = sum(
                int(np.prod([_category_width(variables[v], less) for v, less in piece.variables if v not in width]))
                for piece in term.pieces
            )
            others = int(np.prod([width[v] for v in numbers[:-1]]))
            width[numbers[-1]] = max(len(term.columns) // max(categories * others, 1), 1)
    return tuple(
        v if v.is_category else Variable(v.name, v.data, (), v.coding, width[i]) for i, v in enumerate(variables)
    )


def _category_width(variable: Variable, less: bool) -> int:
    return variable.width if less else len(variable.levels)


def columns_at(structure: Structure, values: tuple[FloatArray, ...], *, treatment: bool = False) -> FloatArray:
    """All columns of X at given indicators and numbers of every variable; shape (n, all)."""
    n = len(values[0]) if values else 1
    parts = [np.zeros((n, 0))]
    for term in structure.terms:
        for piece in term.pieces:
            factors = [_coded(structure.variables[v], values[v], less, treatment) for v, less in piece.variables]
            parts.append(piece.scale * products(factors, n))
    X = np.hstack(parts)
    if X.shape[1] != structure.n_columns:
        raise ModelError("the columns of the fixed part cannot be traced to its terms")
    return X


def _coded(variable: Variable, values: FloatArray, less: bool, treatment: bool) -> FloatArray:
    if not variable.is_category or not less:
        return values
    return values[:, 1:] if treatment else values @ variable.coding


def indicators(structure: Structure, term: DesignTerm, values: tuple[FloatArray, ...]) -> FloatArray:
    """Products of the indicators of all levels (and of numbers) of a term's variables; shape (n, k)."""
    n = len(values[0]) if values else 1
    return products([values[v] for v in term.variables], n)


def products(factors: list[FloatArray], n: int) -> FloatArray:
    """Row-wise products of columns, those of the first factor varying fastest; shape (n, k)."""
    result = np.ones((n, 1))
    for factor in factors:
        result = (factor[:, :, None] * result[:, None, :]).reshape(n, -1)
    return result


def make_rows(structure: Structure) -> MadeUp:
    """Rows that hold every combination of levels of every term, with random numbers and other levels.

    Raises
    ------
    ModelError
        There are too many combinations.
    """
    rng = np.random.default_rng(0)
    variables = structure.variables
    blocks = [_combinations(structure, term, rng) for term in structure.terms if term.variables]
    n = sum(len(block) for block in blocks) * REPEATS
    if n > MOST_ROWS:
        raise ModelError(
            f"the fixed part has {n // REPEATS:,} combinations of levels, too many for a table of its terms"
        )
    codes = np.concatenate([*blocks] * REPEATS) if blocks else np.zeros((1, len(variables)), dtype=np.intp)
    values = []
    for i, variable in enumerate(variables):
        if variable.is_category:
            free = codes[:, i] < 0
            level = np.where(free, rng.integers(0, len(variable.levels), len(codes)), codes[:, i])
            values.append(np.eye(len(variable.levels))[level])
        else:
            values.append(rng.uniform(0.5, 1.5, size=(len(codes), variable.width)))
    made = tuple(values)
    own, treatment = columns_at(structure, made), columns_at(structure, made, treatment=True)
    return MadeUp(made, own, treatment)


def _combinations(structure: Structure, term: DesignTerm, rng: np.random.Generator) -> NDArray[np.intp]:
    """Codes of every variable for all combinations of a term's levels; -1 where a variable is free."""
    categories = [v for v in term.variables if structure.variables[v].is_category]
    sizes = [len(structure.variables[v].levels) for v in categories]
    numbers = sum(structure.variables[v].width for v in term.variables if not structure.variables[v].is_category)
    n = int(np.prod(sizes, dtype=float))
    if n > MOST_ROWS:
        raise ModelError(f"the term {term.name!r} has {n:,} combinations of levels, too many for a table of terms")
    grid = np.full((n, len(structure.variables)), -1, dtype=np.intp)
    if categories:
        grid[:, categories] = np.stack([axis.ravel() for axis in np.indices(sizes)], axis=1)
    return np.tile(grid, (1 + numbers, 1))
