"""Residuals of every kind, leverage and Cook's distances of the rows used, as pandas objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosslmm.blas import times
from crosslmm.covariance import FloatArray
from crosslmm.design.rows import Predicted
from crosslmm.diagnosis.leverage import RowHats, row_hats
from crosslmm.errors import ModelError

if TYPE_CHECKING:
    from crosslmm.results import MixedLMResults

KINDS = ("response", "pearson", "scaled", "normalized", "studentized", "marginal")


def residuals(fit: MixedLMResults, kind: str = "response") -> pd.Series:
    """Residuals of the rows used.

    Parameters
    ----------
    fit : MixedLMResults
    kind : {"response", "pearson", "scaled", "normalized", "studentized", "marginal"}
        ``"response"``: response minus fitted value. ``"pearson"``: times the root of the prior weight, as lme4.
        ``"scaled"``: that over sigma, as lme4's ``scaled = TRUE``; nlme calls it pearson, and normalized, as the errors
        here are independent. ``"studentized"``: that over ``sqrt(1 - leverage)``. ``"marginal"``: response minus offset
        and ``X beta``.

    Raises
    ------
    ModelError
        The kind is unknown, the model has no rows, or the leverage is not to be had (see `leverage`).
    """
    sigma = fit.estimates.sigma
    simple: dict[str, Callable[[Predicted], FloatArray]] = {
        "response": lambda rows: rows.y - rows.fitted,
        "pearson": _pearson,
        "scaled": lambda rows: _pearson(rows) / sigma,
        "normalized": lambda rows: _pearson(rows) / sigma,
    }
    if kind in simple:
        return fit._row_values(kind, simple[kind])
    if kind == "studentized":
        return _by_rows(row_hats(fit), "studentized", lambda rows: _studentized(rows, sigma))
    if kind == "marginal":
        beta = fit.estimates.beta
        parts = [
            (index, rows.target - times(rows.X, beta[:, None])[:, 0]) for index, rows in fit.model.design.batches()
        ]
        return _series(parts, "marginal")
    raise ModelError(f"kind={kind!r}: expected one of {', '.join(map(repr, KINDS))}")


def _pearson(rows: Predicted) -> FloatArray:
    resid = rows.y - rows.fitted
    return resid if rows.weights is None else resid * np.sqrt(rows.weights)


def _studentized(rows: RowHats, sigma: float) -> FloatArray:
    return np.sqrt(rows.weights) * rows.resid / (sigma * np.sqrt(_left(rows)))


def _left(rows: RowHats) -> FloatArray:
    """``1 - h``; nan where a row alone decides on its fitted value."""
    left = 1.0 - rows.leverage
    return np.where(left > DECIDED, left, np.nan)


DECIDED = 1e-12
"""``1 - leverage`` below which rounding is all that is left of it."""


def leverage(fit: MixedLMResults, rows: Any = None) -> pd.Series:
    """Diagonal of the hat matrix at the estimated variances, lme4's ``hatvalues``; its sum is that of lme4.

    Parameters
    ----------
    fit : MixedLMResults
    rows : sequence of int, optional
        Numbers (from 0) of the rows used whose leverage is wanted, in any order; all by default. A fit by the iterative
        engine solves for each of them and needs them named.

    Raises
    ------
    ModelError
        A number is none of a row, the model has no rows, or all are asked of the iterative engine.
    """
    if rows is None:
        return _by_rows(row_hats(fit), "leverage", lambda part: part.leverage)
    wanted = _positions(rows, fit.nobs)
    unique, back = np.unique(wanted, return_inverse=True)
    found = _by_rows(row_hats(fit, unique), "leverage", lambda part: part.leverage)
    return found.iloc[back]


def cooks_distance(fit: MixedLMResults) -> pd.Series:
    """Cook's distance of every row used by its leverage, as lme4's ``cooks.distance`` of a fit.

    ``(pearson / (sigma (1 - h)))^2 h / p``; nan where the leverage is 1.

    Raises
    ------
    ModelError
        As `leverage`; or the model has no fixed effects.
    """
    p, sigma = fit.estimates.beta.size, fit.estimates.sigma
    if p == 0:
        raise ModelError("Cook's distance is about fixed effects, and this model has none")
    return _by_rows(row_hats(fit), "cooks_distance", lambda rows: _cook(rows, sigma, p))


def _cook(rows: RowHats, sigma: float, p: int) -> FloatArray:
    pearson = np.sqrt(rows.weights) * rows.resid
    return np.square(pearson / (sigma * _left(rows))) * rows.leverage / p


def hat_frame(fit: MixedLMResults) -> pd.DataFrame:
    """Leverage and Cook's distance together: columns leverage, cooks_distance (nan without fixed effects)."""
    p, sigma = fit.estimates.beta.size, fit.estimates.sigma
    frames = []
    for rows in row_hats(fit):
        cook = _cook(rows, sigma, p) if p else np.full(rows.resid.size, np.nan)
        frames.append(pd.DataFrame({"leverage": rows.leverage, "cooks_distance": cook}, index=rows.index))
    return pd.concat(frames)


def _positions(rows: Any, n: int) -> NDArray[np.intp]:
    try:
        given = np.asarray(rows)
        wanted = given.astype(np.intp).ravel()
        whole = given.dtype.kind in "iu" or (given.dtype.kind == "f" and bool(np.all(given == wanted)))
    except (TypeError, ValueError):
        whole = False
    if not whole or wanted.size == 0:
        raise ModelError(f"rows={rows!r}: expected numbers of rows, from 0 to {n - 1}")
    outside = wanted[(wanted < 0) | (wanted >= n)]
    if outside.size:
        raise ModelError(f"rows holds {outside[0]}, but the rows used are numbered from 0 to {n - 1}")
    return wanted


def _by_rows(batches: Iterable[RowHats], name: str, of: Callable[[RowHats], FloatArray]) -> pd.Series:
    return _series([(rows.index, of(rows)) for rows in batches], name)


def _series(parts: list[tuple[pd.Index, FloatArray]], name: str) -> pd.Series:
    labels = [index for index, _ in parts]
    index = labels[0].append(labels[1:]) if len(labels) > 1 else labels[0]
    return pd.Series(np.concatenate([values for _, values in parts]), index=index, name=name)
