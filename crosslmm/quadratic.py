"""The quadratic model of a criterion at one point, and its minimiser within what one step may do.

The criterion is even in every column of a template. A column of one element is a standard deviation alone. Steps in it
converge faster as a rule, but where two such terms can replace each other their optima lie along a circle; steps in
the variances, for which that is a straight line, are the remedy (`squares`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray

SHRINK = 0.2
"""A diagonal element shrinks to no less than this part of itself in one step."""

GROW = 3.0
"""A column grows to no more than this multiple of itself plus its natural scale in one step."""

LEAST_CURVATURE = 1e-3
"""A secant enters the model only if the curvature along it is at least this part of the model's. Where random effects
have a mean that no fixed effect takes up, it is a thirtieth at the minimum itself."""

DEFINITE = 1e-6
"""Smallest eigenvalue, in correlation form, of a Hessian that counts as positive definite."""

RIDGE = 1e-10
"""Relative ridge that keeps the quadratic model definite along flat directions."""

FLAT = 1e-14
"""Diagonal of the information, relative to the largest, below which a parameter counts as without influence."""

BOX_STEPS = 50
BOX_TOLERANCE = 1e-12
"""Limits of the projected Newton steps within one proposal; a dozen parameters need two or three."""


class Criterion(Protocol):
    """A value with its criterion."""

    @property
    def criterion(self) -> float:
        """The criterion there."""

    @property
    def noise(self) -> float:
        """Differences of the criterion below this are not signal, rounding apart; positive where it is sampled."""

    @property
    def steps(self) -> int:
        """Conjugate gradient steps it took."""


class Slopes(Protocol):
    """First and second derivatives; see `crosslmm.objective.Derivatives`."""

    @property
    def gradient(self) -> FloatArray:
        """Shape (m,)."""

    @property
    def information(self) -> FloatArray:
        """Shape (m, m)."""

    @property
    def curvature(self) -> FloatArray:
        """Shape (m, m)."""

    @property
    def noise(self) -> float:
        """Decrease of the criterion that sampling errors of the gradient alone would promise; 0 where it is exact."""

    @property
    def steps(self) -> int:
        """Conjugate gradient steps they took."""


V = TypeVar("V", bound=Criterion)


def can_move(column: NDArray[np.intp], theta: FloatArray) -> NDArray[np.bool_]:
    """Parameters that can move, shape (m,): all but those whose whole column of a template is 0."""
    return np.bincount(column, theta != 0.0)[column] > 0.0


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
        Parameters bounded below by 0.
    column : ndarray of intp, shape (m,)
        Parameters in one column of a template share a number; the criterion is even in a whole column.
    collapse : callable
        ``(theta, index)`` to theta without the column of element `index`.
    reduce : callable
        Theta to one of lower rank, without the random effects that are all but 0, or None where there are none.
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
    reduce: Callable[[FloatArray], FloatArray | None]
    leave: Callable[[FloatArray, Slopes], FloatArray | None]
    scale: FloatArray

    @property
    def alone(self) -> NDArray[np.bool_]:
        """Parameters that are a column of their own and stand on the diagonal; shape (m,)."""
        return (np.bincount(self.column)[self.column] == 1) & self.on_diagonal

    def free(self, theta: FloatArray) -> NDArray[np.bool_]:
        """Parameters that can move: all but the columns that are 0; shape (m,)."""
        return can_move(self.column, theta)


@dataclass(frozen=True)
class Model:
    """Gradient and Hessian at a point, the diagonal that damping is relative to, `Slopes.noise` and `Slopes.steps`."""

    gradient: FloatArray
    hessian: FloatArray
    damping_scale: FloatArray
    noise: float
    steps: int


@dataclass(frozen=True)
class Proposal:
    """Minimiser of the quadratic model within the bounds of one step.

    Attributes
    ----------
    step : ndarray, shape (m,)
    decrement : float
        Decrease of the criterion that the model predicts.
    shrunk : ndarray of bool, shape (m,)
        Diagonal elements held at the lower end of what one step may do.
    stuck : bool
        Whether the model could not be minimised although its gradient is not small.
    squares : ndarray of bool, shape (m,)
        Parameters whose step is one in their square.
    """

    step: FloatArray
    decrement: float
    shrunk: NDArray[np.bool_]
    stuck: bool
    squares: NDArray[np.bool_]


def quadratic_model(
    problem: Problem[V],
    theta: FloatArray,
    slopes: Slopes,
    pairs: list[tuple[FloatArray, FloatArray]],
    squares: NDArray[np.bool_],
) -> Model:
    """Model at theta from its derivatives and recent pairs of a step and the change of the gradient along it.

    Average information plus curvature where that is positive definite, plus the positive part of the curvature
    elsewhere; then one BFGS update (Nocedal, Wright 2006, eq. 6.19) for each pair, which turns the linear convergence
    of the average information into a superlinear one. Parameters in `squares` have no curvature term: it belongs to
    the step in the standard deviation, and `moved` makes theirs in the variance.
    """
    information = slopes.information
    curvature = np.where(squares[:, None] | squares, 0.0, slopes.curvature)
    diagonal = np.diag(information) + np.abs(np.diag(curvature))
    diagonal = np.maximum(diagonal, max(FLAT * float(diagonal.max(initial=0.0)), np.finfo(float).tiny))
    H = information + curvature
    free = np.flatnonzero(problem.free(theta))
    index = free[:, None], free
    unit = np.sqrt(diagonal[free])
    root = unit[:, None] * unit
    if root.size and np.linalg.eigvalsh(H[index] / root)[0] < DEFINITE:
        values, vectors = np.linalg.eigh(curvature[index] / root)
        H = information.copy()
        H[index] += root * ((vectors * np.maximum(values, 0.0)) @ vectors.T)
    for step, change in pairs:
        product = H @ step
        along, observed = float(step @ product), float(step @ change)
        if along > 0.0 and observed > LEAST_CURVATURE * along:
            H = H - np.outer(product, product) / along + np.outer(change, change) / observed
    return Model(slopes.gradient, H, diagonal, slopes.noise, slopes.steps)


def propose(
    problem: Problem[V],
    theta: FloatArray,
    model: Model,
    damping: float,
    squares: NDArray[np.bool_],
    stretch: float = 1.0,
) -> Proposal:
    """Minimiser of the damped quadratic model within the bounds of one step, its Hessian divided by `stretch`."""
    free = np.flatnonzero(problem.free(theta))
    low, high, shrinks = step_bounds(problem, theta, squares)
    hessian = model.hessian if stretch == 1.0 else model.hessian / stretch
    H = hessian + (damping + RIDGE) * np.diag(model.damping_scale)
    step = np.zeros(theta.size)
    g = model.gradient[free]
    step[free] = box_minimum(g, H[free[:, None], free], low[free], high[free])
    decrement = -float(model.gradient @ step + 0.5 * step @ hessian @ step)
    attainable = 0.5 * float(np.sum(g**2 / model.damping_scale[free])) if free.size else 0.0
    shrunk = shrinks & (step <= low) & (step < 0.0)
    stuck = decrement < STUCK * attainable and attainable > LEAST_GAIN
    return Proposal(step, max(decrement, 0.0), shrunk, bool(stuck), squares)


STUCK = 1e-9
"""A proposal is of no use if it predicts less than this part of what independent parameters would gain."""

LEAST_GAIN = 1e-9
"""Gain (deviance units) of independent parameters below which nothing is left to be stuck on."""


def step_bounds(
    problem: Problem[V], theta: FloatArray, squares: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """How far one step may move each parameter, down and up, and for which the lower end is a `SHRINK`.

    A diagonal element that dominates its column stays above `SHRINK` of itself. One that the elements below it
    dominate may change its sign: the criterion is even in the column, not in it alone.
    """
    below = np.bincount(problem.column, np.where(problem.on_diagonal, 0.0, theta**2))
    whole = np.bincount(problem.column, theta**2)
    reach = GROW * np.sqrt(whole[problem.column]) + problem.scale
    shrinks = problem.on_diagonal & (np.sqrt(below[problem.column]) <= theta)
    least = np.where(squares, 0.5 * (SHRINK**2 - 1.0) * theta, (SHRINK - 1.0) * theta)
    most = np.where(squares, 0.5 * (reach**2 - theta**2) / np.where(theta > 0.0, theta, 1.0), reach - theta)
    return np.where(shrinks, least, -reach - theta), most, shrinks


def moved(problem: Problem[V], theta: FloatArray, proposal: Proposal) -> tuple[FloatArray, bool]:
    """Theta after a step, and whether the sign of a column was turned to keep its diagonal nonnegative.

    Parameters in `Proposal.squares` move by ``2 theta step`` in their square.
    """
    step = proposal.step
    square = np.maximum(theta**2 + 2.0 * theta * step, 0.0)
    after = np.where(proposal.squares, np.sqrt(square), theta + step)
    negative = np.bincount(problem.column, problem.on_diagonal & (after < 0.0))[problem.column] > 0.0
    return np.where(negative, -after, after), bool(negative.any())


def box_minimum(g: FloatArray, H: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Minimiser of ``g'p + p'Hp / 2`` over a box that holds 0, by projected Newton steps.

    Bertsekas 1982, SIAM J. Control Optim. 20(2): a Newton step in the variables that are not held at a bound by
    their gradient, projected on the box; where that does not lower the quadratic, straight as far as the box allows.

    Parameters
    ----------
    g, low, high : ndarray, shape (m,)
    H : ndarray, shape (m, m)
        Positive definite.
    """
    if g.size == 0:
        return np.zeros(0)
    p = np.asarray(-np.linalg.solve(H, g), dtype=np.float64)
    if ((p >= low) & (p <= high)).all() and g @ p < 0.0:
        return p
    p = np.zeros(g.size)
    best = 0.0
    for _ in range(BOX_STEPS):
        slope = g + H @ p
        moving = ~(((p <= low) & (slope > 0.0)) | ((p >= high) & (slope < 0.0)))
        if not moving.any():
            break
        newton = _inward_newton(H, slope, moving, p <= low, p >= high)
        trial = np.clip(p + newton, low, high)
        value = float(g @ trial + 0.5 * trial @ H @ trial)
        if not value < best:
            trial = _up_to_the_bound(p, newton, low, high)
            value = float(g @ trial + 0.5 * trial @ H @ trial)
        if not value < best:
            break
        converged = best - value <= BOX_TOLERANCE * abs(value)
        p, best = trial, value
        if converged:
            break
    return p


def _inward_newton(
    H: FloatArray, slope: FloatArray, moving: NDArray[np.bool_], at_low: NDArray[np.bool_], at_high: NDArray[np.bool_]
) -> FloatArray:
    """Newton step in `moving`, without those at a bound that it would push over it: projected, it could go uphill."""
    while True:
        newton = np.zeros(slope.size)
        newton[moving] = -np.linalg.solve(H[np.ix_(moving, moving)], slope[moving])
        outward = (at_low & (newton < 0.0)) | (at_high & (newton > 0.0))
        if not outward.any():
            return newton
        moving = moving & ~outward


def _up_to_the_bound(p: FloatArray, step: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """The point where a step from p meets the first bound, lying on it exactly, or its end."""
    bound = np.where(step < 0.0, low, high)
    room = np.full(p.size, np.inf)
    np.divide(bound - p, step, out=room, where=step != 0.0)
    first = int(np.argmin(room))
    if room[first] >= 1.0:
        return p + step
    reached = np.clip(p + room[first] * step, low, high)
    reached[first] = bound[first]
    return reached
