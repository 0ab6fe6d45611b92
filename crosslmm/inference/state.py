"""What the tests of fixed effects need of a fit: the equations at its estimates and the derivatives there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from crosslmm.blas import cross
from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.engine.plan import IterativeEngine
from crosslmm.engine.protocol import Equations, Templates
from crosslmm.fit import Fit
from crosslmm.linalg.dense import solve_lower
from crosslmm.objective import Evaluation, evaluate
from crosslmm.quadratic import can_move
from crosslmm.uncertainty import Minimum, examine


@dataclass(frozen=True)
class State:
    """A fit with its equations at the estimates, in standardised coordinates.

    Attributes
    ----------
    xp : CrossProducts
    equations : Equations
        With as many probes as the fit took.
    fit : Fit
    minimum : Minimum
        Theta, criterion and derivatives there.
    free : ndarray of bool, shape (m,)
        Which elements of theta are off the boundary: those of columns of a template that are not 0.
    """

    xp: CrossProducts
    equations: Equations
    fit: Fit
    minimum: Minimum
    free: NDArray[np.bool_]

    @property
    def value(self) -> Evaluation:
        """Criterion and equations at the estimates."""
        return self.minimum.value

    @property
    def root(self) -> FloatArray:
        """H (p, p) with ``cov(beta) = H H'``, units of the data (theory eq. (11))."""
        half = solve_lower(self.value.x_factor, self.xp.layout.standardization.x_basis.T)
        return np.asarray(self.sigma * half.T)

    @property
    def sigma(self) -> float:
        """Residual standard deviation at this theta, units of the data."""
        return float(np.sqrt(self.value.sigma2)) * self.xp.layout.standardization.scale

    @property
    def seed(self) -> int:
        """Of random signs: that of the engine, where it has one."""
        options = self.equations.plan.options
        return options.seed if isinstance(options, IterativeEngine) else 0

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of the elements of theta on the boundary."""
        return tuple(name for name, free in zip(self.xp.layout.theta_names, self.free, strict=True) if not free)

    def at(self, theta: FloatArray) -> State:
        """The same equations at another theta (m,), standardised coordinates."""
        value = evaluate(self.equations, self.xp, self.xp.layout.templates(theta), reml=self.fit.reml)
        return replace(self, minimum=examine(self.xp, theta, value))

    def stepped(self, element: int, step: float) -> FloatArray:
        """Theta with one of its elements moved; shape (m,)."""
        theta = self.minimum.theta.copy()
        theta[element] += step
        return theta


def state_of(xp: CrossProducts, equations: Equations, fit: Fit) -> State:
    """The equations of a fit at its estimates.

    Parameters
    ----------
    xp : CrossProducts
    equations : Equations
        Those of the fit (`MixedLM.equations_of`).
    fit : Fit
    """
    layout = xp.layout
    theta = layout.to_standard(fit.theta)
    value = evaluate(equations, xp, layout.templates(theta), reml=fit.reml)
    moving = can_move(layout.theta_column, theta)
    return State(xp, equations, fit, examine(xp, theta, value), moving)


def white_scores(value: Evaluation) -> Templates:
    """``Z' V^-1 X R'^-1`` per factor, where ``R R' = X' V^-1 X``; each (k, L, p)."""
    parts = []
    for scores in value.system.fixed_scores():
        k, n_levels, p = scores.shape
        parts.append(solve_lower(value.x_factor, scores.reshape(k * n_levels, p).T).T.reshape(k, n_levels, p))
    return tuple(parts)


def moved_covariances(state: State) -> tuple[tuple[int, FloatArray], ...]:
    """Factor, and derivative of its covariance ``T T'``, of every free element of theta."""
    layout = state.xp.layout
    moved = []
    for i in np.flatnonzero(state.free):
        f = int(layout.theta_factor[i])
        half = layout.theta_basis[i] @ state.value.templates[f].T
        moved.append((f, half + half.T))
    return tuple(moved)


def covariance_slopes(white: Templates, moved: tuple[tuple[int, FloatArray], ...]) -> FloatArray:
    """``R^-1 X' V^-1 (dV) V^-1 X R'^-1`` for derivatives dV of V; shape (r, p, p).

    Between the roots of the covariance of the fixed effects, this is its derivative at a given sigma.
    """
    p = white[0].shape[2]
    slopes = [paired(white[f], D, white[f]) for f, D in moved]
    return np.stack(slopes) if slopes else np.zeros((0, p, p))


def paired(a: FloatArray, S: FloatArray, b: FloatArray) -> FloatArray:
    """``sum_l a_l' S b_l`` for a (k, L, p), b (k, L, q) and S (k, k); shape (p, q)."""
    moved = np.einsum("ij,jlq->ilq", S, b)
    rows = a.shape[0] * a.shape[1]
    return cross(a.reshape(rows, a.shape[2]), moved.reshape(rows, b.shape[2]))
