"""mixedlm: lme4's interface over a Rust core."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from benchmarks.problems import Problem

LABEL = "mixedlm"


def skip(problem: Problem) -> str | None:
    return None


def version() -> str:
    import mixedlm

    return mixedlm.__version__


def _criterion(fit: object) -> float:
    return -2.0 * float(fit.logLik().value)


def fitter(problem: Problem, data: pd.DataFrame) -> Callable[[], float]:
    import mixedlm

    return lambda: _criterion(mixedlm.lmer(problem.formula, data, REML=problem.reml))


def refitter(problem: Problem, data: pd.DataFrame) -> Callable[[], float]:
    import mixedlm

    fit = mixedlm.lmer(problem.formula, data, REML=problem.reml)
    response = data[problem.response].to_numpy(float)
    return lambda: _criterion(fit.refit(response))
