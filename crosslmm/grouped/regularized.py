"""The lasso on fixed effects at the covariances of the unpenalised fit, as statsmodels has it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.errors import ModelError
from crosslmm.grouped.likelihood import Likelihood, moved, standard_beta
from crosslmm.grouped.results import GroupedResults
from crosslmm.objective import Evaluation


@dataclass(frozen=True)
class Descent:
    """When coordinate descent ends.

    Attributes
    ----------
    ceps : float
        Fixed effects smaller than this are taken as 0.
    ptol : float
        Largest change of a fixed effect at which to stop.
    maxit : int
        Rounds at most.
    """

    ceps: float
    ptol: float
    maxit: int


@dataclass(frozen=True, repr=False)
class RegularizedResults(GroupedResults):
    """A fit whose fixed effects are penalised; `cov_re` and `vcomp` are those of the unpenalised fit.

    Attributes
    ----------
    unpenalized : GroupedResults
    """

    unpenalized: GroupedResults | None = None

    @cached_property
    def cov_re(self) -> Any:
        """Covariance of the random effects of a group, of the unpenalised fit."""
        return cast(GroupedResults, self.unpenalized).cov_re

    @cached_property
    def vcomp(self) -> FloatArray:
        """Variance components of the unpenalised fit."""
        return cast(GroupedResults, self.unpenalized).vcomp

    @property
    def converged(self) -> bool:
        """True: the covariances are given, and the descent ended."""
        return True


def regularized(fit: GroupedResults, alpha: Any, limits: Descent, start: Any) -> RegularizedResults:
    """Penalise the fixed effects of a fit; see `MixedLM.fit_regularized`.

    Raises
    ------
    ModelError
        The weights are negative, or not as many as there are fixed effects.
    """
    weights = np.asarray(alpha, dtype=float)
    weights = np.full(fit.k_fe, float(weights)) if weights.ndim == 0 else weights
    if weights.shape != (fit.k_fe,) or not np.all(weights >= 0.0):
        raise ModelError(
            f"alpha must be a number, or one number for each of the {fit.k_fe} fixed effects; not negative"
        )
    likelihood = fit.model._likelihood(fit.reml, fit.estimates.plan.options)
    value = likelihood.at(fit._point, profile=True)
    standard = fit.estimates.layout.standardization
    F = _raw(likelihood, value)
    beta = np.array(fit.estimates.beta if start is None else start, dtype=float)
    if beta.shape != (fit.k_fe,):
        raise ModelError(f"start_params has {beta.size} elements, but there are {fit.k_fe} fixed effects")
    beta = descend(F[:-1, :-1] / fit.scale, F[:-1, -1] / fit.scale, beta, weights, limits)
    at = moved(value, standard_beta(likelihood.xp, beta))
    sigma = float(np.sqrt(at.sigma2)) * standard.scale
    estimates = replace(
        fit.estimates,
        beta=beta,
        sigma=sigma,
        criterion=at.criterion,
        beta_cov=_covariance(F[:-1, :-1], beta, sigma, limits.ceps),
        modes=tuple(
            standard.scale * (U @ b).T for U, b in zip(standard.z_bases, at.system.effects(at.beta).modes, strict=True)
        ),
    )
    return RegularizedResults(
        model=fit.model,
        estimates=estimates,
        freepat=fit.freepat,
        keep_history=fit.keep_history,
        unpenalized=fit,
    )


def _raw(likelihood: Likelihood, value: Evaluation) -> FloatArray:
    """``[X, y]' V^-1 [X, y]`` of the columns in the units of the data; shape (p + 1, p + 1)."""
    standard = likelihood.xp.layout.standardization
    p = likelihood.space.k_fe
    back = np.zeros((p + 1, p + 1))
    back[:p, :p] = np.linalg.inv(standard.x_basis)
    back[:p, p] = back[:p, :p] @ standard.origin
    back[p, p] = standard.scale
    return back.T @ value.system.fixed @ back


def descend(A: FloatArray, c: FloatArray, beta: FloatArray, weights: FloatArray, limits: Descent) -> FloatArray:
    """Minimise ``b' A b - 2 b' c + sum weights |b|`` one element at a time (Friedman, Hastie, Tibshirani 2010).

    An element that is smaller than `ceps` stays as it is, as in statsmodels.
    """
    beta = beta.copy()
    for _ in range(limits.maxit):
        before = beta.copy()
        for j in range(beta.size):
            if abs(beta[j]) < limits.ceps:
                continue
            beta[j] = 0.0
            slope = -2.0 * float(c[j] - A[j] @ beta)
            beta[j] = -np.sign(slope) * max(abs(slope) - weights[j], 0.0) / (2.0 * A[j, j])
        if np.abs(before - beta).max(initial=0.0) < limits.ptol:
            break
    return beta


def _covariance(A: FloatArray, beta: FloatArray, sigma: float, ceps: float) -> FloatArray:
    """Covariance of the fixed effects that are not 0; nan for the others."""
    kept = np.flatnonzero(np.abs(beta) > ceps)
    result = np.full(A.shape, np.nan)
    if kept.size:
        index = np.ix_(kept, kept)
        result[index] = sigma**2 * np.linalg.inv(A[index])
    return result
