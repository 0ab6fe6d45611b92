"""What can be estimated from given cross-products, and what cannot; refused by name."""

from __future__ import annotations

import numpy as np

from crosslmm.crossproducts import CrossProducts
from crosslmm.errors import ModelError

ABSORBED = 1e-10
"""Part of a random effect's sum of squares that must be outside the fixed effects."""

LEAST_RESIDUAL_SHARE = 2e-9
"""Residual variance, as a part of that around the fixed effects, below which rounding in the cross-products (1e-16 of
the whole) disturbs the search: fits at 3e-9 are exact to five decimals of the criterion, some at 9e-10 are wrong."""


def check_degrees(xp: CrossProducts) -> None:
    """Refuse REML where one residual degree of freedom is left: its criterion is constant then.

    Raises
    ------
    ModelError
    """
    p = xp.layout.n_fixed
    if xp.n - p < 2:
        raise ModelError(
            f"{xp.n} rows and {p} fixed effects leave one residual degree of freedom: the REML criterion does not "
            "depend on the variances then; fit with reml=False or fewer fixed effects"
        )


def check_information(xp: CrossProducts) -> None:
    """Refuse random effects that the fixed effects absorb: the REML criterion does not depend on their variance.

    Raises
    ------
    ModelError
        When a random-effects column of every level is a combination of columns of X.
    """
    p = xp.layout.n_fixed
    if p == 0:
        return
    root = np.linalg.cholesky(xp.fixed[:p, :p])
    for factor, D, border in zip(xp.layout.factors, xp.diagonal, xp.border, strict=True):
        for j, name in enumerate(factor.columns):
            total = float(D[j, j].sum())
            absorbed = float(np.sum(np.linalg.solve(root, border[j, :, :p].T) ** 2)) if factor.n_levels <= p else 0.0
            if absorbed >= (1.0 - ABSORBED) * total:
                raise ModelError(
                    f"the fixed effects hold every level of {factor.name!r} for the random effect {name!r}, so REML "
                    "cannot estimate its variance: take the factor out of the fixed or out of the random part"
                )


def check_residual(xp: CrossProducts, share: float) -> None:
    """Refuse a residual variance that is too small a `share` of that around the fixed effects.

    Raises
    ------
    ModelError
    """
    if share < LEAST_RESIDUAL_SHARE:
        raise ModelError(
            f"the random effects reproduce {xp.layout.response!r} all but exactly: the residual variance is "
            f"{share:.0e} of the variance around the fixed effects, too small a part to be told from rounding"
        )
