"""lme-python: lme4's interface over the Rust library lme-rs."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from benchmarks.problems import Problem

LABEL = "lme-python"


def skip(problem: Problem) -> str | None:
    return None


def version() -> str:
    from importlib.metadata import version

    import lme_python  # noqa: F401  an ImportError says that it is not there
    import pyarrow  # noqa: F401  what lme-python reads pandas categories with

    return version("lme-python")


def fitter(problem: Problem, data: pd.DataFrame) -> Callable[[], float]:
    import lme_python

    return lambda: -2.0 * lme_python.lmer(problem.formula, data, reml=problem.reml).log_likelihood


def refitter(problem: Problem, data: pd.DataFrame) -> Callable[[], float]:
    import lme_python

    prepared = lme_python.prepare_lmer(problem.formula, data)
    lme_python.fit_prepared(prepared, problem.reml)
    return lambda: -2.0 * lme_python.fit_prepared(prepared, problem.reml).log_likelihood
