"""GPBoost with its iterative methods, its default for large data: the criterion it reports is an estimate."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from benchmarks.adapters import gpboost as exact
from benchmarks.problems import Problem

LABEL = "gpboost (iterative)"
version = exact.version


def skip(problem: Problem) -> str | None:
    if len(problem.groups) == 1:
        return "iterative methods are for several grouping factors"
    return exact.skip(problem)


def fitter(problem: Problem, data: pd.DataFrame) -> Callable[[], float]:
    return exact.fitter(problem, data, method="iterative")
