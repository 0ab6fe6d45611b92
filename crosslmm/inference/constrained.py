"""The ML deviance with one parameter held at a value, minimised over all others.

Each kind of parameter has its own way out of a constraint (docs/profile.md):

- A fixed effect goes into the response, ``y - x_j b``, and out of X: a linear map of the cross-products.
- A standard deviation ``v`` fixes sigma, ``sigma = v / tau(theta)`` with tau the relative standard deviation, so theta
  stays free.
- Sigma is a number.
- A correlation makes the first two columns of the template, its own columns put first, proportional to one number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from crosslmm.boundary import NEGLIGIBLE, leave_boundary, without_negligible
from crosslmm.covariance import FloatArray, lower_factor
from crosslmm.crossproducts import CrossProducts
from crosslmm.engine.protocol import Equations, System, Templates
from crosslmm.inference.parameters import CORRELATION, FIXED, SIGMA, Parameter
from crosslmm.inference.reduce import mapped
from crosslmm.objective import Derivatives, Directions, Evaluation, criterion_problem, differentiate, evaluate
from crosslmm.quadratic import Problem
from crosslmm.start import natural_scale


@dataclass(frozen=True)
class ModelAt:
    """A model with its equations and where its ML fit ended.

    Attributes
    ----------
    xp : CrossProducts
    equations : Equations
    theta : ndarray, shape (m,)
        Standardised coordinates.
    scale : ndarray, shape (m,)
        Natural scale of theta.
    """

    xp: CrossProducts
    equations: Equations
    theta: FloatArray
    scale: FloatArray

    def reduced(self, theta: FloatArray) -> FloatArray | None:
        """Theta without the random effects that are all but 0, or None where there are none.

        Most searches are far from that, which a bound of the smallest singular value tells: the product of the
        diagonal over the norm to the power of all but one.
        """
        layout = self.xp.layout
        scaled = theta / self.scale
        for term in layout.terms:
            part, on = scaled[term.theta_slice], layout.on_diagonal[term.theta_slice]
            norm = float(np.sqrt(part @ part))
            if float(part[on].prod()) < NEGLIGIBLE * norm ** (int(on.sum()) - 1):
                return without_negligible(layout, theta, self.scale)
        return None


def model_at(xp: CrossProducts, equations: Equations, theta_raw: FloatArray) -> ModelAt:
    """The model at theta in the units of the data."""
    return ModelAt(xp, equations, xp.layout.to_standard(theta_raw), natural_scale(xp))


class Constrained(Protocol):
    """One parameter that can be held at any value."""

    @property
    def start(self) -> FloatArray:
        """What is searched over, at the ML fit."""

    def start_at(self, theta: FloatArray) -> FloatArray:
        """What is searched over, at any theta (m,) in standardised coordinates."""

    def problem(self, value: float) -> Problem:
        """The deviance with the parameter at `value`."""

    def slope(self, at: Any, value: float) -> float:
        """Derivative of the minimised deviance by the parameter, from where its search ended; nan if not known."""


def constrain(model: ModelAt, parameter: Parameter) -> Constrained:
    """How a parameter is held."""
    if parameter.kind == FIXED:
        return _fixed_effect(model, parameter.columns[0])
    if parameter.kind == CORRELATION:
        return _correlation(model, parameter)
    if parameter.kind == SIGMA:
        return ScaleConstrained(model, -1, np.zeros(0))
    factor = model.xp.layout.terms[parameter.term].factor
    basis = model.xp.layout.standardization.z_bases[factor]
    return ScaleConstrained(model, factor, basis[parameter.columns[0]])


# --- a fixed effect --------------------------------------------------------------------------------


@dataclass(frozen=True)
class FixedConstrained:
    """Coefficient j held: ``beta = along * v + across gamma``, standardised coordinates."""

    model: ModelAt
    origin: float
    along: FloatArray
    across: FloatArray

    @property
    def start(self) -> FloatArray:
        """See `Constrained.start`."""
        return self.model.theta

    def start_at(self, theta: FloatArray) -> FloatArray:
        """See `Constrained.start_at`."""
        return theta

    def problem(self, value: float) -> Problem[Evaluation]:
        """See `Constrained.problem`."""
        model = self.model
        p = self.along.size
        held = np.append(-self.along * (value - self.origin), 1.0)
        K = np.column_stack([np.vstack([self.across, np.zeros((1, p - 1))]), held])
        standard = replace(model.xp.layout.standardization, x_basis=np.eye(p - 1), origin=np.zeros(p - 1))
        layout = replace(model.xp.layout, fixed=model.xp.layout.fixed[1:], standardization=standard)
        xp = mapped(model.xp, layout, K)
        equations = model.equations.with_columns(xp.border, xp.fixed)
        return replace(criterion_problem(equations, xp, model.scale, reml=False), reduce=model.reduced)

    def slope(self, at: Evaluation, value: float) -> float:
        """See `Constrained.slope`: ``-2 x' V^-1 (y - X beta) / sigma**2``, x what moves with the coefficient."""
        xp = self.model.xp
        beta = self.along * (value - self.origin) + self.across @ at.beta
        contrast = np.append(-beta, 1.0)
        score = xp.fixed[:-1] @ contrast
        for border, b in zip(xp.border, at.system.effects(at.beta).modes, strict=True):
            score -= np.einsum("klp,kl->p", border[:, :, :-1], b)
        return float(-2.0 * (self.along @ score) / at.sigma2)


