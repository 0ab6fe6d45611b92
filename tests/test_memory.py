"""Peak memory of a fit, in a process of its own, against what its plan states."""

import subprocess
import sys
from pathlib import Path

import pytest

ALLOWANCE = 8_000_000
"""Bytes of a fit beyond what its plan states: what the interpreter and the allocator keep of small arrays."""

MEASURED = """
import ctypes, sys
import numpy as np, pandas as pd
import crosslmm as clm

def status(key):
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith(key)).split()[1])

formula, (n_users, n_films, n, n_probes, max_probes) = sys.argv[1], map(int, sys.argv[2:])
rng = np.random.default_rng(34)
data = pd.DataFrame({"user": rng.integers(0, n_users, n), "film": rng.integers(0, n_films, n)})
data["x"], data["week"] = rng.normal(size=n), rng.integers(0, 52, n)
data["y"] = data["x"] + (1 + data["x"]) * rng.normal(size=n_users)[data["user"]]
data["y"] += rng.normal(size=n_films)[data["film"]] + rng.normal(size=n)
engine = clm.IterativeEngine(n_probes=n_probes, max_probes=max_probes)
few = data[:2_000].assign(user=data["user"] % 200, film=data["film"] % 100)
clm.lmer(formula, few, engine=engine)  # compiles
model = clm.MixedLM.from_formula(formula, data)
model.crossproducts
plan = model.plan(engine)
ctypes.CDLL(None).malloc_trim(0)
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")
held = status("VmRSS:")
fit = model.fit(engine=engine)
print(plan.bytes, status("VmHWM:") - held, fit.estimates.sampling.n_probes)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from /proc (Linux)")
@pytest.mark.parametrize(
    ("formula", "sizes"),
    [
        pytest.param("y ~ x + (1 | user) + (1 | film)", (20_000, 5_000, 300_000, 8, 8), id="8 probes"),
        pytest.param("y ~ x + (1 | user) + (1 | film)", (20_000, 5_000, 300_000, 64, 64), id="64 probes"),
        pytest.param("y ~ x + (1 | user) + (1 | film)", (20_000, 5_000, 300_000, 300, 300), id="300 probes"),
        pytest.param("y ~ x + (1 | user) + (1 | film) + (1 | week)", (20_000, 5_000, 300_000, 8, 8), id="border"),
        pytest.param("y ~ x + (1 + x | user) + (1 + x | film)", (4_000, 2_000, 60_000, 64, 64), id="slopes"),
    ],
)
def test_a_fit_keeps_within_the_memory_of_its_plan(formula, sizes):
    command = [sys.executable, "-c", MEASURED, formula, *map(str, sizes)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    stated, grown, n_probes = map(int, run.stdout.split())
    assert n_probes == sizes[-1]
    assert grown < stated + ALLOWANCE
    assert grown > 0.2 * stated  # what is stated is no exaggeration
