"""Damped Newton steps with the average information, for a criterion that is even in the columns of its parameters.

Two properties shape the method (docs/theory.md, section 6). A column of a template enters only through its products,
so 0 is always a stationary point: a step may shrink a diagonal to a fifth at most, 0 itself is tried as a point of
its own, and at the end every 0 is checked for a direction in which the criterion falls. And the average information
is positive semi-definite everywhere but wrong far away, so steps are damped (Levenberg and Marquardt) until the
criterion follows the quadratic model.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic

import numpy as np
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.errors import NumericalError
from crosslmm.quadratic import Model, Problem, Proposal, V, moved, propose, quadratic_model

SNAP_INTERVAL = 5
"""Evaluations between two tries of a point of lower rank."""

ROUNDING = 1e-14
"""Relative rounding error of the criterion: differences below it are not signal."""

FIRST_DAMPING = 0.03
"""Damping, relative to the information's diagonal, after the first step that failed."""

MORE_DAMPING = 4.0
LESS_DAMPING = 0.3
LEAST_DAMPING = 1e-3
"""Factors by which damping grows and falls, and the damping below which it is dropped (Levenberg and Marquardt)."""

POOR = 0.25
GOOD = 0.75
"""Decrease of the criterion over the predicted one below which damping grows, and above which it falls."""

TOO_GOOD = 1.5
"""Decrease over the predicted one above which steps are too short: the curvature is less than half of the model's."""

MORE_STRETCH, LESS_STRETCH = 2.0, 4.0
"""Factors by which the model's Hessian is then divided, and multiplied again where a step turns out too long."""

IN_NOISE = 1e2
"""Predicted decreases below this many rounding errors cannot be told from none: such a step may raise the criterion."""

MEMORY = 4
"""Earlier steps whose secants are kept, besides the last."""

NEARLY_DONE = 1e-4
"""Predicted decrease below which the ratio of successive decrements says what will be left after one more step."""

LOCAL = 0.2
"""Decrease of the criterion (deviance units) below which a step is short enough for its secant to be trusted."""

SUFFICIENT = 1e-4
"""A step is accepted if the criterion falls by this part of what the model predicts."""

HALF = 0.5
STALLED = 3
"""A sampled search ends where so many predicted decreases in turn are not below half of the least before them."""

PATIENCE = 15
"""Evaluations after which standard deviations are searched for as variances."""

MAX_DAMPING = 1e8
"""Damping beyond which a step is too short to change anything."""


@dataclass(frozen=True)
class Step:
    """One evaluation, for the record; nan where nothing was computed."""

    theta: FloatArray
    criterion: float
    gradient_norm: float
    decrement: float
    kind: str
    accepted: bool
    seconds: float
    solver_steps: int


@dataclass(frozen=True)
class Optimum(Generic[V]):
    """Where the search ended.

    Attributes
    ----------
    theta : ndarray, shape (m,)
    value : V
    steps : tuple of Step
    converged : bool
    message : str
    """

    theta: FloatArray
    value: V
    steps: tuple[Step, ...]
    converged: bool
    message: str


@dataclass(frozen=True)
class Point(Generic[V]):
    """A point with its value and the quadratic model there (of the point before, after a last step)."""

    theta: FloatArray
    value: V
    slopes: Model


def minimize(
    problem: Problem[V],
    start: FloatArray,
    *,
    tolerance: float,
    max_evaluations: int,
    report: Callable[[Step], None] | None = None,
) -> Optimum[V]:
    """Minimise from `start`.

    Parameters
    ----------
    tolerance : float
        Stop when the quadratic model predicts a smaller decrease of the criterion (deviance units, scale-free).
    max_evaluations : int
        Evaluations of the criterion after which to give up.
    report : callable, optional
        Receives every step as it is made.
    """
    search = _Search(problem, tolerance, max_evaluations, report)
    return search.run(np.array(start, dtype=float))


