"""Leverage: how much a row's own response moves its fitted value.

With y = X beta + Z b + e, fitted values are ``H y`` (offset apart), and for row i with prior weight w

    h_i = w_i (z_i' G z_i + r_i' (X' V^-1 X)^-1 r_i),     r_i = x_i - (Z G Z' W X)_i

where G is the covariance of b given the data and beta, over sigma**2. Theta is held. These are lme4's hatvalues.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosslmm.blas import times
from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import PairBlock
from crosslmm.design.rows import Rows
from crosslmm.diagnosis.at_fit import evaluation_at, fixed_modes, selected_at
from crosslmm.diagnosis.selected import SelectedCovariance
from crosslmm.errors import ModelError
from crosslmm.objective import Evaluation

if TYPE_CHECKING:
    from crosslmm.results import MixedLMResults

SOLVED_AT_ONCE = 64
"""Rows whose equations are solved together where nothing is factorised."""


@dataclass(frozen=True)
class RowHats:
    """Leverage of some rows, with what deletion of a row needs.

    Attributes
    ----------
    index : pandas.Index
        Labels of the rows.
    leverage, resid : ndarray, shape (n,)
        h, and response minus fitted value.
    weights : ndarray, shape (n,)
    pull : ndarray, shape (n, p)
        r: a row of ``W^-1 V^-1 X``.
    """

    index: pd.Index
    leverage: FloatArray
    resid: FloatArray
    weights: FloatArray
    pull: FloatArray


def row_hats(fit: MixedLMResults, positions: NDArray[np.intp] | None = None) -> Iterator[RowHats]:
    """Leverage of the rows used, batch by batch.

    Parameters
    ----------
    fit : MixedLMResults
    positions : ndarray of intp, optional
        Numbers of the rows wanted (from 0, increasing); all by default.

    Raises
    ------
    ModelError
        The model has no rows, or all are asked of a fit by the iterative engine.
    """
    value = evaluation_at(fit)
    blocks = selected_at(fit, value)
    if blocks is None and positions is None:
        raise ModelError(
            "this fit is by the iterative engine, which solves for the leverage of each row: ask for some of them, "
            "leverage(rows=[0, 1, 2]), or fit with engine='direct'"
        )
    columns = fixed_modes(fit, value)
    start = 0
    for index, batch in fit.model.design.batches():
        wanted = slice(None) if positions is None else _inside(positions, start, batch.y.size)
        start += batch.y.size
        rows = batch.take(wanted)
        if rows.y.size:
            yield _hats(fit, value, blocks, columns, index[wanted], rows)


def _inside(positions: NDArray[np.intp], start: int, n: int) -> NDArray[np.intp]:
    return positions[(positions >= start) & (positions < start + n)] - start


def _hats(
    fit: MixedLMResults,
    value: Evaluation,
    blocks: SelectedCovariance | None,
    columns: tuple[FloatArray, ...],
    index: pd.Index,
    rows: Rows,
) -> RowHats:
    estimates = fit.estimates
    pull, resid = rows.X.copy(), rows.target - times(rows.X, estimates.beta[:, None])[:, 0]
    for codes, Z, modes, b in zip(rows.codes, rows.Z, columns, estimates.modes, strict=True):
        for j in range(Z.shape[1]):
            pull -= Z[:, j, None] * modes[j, codes]
            resid -= Z[:, j] * b[codes, j]
    weights = np.ones(rows.y.size) if rows.weights is None else rows.weights
    random = _solved(fit, value, rows) if blocks is None else _quadratic(blocks, rows)
    fixed = np.einsum("np,np->n", times(pull, estimates.beta_cov / estimates.sigma**2), pull)
    return RowHats(index, weights * (random + fixed), resid, weights, pull)


def _quadratic(blocks: SelectedCovariance, rows: Rows) -> FloatArray:
    """``z_i' G z_i`` of every row; shape (n,)."""
    total = np.zeros(rows.y.size)
    for codes, Z, G in zip(rows.codes, rows.Z, blocks.diagonal, strict=True):
        for i in range(Z.shape[1]):
            for j in range(Z.shape[1]):
                total += G[i, j, codes] * Z[:, i] * Z[:, j]
    for f, g, block in blocks.pairs:
        where = _positions(block, rows.codes[f], rows.codes[g], blocks.diagonal[g].shape[2])
        for i in range(rows.Z[f].shape[1]):
            for j in range(rows.Z[g].shape[1]):
                total += 2.0 * block.values[i, j, where] * rows.Z[f][:, i] * rows.Z[g][:, j]
    return total


def _positions(block: PairBlock, rows: NDArray, cols: NDArray, n_cols: int) -> NDArray[np.intp]:
    """Where pairs of levels stand in a block, whose pairs are sorted."""
    keys = block.rows().astype(np.int64) * n_cols + block.indices
    return np.searchsorted(keys, rows.astype(np.int64) * n_cols + cols)


def _solved(fit: MixedLMResults, value: Evaluation, rows: Rows) -> FloatArray:
    """``z_i' G z_i`` by solves: ``G = D - D Z' V^-1 Z D`` with ``D = Lambda Lambda'``; standardised coordinates."""
    layout = fit.estimates.layout
    bases, templates = layout.standardization.z_bases, value.templates
    Z = [times(Zf, U) for Zf, U in zip(rows.Z, bases, strict=True)]
    D = [times(Zf, T @ T.T) for Zf, T in zip(Z, templates, strict=True)]
    total = np.zeros(rows.y.size)
    for low in range(0, rows.y.size, SOLVED_AT_ONCE):
        some = np.arange(low, min(low + SOLVED_AT_ONCE, rows.y.size))
        m = np.arange(some.size)
        z = [np.zeros((factor.size, factor.n_levels, some.size)) for factor in layout.factors]
        for f, codes in enumerate(rows.codes):
            z[f][:, codes[some], m] = D[f][some].T
        scores = value.system.random_scores(tuple(z)).values
        for f, codes in enumerate(rows.codes):
            total[some] += np.einsum("nk,nk->n", D[f][some], Z[f][some] - scores[f][:, codes[some], m].T)
    return total