def _fixed_effect(model: ModelAt, index: int) -> FixedConstrained:
    standard = model.xp.layout.standardization
    row = standard.scale * standard.x_basis[index]
    across = np.linalg.svd(row[None, :])[2][1:].T
    return FixedConstrained(model, float(standard.origin[index]), row / (row @ row), across)


# --- a standard deviation, or sigma ----------------------------------------------------------------


@dataclass(frozen=True)
class ScaledValue:
    """The deviance at theta and a sigma that theta determines.

    Attributes
    ----------
    criterion : float
    at : Evaluation
        With sigma2 the variance that is held.
    ratio : float
        Residual variance that theta asks for over the one that is held.
    tau2 : float
        Relative variance of the random effect that is held; 1 where sigma itself is.
    """

    criterion: float
    at: Evaluation
    ratio: float
    tau2: float

    @property
    def system(self) -> System:
        """The equations there."""
        return self.at.system

    @property
    def noise(self) -> float:
        """See `Evaluation.noise`."""
        return self.at.noise

    @property
    def steps(self) -> int:
        """See `Evaluation.steps`."""
        return self.at.steps


@dataclass(frozen=True)
class ScaleConstrained:
    """A standard deviation held through sigma, or (factor -1) sigma itself.

    Attributes
    ----------
    model : ModelAt
    factor : int
    row : ndarray, shape (k,)
        Row u of the factor's basis: the column in the units of the data has relative variance ``u T T' u'``.
    """

    model: ModelAt
    factor: int
    row: FloatArray

    @property
    def start(self) -> FloatArray:
        """See `Constrained.start`."""
        return self.model.theta

    def start_at(self, theta: FloatArray) -> FloatArray:
        """See `Constrained.start_at`."""
        return theta

    def problem(self, value: float) -> Problem[ScaledValue]:
        """See `Constrained.problem`."""
        model, layout = self.model, self.model.xp.layout
        return Problem(
            value=lambda theta: self._value(theta, value),
            slopes=self._slopes,
            on_diagonal=layout.on_diagonal,
            column=layout.theta_column,
            collapse=layout.collapse,
            reduce=self._reduced,
            leave=lambda theta, slopes: leave_boundary(layout, theta, slopes.multipliers, model.scale),  # type: ignore[attr-defined]
            scale=model.scale,
        )

    def slope(self, at: ScaledValue, value: float) -> float:
        """See `Constrained.slope`."""
        return 2.0 * self.model.xp.n * (1.0 - at.ratio) / value if value > 0.0 else np.nan

    def _reduced(self, theta: FloatArray) -> FloatArray | None:
        """See `ModelAt.reduced`: None as well where the effect that is held would go with the others."""
        smaller = self.model.reduced(theta)
        return None if smaller is None or self._tau2(self.model.xp.layout.templates(smaller)) == 0.0 else smaller

    def _tau2(self, templates: Templates) -> float:
        """See `ScaledValue.tau2`."""
        return 1.0 if self.factor < 0 else float(np.sum((self.row @ templates[self.factor]) ** 2))

    def _value(self, theta: FloatArray, held: float) -> ScaledValue:
        xp = self.model.xp
        at = evaluate(self.model.equations, xp, xp.layout.templates(theta), reml=False)
        tau2 = self._tau2(at.templates)
        with np.errstate(divide="ignore"):
            sigma2 = (held / xp.layout.standardization.scale) ** 2 / np.float64(tau2)
        ratio = at.sigma2 / sigma2
        excess = xp.n * (ratio - 1.0 - np.log(ratio)) if 0.0 < ratio < np.inf else np.inf
        return ScaledValue(at.criterion + excess, replace(at, sigma2=float(sigma2)), float(ratio), tau2)

    def _slopes(self, value: ScaledValue) -> Derivatives:
        """With ``eta = log sigma**2``: ``d = log|V| + n eta + r2 exp(-eta)`` along theta, eta a function of theta."""
        layout, n = self.model.xp.layout, self.model.xp.n
        plain = differentiate(value.at, Directions(layout.theta_factor, layout.theta_basis))
        t = plain.scores
        information = plain.information + np.outer(t, t) / n
        if self.factor < 0:
            return replace(plain, information=information)
        N = -np.outer(self.row, self.row) / value.tau2
        own = np.flatnonzero(layout.theta_factor == self.factor)
        E = np.stack([layout.theta_basis[i] for i in own])
        flat = E.reshape(own.size, -1)
        eta = np.zeros(t.size)
        eta[own] = 2.0 * flat @ (N @ value.at.templates[self.factor]).ravel()
        pull = n * (1.0 - value.ratio)
        curvature = plain.curvature + pull * np.outer(eta, eta)
        curvature[own[:, None], own] += 2.0 * pull * flat @ (N @ E).reshape(own.size, -1).T
        multipliers = tuple(M + pull * N if f == self.factor else M for f, M in enumerate(plain.multipliers))
        return replace(
            plain,
            gradient=plain.gradient + pull * eta,
            information=information + np.outer(t, eta) + np.outer(eta, t) + n * value.ratio * np.outer(eta, eta),
            curvature=curvature,
            multipliers=multipliers,
        )


