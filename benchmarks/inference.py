"""Inference after a fit: profiles, the bootstrap, degrees of freedom, next to lme4 in the same run.

    python -m benchmarks.inference [--tasks NAMES] [--rounds N] [--out FILE]

Each program works in processes of its own, which take turns; the fit is made before the clock starts. The fastest of
all rounds counts. lme4 draws fewer bootstrap samples than crosslmm, and its time is scaled up: each costs the same.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from benchmarks import machine
from benchmarks.run import RESULTS, ROOT

SLEEP = "Reaction ~ Days + (Days | Subject)"
INSTEVAL = "y ~ service + (1 | s) + (1 | d) + (1 | dept)"
INTERACTION = "y ~ service * dept + (1 | s) + (1 | d)"

CROSSLMM = """
import json, time
import crosslmm as clm
fit = clm.lmer({formula!r}, clm.datasets.load_{dataset}())
seconds = []
for _ in range({calls}):
    start = time.perf_counter()
    {task}
    seconds.append(time.perf_counter() - start)
print(json.dumps(min(seconds)))
"""

LME4 = """
suppressMessages(library(lme4))
{data}
fit <- lmer({formula}, data)
all <- function(m) c(fixef(m), getME(m, "theta"), sigma(m))
seconds <- c()
for (i in seq_len({calls})) {{
  start <- Sys.time()
  {task}
  seconds <- c(seconds, as.numeric(difftime(Sys.time(), start, units = "secs")))
}}
cat(min(seconds), "\\n")
"""


@dataclass(frozen=True)
class Task:
    """One row of the table.

    Attributes
    ----------
    name, about : str
    formula, dataset : str
    python : str
        What is timed, of a ``fit``.
    r : str
        The same in R, or empty where lme4 has nothing like it, or would take hours.
    r_share : float
        Part of the work that R does.
    calls : int
        Calls in one process; the fastest counts.
    """

    name: str
    about: str
    formula: str
    dataset: str
    python: str
    r: str = ""
    r_share: float = 1.0
    calls: int = 5


TASKS = {
    task.name: task
    for task in (
        Task(
            "profile",
            "profile of all parameters, sleepstudy (Days | Subject)",
            SLEEP,
            "sleepstudy",
            "fit.profile()",
            "profile(fit)",
        ),
        Task(
            "bootstrap",
            "10,000 parametric bootstrap refits, sleepstudy (Days | Subject)",
            SLEEP,
            "sleepstudy",
            "fit.bootstrap(10_000, rng=1)",
            "bootMer(fit, all, nsim = 500, seed = 1)",
            r_share=0.05,
            calls=2,
        ),
        Task(
            "bootstrap_two",
            "the same by two threads",
            SLEEP,
            "sleepstudy",
            "fit.bootstrap(10_000, rng=1, n_jobs=2)",
            calls=2,
        ),
        Task(
            "bootstrap_insteval",
            "1,000 parametric bootstrap refits, InstEval, three terms, two threads",
            INSTEVAL,
            "insteval",
            "fit.bootstrap(1000, rng=1, n_jobs=2)",
            calls=1,
        ),
        Task(
            "profile_insteval",
            "profile of all parameters, InstEval, three terms",
            INSTEVAL,
            "insteval",
            "fit.profile()",
            calls=1,
        ),
        Task(
            "ranova_insteval",
            "likelihood-ratio tests of the terms, InstEval, three terms",
            INSTEVAL,
            "insteval",
            "fit.ranova()",
            calls=1,
        ),
        Task(
            "satterthwaite",
            "Satterthwaite for 28 coefficients, InstEval service * dept",
            INTERACTION,
            "insteval",
            'fit.coef_table(ddf="satterthwaite")',
            calls=1,
        ),
        Task(
            "kenward_roger",
            "Kenward-Roger for the same",
            INTERACTION,
            "insteval",
            'fit.coef_table(ddf="kenward-roger")',
            calls=1,
        ),
    )
}

R_DATA = {"sleepstudy": "data <- sleepstudy", "insteval": "data <- InstEval"}


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes
    ----------
    name, about : str
    crosslmm, lme4 : float
        Seconds; nan where it was not run.
    ratio : float
        lme4 over crosslmm.
    """

    name: str
    about: str
    crosslmm: float
    lme4: float
    ratio: float


def by_crosslmm(task: Task) -> float:
    """Seconds in a new process; one thread of BLAS, so that the threads of the bootstrap have a processor each."""
    code = CROSSLMM.format(formula=task.formula, dataset=task.dataset, calls=task.calls, task=task.python)
    command = ["env", "OPENBLAS_NUM_THREADS=1", sys.executable, "-c", code]
    run = subprocess.run(command, check=True, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return float(json.loads(run.stdout))


def by_lme4(task: Task) -> float:
    """Seconds in a new process, scaled to the whole of the work; nan without R."""
    if not task.r or shutil.which("Rscript") is None:
        return float("nan")
    code = LME4.format(data=R_DATA[task.dataset], formula=task.formula, calls=task.calls, task=task.r)
    command = ["Rscript", "--vanilla", "-e", code]
    run = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return float(run.stdout) / task.r_share if run.returncode == 0 else float("nan")


def measure(task: Task, rounds: int) -> Row:
    """The fastest of all rounds of both programs, in turns."""
    pairs = [(by_crosslmm(task), by_lme4(task)) for _ in range(rounds)]
    ours, theirs = (min(column) for column in zip(*pairs, strict=True))
    return Row(task.name, task.about, ours, theirs, theirs / ours)


def write(path: Path, rows: list[Row], described: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        file.writelines(f"# {key}: {value}\n" for key, value in described.items())
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        for row in rows:
            seconds = {name: f"{getattr(row, name):.4f}" for name in ("crosslmm", "lme4")}
            writer.writerow(asdict(row) | seconds | {"ratio": f"{row.ratio:.1f}"})


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.inference", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", default=",".join(TASKS), help="names, separated by commas: " + ", ".join(TASKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "inference.csv")
    options = parser.parse_args()
    rows = []
    for name in options.tasks.split(","):
        rows.append(measure(TASKS[name], options.rounds if TASKS[name].calls > 1 else 1))
        row = rows[-1]
        theirs = "" if row.lme4 != row.lme4 else f"   lme4 {row.lme4:8.3f} s   {row.ratio:6.1f} times faster"
        print(f"{row.about:72}{row.crosslmm:8.3f} s{theirs}", flush=True)
    threads = "one thread of BLAS for crosslmm, R as its environment says"
    write(options.out, rows, {**machine.describe(), "threads": threads})


if __name__ == "__main__":
    main()
