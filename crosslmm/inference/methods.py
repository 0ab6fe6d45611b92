"""Reference distributions for tests of fixed effects: normal, residual, Satterthwaite, Kenward-Roger.

A method says which covariance a test uses, the denominator degrees of freedom of one contrast, and F of several.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.errors import ModelError, NumericalError
from crosslmm.inference.drift import Drift
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
    f_mc_error, den_df_mc_error : float
        Monte Carlo standard errors of f_value and den_df; 0 where nothing is sampled.
    """

    f_value: float
    num_df: float
    den_df: float
    f_mc_error: float
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

    def std_error_error(self, L: FloatArray) -> FloatArray:
        """Monte Carlo standard errors of the standard error of each row of L (q, p); shape (q,)."""

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

    def std_error_error(self, L: FloatArray) -> FloatArray:
        """See `Method.std_error_error`."""
        return np.zeros(L.shape[0])

    def joint(self, L: FloatArray, difference: FloatArray) -> JointF:
        """See `Method.joint`."""
        _, t = independent_parts(L, difference, self.covariance)
        return JointF(float(np.square(t).mean()), t.size, self.df, 0.0, 0.0)


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

    def std_error_error(self, L: FloatArray) -> FloatArray:
        """See `Method.std_error_error`."""
        return _by_theta(self.of.drift, L, self.covariance)

    def joint(self, L: FloatArray, difference: FloatArray) -> JointF:
        """See `Method.joint`."""
        parts, t = independent_parts(L, difference, self.covariance)
        degrees = [pooled_degrees(df) for df in self.of.degrees_replicates(parts)]
        f_error = jackknife(_moved_f(self.of.drift, parts, t))
        den_df = pooled_degrees(self.of.degrees(parts))
        return JointF(_mean_square(t), t.size, den_df, float(f_error), float(jackknife(np.array(degrees))))


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

    def std_error_error(self, L: FloatArray) -> FloatArray:
        """See `Method.std_error_error`."""
        variances = np.einsum("nqq->nq", self.of.covariance_replicates(L))
        return np.hypot(_by_theta(self.of.drift, L, self.covariance), jackknife(np.sqrt(variances)))

    def joint(self, L: FloatArray, difference: FloatArray) -> JointF:
        """See `Method.joint`."""
        parts, t = independent_parts(L, difference, self.covariance)
        scale, den_df = self.of.joint(parts)
        _checked(np.array([den_df]))
        replicates = np.array(self.of.joint_replicates(parts)).reshape(-1, 2)
        by_traces = replicates[:, 0] * _whitened_squares(
            np.broadcast_to(t, (len(replicates), t.size)), self.of.covariance_replicates(parts)
        )
        f_error = np.hypot(jackknife(by_traces), scale * jackknife(_moved_f(self.of.drift, parts, t)))
        return JointF(scale * _mean_square(t), t.size, den_df, float(f_error), float(jackknife(replicates[:, 1])))


def _checked(degrees: FloatArray) -> FloatArray:
    if not (degrees > 0.0).all():
        raise NumericalError(
            "no F distribution has the moments of this test by Kenward and Roger's method: too few levels for its "
            "variances; use ddf='satterthwaite'"
        )
    return degrees


def independent_parts(L: FloatArray, difference: FloatArray, covariance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Uncorrelated combinations of the rows of a contrast, of variance 1 (q', p), and their t statistics (q',)."""
    values, vectors = np.linalg.eigh(L @ covariance @ L.T)
    positive = values > POSITIVE * values[-1]
    P = vectors[:, positive].T / np.sqrt(values[positive])[:, None]
    return P @ L, P @ difference


def _mean_square(t: FloatArray) -> float:
    return float(np.square(t).mean())


def _whitened_squares(t: FloatArray, covariances: FloatArray) -> FloatArray:
    """``t' S^-1 t / q`` for t (n, q) and S (n, q, q); shape (n,)."""
    return np.asarray(np.einsum("nq,nq->n", t, np.linalg.solve(covariances, t[:, :, None])[:, :, 0]) / t.shape[1])


def _moved_f(drift: Drift, parts: FloatArray, t: FloatArray) -> FloatArray:
    """F of uncorrelated parts of variance 1 as theta moves with the probes; shape (n,)."""
    return _whitened_squares(t + drift.estimates(parts), np.eye(t.size) + drift.covariances(parts))


def _by_theta(drift: Drift, L: FloatArray, covariance: FloatArray) -> FloatArray:
    """Monte Carlo errors of the standard errors of the rows of L (q, p) that come from that of theta; shape (q,)."""
    errors = np.sqrt(np.einsum("qp,po,qo->q", L, covariance, L, optimize=True))
    return jackknife(drift.variances(L)) / (2.0 * errors)


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
