"""Bounded Newton steps with the average information, for a criterion that is even in some parameters.

Two properties shape the method (docs/theory.md, section 6). A diagonal element of a template enters only through its
square, so 0 is always a stationary point: a step may shrink a diagonal to a fifth at most, 0 itself is tried as a
point of its own, and before stopping every 0 is left again by a hair to see whether the criterion falls there.
And the average information is positive semi-definite everywhere but wrong far away, so steps are damped (Levenberg
and Marquardt) until the criterion follows the quadratic model.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.errors import NumericalError

SHRINK = 0.2
"""A diagonal element shrinks to no less than this part of itself in one step."""

GROW = 3.0
"""A diagonal element grows to no more than this multiple of itself plus its natural scale in one step."""

SNAP = 0.02
"""A column of a template below this many natural scales at the end is tried at exactly 0."""

NOISE = 1e-13
"""Relative rounding error of the criterion: differences below it are not signal."""

FIRST_DAMPING = 0.1
"""Damping, relative to the information's diagonal, after the first step that failed."""


MEMORY = 4
"""Earlier steps whose secants are kept, besides the last."""

NEARLY_DONE = 1e-4
"""Predicted decrease below which the ratio of successive decrements says what will be left after one more step."""

LOCAL = 0.2
"""Decrease of the criterion (deviance units) below which a step is short enough for its secant to be trusted."""

LEAST_CURVATURE = 0.05
"""A secant enters the model only if the curvature along it is at least this part of the model's."""

DEFINITE = 1e-6
"""Smallest eigenvalue, in correlation form, of a Hessian that counts as positive definite."""

SUFFICIENT = 1e-4
"""A step is accepted if the criterion falls by this part of what the model predicts."""

RIDGE = 1e-10
"""Relative ridge that keeps the quadratic model definite along flat directions."""

BOX_STEPS = 50
SHORTEST = 1e-6
BOX_TOLERANCE = 1e-12
"""Limits of the projected Newton steps within one proposal; a dozen parameters need two or three."""

MAX_DAMPING = 1e8
"""Damping beyond which a step is too short to change anything."""


class Criterion(Protocol):
    """A value with its criterion."""

    @property
    def criterion(self) -> float:
        """The criterion there."""


class Slopes(Protocol):
    """First and second derivatives; see `crosslmm.objective.Derivatives`."""

    @property
    def gradient(self) -> FloatArray:
        """Gradient; shape (m,)."""

    @property
    def information(self) -> FloatArray:
        """Positive semi-definite part of the Hessian; shape (m, m)."""

    @property
    def curvature(self) -> FloatArray:
        """What is added to it for the Hessian; shape (m, m)."""


V = TypeVar("V", bound=Criterion)


@dataclass(frozen=True)
class Problem(Generic[V]):
    """What is minimised.

    Attributes
    ----------
    value : callable
        Theta to a value with its criterion.
    slopes : callable
        That value to its derivatives.
    on_diagonal : ndarray of bool, shape (m,)
        Parameters bounded below by 0, in which the criterion is even.
    column : ndarray of intp, shape (m,)
        Parameters in one column of a template share a number; the criterion is even in a whole column.
    collapse : callable
        ``(theta, index)`` to theta without the column of element `index`.
    leave : callable
        Theta with zeros on the diagonal, and the slopes there, to one off the boundary from which the criterion
        falls, or None.
    scale : ndarray, shape (m,)
        Natural size of each parameter, positive.
    """

    value: Callable[[FloatArray], V]
    slopes: Callable[[V], Slopes]
    on_diagonal: NDArray[np.bool_]
    column: NDArray[np.intp]
    collapse: Callable[[FloatArray, int], FloatArray]
    leave: Callable[[FloatArray, Slopes], FloatArray | None]
    scale: FloatArray


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
    """A point with its quadratic model."""

    theta: FloatArray
    value: V
    gradient: FloatArray
    hessian: FloatArray
    damping_scale: FloatArray


