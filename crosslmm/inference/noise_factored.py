"""Noise by a pivoted Cholesky factor of what the largest factor does not explain: exact, and finds the rank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import lapack

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts, PairBlock
from crosslmm.engine.plan import require_memory
from crosslmm.inference.noise import RANK, Drawn, LevelRoots


@dataclass(frozen=True)
class FactoredNoise:
    """See `crosslmm.inference.noise.Noise`.

    Attributes
    ----------
    shapes : tuple of (int, int)
        Columns and levels (k, L) of the factors of the layout.
    order : tuple of int
        Factors, the largest first.
    own : sparse array, shape (q_1, q_1)
        Root of the largest factor's blocks.
    carried : sparse array, shape (q_1, q_2 + p)
        What the same normal numbers add to the other factors and X.
    left : ndarray, shape (q_2 + p, rank)
        Root of what the largest factor does not explain of them.
    there : ndarray of bool, shape (q_1,)
        Directions of the largest factor that are there.
    degrees : int
        n minus the rank of ``[Z, X]``.
    """

    shapes: tuple[tuple[int, int], ...]
    order: tuple[int, ...]
    own: sparse.csr_array
    carried: sparse.csr_array
    left: FloatArray
    there: NDArray[np.bool_]
    degrees: int

    @property
    def numbers(self) -> int:
        """See `Noise.numbers`."""
        return self.there.size + self.left.shape[1]

    def draw(self, z: FloatArray) -> Drawn:
        """See `Noise.draw`."""
        first, rest = z[: self.there.size] * self.there[:, None], z[self.there.size :]
        other = self.carried.T @ first + self.left @ rest
        parts: list[FloatArray] = [np.zeros(0)] * len(self.shapes)
        parts[self.order[0]] = (self.own @ first).reshape(*self.shapes[self.order[0]], -1)
        start = 0
        for f in self.order[1:]:
            k, n = self.shapes[f]
            parts[f] = other[start : start + k * n].reshape(k, n, -1)
            start += k * n
        return Drawn(tuple(parts), other[start:], np.sum(first**2, axis=0) + np.sum(rest**2, axis=0))


def factored_noise(xp: CrossProducts, order: tuple[int, ...], roots: LevelRoots) -> FactoredNoise:
    """Prepare.

    Raises
    ------
    ResourceError
        The factors but the largest have too many effects for a dense root.
    """
    factors = xp.layout.factors
    size = sum(factors[f].n_effects for f in order[1:]) + xp.layout.n_fixed
    require_memory(3 * 8 * size * size, f"drawing responses of {size:,} effects beside the largest factor")
    coupling = sparse.csr_array(sparse.hstack([*_couplings(xp, order), _flat_border(xp, order[0])], format="csr"))
    carried = sparse.csr_array(_block_matrix(roots.white).T @ coupling)
    gram = _rest_gram(xp, order, size)
    left = _pivoted_root(gram, gram - (carried.T @ carried).toarray())
    return FactoredNoise(
        shapes=tuple((D.shape[0], D.shape[2]) for D in xp.diagonal),
        order=order,
        own=_block_matrix(roots.root),
        carried=carried,
        left=left,
        there=roots.there.ravel(),
        degrees=max(xp.n - roots.rank - left.shape[1], 0),
    )


def _block_matrix(B: FloatArray) -> sparse.csr_array:
    """Blocks (k, k, L) as one matrix, rows and columns numbered column times L plus level."""
    k, _, n_levels = B.shape
    number = np.arange(k)[:, None] * n_levels + np.arange(n_levels)
    rows, cols = (np.broadcast_to(n, B.shape).ravel() for n in (number[:, None], number[None]))
    return sparse.csr_array((B.ravel(), (rows, cols)), shape=(k * n_levels, k * n_levels))


def _flat_border(xp: CrossProducts, factor: int) -> sparse.csr_array:
    """``Z_f'WX``; shape (q_f, p), rows numbered column times L plus level."""
    border = xp.border[factor][:, :, :-1]
    k, n_levels, p = border.shape
    return sparse.csr_array(border.reshape(k * n_levels, p))


def _couplings(xp: CrossProducts, order: tuple[int, ...]) -> list[sparse.csr_array]:
    """``Z_f'WZ_g`` of the first factor with every other."""
    blocks = []
    for g in order[1:]:
        pair: PairBlock = next(b for i, j, b in xp.pairs if {i, j} == {order[0], g})
        turned = order[0] > g
        C = _spread(
            pair, xp.diagonal[g if turned else order[0]].shape[2], xp.diagonal[order[0] if turned else g].shape[2]
        )
        blocks.append(sparse.csr_array(C.T) if turned else C)
    return blocks


def _spread(pair: PairBlock, rows: int, cols: int) -> sparse.csr_array:
    k_f, k_g = pair.values.shape[:2]
    i = (np.arange(k_f)[:, None, None] * rows + pair.rows()) + np.zeros((1, k_g, 1), dtype=np.int64)
    j = (np.arange(k_g)[None, :, None] * cols + pair.indices) + np.zeros((k_f, 1, 1), dtype=np.int64)
    return sparse.csr_array((pair.values.ravel(), (i.ravel(), j.ravel())), shape=(k_f * rows, k_g * cols))


def _rest_gram(xp: CrossProducts, order: tuple[int, ...], size: int) -> FloatArray:
    """``G'WG`` of all columns but those of the largest factor; shape (size, size)."""
    offsets = dict(zip(order[1:], np.cumsum([0, *(xp.layout.factors[f].n_effects for f in order[1:])]), strict=False))
    p = xp.layout.n_fixed
    gram = np.zeros((size, size))
    gram[size - p :, size - p :] = xp.fixed[:p, :p]
    for f, start in offsets.items():
        k, _, n_levels = xp.diagonal[f].shape
        index = start + np.arange(k * n_levels).reshape(k, n_levels)
        for i in range(k):
            for j in range(k):
                gram[index[i], index[j]] = xp.diagonal[f][i, j]
        own = slice(start, start + k * n_levels)
        gram[own, size - p :] = xp.border[f][:, :, :p].reshape(k * n_levels, p)
        gram[size - p :, own] = gram[own, size - p :].T
    for f, g, pair in xp.pairs:
        if f in offsets and g in offsets:
            C = _spread(pair, xp.diagonal[f].shape[2], xp.diagonal[g].shape[2]).toarray()
            rows, cols = (slice(offsets[h], offsets[h] + n) for h, n in zip((f, g), C.shape, strict=True))
            gram[rows, cols] = C
            gram[cols, rows] = C.T
    return gram


def _pivoted_root(whole: FloatArray, left: FloatArray) -> FloatArray:
    """Root (n, rank) of `left`, its rank judged against the squares of `whole`."""
    unit = np.sqrt(np.maximum(np.diag(whole), np.finfo(float).tiny))
    scaled = np.asfortranarray(left / np.outer(unit, unit))
    n = scaled.shape[0]
    if n == 0 or float(np.diag(scaled).max()) <= RANK:
        return np.zeros((n, 0))
    factor, pivots, rank, _ = lapack.dpstrf(scaled, tol=RANK, lower=1)
    root = np.zeros((n, rank))
    root[pivots - 1] = np.tril(factor)[:, :rank]
    return unit[:, None] * root
