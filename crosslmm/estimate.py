"""Cross-products to `Fit`: start, minimise, and translate into the units of the data."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from crosslmm.admissible import check_degrees, check_information, check_residual
from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.engine.protocol import Equations
from crosslmm.fit import Fit, Iteration, Sampling
from crosslmm.linalg.dense import solve_lower
from crosslmm.objective import Evaluation, criterion_problem
from crosslmm.optimize import Optimum, Step, minimize
from crosslmm.start import natural_scale, row_scale, starting_theta
from crosslmm.uncertainty import Minimum, examine, monte_carlo, statistical

SINGULAR = 1e-4
"""A random effect whose standard deviation (column of mean square 1) is below this part of sigma is singular (lme4)."""


FIXED_PART = 0.03
"""What fixed effects take over of the Monte Carlo error of theta, relative to their errors: at most this part of it."""


def estimate(
    xp: CrossProducts,
    equations: Equations,
    *,
    reml: bool,
    start: FloatArray | None = None,
    tolerance: float,
    max_evaluations: int,
    report: Callable[[Iteration], None] | None = None,
) -> Fit:
    """Fit by ML or REML.

    Parameters
    ----------
    start : ndarray, shape (m,), optional
        Theta to start from, in the units of the data.
    tolerance : float
        Predicted decrease of the criterion at which to stop.
    max_evaluations : int
    report : callable, optional
        Receives every iteration as it is made.
    """
    began = time.perf_counter()
    layout = xp.layout
    if reml:
        check_degrees(xp)
        check_information(xp)
    theta = starting_theta(xp, reml=reml) if start is None else layout.to_standard(start)
    search = _search(xp, equations, theta, reml=reml, tolerance=tolerance, limit=max_evaluations, report=report)
    return _translate(xp, search, reml=reml, seconds=time.perf_counter() - began)


@dataclass(frozen=True)
class Search:
    """A search for the minimum, with as many probes as it took.

    Attributes
    ----------
    equations : Equations
        The last ones, with the most probes.
    optimum : Optimum
    steps : tuple of Step
        Of all rounds.
    minimum : Minimum or None
        The optimum with its errors; None where nothing was sampled.
    """

    equations: Equations
    optimum: Optimum[Evaluation]
    steps: tuple[Step, ...]
    minimum: Minimum | None


def _search(
    xp: CrossProducts,
    equations: Equations,
    theta: FloatArray,
    *,
    reml: bool,
    tolerance: float,
    limit: int,
    report: Callable[[Iteration], None] | None,
) -> Search:
    """Minimise; where the Monte Carlo error is too large, go on with more probes."""
    began = time.perf_counter()
    steps: tuple[Step, ...] = ()
    while True:
        before, elapsed = steps, time.perf_counter() - began
        problem = criterion_problem(equations, xp, natural_scale(xp), reml=reml)
        forward = None if report is None else (lambda step, later=elapsed: report(_iteration(xp, _moved(step, later))))
        optimum = minimize(
            problem,
            theta,
            tolerance=max(tolerance, equations.resolution),
            max_evaluations=max(limit - len(before), 1),
            report=forward,
        )
        steps = before + tuple(_moved(step, elapsed) for step in optimum.steps)
        if before:
            steps = (*before, replace(steps[len(before)], kind="probes"), *steps[len(before) + 1 :])
        if not equations.n_probes:
            return Search(equations, optimum, steps, None)
        minimum = examine(xp, optimum.theta, optimum.value)
        found = minimum.precision
        sharper = equations.sharper(max(found.ratio, found.fixed_ratio / FIXED_PART)) if optimum.converged else None
        if sharper is None:
            return Search(equations, optimum, steps, minimum)
        equations, theta = sharper, optimum.theta


def _moved(step: Step, elapsed: float) -> Step:
    """A step with its time counted from the beginning of the first round."""
    return replace(step, seconds=step.seconds + elapsed)


def _iteration(xp: CrossProducts, step: Step) -> Iteration:
    theta = xp.layout.to_raw(step.theta)
    return Iteration(
        theta=theta,
        criterion=step.criterion,
        gradient_norm=step.gradient_norm,
        decrement=step.decrement,
        step=step.kind,
        accepted=step.accepted,
        seconds=step.seconds,
        cg_steps=step.solver_steps,
    )


def _sampling(xp: CrossProducts, search: Search, sigma: float) -> Sampling | None:
    """Errors of theta and sigma, where anything was sampled."""
    at = search.minimum
    if at is None:
        return None
    return Sampling(
        n_probes=search.equations.n_probes,
        ratio=at.precision.ratio,
        fixed_ratio=at.precision.fixed_ratio,
        asked=search.equations.asked_error,
        criterion_error=at.value.system.log_det_error,
        monte_carlo=monte_carlo(xp, at, sigma),
        statistical=statistical(xp, at, sigma),
    )


def _translate(xp: CrossProducts, search: Search, *, reml: bool, seconds: float) -> Fit:
    """The optimum in the units of the data (theory eq. (10)-(11))."""
    optimum = search.optimum
    layout, value = xp.layout, optimum.value
    standard = layout.standardization
    unit = row_scale(xp)
    check_residual(xp, value.sigma2 * unit**2)
    sigma = float(np.sqrt(value.sigma2)) * standard.scale
    root = solve_lower(value.x_factor, standard.x_basis.T)
    modes = value.system.effects(value.beta).modes
    theta = layout.to_raw(optimum.theta)
    small = layout.on_diagonal & (optimum.theta < SINGULAR * unit)
    zero = layout.on_diagonal & (theta == 0.0)
    return Fit(
        layout=layout,
        plan=search.equations.plan,
        reml=reml,
        n=xp.n,
        theta=theta,
        criterion=value.criterion,
        sigma=sigma,
        beta=standard.origin + standard.scale * (standard.x_basis @ value.beta),
        beta_cov=sigma**2 * (root.T @ root),
        modes=tuple(standard.scale * (U @ b).T for U, b in zip(standard.z_bases, modes, strict=True)),
        iterations=tuple(_iteration(xp, step) for step in search.steps),
        converged=optimum.converged,
        message=optimum.message,
        boundary=tuple(name for name, flag in zip(layout.theta_names, zero, strict=True) if flag),
        singular=bool(small.any()),
        unit=unit,
        seconds=seconds,
        sampling=_sampling(xp, search, sigma),
    )
