"""Random-effects columns and grouping factors of a formula's terms, in lme4's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosslmm import covariance
from crosslmm.design.fixed import Columns, as_columns, materialize
from crosslmm.design.grouping import Grouping, cross, encode
from crosslmm.errors import DataError, ModelError
from crosslmm.formula import RandomTerm
from crosslmm.layout import Factor, Term

STRUCTURES = {
    "unstructured": covariance.unstructured,
    "diagonal": covariance.diagonal,
    "identity": covariance.identity,
}


@dataclass(frozen=True)
class Arrangement:
    """Factors and terms of a layout, and where their levels and columns come from.

    Attributes
    ----------
    factors : tuple of Factor
    terms : tuple of Term
    names : tuple of tuple of str
        Data columns of each factor.
    texts : tuple of tuple of str
        Formulas of the columns of the terms on each factor, in the order in which they stand side by side.
    term_texts : tuple of str
        Formula of the columns of each term.
    """

    factors: tuple[Factor, ...]
    terms: tuple[Term, ...]
    names: tuple[tuple[str, ...], ...]
    texts: tuple[tuple[str, ...], ...]
    term_texts: tuple[str, ...]

    @property
    def side_by_side(self) -> list[tuple[Term, str]]:
        """Terms with the formulas of their columns, factor by factor."""
        return [
            pair
            for f, texts in enumerate(self.texts)
            for pair in zip([term for term in self.terms if term.factor == f], texts, strict=True)
        ]


@dataclass(frozen=True)
class RandomPart:
    """Random-effects terms with their rows.

    Attributes
    ----------
    arrangement : Arrangement
    groupings : tuple of Grouping
        Codes and levels of each factor.
    columns : dict of str to Columns
        Columns of the terms, by their formula.
    """

    arrangement: Arrangement
    groupings: tuple[Grouping, ...]
    columns: Mapping[str, Columns]


def read_random(
    terms: Sequence[RandomTerm], frame: pd.DataFrame, used: pd.DataFrame, context: Mapping[str, Any]
) -> RandomPart:
    """Levels, columns and parameters of the random-effects terms.

    Parameters
    ----------
    terms : sequence of RandomTerm
    frame : pandas.DataFrame
        Holds the grouping columns.
    used : pandas.DataFrame
        The same rows, with the columns that formulaic reads.
    context : mapping

    Raises
    ------
    DataError
        Columns cannot be evaluated or are not finite.
    ModelError
        A factor has one level only, or a term has as many effects as there are rows.
    """
    encoded = {name: encode(frame[name]) for term in terms for name in term.grouping}
    crossed = {term.grouping: cross([encoded[name] for name in term.grouping]) for term in terms}
    made = {
        text: as_columns(materialize(text, used, context), random_part(text))
        for text in {term.columns: None for term in terms}
    }
    levels = {grouping: crossed[grouping].levels for grouping in crossed}
    arrangement = arrange(terms, levels, made, len(frame))
    check_nonzero(terms, made, {text: np.asarray(columns.values.any(axis=0)) for text, columns in made.items()})
    return RandomPart(arrangement, tuple(crossed[name] for name in arrangement.names), made)


def random_part(text: str) -> str:
    """The columns of a random-effects term, for messages."""
    return f"the random part '{text}'"


def arrange(
    terms: Sequence[RandomTerm],
    levels: Mapping[tuple[str, ...], NDArray[Any]],
    made: Mapping[str, Columns],
    n: int,
) -> Arrangement:
    """Terms in lme4's order, and the factors that they share.

    Parameters
    ----------
    terms : sequence of RandomTerm
    levels : mapping
        Labels of the levels of each grouping.
    made : mapping
        Columns of each text that stands before a bar; of some of the rows, if their names are those of all.
    n : int
        Number of rows.

    Raises
    ------
    DataError
        Two levels have one label.
    ModelError
        A factor has one level only, a term has as many effects as there are rows, or a name stands for two things.
    """
    _check_names(terms, levels)
    for term in terms:
        if made[term.columns].empty:
            gone = ", ".join(map(repr, made[term.columns].empty))
            raise ModelError(
                f"{gone} of the random-effects term {term.text} has one level only in these data and gives no column; "
                "leave it out"
            )
        _check_levels(term, len(levels[term.grouping]), len(made[term.columns].names), n)
    terms = [terms[i] for i in term_order([len(levels[term.grouping]) for term in terms])]
    names = tuple(dict.fromkeys(term.grouping for term in terms))
    by_factor = [[term for term in terms if term.grouping == name] for name in names]
    factors = tuple(
        Factor(own[0].group, levels[name], tuple(column for term in own for column in made[term.columns].names))
        for name, own in zip(names, by_factor, strict=True)
    )
    return Arrangement(
        factors=factors,
        terms=_layout_terms(terms, names, factors, made),
        names=names,
        texts=tuple(tuple(term.columns for term in own) for own in by_factor),
        term_texts=tuple(term.columns for term in terms),
    )


def _check_names(terms: Sequence[RandomTerm], levels: Mapping[tuple[str, ...], NDArray[Any]]) -> None:
    """Refuse names that would stand for two things in the results."""
    groups = {term.grouping: term.group for term in terms}
    for grouping, group in groups.items():
        if group == "Residual":
            raise ModelError("a grouping factor cannot be named 'Residual', as the residual variance is; rename it")
        if list(groups.values()).count(group) > 1:
            raise ModelError(f"two grouping factors are labelled {group!r}; rename the column that is called so")
        if len(grouping) > 1:
            _check_labels(group, levels[grouping])


def _check_labels(group: str, levels: NDArray[Any]) -> None:
    if len(set(levels)) == len(levels):
        return
    counts = pd.Series(levels).value_counts(sort=True)
    twice = counts.index[0]
    raise DataError(
        f"two combinations of levels of {group!r} have the label {twice!r}, because levels hold ':' or read alike; "
        "rename these levels"
    )


def term_order(n_levels: Sequence[int]) -> list[int]:
    """lme4's order of terms: as written if the numbers of levels never increase, else largest first, ties reversed."""
    if all(a >= b for a, b in pairwise(n_levels)):
        return list(range(len(n_levels)))
    return [int(i) for i in np.argsort(n_levels, kind="stable")[::-1]]


