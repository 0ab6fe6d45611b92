"""Formulas: lme4's random-effects terms inside an ordinary formulaic formula, or statsmodels' arguments beside it."""

from crosslmm.formula.groups import GroupFacts, formula_texts, with_bars, with_groups
from crosslmm.formula.mixed import Component, GroupPart, MixedFormula, RandomTerm, parse, parse_fixed

__all__ = [
    "Component",
    "GroupFacts",
    "GroupPart",
    "MixedFormula",
    "RandomTerm",
    "formula_texts",
    "parse",
    "parse_fixed",
    "with_bars",
    "with_groups",
]
