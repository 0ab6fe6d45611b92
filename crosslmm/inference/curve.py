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
from crosslmm.errors import NumericalError
from crosslmm.inference.constrained import Constrained, ModelAt, constrain
from crosslmm.inference.limit import at_limit
from crosslmm.inference.parameters import CORRELATION, FIXED, SD, Parameter
from crosslmm.objective import Evaluation
from crosslmm.optimize import minimize

TOLERANCE = 1e-7
"""Decrease of the deviance still to come at which the search over the others stops: 3e-8 of zeta at a 95% bound."""

EXACT = 1e-6
"""Error of zeta at which a bound counts as found: a millionth of the standard error."""

WITHIN = 0.1
"""Part of a Monte Carlo error to which something sampled is found: it makes the error half a percent larger."""

TWO_SQUARES = 2.0
"""Standard deviation of the difference of the squares of two standard normal numbers."""

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

PLATEAU = 0.1
"""A step outwards goes at least this part of what a straight curve would take: where zeta no longer rises, an
interpolation would stay where it is."""

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
    error : float
        Monte Carlo standard error of ``zeta**2``, the rise of the deviance; 0 where nothing is sampled.
    """

    value: float
    zeta: float
    x: FloatArray | None
    slope: float = np.nan
    error: float = 0.0

    @property
    def zeta_error(self) -> float:
        """Monte Carlo standard error of zeta; nan where the deviance has not risen but should have."""
        if self.error == 0.0:
            return 0.0
        return self.error / abs(2.0 * self.zeta) if self.zeta else np.nan

    @property
    def value_error(self) -> float:
        """Monte Carlo standard error of the value at which zeta is what it is here; nan without a slope."""
        return 0.0 if self.error == 0.0 else self.zeta_error / abs(self.slope)


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
class Best:
    """The least deviance, which all curves rise from.

    Attributes
    ----------
    deviance : float
    samples : ndarray, shape (n,)
        What each probe says of the log-determinant there; n = 0 where nothing is sampled.
    excess : float
        By how much searches end above the least deviance, because theta is sampled: the square of the Monte Carlo error
        of theta over its standard error.
    """

    deviance: float
    samples: FloatArray
    excess: float

    @property
    def sampled(self) -> bool:
        """Whether the deviance is known up to sampling only."""
        return self.samples.size > 0

    @property
    def tolerance(self) -> float:
        """Decrease of the deviance still to come at which a search may stop."""
        return max(TOLERANCE, WITHIN * self.excess)

    def rise_error(self, samples: FloatArray) -> float:
        """Monte Carlo standard error of the rise of the deviance to where the same probes say `samples`.

        Probe by probe, what is left open is nearly the same there and at the estimate. The excesses at both ends count
        only where the rest is as good as exact.
        """
        if not self.sampled:
            return 0.0
        paired = (samples - self.samples).std(ddof=1) / np.sqrt(samples.size)
        return float(np.hypot(paired, TWO_SQUARES * self.excess))


@dataclass(frozen=True)
class Profiled:
    """One parameter ready to be held.

    Attributes
    ----------
    model : ModelAt
    parameter : Parameter
    constrained : Constrained
    estimate : float
        At the ML fit.
    best : Best
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
    best: Best
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


def profiled(model: ModelAt, parameter: Parameter, estimate: float, best: Best, step: float, sigma: float) -> Profiled:
    """See `Profiled`; `step` in the units of the data."""
    ready = Profiled(model, parameter, constrain(model, parameter), estimate, best, step, sigma)
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
        return points, next(p for p in points if p.value == limit)
    points = list(points)
    for _ in range(MOST_POINTS):
        found = next((p for p in points if abs(p.zeta - goal) <= _allowed(p, accuracy)), None)
        ends = next((p for p in points if p.x is None and np.sign(p.value - of.estimate) == side), None)
        if found is not None or (ends is not None and abs(ends.zeta) <= abs(goal)):
            return points, found or ends  # type: ignore[return-value]
        scaled = of if ends is None else replace(of, plain=True)
        value = scaled.back(_predict(scaled, points, goal))
        if ends is None and _near(of, value, limit):
            points.append(_at_limit(of, limit, float(side)))
            continue
        points.append(_solve(of, points, value))
    raise NumericalError(
        f"the profile of {of.parameter.name!r} did not reach {goal:.3g} standard errors within {MOST_POINTS} points"
    )


def _allowed(point: Point, accuracy: float) -> float:
    """Error of zeta that is allowed at a point."""
    return float(np.fmax(accuracy, WITHIN * point.zeta_error))


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
        straight = (goal / outermost[1] - 1.0) * (outermost[0] - start)
        forward = side * (guess - outermost[0]) > PLATEAU * side * straight
        return float(guess if forward and side * (most - guess) > 0.0 else most)
    above = min(beyond, key=lambda t: side * t)
    between = side * (guess - below) > 0.0 and side * (above - guess) > 0.0
    return float(guess if between else 0.5 * (below + above))


def _inverse(of: Profiled, points: Sequence[Point], goal: float) -> float:
    """Value (scale of `forward`) at zeta = goal on the polynomial through the nearest points, with slopes if known.

    Newton's divided differences; a point with a slope counts twice.
    """
    nearest: list[Point] = []
    for p in sorted(_nodes(of, points), key=lambda p: abs(p.zeta - goal)):
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


def _nodes(of: Profiled, points: Sequence[Point]) -> list[Point]:
    """Points that a curve can be laid through.

    A sampled deviance does not have its minimum at the estimate, where its sampled derivative is 0. Zeta is a smooth
    curve all the same, but passes the estimate at a distance of its Monte Carlo error.
    """
    known = [p for p in points if p.x is not None or of.plain]
    if of.best.sampled and len(known) > 2:
        return [p for p in known if p.zeta != 0.0]
    return known


def _solve(of: Profiled, points: Sequence[Point], value: float) -> Point:
    problem = of.constrained.problem(value)
    start = _start(of, points, value, problem.on_diagonal)
    optimum = minimize(problem, start, tolerance=of.best.tolerance, max_evaluations=MOST_EVALUATIONS)
    if not optimum.converged:
        raise NumericalError(f"the profile of {of.parameter.name!r} stopped at {value:.6g}: {optimum.message}")
    zeta = float(np.sign(value - of.estimate) * _root(optimum.value.criterion - of.best.deviance))
    slope = 0.5 * of.constrained.slope(optimum.value, value) / zeta if abs(zeta) > FLAT else np.nan
    known = slope * of.step > FLAT * of.rate(value)
    error = of.best.rise_error(optimum.value.system.log_det_samples)
    return Point(value, zeta, optimum.theta, slope if known else np.nan, error)


def _at_limit(of: Profiled, limit: float, side: float) -> Point:
    at: Evaluation = at_limit(
        of.model,
        of.parameter,
        of.constrained,
        limit,
        tolerance=of.best.tolerance,
        max_evaluations=MOST_EVALUATIONS,
    )
    error = of.best.rise_error(at.system.log_det_samples)
    return Point(limit, side * _root(at.criterion - of.best.deviance), None, error=error)


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
