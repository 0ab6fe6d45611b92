"""Where the curve of a parameter meets a wanted zeta.

By inverse interpolation through the points that are known; every search starts where its neighbours ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from crosslmm.errors import NumericalError
from crosslmm.inference.curve import WITHIN, Point, Profiled
from crosslmm.inference.parameters import CORRELATION
from crosslmm.inference.search import APART, FLAT, elsewhere, limit_point, point_at

EXACT = 1e-6
"""Error of zeta at which a bound counts as found: a millionth of the standard error."""

NEIGHBOURS = 4
"""Points that one inverse interpolation goes through, at most."""

MOST_POINTS = 40
"""Points on the way to one bound, at most."""

PATIENCE = 9
"""Points after which every other one halves what is left: where a curve is not smooth, interpolations fail."""

JUMP = 1e-3
"""Zeta that a curve may jump by: a thousandth of the standard error."""

REACH = 3.0
"""No step goes further than this many times the distance of the outermost point from the estimate."""

PLATEAU = 0.1
"""A step outwards goes at least this part of what a straight curve would take: where zeta no longer rises, an
interpolation would stay where it is."""

STEEPER = 2.0
"""A step outwards goes at most this many times what the slope of the outermost point would take: interpolations through
many points go astray outside of them, to where the deviance is hard to minimise."""

NEAR_LIMIT = 0.1
"""A standard deviation below this part of its estimate, or a correlation this near 1, asks for the limit itself."""


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
    for number in range(MOST_POINTS):
        found = next((p for p in points if abs(p.zeta - goal) <= _allowed(p, accuracy)), None)
        ends = next((p for p in points if p.x is None and np.sign(p.value - of.estimate) == side), None)
        if found is not None and accuracy == EXACT and found.x is not None and not found.sure:
            points, found = _made_sure(of, points, found)
        if found is not None or (ends is not None and abs(ends.zeta) <= abs(goal)):
            return points, found or ends  # type: ignore[return-value]
        scaled = of if ends is None else replace(of, plain=True)
        narrow = _narrow(scaled, points, goal)
        if narrow is not None:
            return points, narrow
        halve = number >= PATIENCE and number % 2 == 1
        value = scaled.back(_predict(scaled, points, goal, halve))
        if ends is None and _near(of, value, limit):
            points.append(limit_point(of, limit, float(side)))
            continue
        points.append(point_at(of, points, value))
    raise NumericalError(
        f"the profile of {of.parameter.name!r} did not reach {goal:.3g} standard errors within {MOST_POINTS} points"
    )


def _made_sure(of: Profiled, points: list[Point], found: Point) -> tuple[list[Point], Point | None]:
    """The points with `found` made sure of; None in its place, and a lower point, where it is in a wrong minimum.

    Points of this side that belong to the other minimum are dropped with it, but for a limit.
    """
    lower = elsewhere(of, found)
    if lower is None:
        sure = replace(found, sure=True)
        return [sure if p is found else p for p in points], sure
    kept = [p for p in points if p.x is None or p.zeta * found.zeta <= 0.0]
    return [*kept, lower], None


def _allowed(point: Point, accuracy: float) -> float:
    """Error of zeta that is allowed at a point."""
    return float(np.fmax(accuracy, WITHIN * point.zeta_error))


def _near(of: Profiled, value: float, limit: float) -> bool:
    if not np.isfinite(limit):
        return False
    if of.parameter.kind == CORRELATION:
        return abs(value - limit) < NEAR_LIMIT
    return value < NEAR_LIMIT * of.estimate


def _narrow(of: Profiled, points: Sequence[Point], goal: float) -> Point | None:
    """The nearest of two points at all but one value between which zeta passes the goal, or None where there are none.

    Sampled curves jump by less than their errors where a variance becomes 0, all curves by their rounding.

    Raises
    ------
    NumericalError
        They jump by more.
    """
    side = np.sign(goal)
    known = [p for p in points if p.x is not None and side * (p.value - of.estimate) >= 0.0]
    below = max((p for p in known if side * (p.zeta - goal) < 0.0), key=lambda p: side * p.value)
    above = min((p for p in known if side * (p.zeta - goal) > 0.0), key=lambda p: side * p.value, default=None)
    if above is None or side * (above.value - below.value) > EXACT * side * (above.value - of.estimate):
        return None
    nearest = min(above, below, key=lambda p: abs(p.zeta - goal))
    if abs(nearest.zeta - goal) > np.fmax(JUMP, nearest.zeta_error):
        raise NumericalError(
            f"the profile of {of.parameter.name!r} jumps at {above.value:.6g}, from {below.zeta:.4g} to "
            f"{above.zeta:.4g} standard errors"
        )
    return nearest


def _predict(of: Profiled, points: Sequence[Point], goal: float, halve: bool) -> float:
    """Where zeta will be `goal`, in the scale of `Profiled.forward`; or the middle of where it is known to be."""
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
        return _outwards(of, points, goal, guess)
    above = min(beyond, key=lambda t: side * t)
    between = side * (guess - below) > 0.0 and side * (above - guess) > 0.0
    return float(guess if between and not halve else 0.5 * (below + above))


def _outwards(of: Profiled, points: Sequence[Point], goal: float, guess: float) -> float:
    """A guess beyond all points, no nearer and no further than what the outermost one allows."""
    side, start = np.sign(goal), of.forward(of.estimate)
    at = max((p for p in points if p.x is not None or of.plain), key=lambda p: side * p.value)
    t = of.forward(at.value)
    straight = (goal / at.zeta - 1.0) * (t - start)
    most = side * (REACH - 1.0) * (t - start)
    if not np.isnan(at.slope):
        most = min(most, side * STEEPER * (goal - at.zeta) * of.rate(at.value) / at.slope)
    step = side * (guess - t)
    return float(t + side * (step if PLATEAU * side * straight < step < most else most))


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
