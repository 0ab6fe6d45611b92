"""lme4, in R; ``lme4.R`` beside this file does what `benchmarks.child` does for Python libraries."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.problems import Problem

LABEL = "lme4"
SCRIPT = Path(__file__).with_suffix(".R")


def skip(problem: Problem) -> str | None:
    return None if shutil.which("Rscript") else "not installed here (no Rscript)"


def command(problem: Problem, csv: Path, calls: int, budget: float) -> list[str]:
    """Command line that measures lme4 on a problem."""
    flags = [str(flag).upper() for flag in (problem.reml, problem.refit)]
    script = ["Rscript", "--vanilla", str(SCRIPT)]
    return [*script, str(csv), problem.formula, ",".join(problem.factors), *flags, str(calls), str(budget)]
