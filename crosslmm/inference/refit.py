"""Refits of one design to many responses: in sets where the design is small, one after the other where it is not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.engine.protocol import Equations
from crosslmm.errors import CrosslmmError
from crosslmm.inference.batch import BatchDesign, batch_design, fit_batch
from crosslmm.inference.shared import SharedStart, shared_start
from crosslmm.inference.simulate import Responses
from crosslmm.layout import Layout
from crosslmm.objective import criterion_problem
from crosslmm.optimize import minimize
from crosslmm.start import natural_scale, row_scale

TOLERANCE = 1e-7
"""Decrease of the criterion still to come at which a refit stops: 5e-4 standard errors of a parameter."""

MOST_EVALUATIONS = 200

SINGULAR = 1e-4
"""As `crosslmm.estimate.SINGULAR`."""

SET_ENTRIES = 2_000_000
"""Numbers of all responses of one set, at most."""

MOST_PER_SET = 256
LARGE_SET = 16
"""Replicates of a set, at most: in all, and where each refit takes long."""


@dataclass(frozen=True)
class Refits:
    """Refits of r responses, in the units of the data; nan where one failed.

    Attributes
    ----------
    theta : ndarray, shape (r, m)
    beta : ndarray, shape (r, p)
    sigma, criterion : ndarray, shape (r,)
    converged, singular : ndarray of bool, shape (r,)
    failure : tuple of str
        Why a refit failed; empty where it did not.
    """

    theta: FloatArray
    beta: FloatArray
    sigma: FloatArray
    criterion: FloatArray
    converged: NDArray[np.bool_]
    singular: NDArray[np.bool_]
    failure: tuple[str, ...]

    @staticmethod
    def joined(parts: list[Refits]) -> Refits:
        """Refits of several sets, one after the other."""
        return Refits(
            theta=np.concatenate([p.theta for p in parts]),
            beta=np.concatenate([p.beta for p in parts]),
            sigma=np.concatenate([p.sigma for p in parts]),
            criterion=np.concatenate([p.criterion for p in parts]),
            converged=np.concatenate([p.converged for p in parts]),
            singular=np.concatenate([p.singular for p in parts]),
            failure=tuple(text for p in parts for text in p.failure),
        )


@dataclass(frozen=True)
class Refitter:
    """A design ready to be fitted to responses.

    Attributes
    ----------
    xp : CrossProducts
    equations : Equations
    start : ndarray, shape (m,)
        Standardised coordinates.
    reml : bool
    scale : ndarray, shape (m,)
        Natural scale of theta.
    batch : BatchDesign or None
    shared : SharedStart
    """

    xp: CrossProducts
    equations: Equations
    start: FloatArray
    reml: bool
    scale: FloatArray
    batch: BatchDesign | None
    shared: SharedStart

    @property
    def per_set(self) -> int:
        """Replicates of one set; the same whatever works on them, so that results are."""
        numbers = self.xp.layout.n_random + self.xp.layout.n_fixed + 1
        if self.batch is None:
            return int(np.clip(SET_ENTRIES // numbers, 1, LARGE_SET))
        return int(np.clip(min(SET_ENTRIES // numbers, self.batch.per_set), 1, MOST_PER_SET))


def refitter(xp: CrossProducts, equations: Equations, start: FloatArray, *, reml: bool) -> Refitter:
    """Prepare refits that start from theta `start` (units of the data)."""
    scale = natural_scale(xp)
    theta = xp.layout.to_standard(start)
    shared = shared_start(equations, xp.layout.templates(theta), reml=reml)
    return Refitter(xp, equations, theta, reml, scale, batch_design(xp, scale, reml=reml), shared)


def refit(of: Refitter, y: Responses) -> Refits:
    """Fit to every response."""
    layout = of.xp.layout
    theta, sigma2 = np.full((y.size, layout.n_theta), np.nan), np.full(y.size, np.nan)
    beta, criterion = np.full((y.size, layout.n_fixed), np.nan), np.full(y.size, np.nan)
    converged, failure = np.zeros(y.size, dtype=bool), [""] * y.size
    if of.batch is not None and (of.start[layout.on_diagonal] > 0.0).all():
        fits = fit_batch(of.batch, y, of.start, TOLERANCE)
        converged = fits.converged.copy()
        theta[converged], beta[converged] = fits.theta[converged], fits.beta[converged]
        sigma2[converged], criterion[converged] = fits.sigma2[converged], fits.criterion[converged]
    for r in np.flatnonzero(~converged):
        xp = y.one(of.xp, int(r))
        equations = of.shared.equations(of.equations.with_columns(xp.border, xp.fixed))
        problem = criterion_problem(equations, xp, of.scale, reml=of.reml)
        try:
            optimum = minimize(problem, of.start, tolerance=TOLERANCE, max_evaluations=MOST_EVALUATIONS)
        except CrosslmmError as error:
            failure[r] = str(error)
            continue
        theta[r], beta[r] = optimum.theta, optimum.value.beta
        sigma2[r], criterion[r] = optimum.value.sigma2, optimum.value.criterion
        converged[r] = optimum.converged
        failure[r] = "" if optimum.converged else optimum.message
    return in_data_units(of.xp, theta, beta, sigma2, criterion, converged, tuple(failure))


def in_data_units(
    xp: CrossProducts,
    theta: FloatArray,
    beta: FloatArray,
    sigma2: FloatArray,
    criterion: FloatArray,
    converged: NDArray[np.bool_],
    failure: tuple[str, ...],
) -> Refits:
    """Refits from estimates in standardised coordinates (theory eq. (10)-(11))."""
    standard = xp.layout.standardization
    with np.errstate(invalid="ignore"):
        small = (theta < SINGULAR * row_scale(xp)) & xp.layout.on_diagonal
    return Refits(
        theta=raw_theta(xp.layout, theta),
        beta=standard.origin + standard.scale * beta @ standard.x_basis.T,
        sigma=standard.scale * np.sqrt(sigma2),
        criterion=criterion,
        converged=converged,
        singular=np.asarray(small.any(axis=1)),
        failure=failure,
    )


def raw_theta(layout: Layout, theta: FloatArray) -> FloatArray:
    """Theta (r, m) in the units of the data; many at once where no template lacks a rank."""
    result = np.full(theta.shape, np.nan)
    known = np.isfinite(theta).all(axis=1)
    full = known & (theta[:, layout.on_diagonal] > 0.0).all(axis=1)
    for r in np.flatnonzero(known & ~full):
        result[r] = layout.to_raw(theta[r])
    rows = np.flatnonzero(full)
    for term in layout.terms:
        cov = term.covariance
        U = layout.standardization.z_bases[term.factor][np.ix_(term.columns, term.columns)]
        T = np.zeros((rows.size, cov.size, cov.size))
        T[:, cov.rows, cov.cols] = theta[rows][:, term.theta_slice][:, cov.params]
        R = np.linalg.qr((U @ T).transpose(0, 2, 1), mode="r") if rows.size else T
        sign = np.where(np.einsum("rii->ri", R) < 0.0, -1.0, 1.0)
        lower = (sign[:, :, None] * R).transpose(0, 2, 1)
        part = np.zeros((rows.size, cov.n_theta))
        part[:, cov.params] = lower[:, cov.rows, cov.cols]
        result[rows, term.theta_slice] = part
    return result
