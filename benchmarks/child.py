"""One library on one problem in a process of its own: seconds, criterion and memory as a line of JSON.

``python -m benchmarks.child LIBRARY PROBLEM CSV --calls K --budget SECONDS``; `benchmarks.run` starts it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import sys
import time
from pathlib import Path

import pandas as pd

from benchmarks.problems import PROBLEMS, Problem

MARK = "RESULT "
STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
CLEAR_PEAK = "5"  # proc(5): resets the peak resident set size


def read(csv: Path, problem: Problem) -> pd.DataFrame:
    """The problem's data, categories as pandas categories."""
    return pd.read_csv(csv, dtype=dict.fromkeys(problem.factors, "category"))


def memory(field: str) -> float:
    """Resident memory in MB: ``VmRSS`` now, ``VmHWM`` at its peak since `reset_peak`."""
    try:
        lines = STATUS.read_text().splitlines()
        return float(next(line for line in lines if line.startswith(field)).split()[1]) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def reset_peak() -> None:
    """Forget the peak of loading the data; where the system has no such switch the peak stays an upper bound."""
    try:
        CLEAR_REFS.write_text(CLEAR_PEAK)
    except OSError:
        print("the peak of resident memory cannot be reset", file=sys.stderr)


def measure(library: str, problem: Problem, csv: Path, calls: int, budget: float) -> dict[str, object]:
    """First call, then up to `calls` more as long as all together take less than `budget` seconds."""
    try:
        adapter = importlib.import_module(f"benchmarks.adapters.{library}")
        version = adapter.version()
    except ImportError as error:
        return {"skipped": f"not installed here ({error})"}
    data = read(csv, problem)
    prepare = adapter.refitter if problem.refit else adapter.fitter
    call = prepare(problem, data)
    reset_peak()
    baseline = memory("VmRSS")
    seconds: list[float] = []
    while not seconds or (len(seconds) <= calls and sum(seconds) < budget):
        start = time.perf_counter()
        criterion = call()
        seconds.append(time.perf_counter() - start)
    return {
        "version": version,
        "first": seconds[0],
        "warm": seconds[1:],
        "criterion": float(criterion),
        "peak_mb": max(memory("VmHWM") - baseline, 0.0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library")
    parser.add_argument("problem", choices=PROBLEMS)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--budget", type=float, default=30.0)
    options = parser.parse_args()
    result = measure(options.library, PROBLEMS[options.problem], options.csv, options.calls, options.budget)
    print(MARK + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
