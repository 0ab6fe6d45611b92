"""Random probes, and the traces and the log-determinant that are estimated with them (docs/theory.md, section 8).

Let w be a vector in the coordinates of B = L_P^-1 S L_P'^-1, where L_P L_P' = P is the preconditioner, and z = L_P w,
x = S^-1 z, y = P^-1 z. Summed over an orthonormal basis of w, x y' is S^-1. Two things leave less to chance: x and y
agree but for what the preconditioner leaves out, so only x - y is summed and the rest is exact; and the basis begins
with the directions in which a whole factor shifts, which hold the smallest eigenvalues of a crossed design. The sum
over what is orthogonal to these is the mean over probes: vectors w of independent signs, projected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosslmm.blas import cross
from crosslmm.covariance import FloatArray
from crosslmm.engine.core import Core
from crosslmm.linalg.cg import Solution, log_quadrature
from crosslmm.linalg.levels import by_factor, multiply

Vectors = tuple[FloatArray, ...]


def signs(shapes: tuple[tuple[int, int], ...], numbers: range, seed: int) -> Vectors:
    """Independent signs of the probes with these numbers, by factor (k, L, n); each depends on its number alone."""
    size = sum(k * n_levels for k, n_levels in shapes)
    bits = [np.random.default_rng([seed, number]).integers(0, 2, size, dtype=np.int8) for number in numbers]
    r = np.asarray(2.0 * np.stack(bits, axis=1) - 1.0, dtype=np.float64)
    return by_factor(r, shapes)


@dataclass(frozen=True)
class Samples:
    """What each of n probes says.

    Attributes
    ----------
    log_dets : ndarray, shape (n,)
        Of ``log |S| - log |P|``.
    first : ndarray, shape (n, k_e, k_e)
        Of ``sum_l (Z' V0^-1 Z)_ll`` of the eliminated factor, beyond `exact_traces`.
    others : tuple of ndarray, each (n, k, k)
        The same of the factors b.
    """

    log_dets: FloatArray
    first: FloatArray
    others: Vectors


def shifts(core: Core) -> FloatArray:
    """Orthonormal basis of the directions in which a column of a factor shifts in all its levels; shape (q, d)."""
    columns = []
    for f, P in enumerate(core.preconditioner):
        for j in range(P.root.shape[0]):
            parts = [np.zeros(shape) for shape in core.blocks.shapes]
            parts[f] = P.root[j]
            columns.append(np.concatenate([part.ravel() for part in parts]))
    return np.asarray(np.linalg.qr(np.stack(columns, axis=1))[0], dtype=np.float64)


def project(r: Vectors, Q: FloatArray) -> FloatArray:
    """Signs by factor as one array (q, n), without their part in the span of Q (q, d)."""
    w = np.concatenate([part.reshape(-1, part.shape[2]) for part in r])
    return w - Q @ cross(Q, w)


def right_hand_sides(core: Core, w: FloatArray) -> FloatArray:
    """``z = L_P w`` for w (q, n)."""
    parts = [
        np.einsum("ijl,jln->iln", P.root, own) for P, own in zip(core.preconditioner, core.blocks.split(w), strict=True)
    ]
    return np.concatenate([part.reshape(-1, part.shape[2]) for part in parts])


def read_columns(core: Core, w: FloatArray, z: FloatArray, solution: Solution, columns: slice) -> Samples:
    """What the solved columns w say, each by itself; `columns` are theirs in the solution.

    ``log |S| - log |P| = tr log(I + N)``, N with zero diagonal blocks. Each column gives ``w' log(I + N) w`` by Lanczos
    quadrature, less ``w' N w``, whose sum is 0. The traces are ``- H C T (x - y) y' T' C' H'`` and
    ``- T'^-1 (x - 2 y + P^-1 S y) y' T^-1``, in the latter less the first order, whose sum is 0 (theory eq. (35)-(36)).
    """
    remainders = [
        log_quadrature((diagonal, off)) - (diagonal[0] - 1.0) if diagonal.size else 0.0  # w = 0: the signs were a shift
        for diagonal, off in solution.tridiagonals[columns]
    ]
    x = core.blocks.split(solution.x[:, columns])
    y = core.blocks.split(core.precondition(z))
    image = core.blocks.split(core.precondition(solution.image[:, columns]))
    difference = tuple(a - b for a, b in zip(x, y, strict=True))
    second = tuple(d - b + s for d, b, s in zip(difference, y, image, strict=True))
    T_b = core.templates[1:]
    both = tuple(
        np.einsum("ij,jln->iln", T, np.concatenate([d, own], axis=2))
        for T, d, own in zip(T_b, difference, y, strict=True)
    )
    left, right = np.split(np.einsum("ijl,jln->iln", core.outside, core.gather(both)), 2, axis=2)
    others = []
    for T, d, own in zip(T_b, second, y, strict=True):
        T_inverse = np.linalg.pinv(T)
        others.append(-T_inverse.T @ _symmetric(np.einsum("iln,jln->nij", d, own)) @ T_inverse)
    first = -_symmetric(np.einsum("iln,jln->nij", left, right))
    return Samples(np.einsum("qn,qn->n", w, w) * np.array(remainders), first, tuple(others))


def complete(probes: list[Samples], exact: Samples) -> Samples:
    """Samples of all probes, each with the sum over the columns that are not left to chance."""
    return Samples(
        np.concatenate([part.log_dets for part in probes]) + exact.log_dets.sum(),
        np.concatenate([part.first for part in probes]) + exact.first.sum(axis=0),
        tuple(
            np.concatenate(blocks) + own.sum(axis=0)
            for blocks, own in zip(zip(*(part.others for part in probes), strict=True), exact.others, strict=True)
        ),
    )


def exact_traces(core: Core) -> tuple[FloatArray, Vectors]:
    """The part of ``sum_l (Z' V0^-1 Z)_ll`` that is not sampled: S replaced by the preconditioner.

    ``H A - H C T P^-1 T' C' H'`` for the eliminated factor, ``K (I + T T' K)^-1`` for each other, summed over levels.
    """
    A, H = core.blocks.diagonal, core.outside
    first = multiply(H, A)
    if core.psi:
        first = first - multiply(multiply(H, core.level_quadratic(core.psi)), H.transpose(1, 0, 2))
    others = [(K - multiply(multiply(K, own), K)).sum(axis=2) for K, own in zip(core.K, core.psi, strict=True)]
    return first.sum(axis=2), tuple(others)


def _symmetric(blocks: FloatArray) -> FloatArray:
    """Symmetric parts of matrices (n, k, k)."""
    return 0.5 * (blocks + blocks.transpose(0, 2, 1))
