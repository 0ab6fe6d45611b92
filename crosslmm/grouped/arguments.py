"""Arguments of statsmodels' `fit`: what they mean here, what has no meaning, what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.errors import DataWarning, ModelError, warn
from crosslmm.grouped.parameters import Space, numbers
from crosslmm.grouped.restructure import Sets, correlated_sets

# fmt: off
OPTIMIZER_ARGUMENTS = frozenset({
    "approx_grad", "callback", "cov_kwds", "cov_type", "disp", "eps", "epsilon", "factr", "ftol",
    "full_hessian", "gtol", "m", "maxcor", "maxfun", "maxiter", "maxls", "min_method", "niter", "norm", "pgtol",
    "retall", "skip_hessian", "stepsize", "tol", "use_t", "warn_convergence", "xtol",
})
# fmt: on
"""Arguments that statsmodels and the optimisers behind it know; none of them means anything to Newton's method here."""


@dataclass(frozen=True)
class FitArguments:
    """Arguments of statsmodels' `fit`, as they were given; see `MixedLM.fit`."""

    start_params: Any
    niter_sa: int
    do_cg: bool
    fe_pen: Any
    cov_pen: Any
    free: Any
    full_output: bool
    method: Any
    others: Mapping[str, Any]


@dataclass(frozen=True)
class FitRequest:
    """What is made of them.

    Attributes
    ----------
    theta : ndarray, shape (m,), or None
        Where to start, units of the data.
    sets : tuple of tuple of int, or None
        Random effects of a group that are correlated; None where all are.
    show : bool
        Whether the iterations are to be printed.
    """

    theta: FloatArray | None
    sets: Sets | None
    show: bool


def read_arguments(given: FitArguments, space: Space | None) -> FitRequest:
    """Check the arguments of a fit.

    Parameters
    ----------
    given : FitArguments
    space : Space or None
        None for a model with bars.

    Raises
    ------
    ModelError
        One is unknown, refused, or does not fit the model.

    Warns
    -----
    DataWarning
        Arguments of an optimiser were given.
    """
    for name, penalty in (("fe_pen", given.fe_pen), ("cov_pen", given.cov_pen)):
        if penalty is not None:
            raise ModelError(
                f"{name} is not supported: penalties change what is estimated; see fit_regularized for the lasso on "
                "fixed effects"
            )
    unknown = sorted(set(given.others) - OPTIMIZER_ARGUMENTS)
    if unknown:
        raise ModelError(f"fit() has no argument {unknown[0]!r}")
    _say_ignored(given)
    if space is None:
        if given.start_params is not None or given.free is not None:
            name = "free" if given.start_params is None else "start_params"
            raise ModelError(f"{name} belongs to a model with groups=; with bars write start=theta, or (x || g)")
        return FitRequest(None, None, bool(given.others.get("disp", False)))
    theta = None
    if given.start_params is not None:
        theta = space.theta(space.point(given.start_params))
    sets = None if given.free is None else _sets(given.free, space)
    return FitRequest(theta, sets, bool(given.others.get("disp", False)))


def _say_ignored(given: FitArguments) -> None:
    names = ["method"] if given.method is not None else []
    names += ["niter_sa"] if given.niter_sa else []
    names += sorted(set(given.others) - {"disp"})
    if names:
        verb = "has" if len(names) == 1 else "have"
        warn(
            f"{', '.join(names)} {verb} no meaning here and {'is' if len(names) == 1 else 'are'} passed over: there is "
            "one optimiser, Newton's method, and it checks that it has arrived (see converged)",
            DataWarning,
        )


def _sets(free: Any, space: Space) -> Sets | None:
    try:
        parts = free.fe_params, free.cov_re, free.vcomp
    except AttributeError as error:
        raise ModelError(f"free is a MixedLMParams of zeros and ones, not {type(free).__name__}") from error
    fixed, vcomp = numbers(parts[0]), numbers(parts[2])
    mask = np.atleast_2d(np.asarray(parts[1], dtype=float))
    if np.any(fixed == 0.0) or np.any(vcomp == 0.0):
        raise ModelError("free holds covariances of cov_re only: fixed effects and variance components are estimated")
    if mask.size == 0 and space.k_re == 0:
        return None
    if mask.shape != (space.k_re, space.k_re):
        raise ModelError(f"cov_re of free has the shape {mask.shape}, but there are {space.k_re} random effects")
    sets = correlated_sets(mask)
    return None if len(sets) == 1 else sets
