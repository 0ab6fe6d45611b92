"""Terms of a formula and the columns that belong to them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from crosslmm.errors import ModelError
from crosslmm.formula.bars import term_text
from crosslmm.formula.read import read


@dataclass(frozen=True)
class FormulaTerm:
    """One term of a formula.

    Attributes
    ----------
    text : str
        ``"recipe:temperature"``; ``"1"`` for the intercept.
    factors : frozenset of str
        What is multiplied in it; empty for the intercept.
    columns : tuple of int
        Positions of its columns among the names that were given.
    """

    text: str
    factors: frozenset[str]
    columns: tuple[int, ...]


def formula_terms(text: str, names: tuple[str, ...]) -> tuple[FormulaTerm, ...]:
    """Terms of a right-hand side with the columns (by formulaic's names) that each of them made.

    Parameters
    ----------
    text : str
        ``"1 + recipe * temperature"``.
    names : tuple of str
        Names of columns, ``"recipe[T.B]:temperature[T.185]"``; columns that were dropped may be missing.

    Raises
    ------
    ModelError
        A column cannot be told to belong to one term.
    """
    found: dict[int, FormulaTerm] = {}
    owner: dict[int, str] = {}
    terms = [(i, term, [factor.expr for factor in term.factors]) for i, term in enumerate(read(text))]
    # the longest first: the pattern of a factor also matches the columns of its interactions
    for i, term, expressions in sorted(terms, key=lambda item: -len(item[2])):
        intercept = expressions in ([], ["1"])
        pattern = "Intercept" if intercept else ":".join(re.escape(e) + r"(\[.*\])?" for e in expressions)
        columns = tuple(j for j, name in enumerate(names) if re.fullmatch(pattern, name) and j not in owner)
        label = "1" if intercept else term_text(term)
        owner.update(dict.fromkeys(columns, label))
        found[i] = FormulaTerm(label, frozenset() if intercept else frozenset(expressions), columns)
    lost = [name for i, name in enumerate(names) if i not in owner]
    if lost:
        raise ModelError(f"the column {lost[0]!r} cannot be traced to a term of {text!r}: terms cannot be dropped here")
    return tuple(found[i] for i in sorted(found))


def droppable(terms: tuple[FormulaTerm, ...]) -> tuple[FormulaTerm, ...]:
    """Terms that are not part of another one, the intercept apart."""
    return tuple(
        t for t in terms if t.factors and t.columns and not any(t.factors < u.factors and u.columns for u in terms)
    )
