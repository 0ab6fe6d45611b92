"""A point in the space of parameters of a model written with groups, and what it is to the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from crosslmm.covariance import FloatArray, lower_factor
from crosslmm.errors import ModelError
from crosslmm.grouped.written import Written
from crosslmm.layout import Layout, Term

SYMMETRIC = 1e-8
"""Part of a covariance by which it may differ from its transpose."""

DEFINITE = 1e-10
"""Eigenvalue, as a part of the largest, below which (and above minus which) a covariance counts as singular."""


class MixedLMParams:
    """Parameters of a model that was written with groups, with the residual variance profiled out.

    Parameters
    ----------
    k_fe, k_re, k_vc : int
        Numbers of fixed effects, of random effects of a group, and of variance components.

    Attributes
    ----------
    fe_params : ndarray, shape (k_fe,)
    cov_re : ndarray, shape (k_re, k_re)
        Covariance of the random effects over the residual variance.
    vcomp : ndarray, shape (k_vc,)
        Variance components over the residual variance.
    """

    def __init__(self, k_fe: int, k_re: int, k_vc: int):
        self.k_fe = k_fe
        self.k_re = k_re
        self.k_re2 = k_re * (k_re + 1) // 2
        self.k_vc = k_vc
        self.k_tot = self.k_fe + self.k_re2 + self.k_vc
        self.fe_params: Any = np.zeros(k_fe)
        self.cov_re: Any = np.eye(k_re)
        self.vcomp: Any = np.ones(k_vc)

    @staticmethod
    def from_packed(params: Any, k_fe: int, k_re: int, use_sqrt: bool, has_fe: bool) -> MixedLMParams:
        """From one vector: fixed effects (if `has_fe`), lower triangle of `cov_re`, `vcomp`.

        Parameters
        ----------
        params : array
        k_fe, k_re : int
        use_sqrt : bool
            Whether the triangle is that of the Cholesky factor of `cov_re`, and `vcomp` are standard deviations.
        has_fe : bool
        """
        values = numbers(params)
        k_re2 = k_re * (k_re + 1) // 2
        start = k_fe if has_fe else 0
        made = MixedLMParams(k_fe, k_re, values.size - start - k_re2)
        if made.k_vc < 0:
            raise ModelError(f"the packed parameters have {values.size} elements, expected at least {start + k_re2}")
        if has_fe:
            made.fe_params = values[:k_fe]
        lower = np.zeros((k_re, k_re))
        lower[np.tril_indices(k_re)] = values[start : start + k_re2]
        made.cov_re = lower @ lower.T if use_sqrt else lower + lower.T - np.diag(np.diag(lower))
        rest = values[start + k_re2 :]
        made.vcomp = rest**2 if use_sqrt else rest
        return made

    @staticmethod
    def from_components(
        fe_params: Any = None, cov_re: Any = None, cov_re_sqrt: Any = None, vcomp: Any = None
    ) -> MixedLMParams:
        """From its parts; those that are left out are empty.

        Parameters
        ----------
        fe_params : array, shape (k_fe,)
        cov_re : array, shape (k_re, k_re)
        cov_re_sqrt : array, shape (k_re, k_re)
            Cholesky factor, in place of `cov_re`.
        vcomp : array, shape (k_vc,)
        """
        fixed = np.zeros(0) if fe_params is None else numbers(fe_params)
        variances = np.zeros(0) if vcomp is None else numbers(vcomp)
        covariance = np.zeros((0, 0)) if cov_re is None else np.array(cov_re, dtype=float)
        if cov_re_sqrt is not None:
            root = np.array(cov_re_sqrt, dtype=float)
            covariance = root @ root.T
        made = MixedLMParams(fixed.size, covariance.shape[0], variances.size)
        made.fe_params, made.cov_re, made.vcomp = fixed, covariance, variances
        return made

    def copy(self) -> MixedLMParams:
        """Another object with the same values."""
        return MixedLMParams.from_components(self.fe_params, np.array(self.cov_re), None, self.vcomp)

    def get_packed(self, use_sqrt: bool, has_fe: bool = False) -> FloatArray:
        """All parameters in one vector; see `from_packed`."""
        cov, vcomp = np.asarray(self.cov_re, dtype=float), np.asarray(self.vcomp, dtype=float)
        lower = lower_factor(root_of(cov)) if use_sqrt else cov
        triangle = lower[np.tril_indices(self.k_re)]
        rest = np.sqrt(vcomp) if use_sqrt else vcomp
        return np.concatenate([np.asarray(self.fe_params, dtype=float)] * has_fe + [triangle, rest])


def numbers(values: Any) -> FloatArray:
    """Numbers as a vector.

    Raises
    ------
    ModelError
        They are none, or not finite.
    """
    try:
        array = np.asarray(values, dtype=np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise ModelError(f"parameters must be numbers, not {values!r}") from error
    if not np.isfinite(array).all():
        raise ModelError("the parameters hold values that are not finite")
    return array.copy()


def root_of(covariance: FloatArray) -> FloatArray:
    """A square root R of a covariance, ``R R' = covariance``.

    Raises
    ------
    ModelError
        It is not symmetric, or has a negative eigenvalue.
    """
    size = float(np.abs(covariance).max(initial=0.0))
    if np.abs(covariance - covariance.T).max(initial=0.0) > SYMMETRIC * size:
        raise ModelError("cov_re is not symmetric")
    values, vectors = np.linalg.eigh(covariance) if covariance.size else (np.zeros(0), np.zeros((0, 0)))
    if values.size and values[0] < -DEFINITE * size:
        raise ModelError(f"cov_re is no covariance: its smallest eigenvalue is {values[0]:.3g}")
    if values.size and values[0] > DEFINITE * size:
        return cast(FloatArray, np.linalg.cholesky(covariance))
    return vectors * np.sqrt(np.where(values > DEFINITE * size, values, 0.0))


@dataclass(frozen=True)
class Point:
    """A `MixedLMParams` once it is known to fit a model.

    Attributes
    ----------
    fe_params : ndarray, shape (p,), or None
        None where none were given.
    cov_re : ndarray, shape (k_re, k_re)
    vcomp : ndarray, shape (k_vc,)
    """

    fe_params: FloatArray | None
    cov_re: FloatArray
    vcomp: FloatArray


@dataclass(frozen=True)
class Space:
    """Where the parameters of a model written with groups stand in its layout.

    Attributes
    ----------
    layout : Layout
    re : tuple of Term
        Of the random effects of a group; all on one factor.
    vcs : tuple of Term
    use_sqrt : bool
    """

    layout: Layout
    re: tuple[Term, ...]
    vcs: tuple[Term, ...]
    use_sqrt: bool

    @classmethod
    def of(cls, written: Written, layout: Layout) -> Space:
        """Of a model."""
        return cls(layout, written.re_terms(layout), written.vc_terms(layout), written.use_sqrt)

    @property
    def re_factor(self) -> int:
        """Factor of the random effects of a group."""
        return self.re[0].factor

    @property
    def re_columns(self) -> list[int]:
        """Their columns among those of the factor, as written."""
        return sorted(column for term in self.re for column in term.columns)

    @property
    def k_fe(self) -> int:
        """Fixed effects."""
        return self.layout.n_fixed

    @property
    def k_re(self) -> int:
        """Random effects of a group."""
        return len(self.re_columns)

    @property
    def k_re2(self) -> int:
        """Their variances and covariances."""
        return self.k_re * (self.k_re + 1) // 2

    @property
    def k_vc(self) -> int:
        """Variance components."""
        return len(self.vcs)

    def point(self, params: Any, *, has_fe: bool | None = None) -> Point:
        """Check parameters: an object with their three parts, or a packed vector.

        Parameters
        ----------
        params : MixedLMParams or array
        has_fe : bool, optional
            Whether a vector begins with the fixed effects; by its length where that is not said.

        Raises
        ------
        ModelError
            They do not fit the model.
        """
        if isinstance(params, (int, float, str)) or params is None:
            raise ModelError(f"parameters are a MixedLMParams or a vector, not {params!r}")
        if not np.ndim(params):  # an object
            return self._of_object(params)
        values = numbers(params)
        own = self.k_re2 + self.k_vc
        fixed = values.size == own + self.k_fe if has_fe is None else has_fe
        expected = own + (self.k_fe if fixed else 0)
        if values.size != expected:
            raise ModelError(
                f"the packed parameters have {values.size} elements, expected {own} covariance parameters"
                + (f" after {self.k_fe} fixed effects" if fixed or has_fe is None else "")
            )
        made = MixedLMParams.from_packed(values, self.k_fe, self.k_re, self.use_sqrt, fixed)
        return Point(made.fe_params if fixed else None, made.cov_re, made.vcomp)

    def _of_object(self, params: Any) -> Point:
        try:
            parts = params.fe_params, params.cov_re, params.vcomp
        except AttributeError as error:
            kind = type(params).__name__
            raise ModelError(f"parameters are a MixedLMParams or a vector, not {kind}") from error
        fe, cov, vcomp = numbers(parts[0]), np.atleast_2d(np.asarray(parts[1], dtype=float)), numbers(parts[2])
        cov = cov.reshape(0, 0) if cov.size == 0 else cov
        if cov.shape != (self.k_re, self.k_re) or vcomp.size != self.k_vc or fe.size not in (0, self.k_fe):
            raise ModelError(
                f"the parameters have {fe.size} fixed effects, a covariance of shape {cov.shape} and {vcomp.size} "
                f"variance components; the model has {self.k_fe}, {(self.k_re, self.k_re)} and {self.k_vc}"
            )
        return Point(fe if fe.size == self.k_fe else None, cov, vcomp)

    def roots(self, point: Point) -> tuple[FloatArray, ...]:
        """Square roots of the covariances per factor, units of the data; arrays (k, k).

        Raises
        ------
        ModelError
            A variance is negative.
        """
        if np.any(point.vcomp < 0.0):
            raise ModelError(f"variance components must not be negative, but are {point.vcomp.tolist()}")
        roots = [np.zeros((factor.size, factor.size)) for factor in self.layout.factors]
        if self.re:
            block = np.ix_(self.re_columns, self.re_columns)
            roots[self.re_factor][block] = lower_factor(root_of(point.cov_re))
        for term, variance in zip(self.vcs, point.vcomp, strict=True):
            roots[term.factor][term.columns, term.columns] = np.sqrt(variance)
        return tuple(roots)

    def theta(self, point: Point) -> FloatArray:
        """Theta, units of the data; shape (m,)."""
        return self.layout.theta(self.roots(point))

    def covariances(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """`cov_re` and `vcomp` at a theta in the units of the data."""
        templates = self.layout.templates(theta)
        cov = np.zeros((0, 0))
        if self.re:
            T = templates[self.re_factor][np.ix_(self.re_columns, self.re_columns)]
            cov = T @ T.T
        return cov, np.array([templates[term.factor][term.columns[0], term.columns[0]] ** 2 for term in self.vcs])
