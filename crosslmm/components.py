"""Variance components as rows of a table: variances, covariances, standard deviations, correlations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.layout import Layout

Label = tuple[str, str | None, str | None]

WHOLE = 1.0 - 1e-9
"""Size of a correlation from which it counts as one on the boundary."""


def component_labels(layout: Layout) -> list[Label]:
    """Group and names of every row: the variances of a term, then its covariances; the residual variance last."""
    labels: list[Label] = []
    for term in layout.terms:
        names = [layout.factors[term.factor].columns[j] for j in term.columns]
        labels += [(term.group, name, None) for name in names]
        if term.covariance.name == "unstructured":
            labels += [(term.group, names[j], names[i]) for j, i in zip(*np.triu_indices(len(names), 1), strict=True)]
    return [*labels, ("Residual", None, None)]


def component_values(layout: Layout, theta: FloatArray, sigma: float) -> FloatArray:
    """Variance or covariance, and standard deviation or correlation, of every row; shape (rows, 2).

    A correlation is nan where a standard deviation is 0.
    """
    rows = []
    for term in layout.terms:
        T = term.covariance.template(theta[term.theta_slice])
        cov = sigma**2 * (T @ T.T)
        sd = np.sqrt(np.diag(cov))
        rows.append(np.column_stack([np.diag(cov), sd]))
        if term.covariance.name == "unstructured":
            first, second = np.triu_indices(len(sd), 1)
            both = sd[first] * sd[second]
            values = cov[second, first]
            correlation = np.divide(values, both, out=np.full(both.size, np.nan), where=both > 0.0)
            rows.append(np.column_stack([values, correlation]))
    return np.vstack([*rows, [[sigma**2, sigma]]])


def on_boundary(layout: Layout, values: FloatArray) -> NDArray[np.bool_]:
    """Which of `component_values` (rows, 2) lie on the boundary, or are not known: they have no standard error.

    A variance of 0, and its standard deviation; a correlation of 1 or -1, its covariance not.
    """
    pairs = np.array([second is not None for _, _, second in component_labels(layout)])
    result = (values == 0.0) | np.isnan(values)
    result[:, 1] |= pairs & (np.abs(values[:, 1]) > WHOLE)
    return np.asarray(result)
