"""Cross-products to `Fit`: start, minimise, and translate into the units of the data."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.engine.protocol import Equations
from crosslmm.errors import ModelError
from crosslmm.fit import Fit, Iteration
from crosslmm.linalg.dense import solve_lower
from crosslmm.objective import Evaluation, criterion_problem
from crosslmm.optimize import Optimum, Step, minimize
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
    problem = criterion_problem(equations, xp, natural_scale(xp), reml=reml)
    forward = None if report is None else (lambda step: report(_iteration(xp, step)))
    optimum = minimize(problem, theta, tolerance=tolerance, max_evaluations=max_evaluations, report=forward)
    return _translate(xp, equations, optimum, reml=reml, seconds=time.perf_counter() - began)


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
    return Iteration(theta, step.criterion, step.gradient_norm, step.decrement, step.kind, step.accepted, step.seconds)


def _translate(
    xp: CrossProducts, equations: Equations, optimum: Optimum[Evaluation], *, reml: bool, seconds: float
) -> Fit:
    """The optimum in the units of the data (theory eq. (10)-(11))."""
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
        plan=equations.plan,
        reml=reml,
        n=xp.n,
        theta=theta,
        criterion=value.criterion,
        sigma=sigma,
        beta=standard.origin + standard.scale * (standard.x_basis @ value.beta),
        beta_cov=sigma**2 * (root.T @ root),
        modes=tuple(standard.scale * (U @ b).T for U, b in zip(standard.z_bases, modes, strict=True)),
        iterations=tuple(_iteration(xp, step) for step in optimum.steps),
        converged=optimum.converged,
        message=optimum.message,
        boundary=tuple(name for name, flag in zip(layout.theta_names, zero, strict=True) if flag),
        singular=bool(small.any()),
        unit=unit,
        seconds=seconds,
    )
