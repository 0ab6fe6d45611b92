"""Log-likelihood, score and Hessian at any parameters, by statsmodels' conventions; sigma is profiled out.

The covariance of a factor enters as ``U^-1 R`` with R a root of it in the units of the data and U the basis of the
engine's coordinates: no triangle is needed, and the derivative by a covariance exists at singular ones too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.engine.protocol import Equations
from crosslmm.grouped.parameters import Point, Space
from crosslmm.linalg.dense import solve_lower_transposed
from crosslmm.objective import Evaluation, evaluate

STEP = 1e-3
"""Step of the difference quotients of the score, relative to a parameter's size: fourth order, so errors are 1e-12."""

CENTRAL = {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}
FORWARD = {0: -25 / 12, 1: 4.0, 2: -3.0, 3: 4 / 3, 4: -1 / 4}
"""Weights of the points of a fourth-order difference quotient."""


@dataclass(frozen=True)
class Likelihood:
    """The likelihood of one model.

    Attributes
    ----------
    xp : CrossProducts
    equations : Equations
    space : Space
    reml : bool
    """

    xp: CrossProducts
    equations: Equations
    space: Space
    reml: bool

    def at(self, point: Point, *, profile: bool) -> Evaluation:
        """Everything at a point; with its own fixed effects unless they are profiled out."""
        bases = self.xp.layout.standardization.z_bases
        pairs = zip(bases, self.space.roots(point), strict=True)
        templates = tuple(np.asarray(np.linalg.solve(U, R), float) for U, R in pairs)
        value = evaluate(self.equations, self.xp, templates, reml=self.reml)
        if profile or point.fe_params is None:
            return value
        return moved(value, standard_beta(self.xp, point.fe_params))

    def score(self, value: Evaluation) -> tuple[FloatArray, FloatArray]:
        """Derivatives of the log-likelihood by the fixed effects, and by the covariance parameters (no roots)."""
        layout = self.xp.layout
        p = layout.n_fixed
        extended = np.append(-value.beta, 1.0)
        residual = value.system.fixed[:p] @ extended
        basis = layout.standardization
        by_beta = np.linalg.solve(basis.x_basis.T, residual) / (value.sigma2 * basis.scale)
        blocks = value.system.marginal(reml=value.reml).blocks
        scores = value.system.effects(value.beta).scores
        raw: list[FloatArray] = []
        for U, B, z in zip(basis.z_bases, blocks, scores, strict=True):
            half = np.linalg.solve(U.T, B - np.einsum("il,jl->ij", z, z) / value.sigma2)
            raw.append(np.asarray(-0.5 * np.linalg.solve(U.T, half.T).T, float))
        return by_beta, self._by_parameter(raw)

    def _by_parameter(self, raw: list[FloatArray]) -> FloatArray:
        """Derivatives by the lower triangle of `cov_re`, then by `vcomp`, of those by the factors' covariances."""
        space = self.space
        parts: list[FloatArray] = []
        if space.re:
            D = raw[space.re_factor][np.ix_(space.re_columns, space.re_columns)]
            both = D + D.T - np.diag(np.diag(D))
            parts.append(both[np.tril_indices(space.k_re)])
        parts.append(np.array([float(np.diag(raw[t.factor])[list(t.columns)].sum()) for t in space.vcs]))
        return np.concatenate(parts)


def moved(value: Evaluation, beta: FloatArray) -> Evaluation:
    """The evaluation with other fixed effects (standardised units)."""
    extended = np.append(-beta, 1.0)
    sigma2 = float(extended @ value.system.fixed @ extended) / value.degrees
    criterion = value.criterion + value.degrees * float(np.log(sigma2 / value.sigma2))
    return replace(value, beta=beta, sigma2=sigma2, criterion=criterion)


def raw_beta(xp: CrossProducts, value: Evaluation) -> FloatArray:
    """Fixed effects in the units of the data; shape (p,)."""
    standard = xp.layout.standardization
    return standard.origin + standard.scale * (standard.x_basis @ value.beta)


def standard_beta(xp: CrossProducts, beta: FloatArray) -> FloatArray:
    """Fixed effects in standardised units; shape (p,)."""
    standard = xp.layout.standardization
    return np.asarray(np.linalg.solve(standard.x_basis, beta - standard.origin) / standard.scale, float)


def raw_scale(xp: CrossProducts, value: Evaluation) -> float:
    """Residual variance in the units of the data."""
    return value.sigma2 * xp.layout.standardization.scale**2


