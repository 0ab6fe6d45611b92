"""Effects of every level by its own rows alone, without pooling."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from crosslmm.covariance import FloatArray

if TYPE_CHECKING:
    from crosslmm.results import MixedLMResults

RANK = 1e-10
"""Smallest eigenvalue of a level's Z'WZ over its largest that counts."""


def effects_alone(fit: MixedLMResults, factor: int) -> FloatArray:
    """Least squares of ``y - X beta`` on the columns of each level of one factor, other factors left out.

    Returns
    -------
    ndarray, shape (L, k)
        nan for levels whose rows do not determine them.
    """
    xp, layout = fit.model.crossproducts, fit.estimates.layout
    standard = layout.standardization
    beta = np.linalg.solve(standard.x_basis, (fit.estimates.beta - standard.origin) / standard.scale)
    target = np.einsum("klp,p->lk", xp.border[factor], np.append(-beta, 1.0))
    gram = xp.diagonal[factor].transpose(2, 0, 1)
    values = np.linalg.eigvalsh(gram)
    known = values[:, 0] > RANK * np.maximum(values[:, -1], np.finfo(float).tiny)
    alone = np.full(target.shape, np.nan)
    alone[known] = np.linalg.solve(gram[known], target[known, :, None])[:, :, 0]
    return np.asarray(standard.scale * alone @ standard.z_bases[factor].T)
