"""Covariances of less than full rank: leaving them where a variance is missing, entering them where one is negligible.

Everything is in standardised coordinates and measured in natural scales (`crosslmm.start.natural_scale`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crosslmm.covariance import Covariance, FloatArray, lower_factor
from crosslmm.layout import Layout

WORTHWHILE = 1e-9
"""Decrease of the criterion (deviance units) that a missing variance must promise to be let in."""

NEGLIGIBLE = 0.02
"""Size of a random effect, in natural scales, below which it is worth trying to do without."""

ROUNDING = 1e-12
"""Singular values below this part of the largest are zeros already."""


def _column_scale(covariance: Covariance, scale: FloatArray) -> FloatArray:
    """Natural scale of each column of a term, shape (k,), from that of its parameters."""
    diagonal = covariance.rows == covariance.cols
    unit = np.ones(covariance.size)
    unit[covariance.rows[diagonal]] = scale[covariance.params[diagonal]]
    return unit


def without_negligible(layout: Layout, theta: FloatArray, scale: FloatArray) -> FloatArray | None:
    """Theta without the random effects that are all but 0 in every term, or None where there are none.

    The random effects of an unstructured term are the left singular vectors of its template: a covariance can lack a
    rank without any column of the triangular template being small.
    """
    result = theta.copy()
    for term in layout.terms:
        part = term.theta_slice
        cov = term.covariance
        if cov.name != "unstructured":
            result[part] = np.where(theta[part] < NEGLIGIBLE * scale[part], 0.0, theta[part])
            continue
        unit = _column_scale(cov, scale[part])
        U, sizes, _ = np.linalg.svd(cov.template(theta[part]) / unit[:, None])
        small = sizes < NEGLIGIBLE
        if np.any(small & (sizes > ROUNDING * sizes[0])):
            result[part] = cov.theta(lower_factor(unit[:, None] * U * np.where(small, 0.0, sizes)))
    return None if np.array_equal(result, theta) else result


def leave_boundary(
    layout: Layout, theta: FloatArray, multipliers: tuple[FloatArray, ...], scale: FloatArray
) -> FloatArray | None:
    """A theta off the boundary in whose direction the criterion falls, or None where the boundary is right.

    The criterion has a minimum at a covariance of less than full rank only if the multipliers (its derivative by the
    covariance) are positive semi-definite there: an eigenvector of a negative one is a random effect whose variance
    is missing. In natural scales the second derivative by a variance is at most about the number of levels.
    """
    zero = layout.on_diagonal & (theta == 0.0)
    result = theta.copy()
    for term in layout.terms:
        part = term.theta_slice
        if not zero[part].any():
            continue
        cov = term.covariance
        unit = _column_scale(cov, scale[part])
        gamma = multipliers[term.factor][np.ix_(term.columns, term.columns)] * np.outer(unit, unit)
        missing = _missing_effect(gamma, cov, zero[part], layout.factors[term.factor].n_levels)
        if missing is not None:
            result[part] = cov.theta(_with_effect(cov.template(theta[part]), unit * missing, cov))
    return None if np.array_equal(result, theta) else result


def _missing_effect(
    gamma: FloatArray, covariance: Covariance, zero: NDArray[np.bool_], n_levels: int
) -> FloatArray | None:
    """Random effect (k,), in natural scales, that a covariance lacks, or None where that is not worthwhile."""
    if covariance.name == "unstructured":
        values, vectors = np.linalg.eigh(gamma)
        falling = values[0] < 0.0 and values[0] ** 2 > 2.0 * n_levels * WORTHWHILE
        return vectors[:, 0] * np.sqrt(-values[0] / n_levels) if falling else None
    slopes = np.zeros(covariance.n_theta)
    np.add.at(slopes, covariance.params, np.diag(gamma))
    falls = (slopes < 0.0) & (slopes**2 > 2.0 * n_levels * WORTHWHILE) & zero
    size = np.sqrt(np.where(falls, -slopes, 0.0) / n_levels)
    return size[covariance.params] if falls.any() else None


def _with_effect(T: FloatArray, effect: FloatArray, covariance: Covariance) -> FloatArray:
    """Template of ``T T' + effect effect'`` within the structure."""
    if covariance.name != "unstructured":
        return np.sqrt(T**2 + np.diag(effect**2))
    return lower_factor(np.column_stack([T, effect]))
