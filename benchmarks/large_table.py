"""Rows of `benchmarks.large` as CSV and as a Markdown table, and the exponent of time in rows."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import nan
from pathlib import Path

import numpy as np

HEAD = (
    "| problem | rows | levels | engine | read | fit | total | beyond the data | evaluations | CG steps "
    "| MC error / SE | from truth |",
    "|---|--:|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
)


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes
    ----------
    problem : str
        A size of rating data, or a design.
    shape, source, engine : str
        The engine that was asked for where the run failed, else the one that was used.
    rows : int
    levels : str
        Of every factor.
    read_s, fit_s, total_s : float
        Seconds from the source to the cross-products, from there to the estimates, and both.
    loaded_mb, beyond_mb : float
        Resident memory with the data loaded (without them, for a Parquet file), and what was needed on top of it.
    newton_steps, evaluations, cg_steps : int
        Accepted steps, all evaluations, conjugate gradient steps in all of them.
    error_ratio : float
        Monte Carlo error over statistical standard error, the largest of all theta.
    from_truth : float or None
        Standard errors between estimate and true value, the largest of theta and x; None without true values.
    converged : bool
    criterion : float
    estimates, note : str
        Theta, coefficients and sigma; why there are none.
    """

    problem: str
    shape: str
    source: str
    engine: str
    rows: int = 0
    levels: str = ""
    read_s: float = nan
    fit_s: float = nan
    total_s: float = nan
    loaded_mb: float = nan
    beyond_mb: float = nan
    newton_steps: int = 0
    evaluations: int = 0
    cg_steps: int = 0
    error_ratio: float = nan
    from_truth: float | None = None
    converged: bool = False
    criterion: float = nan
    estimates: str = ""
    note: str = ""


def write(path: Path, rows: Sequence[Row], machine: Mapping[str, str]) -> None:
    """CSV with the machine in comment lines before the header; ``pandas.read_csv(path, comment="#")`` reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        file.writelines(f"# {key}: {value}\n" for key, value in machine.items())
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in asdict(row).items()} for row in rows)


def _cell(value: object) -> object:
    return f"{value:.8g}" if isinstance(value, float) else value


def progress(row: Row) -> str:
    """One line on a run that has ended."""
    if row.note:
        return f"{row.problem:16}{row.note}"
    times = f"read {row.read_s:.2f} s, fit {row.fit_s:.2f} s, {row.beyond_mb:,.0f} MB beyond the data"
    return f"{row.problem:16}{times}, {row.evaluations} evaluations, {row.cg_steps} CG steps; {row.estimates}"


def markdown(rows: Sequence[Row]) -> str:
    """Fastest run of every problem as a table, then the exponents of time in rows of the rating data."""
    best = fastest(rows)
    lines = [*HEAD, *(_line(row) for row in best)]
    sizes = [row for row in best if row.shape and not row.note]
    if len({row.rows for row in sizes}) > 1:
        parts = {"reading": "read_s", "fit": "fit_s", "total": "total_s"}
        found = ", ".join(f"{name} {exponent(sizes, field):.2f}" for name, field in parts.items())
        lines += ["", f"Exponent of time in rows, {sizes[0].shape}: {found}."]
    return "\n".join(lines)


def fastest(rows: Sequence[Row]) -> list[Row]:
    """One run of every problem: the fastest that ended, or the last."""
    best: dict[str, Row] = {}
    for row in rows:
        other = best.get(row.problem)
        if other is None or other.note or row.total_s < other.total_s:
            best[row.problem] = row
    return list(best.values())


def exponent(rows: Sequence[Row], field: str) -> float:
    """Slope of the logarithm of seconds on the logarithm of rows, by least squares."""
    seconds = [getattr(row, field) for row in rows]
    return float(np.polyfit(np.log([row.rows for row in rows]), np.log(seconds), 1)[0])


def _line(row: Row) -> str:
    if row.note:
        return f"| {row.problem} | | | {row.engine} | {row.note} | | | | | | | |"
    away = "" if row.from_truth is None else f"{row.from_truth:.1f}"
    state = row.engine if row.converged else f"{row.engine}, not converged"
    cells = [
        *(row.problem, f"{row.rows:,}", row.levels, state),
        *(f"{seconds:.2f} s" for seconds in (row.read_s, row.fit_s, row.total_s)),
        *(f"{row.beyond_mb / 1000:.2f} GB", f"{row.evaluations}", f"{row.cg_steps:,}"),
        *(f"{row.error_ratio:.4f}", away),
    ]
    return f"| {' | '.join(cells)} |"