@dataclass(frozen=True)
class Proposal:
    """A step of the quadratic model within the bounds.

    Attributes
    ----------
    step : ndarray, shape (m,)
    decrement : float
        Decrease of the criterion that the model predicts, at least 0.
    shrunk : ndarray of bool, shape (m,)
        Diagonal elements held at the lower end of what one step may do.
    """

    step: FloatArray
    decrement: float
    shrunk: NDArray[np.bool_]


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
        self.damping = 0.0
        self.decrement = np.inf
        self.pairs: list[tuple[FloatArray, FloatArray]] = []

    def run(self, start: FloatArray) -> Optimum[V]:
        point = self.model(start, self.problem.value(start))
        self.record(point.theta, point.value.criterion, "start", True)
        shrunk_before = np.zeros(start.size, dtype=bool)
        probed = False
        while len(self.steps) < self.max_evaluations:
            proposal = propose(self.problem, point, self.damping)
            self.annotate(point, proposal)
            if self.is_last(proposal, point.value.criterion):
                point = self.snap(self.polish(point, proposal))
                released = None if probed else self.leave_bounds(point)
                if released is None:
                    return self.finish(point, True, "the predicted decrease is below the tolerance")
                point, probed = released, True
                continue
            again = proposal.shrunk & shrunk_before
            moved = self.try_bounds(point, proposal, again) if again.any() else None
            moved = moved or self.try_step(point, proposal)
            if moved is not None:
                point, shrunk_before = moved, proposal.shrunk
            elif self.damping > MAX_DAMPING:
                return self.finish(point, False, "no step lowers the criterion although its gradient is not zero")
        return self.finish(point, False, f"stopped after {self.max_evaluations} evaluations")

    def is_last(self, proposal: Proposal, criterion: float) -> bool:
        """Whether what is left after this step will be below the tolerance.

        Undamped steps converge superlinearly at the end, so the next decrement is at most this one times the ratio of
        this one to the one before.
        """
        decrement, before = proposal.decrement, self.decrement
        self.decrement = decrement
        left = decrement
        if self.damping == 0.0 and decrement < NEARLY_DONE and not proposal.shrunk.any():
            left = decrement * min(1.0, decrement / before)
        return left <= max(self.tolerance, NOISE * abs(criterion))

    def model(self, theta: FloatArray, value: V, before: Point[V] | None = None) -> Point[V]:
        """The point with its quadratic model; `before` is the point that a step within the bounds came from."""
        slopes = self.problem.slopes(value)
        free = free_parameters(self.problem, theta)
        if before is None:
            self.pairs = []
        elif before.value.criterion - value.criterion < LOCAL:
            self.pairs = [*self.pairs[-MEMORY:], (theta - before.theta, slopes.gradient - before.gradient)]
        hessian, scale = quadratic_model(slopes, free, self.pairs)
        return Point(theta, value, slopes.gradient, hessian, scale)

    def attempt(self, theta: FloatArray, kind: str) -> V | None:
        """The value at a trial point, or None where the criterion cannot be computed there."""
        try:
            return self.problem.value(theta)
        except NumericalError:
            self.record(theta, np.nan, kind, False)
            return None

    def try_step(self, point: Point[V], proposal: Proposal) -> Point[V] | None:
        """The point after a step, or None (and more damping) where the criterion does not follow the model."""
        theta, flipped = positive_diagonal(self.problem, point.theta + proposal.step)
        kind = "newton" if self.damping == 0.0 else "damped"
        value = self.attempt(theta, kind)
        if value is None:
            self.damping = max(4.0 * self.damping, FIRST_DAMPING)
            return None
        decrease = point.value.criterion - value.criterion
        accepted = bool(decrease > SUFFICIENT * proposal.decrement)
        self.record(theta, value.criterion, kind, accepted)
        ratio = decrease / proposal.decrement
        if not accepted or ratio < 0.25:
            self.damping = max(4.0 * self.damping, FIRST_DAMPING)
        elif ratio > 0.75:
            self.damping = self.damping / 10.0 if self.damping > 0.01 * FIRST_DAMPING else 0.0
        return self.model(theta, value, None if flipped else point) if accepted else None

    def try_bounds(self, point: Point[V], proposal: Proposal, diagonals: NDArray[np.bool_]) -> Point[V] | None:
        """The point with diagonals set to 0 that keep shrinking, if the criterion is no higher there."""
        theta, _ = positive_diagonal(self.problem, point.theta + proposal.step)
        for index in np.flatnonzero(diagonals)[::-1]:
            theta = self.problem.collapse(theta, int(index))
        value = self.attempt(theta, "boundary")
        if value is None:
            return None
        accepted = bool(value.criterion <= point.value.criterion)
        self.record(theta, value.criterion, "boundary", accepted)
        return self.model(theta, value) if accepted else None

    def polish(self, point: Point[V], proposal: Proposal) -> Point[V]:
        """The last step, taken without new derivatives when it does not raise the criterion."""
        if not np.any(proposal.step):
            return point
        theta, _ = positive_diagonal(self.problem, point.theta + proposal.step)
        value = self.problem.value(theta)
        accepted = bool(value.criterion <= point.value.criterion)
        self.record(theta, value.criterion, "last", accepted)
        return replace(point, theta=theta, value=value) if accepted else point

    def snap(self, point: Point[V]) -> Point[V]:
        """The point with columns that are all but 0 set to 0, where the criterion is no higher for it."""
        theta = self.without_small_columns(point.theta)
        if theta is None:
            return point
        value = self.problem.value(theta)
        accepted = bool(value.criterion <= point.value.criterion + NOISE * abs(point.value.criterion))
        self.record(theta, value.criterion, "boundary", accepted)
        return replace(point, theta=theta, value=value) if accepted else point

    def without_small_columns(self, theta: FloatArray) -> FloatArray | None:
        """Theta without the columns below `SNAP`, or None where there are none."""
        problem, before = self.problem, theta
        while True:
            size = np.zeros(int(problem.column.max()) + 1)
            np.maximum.at(size, problem.column, np.abs(theta) / problem.scale)
            small = problem.on_diagonal & (size[problem.column] > 0.0) & (size[problem.column] < SNAP)
            if not small.any():
                return None if theta is before else theta
            theta = problem.collapse(theta, int(np.flatnonzero(small)[-1]))

    def leave_bounds(self, point: Point[V]) -> Point[V] | None:
        """A point off the bounds from which the criterion falls, or None where every 0 is a true one."""
        if not np.any(self.problem.on_diagonal & (point.theta == 0.0)):
            return None
        theta = self.problem.leave(point.theta, self.problem.slopes(point.value))
        if theta is None:
            return None
        value = self.problem.value(theta)
        self.record(theta, value.criterion, "release", True)
        return self.model(theta, value)

    def record(self, theta: FloatArray, criterion: float, kind: str, accepted: bool) -> None:
        seconds = time.perf_counter() - self.began
        self.steps.append(Step(theta, criterion, np.nan, np.nan, kind, accepted, seconds))
        if self.report is not None:
            self.report(self.steps[-1])

    def annotate(self, point: Point[V], proposal: Proposal) -> None:
        """Enter gradient and predicted decrease at the step that led to `point`."""
        for i in range(len(self.steps) - 1, -1, -1):
            if self.steps[i].theta is point.theta:
                free = free_parameters(self.problem, point.theta)
                norm = float(np.linalg.norm(point.gradient[free]))
                self.steps[i] = replace(self.steps[i], gradient_norm=norm, decrement=proposal.decrement)
                return

    def finish(self, point: Point[V], converged: bool, message: str) -> Optimum[V]:
        return Optimum(point.theta, point.value, tuple(self.steps), converged, message)


