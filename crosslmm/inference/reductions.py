"""What random-effects terms can be made smaller to, by the rules of lmerTest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crosslmm.crossproducts import CrossProducts
from crosslmm.inference.reduce import TermColumns, whole_term
from crosslmm.inference.terms import FormulaTerm, droppable, formula_terms

if TYPE_CHECKING:
    from crosslmm.results import MixedLMResults

INTERCEPT = "Intercept"

DISJOINT = 1e-8
"""Cross-product of two columns, in units of their lengths, below which no row has both."""


@dataclass(frozen=True)
class Reduction:
    """One step smaller in the random effects.

    Attributes
    ----------
    label : str
        ``"(1 | g)"`` where a term goes, ``"x in (1 + x | g)"`` where a part of it does.
    kept : tuple of TermColumns
        What is left; empty where nothing is.
    """

    label: str
    kept: tuple[TermColumns, ...]


def reductions(fit: MixedLMResults, *, reduce_terms: bool) -> list[Reduction]:
    """What each random-effects term can be made smaller to, as in lmerTest."""
    layout = fit.estimates.layout
    steps = []
    for i, term in enumerate(layout.terms):
        others = [whole_term(layout, j) for j in range(len(layout.terms)) if j != i]
        names = tuple(layout.factors[term.factor].columns[j] for j in term.columns)
        text = next(t.columns for t in fit.model.formula.random if t.text == term.label)
        reducible = reduce_terms and term.covariance.name == "unstructured"
        parts = droppable(formula_terms(text, names)) if reducible else ()
        if not parts:
            steps.append(Reduction(term.label, tuple(others)))
        for part in parts:
            left = _left_of(fit, i, names, text, part)
            kept = sorted([*others, *([left] if left else [])], key=lambda t: t.term)
            steps.append(Reduction(f"{part.text} in {term.label}", tuple(kept)))
    return steps


def _left_of(
    fit: MixedLMResults, index: int, names: tuple[str, ...], text: str, part: FormulaTerm
) -> TermColumns | None:
    """What is left of a term without one of its parts; None where nothing is.

    Where its only part is a factor without an intercept, ``(0 + f | g)``, the intercept is left, the sum of the
    indicators, unless another term of the same groups has it.
    """
    layout = fit.estimates.layout
    term = layout.terms[index]
    stays = [j for j in range(len(names)) if j not in part.columns]
    if stays:
        texts = [t.text for t in formula_terms(text, names) if t.text != part.text]
        sides = texts if "1" in texts else ["0", *texts]
        left = tuple(names[j] for j in stays)
        return TermColumns(index, left, np.eye(len(names))[:, stays], _label(sides, term.label))
    elsewhere = any(
        layout.factors[t.factor].columns[j] == INTERCEPT
        for t in layout.terms
        if t.factor == term.factor
        for j in t.columns
    )
    if elsewhere or not _indicators(fit.model.crossproducts, index, names):
        return None
    return TermColumns(index, (INTERCEPT,), np.ones((len(names), 1)), _label(["1"], term.label))


def _label(sides: list[str], label: str) -> str:
    return f"({' + '.join(sides)} |{label.split('|', 1)[1]}"


def _indicators(xp: CrossProducts, index: int, names: tuple[str, ...]) -> bool:
    """Whether the columns of a term are the indicators of all levels of a factor: no row has two of them."""
    term = xp.layout.terms[index]
    if not all(name.endswith("]") and "[T." not in name for name in names):
        return False
    U = np.linalg.inv(xp.layout.standardization.z_bases[term.factor])
    gram = U.T @ xp.diagonal[term.factor].sum(axis=2) @ U
    gram = gram[np.ix_(term.columns, term.columns)]
    unit = np.sqrt(np.diag(gram))
    return bool(np.abs(gram / np.outer(unit, unit) - np.eye(unit.size)).max() < DISJOINT)
