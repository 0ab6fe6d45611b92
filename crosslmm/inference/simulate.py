"""Responses drawn from a fitted model, as cross-products: no row is made.

With ``G = [Z, X]`` and the noise ``e ~ N(0, sigma^2 W^-1)``, all that estimation needs of e is ``v = G'We`` and
``e'We``. Their joint distribution is known exactly (docs/bootstrap.md): ``v = sigma R z`` for any root ``R R' = G'WG``
and z standard normal, and ``e'We = sigma^2 (z'z + chi2)`` with n minus the rank of G degrees of freedom. The root is
made by blocks: the largest factor level by level, what is left by a pivoted Cholesky factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import lapack

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts, PairBlock
from crosslmm.engine.plan import require_memory
from crosslmm.linalg.pairs import GramOperator, gram_operator

RANK = 1e-10
"""Part of its sum of squares that a column must have outside the others to count for the rank."""


@dataclass(frozen=True)
class Truth:
    """What responses are drawn from, standardised coordinates.

    Attributes
    ----------
    beta : ndarray, shape (p,)
    sigma : float
    templates : tuple of ndarray, each (k, k)
    """

    beta: FloatArray
    sigma: float
    templates: tuple[FloatArray, ...]


@dataclass(frozen=True)
class Responses:
    """Cross-products of r responses.

    Attributes
    ----------
    border : tuple of ndarray, each (k, L, r)
        ``Z'Wy`` by factor.
    fixed : ndarray, shape (p, r)
        ``X'Wy``.
    squares : ndarray, shape (r,)
        ``y'Wy``.
    """

    border: tuple[FloatArray, ...]
    fixed: FloatArray
    squares: FloatArray

    @property
    def size(self) -> int:
        """Number of responses."""
        return self.squares.size

    def one(self, xp: CrossProducts, r: int) -> tuple[tuple[FloatArray, ...], FloatArray]:
        """Border and fixed part of the cross-products `xp` with response r in place of theirs."""
        border = []
        for old, new in zip(xp.border, self.border, strict=True):
            both = old.copy()
            both[:, :, -1] = new[:, :, r]
            border.append(both)
        fixed = xp.fixed.copy()
        fixed[:-1, -1] = fixed[-1, :-1] = self.fixed[:, r]
        fixed[-1, -1] = self.squares[r]
        return tuple(border), fixed


@dataclass(frozen=True)
class Simulator:
    """Everything that draws have in common.

    Attributes
    ----------
    xp : CrossProducts
    truth : Truth
    gram : GramOperator
        ``Z'WZ``.
    order : tuple of int
        Factors, the largest first.
    own : sparse array, shape (q_1, q_1)
        Root of the largest factor's blocks.
    carried : sparse array, shape (q_1, q_2 + p)
        What the same normal numbers add to the other factors and X.
    left : ndarray, shape (q_2 + p, rank)
        Root of what the largest factor does not explain of them.
    counts : ndarray of bool, shape (q_1,)
        Directions of the largest factor that are there.
    degrees : int
        n minus the rank of ``[Z, X]``.
    """

    xp: CrossProducts
    truth: Truth
    gram: GramOperator
    order: tuple[int, ...]
    own: sparse.csr_array
    carried: sparse.csr_array
    left: FloatArray
    counts: NDArray[np.bool_]
    degrees: int


def simulator(xp: CrossProducts, truth: Truth) -> Simulator:
    """Prepare to draw responses.

    Raises
    ------
    ResourceError
        The factors but the largest have too many effects for a dense root.
    """
    factors = xp.layout.factors
    first = max(range(len(factors)), key=lambda f: factors[f].n_effects)
    order = (first, *(f for f in range(len(factors)) if f != first))
    size = sum(factors[f].n_effects for f in order[1:]) + xp.layout.n_fixed
    require_memory(3 * 8 * size * size, f"drawing responses of {size:,} effects beside the largest factor")
    own, whitened, counts = _level_roots(xp.diagonal[first])
    coupling = sparse.csr_array(sparse.hstack([*_couplings(xp, order), _flat_border(xp, first)], format="csr"))
    carried = sparse.csr_array(whitened.T @ coupling)
    gram = _rest_gram(xp, order, size)
    left = _pivoted_root(gram, gram - (carried.T @ carried).toarray())
    degrees = xp.n - int(counts.sum()) - left.shape[1]
    return Simulator(
        xp, truth, gram_operator(xp.diagonal, xp.pairs), order, own, carried, left, counts, max(degrees, 0)
    )


def _flat_border(xp: CrossProducts, factor: int) -> sparse.csr_array:
    """``Z_f'WX``; shape (q_f, p), rows numbered column times L plus level."""
    border = xp.border[factor][:, :, :-1]
    k, n_levels, p = border.shape
    return sparse.csr_array(border.reshape(k * n_levels, p))