# --- a correlation ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class CorrelationConstrained:
    """A correlation r held by ``[[a, 0], [r s, sqrt(1 - r^2) s]]`` in the first two rows of the template.

    The term's columns are permuted so that the two concerned come first. The search is over theta of the other terms
    (standardised coordinates), then a, s and the rows below (units of the data).

    Attributes
    ----------
    model : ModelAt
    term : int
    order : tuple of int
        The permutation of the term's columns.
    """

    model: ModelAt
    term: int
    order: tuple[int, ...]

    @cached_property
    def start(self) -> FloatArray:
        """See `Constrained.start`; shape (m - 1,)."""
        return self.start_at(self.model.theta)

    def start_at(self, theta: FloatArray) -> FloatArray:
        """See `Constrained.start_at`; shape (m - 1,)."""
        layout = self.model.xp.layout
        term = layout.terms[self.term]
        raw = layout.to_raw(theta)[term.theta_slice]
        L = lower_factor(term.covariance.template(raw)[list(self.order)])
        below = [L[i, j] for i in range(2, len(self.order)) for j in range(i + 1)]
        return np.concatenate([theta[self._others], [L[0, 0], np.hypot(L[1, 0], L[1, 1])], below])

    @property
    def starts_without(self) -> tuple[FloatArray, FloatArray]:
        """The start without the one effect, and without the other: there the correlation can be held at any value."""
        both = self.start.copy(), self.start.copy()
        for i, x in enumerate(both):
            x[self._others.size + i] = 0.0
        return both

    @property
    def _others(self) -> NDArray[np.intp]:
        layout = self.model.xp.layout
        mine = np.zeros(layout.n_theta, dtype=bool)
        mine[layout.terms[self.term].theta_slice] = True
        return np.flatnonzero(~mine)

    def _own_basis(self, r: float) -> list[FloatArray]:
        """Derivatives of the factor's template by the term's parameters."""
        k = len(self.order)
        first = np.zeros((k, k))
        first[0, 0] = 1.0
        second = np.zeros((k, k))
        second[1, :2] = r, np.sqrt(max(1.0 - r * r, 0.0))
        local = [first, second]
        for i in range(2, k):
            for j in range(i + 1):
                E = np.zeros((k, k))
                E[i, j] = 1.0
                local.append(E)
        return [self._in_factor(E) for E in local]

    def _in_factor(self, E: FloatArray) -> FloatArray:
        """A matrix of the term, its columns permuted, as one of the factor in standardised coordinates."""
        layout = self.model.xp.layout
        term = layout.terms[self.term]
        U = layout.standardization.z_bases[term.factor]
        raw = np.zeros_like(U)
        raw[np.ix_(np.array(term.columns)[list(self.order)], np.array(term.columns))] = E
        return np.asarray(np.linalg.solve(U, raw))

    def problem(self, value: float) -> Problem[Evaluation]:
        """See `Constrained.problem`."""
        model, layout = self.model, self.model.xp.layout
        term = layout.terms[self.term]
        others = self._others
        own = self._own_basis(value)
        factor = np.append(layout.theta_factor[others], np.full(len(own), term.factor)).astype(np.intp)
        directions = Directions(factor, (*(layout.theta_basis[i] for i in others), *own))
        k = len(self.order)
        rows = [0, 1, *(i for i in range(2, k) for _ in range(i + 1))]
        on_diagonal = np.array([True, True, *(i == j for i in range(2, k) for j in range(i + 1))])
        below = int(layout.theta_column.max()) + 1
        U = layout.standardization.z_bases[term.factor]
        unit = np.sqrt(np.sum(U**2, axis=1))[np.array(term.columns)[list(self.order)]]
        return Problem(
            value=lambda x: evaluate(model.equations, model.xp, self.templates(x, directions), reml=False),
            slopes=lambda at: differentiate(at, directions),
            on_diagonal=np.append(layout.on_diagonal[others], on_diagonal).astype(bool),
            column=np.append(layout.theta_column[others], below + np.array(rows)).astype(np.intp),
            collapse=lambda x, index: np.where(np.arange(x.size) == index, 0.0, x),
            reduce=lambda x: None,
            leave=lambda x, slopes: None,
            scale=np.append(model.scale[others], model.scale[term.theta_start] * unit[rows]),
        )

    def slope(self, at: Evaluation, value: float) -> float:
        """See `Constrained.slope`: along ``s (1, -r / sqrt(1 - r^2))`` in the second row."""
        root = np.sqrt(max(1.0 - value**2, 0.0))
        if root == 0.0:
            return np.nan
        term = self.model.xp.layout.terms[self.term]
        E = np.zeros((len(self.order), len(self.order)))
        E[1, :2] = 1.0, -value / root
        U = self.model.xp.layout.standardization.z_bases[term.factor]
        size = float(np.linalg.norm((U @ at.templates[term.factor])[term.columns[self.order[1]]]))
        moves = Directions(np.array([term.factor], dtype=np.intp), (size * self._in_factor(E),))
        return float(differentiate(at, moves).gradient[0])

    def templates(self, x: FloatArray, directions: Directions) -> tuple[FloatArray, ...]:
        """One template per factor, standardised coordinates."""
        result = [np.zeros((f.size, f.size)) for f in self.model.xp.layout.factors]
        for f, E, value in zip(directions.factor, directions.basis, x, strict=True):
            result[f] = result[f] + value * E
        return tuple(result)


def _correlation(model: ModelAt, parameter: Parameter) -> CorrelationConstrained:
    layout = model.xp.layout
    term = layout.terms[parameter.term]
    pair = [term.columns.index(j) for j in parameter.columns]
    order = (*pair, *(i for i in range(len(term.columns)) if i not in pair))
    return CorrelationConstrained(model, parameter.term, order)
