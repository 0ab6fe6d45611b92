"""Standard deviations of the conditional modes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.diagnosis.at_fit import evaluation_at, selected_at

if TYPE_CHECKING:
    from crosslmm.results import MixedLMResults

LEVELS_AT_ONCE = 64
"""Levels whose equations are solved together where nothing is factorised."""


def mode_sds(fit: MixedLMResults) -> tuple[FloatArray, ...] | None:
    """Standard deviations of the modes given y, beta and theta (lme4's condVar); each (L, k), one array per factor.

    None where the engine factorises nothing; see `some_mode_sds`.
    """
    blocks = selected_at(fit, evaluation_at(fit))
    if blocks is None:
        return None
    sigma = fit.estimates.sigma
    return tuple(sigma * np.sqrt(np.einsum("kkl->lk", G).clip(0.0)) for G in blocks.diagonal)


def some_mode_sds(fit: MixedLMResults, factor: int, levels: NDArray[np.intp]) -> FloatArray:
    """The same of some levels of one factor, by solves; shape (levels, k).

    ``G = D - D Z' V^-1 Z D`` with ``D = Lambda Lambda'``.
    """
    value, layout = evaluation_at(fit), fit.estimates.layout
    U, T = layout.standardization.z_bases[factor], value.templates[factor]
    D, k = T @ T.T, T.shape[0]
    result = np.empty((levels.size, k))
    for low in range(0, levels.size, LEVELS_AT_ONCE):
        some = levels[low : low + LEVELS_AT_ONCE]
        z = [np.zeros((f.size, f.n_levels, k * some.size)) for f in layout.factors]
        for j in range(k):
            z[factor][:, some, j * some.size + np.arange(some.size)] = D[:, j, None]
        scores = value.system.random_scores(tuple(z)).values[factor].reshape(k, -1, k, some.size)
        own = scores[:, some, :, np.arange(some.size)]
        G = D - np.einsum("ia,laj->lij", D, own)
        result[low : low + some.size] = np.sqrt(np.einsum("ia,lab,ib->li", U, G, U).clip(0.0))
    return fit.estimates.sigma * result
