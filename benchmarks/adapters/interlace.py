"""interlace-lme: profiled REML over sparse matrices in Python."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from benchmarks.problems import Problem

LABEL = "interlace-lme"


def skip(problem: Problem) -> str | None:
    return "fits no model twice without building it" if problem.refit else None


def version() -> str:
    from importlib.metadata import version

    import interlace  # noqa: F401  an ImportError says that it is not there

    return version("interlace-lme")


def fitter(problem: Problem, data: pd.DataFrame) -> Callable[[], float]:
    import interlace

    fixed = f"{problem.response} ~ {problem.fixed}"
    random = [f"({term.columns} | {term.group})" for term in problem.random]
    method = "REML" if problem.reml else "ML"
    return lambda: -2.0 * interlace.fit(fixed, data, random=random, method=method).llf
