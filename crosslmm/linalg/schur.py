"""The coupling of the eliminated factor with the factors that are solved for by conjugate gradients.

Blocks of the cross-products are used where they lie; threads share the levels of the eliminated factor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import PairBlock
from crosslmm.linalg.threads import in_shares, n_threads

Vectors = tuple[FloatArray, ...]

WIDTH = 12
"""Most right-hand sides per pass over the pairs: with more, the vectors leave the processor's cache."""

SERIAL_PAIRS = 100_000
"""Pairs below which one thread is as fast as several."""


@dataclass(frozen=True)
class SparseCoupling:
    """``C_g = Z_e' W Z_g`` of the eliminated factor e with each other factor g.

    Attributes
    ----------
    indptr : tuple of ndarray of int64, each (L_e + 1,)
    indices : tuple of ndarray of int32, each (nnz_g,)
    values : tuple of ndarray, each (k_e, k_g, nnz_g)
    n_levels : tuple of int
        L_g of the other factors.
    cuts : tuple of int
        Ranges of levels of e with about equally many pairs.
    """

    indptr: tuple[NDArray[np.int64], ...]
    indices: tuple[NDArray[np.int32], ...]
    values: tuple[FloatArray, ...]
    n_levels: tuple[int, ...]
    cuts: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Columns k_e and levels L_e of the eliminated factor."""
        return self.values[0].shape[0], self.indptr[0].size - 1

    def schur_product(self, psi: FloatArray, x: Vectors) -> Vectors:
        """``C' Psi C x`` for x per other factor (k_g, L_g, m)."""
        from crosslmm.linalg import schur_kernels as kernels

        m = x[0].shape[2]
        width = -(-m // -(-m // WIDTH))
        parts = []
        for low in range(0, m, width):
            own = tuple(np.ascontiguousarray(v[:, :, low : low + width]) for v in x)
            parts.append(self._summed(kernels.schur_product, own, psi, own))
        return parts[0] if len(parts) == 1 else tuple(np.concatenate(p, axis=2) for p in zip(*parts, strict=True))

    def gather(self, x: Vectors) -> FloatArray:
        """``C x`` for x per other factor (k_g, L_g, m); shape (k_e, L_e, m)."""
        from crosslmm.linalg import schur_kernels as kernels

        t = np.empty((*self.shape, x[0].shape[2]))
        self._run(kernels.gather, lambda _: (self.indptr, self.indices, self.values, x, t))
        return t

    def scatter(self, t: FloatArray) -> Vectors:
        """``C' t`` for t (k_e, L_e, m); per other factor (k_g, L_g, m)."""
        from crosslmm.linalg import schur_kernels as kernels

        like = tuple(
            np.broadcast_to(0.0, (V.shape[1], n, t.shape[2])) for V, n in zip(self.values, self.n_levels, strict=True)
        )
        return self._summed(kernels.scatter, like, np.ascontiguousarray(t))

    def schur_diagonal(self, psi: FloatArray) -> Vectors:
        """Diagonal blocks of ``C' Psi C``, per other factor (k_g, k_g, L_g)."""
        from crosslmm.linalg import schur_kernels as kernels

        result = []
        for g, V in enumerate(self.values):
            k = V.shape[1]
            private = [np.zeros((k, k, self.n_levels[g])) for _ in self.cuts[1:]]
            self._run(
                kernels.schur_diagonal,
                lambda i, g=g, V=V, D=private: (self.indptr[g], self.indices[g], V, psi, D[i]),  # type: ignore[misc]
            )
            result.append(sum(private[1:], private[0]))
        return tuple(result)

    def level_quadratic(self, blocks: Vectors) -> FloatArray:
        """``C_u B C_u'`` for every level u and block diagonal B, per other factor (k_g, k_g, L_g); (k_e, k_e, L_e)."""
        from crosslmm.linalg import schur_kernels as kernels

        k, n = self.shape
        Q = np.zeros((k, k, n))
        for g, B in enumerate(blocks):
            self._run(
                kernels.level_quadratic,
                lambda _, g=g, B=B: (self.indptr[g], self.indices[g], self.values[g], B, Q),  # type: ignore[misc]
            )
        return Q

    def _summed(self, kernel: Callable[..., None], like: Vectors, *arguments: Any) -> Vectors:
        """Sum over threads of what each adds to vectors of its own."""
        private = [tuple(np.zeros(v.shape) for v in like) for _ in self.cuts[1:]]
        self._run(kernel, lambda i: (self.indptr, self.indices, self.values, *arguments, private[i]))
        for other in private[1:]:
            for total, part in zip(private[0], other, strict=True):
                total += part
        return private[0]

    def _run(self, kernel: Callable[..., None], arguments: Callable[[int], tuple[Any, ...]]) -> None:
        in_shares(self.cuts, lambda share, first, last: kernel(first, last, *arguments(share)))


def sparse_coupling(blocks: tuple[PairBlock, ...], n_levels: tuple[int, ...]) -> SparseCoupling:
    """Coupling from blocks whose rows are the levels of the eliminated factor; nothing is copied.

    Parameters
    ----------
    blocks : tuple of PairBlock
    n_levels : tuple of int
        Levels of the other factor of each.
    """
    pairs_before = np.sum([block.indptr for block in blocks], axis=0)
    total = int(pairs_before[-1])
    n = 1 if total < SERIAL_PAIRS else n_threads()
    inner = np.searchsorted(pairs_before, total * np.arange(1, n) / n)
    return SparseCoupling(
        indptr=tuple(block.indptr for block in blocks),
        indices=tuple(block.indices for block in blocks),
        values=tuple(block.values for block in blocks),
        n_levels=n_levels,
        cuts=(0, *(int(cut) for cut in inner), pairs_before.size - 1),
    )
