"""Predictions with standard errors and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
from numpy.typing import NDArray
from scipy import special

from crosslmm.blas import times
from crosslmm.covariance import FloatArray
from crosslmm.effects.covariance import Joint
from crosslmm.effects.newrows import NewRows
from crosslmm.effects.simulation import Effects
from crosslmm.errors import ModelError
from crosslmm.fit import Fit

ERROR, POPULATION, SAMPLE = "error", "population", "sample"
NEW_LEVELS = (ERROR, POPULATION, SAMPLE)
CONFIDENCE, PREDICTION = "confidence", "prediction"
INTERVALS = (CONFIDENCE, PREDICTION)

ROWS_AT_ONCE = 2**16
"""Rows whose blocks of the covariance are gathered together; bounds the work space."""


@dataclass(frozen=True)
class Wanted:
    """What a prediction is to be.

    Attributes
    ----------
    new_levels : {"error", "population", "sample"}
    interval : {"confidence", "prediction"} or None
    level : float
    """

    new_levels: str
    interval: str | None
    level: float

    @classmethod
    def of(cls, new_levels: object, interval: object, level: object) -> Wanted:
        """Read the arguments.

        Raises
        ------
        ModelError
            One of them is none of what it may be.
        """
        if new_levels not in NEW_LEVELS:
            raise ModelError(f"new_levels={new_levels!r}: expected one of {', '.join(map(repr, NEW_LEVELS))}")
        if interval is not None and interval not in INTERVALS:
            raise ModelError(f"interval={interval!r}: expected None or one of {', '.join(map(repr, INTERVALS))}")
        if isinstance(level, bool) or not isinstance(level, Real) or not 0.0 < float(level) < 1.0:
            raise ModelError(f"level={level!r}: expected a number between 0 and 1, such as 0.95")
        return cls(str(new_levels), None if interval is None else str(interval), float(level))


def known_rows(fit: Fit, rows: NewRows) -> list[tuple[FloatArray, FloatArray, NDArray[np.int64]]]:
    """Columns of the known levels, columns of the new ones and codes, per factor."""
    parts = []
    for factor, Z, codes, new in zip(fit.layout.factors, rows.Z, rows.codes, rows.new, strict=True):
        known = codes < factor.n_levels
        if len(new) == 0:
            parts.append((Z, np.zeros_like(Z), codes))
        else:
            parts.append((Z * known[:, None], Z * ~known[:, None], np.where(known, codes, 0)))
    return parts


def point(fit: Fit, rows: NewRows, effects: Effects | None = None) -> FloatArray:
    """``offset + X beta + Z b`` of the complete rows; shape (m,).

    Parameters
    ----------
    fit : Fit
    rows : NewRows
    effects : Effects, optional
        Draws the effects of new levels; they are 0 without it.
    """
    values = times(rows.X, fit.beta[:, None])[:, 0]
    if rows.offset is not None:
        values = values + rows.offset
    parts = known_rows(fit, rows)
    for f, (Z, Z_new, codes) in enumerate(parts):
        for j in range(Z.shape[1]):
            if Z[:, j].any():
                values = values + Z[:, j] * fit.modes[f][codes, j]
        if len(rows.new[f]) and effects is not None:
            values = values + np.einsum("nk,nk->n", Z_new, effects.of(f, rows)[rows.codes[f], :, 0])
    return values


def mean_variance(joint: Joint, rows: NewRows) -> FloatArray:
    """Variance of ``x' beta_hat + z' b_hat`` as an estimate of ``x' beta + z' b``, known levels only; shape (m,)."""
    parts = known_rows(joint.fit, rows)
    used = [f for f, (Z, _, _) in enumerate(parts) if Z.any()]
    contrast = times(rows.X, joint.root)
    for f in used:
        Z, _, codes = parts[f]
        for j in range(Z.shape[1]):
            contrast = contrast - Z[:, j, None] * joint.moved[f][j, codes]
    variance = np.einsum("np,np->n", contrast, contrast)
    needed = {f: np.unique(parts[f][2][parts[f][0].any(axis=1)]) for f in used}
    used.sort(key=lambda f: -needed[f].size)
    for i, f in enumerate(used):
        Z, _, codes = parts[f]
        if i == 0:
            variance += _own_level(joint, f, Z, codes, needed[f])
        else:
            _add_columns(joint, variance, [(g, parts[g][0], parts[g][2]) for g in used[:i]], (f, Z, codes), needed[f])
    return variance


def _own_level(
    joint: Joint, factor: int, Z: FloatArray, codes: NDArray[np.int64], needed: NDArray[np.intp]
) -> FloatArray:
    """``z' C_ll z`` for the level l of one factor."""
    blocks = joint.blocks(factor, needed)
    place = np.zeros(joint.fit.layout.factors[factor].n_levels, dtype=np.intp)
    place[needed] = np.arange(needed.size)
    own = place[codes]
    total = np.zeros(codes.size)
    for i in range(Z.shape[1]):
        for j in range(Z.shape[1]):
            total += Z[:, i] * Z[:, j] * blocks[i, j, own]
    return total


def _add_columns(
    joint: Joint,
    variance: FloatArray,
    others: Sequence[tuple[int, FloatArray, NDArray[np.int64]]],
    this: tuple[int, FloatArray, NDArray[np.int64]],
    needed: NDArray[np.intp],
) -> None:
    """Add what one factor has by itself and with those that were done before, level by level."""
    f, Z, codes = this
    there = np.flatnonzero(Z.any(axis=1))
    there = there[np.argsort(codes[there], kind="stable")]
    ordered = codes[there]
    for own, columns in joint.columns(f, needed):
        low, high = np.searchsorted(ordered, [own[0], own[-1] + 1])
        for start in range(low, high, ROWS_AT_ONCE):
            rows = there[start : min(start + ROWS_AT_ONCE, high)]
            at = np.searchsorted(own, codes[rows])
            block = columns[f][:, codes[rows], :, at]
            variance[rows] += np.einsum("nij,ni,nj->n", block, Z[rows], Z[rows])
            for g, Z_g, codes_g in others:
                block = columns[g][:, codes_g[rows], :, at]
                variance[rows] += 2.0 * np.einsum("nij,ni,nj->n", block, Z_g[rows], Z[rows])


def unknown_variance(fit: Fit, rows: NewRows, new_levels: str) -> FloatArray:
    """Variance of the random effects that the prediction sets to 0, and of the residual; shape (m,)."""
    residual = np.full(rows.X.shape[0], fit.sigma**2)
    variance = residual if rows.weights is None else residual / rows.weights
    parts = known_rows(fit, rows)
    for f, (_, Z_new, _) in enumerate(parts):
        for Z in [rows.Z_out[f], *([] if new_levels == SAMPLE else [Z_new])]:
            variance = variance + np.einsum("ni,ij,nj->n", Z, fit.covariances[f], Z, optimize=True)
    return variance


def bounds(level: float) -> float:
    """How many standard errors an interval reaches."""
    return float(special.ndtri(0.5 + 0.5 * level))


def fixed_variance(fit: Fit, X: FloatArray) -> FloatArray:
    """Variance of ``x' beta_hat``; shape (m,)."""
    return np.einsum("np,pq,nq->n", X, fit.beta_cov, X, optimize=True)
