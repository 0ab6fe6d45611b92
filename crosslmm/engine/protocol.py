"""The seam between the objective and the engines: the mixed-model equations at one theta.

All quantities are in standardised coordinates, with ``V = Z Lambda Lambda' Z' + W^-1`` (over sigma**2). What an engine
estimates by sampling carries its error; what it computes exactly carries 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.engine.plan import Plan

Templates = tuple[FloatArray, ...]


@dataclass(frozen=True)
class Effects:
    """Solution of the mixed-model equations for given fixed effects.

    Attributes
    ----------
    modes : tuple of ndarray, each (k, L)
        ``b = Lambda Lambda' Z' V^-1 (y - X beta)``.
    scores : tuple of ndarray, each (k, L)
        ``Z' W (y - X beta - Z b) = Z' V^-1 (y - X beta)``.
    """

    modes: tuple[FloatArray, ...]
    scores: tuple[FloatArray, ...]


@dataclass(frozen=True)
class Products:
    """Inner products of random-effects directions in the metric of ``V^-1``.

    Attributes
    ----------
    zz : ndarray, shape (m, m)
        ``(Zz)' V^-1 (Zz)``.
    zx : ndarray, shape (m, p)
        ``(Zz)' V^-1 X``.
    steps : int
        Conjugate gradient steps they took; 0 where the equations are factorised.
    """

    zz: FloatArray
    zx: FloatArray
    steps: int


@dataclass(frozen=True)
class Scores:
    """``Z' V^-1 w`` for some columns w.

    Attributes
    ----------
    values : tuple of ndarray, each (k, L, m)
        Per factor.
    steps : int
        Conjugate gradient steps they took; 0 where the equations are factorised.
    """

    values: Templates
    steps: int


@dataclass(frozen=True)
class Marginal:
    """Derivative of the log-determinant by the covariance ``T T'`` of each factor.

    Attributes
    ----------
    blocks : tuple of ndarray, each (k, k)
        ``B = sum_l (Z' P Z)_ll``. P is ``V^-1`` under ML and ``V^-1 - V^-1 X (X' V^-1 X)^-1 X' V^-1`` under REML.
    deviations : tuple of ndarray, each (n, k, k)
        What each of n independent probes says less their mean; n = 0 where the blocks are exact.
    steps : int
        Conjugate gradient steps they took.
    """

    blocks: Templates
    deviations: Templates
    steps: int


class System(Protocol):
    """The mixed-model equations at one theta."""

    @property
    def log_det(self) -> float:
        """``log |L'AL + I| = log |V| + sum log w``."""

    @property
    def log_det_error(self) -> float:
        """Monte Carlo standard error of `log_det`; 0 where it is exact."""

    @property
    def log_det_samples(self) -> FloatArray:
        """What each probe says of `log_det`, up to what is exact; shape (n,), n = 0 where nothing is sampled.

        The same probes say it of all systems of the same equations, so differences are known far better.
        """

    @property
    def steps(self) -> int:
        """Conjugate gradient steps that setting up the system took."""

    @property
    def fixed(self) -> FloatArray:
        """``[X, y]' V^-1 [X, y]``; shape (p + 1, p + 1)."""

    def effects(self, beta: FloatArray) -> Effects:
        """Conditional modes and scores for fixed effects `beta` (p,)."""

    def inner(self, z: Templates) -> Products:
        """Inner products for z given per factor as (k, L, m)."""

    def fixed_scores(self) -> Templates:
        """``Z' V^-1 X`` per factor; each (k, L, p)."""

    def random_scores(self, z: Templates) -> Scores:
        """``Z' V^-1 (Z z)`` for z given per factor as (k, L, m)."""

    def marginal(self, *, reml: bool) -> Marginal:
        """Derivative of ``log |V|`` (ML) or ``log |V| + log |X' V^-1 X|`` (REML) by ``T T'``."""

    def with_response(self, equations: Any) -> System:
        """The system at the same theta of equations that differ in the response only."""


class Equations(Protocol):
    """The mixed-model equations at any theta."""

    @property
    def plan(self) -> Plan:
        """How the equations are stored and solved."""

    @property
    def n_probes(self) -> int:
        """Random probes that traces are estimated with; 0 where they are exact."""

    @property
    def asked_error(self) -> float:
        """What the largest Monte Carlo error of a theta over its standard error is to be."""

    @property
    def resolution(self) -> float:
        """Decrease of the criterion (deviance units) below which derivatives are not worth following."""

    def at(self, templates: Templates) -> System:
        """The system at one template per factor of the layout (k, k)."""

    def with_columns(self, border: tuple[FloatArray, ...], fixed: FloatArray) -> Equations:
        """The equations with other fixed-effects columns and another response.

        Parameters
        ----------
        border : tuple of ndarray, each (k, L, p + 1)
            ``Z' W [X, y]`` by factor of the layout.
        fixed : ndarray, shape (p + 1, p + 1)
            ``[X, y]' W [X, y]``.
        """

    def sharper(self, ratio: float) -> Equations | None:
        """The equations with more probes where the Monte Carlo error is too large, else None.

        Parameters
        ----------
        ratio : float
            Largest Monte Carlo error of a theta over its standard error.
        """


class ExactSystem:
    """What every system says of sampling where nothing is sampled."""

    @property
    def log_det_error(self) -> float:
        """See `System.log_det_error`."""
        return 0.0

    @property
    def log_det_samples(self) -> FloatArray:
        """See `System.log_det_samples`."""
        return np.zeros(0)

    @property
    def steps(self) -> int:
        """See `System.steps`."""
        return 0


class ExactEquations:
    """What all equations say of sampling where nothing is sampled."""

    @property
    def n_probes(self) -> int:
        """See `Equations.n_probes`."""
        return 0

    @property
    def asked_error(self) -> float:
        """See `Equations.asked_error`."""
        return 0.0

    @property
    def resolution(self) -> float:
        """See `Equations.resolution`."""
        return 0.0

    def sharper(self, ratio: float) -> None:
        """See `Equations.sharper`."""
