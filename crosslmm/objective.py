"""The profiled deviance and REML criterion, their gradient and the average information.

Everything is written once against `crosslmm.engine.protocol.System`, for any engine. With ``nu = n - p`` (REML) or n
(ML), ``r2 = y' P y`` and ``sigma**2 = r2 / nu`` (docs/theory.md, eq. (5)-(8)):

    criterion = log|L'AL + I| (+ log|X'V^-1X| under REML) - sum log w + nu (1 + log(2 pi r2 / nu))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from crosslmm.boundary import leave_boundary, without_negligible
from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.engine.protocol import Effects, Equations, System, Templates
from crosslmm.errors import NumericalError
from crosslmm.linalg.dense import solve_lower, solve_lower_transposed
from crosslmm.quadratic import Problem

SAMPLING_NOISE = 0.01
"""Deviance units by which a sampled criterion may fail to follow its sampled derivative over one step, at most."""

SAMPLING_PART = 0.1
"""The same as a part of the Monte Carlo error of the log-determinant."""


@dataclass(frozen=True)
class Directions:
    """Along which the criterion is differentiated: parameter i moves the template of factor[i] by basis[i].

    Attributes
    ----------
    factor : ndarray of intp, shape (m,)
    basis : tuple of ndarray, each (k, k)
    """

    factor: np.ndarray
    basis: Templates


@dataclass(frozen=True)
class Evaluation:
    """The criterion at one point, in the units of the data, with what its derivatives need.

    Attributes
    ----------
    criterion : float
    sigma2 : float
        Residual variance, standardised units.
    beta : ndarray, shape (p,)
        Fixed effects, standardised units.
    x_factor : ndarray, shape (p, p)
        Lower Cholesky factor of ``X' V^-1 X``, standardised units.
    degrees : int
        nu.
    reml : bool
    system : System
    templates : tuple of ndarray
        Where, standardised coordinates.
    """

    criterion: float
    sigma2: float
    beta: FloatArray
    x_factor: FloatArray
    degrees: int
    reml: bool
    system: System
    templates: Templates

    @property
    def noise(self) -> float:
        """Differences of the criterion below this are not signal, rounding apart."""
        return min(SAMPLING_NOISE, SAMPLING_PART * self.system.log_det_error)

    @property
    def steps(self) -> int:
        """Conjugate gradient steps it took."""
        return self.system.steps


@dataclass(frozen=True)
class Derivatives:
    """First and approximate second derivatives of the criterion along some directions.

    Attributes
    ----------
    gradient : ndarray, shape (m,)
        Exact, or the mean over probes.
    information : ndarray, shape (m, m)
        Average information with sigma profiled out: approximates the Hessian (theory eq. (14)).
    curvature : ndarray, shape (m, m)
        What the second derivative of V by theta adds to the Hessian (theory eq. (15)).
    multipliers : tuple of ndarray, each (k, k)
        Derivative of the criterion by the covariance T T' of each factor.
        At a minimum they are positive semi-definite (theory eq. (16)), and 0 where the covariance has full rank.
    scores : ndarray, shape (m,)
        ``s_k = rho' f_k / sigma**2``: minus the derivative of log sigma**2 times nu.
    fixed_slopes : ndarray, shape (p, m)
        Derivative of the fixed effects in units of their errors: ``R' d beta / sigma`` with ``R R' = X' V^-1 X``.
    deviations : ndarray, shape (n, m)
        Gradient by each of n probes less their mean; n = 0 where it is exact.
    steps : int
        Conjugate gradient steps they took.
    """

    gradient: FloatArray
    information: FloatArray
    curvature: FloatArray
    multipliers: Templates
    scores: FloatArray
    fixed_slopes: FloatArray
    deviations: FloatArray
    steps: int

    @property
    def noise(self) -> float:
        """Decrease of the criterion that the sampling error of the gradient alone would promise; 0 where it is exact.

        At most `SAMPLING_NOISE`. Where a covariance is near 0 the gradient is sampled far more coarsely than the
        criterion, and follows it up to this only.
        """
        n = self.deviations.shape[0]
        if n == 0:
            return 0.0
        squares = np.square(self.deviations).sum(axis=0) / (n * (n - 1))
        stiffness = np.diag(self.information) + np.abs(np.diag(self.curvature))
        known = stiffness > 0.0
        return min(SAMPLING_NOISE, 0.5 * float(np.sum(squares[known] / stiffness[known])))


@dataclass(frozen=True)
class ObjectiveValue:
    """Criterion, gradient and average information by theta, in the units of the data.

    Attributes
    ----------
    criterion : float
        REML criterion, or deviance -2 log L under ML.
    gradient : ndarray, shape (m,)
    information : ndarray, shape (m, m)
        Approximates the Hessian of the criterion (average information, sigma profiled out).
    """

    criterion: float
    gradient: FloatArray
    information: FloatArray


def evaluate(equations: Equations, xp: CrossProducts, templates: Templates, *, reml: bool) -> Evaluation:
    """Criterion at one template per factor (standardised coordinates, any square matrices).

    Raises
    ------
    NumericalError
        When the equations are not positive definite in floating point.
    """
    system = equations.at(templates)
    p = xp.layout.n_fixed
    degrees = xp.n - p if reml else xp.n
    F = system.fixed
    try:
        R = cast(FloatArray, np.linalg.cholesky(F[:p, :p])) if p else np.zeros((0, 0))
    except np.linalg.LinAlgError as error:
        raise NumericalError("X' V^-1 X is not positive definite at these covariance parameters") from error
    half = solve_lower(R, F[:p, p:])[:, 0]
    r2 = float(F[p, p] - half @ half)
    if not r2 > 0.0:
        raise NumericalError("the residual sum of squares vanishes at these covariance parameters")
    beta = solve_lower_transposed(R, half[:, None])[:, 0]
    standard = xp.layout.standardization
    log_det = system.log_det - xp.sum_log_weights
    if reml:
        log_det += 2.0 * float(np.log(np.diag(R)).sum()) - 2.0 * standard.log_det_x_basis
    raw_r2 = np.log(r2) + 2.0 * np.log(standard.scale)
    criterion = float(log_det + degrees * (1.0 + np.log(2.0 * np.pi / degrees) + raw_r2))
    return Evaluation(criterion, r2 / degrees, beta, R, degrees, reml, system, templates)


def differentiate(value: Evaluation, directions: Directions) -> Derivatives:
    """Derivatives of the criterion at `value` (theory eq. (13)-(16))."""
    effects = value.system.effects(value.beta)
    marginal = value.system.marginal(reml=value.reml)
    multipliers = tuple(
        B - np.einsum("il,jl->ij", z, z) / value.sigma2 for B, z in zip(marginal.blocks, effects.scores, strict=True)
    )
    by_covariance = _by_covariance(value, directions)
    gradient = np.array([np.vdot(multipliers[f], D) for f, D in by_covariance])
    information = average_information(value, effects, by_covariance)
    return Derivatives(
        gradient=gradient,
        information=information.matrix,
        curvature=_curvature(multipliers, directions),
        multipliers=multipliers,
        scores=information.scores,
        fixed_slopes=information.fixed_slopes,
        deviations=_gradient_deviations(marginal.deviations, by_covariance),
        steps=marginal.steps + information.steps,
    )


def _gradient_deviations(deviations: Templates, by_covariance: list[tuple[int, FloatArray]]) -> FloatArray:
    """Gradient by each of n probes less their mean; shape (n, m)."""
    n = deviations[0].shape[0]
    if n == 0 or not by_covariance:
        return np.zeros((0, len(by_covariance)))
    return np.stack([np.einsum("nij,ij->n", deviations[f], D) for f, D in by_covariance], axis=1)


def _by_covariance(value: Evaluation, directions: Directions) -> list[tuple[int, FloatArray]]:
    """Derivative of its factor's covariance ``T T'`` by each direction."""
    moved = []
    for f, E in zip(directions.factor, directions.basis, strict=True):
        half = E @ value.templates[f].T
        moved.append((int(f), half + half.T))
    return moved


def _curvature(multipliers: Templates, directions: Directions) -> FloatArray:
    m = len(directions.basis)
    curvature = np.zeros((m, m))
    for f, gamma in enumerate(multipliers):
        members = np.flatnonzero(directions.factor == f)
        if not members.size:  # all its parameters are held
            continue
        E = np.stack([directions.basis[i] for i in members])
        curvature[members[:, None], members] = 2.0 * np.einsum("aij,ik,bkj->ab", E, gamma, E)
    return curvature


@dataclass(frozen=True)
class AverageInformation:
    """Average information along some directions.

    Attributes
    ----------
    matrix : ndarray, shape (m, m)
    scores : ndarray, shape (m,)
        ``s_k = rho' f_k / sigma**2``.
    fixed_slopes : ndarray, shape (p, m)
        ``-R^-1 X' V^-1 f_k / sigma``, the change of the fixed effects in units of their errors.
    steps : int
        Conjugate gradient steps it took.
    """

    matrix: FloatArray
    scores: FloatArray
    fixed_slopes: FloatArray
    steps: int


def average_information(
    value: Evaluation, effects: Effects, by_covariance: list[tuple[int, FloatArray]]
) -> AverageInformation:
    """``f_k' P f_l / sigma**2 - s_k s_l / nu`` with ``f_k = Z D_k Z' V^-1 (y - X beta)``, D_k the change of ``T T'``.

    Gilmour, Thompson, Cullis 1995, Biometrics 51, with sigma profiled out: ``s_k = rho' f_k / sigma**2``.
    """
    m = len(by_covariance)
    z = [np.zeros((*scores.shape, m)) for scores in effects.scores]
    s = np.empty(m)
    for i, (f, D) in enumerate(by_covariance):
        z[f][:, :, i] = np.einsum("ij,jl->il", D, effects.scores[f])
        s[i] = np.einsum("il,il->", effects.scores[f], z[f][:, :, i]) / value.sigma2
    products = value.system.inner(tuple(z))
    half = solve_lower(value.x_factor, products.zx.T)
    zz = products.zz - half.T @ half
    matrix = zz / value.sigma2 - np.outer(s, s) / value.degrees
    return AverageInformation(matrix, s, -half / np.sqrt(value.sigma2), products.steps)


def criterion_problem(equations: Equations, xp: CrossProducts, scale: FloatArray, *, reml: bool) -> Problem[Evaluation]:
    """The criterion as a function of theta in standardised coordinates, for `crosslmm.optimize.minimize`."""
    layout = xp.layout
    directions = Directions(layout.theta_factor, layout.theta_basis)
    return Problem(
        value=lambda theta: evaluate(equations, xp, layout.templates(theta), reml=reml),
        slopes=lambda value: differentiate(value, directions),
        on_diagonal=layout.on_diagonal,
        column=layout.theta_column,
        collapse=layout.collapse,
        reduce=lambda theta: without_negligible(layout, theta, scale),
        leave=lambda theta, slopes: leave_boundary(layout, theta, cast(Derivatives, slopes).multipliers, scale),
        scale=scale,
    )


def objective_at(equations: Equations, xp: CrossProducts, theta: FloatArray, *, reml: bool) -> ObjectiveValue:
    """Criterion, gradient and average information at theta in the units of the data.

    The templates are expressed in standardised coordinates, where they need not be triangular but stay linear in
    theta, so the derivatives are exact at singular points too.
    """
    layout = xp.layout
    bases = layout.standardization.z_bases
    basis = tuple(np.linalg.solve(bases[f], E) for f, E in zip(layout.theta_factor, layout.theta_basis, strict=True))
    value = evaluate(equations, xp, layout.standard_templates(theta), reml=reml)
    slopes = differentiate(value, Directions(layout.theta_factor, basis))
    return ObjectiveValue(value.criterion, slopes.gradient, slopes.information)
