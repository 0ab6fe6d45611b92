"""Traces ``tr(P G_i P G_j)`` over the covariances of the random effects, without a matrix of n rows.

With ``K_fg = Z_f' P Z_g`` and ``G = sum_l Z_l S Z_l'`` the trace is the sum over pairs of levels of
``tr(S_i K_lm S_j K_lm')``, so all that is needed of K is the sum over pairs of levels of the products of its blocks. K
is formed for a stretch of levels at a time, or met by random signs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosslmm.blas import cross, times
from crosslmm.covariance import FloatArray
from crosslmm.engine.probes import signs
from crosslmm.engine.protocol import System, Templates

STRETCH_BYTES = 2**26
"""Memory of one stretch of columns of K."""

MOST_EXACT = 20_000
"""Random effects up to which K is formed: its cost grows with their square."""

PROBES = 200
"""Random signs where K is not formed and the engine has no number of its own."""

FEW_LEVELS = 64
"""Levels up to which the columns of a factor are formed all the same: signs say little of so few, and cost as much."""

PROBES_AT_ONCE = 16

SEEDS = 2**64
"""Seeds that an engine can have: signs of factors are beyond them, so they repeat none of any fit."""

Moved = tuple[tuple[int, FloatArray], ...]


@dataclass(frozen=True)
class Sampled:
    """A matrix that may be a mean over probes.

    Attributes
    ----------
    mean : ndarray, shape (r, r)
    deviations : ndarray, shape (n, r, r)
        What each of n probes says less the mean; n = 0 where the matrix is exact.
    """

    mean: FloatArray
    deviations: FloatArray

    @property
    def replicates(self) -> FloatArray:
        """Means without one probe each; shape (n, r, r). Their spread is the error of the mean (jackknife)."""
        n = self.deviations.shape[0]
        return self.mean - self.deviations / max(n - 1, 1)


def jackknife(replicates: FloatArray) -> FloatArray:
    """Monte Carlo standard error of a number from its values without one probe each; shape (n, ...) to (...)."""
    n = replicates.shape[0]
    if n == 0:
        return np.zeros(replicates.shape[1:])
    return np.asarray(np.sqrt((n - 1) / n * np.square(replicates - replicates.mean(axis=0)).sum(axis=0)))


def trace_products(system: System, white: Templates | None, moved: Moved, *, n_probes: int, seed: int = 0) -> Sampled:
    """``tr(P G_i P G_j)``, exact for as many random effects as can be gone through.

    Parameters
    ----------
    system : System
    white : tuple of ndarray, each (k, L, p), or None
        ``Z' V^-1 X R'^-1``, which takes X out (REML); None for ``V^-1`` in place of P (ML).
    moved : tuple of (factor, ndarray (k, k))
        Factor and symmetric matrix S of every ``G = sum_l Z_l S Z_l'``.
    n_probes : int
        Probes of the engine; 0 where it is exact.
    seed : int
        Of the random signs.
    """
    shapes = tuple((w.shape[0], w.shape[1]) for w in (white or system.fixed_scores()))
    used = sorted({f for f, _ in moved})
    size = len(moved)
    if n_probes == 0 and sum(k * n for k, n in shapes) <= MOST_EXACT:
        blocks = {g: _exact_blocks(system, white, shapes, g, used) for g in used}
        return Sampled(_contract(blocks, moved, 1, used)[0], np.zeros((0, size, size)))
    n = n_probes or PROBES
    few = [g for g in used if shapes[g][1] <= max(n, FEW_LEVELS)]
    blocks = {
        g: _exact_blocks(system, white, shapes, g, used)
        if g in few
        else _sampled_blocks(system, white, shapes, g, used, n, seed)
        for g in used
    }
    samples = _contract(blocks, moved, n, few)
    mean = samples.mean(axis=0)
    return Sampled(mean, samples - mean)


Blocks = dict[int, dict[int, FloatArray]]
"""By factor of the columns of K, then of its rows: sums of products of blocks (n, k_f, k_g, k_f, k_g)."""


def _contract(blocks: Blocks, moved: Moved, n: int, exact: list[int]) -> FloatArray:
    """``tr(S_i K S_j K')`` for all pairs; shape (n, r, r).

    The mean of what either factor's columns say, but for what those of a factor in `exact` say of another's.
    """
    r = len(moved)
    traces = np.zeros((n, r, r))
    for i, (f, S) in enumerate(moved):
        for j, (g, U) in enumerate(moved):
            traces[:, i, j] = np.einsum("nabcd,ac,bd->n", blocks[g][f], S, U)
    turned = traces.transpose(0, 2, 1)
    known = np.array([f in exact for f, _ in moved])
    better = known & ~known[:, None]
    return np.asarray(np.where(better, traces, np.where(better.T, turned, 0.5 * (traces + turned))))


def _exact_blocks(
    system: System, white: Templates | None, shapes: tuple[tuple[int, int], ...], g: int, used: list[int]
) -> dict[int, FloatArray]:
    """Sums of products of blocks of K, columns of factor g a stretch at a time."""
    k, n_levels = shapes[g]
    total = {f: np.zeros((1, shapes[f][0], k, shapes[f][0], k)) for f in used}
    at_once = max(STRETCH_BYTES // (8 * k * sum(a * b for a, b in shapes)), 1)
    for low in range(0, n_levels, at_once):
        levels = np.arange(low, min(low + at_once, n_levels))
        z = [np.zeros((*shape, k * levels.size)) for shape in shapes]
        for b in range(k):
            z[g][b, levels, b * levels.size + np.arange(levels.size)] = 1.0
        K = _projected(system, white, tuple(z))
        for f in used:
            block = K[f].reshape(shapes[f][0], shapes[f][1], k, levels.size)
            pairs = np.moveaxis(block, 2, 1).reshape(shapes[f][0] * k, -1)
            total[f][0] += cross(pairs.T, pairs.T).reshape(shapes[f][0], k, shapes[f][0], k)
    return total


def _sampled_blocks(
    system: System,
    white: Templates | None,
    shapes: tuple[tuple[int, int], ...],
    g: int,
    used: list[int],
    n_probes: int,
    seed: int,
) -> dict[int, FloatArray]:
    """The same by random signs over the levels of factor g, one value per probe."""
    k, n_levels = shapes[g]
    parts: dict[int, list[FloatArray]] = {f: [] for f in used}
    for low in range(0, n_probes, PROBES_AT_ONCE):
        numbers = range(low, min(low + PROBES_AT_ONCE, n_probes))
        r = signs(((1, n_levels),), numbers, seed + (g + 1) * SEEDS)[0][0]
        z = [np.zeros((*shape, k * len(numbers))) for shape in shapes]
        for b in range(k):
            z[g][b, :, b * len(numbers) : (b + 1) * len(numbers)] = r
        K = _projected(system, white, tuple(z))
        for f in used:
            block = K[f].reshape(shapes[f][0], shapes[f][1], k, len(numbers))
            parts[f].append(np.einsum("albn,cldn->nabcd", block, block))
    return {f: np.concatenate(blocks) for f, blocks in parts.items()}


def _projected(system: System, white: Templates | None, z: Templates) -> Templates:
    """``Z' P Z z``."""
    scores = system.random_scores(z).values
    if white is None:
        return scores
    x_part = np.sum([_tall_cross(w, part) for w, part in zip(white, z, strict=True)], axis=0)
    return tuple(s - times(_tall(w), x_part).reshape(s.shape) for s, w in zip(scores, white, strict=True))


def _tall(part: FloatArray) -> FloatArray:
    return part.reshape(part.shape[0] * part.shape[1], part.shape[2])


def _tall_cross(a: FloatArray, b: FloatArray) -> FloatArray:
    return cross(_tall(a), _tall(b))