def _layout_terms(
    terms: Sequence[RandomTerm],
    names: tuple[tuple[str, ...], ...],
    factors: tuple[Factor, ...],
    made: Mapping[str, Columns],
) -> tuple[Term, ...]:
    result = []
    filled = [0] * len(names)
    seen = [0] * len(names)
    theta_start = 0
    for term in terms:
        f = names.index(term.grouping)
        size = len(made[term.columns].names)
        structure = STRUCTURES[term.covariance](size)
        group = factors[f].name + (f".{seen[f]}" if seen[f] else "")
        result.append(Term(term.text, group, f, tuple(range(filled[f], filled[f] + size)), structure, theta_start))
        filled[f] += size
        seen[f] += 1
        theta_start += structure.n_theta
    groups = [term.group for term in result]
    twice = next((group for i, group in enumerate(groups) if group in groups[:i]), None)
    if twice is not None:
        raise ModelError(
            f"the grouping factor {twice!r} has the name that further terms on {twice.rpartition('.')[0]!r} are "
            "reported under; rename it"
        )
    return tuple(result)


def check_nonzero(
    terms: Sequence[RandomTerm], made: Mapping[str, Columns], nonzero: Mapping[str, NDArray[np.bool_]]
) -> None:
    """Refuse a column that is 0 in every row: its variance could be anything."""
    for term in terms:
        for name, used in zip(made[term.columns].names, nonzero[term.columns], strict=True):
            if not used:
                raise ModelError(f"the column {name!r} of the random-effects term {term.text} is 0 in every row used")


def _check_levels(term: RandomTerm, n_levels: int, size: int, n: int) -> None:
    """lme4's checks of identifiability (lmerControl check.nlev.gtr.1, check.nobs.vs.nlev, check.nobs.vs.nRE)."""
    if size == 0:
        raise ModelError(f"the random-effects term {term.text} has no columns in these data")
    if n_levels < 2:
        raise ModelError(
            f"the grouping factor {term.group!r} has one level only in the {n} rows used; "
            f"a variance between levels needs at least two: leave {term.text} out"
        )
    if n_levels * size >= n:
        effects = f"{n_levels} levels" + (
            f" times {size} columns = {n_levels * size} random effects" if size > 1 else ""
        )
        raise ModelError(
            f"the term {term.text} has {effects}, but there are only {n} rows: "
            "its effects cannot be told from the residuals; leave it out or give it fewer columns"
        )