def by_roots(space: Space, point: Point, score: FloatArray) -> FloatArray:
    """Derivatives by the Cholesky factor of `cov_re` and the roots of `vcomp` from those by the variances."""
    k, k2 = space.k_re, space.k_re2
    lower = np.zeros((k, k))
    if space.re:
        lower = space.roots(point)[space.re_factor][np.ix_(space.re_columns, space.re_columns)]
    D = np.zeros((k, k))
    D[np.tril_indices(k)] = score[:k2]
    D = 0.5 * (D + D.T)
    return np.concatenate([(2.0 * D @ lower)[np.tril_indices(k)], 2.0 * np.sqrt(point.vcomp) * score[k2:]])


def covariance_hessian(likelihood: Likelihood, point: Point, *, profile: bool) -> FloatArray:
    """Second derivatives by the covariance parameters (no roots); shape (m, m).

    By difference quotients of the exact score along covariances, which stay covariances: forwards where `point` is
    singular.

    Parameters
    ----------
    likelihood : Likelihood
    point : Point
    profile : bool
        Whether the fixed effects follow (their Schur complement), or are held at those of `point`.
    """
    directions, size = _directions(likelihood.space, point)
    definite = _definite(point)
    columns = [_along(likelihood, point, step, profile=profile, both_sides=definite) for step in directions]
    H = np.linalg.solve(np.array([_vector(step) for step in directions]), np.array(columns))
    return 0.5 * (H + H.T) if size else np.zeros((0, 0))


def _vector(step: Point) -> FloatArray:
    """A direction as a vector of covariance parameters."""
    return np.concatenate([step.cov_re[np.tril_indices(len(step.cov_re))], step.vcomp])


def _definite(point: Point) -> bool:
    """Whether every variance can become smaller."""
    if np.any(point.vcomp <= 0.0):
        return False
    if not point.cov_re.size:
        return True
    sd = np.sqrt(np.diag(point.cov_re))
    return bool(np.all(sd > 0.0)) and float(np.linalg.eigvalsh(point.cov_re / np.outer(sd, sd))[0]) > 20.0 * STEP


def _directions(space: Space, point: Point) -> tuple[list[Point], int]:
    """Steps that are covariances and span all directions."""
    k, steps = space.k_re, []
    sd = np.sqrt(np.diag(point.cov_re)) if k else np.zeros(0)
    unit = np.where(sd > 0.0, sd, 1.0)
    for i in range(k):
        for j in range(i + 1):
            e = np.zeros(k)
            e[i] = unit[i]
            e[j] = unit[j]
            steps.append(Point(None, np.outer(e, e), np.zeros(space.k_vc)))
    for i in range(space.k_vc):
        vcomp = np.zeros(space.k_vc)
        vcomp[i] = point.vcomp[i] if point.vcomp[i] > 0.0 else 1.0
        steps.append(Point(None, np.zeros((k, k)), vcomp))
    return steps, len(steps)


def _along(likelihood: Likelihood, point: Point, step: Point, *, profile: bool, both_sides: bool) -> FloatArray:
    """Derivative of the score along a step."""
    weights = CENTRAL if both_sides else FORWARD
    total = np.zeros(likelihood.space.k_re2 + likelihood.space.k_vc)
    for times, weight in weights.items():
        h = times * STEP
        at = Point(point.fe_params, point.cov_re + h * step.cov_re, point.vcomp + h * step.vcomp)
        total += weight / STEP * likelihood.score(likelihood.at(at, profile=profile))[1]
    return total


def cross_hessian(likelihood: Likelihood, point: Point) -> tuple[FloatArray, FloatArray]:
    """Second derivatives by the fixed effects (p, p), and by covariance parameters and fixed effects (m, p)."""
    value = likelihood.at(point, profile=False)
    xp, p = likelihood.xp, likelihood.space.k_fe
    standard = xp.layout.standardization
    inverse = np.linalg.inv(standard.x_basis)
    F = value.system.fixed[:p, :p]
    score = likelihood.score(value)[0]
    by_beta = -(inverse.T @ F @ inverse) / raw_scale(xp, value) + 2.0 * np.outer(score, score) / value.degrees
    # the score of the covariance parameters is a quadratic function of beta over the residual variance
    columns = []
    root = solve_lower_transposed(value.x_factor, np.eye(p))
    for j in range(p):
        step = root[:, j] * np.sqrt(value.sigma2)
        up, down = (likelihood.score(moved(value, value.beta + sign * STEP * step))[1] for sign in (1.0, -1.0))
        up2, down2 = (likelihood.score(moved(value, value.beta + 2 * sign * STEP * step))[1] for sign in (1.0, -1.0))
        columns.append((8.0 * (up - down) - (up2 - down2)) / (12.0 * STEP))
    slopes = np.array(columns).T.reshape(-1, p)
    to_raw = np.linalg.inv(standard.scale * standard.x_basis @ root * np.sqrt(value.sigma2))
    return by_beta, slopes @ to_raw
