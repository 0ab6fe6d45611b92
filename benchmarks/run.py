"""Run the benchmarks: every library on every problem, in turns, each in a process of its own.

    python -m benchmarks.run [--problems NAME ...] [--libraries NAME ...] [--peers PYTHON] [--out FILE]

All libraries get the same CSV file with the same categories. Timed is what a user waits for: from the data frame in
memory to the estimates, importing excluded. The first call in a process is reported apart from the best of those that
follow it; memory is the peak of the process less what it held when the data were loaded.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine, table
from benchmarks.adapters import LIBRARIES
from benchmarks.child import MARK
from benchmarks.problems import PROBLEMS, Problem
from benchmarks.table import Row

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
REFIT_CALLS = 10  # times as many calls where one takes milliseconds


def command(library: str, problem: Problem, csv: Path, options: argparse.Namespace) -> list[str]:
    """Command line of the process that measures `library` on `problem`."""
    calls = options.calls * (REFIT_CALLS if problem.refit else 1)
    if library == "lme4":
        from benchmarks.adapters import lme4

        return lme4.command(problem, csv, calls, options.budget)
    python = sys.executable if library == "crosslmm" else options.peers
    limits = ["--calls", str(calls), "--budget", str(options.budget)]
    return [python, "-m", "benchmarks.child", library, problem.name, str(csv), *limits]


def _cap_memory() -> None:
    """A library that wants more than the machine has gets an error, not the machine."""
    resource.setrlimit(resource.RLIMIT_AS, (machine.memory_bytes(), machine.memory_bytes()))


def measure(library: str, problem: Problem, csv: Path, options: argparse.Namespace) -> dict[str, object]:
    """What the process prints, or why there is nothing: a dict with "skipped" or "failed"."""
    try:
        done = subprocess.run(
            command(library, problem, csv, options),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=options.timeout,
            preexec_fn=_cap_memory,
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"stopped after {options.timeout:,.0f} s"}
    results = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if results:
        return json.loads(results[-1].removeprefix(MARK))
    complaint = [line for line in done.stderr.splitlines() if line.strip()] or [f"ended with code {done.returncode}"]
    return {"failed": complaint[-1].strip()[:200]}


def run_problem(problem: Problem, libraries: Sequence[str], options: argparse.Namespace) -> list[Row]:
    """All libraries on one problem; they take turns, so that a busy minute of the machine does not fall on one."""
    rounds: dict[str, list[dict[str, object]]] = {library: [] for library in libraries}
    with tempfile.TemporaryDirectory() as folder:
        csv = Path(folder) / f"{problem.name}.csv"
        problem.data()[problem.columns].to_csv(csv, index=False)
        for turn in range(options.rounds):
            for library, results in rounds.items():
                adapter = importlib.import_module(f"benchmarks.adapters.{library}")
                reason = adapter.skip(problem)
                if reason:
                    results[:] = [{"skipped": reason}]
                elif turn == 0 or _worth_repeating(results[-1], options.once_above):
                    results.append(measure(library, problem, csv, options))
                    print(f"{problem.name:22}{library:14}{_progress(results[-1])}", file=sys.stderr, flush=True)
    return [_row(problem, library, results) for library, results in rounds.items()]


def _worth_repeating(result: dict[str, object], once_above: float) -> bool:
    return "first" in result and result["first"] < once_above


def _progress(result: dict[str, object]) -> str:
    if "first" not in result:
        return "; ".join(f"{key}: {value}" for key, value in result.items())
    return f"first {result['first']:.4g} s, then " + ", ".join(f"{s:.4g}" for s in result["warm"])


def _row(problem: Problem, library: str, results: list[dict[str, object]]) -> Row:
    label = importlib.import_module(f"benchmarks.adapters.{library}").LABEL
    done = [result for result in results if "first" in result]
    if not done:
        status, why = next(iter(results[-1].items()))
        return Row(problem=problem.name, library=label, note=f"{status}: {why}")
    return Row(
        problem=problem.name,
        library=label,
        version=done[-1]["version"],
        first=min(result["first"] for result in done),
        best=min(s for result in done for s in (result["first"], *result["warm"])),
        calls=sum(1 + len(result["warm"]) for result in done),
        criterion=done[-1]["criterion"],
        peak_mb=max(result["peak_mb"] for result in done),
    )


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS), metavar="NAME")
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES), metavar="NAME")
    parser.add_argument("--peers", default=sys.executable, metavar="PYTHON", help="interpreter of the other libraries")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each library")
    parser.add_argument("--calls", type=int, default=5, help="most calls after the first in a turn")
    parser.add_argument("--budget", type=float, default=30.0, help="seconds after which a turn makes no further call")
    parser.add_argument("--once-above", type=float, default=60.0, help="one turn only if a call takes longer")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds after which a turn is stopped")
    parser.add_argument("--out", type=Path, default=RESULTS / "latest.csv")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse_arguments()
    rows: list[Row] = []
    for name in options.problems:
        rows += run_problem(PROBLEMS[name], options.libraries, options)
        table.write(options.out, rows, machine.describe())
    print(table.text(rows, machine.describe()))


if __name__ == "__main__":
    main()
