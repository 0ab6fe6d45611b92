"""Fitted lines over one covariate: of the population, and of every level of one factor."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.errors import ModelError

if TYPE_CHECKING:
    from crosslmm.results import MixedLMResults

INTERCEPT = "Intercept"


@dataclass(frozen=True)
class Lines:
    """What a picture of fitted lines needs; all other covariates at their means, other factors at 0.

    Attributes
    ----------
    x, y : ndarray, shape (n,)
        Of the rows used.
    codes : ndarray, shape (n,)
        Their level of the factor.
    fixed : tuple of float
        Intercept and slope of the population line.
    groups : ndarray, shape (L, 2)
        Intercept and slope of the line of every level.
    """

    x: FloatArray
    y: FloatArray
    codes: NDArray[np.int32]
    fixed: tuple[float, float]
    groups: FloatArray


def fitted_lines(fit: MixedLMResults, x: str, factor: int) -> Lines:
    """Lines over column x of the fixed part.

    Raises
    ------
    ModelError
        x is no column of the fixed part, or enters the formula in another form too, so that lines would be curves.
    """
    layout = fit.estimates.layout
    if x not in layout.fixed or x == INTERCEPT:
        names = ", ".join(repr(name) for name in layout.fixed if name != INTERCEPT)
        raise ModelError(f"x={x!r} is no column of the fixed part, which has {names or 'none but the intercept'}")
    parts = list(fit.model.design.batches())
    X = np.concatenate([rows.X for _, rows in parts])
    Z = np.concatenate([rows.Z[factor] for _, rows in parts])
    at = layout.fixed.index(x)
    level, slope = _split(layout.fixed, x, X.mean(axis=0), X[:, at])
    columns = layout.factors[factor].columns
    group_level, group_slope = _split(columns, x, Z.mean(axis=0), X[:, at])
    beta, modes = fit.estimates.beta, fit.estimates.modes[factor]
    fixed = (float(level @ beta), float(slope @ beta))
    groups = np.column_stack([fixed[0] + modes @ group_level, fixed[1] + modes @ group_slope])
    return Lines(
        x=X[:, at],
        y=np.concatenate([rows.target for _, rows in parts]),
        codes=np.concatenate([rows.codes[factor] for _, rows in parts]),
        fixed=fixed,
        groups=groups,
    )


def _split(names: tuple[str, ...], x: str, means: FloatArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """What each column is at x = 0, and what it gains by one unit of x, other covariates at their means."""
    level, slope = means.copy(), np.zeros(len(names))
    word = re.compile(rf"(?<![\w.]){re.escape(x)}(?![\w.])")
    for j, name in enumerate(names):
        pieces = name.split(":")
        if name == x:
            level[j], slope[j] = 0.0, 1.0
        elif x in pieces:
            others = [piece for piece in pieces if piece != x]
            if len(others) != 1 or others[0] not in names:
                raise ModelError(f"the column {name!r} has no line over {x!r}: draw fitted values of your own data")
            level[j], slope[j] = 0.0, means[names.index(others[0])]
        elif word.search(name):
            raise ModelError(f"{x!r} also enters as {name!r}, so the fit is no line over it: plot predictions instead")
    return level, slope