class _Search(Generic[V]):
    """The loop's own bookkeeping; lives for one call of `minimize`."""

    def __init__(
        self,
        problem: Problem[V],
        tolerance: float,
        max_evaluations: int,
        report: Callable[[Step], None] | None,
    ):
        self.problem = problem
        self.tolerance = tolerance
        self.max_evaluations = max_evaluations
        self.report = report
        self.steps: list[Step] = []
        self.began = time.perf_counter()
        self.damping, self.stretch = 0.0, 1.0
        self.decrement, self.ratio = np.inf, 0.0
        self.next_snap = 0
        self.least_decrement, self.stalled = np.inf, 0
        self.pairs: list[tuple[FloatArray, FloatArray]] = []

    def run(self, start: FloatArray) -> Optimum[V]:
        point = self.model(start, self.problem.value(start))
        self.record(point.theta, point.value, "start", True)
        shrunk_before = np.zeros(start.size, dtype=bool)
        settled = np.inf
        while len(self.steps) < self.max_evaluations:
            proposal = propose(self.problem, point.theta, point.slopes, self.damping, self.squares(), self.stretch)
            self.annotate(point, proposal)
            if self.is_last(proposal, point):
                # a start beside 0 is as flat as a minimum; from 0 itself the search finds where the criterion falls
                beside = self.early_snap(point, proposal) if len(self.steps) == 1 else None
                if beside is not None:
                    point = beside
                    continue
                point = self.snap(self.polish(point, proposal))
                lower = point.value.criterion < settled - self.tolerance
                released = self.leave_bounds(point) if lower else None
                if released is None:
                    return self.finish(point, True, "the predicted decrease is below the tolerance")
                point, settled = released, point.value.criterion
                continue
            following = self.early_snap(point, proposal)
            if following is None and proposal.stuck:
                self.damp_more()
            elif following is None:
                again = proposal.shrunk & shrunk_before
                following = self.try_bounds(point, proposal, again) if again.any() else None
                following = following or self.try_step(point, proposal)
            if following is not None:
                point, shrunk_before = following, proposal.shrunk
            elif self.damping > MAX_DAMPING:
                return self.finish(point, False, "no step lowers the criterion although its gradient is not zero")
        return self.finish(point, False, f"stopped after {self.max_evaluations} evaluations")

    def rounding(self, criterion: float) -> float:
        """Rounding error of the criterion."""
        return ROUNDING * (1.0 + abs(criterion))

    def noise(self, point: Point[V], value: V) -> float:
        """Differences of the criterion between a point and `value` below this are not signal."""
        return max(value.noise, point.slopes.noise, self.rounding(value.criterion))

    def squares(self) -> NDArray[np.bool_]:
        """Parameters that now move in their square: those alone in their column, once the search has taken long."""
        return self.problem.alone & (len(self.steps) > PATIENCE)

    def damp_more(self) -> None:
        if self.stretch > 1.0:
            self.stretch = max(self.stretch / LESS_STRETCH, 1.0)
        else:
            self.damping = max(MORE_DAMPING * self.damping, FIRST_DAMPING)

    def is_last(self, proposal: Proposal, point: Point[V]) -> bool:
        """Whether what is left after this step will be below the tolerance.

        Undamped steps converge superlinearly at the end, so the next decrement is at most this one times the ratio of
        this one to the one before; or times the ratio before that, since one short step may be luck. Where the
        criterion is sampled, decrements that no longer fall are all noise.
        """
        criterion = point.value.criterion
        if proposal.decrement < HALF * self.least_decrement:
            self.least_decrement, self.stalled = proposal.decrement, 0
        else:
            self.stalled += 1
        if self.stalled >= STALLED and proposal.decrement < self.noise(point, point.value) and not proposal.stuck:
            return True
        decrement, before, slowest = proposal.decrement, self.decrement, self.ratio
        ratio = decrement / before if before > 0.0 else 0.0
        self.decrement, self.ratio = decrement, ratio
        left = decrement
        converging = np.isfinite(before) and self.damping == 0.0 and not proposal.shrunk.any()
        if converging and 0.0 < decrement < NEARLY_DONE:
            left = decrement * min(max(ratio, slowest), 1.0)
        return not proposal.stuck and left <= max(self.tolerance, self.rounding(criterion))

    def model(self, theta: FloatArray, value: V, before: Point[V] | None = None) -> Point[V]:
        """The point with its quadratic model; `before` is the point that a step within the bounds came from."""
        slopes = self.problem.slopes(value)
        if before is None:
            self.pairs = []
        elif before.value.criterion - value.criterion < LOCAL:
            change = slopes.gradient - before.slopes.gradient
            self.pairs = [*self.pairs[-MEMORY:], (theta - before.theta, change)]
        return Point(theta, value, quadratic_model(self.problem, theta, slopes, self.pairs, self.squares()))

    def attempt(self, theta: FloatArray, kind: str) -> V | None:
        """The value at a trial point, or None where the criterion cannot be computed there."""
        try:
            value = self.problem.value(theta)
        except NumericalError:
            value = None
        if value is not None and np.isfinite(value.criterion):
            return value
        self.record(theta, None, kind, False)
        return None

    def try_step(self, point: Point[V], proposal: Proposal) -> Point[V] | None:
        """The point after a step, or None (and more damping) where the criterion does not follow the model."""
        theta, flipped = moved(self.problem, point.theta, proposal)
        kind = "newton" if self.damping == 0.0 else "damped"
        value = self.attempt(theta, kind)
        if value is None:
            self.damp_more()
            return None
        decrease = point.value.criterion - value.criterion
        noise = self.noise(point, value)
        in_noise = decrease > -noise and proposal.decrement < IN_NOISE * noise
        accepted = bool(decrease > SUFFICIENT * proposal.decrement or in_noise)
        self.record(theta, value, kind, accepted)
        ratio = decrease / proposal.decrement
        if not accepted or (ratio < POOR and not in_noise):
            self.damp_more()
        elif ratio > TOO_GOOD and self.damping == 0.0:
            self.stretch = MORE_STRETCH * self.stretch
        elif ratio > GOOD:
            self.damping = LESS_DAMPING * self.damping if self.damping > LEAST_DAMPING else 0.0
        if accepted and len(self.steps) >= self.max_evaluations:  # no step will need its derivatives
            return replace(point, theta=theta, value=value)
        return self.model(theta, value, None if flipped else point) if accepted else None

    def try_bounds(self, point: Point[V], proposal: Proposal, diagonals: NDArray[np.bool_]) -> Point[V] | None:
        """The point with diagonals set to 0 that keep shrinking, if the criterion is no higher there.

        Where it is sampled, it may be higher by its noise: the gradient, which is sampled apart, has led here.
        """
        theta, _ = moved(self.problem, point.theta, proposal)
        for index in np.flatnonzero(diagonals)[::-1]:
            theta = self.problem.collapse(theta, int(index))
        value = self.attempt(theta, "boundary")
        if value is None:
            return None
        allowed = self.noise(point, value) if value.noise > 0.0 else 0.0
        accepted = bool(value.criterion <= point.value.criterion + allowed)
        self.record(theta, value, "boundary", accepted)
        return self.model(theta, value) if accepted else None

    def polish(self, point: Point[V], proposal: Proposal) -> Point[V]:
        """The last step, taken without new derivatives when it does not raise the criterion."""
        if not np.any(proposal.step):
            return point
        theta, _ = moved(self.problem, point.theta, proposal)
        return self.without_slopes(point, theta, "last")

    def snap(self, point: Point[V]) -> Point[V]:
        """The point without random effects that are all but 0, where the criterion is no higher for it."""
        theta = self.problem.reduce(point.theta)
        return point if theta is None else self.without_slopes(point, theta, "boundary")

    def early_snap(self, point: Point[V], proposal: Proposal) -> Point[V] | None:
        """The point without random effects that are all but 0, tried now and then once the end is near.

        Along such an effect the criterion is nearly flat, and a search for its exact size would take long.
        """
        if proposal.decrement > NEARLY_DONE or len(self.steps) < self.next_snap:
            return None
        self.next_snap = len(self.steps) + SNAP_INTERVAL
        snapped = self.snap(point)
        return None if snapped is point else self.model(snapped.theta, snapped.value)

    def without_slopes(self, point: Point[V], theta: FloatArray, kind: str) -> Point[V]:
        """The point moved to theta if the criterion is no higher there."""
        value = self.attempt(theta, kind)
        if value is None:
            return point
        least = max(self.tolerance, self.rounding(value.criterion))
        allowed = least if kind == "boundary" else max(value.noise, point.slopes.noise)
        accepted = bool(value.criterion <= point.value.criterion + allowed)
        self.record(theta, value, kind, accepted)
        return replace(point, theta=theta, value=value) if accepted else point

    def leave_bounds(self, point: Point[V]) -> Point[V] | None:
        """A point off the bounds from which the criterion falls, or None where every 0 is a true one."""
        if not np.any(self.problem.on_diagonal & (point.theta == 0.0)):
            return None
        theta = self.problem.leave(point.theta, self.problem.slopes(point.value))
        value = None if theta is None else self.attempt(theta, "release")
        if theta is None or value is None:
            return None
        self.record(theta, value, "release", True)
        return self.model(theta, value)

    def record(self, theta: FloatArray, value: V | None, kind: str, accepted: bool) -> None:
        seconds = time.perf_counter() - self.began
        criterion, solver_steps = (np.nan, 0) if value is None else (value.criterion, value.steps)
        self.steps.append(Step(theta, criterion, np.nan, np.nan, kind, accepted, seconds, solver_steps))
        if self.report is not None:
            self.report(self.steps[-1])

    def annotate(self, point: Point[V], proposal: Proposal) -> None:
        """Enter gradient and predicted decrease at the step that led to `point`."""
        for i in range(len(self.steps) - 1, -1, -1):
            if self.steps[i].theta is point.theta:
                norm = float(np.linalg.norm(point.slopes.gradient[self.problem.free(point.theta)]))
                self.steps[i] = replace(
                    self.steps[i],
                    gradient_norm=norm,
                    decrement=proposal.decrement,
                    solver_steps=point.value.steps + point.slopes.steps,
                )
                return

    def finish(self, point: Point[V], converged: bool, message: str) -> Optimum[V]:
        return Optimum(point.theta, point.value, tuple(self.steps), converged, message)
