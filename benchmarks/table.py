"""Rows of results as a text table and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from math import isnan, nan
from pathlib import Path

from benchmarks.problems import PROBLEMS

HEAD = f"{'':20}{'first s':>10}{'best s':>10}{'x lme4':>9}{'criterion':>18}{'above best':>12}{'peak MB':>9}"


@dataclass(frozen=True)
class Row:
    """One library on one problem.

    Attributes
    ----------
    problem, library, version : str
    first, best : float
        Seconds of the first call in a process, and of the fastest call.
    calls : int
        How many the best is taken from.
    criterion : float
        -2 log-likelihood reached (restricted under REML).
    peak_mb : float
        Memory on top of what the process held with the data loaded.
    note : str
        Why there are no figures.
    """

    problem: str
    library: str
    version: str = ""
    first: float = nan
    best: float = nan
    calls: int = 0
    criterion: float = nan
    peak_mb: float = nan
    note: str = ""


def _reference(rows: Sequence[Row], library: str) -> float:
    """Best seconds of `library`, nan where it has none."""
    return next((row.best for row in rows if row.library == library), nan)


def _lowest(rows: Sequence[Row]) -> float:
    return min((row.criterion for row in rows if not isnan(row.criterion)), default=nan)


def write(path: Path, rows: Sequence[Row], machine: Mapping[str, str]) -> None:
    """CSV with the machine in comment lines before the header; ``pandas.read_csv(path, comment="#")`` reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [field.name for field in fields(Row)]
    with path.open("w", newline="") as file:
        file.writelines(f"# {key}: {value}\n" for key, value in machine.items())
        writer = csv.DictWriter(file, [*names[:-1], "times_lme4", "above_best", "note"])
        writer.writeheader()
        for _, group in groupby(rows, key=lambda row: row.problem):
            members = list(group)
            lme4, lowest = _reference(members, "lme4"), _lowest(members)
            for row in members:
                writer.writerow(_record(row, lme4, lowest))


def _record(row: Row, lme4: float, lowest: float) -> dict[str, object]:
    figures = {
        "first": f"{row.first:.5g}",
        "best": f"{row.best:.5g}",
        "criterion": f"{row.criterion:.6f}",
        "peak_mb": f"{row.peak_mb:.1f}",
        "times_lme4": f"{lme4 / row.best:.2f}",
        "above_best": f"{row.criterion - lowest:.2e}",
        "calls": str(row.calls) if row.calls else "",
    }
    return asdict(row) | {name: "" if text == "nan" else text for name, text in figures.items()}


def text(rows: Sequence[Row], machine: Mapping[str, str]) -> str:
    """One block per problem: seconds, how many times faster than lme4, criterion and what it is above the lowest."""
    lines = [f"{key:14}{value}" for key, value in machine.items()]
    for name, group in groupby(rows, key=lambda row: row.problem):
        members = list(group)
        problem = PROBLEMS[name]
        lme4, lowest = _reference(members, "lme4"), _lowest(members)
        lines += ["", f"{name}: {problem.about}", f"{problem.formula}   {'REML' if problem.reml else 'ML'}", HEAD]
        lines += [_line(row, lme4, lowest) for row in members]
    return "\n".join(lines)


def _line(row: Row, lme4: float, lowest: float) -> str:
    if row.note:
        return f"{row.library:20}  {row.note}"
    ratio = "" if isnan(lme4) else f"{lme4 / row.best:.3g}"
    return (
        f"{row.library:20}{row.first:10.4g}{row.best:10.4g}{ratio:>9}"
        f"{row.criterion:18.6f}{row.criterion - lowest:12.1e}{row.peak_mb:9.0f}"
    )
