"""The layout: what every column, level and element of theta means.

All names and all index arithmetic of a model live here. A *term* is one ``( | )`` of the formula, a
*factor* is a grouping variable; terms that share a factor are stored together (their columns side by
side) and reported apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from crosslmm.covariance import Covariance, FloatArray, lower_factor


@dataclass(frozen=True)
class Factor:
    """A grouping factor with the columns of all its terms.

    Attributes
    ----------
    name : str
        ``"Subject"``, or ``"cask:batch"`` for an interaction.
    levels : ndarray of object, shape (L,)
        Level labels in the order of the codes.
    columns : tuple of str
        Names of the k random-effect columns, e.g. ``("Intercept", "Days")``.
    """

    name: str
    levels: NDArray[Any]
    columns: tuple[str, ...]

    @property
    def n_levels(self) -> int:
        """Number of levels L."""
        return len(self.levels)

    @property
    def size(self) -> int:
        """Number of columns k per level."""
        return len(self.columns)

    @property
    def n_effects(self) -> int:
        """Number of random effects L * k."""
        return self.n_levels * self.size


@dataclass(frozen=True)
class Term:
    """One random-effects term.

    Attributes
    ----------
    label : str
        The term as text, ``"(1 + Days | Subject)"``.
    group : str
        Label of its rows in the variance table: the factor's name, with ``.1``, ``.2`` for further terms on it (lme4).
    factor : int
        Position of its factor in ``Layout.factors``.
    columns : tuple of int
        Positions of its columns among the factor's columns.
    covariance : Covariance
        How its stretch of theta becomes its template.
    theta_start : int
        Where its stretch of theta begins.
    """

    label: str
    group: str
    factor: int
    columns: tuple[int, ...]
    covariance: Covariance
    theta_start: int

    @property
    def theta_slice(self) -> slice:
        """The term's stretch of theta."""
        return slice(self.theta_start, self.theta_start + self.covariance.n_theta)


@dataclass(frozen=True)
class Standardization:
    """The coordinates the engine works in; see docs/theory.md, eq. (9)-(12).

    ``X_std = X @ x_basis``, ``Z_std = Z @ z_bases[f]`` (per level of factor f) and
    ``y_std = (y - offset - X @ origin) / scale``. The likelihood is equivariant under each of these.

    Attributes
    ----------
    x_basis : ndarray, shape (p, p)
        Upper triangular.
    z_bases : tuple of ndarray, each (k, k)
        Invertible, one per factor, block diagonal over the factor's terms.
    origin : ndarray, shape (p,)
        Coefficients (of the raw X) whose fitted values are subtracted from the response.
    scale : float
        Unit of the response, positive.
    aliases : ndarray, shape (p, d)
        Columns of the raw X that were dropped, as combinations of those that are kept: ``X_dropped = X @ aliases``.
    """

    x_basis: FloatArray
    z_bases: tuple[FloatArray, ...]
    origin: FloatArray
    scale: float
    aliases: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))

    @cached_property
    def log_det_x_basis(self) -> float:
        """log |det x_basis|."""
        return float(np.sum(np.log(np.abs(np.diag(self.x_basis)))))


