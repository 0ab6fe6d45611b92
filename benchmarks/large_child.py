"""One fit of a large problem in a process of its own: seconds by phase, memory and estimates as a line of JSON.

``python -m benchmarks.large_child PARQUET FORMULA --source frame --engine iterative``; `benchmarks.large` starts it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.child import MARK, memory, reset_peak

SOURCES = ("frame", "parquet")
ENGINES = ("auto", "direct", "iterative")
NO_STEPS = ("start", "probes")  # evaluations that do not move theta


def load(path: Path, source: str) -> Any:
    """What the fit is given: the path, or the data frame that it holds."""
    if source == "parquet":
        return path
    import pandas as pd
    import pyarrow as pa

    data = pd.read_parquet(path)
    pa.default_memory_pool().release_unused()
    return data


def measure(path: Path, formula: str, source: str, engine: str) -> dict[str, Any]:
    """Read, accumulate and fit once, by REML."""
    import crosslmm as clm

    data = load(path, source)
    reset_peak()
    loaded = memory("VmRSS")
    start = time.perf_counter()
    model = clm.MixedLM.from_formula(formula, data)
    _ = model.crossproducts
    read = time.perf_counter()
    fit = model.fit(engine=engine)
    done = time.perf_counter()
    peak = memory("VmHWM")
    trace = fit.optimization
    return {
        "read_s": read - start,
        "fit_s": done - read,
        "total_s": done - start,
        "loaded_mb": loaded,
        "beyond_mb": max(peak - loaded, 0.0),
        "rows": int(fit.nobs),
        "levels": {name: int(levels) for name, levels in fit.n_groups.items()},
        "engine": fit.estimates.plan.engine,
        "converged": bool(fit.converged),
        "newton_steps": int((trace["accepted"] & ~trace["step"].isin(NO_STEPS)).sum()),
        "evaluations": len(trace),
        "cg_steps": int(trace["cg_steps"].sum()),
        "criterion": float(fit.criterion),
        "theta": fit.theta.to_dict(),
        "theta_se": fit.theta_se.to_dict(),
        "theta_mc_error": fit.theta_mc_error.to_dict(),
        "sigma": float(fit.sigma),
        "fixed": fit.fe_params.to_dict(),
        "fixed_se": fit.bse_fe.to_dict(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("formula")
    parser.add_argument("--source", choices=SOURCES, default="frame")
    parser.add_argument("--engine", choices=ENGINES, default="auto")
    options = parser.parse_args()
    result = measure(options.path, options.formula, options.source, options.engine)
    print(MARK + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
