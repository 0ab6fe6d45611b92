"""The crossed core of a model: one factor eliminated level by level, others solved for by conjugate gradients.

With e the eliminated factor and b the others of the core (docs/theory.md, section 8):

    V0 = Z_e T T' Z_e' + Z_b T T' Z_b' + W^-1,
    K = A_bb - C' Psi C,    S = T' K T + I,    P = the diagonal blocks of S, one per level,

where A = Z'WZ, C = A_eb and Psi as in `crosslmm.linalg.levels`. Neither K nor S is formed: a product with them is a
pass over the pairs of levels that occur.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.engine.protocol import Templates
from crosslmm.linalg.levels import Elimination, apply, by_factor, congruence, eliminate, invert, multiply
from crosslmm.linalg.pairs import GramOperator
from crosslmm.linalg.schur import SparseCoupling

Vectors = tuple[FloatArray, ...]


@dataclass(frozen=True)
class CoreBlocks:
    """Cross-products of the core; nothing here depends on theta.

    Attributes
    ----------
    diagonal : ndarray, shape (k_e, k_e, L_e)
        ``A_ee``.
    gram : GramOperator
        ``A_bb``; its diagonal blocks are those of the factors b.
    coupling : SparseCoupling or None
        ``A_eb``; None where there is no factor b.
    """

    diagonal: FloatArray
    gram: GramOperator
    coupling: SparseCoupling | None

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Columns and levels (k, L) of the factors b."""
        return tuple((D.shape[0], D.shape[2]) for D in self.gram.diagonal)

    @property
    def n_equations(self) -> int:
        """Number q of equations that conjugate gradients solve."""
        return sum(k * n for k, n in self.shapes)

    def split(self, v: FloatArray) -> Vectors:
        """A vector (q, m) by factor, each (k, L, m)."""
        return by_factor(v, self.shapes)

    def at(self, templates: Templates) -> Core:
        """The core at the templates of the factors e, b."""
        first = eliminate(self.diagonal, templates[0])
        own = self.gram.diagonal
        explained = () if self.coupling is None else self.coupling.schur_diagonal(first.psi)
        K = tuple(D - E for D, E in zip(own, explained, strict=True))
        preconditioner = tuple(_preconditioner(K_l, T) for K_l, T in zip(K, templates[1:], strict=True))
        return Core(self, first, templates, K, preconditioner)


@dataclass(frozen=True)
class Preconditioner:
    """``P`` of one factor.

    Attributes
    ----------
    inverse, root : ndarray, shape (k, k, L)
        ``P^-1``, and the lower triangular Cholesky factor of P, level by level.
    log_det : float
    """

    inverse: FloatArray
    root: FloatArray
    log_det: float


def _preconditioner(K: FloatArray, T: FloatArray) -> Preconditioner:
    P = congruence(T, K, T)
    index = np.arange(P.shape[0])
    P[index, index] += 1.0
    roots = np.sqrt(P) if P.shape[0] == 1 else np.linalg.cholesky(P.transpose(2, 0, 1)).transpose(1, 2, 0)
    root = np.asarray(roots, dtype=np.float64)
    inverse, log_det = invert(P)
    return Preconditioner(inverse, root, log_det)


@dataclass(frozen=True)
class Core:
    """The core at one theta.

    Attributes
    ----------
    blocks : CoreBlocks
    first : Elimination
    templates : tuple of ndarray
        Of the factors e, b.
    K : tuple of ndarray, each (k, k, L)
        Diagonal blocks of K, per factor b.
    preconditioner : tuple of Preconditioner
    """

    blocks: CoreBlocks
    first: Elimination
    templates: Templates
    K: Vectors
    preconditioner: tuple[Preconditioner, ...]

    @cached_property
    def psi(self) -> Vectors:
        """``T P^-1 T'`` of the factors b, level by level; each (k, k, L)."""
        return tuple(
            np.einsum("ij,jml,nm->inl", T, P.inverse, T)
            for T, P in zip(self.templates[1:], self.preconditioner, strict=True)
        )

    def scaled(self, v: FloatArray) -> Vectors:
        """``T v`` by factor, for v (q, m)."""
        return tuple(_times(T, part) for T, part in zip(self.templates[1:], self.blocks.split(v), strict=True))

    def transposed(self, x: Vectors) -> FloatArray:
        """``T' x`` as one array (q, m), for x by factor."""
        parts = [_times(T.T, v) for T, v in zip(self.templates[1:], x, strict=True)]
        return np.concatenate([v.reshape(-1, v.shape[2]) for v in parts])

    def reduced_gram(self, x: Vectors) -> Vectors:
        """``K x`` by factor."""
        own = self.blocks.gram.apply(x)
        explained = self._coupling.schur_product(self.first.psi, x)
        return tuple(a - b for a, b in zip(own, explained, strict=True))

    def matrix(self, v: FloatArray) -> FloatArray:
        """``S v``."""
        return self.transposed(self.reduced_gram(self.scaled(v))) + v

    def precondition(self, v: FloatArray) -> FloatArray:
        """``P^-1 v``."""
        parts = [apply(P.inverse, part) for P, part in zip(self.preconditioner, self.blocks.split(v), strict=True)]
        return np.concatenate([part.reshape(-1, v.shape[1]) for part in parts])

    def reduce(self, h_e: FloatArray, h_b: Vectors) -> Vectors:
        """``h_b - C' Psi h_e`` by factor."""
        if self.blocks.coupling is None:
            return h_b
        explained = self.blocks.coupling.scatter(apply(self.first.psi, h_e))
        return tuple(h - e for h, e in zip(h_b, explained, strict=True))

    def remainder(self, h_e: FloatArray, x: Vectors) -> FloatArray:
        """``h_e - C x``; shape (k_e, L_e, m)."""
        return h_e if self.blocks.coupling is None else h_e - self.blocks.coupling.gather(x)

    def gather(self, x: Vectors) -> FloatArray:
        """``C x``; shape (k_e, L_e, m)."""
        return self._coupling.gather(x)

    def level_quadratic(self, blocks: Vectors) -> FloatArray:
        """``C_u B C_u'`` for every level u, from diagonal blocks B by factor (k, k, L)."""
        return self._coupling.level_quadratic(blocks)

    @property
    def _coupling(self) -> SparseCoupling:
        assert self.blocks.coupling is not None, "the core has one factor only"
        return self.blocks.coupling

    @cached_property
    def outside(self) -> FloatArray:
        """``H = I - A_ee Psi`` level by level; shape (k_e, k_e, L_e)."""
        return np.eye(self.blocks.diagonal.shape[0])[:, :, None] - multiply(self.blocks.diagonal, self.first.psi)


def _times(T: FloatArray, x: FloatArray) -> FloatArray:
    """``T x_l`` for every level and right-hand side; x (k, L, m)."""
    if T.shape == (1, 1):
        return T[0, 0] * x
    return np.einsum("ij,jlm->ilm", T, x)
