"""The fit: every estimated number, as arrays in the units of the data, without rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.engine.plan import Plan
from crosslmm.layout import Layout
from crosslmm.precision import Spread


@dataclass(frozen=True)
class Iteration:
    """One evaluation of the optimiser.

    Attributes
    ----------
    theta : ndarray, shape (m,)
        Where (units of the data).
    criterion : float
        Profiled deviance or REML criterion there.
    gradient_norm : float
        Norm of the projected gradient, standardised coordinates; nan when only the criterion was evaluated.
    decrement : float
        Decrease of the criterion that the quadratic model predicts from here; nan when there is no model.
    step : str
        What was tried: ``"start"``, a ``"newton"`` or ``"damped"`` step, a ``"boundary"`` (fewer random effects), the
        ``"last"`` step, or a ``"release"`` from the boundary, or ``"probes"``: more of them, at the same theta.
    accepted : bool
    seconds : float
        Since the fit began.
    cg_steps : int
        Conjugate gradient steps it took; 0 for the direct engine.
    """

    theta: FloatArray
    criterion: float
    gradient_norm: float
    decrement: float
    step: str
    accepted: bool
    seconds: float
    cg_steps: int


@dataclass(frozen=True)
class Sampling:
    """Errors of a fit whose traces were estimated with random probes.

    Attributes
    ----------
    n_probes : int
    ratio : float
        Largest Monte Carlo error of a theta over its standard error.
    fixed_ratio : float
        Largest Monte Carlo error of a combination of fixed effects, by way of theta, over its standard error.
    asked : float
        What `ratio` was to be.
    criterion_error : float
        Monte Carlo standard error of the criterion.
    monte_carlo : Spread
        Of theta and sigma, by the sampling of the probes.
    statistical : Spread
        Of theta and sigma, by the sampling of the data.
    """

    n_probes: int
    ratio: float
    fixed_ratio: float
    asked: float
    criterion_error: float
    monte_carlo: Spread
    statistical: Spread


@dataclass(frozen=True)
class Fit:
    """Estimates of one model by one method.

    Attributes
    ----------
    layout : Layout
    plan : Plan
        Engine used and why.
    reml : bool
    n : int
        Rows used.
    theta : ndarray, shape (m,)
        Relative covariance parameters, lme4's order and units.
    criterion : float
        REML criterion, or deviance -2 log L under ML.
    sigma : float
        Residual standard deviation (of an observation with weight 1).
    beta : ndarray, shape (p,)
        Fixed effects.
    beta_cov : ndarray, shape (p, p)
        ``sigma**2 (X' V^-1 X)^-1``, V the covariance over sigma**2.
    modes : tuple of ndarray, each (L, k)
        Conditional modes b of the random effects, one array per factor.
    iterations : tuple of Iteration
    converged : bool
    message : str
        Why the optimiser stopped.
    boundary : tuple of str
        Names of the diagonal theta elements that are exactly 0.
    singular : bool
        Whether a random-effect covariance has (numerically) less than full rank.
    unit : float
        ``1 / sqrt(mean prior weight)``: theta at which a random effect varies as much as an average row's residual.
    seconds : float
        Time of the optimisation.
    sampling : Sampling or None
        None where nothing was sampled.
    """

    layout: Layout
    plan: Plan
    reml: bool
    n: int
    theta: FloatArray
    criterion: float
    sigma: float
    beta: FloatArray
    beta_cov: FloatArray
    modes: tuple[FloatArray, ...]
    iterations: tuple[Iteration, ...]
    converged: bool
    message: str
    boundary: tuple[str, ...]
    singular: bool
    unit: float
    seconds: float
    sampling: Sampling | None

    @property
    def n_parameters(self) -> int:
        """p + m + 1: fixed effects, covariance parameters, sigma (lme4's ``df`` of logLik)."""
        return self.beta.size + self.theta.size + 1

    @property
    def log_likelihood(self) -> float:
        """-criterion / 2 (restricted under REML)."""
        return -0.5 * self.criterion

    @cached_property
    def templates(self) -> tuple[FloatArray, ...]:
        """Lower triangular template of every factor, units of the data; arrays (k, k)."""
        return self.layout.templates(self.theta)

    @cached_property
    def covariances(self) -> tuple[FloatArray, ...]:
        """``sigma**2 T T'``: covariance of the random effects of one level, per factor; arrays (k, k)."""
        return tuple(self.sigma**2 * (T @ T.T) for T in self.templates)

    @cached_property
    def beta_se(self) -> FloatArray:
        """Standard errors of the fixed effects; shape (p,)."""
        return np.sqrt(np.diag(self.beta_cov))
