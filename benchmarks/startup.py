"""What a user waits for before the first result: importing, and the first fit on a machine with no compiled kernels.

    python -m benchmarks.startup [--runs N] [--out FILE]

Every figure is the wall time of whole processes. Imports are the median of runs that take turns; the first fits start
with an empty kernel cache, and are followed by the same fit in a new process that finds the cache filled.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from benchmarks import machine
from benchmarks.problems import PROBLEMS
from benchmarks.run import RESULTS, ROOT

FOUNDATION = "import pandas, scipy.sparse, formulaic"
FIT = """
import crosslmm as clm
data = clm.datasets.load_{dataset}()
clm.lmer({formula!r}, data, reml={reml})
"""
FIRST_FITS = {"sleepstudy": "sleepstudy", "insteval_3": "insteval"}


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes
    ----------
    what : str
    seconds : float
    ratio : float
        To the row `against`; 1 where there is none.
    against : str
    """

    what: str
    seconds: float
    ratio: float = 1.0
    against: str = ""


def run(code: str, environment: Mapping[str, str] | None = None) -> float:
    """Seconds of a new interpreter that runs `code`."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - start


def imports(runs: int) -> list[Row]:
    """Medians of `runs` processes each, after one that fills the caches of the file system."""
    statements = ("pass", FOUNDATION, "import crosslmm")
    seconds: dict[str, list[float]] = {statement: [] for statement in statements}
    for turn in range(runs + 1):
        for statement in statements:
            elapsed = run(statement)
            if turn:
                seconds[statement].append(elapsed)
    empty, foundation, package = (statistics.median(seconds[statement]) for statement in statements)
    return [
        Row("python -c pass", empty),
        Row(FOUNDATION, foundation),
        Row("import crosslmm", package, package / foundation, FOUNDATION),
    ]


def first_fits() -> list[Row]:
    """Import, load, build and fit in a new process: kernels not compiled yet, then compiled and kept on disk."""
    rows = []
    for name, dataset in FIRST_FITS.items():
        problem = PROBLEMS[name]
        code = FIT.format(dataset=dataset, formula=problem.formula, reml=problem.reml)
        with tempfile.TemporaryDirectory() as cache:
            first, second = (run(code, {"NUMBA_CACHE_DIR": cache}) for _ in range(2))
        rows.append(Row(f"{name}: first fit, empty kernel cache", first))
        rows.append(Row(f"{name}: first fit in a new process, kernels on disk", second, second / first, rows[-1].what))
    return rows


def write(path: Path, rows: list[Row], described: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        file.writelines(f"# {key}: {value}\n" for key, value in described.items())
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        for row in rows:
            writer.writerow(asdict(row) | {"seconds": f"{row.seconds:.4f}", "ratio": f"{row.ratio:.3f}"})


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.startup", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=11, help="processes per import")
    parser.add_argument("--out", type=Path, default=RESULTS / "startup.csv")
    options = parser.parse_args()
    rows = imports(options.runs) + first_fits()
    write(options.out, rows, machine.describe())
    for row in rows:
        print(f"{row.what:58}{row.seconds:8.3f} s" + (f"{row.ratio:7.2f} x {row.against}" if row.against else ""))


if __name__ == "__main__":
    main()
