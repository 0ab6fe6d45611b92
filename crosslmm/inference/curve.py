"""The profile of one parameter: points on its curve, found where they are wanted.

The signed root ``zeta(v) = sign(v - estimate) sqrt(d(v) - d(estimate))`` of the deviance, minimised over all other
parameters, is nearly a straight line in a suitable scale of v. So v at a wanted zeta is found by inverse interpolation
through the points that are known, and every search starts where its neighbours ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.engine.direct import prepare
from crosslmm.engine.plan import DirectEngine
from crosslmm.errors import NumericalError
from crosslmm.inference.constrained import Constrained, ModelAt, constrain
from crosslmm.inference.parameters import CORRELATION, FIXED, SD, Parameter
from crosslmm.inference.reduce import TermColumns, fixed_only_criterion, whole_term, with_terms
from crosslmm.objective import criterion_problem
from crosslmm.optimize import minimize
from crosslmm.start import natural_scale, starting_theta

TOLERANCE = 1e-7
"""Decrease of the deviance still to come at which the search over the others stops: 3e-8 of zeta at a 95% bound."""

EXACT = 1e-6
"""Error of zeta at which a bound counts as found: a millionth of the standard error."""

NEIGHBOURS = 4
"""Points that one inverse interpolation goes through, at most."""

APART = 0.1
"""Difference of zeta of two points below which what is left of rounding in them would disturb an interpolation."""

GUIDES = 4
"""Points that the start of a search is extrapolated from, at most."""

MOST_POINTS = 40
"""Points on the way to one bound, at most."""

MOST_EVALUATIONS = 300

REACH = 3.0
"""No step goes further than this many times the distance of the outermost point from the estimate."""

NEAR_LIMIT = 0.1
"""A standard deviation below this part of its estimate, or a correlation this near 1, asks for the limit itself."""

FLAT = 1e-3
"""Zeta below which a first step was too short to learn from."""


@dataclass(frozen=True)
class Point:
    """A point on the curve.

    Attributes
    ----------
    value, zeta : float
    x : ndarray or None
        Where the search over the others ended; None at a limit.
    slope : float
        Derivative of zeta by the value; nan where it is not known.
    """

    value: float
    zeta: float
    x: FloatArray | None
    slope: float = np.nan


@dataclass(frozen=True)
class Curve:
    """What is known of the profile of one parameter.

    Attributes
    ----------
    parameter : Parameter
    estimate : float
        By ML; nan for a correlation with a standard deviation of 0.
    points : tuple of Point
        Increasing in value.
    """

    parameter: Parameter
    estimate: float
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Profiled:
    """One parameter ready to be held.

    Attributes
    ----------
    model : ModelAt
    parameter : Parameter
    constrained : Constrained
    estimate, deviance : float
        At the ML fit.
    step : float
        A guess of the standard error, in the scale of `forward`.
    sigma : float
        Residual standard deviation of the ML fit.
    plain : bool
        Whether values are taken as they are, as has to be where the limit is a point to interpolate from.
    """

    model: ModelAt
    parameter: Parameter
    constrained: Constrained
    estimate: float
    deviance: float
    step: float
    sigma: float
    plain: bool = False

    @property
    def lower(self) -> float:
        """Least value that the parameter can have."""
        return {CORRELATION: -1.0, FIXED: -np.inf}.get(self.parameter.kind, 0.0)

    @property
    def upper(self) -> float:
        """Largest value that the parameter can have."""
        return 1.0 if self.parameter.kind == CORRELATION else np.inf

    @property
    def inside(self) -> bool:
        """Whether the estimate lies off both limits."""
        return self.lower < self.estimate < self.upper

    @property
    def _as_it_is(self) -> bool:
        return self.plain or self.parameter.kind == FIXED or not self.inside

    def forward(self, value: float) -> float:
        """The scale in which the curve is nearly straight."""
        if self._as_it_is:
            return value
        return float(np.arctanh(value) if self.parameter.kind == CORRELATION else np.log(value))

    def back(self, scaled: float) -> float:
        """The value again."""
        if self._as_it_is:
            return min(max(scaled, self.lower), self.upper)
        return float(np.tanh(scaled) if self.parameter.kind == CORRELATION else np.exp(scaled))

    def rate(self, value: float) -> float:
        """Derivative of `forward`."""
        if self._as_it_is:
            return 1.0
        return 1.0 / (1.0 - value**2) if self.parameter.kind == CORRELATION else 1.0 / value

    def own_point(self) -> Point:
        """The ML estimate as a point."""
        return Point(self.estimate, 0.0, self.constrained.start)


def profiled(
    model: ModelAt, parameter: Parameter, estimate: float, deviance: float, step: float, sigma: float
) -> Profiled:
    """See `Profiled`; `step` in the units of the data."""
    ready = Profiled(model, parameter, constrain(model, parameter), estimate, deviance, step, sigma)
    if ready.inside and parameter.kind != FIXED:
        slope = 1.0 - estimate**2 if parameter.kind == CORRELATION else estimate
        ready = replace(ready, step=step / slope)
    return ready


def reach(of: Profiled, points: list[Point], goal: float, accuracy: float = EXACT) -> tuple[list[Point], Point]:
    """Points on the way to zeta = goal, and the last one: there, or at the limit where the curve ends before it.

    Raises
    ------
    NumericalError
        It was not found.
    """
    side = np.sign(goal)
    limit = of.lower if side < 0 else of.upper
    if of.estimate == limit:
        return points, points[0]
    points = list(points)
    for _ in range(MOST_POINTS):
        found = next((p for p in points if abs(p.zeta - goal) <= accuracy), None)
        ends = next((p for p in points if p.x is None and np.sign(p.value - of.estimate) == side), None)
        if found is not None or (ends is not None and abs(ends.zeta) <= abs(goal)):
            return points, found or ends  # type: ignore[return-value]
        scaled = of if ends is None else replace(of, plain=True)
        value = scaled.back(_predict(scaled, points, goal))
        if ends is None and _near(of, value, limit):
            points.append(Point(limit, side * _root(_deviance_at_limit(of, limit) - of.deviance), None))
            continue
        points.append(_solve(of, points, value))
    raise NumericalError(
        f"the profile of {of.parameter.name!r} did not reach {goal:.3g} standard errors within {MOST_POINTS} points"
    )


def _near(of: Profiled, value: float, limit: float) -> bool:
    if not np.isfinite(limit):
        return False
    if of.parameter.kind == CORRELATION:
        return abs(value - limit) < NEAR_LIMIT
    return value < NEAR_LIMIT * of.estimate


def _predict(of: Profiled, points: Sequence[Point], goal: float) -> float:
    """Where zeta will be `goal`, in the scale of `Profiled.forward`."""
    side = np.sign(goal)
    start = of.forward(of.estimate)
    known = [(of.forward(p.value), p.zeta) for p in points if p.x is not None or of.plain]
    mine = [(t, z) for t, z in known if side * (t - start) > 0.0]
    if not mine:
        return float(start + side * of.step)
    outermost = max(mine, key=lambda tz: side * tz[0])
    if side * outermost[1] < FLAT:
        return float(start + REACH * (outermost[0] - start))
    guess = _inverse(of, points, goal)
    below = max((t for t, z in known if side * (z - goal) < 0.0), key=lambda t: side * t)
    beyond = [t for t, z in mine if side * (z - goal) > 0.0]
    if not beyond:
        most = start + REACH * (outermost[0] - start)
        forward = side * (guess - outermost[0]) > 0.0
        return float(guess if forward and side * (most - guess) > 0.0 else most)
    above = min(beyond, key=lambda t: side * t)
    between = side * (guess - below) > 0.0 and side * (above - guess) > 0.0
    return float(guess if between else 0.5 * (below + above))


def _inverse(of: Profiled, points: Sequence[Point], goal: float) -> float:
    """Value (scale of `forward`) at zeta = goal on the polynomial through the nearest points, with slopes if known.

    Newton's divided differences; a point with a slope counts twice.
    """
    nearest: list[Point] = []
    for p in sorted((p for p in points if p.x is not None or of.plain), key=lambda p: abs(p.zeta - goal)):
        if all(abs(p.zeta - q.zeta) > APART for q in nearest) and len(nearest) < NEIGHBOURS:
            nearest.append(p)
    nodes = [p for p in nearest for _ in range(1 if np.isnan(p.slope) else 2)]
    z = [p.zeta for p in nodes]
    column = [of.forward(p.value) for p in nodes]
    total, product = 0.0, 1.0
    for order in range(len(nodes)):
        total += product * column[0]
        product *= goal - z[order]
        following = []
        for i in range(len(column) - 1):
            gap = z[i + order + 1] - z[i]
            same = nodes[i + order + 1] is nodes[i]
            if gap == 0.0 and not same:
                return total
            following.append(of.rate(nodes[i].value) / nodes[i].slope if same else (column[i + 1] - column[i]) / gap)
        column = following
    return total


def _solve(of: Profiled, points: Sequence[Point], value: float) -> Point:
    problem = of.constrained.problem(value)
    start = _start(of, points, value, problem.on_diagonal)
    optimum = minimize(problem, start, tolerance=TOLERANCE, max_evaluations=MOST_EVALUATIONS)
    if not optimum.converged:
        raise NumericalError(f"the profile of {of.parameter.name!r} stopped at {value:.6g}: {optimum.message}")
    zeta = float(np.sign(value - of.estimate) * _root(optimum.value.criterion - of.deviance))
    slope = 0.5 * of.constrained.slope(optimum.value, value) / zeta if abs(zeta) > FLAT else np.nan
    return Point(value, zeta, optimum.theta, slope if slope * of.step > FLAT * of.rate(value) else np.nan)


def _root(difference: float) -> float:
    return float(np.sqrt(max(difference, 0.0)))


def _start(of: Profiled, points: Sequence[Point], value: float, on_diagonal: NDArray[np.bool_]) -> FloatArray:
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
    near = [(of.forward(p.value), p.x) for p in apart]
    guess = np.zeros(nearest.size)
    for i, (ti, xi) in enumerate(near):
        weight = np.prod([(t - tj) / (ti - tj) for j, (tj, _) in enumerate(near) if j != i])
        guess += weight * np.asarray(xi)
    same = (guess > 0.0) == (nearest > 0.0)
    return guess if same[on_diagonal].all() else nearest


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


def _deviance_at_limit(of: Profiled, limit: float) -> float:
    """The least deviance with the parameter at its limit: a correlation of 1, or a random effect left out."""
    if of.parameter.kind == CORRELATION:
        optimum = minimize(
            of.constrained.problem(limit), of.constrained.start, tolerance=TOLERANCE, max_evaluations=MOST_EVALUATIONS
        )
        return float(optimum.value.criterion)
    layout = of.model.xp.layout
    parts = [whole_term(layout, t) for t in range(len(layout.terms))]
    own = parts[of.parameter.term]
    columns = layout.terms[of.parameter.term].columns
    stays = [i for i, j in enumerate(columns) if j not in of.parameter.columns]
    if layout.terms[of.parameter.term].covariance.name == "identity":
        stays = []
    smaller = [TermColumns(own.term, tuple(own.names[i] for i in stays), np.eye(len(columns))[:, stays], own.label)]
    kept = [p for p in parts if p is not own] + (smaller if stays else [])
    if not kept:
        return fixed_only_criterion(of.model.xp, reml=False)
    xp = with_terms(of.model.xp, sorted(kept, key=lambda p: p.term), layout.formula)
    problem = criterion_problem(prepare(xp, DirectEngine()), xp, natural_scale(xp), reml=False)
    start = starting_theta(xp, reml=False)
    return float(minimize(problem, start, tolerance=TOLERANCE, max_evaluations=MOST_EVALUATIONS).value.criterion)
