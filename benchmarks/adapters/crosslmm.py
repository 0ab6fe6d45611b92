"""crosslmm itself."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from benchmarks import machine
from benchmarks.problems import Problem

LABEL = "crosslmm"


def skip(problem: Problem) -> str | None:
    return None


def version() -> str:
    import crosslmm  # noqa: F401  an ImportError says that it is not there

    return machine.package_version("crosslmm")


def fitter(problem: Problem, data: pd.DataFrame) -> Callable[[], float]:
    import crosslmm as clm

    return lambda: clm.lmer(problem.formula, data, reml=problem.reml).criterion


def refitter(problem: Problem, data: pd.DataFrame) -> Callable[[], float]:
    import crosslmm as clm

    model = clm.MixedLM.from_formula(problem.formula, data)
    model.fit(reml=problem.reml)
    return lambda: model.fit(reml=problem.reml).criterion
