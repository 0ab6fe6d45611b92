"""Noise of large crossed designs: the root of what the largest factor does not explain, by the Lanczos recurrence.

That matrix, ``S = A_rr - C' A_11^+ C`` over the other factors and X, is never formed: a product is a pass over the
pairs of levels that occur. Its rank need not be known: all numbers z count for ``e'We``, since those of directions that
are not there make up a chi-squared part of it, with just the degrees of freedom that they take from the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.engine.split import oriented
from crosslmm.inference.noise import Drawn, LevelRoots
from crosslmm.linalg.lanczos import root_product
from crosslmm.linalg.levels import apply, by_factor, multiply
from crosslmm.linalg.pairs import GramOperator, gram_operator
from crosslmm.linalg.schur import SparseCoupling, sparse_coupling

TOLERANCE = 1e-6
"""Relative error of a draw, about: a millionth of a standard deviation."""


@dataclass(frozen=True)
class LanczosNoise:
    """See `crosslmm.inference.noise.Noise`.

    Attributes
    ----------
    order : tuple of int
        Factors, the largest first.
    roots : LevelRoots
        Of the largest factor.
    psi : ndarray, shape (k, k, L)
        ``A_11^+``.
    gram : GramOperator
        ``A_rr`` of the other factors.
    coupling : SparseCoupling
        ``Z_1'WZ_r``.
    first : ndarray, shape (k, L, p)
        ``Z_1'WX``.
    beside : ndarray, shape (q, p)
        ``Z_r'WX`` less what the largest factor explains of it.
    fixed : ndarray, shape (p, p)
        The same of ``X'WX``.
    unit : ndarray, shape (q + p, 1)
        Root of the sum of squares of every column.
    degrees : int
        n less the length of z.
    """

    order: tuple[int, ...]
    roots: LevelRoots
    psi: FloatArray
    gram: GramOperator
    coupling: SparseCoupling
    first: FloatArray
    beside: FloatArray
    fixed: FloatArray
    unit: FloatArray
    degrees: int

    @property
    def numbers(self) -> int:
        """See `Noise.numbers`."""
        return self.roots.there.size + self.unit.size

    def draw(self, z: FloatArray) -> Drawn:
        """See `Noise.draw`."""
        k, n_levels = self.roots.there.shape
        own = z[: k * n_levels].reshape(k, n_levels, -1) * self.roots.there[:, :, None]
        rest = z[k * n_levels :]
        white = apply(self.roots.white, own)
        root = self.unit * root_product(self.matrix, rest, TOLERANCE)
        others = self._split(root)
        parts = [apply(self.roots.root, own)]
        parts += [a + b for a, b in zip(self.coupling.scatter(white), others, strict=True)]
        x = np.einsum("klp,klr->pr", self.first, white) + root[self.beside.shape[0] :]
        squares = np.einsum("klr,klr->r", own, own) + np.einsum("qr,qr->r", rest, rest)
        return Drawn(tuple(parts[self.order.index(f)] for f in range(len(parts))), x, squares)

    def matrix(self, v: FloatArray) -> FloatArray:
        """S with columns of unit length before the largest factor was taken out, times v (q + p, m)."""
        u = v / self.unit
        q, m = self.beside.shape[0], v.shape[1]
        x = self._split(u)
        explained = self.coupling.schur_product(self.psi, x)
        y = [(a - b).reshape(-1, m) for a, b in zip(self.gram.apply(x), explained, strict=True)]
        top = np.concatenate(y) + self.beside @ u[q:]
        return np.concatenate([top, self.beside.T @ u[:q] + self.fixed @ u[q:]]) / self.unit

    def _split(self, v: FloatArray) -> tuple[FloatArray, ...]:
        return by_factor(v, tuple((D.shape[0], D.shape[2]) for D in self.gram.diagonal))


def lanczos_noise(xp: CrossProducts, order: tuple[int, ...], roots: LevelRoots) -> LanczosNoise:
    """Prepare; there has to be more than one factor, and as many rows as columns that count (`enough_rows`)."""
    first, rest = order[0], order[1:]
    p = xp.layout.n_fixed
    psi = multiply(roots.white, roots.white.transpose(1, 0, 2))
    blocks = tuple(oriented(xp, first, g) for g in rest)
    coupling = sparse_coupling(blocks, tuple(xp.diagonal[g].shape[2] for g in rest))
    within = [(i, j, oriented(xp, rest[i], rest[j])) for i in range(len(rest)) for j in range(i + 1, len(rest))]
    X_1 = xp.border[first][:, :, :p]
    psi_x = apply(psi, X_1)
    beside = [xp.border[g][:, :, :p] - e for g, e in zip(rest, coupling.scatter(psi_x), strict=True)]
    squares = [np.einsum("iil->il", xp.diagonal[g]).ravel() for g in rest]
    unit = np.sqrt(np.concatenate([*squares, np.diag(xp.fixed)[:p]]))
    return LanczosNoise(
        order=order,
        roots=roots,
        psi=psi,
        gram=gram_operator(tuple(xp.diagonal[g] for g in rest), tuple(within)),
        coupling=coupling,
        first=X_1,
        beside=np.concatenate([part.reshape(part.shape[0] * part.shape[1], p) for part in beside]),
        fixed=xp.fixed[:p, :p] - np.einsum("klp,klr->pr", X_1, psi_x),
        unit=np.where(unit > 0.0, unit, 1.0)[:, None],
        degrees=xp.n - roots.rank - unit.size,
    )


def enough_rows(xp: CrossProducts, roots: LevelRoots, size: int) -> bool:
    """Whether the numbers of a draw, beside the largest factor `size`, are no more than the rows."""
    return xp.n >= roots.rank + size