def _level_roots(A: FloatArray) -> tuple[sparse.csr_array, sparse.csr_array, NDArray[np.bool_]]:
    """Root of every block, its pseudo-inverse transposed, and which of its columns are there."""
    k, _, n_levels = A.shape
    unit = np.sqrt(np.maximum(np.einsum("iil->li", A), np.finfo(float).tiny))
    blocks = A.transpose(2, 0, 1) / (unit[:, :, None] * unit[:, None, :])
    values, vectors = np.linalg.eigh(blocks)
    there = values > RANK
    size = np.sqrt(np.where(there, values, 1.0))
    root = np.where(there[:, None, :], unit[:, :, None] * vectors * size[:, None, :], 0.0)
    white = np.where(there[:, None, :], vectors / (unit[:, :, None] * size[:, None, :]), 0.0)
    rows = (np.arange(k)[:, None, None] * n_levels + np.arange(n_levels)) + np.zeros((1, k, 1), dtype=np.int64)
    cols = rows.transpose(1, 0, 2)
    place = (rows.ravel(), cols.ravel())

    def build(B: FloatArray) -> sparse.csr_array:
        return sparse.csr_array((B.transpose(1, 2, 0).ravel(), place), shape=(k * n_levels, k * n_levels))

    return build(root), build(white), there.T.ravel()


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


def draw(of: Simulator, generators: Sequence[np.random.Generator]) -> Responses:
    """One response for each generator."""
    xp, truth = of.xp, of.truth
    shapes = [(D.shape[0], D.shape[2]) for D in xp.diagonal]
    sizes = [k * n for k, n in shapes]
    normal, chi = _numbers(of, generators, sum(sizes))
    r = len(generators)
    starts = np.cumsum([0, *sizes])
    effects = [
        truth.sigma * np.einsum("ij,jlr->ilr", T, normal[a:b].reshape(k, n, r))
        for T, (k, n), a, b in zip(truth.templates, shapes, starts, starts[1:], strict=False)
    ]
    explained = of.gram.apply(tuple(effects))
    noise, noise_x, noise_squares = _noise(of, normal[starts[-1] :], chi, shapes)
    p = xp.layout.n_fixed
    means = [border[:, :, :p] @ truth.beta for border in xp.border]
    moved = sum(
        (np.einsum("klp,klr->pr", B[:, :, :p], b) for B, b in zip(xp.border, effects, strict=True)), np.zeros((p, r))
    )
    mean_x = xp.fixed[:p, :p] @ truth.beta
    squares = truth.beta @ mean_x + 2.0 * truth.beta @ (moved + noise_x) + noise_squares
    for b, Ab, v in zip(effects, explained, noise, strict=True):
        squares = squares + np.einsum("klr,klr->r", b, Ab + 2.0 * v)
    border = tuple(m[:, :, None] + Ab + v for m, Ab, v in zip(means, explained, noise, strict=True))
    return Responses(border, mean_x[:, None] + moved + noise_x, squares)


def _numbers(of: Simulator, generators: Sequence[np.random.Generator], q: int) -> tuple[FloatArray, FloatArray]:
    """Standard normal numbers (q + q_1 + rank, r) and chi-squared ones (r,), each column from its own generator."""
    normal = np.empty((len(generators), q + of.counts.size + of.left.shape[1]))
    chi = np.zeros(len(generators))
    for row, generator in enumerate(generators):
        generator.standard_normal(out=normal[row])
        chi[row] = generator.chisquare(of.degrees) if of.degrees else 0.0
    return np.ascontiguousarray(normal.T), chi


def _noise(
    of: Simulator, z: FloatArray, chi: FloatArray, shapes: list[tuple[int, int]]
) -> tuple[list[FloatArray], FloatArray, FloatArray]:
    """``Z'We`` by factor (k, L, r), ``X'We`` (p, r) and ``e'We`` (r,)."""
    sigma, r = of.truth.sigma, chi.size
    first, rest = z[: of.counts.size] * of.counts[:, None], z[of.counts.size :]
    own = sigma * (of.own @ first)
    other = sigma * (of.carried.T @ first + of.left @ rest)
    parts: list[FloatArray] = [np.zeros(0)] * len(shapes)
    parts[of.order[0]] = own.reshape(*shapes[of.order[0]], r)
    start = 0
    for f in of.order[1:]:
        k, n = shapes[f]
        parts[f] = other[start : start + k * n].reshape(k, n, r)
        start += k * n
    squares = sigma**2 * (np.sum(first**2, axis=0) + np.sum(rest**2, axis=0) + chi)
    return parts, other[start:], squares
