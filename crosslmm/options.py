"""Options of a fit: what they may be."""

from __future__ import annotations

import sys
from numbers import Integral, Real

import numpy as np

from crosslmm.engine.plan import DirectEngine, Engine, IterativeEngine
from crosslmm.errors import ModelError
from crosslmm.fit import Iteration

TOLERANCE = 1e-9
"""Decrease of the criterion (deviance units) still to come at which the optimiser stops: 5e-5 of a standard error."""

MAX_EVALUATIONS = 500


def engine_options(engine: str | Engine) -> Engine | None:
    """Options of the engine that was asked for; None where it is to be chosen."""
    if isinstance(engine, DirectEngine | IterativeEngine):
        return engine
    named: dict[str, Engine | None] = {"auto": None, "direct": DirectEngine(), "iterative": IterativeEngine()}
    if isinstance(engine, str) and engine in named:
        return named[engine]
    raise ModelError(
        f"engine={engine!r}: expected 'auto', 'direct', 'iterative', a DirectEngine(...) or an IterativeEngine(...)"
    )


def check_limits(tolerance: float, max_evaluations: int) -> None:
    """Refuse limits of a search that make no sense."""
    if not (isinstance(tolerance, Real) and 0.0 <= float(tolerance) < np.inf):
        raise ModelError(f"tolerance={tolerance!r}: expected a decrease of the criterion, such as {TOLERANCE:g}")
    if not (isinstance(max_evaluations, Integral) and int(max_evaluations) >= 1):
        raise ModelError(f"max_evaluations={max_evaluations!r}: expected a whole number, at least 1")


def check_method(reml: object) -> None:
    """Refuse what is neither REML nor maximum likelihood."""
    if reml not in (True, False):
        raise ModelError(f"reml={reml!r}: expected True (REML) or False (maximum likelihood)")


def print_iteration(iteration: Iteration) -> None:
    """One line on standard error."""
    theta = " ".join(f"{value:.5g}" for value in iteration.theta[:8])
    mark = "" if iteration.accepted else "  (rejected)"
    line = f"{iteration.seconds:8.3f} s  {iteration.step:<9} {iteration.criterion:18.8f}  theta {theta}{mark}"
    print(line, file=sys.stderr, flush=True)
