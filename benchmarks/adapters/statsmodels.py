"""statsmodels' MixedLM."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from benchmarks.adapters import _groupwise
from benchmarks.problems import Problem

LABEL = "statsmodels"
skip = _groupwise.skip


def version() -> str:
    import statsmodels.api

    return statsmodels.__version__


def fitter(problem: Problem, data: pd.DataFrame) -> Callable[[], float]:
    from statsmodels.api import MixedLM

    return _groupwise.fitter(MixedLM, problem, data)


def refitter(problem: Problem, data: pd.DataFrame) -> Callable[[], float]:
    from statsmodels.api import MixedLM

    return _groupwise.refitter(MixedLM, problem, data)
