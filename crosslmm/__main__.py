"""``python -m crosslmm``: fit the InstEval lecture ratings, print the report and where the time went."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import crosslmm as clm

FORMULA = "y ~ service + (1 | s) + (1 | d) + (1 | dept)"


@dataclass(frozen=True)
class Timing:
    """Seconds of one run, from the formula to the estimates."""

    build: float
    fit: float

    def __str__(self) -> str:
        return f"build {self.build:6.3f} s   fit {self.fit:6.3f} s   together {self.build + self.fit:6.3f} s"


def main() -> None:
    """Fit twice: the first run also loads (on a new machine, compiles) the kernels, the second is what a fit costs."""
    parser = argparse.ArgumentParser(prog="python -m crosslmm", description="Fit the InstEval ratings: " + FORMULA)
    parser.add_argument("--ml", action="store_true", help="maximum likelihood (default: REML)")
    reml = not parser.parse_args().ml

    start = time.perf_counter()
    data = clm.datasets.load_insteval()
    load = time.perf_counter() - start

    timings = []
    for _ in range(2):
        start = time.perf_counter()
        model = clm.MixedLM.from_formula(FORMULA, data)
        built = time.perf_counter()
        result = model.fit(reml=reml)
        timings.append(Timing(build=built - start, fit=time.perf_counter() - built))

    print(result)
    print()
    print(f"data         load {load:6.3f} s   {len(data):,} rows")
    print(f"first run    {timings[0]}")
    print(f"second run   {timings[1]}")


if __name__ == "__main__":
    main()
