"""Joint covariance of the errors of fixed effects and modes, from the marginal covariance of the rows (n x n).

Harville 1976, Ann. Statist. 4(2), 384-395: nothing of crosslmm's equations is used, and templates may be singular.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Joint:
    """Blocks of the covariance; random effects factor by factor, then level by level."""

    beta: np.ndarray  # (p, p)
    given_beta: np.ndarray  # (q, q): covariance of the random effects given y and beta
    modes: np.ndarray  # (q, q): of the errors of the modes
    cross: np.ndarray  # (p, q)

    @property
    def whole(self) -> np.ndarray:
        return np.block([[self.beta, self.cross], [self.cross.T, self.modes]])


def columns(design) -> np.ndarray:
    """Z (n, q)."""
    parts = []
    for codes, Z, factor in zip(design.codes, design.Z, design.layout.factors, strict=True):
        wide = np.zeros((len(codes), factor.n_levels, factor.size))
        wide[np.arange(len(codes)), codes] = Z
        parts.append(wide.reshape(len(codes), -1))
    return np.hstack(parts)


def joint(design, fit) -> Joint:
    """At the estimates of a fit."""
    X, Z = design.X, columns(design)
    G = np.zeros((Z.shape[1], Z.shape[1]))
    start = 0
    for factor, cov in zip(design.layout.factors, fit.covariances, strict=True):
        size = factor.n_levels * factor.size
        G[start : start + size, start : start + size] = np.kron(np.eye(factor.n_levels), cov)
        start += size
    weights = np.ones(len(X)) if design.weights is None else design.weights
    V = Z @ G @ Z.T + np.diag(fit.sigma**2 / weights)
    solve = lambda B: np.linalg.solve(V, B)  # noqa: E731
    beta = np.linalg.inv(X.T @ solve(X))
    GZ = G @ Z.T
    given = G - GZ @ solve(GZ.T)
    moved = GZ @ solve(X)
    return Joint(beta, given, given + moved @ beta @ moved.T, -beta @ moved.T)
