"""Reference distributions for tests of fixed effects: normal, residual, Satterthwaite, Kenward-Roger.

A method says which covariance a test uses, the denominator degrees of freedom of one contrast, and F of several.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.errors import ModelError, NumericalError
from crosslmm.inference.kenward_roger import KenwardRoger
from crosslmm.inference.satterthwaite import Satterthwaite, pooled_degrees
from crosslmm.inference.traces import jackknife

METHODS = ("normal", "residual", "satterthwaite", "kenward-roger")

POSITIVE = float(np.sqrt(np.finfo(np.float64).eps))
"""Eigenvalue of the covariance of a contrast, relative to the largest, that counts as positive (lmerTest)."""


@dataclass(frozen=True)
class JointF:
    """An F test.

    Attributes
    ----------
    f_value, num_df, den_df : float
        den_df is infinite for the normal distribution.
    den_df_mc_error : float
        Monte Carlo standard error of den_df; 0 where nothing is sampled.
    """

    f_value: float
    num_df: float
    den_df: float
    den_df_mc_error: float


class Method(Protocol):
    """A reference distribution."""

    @property
    def name(self) -> str:
        """As the user asks for it."""

    @property
    def covariance(self) -> FloatArray:
        """Covariance of the fixed effects that standard errors come from; shape (p, p)."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What must be said beside the numbers."""

    def degrees(self, L: FloatArray) -> FloatArray:
        """Degrees of freedom of each row of L (q, p); shape (q,)."""

    def degrees_error(self, L: FloatArray) -> FloatArray:
        """Monte Carlo standard errors of `degrees`."""

    def joint(self, L: FloatArray, difference: FloatArray) -> JointF:
        """F test of the rows of L (q, p), whose estimates are off by `difference` (q,); some may depend on others."""


@dataclass(frozen=True)
class Known:
    """One number of degrees of freedom for every contrast: infinite (normal), or rows minus fixed effects."""

    name: str
    covariance: FloatArray
    df: float

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Method.notes`."""
        return ()

    def degrees(self, L: FloatArray) -> FloatArray:
        """See `Method.degrees`."""
        return np.full(L.shape[0], self.df)

    def degrees_error(self, L: FloatArray) -> FloatArray:
        """See `Method.degrees_error`."""
        return np.zeros(L.shape[0])

    def joint(self, L: FloatArray, difference: FloatArray) -> JointF:
        """See `Method.joint`."""
        _, squares = independent_parts(L, difference, self.covariance)
        return JointF(float(squares.mean()), squares.size, self.df, 0.0)


@dataclass(frozen=True)
class BySatterthwaite:
    """Satterthwaite's degrees of freedom; joint tests by Fai and Cornelius, as lmerTest."""

    of: Satterthwaite

    @property
    def name(self) -> str:
        """See `Method.name`."""
        return "satterthwaite"

    @property
    def covariance(self) -> FloatArray:
        """See `Method.covariance`."""
        return self.of.covariance

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Method.notes`."""
        if not self.of.left_out:
            return ()
        names = ", ".join(self.of.left_out)
        return (f"Singular fit: {names} taken as known at the boundary, so degrees of freedom leave them out.",)

    def degrees(self, L: FloatArray) -> FloatArray:
        """See `Method.degrees`."""
        return self.of.degrees(L)

    def degrees_error(self, L: FloatArray) -> FloatArray:
        """See `Method.degrees_error`."""
        return jackknife(self.of.degrees_replicates(L))

    def joint(self, L: FloatArray, difference: FloatArray) -> JointF:
        """See `Method.joint`."""
        parts, squares = independent_parts(L, difference, self.covariance)
        replicates = np.array([pooled_degrees(df) for df in self.of.degrees_replicates(parts)])
        den_df = pooled_degrees(self.of.degrees(parts))
        return JointF(float(squares.mean()), squares.size, den_df, float(jackknife(replicates)))


@dataclass(frozen=True)
class ByKenwardRoger:
    """Kenward and Roger's adjusted covariance, degrees of freedom and scaled F, as pbkrtest."""

    of: KenwardRoger
    singular: tuple[str, ...]

    @property
    def name(self) -> str:
        """See `Method.name`."""
        return "kenward-roger"

    @property
    def covariance(self) -> FloatArray:
        """See `Method.covariance`."""
        return self.of.covariance

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Method.notes`."""
        if not self.singular:
            return ()
        names = ", ".join(self.singular)
        return (
            f"Singular fit: {names} 0 on the boundary. Kenward and Roger's method counts these variances like others, "
            "as pbkrtest does; its degrees of freedom are less sure here.",
        )

    def degrees(self, L: FloatArray) -> FloatArray:
        """See `Method.degrees`."""
        return _checked(self.of.degrees(L))

    def degrees_error(self, L: FloatArray) -> FloatArray:
        """See `Method.degrees_error`."""
        return jackknife(self.of.degrees_replicates(L))

    def joint(self, L: FloatArray, difference: FloatArray) -> JointF:
        """See `Method.joint`."""
        parts, squares = independent_parts(L, difference, self.covariance)
        scale, den_df = self.of.joint(parts)
        replicates = np.array([df for _, df in self.of.joint_replicates(parts)])
        _checked(np.array([den_df]))
        return JointF(scale * float(squares.mean()), squares.size, den_df, float(jackknife(replicates)))


def _checked(degrees: FloatArray) -> FloatArray:
    if not (degrees > 0.0).all():
        raise NumericalError(
            "no F distribution has the moments of this test by Kenward and Roger's method: too few levels for its "
            "variances; use ddf='satterthwaite'"
        )
    return degrees


def independent_parts(L: FloatArray, difference: FloatArray, covariance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Uncorrelated combinations of the rows of a contrast (q', p), and their squared t statistics (q',)."""
    values, vectors = np.linalg.eigh(L @ covariance @ L.T)
    positive = values > POSITIVE * values[-1]
    P = vectors[:, positive].T
    return P @ L, np.square(P @ difference) / values[positive]


def check_method(ddf: object) -> str:
    """The name of a method.

    Raises
    ------
    ModelError
        It is none.
    """
    if not isinstance(ddf, str) or ddf not in METHODS:
        raise ModelError(f"ddf={ddf!r}: expected one of {', '.join(map(repr, METHODS))}")
    return ddf
