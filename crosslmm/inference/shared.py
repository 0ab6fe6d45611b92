"""Equations of one design for many responses: what does not depend on the response is computed once at their start."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.engine.direct import DirectEquations, DirectSystem
from crosslmm.engine.plan import Plan
from crosslmm.engine.protocol import Effects, ExactEquations, ExactSystem, Marginal, Products, Scores, System, Templates


@dataclass(frozen=True)
class SharedStart:
    """The start of all searches.

    Attributes
    ----------
    system : DirectSystem
        The factorised equations there, of any response.
    marginal : Marginal
        Derivative of their log-determinant; it has no response in it.
    """

    system: DirectSystem
    marginal: Marginal

    def equations(self, own: DirectEquations) -> SharedEquations:
        """Equations of one response."""
        return SharedEquations(own, self)


def shared_start(equations: DirectEquations, templates: Templates, *, reml: bool) -> SharedStart:
    """Factorise at one template per factor (standardised coordinates)."""
    system = equations.at(templates)
    return SharedStart(system, system.marginal(reml=reml))


@dataclass(frozen=True)
class SharedEquations(ExactEquations):
    """`crosslmm.engine.protocol.Equations` of one response."""

    own: DirectEquations
    start: SharedStart

    @property
    def plan(self) -> Plan:
        """See `Equations.plan`."""
        return self.own.plan

    def at(self, templates: Templates) -> System:
        """See `Equations.at`."""
        order = self.own.symbolic.order
        known = self.start.system.templates
        if all(np.array_equal(templates[f], T) for f, T in zip(order, known, strict=True)):
            return StartSystem(replace(self.start.system, equations=self.own), self.start.marginal)
        return self.own.at(templates)


@dataclass(frozen=True)
class StartSystem(ExactSystem):
    """`crosslmm.engine.protocol.System` at the start."""

    own: DirectSystem
    known: Marginal

    @property
    def log_det(self) -> float:
        """See `System.log_det`."""
        return self.own.log_det

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
