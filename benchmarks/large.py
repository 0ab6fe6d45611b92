"""Fits of large crossed designs: seconds by phase, memory, steps, errors, and how the time grows with the rows.

    python -m benchmarks.large [--sizes 1M,10M,25M] [--shape lognormal] [--source frame] [--engine iterative]
    python -m benchmarks.large --sizes "" --designs insteval_3,flights,trials

Every fit is a process of its own, started from a Parquet file that is made when it is not in the cache. The first run,
of the smallest problem, is not measured: it leaves compiled kernels on disk, which every other run loads.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import large_table, machine, rating_files
from benchmarks.child import MARK
from benchmarks.large_child import ENGINES, SOURCES
from benchmarks.large_table import Row
from benchmarks.problems import PROBLEMS
from benchmarks.ratings import FORMULA, ORDERS, SIZES, TRUTH
from benchmarks.run import RESULTS, ROOT
from benchmarks.shapes import SHAPES

TRUE_VALUES = {
    "user.Intercept": TRUTH.user / TRUTH.residual,
    "film.Intercept": TRUTH.film / TRUTH.residual,
    "x": TRUTH.slope,
}


@dataclass(frozen=True)
class Task:
    """A file and what to fit to it.

    Attributes
    ----------
    name, formula : str
    path : Path
    truth : dict
        True theta and coefficients, by name; empty where they are not known.
    """

    name: str
    formula: str
    path: Path
    truth: dict[str, float]


def rating_task(size: str, options: argparse.Namespace, cache: Path) -> Task:
    path = rating_files.cached(cache, size, options.shape, options.order, options.seed)
    return Task(size, FORMULA, path, TRUE_VALUES)


def design_task(name: str, cache: Path) -> Task:
    problem, path = PROBLEMS[name], cache / f"{name}.parquet"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        problem.data()[problem.columns].to_parquet(path, index=False)
    return Task(name, problem.formula, path, {})


def run(task: Task, options: argparse.Namespace) -> dict[str, Any]:
    """What the process prints, or ``{"note": why there is nothing}``."""
    arguments = [str(task.path), task.formula, "--source", options.source, "--engine", options.engine]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.large_child", *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=options.timeout,
        )
    except subprocess.TimeoutExpired:
        return {"note": f"stopped after {options.timeout:,.0f} s"}
    results = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if results:
        return json.loads(results[-1].removeprefix(MARK))
    complaint = [line for line in done.stderr.splitlines() if line.strip()] or [f"ended with code {done.returncode}"]
    return {"note": complaint[-1].strip()[:300]}


def row_of(task: Task, result: dict[str, Any], options: argparse.Namespace) -> Row:
    shape = options.shape if task.truth else ""
    if "note" in result:
        return Row(task.name, shape, options.source, options.engine, note=result["note"])
    errors, spread = result["theta_mc_error"], result["theta_se"]
    estimates, se = result["theta"] | result["fixed"], spread | result["fixed_se"]
    return Row(
        problem=task.name,
        shape=shape,
        source=options.source,
        engine=result["engine"],
        rows=result["rows"],
        levels=" x ".join(f"{levels:,}" for levels in result["levels"].values()),
        read_s=result["read_s"],
        fit_s=result["fit_s"],
        total_s=result["total_s"],
        loaded_mb=result["loaded_mb"],
        beyond_mb=result["beyond_mb"],
        newton_steps=result["newton_steps"],
        evaluations=result["evaluations"],
        cg_steps=result["cg_steps"],
        error_ratio=max(errors[name] / spread[name] for name in errors),
        from_truth=max((abs(estimates[name] - true) / se[name] for name, true in task.truth.items()), default=None),
        converged=result["converged"],
        criterion=result["criterion"],
        estimates="; ".join(f"{name} {value:.6g}" for name, value in (estimates | {"sigma": result["sigma"]}).items()),
    )


def measure(tasks: Sequence[Task], options: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    if tasks:
        run(min(tasks, key=lambda task: task.path.stat().st_size), options)
    for task in tasks:
        for _ in range(options.runs):
            rows.append(row_of(task, run(task, options), options))
            print(large_table.progress(rows[-1]), file=sys.stderr, flush=True)
            large_table.write(options.out, rows, machine.describe())
    return rows


def _names(allowed: Sequence[str]) -> Any:
    def names(text: str) -> list[str]:
        wanted = [name for name in text.split(",") if name]
        unknown = [name for name in wanted if name not in allowed]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: expected some of {', '.join(allowed)}")
        return wanted

    return names


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.large", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=_names(list(SIZES)), default=["1M", "10M", "25M"], metavar="SIZE,...")
    parser.add_argument("--designs", type=_names(list(PROBLEMS)), default=[], metavar="PROBLEM,...")
    parser.add_argument("--shape", choices=SHAPES, default="lognormal")
    parser.add_argument("--order", choices=ORDERS, default="random", help="of the rows")
    parser.add_argument("--seed", type=int, default=1, help="of the data")
    parser.add_argument("--source", choices=SOURCES, default="frame")
    parser.add_argument("--engine", choices=ENGINES, default="iterative")
    parser.add_argument("--runs", type=int, default=1, help="of each problem")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds after which a run is stopped")
    parser.add_argument("--cache", type=Path, help="folder for the Parquet files; else they are deleted at the end")
    parser.add_argument("--out", type=Path, default=RESULTS / "large.csv")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse_arguments()
    with tempfile.TemporaryDirectory() as temporary:
        cache = options.cache or Path(temporary)
        tasks = [rating_task(size, options, cache) for size in options.sizes]
        tasks += [design_task(name, cache) for name in options.designs]
        rows = measure(tasks, options)
    print(large_table.markdown(rows))


if __name__ == "__main__":
    main()