@dataclass(frozen=True)
class Layout:
    """Meaning of every column, level and parameter of a model.

    Attributes
    ----------
    response : str
        Left-hand side of the formula.
    fixed : tuple of str
        Names of the p kept columns of X.
    dropped : tuple of str
        Names of the columns of X that were linear combinations of earlier ones.
    factors : tuple of Factor
    terms : tuple of Term
        In lme4's order: as written when the numbers of levels never increase, else by number of levels,
        largest first, ties reversed. Theta is the concatenation of the terms' stretches.
    standardization : Standardization
    formula : str
        The formula as written; ``""`` where none was.
    weighted, offset : bool
        Whether rows have prior weights, and whether a part of the response is known.
    """

    response: str
    fixed: tuple[str, ...]
    dropped: tuple[str, ...]
    factors: tuple[Factor, ...]
    terms: tuple[Term, ...]
    standardization: Standardization
    formula: str = ""
    weighted: bool = False
    offset: bool = False

    def same(self, other: Layout) -> bool:
        """Whether both say the same, number for number: so do a layout and its copy from another process."""
        if self is other:
            return True
        ours, theirs = self.standardization, other.standardization
        return (
            self._words() == other._words()
            and all(np.array_equal(a.levels, b.levels) for a, b in zip(self.factors, other.factors, strict=True))
            and ours.scale == theirs.scale
            and np.array_equal(ours.origin, theirs.origin)
            and np.array_equal(ours.x_basis, theirs.x_basis)
            and all(np.array_equal(a, b) for a, b in zip(ours.z_bases, theirs.z_bases, strict=True))
        )

    def _words(self) -> tuple[Any, ...]:
        """All that is no array."""
        factors = tuple((factor.name, factor.columns) for factor in self.factors)
        terms = tuple((t.label, t.group, t.factor, t.columns, t.covariance.name, t.theta_start) for t in self.terms)
        names = (self.formula, self.response, self.fixed, self.dropped)
        return (*names, self.weighted, self.offset, factors, terms)

    @property
    def n_fixed(self) -> int:
        """Number p of fixed effects."""
        return len(self.fixed)

    @property
    def n_random(self) -> int:
        """Number q of random effects."""
        return sum(factor.n_effects for factor in self.factors)

    @cached_property
    def n_theta(self) -> int:
        """Number of covariance parameters."""
        return sum(term.covariance.n_theta for term in self.terms)

    @cached_property
    def theta_names(self) -> tuple[str, ...]:
        """lme4's names: ``"Subject.Intercept"``, ``"Subject.Days.Intercept"``, ..."""
        names = []
        for term in self.terms:
            columns = [self.factors[term.factor].columns[j] for j in term.columns]
            cov = term.covariance
            for k in range(cov.n_theta):
                first = int(np.flatnonzero(cov.params == k)[0])
                row, col = columns[cov.rows[first]], columns[cov.cols[first]]
                names.append(f"{term.group}.{row}" if row == col else f"{term.group}.{row}.{col}")
        return tuple(names)

    @cached_property
    def on_diagonal(self) -> NDArray[np.bool_]:
        """Which elements of theta are bounded below by 0; shape (n_theta,)."""
        return np.concatenate([term.covariance.on_diagonal for term in self.terms])

    @cached_property
    def theta_factor(self) -> NDArray[np.intp]:
        """Factor of each element of theta; shape (n_theta,)."""
        return np.concatenate([np.full(t.covariance.n_theta, t.factor, dtype=np.intp) for t in self.terms])

    @cached_property
    def theta_basis(self) -> tuple[FloatArray, ...]:
        """Derivative of its factor's template by each element of theta; n_theta arrays (k, k)."""
        basis = []
        for term in self.terms:
            size = self.factors[term.factor].size
            for E in term.covariance.basis():
                full = np.zeros((size, size))
                full[np.ix_(term.columns, term.columns)] = E
                basis.append(full)
        return tuple(basis)

    def templates(self, theta: FloatArray) -> tuple[FloatArray, ...]:
        """Template of every factor (block diagonal over its terms) at `theta`; arrays (k, k)."""
        theta = np.asarray(theta, dtype=float)
        templates = [np.zeros((factor.size, factor.size)) for factor in self.factors]
        for term in self.terms:
            columns = np.array(term.columns)
            templates[term.factor][columns[:, None], columns] = term.covariance.template(theta[term.theta_slice])
        return tuple(templates)

    def theta(self, templates: tuple[FloatArray, ...]) -> FloatArray:
        """Theta of templates that are lower triangular within each term; shape (n_theta,)."""
        theta = np.zeros(self.n_theta)
        for term in self.terms:
            block = templates[term.factor][np.ix_(term.columns, term.columns)]
            theta[term.theta_slice] = term.covariance.theta(block)
        return theta

    def triangular(self, templates: tuple[FloatArray, ...]) -> tuple[FloatArray, ...]:
        """Templates with the same covariances, lower triangular within each term."""
        result = [np.zeros_like(T) for T in templates]
        for term in self.terms:
            block = np.ix_(term.columns, term.columns)
            result[term.factor][block] = lower_factor(templates[term.factor][block])
        return tuple(result)

    @cached_property
    def theta_column(self) -> NDArray[np.intp]:
        """Column of a template that each element of theta belongs to, numbered over the model; shape (n_theta,)."""
        columns, start = [], 0
        for term in self.terms:
            cov = term.covariance
            first = np.array([int(np.flatnonzero(cov.params == k)[0]) for k in range(cov.n_theta)], dtype=np.intp)
            columns.append(start + cov.cols[first])
            start += cov.size
        return np.concatenate(columns)

    def collapse(self, theta: FloatArray, index: int) -> FloatArray:
        """Theta without the column of the template that element `index` belongs to: the term loses one rank.

        The columns that are left are made triangular again, which puts the zero columns last.
        """
        result = np.where(self.theta_column == self.theta_column[index], 0.0, theta)
        term = next(t for t in self.terms if t.theta_slice.start <= index < t.theta_slice.stop)
        if term.covariance.name == "unstructured":
            T = lower_factor(term.covariance.template(result[term.theta_slice]))
            result[term.theta_slice] = term.covariance.theta(T)
        return result

    def restrict(self, factor: int) -> Layout:
        """Layout of the model with the terms of one factor only."""
        start, terms = 0, []
        for term in self.terms:
            if term.factor == factor:
                terms.append(replace(term, factor=0, theta_start=start))
                start += term.covariance.n_theta
        standardization = replace(self.standardization, z_bases=(self.standardization.z_bases[factor],))
        return replace(self, factors=(self.factors[factor],), terms=tuple(terms), standardization=standardization)

    def to_raw(self, theta_std: FloatArray) -> FloatArray:
        """Theta in the units of the data from theta in standardised coordinates."""
        bases = self.standardization.z_bases
        pairs = zip(bases, self.templates(theta_std), strict=True)
        return self.theta(self.triangular(tuple(U @ T for U, T in pairs)))

    def to_standard(self, theta_raw: FloatArray) -> FloatArray:
        """Theta in standardised coordinates from theta in the units of the data."""
        return self.theta(self.triangular(self.standard_templates(theta_raw)))

    def standard_templates(self, theta_raw: FloatArray) -> tuple[FloatArray, ...]:
        """Raw templates expressed in standardised coordinates (square, not triangular); linear in theta."""
        bases = self.standardization.z_bases
        pairs = zip(bases, self.templates(theta_raw), strict=True)
        return tuple(cast(FloatArray, np.linalg.solve(U, T)) for U, T in pairs)