def free_parameters(problem: Problem[V], theta: FloatArray) -> NDArray[np.bool_]:
    """Parameters that can move: all but the columns that are 0; shape (m,)."""
    return np.isin(problem.column, problem.column[theta != 0.0])


def positive_diagonal(problem: Problem[V], theta: FloatArray) -> tuple[FloatArray, bool]:
    """Theta with the sign of every column chosen so that its diagonal is not negative, and whether any changed."""
    negative = problem.column[problem.on_diagonal & (theta < 0.0)]
    return np.where(np.isin(problem.column, negative), -theta, theta), bool(negative.size)


def step_bounds(problem: Problem[V], theta: FloatArray) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """How far one step may move each parameter, down and up, and for which the lower end is a `SHRINK`.

    A diagonal element that dominates its column stays between `SHRINK` and `GROW`. One that the elements below it
    dominate may change its sign: the criterion is even in the column, not in it alone.
    """
    square = np.zeros(int(problem.column.max()) + 1)
    np.add.at(square, problem.column, np.where(problem.on_diagonal, 0.0, theta**2))
    below = np.sqrt(square[problem.column])
    free_sign = below > theta
    reach = GROW * np.maximum(theta, below) + problem.scale
    low = np.where(free_sign, -reach, SHRINK * theta) - theta
    bounded = problem.on_diagonal
    upper = np.where(bounded, reach - theta, np.inf)
    return np.where(bounded, low, -np.inf), upper, bounded & ~free_sign


