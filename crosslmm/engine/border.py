"""The dense border: factors with few levels beside the fixed effects and the response, as columns ``G = [Z_s, X, y]``.

They enter the covariance last: ``V = V0 + Z_s T T' Z_s'``, by the matrix inversion lemma on ``F = G' V0^-1 G``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import block_diag

from crosslmm.covariance import FloatArray
from crosslmm.engine.protocol import Templates
from crosslmm.linalg.dense import cholesky_in_place, log_det, solve_lower, solve_lower_transposed
from crosslmm.linalg.levels import by_factor

Vectors = tuple[FloatArray, ...]


@dataclass(frozen=True)
class Border:
    """Cross-products of the border.

    Attributes
    ----------
    shapes : tuple of (int, int)
        Columns and levels (k, L) of its factors.
    first : ndarray, shape (k_e, L_e, c)
        ``Z_e' W G``.
    others : tuple of ndarray, each (k, L, c)
        ``Z_b' W G``.
    gram : ndarray, shape (c, c)
        ``G' W G``.
    """

    shapes: tuple[tuple[int, int], ...]
    first: FloatArray
    others: Vectors
    gram: FloatArray

    @property
    def n_effects(self) -> int:
        """Number of random effects in the border; they are its first columns."""
        return sum(k * n for k, n in self.shapes)

    @property
    def n_columns(self) -> int:
        """Number c of columns."""
        return self.gram.shape[0]

    def with_columns(self, border: Vectors, fixed: FloatArray) -> Border:
        """The same factors beside other fixed-effects columns and another response.

        Parameters
        ----------
        border : tuple of ndarray, each (k, L, p + 1)
            ``Z' W [X, y]`` of the factors e, b and those of the border.
        fixed : ndarray, shape (p + 1, p + 1)
        """
        s, n_core = self.n_effects, 1 + len(self.others)
        effects = (self.first, *self.others)
        columns = [np.concatenate([e[:, :, :s], own], axis=2) for e, own in zip(effects, border, strict=False)]
        beside = np.concatenate([np.zeros((0, fixed.shape[0])), *(b.reshape(-1, b.shape[2]) for b in border[n_core:])])
        gram = np.block([[self.gram[:s, :s], beside], [beside.T, fixed]])
        return Border(self.shapes, columns[0], tuple(columns[1:]), gram)

    def split(self, v: FloatArray) -> Vectors:
        """Random effects of the border (n_effects, m) by factor, each (k, L, m)."""
        return by_factor(v, self.shapes)

    def join(self, z: Vectors, m: int) -> FloatArray:
        """Random effects by factor as one array (n_effects, m)."""
        return np.concatenate([np.zeros((0, m)), *(v.reshape(-1, m) for v in z)])

    def fold(self, F: FloatArray, templates: Templates) -> Folded:
        """Take the factors into the covariance at their templates.

        Parameters
        ----------
        F : ndarray, shape (c, c)
            ``G' V0^-1 G``.
        """
        s = self.n_effects
        J = block_diag(*(np.kron(T, np.eye(n)) for T, (_, n) in zip(templates, self.shapes, strict=True)))
        J = J.reshape(s, s)
        scaled = J.T @ F[:s]
        L = cholesky_in_place(np.asfortranarray(scaled[:, :s] @ J + np.eye(s)))
        L = np.tril(L)
        half = solve_lower(L, scaled)
        fixed = F[s:, s:] - half[:, s:].T @ half[:, s:]
        return Folded(J, L, half, 0.5 * (fixed + fixed.T))

    def marginal(self, F: FloatArray, R: FloatArray) -> list[FloatArray]:
        """``sum_l (Z' P Z)_ll`` of its factors, for P = ``V0^-1 - V0^-1 G R R' G' V0^-1``; each (k, k)."""
        s = self.n_effects
        spread = F[:s, : R.shape[0]] @ R
        W = F[:s, :s] - spread @ spread.T
        blocks, start = [], 0
        for k, n in self.shapes:
            own = slice(start, start + k * n)
            blocks.append(np.einsum("iljl->ij", W[own, own].reshape(k, n, k, n)))
            start += k * n
        return blocks


@dataclass(frozen=True)
class Folded:
    """The border at one theta.

    Attributes
    ----------
    J : ndarray, shape (s, s)
        Templates of the factors, one copy per level.
    L : ndarray, shape (s, s)
        Lower Cholesky factor of ``J' F_ss J + I``.
    half : ndarray, shape (s, c)
        ``L^-1 J' F_s.``.
    fixed : ndarray, shape (p + 1, p + 1)
        ``[X, y]' V^-1 [X, y]``.
    """

    J: FloatArray
    L: FloatArray
    half: FloatArray
    fixed: FloatArray

    @property
    def log_det(self) -> float:
        """``log |J' F_ss J + I|``."""
        return log_det(self.L)

    def contrast(self, a: FloatArray) -> FloatArray:
        """Coefficients (c,) of the columns G such that ``V^-1 [X, y] a = V0^-1 G contrast``."""
        s = self.J.shape[0]
        own = self.J @ solve_lower_transposed(self.L, (self.half[:, s:] @ a)[:, None])[:, 0]
        return np.concatenate([-own, a])

    def effects(self, h: FloatArray) -> FloatArray:
        """Modes ``J J' Z_s' V^-1 w`` of the border's random effects from ``h = Z_s' V0^-1 w``; both (s, m)."""
        return self.J @ solve_lower_transposed(self.L, solve_lower(self.L, self.J.T @ h))

    def project(self, zz: FloatArray, zg: FloatArray) -> tuple[FloatArray, FloatArray]:
        """From inner products in ``V0^-1`` (m, m) and (m, c) to those in ``V^-1``, (m, m) and (m, p + 1)."""
        s = self.J.shape[0]
        own = solve_lower(self.L, self.J.T @ zg[:, :s].T)
        return zz - own.T @ own, zg[:, s:] - own.T @ self.half[:, s:]

    def spread(self, *, reml: bool) -> FloatArray:
        """R (c', c') with ``P = V0^-1 - V0^-1 G R R' G' V0^-1`` over the factors, and X under REML."""
        s = self.J.shape[0]
        R_s = solve_lower_transposed(self.L, np.eye(s)) if s else np.zeros((0, 0))
        p = self.fixed.shape[0] - 1
        if not reml or p == 0:
            return self.J @ R_s
        R_x = np.linalg.inv(np.linalg.cholesky(self.fixed[:p, :p])).T
        left = -(self.J @ (R_s @ self.half[:, s : s + p])) @ R_x
        return np.block([[self.J @ R_s, left], [np.zeros((p, s)), R_x]])
