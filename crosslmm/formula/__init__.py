"""Formulas: lme4's random-effects terms inside an ordinary formulaic formula."""

from crosslmm.formula.mixed import MixedFormula, RandomTerm, parse

__all__ = ["MixedFormula", "RandomTerm", "parse"]
