"""The noise of a response as estimation sees it: ``v = G'We`` and ``e'We`` for ``G = [Z, X]``, ``e ~ N(0, W^-1)``.

Their joint distribution is known exactly (docs/bootstrap.md): ``v = R z`` for any root ``R R' = G'WG`` and z standard
normal, and ``e'We = z'z + chi2`` with n minus the length of z degrees of freedom. The largest factor comes first, level
by level; what it does not explain of the others has a root of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts

RANK = 1e-10
"""Part of its sum of squares that a column must have outside the others to count for the rank."""


@dataclass(frozen=True)
class Drawn:
    """Noise of r responses, residual variance 1.

    Attributes
    ----------
    border : tuple of ndarray, each (k, L, r)
        ``Z'We`` by factor of the layout.
    fixed : ndarray, shape (p, r)
        ``X'We``.
    squares : ndarray, shape (r,)
        The part of ``e'We`` that belongs to these; the rest is chi-squared.
    """

    border: tuple[FloatArray, ...]
    fixed: FloatArray
    squares: FloatArray


class Noise(Protocol):
    """A design's noise."""

    @property
    def numbers(self) -> int:
        """Standard normal numbers that a draw takes."""

    @property
    def degrees(self) -> int:
        """Degrees of freedom of the chi-squared rest of ``e'We``."""

    def draw(self, z: FloatArray) -> Drawn:
        """The noise that r columns of standard normal numbers (numbers, r) give."""


@dataclass(frozen=True)
class LevelRoots:
    """Roots of the blocks ``A_l`` of one factor, level by level; columns that are not there are 0.

    Attributes
    ----------
    root, white : ndarray, shape (k, k, L)
        R with ``R R' = A``, and the transposed pseudo-inverse of R.
    there : ndarray of bool, shape (k, L)
        Which columns are there.
    """

    root: FloatArray
    white: FloatArray
    there: NDArray[np.bool_]

    @property
    def rank(self) -> int:
        """Rank of all blocks together."""
        return int(self.there.sum())


def level_roots(A: FloatArray) -> LevelRoots:
    """Roots of blocks (k, k, L) by their eigenvalues."""
    unit = np.sqrt(np.maximum(np.einsum("iil->li", A), np.finfo(float).tiny))
    values, vectors = np.linalg.eigh(A.transpose(2, 0, 1) / (unit[:, :, None] * unit[:, None, :]))
    there = values > RANK
    size = np.sqrt(np.where(there, values, 1.0))
    root = np.where(there[:, None, :], unit[:, :, None] * vectors * size[:, None, :], 0.0)
    white = np.where(there[:, None, :], vectors / (unit[:, :, None] * size[:, None, :]), 0.0)
    first, second = (np.ascontiguousarray(B.transpose(1, 2, 0)) for B in (root, white))
    return LevelRoots(first, second, there.T)


def largest_first(xp: CrossProducts) -> tuple[int, ...]:
    """Factors, the largest first, the others as in the layout."""
    factors = xp.layout.factors
    first = max(range(len(factors)), key=lambda f: factors[f].n_effects)
    return first, *(f for f in range(len(factors)) if f != first)
