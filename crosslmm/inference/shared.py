"""Equations of one design for many responses: what does not depend on the response is computed once at their start."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.engine.plan import Plan
from crosslmm.engine.protocol import Effects, Equations, Marginal, Products, Scores, System, Templates


@dataclass(frozen=True)
class SharedStart:
    """The start of all searches.

    Attributes
    ----------
    templates : tuple of ndarray, each (k, k)
        Where; factors in the order of the layout, standardised coordinates.
    system : System
        The equations there, of any response.
    marginal : Marginal
        Derivative of their log-determinant; it has no response in it.
    """

    templates: Templates
    system: System
    marginal: Marginal

    def equations(self, own: Equations) -> SharedEquations:
        """Equations of one response."""
        return SharedEquations(own, self)


def shared_start(equations: Equations, templates: Templates, *, reml: bool) -> SharedStart:
    """Set up the equations at one template per factor (standardised coordinates)."""
    system = equations.at(templates)
    return SharedStart(templates, system, system.marginal(reml=reml))


@dataclass(frozen=True)
class SharedEquations:
    """`crosslmm.engine.protocol.Equations` of one response."""

    own: Equations
    start: SharedStart

    @property
    def plan(self) -> Plan:
        """See `Equations.plan`."""
        return self.own.plan

    @property
    def n_probes(self) -> int:
        """See `Equations.n_probes`."""
        return self.own.n_probes

    @property
    def asked_error(self) -> float:
        """See `Equations.asked_error`."""
        return self.own.asked_error

    @property
    def resolution(self) -> float:
        """See `Equations.resolution`."""
        return self.own.resolution

    def sharper(self, ratio: float) -> Equations | None:
        """See `Equations.sharper`."""
        return self.own.sharper(ratio)

    def with_columns(self, border: tuple[FloatArray, ...], fixed: FloatArray) -> Equations:
        """See `Equations.with_columns`."""
        return self.own.with_columns(border, fixed)

    def at(self, templates: Templates) -> System:
        """See `Equations.at`."""
        if all(np.array_equal(T, known) for T, known in zip(templates, self.start.templates, strict=True)):
            return StartSystem(self.start.system.with_response(self.own), self.start.marginal)
        return self.own.at(templates)


@dataclass(frozen=True)
class StartSystem:
    """`crosslmm.engine.protocol.System` at the start."""

    own: System
    known: Marginal

    @property
    def log_det(self) -> float:
        """See `System.log_det`."""
        return self.own.log_det

    @property
    def log_det_error(self) -> float:
        """See `System.log_det_error`."""
        return self.own.log_det_error

    @property
    def log_det_samples(self) -> FloatArray:
        """See `System.log_det_samples`."""
        return self.own.log_det_samples

    @property
    def steps(self) -> int:
        """See `System.steps`."""
        return self.own.steps

    @property
    def fixed(self) -> FloatArray:
        """See `System.fixed`."""
        return self.own.fixed

    def effects(self, beta: FloatArray) -> Effects:
        """See `System.effects`."""
        return self.own.effects(beta)

    def inner(self, z: Templates) -> Products:
        """See `System.inner`."""
        return self.own.inner(z)

    def fixed_scores(self) -> Templates:
        """See `System.fixed_scores`."""
        return self.own.fixed_scores()

    def random_scores(self, z: Templates) -> Scores:
        """See `System.random_scores`."""
        return self.own.random_scores(z)

    def marginal(self, *, reml: bool) -> Marginal:
        """See `System.marginal`; that of the criterion the start was made for."""
        return self.known

    def with_response(self, equations: Equations) -> System:
        """See `System.with_response`."""
        return self.own.with_response(equations)
