"""The dense oracle in the coordinates of the engines: what a `System` must give, by n x n matrices.

Only the coordinates come from the package (`Layout.standardization`); `test_gradient.py` holds them to the oracle in
the units of the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from dense import Dense

import crosslmm as clm


@dataclass(frozen=True)
class Oracle:
    """A model at one template per factor of the layout, any square matrices."""

    dense: Dense
    templates: tuple[np.ndarray, ...]
    n_levels: tuple[int, ...]

    @cached_property
    def covariance(self) -> np.ndarray:
        """V, n x n."""
        explained = [self.dense.spread(f, T @ T.T) for f, T in enumerate(self.templates)]
        return np.diag(self.dense.variance) + sum(explained)

    @cached_property
    def inverse(self) -> np.ndarray:
        return np.linalg.inv(self.covariance)

    @property
    def log_det(self) -> float:
        """``log |V| + sum log w``."""
        return np.linalg.slogdet(self.covariance)[1] - np.log(self.dense.variance).sum()

    @property
    def fixed(self) -> np.ndarray:
        G = np.column_stack([self.dense.X, self.dense.y])
        return G.T @ self.inverse @ G

    def project(self, reml: bool) -> np.ndarray:
        X = self.dense.X
        if not reml or X.shape[1] == 0:
            return self.inverse
        half = self.inverse @ X
        return self.inverse - half @ np.linalg.solve(X.T @ half, half.T)

    def effects(self, beta: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Modes and scores, each (k, L)."""
        r = self.inverse @ (self.dense.y - self.dense.X @ beta)
        scores = []
        for codes, Z, L in zip(self.dense.codes, self.dense.Z, self.n_levels, strict=True):
            score = np.zeros((L, Z.shape[1]))
            np.add.at(score, codes, Z * r[:, None])
            scores.append(score.T)
        return [T @ T.T @ score for T, score in zip(self.templates, scores, strict=True)], scores

    def inner(self, z: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
        parts = zip(self.dense.codes, self.dense.Z, z, strict=True)
        u = sum(np.einsum("nk,knm->nm", Z, part[:, codes]) for codes, Z, part in parts)
        return u.T @ self.inverse @ u, u.T @ self.inverse @ self.dense.X

    def marginal(self, reml: bool) -> list[np.ndarray]:
        P = self.project(reml)
        pairs = zip(self.dense.codes, self.dense.Z, strict=True)
        return [Z.T @ np.where(codes[:, None] == codes, P, 0.0) @ Z for codes, Z in pairs]


def oracle(model: clm.MixedLM, templates: tuple[np.ndarray, ...]) -> Oracle:
    """The oracle of a model whose rows are in memory, templates in standardised coordinates."""
    rows, layout = model.design, model.design.layout
    standard = layout.standardization
    y = (rows.y - (0.0 if rows.offset is None else rows.offset) - rows.X @ standard.origin) / standard.scale
    terms = [(codes, Z @ U) for codes, Z, U in zip(rows.codes, rows.Z, standard.z_bases, strict=True)]
    dense = Dense(y, rows.X @ standard.x_basis, terms, weights=rows.weights)
    return Oracle(dense, templates, tuple(factor.n_levels for factor in layout.factors))
