"""mixedlm-rs: statsmodels' interface over a Rust core, one grouping factor."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from benchmarks.adapters import _groupwise
from benchmarks.problems import Problem

LABEL = "mixedlm-rs"


def skip(problem: Problem) -> str | None:
    return None if len(problem.groups) == 1 else "one grouping factor only"


def version() -> str:
    import mixedlm_rs

    return mixedlm_rs.__version__


def fitter(problem: Problem, data: pd.DataFrame) -> Callable[[], float]:
    import mixedlm_rs

    return _groupwise.fitter(mixedlm_rs.MixedLM, problem, data)


def refitter(problem: Problem, data: pd.DataFrame) -> Callable[[], float]:
    import mixedlm_rs

    return _groupwise.refitter(mixedlm_rs.MixedLM, problem, data)
