"""A starting point for theta: every factor fitted alone, then put together.

A one-factor model costs O(levels) per evaluation, so these fits are free beside the crossed one. Alone, a factor
leaves the variance of all others in the residual; theta is rescaled to the residual variance that is left when every
factor has taken its share.
"""

from __future__ import annotations

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.engine.direct import prepare
from crosslmm.engine.plan import DirectEngine
from crosslmm.objective import Evaluation, criterion_problem
from crosslmm.optimize import minimize

FIRST_GUESS = 0.7
"""Standard deviation of a random effect over sigma before anything is known."""

ROUGH = 1e-2
"""Tolerance of the one-factor fits, in deviance units."""

ROUGH_EVALUATIONS = 25

LEAST_RESIDUAL = 0.3
"""The residual variance of the full model is taken to be at least this part of the smallest one-factor residual."""

LEAST_SCALES = 0.3
"""Start no closer to 0 than this many natural scales: at 0 itself the criterion is flat."""


def natural_scale(xp: CrossProducts) -> FloatArray:
    """Theta at which a level's data and its prior weigh the same: ``1 / sqrt(mean_l A_l,jj)``; shape (m,)."""
    per_factor = []
    for D in xp.diagonal:
        index = np.arange(D.shape[0])
        mean = D[index, index].mean(axis=1)
        per_factor.append(1.0 / np.sqrt(np.where(mean > 0.0, mean, 1.0)))
    layout = xp.layout
    rows = (int(np.argmax(E.any(axis=1))) for E in layout.theta_basis)
    return np.array([per_factor[f][row] for f, row in zip(layout.theta_factor, rows, strict=True)])


def row_scale(xp: CrossProducts) -> float:
    """Theta at which a random effect varies as much as the residual of an average row: ``1 / sqrt(mean weight)``."""
    D = xp.diagonal[0]
    information = float(np.trace(D.sum(axis=2)))
    return float(np.sqrt(xp.n * D.shape[0] / information))


def starting_theta(xp: CrossProducts, *, reml: bool) -> FloatArray:
    """Starting theta in standardised coordinates; shape (m,)."""
    layout = xp.layout
    if len(layout.factors) == 1:
        return _guess(xp)
    alone = [_fit_alone(xp.restrict(f), reml=reml) for f in range(len(layout.factors))]
    shares = [value.sigma2 * sum(float(np.sum(T**2)) for T in value.templates) for value in alone]
    smallest = min(value.sigma2 for value in alone)
    total = max(value.sigma2 + share for value, share in zip(alone, shares, strict=True))
    residual = float(np.clip(total - sum(shares), LEAST_RESIDUAL * smallest, smallest))
    templates = tuple(value.templates[0] * np.sqrt(value.sigma2 / residual) for value in alone)
    theta = layout.theta(templates)
    least = LEAST_SCALES * natural_scale(xp)
    return np.where(layout.on_diagonal, np.maximum(theta, least), theta)


def _guess(xp: CrossProducts) -> FloatArray:
    return np.where(xp.layout.on_diagonal, FIRST_GUESS * row_scale(xp), 0.0)


def _fit_alone(xp: CrossProducts, *, reml: bool) -> Evaluation:
    equations = prepare(xp, DirectEngine())
    problem = criterion_problem(equations, xp, natural_scale(xp), reml=reml)
    return minimize(problem, _guess(xp), tolerance=ROUGH, max_evaluations=ROUGH_EVALUATIONS).value
