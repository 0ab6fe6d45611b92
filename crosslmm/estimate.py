"""Cross-products to `Fit`: start, minimise, and translate into the units of the data."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.engine.protocol import Equations
from crosslmm.errors import ModelError
from crosslmm.fit import Fit, Iteration, Sampling
from crosslmm.linalg.dense import solve_lower
from crosslmm.objective import Derivatives, Directions, Evaluation, criterion_problem, differentiate
from crosslmm.optimize import Optimum, Step, minimize
from crosslmm.precision import NEARBY, Precision, Spread, directions, precision, spread
from crosslmm.start import natural_scale, row_scale, starting_theta

SINGULAR = 1e-4
"""A random effect whose standard deviation (column of mean square 1) is below this part of sigma is singular (lme4)."""

ABSORBED = 1e-10
"""Part of a random effect's sum of squares that must be outside the fixed effects."""

LEAST_RESIDUAL_SHARE = 2e-9
"""Residual variance, as a part of that around the fixed effects, below which rounding in the cross-products (1e-16 of
the whole) disturbs the search: fits at 3e-9 are exact to five decimals of the criterion, some at 9e-10 are wrong."""


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
    slopes : Derivatives or None
        At the optimum; None where nothing was sampled.
    precision : Precision or None
    """

    equations: Equations
    optimum: Optimum[Evaluation]
    steps: tuple[Step, ...]
    slopes: Derivatives | None
    precision: Precision | None


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
            return Search(equations, optimum, steps, None, None)
        slopes = differentiate(optimum.value, Directions(xp.layout.theta_factor, xp.layout.theta_basis))
        found = precision(slopes.information, slopes.curvature, slopes.deviations, problem.free(optimum.theta))
        sharper = equations.sharper(found.ratio) if optimum.converged else None
        if sharper is None:
            return Search(equations, optimum, steps, slopes, found)
        equations, theta = sharper, optimum.theta


def _moved(step: Step, elapsed: float) -> Step:
    """A step with its time counted from the beginning of the first round."""
    return replace(step, seconds=step.seconds + elapsed)


def check_degrees(xp: CrossProducts) -> None:
    """Refuse REML where one residual degree of freedom is left: its criterion is constant then.

    Raises
    ------
    ModelError
    """
    p = xp.layout.n_fixed
    if xp.n - p < 2:
        raise ModelError(
            f"{xp.n} rows and {p} fixed effects leave one residual degree of freedom: the REML criterion does not "
            "depend on the variances then; fit with reml=False or fewer fixed effects"
        )


def check_information(xp: CrossProducts) -> None:
    """Refuse random effects that the fixed effects absorb: the REML criterion does not depend on their variance.

    Raises
    ------
    ModelError
        When a random-effects column of every level is a combination of columns of X.
    """
    p = xp.layout.n_fixed
    if p == 0:
        return
    root = np.linalg.cholesky(xp.fixed[:p, :p])
    for factor, D, border in zip(xp.layout.factors, xp.diagonal, xp.border, strict=True):
        for j, name in enumerate(factor.columns):
            total = float(D[j, j].sum())
            absorbed = float(np.sum(np.linalg.solve(root, border[j, :, :p].T) ** 2)) if factor.n_levels <= p else 0.0
            if absorbed >= (1.0 - ABSORBED) * total:
                raise ModelError(
                    f"the fixed effects hold every level of {factor.name!r} for the random effect {name!r}, so REML "
                    "cannot estimate its variance: take the factor out of the fixed or out of the random part"
                )


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
    """Monte Carlo and statistical errors of theta and sigma, where anything was sampled."""
    slopes, found, value = search.slopes, search.precision, search.optimum.value
    if slopes is None or found is None:
        return None
    theta, to_raw = search.optimum.theta, xp.layout.to_raw

    def around(steps: FloatArray, log_variance: FloatArray) -> Spread:
        change = 0.5 * NEARBY * (log_variance - steps @ slopes.scores / value.degrees)
        return spread(theta, steps, sigma * np.exp([change, -change]), to_raw)

    sampled, known = directions(found.sampling), directions(found.statistical)
    # The residual variance has an error of its own at a given theta: a chi-squared on nu degrees of freedom.
    own = np.zeros(len(known) + 1)
    own[-1] = np.sqrt(2.0 / value.degrees)
    return Sampling(
        n_probes=search.equations.n_probes,
        ratio=found.ratio,
        asked=search.equations.asked_error,
        criterion_error=value.system.log_det_error,
        monte_carlo=around(sampled, np.zeros(len(sampled))),
        statistical=around(np.vstack([known, np.zeros(theta.size)]), own),
    )


def _translate(xp: CrossProducts, search: Search, *, reml: bool, seconds: float) -> Fit:
    """The optimum in the units of the data (theory eq. (10)-(11))."""
    optimum = search.optimum
    layout, value = xp.layout, optimum.value
    standard = layout.standardization
    unit = row_scale(xp)
    share = value.sigma2 * unit**2
    if share < LEAST_RESIDUAL_SHARE:
        raise ModelError(
            f"the random effects reproduce {layout.response!r} all but exactly: the residual variance is {share:.0e} "
            "of the variance around the fixed effects, too small a part to be told from rounding"
        )
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
