"""Libraries with the interface of statsmodels' MixedLM: one grouping factor, or one dense block for all rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pandas as pd

from benchmarks.problems import Problem


def skip(problem: Problem) -> str | None:
    if len(problem.groups) == 1:
        return None
    return "several grouping factors only as one group of all rows with dense matrices, without slopes"


def _criterion(fit: Any) -> float:
    return -2.0 * float(fit.llf)


def fitter(MixedLM: Any, problem: Problem, data: pd.DataFrame) -> Callable[[], float]:
    return lambda: _criterion(_model(MixedLM, problem, data).fit(reml=problem.reml))


def refitter(MixedLM: Any, problem: Problem, data: pd.DataFrame) -> Callable[[], float]:
    model = _model(MixedLM, problem, data)
    model.fit(reml=problem.reml)
    return lambda: _criterion(model.fit(reml=problem.reml))


def _model(MixedLM: Any, problem: Problem, data: pd.DataFrame) -> Any:
    (term,) = problem.random
    fixed = f"{problem.response} ~ {problem.fixed}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MixedLM.from_formula(fixed, data, re_formula=term.columns, groups=data[term.group].astype(str))
