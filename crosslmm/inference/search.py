"""The deviance with a parameter held at one value: from where its neighbours ended, and from elsewhere.

Where covariances lack a rank, the deviance can have several minima over the other parameters: with a variance of 0 and
with another one, or with correlations of either sign. The curve is the lowest of them, and a search that starts where
its neighbour ended stays with the one it came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.errors import NumericalError
from crosslmm.inference.constrained import CorrelationConstrained, ModelAt, constrain
from crosslmm.inference.curve import CERTAIN, TOLERANCE, Best, Point, Profiled
from crosslmm.inference.limit import at_limit
from crosslmm.inference.parameters import CORRELATION, FIXED, SD, Parameter
from crosslmm.objective import Evaluation
from crosslmm.optimize import Optimum, minimize
from crosslmm.quadratic import Problem
from crosslmm.start import starting_theta

APART = 0.1
"""Difference of zeta of two points below which what is left of rounding in them would disturb an interpolation."""

GUIDES = 4
"""Points that the start of a search is extrapolated from, at most."""

FAR = 10.0
"""An extrapolated start lies no further from the nearest point than this many times the distance of other guides."""

MOST_EVALUATIONS = 300

FLAT = 1e-3
"""Zeta below which a first step was too short to learn from."""

LOWER = 100.0 * TOLERANCE
"""Decrease of the deviance by which another minimum is one."""

ROUGH = 1e-5
FEW = 60
"""Decrease of the deviance still to come at which a search for another minimum ends (a minimum that is lower by less
moves a bound by less than a thousandth of its standard error), and its evaluations, at most."""

OTHER_STARTS = (0.1, 3.0)
"""Parts of the first guess of theta that other minima are searched from: with small variances, and with large ones."""

EXCHANGED = 0.01
"""Part of the first guess that an effect begins with where another one may take its place."""

MOST_EFFECTS = 5_000
"""Random effects up to which other minima are searched for; they come with few levels."""


def profiled(model: ModelAt, parameter: Parameter, estimate: float, best: Best, step: float, sigma: float) -> Profiled:
    """See `Profiled`; `step` in the units of the data."""
    held = constrain(model, parameter)
    ready = Profiled(model, parameter, held, estimate, best, step, sigma)
    if isinstance(held, CorrelationConstrained) and not np.isnan(estimate):
        ready = replace(ready, plateau=_plateau(held, best))
    if ready.inside and parameter.kind != FIXED:
        slope = 1.0 - estimate**2 if parameter.kind == CORRELATION else estimate
        ready = replace(ready, step=step / slope)
    return ready


def _plateau(held: CorrelationConstrained, best: Best) -> Point | None:
    """The highest that the curve of a correlation can be: without one of its effects it can have any value."""
    lowest: Optimum[Evaluation] | None = None
    for start in held.starts_without:
        found = _search(held.problem(0.0), start, best.tolerance, MOST_EVALUATIONS)
        if found is not None and (lowest is None or found.value.criterion < lowest.value.criterion):
            lowest = found
    if lowest is None:
        return None
    zeta = _root(lowest.value.criterion - best.deviance)
    return Point(np.nan, zeta, lowest.theta, error=best.rise_error(lowest.value.system.log_det_samples))


def _search(problem: Problem[Any], start: FloatArray, tolerance: float, most: int) -> Optimum[Any] | None:
    """Where a search ends, or None where it cannot begin."""
    try:
        return minimize(problem, start, tolerance=tolerance, max_evaluations=most)
    except NumericalError:
        return None


def point_at(of: Profiled, points: Sequence[Point], value: float) -> Point:
    """The point at a value, from where its neighbours ended.

    Raises
    ------
    NumericalError
        The search did not converge, or it found a smaller deviance than the least one.
    """
    problem = of.constrained.problem(value)
    start = start_of_search(of, points, value, problem.on_diagonal)
    optimum = minimize(problem, start, tolerance=of.best.tolerance, max_evaluations=MOST_EVALUATIONS)
    flat = of.plateau
    if flat is not None and flat.zeta < _root(optimum.value.criterion - of.best.deviance):
        return replace(flat, value=value, zeta=float(np.sign(value - of.estimate)) * flat.zeta)
    if not optimum.converged:
        raise NumericalError(f"the profile of {of.parameter.name!r} stopped at {value:.6g}: {optimum.message}")
    return _point(of, value, optimum)


def _point(of: Profiled, value: float, optimum: Optimum[Any]) -> Point:
    rise = optimum.value.criterion - of.best.deviance
    error = of.best.rise_error(optimum.value.system.log_det_samples)
    if rise < -max(LOWER, CERTAIN * error):
        raise NumericalError(
            f"the profile of {of.parameter.name!r} found a deviance at {value:.6g} that is smaller by {-rise:.4g} than "
            "that of the fit, which is in another minimum: fit again from another start"
        )
    zeta = float(np.sign(value - of.estimate) * _root(rise))
    slope = 0.5 * of.constrained.slope(optimum.value, value) / zeta if abs(zeta) > FLAT else np.nan
    known = slope * of.step > FLAT * of.rate(value)
    return Point(value, zeta, optimum.theta, slope if known else np.nan, error)


def elsewhere(of: Profiled, point: Point) -> Point | None:
    """The point at the same value in another minimum of the deviance that is lower, or None where none is found.

    Other minima are searched for where a covariance lacks a rank, here or at the estimate.

    Raises
    ------
    NumericalError
        It is lower than the least deviance.
    """
    layout = of.model.xp.layout
    problem = of.constrained.problem(point.value)
    missing = problem.on_diagonal & (np.asarray(point.x) == 0.0)
    singular = missing.any() or (of.model.theta[layout.on_diagonal] == 0.0).any()
    if not singular or sum(factor.n_effects for factor in layout.factors) > MOST_EFFECTS:
        return None
    first = starting_theta(of.model.xp, reml=False)
    starts = [of.constrained.start_at(part * first) for part in OTHER_STARTS]
    if missing.any():  # these in place of the others
        starts.append(np.where(missing, 1.0, EXCHANGED) * of.constrained.start_at(first))
    rough = max(of.best.tolerance, ROUGH)
    searches = [_search(problem, start, rough, FEW) for start in starts]
    found = [optimum for optimum in searches if optimum is not None]
    if not found:
        return None
    other = min(found, key=lambda optimum: float(optimum.value.criterion))
    if of.best.deviance + point.zeta**2 - other.value.criterion < max(LOWER, CERTAIN * point.error):
        return None
    exact = minimize(problem, other.theta, tolerance=of.best.tolerance, max_evaluations=MOST_EVALUATIONS)
    return _point(of, point.value, exact)


def limit_point(of: Profiled, limit: float, side: float) -> Point:
    """The point at a limit of the parameter."""
    at: Evaluation = at_limit(
        of.model,
        of.parameter,
        of.constrained,
        limit,
        tolerance=of.best.tolerance,
        max_evaluations=MOST_EVALUATIONS,
    )
    zeta, error = _root(at.criterion - of.best.deviance), of.best.rise_error(at.system.log_det_samples)
    if of.plateau is not None and of.plateau.zeta < zeta:
        zeta, error = of.plateau.zeta, of.plateau.error
    return Point(limit, side * zeta, None, error=error)


def _root(difference: float) -> float:
    return float(np.sqrt(max(difference, 0.0)))


def start_of_search(of: Profiled, points: Sequence[Point], value: float, on_diagonal: NDArray[np.bool_]) -> FloatArray:
    """Where the points nearby point to."""
    t = of.forward(value)
    known = sorted((p for p in points if p.x is not None), key=lambda p: abs(of.forward(p.value) - t))
    nearest = known[0].x
    assert nearest is not None
    if of.parameter.kind == SD and of.estimate == 0.0 and known[0].value == 0.0:
        return _with_effect(of, nearest, value)
    apart: list[Point] = []
    for p in known:
        if len(apart) < GUIDES and all(abs(p.zeta - q.zeta) > APART for q in apart):
            apart.append(p)
    if len(apart) == 1:
        return nearest
    near = [(of.forward(p.value), np.asarray(p.x)) for p in apart]
    guess = np.zeros(nearest.size)
    for i, (ti, xi) in enumerate(near):
        weight = np.prod([(t - tj) / (ti - tj) for j, (tj, _) in enumerate(near) if j != i])
        guess += weight * xi
    guess[on_diagonal & (nearest == 0.0)] = 0.0
    same = (guess > 0.0) == (nearest > 0.0)
    far = np.linalg.norm(guess - nearest) > FAR * max(np.linalg.norm(x - nearest) for _, x in near)
    return guess if same[on_diagonal].all() and not far else nearest


def _with_effect(of: Profiled, theta: FloatArray, value: float) -> FloatArray:
    """Theta with a small random effect where there is none."""
    layout = of.model.xp.layout
    term = layout.terms[of.parameter.term]
    j = of.parameter.columns[0]
    templates = list(layout.templates(layout.to_raw(theta)))
    raw = templates[term.factor].copy()
    raw[j, j] = value / of.sigma
    templates[term.factor] = raw
    return layout.to_standard(layout.theta(layout.triangular(tuple(templates))))
