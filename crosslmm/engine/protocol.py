"""The seam between the objective and the engines: the mixed-model equations at one theta.

All quantities are in standardised coordinates. With ``V = Z Lambda Lambda' Z' + W^-1`` (over sigma**2):
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

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


class System(Protocol):
    """The mixed-model equations at one theta."""

    @property
    def log_det(self) -> float:
        """``log |L'AL + I| = log |V| + sum log w``."""

    @property
    def fixed(self) -> FloatArray:
        """``[X, y]' V^-1 [X, y]``; shape (p + 1, p + 1)."""

    def effects(self, beta: FloatArray) -> Effects:
        """Conditional modes and scores for fixed effects `beta` (p,)."""

    def inner(self, z: tuple[FloatArray, ...]) -> tuple[FloatArray, FloatArray]:
        """``(Zz)' V^-1 (Zz)`` (m, m) and ``(Zz)' V^-1 X`` (m, p) for z given per factor as (k, L, m)."""

    def marginal(self, *, reml: bool) -> Templates:
        """Per factor ``B = sum_l (Z' P Z)_ll`` (k, k): the derivative of the log-determinant by ``T T'``.

        P is ``V^-1`` under ML and ``V^-1 - V^-1 X (X' V^-1 X)^-1 X' V^-1`` under REML.
        """


class Equations(Protocol):
    """The mixed-model equations at any theta."""

    @property
    def plan(self) -> Plan:
        """How the equations are stored and solved."""

    def at(self, templates: Templates) -> System:
        """The system at one template per factor of the layout (k, k)."""