def quadratic_model(
    slopes: Slopes, free: NDArray[np.bool_], pairs: list[tuple[FloatArray, FloatArray]]
) -> tuple[FloatArray, FloatArray]:
    """Hessian to use, and the diagonal that damping is relative to.

    Average information plus curvature where that is positive definite, plus the positive part of the curvature
    elsewhere; then one BFGS update (Nocedal, Wright 2006, eq. 6.19) for each recent pair of a step and the change of
    the gradient along it, which turns the linear convergence of the average information into a superlinear one.
    """
    information = slopes.information
    diagonal = np.maximum(np.diag(information) + np.abs(np.diag(slopes.curvature)), np.finfo(float).tiny)
    H = information + slopes.curvature
    index = np.ix_(free, free)
    root = np.sqrt(np.outer(diagonal[free], diagonal[free]))
    if free.any() and np.linalg.eigvalsh(H[index] / root)[0] < DEFINITE:
        values, vectors = np.linalg.eigh(slopes.curvature[index] / root)
        H = information.copy()
        H[index] += root * ((vectors * np.maximum(values, 0.0)) @ vectors.T)
    for step, change in pairs:
        product = H @ step
        along, observed = float(step @ product), float(step @ change)
        if along > 0.0 and observed > LEAST_CURVATURE * along:
            H = H - np.outer(product, product) / along + np.outer(change, change) / observed
    return H, diagonal


def propose(problem: Problem[V], point: Point[V], damping: float) -> Proposal:
    """Minimiser of the damped quadratic model within the bounds of one step."""
    free = np.flatnonzero(free_parameters(problem, point.theta))
    low, high, shrinks = step_bounds(problem, point.theta)
    H = point.hessian + (damping + RIDGE) * np.diag(point.damping_scale)
    step = np.zeros(point.theta.size)
    step[free] = box_minimum(point.gradient[free], H[np.ix_(free, free)], low[free], high[free])
    decrement = -float(point.gradient @ step + 0.5 * step @ point.hessian @ step)
    return Proposal(step, max(decrement, 0.0), shrinks & (step <= low) & (step < 0.0))


def box_minimum(g: FloatArray, H: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Minimiser of ``g'p + p'Hp / 2`` over a box that holds 0, by projected Newton steps.

    Bertsekas 1982, SIAM J. Control Optim. 20(2): a Newton step in the variables that are not held at a bound by
    their gradient, projected on the box, shortened until the quadratic falls.

    Parameters
    ----------
    g, low, high : ndarray, shape (m,)
    H : ndarray, shape (m, m)
        Positive definite.
    """
    p = np.zeros(g.size)
    best = 0.0
    for _ in range(BOX_STEPS):
        slope = g + H @ p
        moving = ~(((p <= low) & (slope > 0.0)) | ((p >= high) & (slope < 0.0)))
        if not moving.any():
            break
        newton = np.zeros(g.size)
        newton[moving] = -np.linalg.solve(H[np.ix_(moving, moving)], slope[moving])
        length = 1.0
        while length > SHORTEST:
            trial = np.clip(p + length * newton, low, high)
            value = float(g @ trial + 0.5 * trial @ H @ trial)
            if value < best:
                break
            length *= 0.5
        else:
            break
        converged = best - value <= BOX_TOLERANCE * abs(value)
        p, best = trial, value
        if converged:
            break
    return p
