"""Random probes, and the traces and the log-determinant that are estimated with them (docs/theory.md, section 8).

A probe is a vector r of independent signs. With z = L_P r, where L_P L_P' = P is the preconditioner, the solution
x = S^-1 z and y = P^-1 z give E[x y'] = S^-1; x and y agree but for what the preconditioner leaves out, so only the
difference x - y is sampled and the rest is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.engine.core import Core
from crosslmm.linalg.cg import Solution, log_quadrature
from crosslmm.linalg.levels import multiply

Vectors = tuple[FloatArray, ...]


def signs(shapes: tuple[tuple[int, int], ...], n: int, seed: int) -> Vectors:
    """Independent signs of n probes, by factor (k, L, n); probe j is the same whatever n is."""
    size = sum(k * n_levels for k, n_levels in shapes)
    probes = [np.random.default_rng([seed, j]).integers(0, 2, size, dtype=np.int8) for j in range(n)]
    r = 2.0 * np.stack(probes, axis=1) - 1.0
    ends = np.cumsum([k * n_levels for k, n_levels in shapes])[:-1]
    return tuple(part.reshape(k, n_levels, n) for part, (k, n_levels) in zip(np.split(r, ends), shapes, strict=True))


@dataclass(frozen=True)
class Probed:
    """Probes at one theta.

    Attributes
    ----------
    x : tuple of ndarray, each (k, L, n)
        ``S^-1 z`` by factor.
    y : tuple of ndarray, each (k, L, n)
        ``P^-1 z``.
    log_dets : ndarray, shape (n,)
        What each probe says of ``log |S|``.
    """

    x: Vectors
    y: Vectors
    log_dets: FloatArray


def right_hand_sides(core: Core, r: Vectors) -> FloatArray:
    """``z = L_P r`` as one array (q, n)."""
    parts = [np.einsum("ijl,jln->iln", P.root, own) for P, own in zip(core.preconditioner, r, strict=True)]
    return np.concatenate([part.reshape(-1, part.shape[2]) for part in parts])


def read_probes(core: Core, z: FloatArray, solution: Solution, columns: slice) -> Probed:
    """What the solved probes say; `columns` are theirs in the solution.

    ``log |S| = log |P| + tr log(I + N)``, N with zero diagonal blocks. Each probe gives ``r' log(I + N) r`` by Lanczos
    quadrature, less ``r' N r``, whose expectation is 0.
    """
    q = z.shape[0]
    log_det = sum(P.log_det for P in core.preconditioner)
    remainders = [
        log_quadrature(tridiagonal) - (tridiagonal[0][0] - 1.0) for tridiagonal in solution.tridiagonals[columns]
    ]
    x = core.blocks.split(solution.x[:, columns])
    y = core.blocks.split(core.precondition(z))
    return Probed(x, y, log_det + q * np.array(remainders))


def core_traces(core: Core, probed: Probed) -> tuple[FloatArray, Vectors]:
    """What each probe says of ``sum_l (Z' V0^-1 Z)_ll``: for the eliminated factor and for each other, (n, k, k).

    For a factor b it is ``K (I + T T' K)^-1`` summed over levels less ``T'^-1 (x - y) y' T^-1``; for the eliminated one
    ``H A - H C (T P^-1 T' + T (x - y) y' T') C' H'``.
    """
    coupling, T_b = core.blocks.coupling, core.templates[1:]
    assert coupling is not None
    A, H = core.blocks.diagonal, core.outside()
    difference = tuple(x - y for x, y in zip(probed.x, probed.y, strict=True))
    explained = tuple(
        np.einsum("ij,jml,nm->inl", T, P.inverse, T) for T, P in zip(T_b, core.preconditioner, strict=True)
    )
    exact = coupling.level_quadratic(explained)
    both = tuple(
        np.einsum("ij,jln->iln", T, np.concatenate([d, y], axis=2))
        for T, d, y in zip(T_b, difference, probed.y, strict=True)
    )
    left, right = np.split(np.einsum("ijl,jln->iln", H, coupling.gather(both)), 2, axis=2)
    outside = multiply(H, A) - multiply(multiply(H, exact), H.transpose(1, 0, 2))
    first = outside.sum(axis=2) - _symmetric(np.einsum("iln,jln->nij", left, right))
    others = []
    for K, psi, T, d, y in zip(core.K, explained, T_b, difference, probed.y, strict=True):
        own = (K - multiply(multiply(K, psi), K)).sum(axis=2)
        T_inverse = np.linalg.pinv(T)
        others.append(own - T_inverse.T @ _symmetric(np.einsum("iln,jln->nij", d, y)) @ T_inverse)
    return first, tuple(others)


def _symmetric(blocks: FloatArray) -> FloatArray:
    """Symmetric parts of matrices (n, k, k)."""
    return 0.5 * (blocks + blocks.transpose(0, 2, 1))
