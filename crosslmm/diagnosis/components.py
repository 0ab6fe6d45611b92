"""Shares of the variance: R2 by Nakagawa and Schielzeth, intraclass correlations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import special

from crosslmm.blas import times
from crosslmm.covariance import FloatArray
from crosslmm.errors import ModelError
from crosslmm.layout import Layout

if TYPE_CHECKING:
    from crosslmm.results import MixedLMResults

INTERCEPT = "Intercept"


@dataclass(frozen=True, repr=False)
class R2:
    """Shares of the variance of the response, with the variances they come from.

    Attributes
    ----------
    marginal, conditional : float
        By the fixed effects; by fixed and random effects.
    fixed, residual : float
        Variance of ``X beta`` over the rows; residual variance of an average row.
    random : Series
        Mean variance of the random effects of a row, per term of the formula.
    """

    marginal: float
    conditional: float
    fixed: float
    random: pd.Series
    residual: float

    def __repr__(self) -> str:
        variances = pd.concat([pd.Series({"fixed effects": self.fixed}), self.random])
        variances["residual"] = self.residual
        head = f"R2: marginal {self.marginal:.4f}, conditional {self.conditional:.4f}; from the variances"
        return f"{head}\n{variances.to_string(float_format=lambda value: f'{value:.5g}')}"


@dataclass(frozen=True)
class Means:
    """Means over the rows used.

    Attributes
    ----------
    fixed : float
        Variance of ``X beta`` (n - 1 in the denominator).
    squares : tuple of ndarray, each (k, k)
        Mean of ``z z'`` of every factor, units of the data.
    variance : float
        Mean of one over the prior weight.
    """

    fixed: float
    squares: tuple[FloatArray, ...]
    variance: float


def row_means(fit: MixedLMResults) -> Means:
    """From the cross-products where they say it: rows without weights, an intercept; else by a pass over the rows.

    Raises
    ------
    ModelError
        The model has no rows, and they are needed.
    """
    layout = fit.estimates.layout
    if layout.weighted or INTERCEPT not in layout.fixed:
        return _by_rows(fit)
    return _by_products(fit)


def _by_products(fit: MixedLMResults) -> Means:
    """`row_means` from sums of the products of standardised columns."""
    xp, n = fit.model.crossproducts, fit.nobs
    layout, standard = xp.layout, xp.layout.standardization
    p = layout.n_fixed
    ones, line = np.linalg.solve(
        standard.x_basis, np.column_stack([np.eye(p)[layout.fixed.index(INTERCEPT)], fit.estimates.beta])
    ).T
    F = xp.fixed[:p, :p]
    line = line - (ones @ F @ line / n) * ones
    squares = []
    for D, U in zip(xp.diagonal, standard.z_bases, strict=True):
        to_raw = np.linalg.inv(U)
        squares.append(to_raw.T @ D.sum(axis=2) @ to_raw / n)
    return Means(float(line @ F @ line / (n - 1)), tuple(squares), 1.0)


def _by_rows(fit: MixedLMResults) -> Means:
    """`row_means` by one pass over the rows."""
    layout, n = fit.estimates.layout, fit.nobs
    squares = [np.zeros((factor.size, factor.size)) for factor in layout.factors]
    moments: list[tuple[int, float, float]] = []
    variance = 0.0
    for _, rows in fit.model.design.batches():
        line = times(rows.X, fit.estimates.beta[:, None])[:, 0]
        moments.append((line.size, float(line.mean()), float(np.square(line - line.mean()).sum())))
        for total, Z in zip(squares, rows.Z, strict=True):
            total += np.einsum("ni,nj->ij", Z, Z)
        variance += float(rows.y.size if rows.weights is None else np.sum(1.0 / rows.weights))
    sizes, centres, within = (np.array(column) for column in zip(*moments, strict=True))
    mean = sizes @ centres / n
    spread = within.sum() + sizes @ np.square(centres - mean)
    return Means(float(spread / (n - 1)), tuple(total / n for total in squares), variance / n)


def random_variances(layout: Layout, theta: FloatArray, sigma: float, squares: tuple[FloatArray, ...]) -> FloatArray:
    """Mean over rows of ``z' cov(b) z`` of every term (Johnson 2014); shape (terms,)."""
    values = []
    for term in layout.terms:
        T = term.covariance.template(theta[term.theta_slice])
        index = np.ix_(term.columns, term.columns)
        values.append(sigma**2 * float(np.vdot(T @ T.T, squares[term.factor][index])))
    return np.array(values)


def r2(fit: MixedLMResults) -> R2:
    """Marginal and conditional R2.

    Nakagawa and Schielzeth (2013), with random slopes as Johnson (2014): the variance of a term is the mean over rows
    of ``z' cov(b) z``. With prior weights the residual variance is that of an average row, ``sigma^2 mean(1 / w)``. An
    offset is left out.

    Raises
    ------
    ModelError
        The model has no rows, and prior weights or no intercept.
    """
    estimates, means = fit.estimates, row_means(fit)
    random = random_variances(estimates.layout, estimates.theta, estimates.sigma, means.squares)
    residual = estimates.sigma**2 * means.variance
    total = means.fixed + random.sum() + residual
    return R2(
        marginal=float(means.fixed / total),
        conditional=float((means.fixed + random.sum()) / total),
        fixed=means.fixed,
        random=pd.Series(random, index=_labels(estimates.layout), name="variance"),
        residual=float(residual),
    )


def _labels(layout: Layout) -> pd.Index:
    return pd.Index([term.group for term in layout.terms], name="group")


def icc(fit: MixedLMResults, level: float = 0.95) -> pd.DataFrame:
    """Intraclass correlations: the share of each term in the variance around the fixed effects.

    The variance of a term with slopes is the mean over rows of ``z' cov(b) z``. Intervals are by the delta method on
    the logit scale; a share of 0 has none.

    Parameters
    ----------
    fit : MixedLMResults
    level : float
        Of the intervals.

    Returns
    -------
    DataFrame
        One row per term, and ``"all"`` for their sum; columns icc, std_error, lower, upper.

    Raises
    ------
    ModelError
        The level is none; or the model has no rows, and prior weights or no intercept.
    """
    if not 0.0 < level < 1.0:
        raise ModelError(f"level={level!r}: expected a number between 0 and 1, such as 0.95")
    layout, means = fit.estimates.layout, row_means(fit)

    def shares(theta: FloatArray, sigma: float) -> FloatArray:
        random = random_variances(layout, theta, sigma, means.squares)
        random = np.append(random, random.sum())
        return random / (random[-1] + sigma**2 * means.variance)

    value = shares(fit.estimates.theta, fit.estimates.sigma)
    error = fit._statistical.error(shares)
    known = (value > 0.0) & (value < 1.0)
    error = np.where(known, error, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        half = float(special.ndtri(0.5 + 0.5 * level)) * error / (value * (1.0 - value))
        logit = special.logit(value)
    frame = {
        "icc": value,
        "std_error": error,
        "lower": np.where(known, special.expit(logit - half), np.nan),
        "upper": np.where(known, special.expit(logit + half), np.nan),
    }
    return pd.DataFrame(frame, index=pd.Index([*_labels(layout), "all"], name="group"))
