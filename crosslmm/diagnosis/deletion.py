"""A fit without the rows of one group, from the cross-products of the others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosslmm.crossproducts import CrossProducts
from crosslmm.design.accumulate import row_products
from crosslmm.engine.choose import choose
from crosslmm.errors import DataError, ModelError, NumericalError
from crosslmm.estimate import estimate
from crosslmm.fit import Fit

if TYPE_CHECKING:
    from crosslmm.results import MixedLMResults

LOST = 1e-10
"""Smallest eigenvalue of X'WX over the largest, in coordinates where it is the identity for all rows, that counts."""

ONE_NEWTON_STEP = 2
"""Evaluations: the start, and where the step leads."""

MOST_EVALUATIONS = 500

TOLERANCE = 1e-9
"""As for a fit."""


@dataclass(frozen=True)
class Deletion:
    """What comes of leaving out a group.

    Attributes
    ----------
    fit : Fit or None
        None where the model cannot be estimated without it.
    refused : str
        Why; ``""`` where there is a fit.
    """

    fit: Fit | None
    refused: str


def group_labels(fit: MixedLMResults, groups: Any) -> tuple[str, NDArray, pd.Index]:
    """Name, code of every row used (-1 for none), and labels of the groups.

    Raises
    ------
    ModelError
        No factor of this name.
    DataError
        Labels that do not fit the rows.
    """
    factors = fit.estimates.layout.factors
    if isinstance(groups, str):
        for f, factor in enumerate(factors):
            if factor.name == groups:
                codes = np.concatenate([rows.codes[f] for _, rows in fit.model.design.batches()])
                return groups, codes, pd.Index(factor.levels)
        names = ", ".join(repr(factor.name) for factor in factors)
        raise ModelError(
            f"groups={groups!r} is no grouping factor of this model (it has {names}); for other groups give one label "
            "per row, groups=data[...]"
        )
    name, values = _row_labels(fit, groups)
    codes, labels = pd.factorize(values)
    return name, codes, pd.Index(labels)


def _row_labels(fit: MixedLMResults, groups: Any) -> tuple[str, Any]:
    n = fit.nobs
    if isinstance(groups, pd.Series):
        index = fit.resid.index
        if groups.index.equals(index):
            return str(groups.name or "groups"), groups.array
        if not groups.index.is_unique or not index.isin(groups.index).all():
            raise DataError(
                f"groups is a Series whose index does not give one label for each of the {n} rows used; take it from "
                "the data of the fit, or give an array with one label per row used"
            )
        return str(groups.name or "groups"), groups.reindex(index).array
    values = np.asarray(groups)
    if values.shape != (n,):
        raise DataError(f"groups has shape {values.shape}, expected one label for each of the {n} rows used")
    return "groups", values


def without_group(fit: MixedLMResults, codes: NDArray, code: int, *, one_step: bool) -> Deletion:
    """Fit without the rows of one group, from the theta of the whole."""
    xp = _others(fit, codes != code)
    reason = _refusal(xp) if xp is not None else "it holds all rows"
    if xp is None or reason:
        return Deletion(None, reason)
    try:
        found = estimate(
            xp,
            choose(xp, fit.estimates.plan.options),
            reml=fit.estimates.reml,
            start=fit.estimates.theta,
            tolerance=TOLERANCE,
            max_evaluations=ONE_NEWTON_STEP if one_step else MOST_EVALUATIONS,
        )
    except (ModelError, NumericalError) as error:
        return Deletion(None, str(error))
    if not one_step and not found.converged:
        return Deletion(None, f"the fit did not converge: {found.message}")
    return Deletion(found, "")


def _others(fit: MixedLMResults, keep: NDArray[np.bool_]) -> CrossProducts | None:
    """Cross-products of the rows that are kept; None where there are none."""
    layout, start, parts = fit.estimates.layout, 0, []
    for _, rows in fit.model.design.batches():
        some = keep[start : start + rows.y.size]
        start += rows.y.size
        if some.any():
            parts.append(row_products(layout, rows.take(some)))
    return reduce(add, parts) if parts else None


def _refusal(xp: CrossProducts) -> str:
    """Why the model cannot be estimated from what is left; ``""`` where it can."""
    p = xp.layout.n_fixed
    if xp.n <= p:
        return f"{xp.n} rows are left for {p} fixed effects"
    values = np.linalg.eigvalsh(xp.fixed[:p, :p])
    if values[0] <= LOST * values[-1]:
        return "the fixed effects cannot be told apart in the other rows"
    for factor, D in zip(xp.layout.factors, xp.diagonal, strict=True):
        if np.count_nonzero(np.einsum("kkl->l", D)) < 2:
            return f"one level of {factor.name} is left"
    return ""
