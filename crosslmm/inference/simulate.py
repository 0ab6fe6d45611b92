"""Responses drawn from a fitted model, as cross-products: no row is made (docs/bootstrap.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.inference.noise import Noise, largest_first, level_roots
from crosslmm.inference.noise_factored import factored_noise
from crosslmm.inference.noise_lanczos import enough_rows, lanczos_noise
from crosslmm.layout import Layout
from crosslmm.linalg.pairs import GramOperator, gram_operator

FACTORED = 2_000
"""Effects beside the largest factor up to which their noise has a dense root; a second of work at most."""


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


def standard_truth(layout: Layout, beta: FloatArray, sigma: float, theta: FloatArray) -> Truth:
    """Parameters in the units of the data as they are in standardised coordinates (docs/theory.md, eq. (9)-(12))."""
    standard = layout.standardization
    own = np.linalg.solve(standard.x_basis, beta - standard.origin) / standard.scale
    templates = layout.templates(layout.to_standard(theta))
    return Truth(np.asarray(own, dtype=np.float64), sigma / standard.scale, templates)


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

    def one(self, xp: CrossProducts, r: int) -> CrossProducts:
        """The cross-products `xp` with response r in place of theirs."""
        border = []
        for old, new in zip(xp.border, self.border, strict=True):
            both = old.copy()
            both[:, :, -1] = new[:, :, r]
            border.append(both)
        fixed = xp.fixed.copy()
        fixed[:-1, -1] = fixed[-1, :-1] = self.fixed[:, r]
        fixed[-1, -1] = self.squares[r]
        return replace(xp, border=tuple(border), fixed=fixed)


@dataclass(frozen=True)
class Simulator:
    """Everything that draws have in common.

    Attributes
    ----------
    xp : CrossProducts
    truth : Truth
    gram : GramOperator
        ``Z'WZ``.
    noise : Noise
    """

    xp: CrossProducts
    truth: Truth
    gram: GramOperator
    noise: Noise


def simulator(xp: CrossProducts, truth: Truth) -> Simulator:
    """Prepare to draw responses.

    Raises
    ------
    ResourceError
        There are more effects than rows, and too many for a dense root.
    """
    return Simulator(xp, truth, gram_operator(xp.diagonal, xp.pairs), noise_of(xp))


def noise_of(xp: CrossProducts) -> Noise:
    """The noise of a design, by the root that suits its size."""
    order = largest_first(xp)
    roots = level_roots(xp.diagonal[order[0]])
    size = sum(xp.layout.factors[f].n_effects for f in order[1:]) + xp.layout.n_fixed
    if len(order) == 1 or size <= FACTORED or not enough_rows(xp, roots, size):
        return factored_noise(xp, order, roots)
    return lanczos_noise(xp, order, roots)


def draw(of: Simulator, generators: Sequence[np.random.Generator]) -> Responses:
    """One response for each generator."""
    xp, truth = of.xp, of.truth
    shapes = [(D.shape[0], D.shape[2]) for D in xp.diagonal]
    sizes = [k * n for k, n in shapes]
    normal, chi = _numbers(of.noise, generators, sum(sizes))
    r = len(generators)
    starts = np.cumsum([0, *sizes])
    effects = [
        truth.sigma * np.einsum("ij,jlr->ilr", T, normal[a:b].reshape(k, n, r))
        for T, (k, n), a, b in zip(truth.templates, shapes, starts, starts[1:], strict=False)
    ]
    explained = of.gram.apply(tuple(effects))
    noise = of.noise.draw(normal[starts[-1] :])
    p = xp.layout.n_fixed
    means = [border[:, :, :p] @ truth.beta for border in xp.border]
    moved = sum(
        (np.einsum("klp,klr->pr", B[:, :, :p], b) for B, b in zip(xp.border, effects, strict=True)), np.zeros((p, r))
    )
    mean_x, noise_x = xp.fixed[:p, :p] @ truth.beta, truth.sigma * noise.fixed
    squares = truth.beta @ mean_x + 2.0 * truth.beta @ (moved + noise_x) + truth.sigma**2 * (noise.squares + chi)
    border = []
    for mean, b, Ab, v in zip(means, effects, explained, noise.border, strict=True):
        squares = squares + np.einsum("klr,klr->r", b, Ab + 2.0 * truth.sigma * v)
        border.append(mean[:, :, None] + Ab + truth.sigma * v)
    return Responses(tuple(border), mean_x[:, None] + moved + noise_x, squares)


def _numbers(of: Noise, generators: Sequence[np.random.Generator], q: int) -> tuple[FloatArray, FloatArray]:
    """Standard normal numbers (q + numbers, r) and chi-squared ones (r,), each column from its own generator."""
    normal = np.empty((len(generators), q + of.numbers))
    chi = np.zeros(len(generators))
    for row, generator in enumerate(generators):
        generator.standard_normal(out=normal[row])
        chi[row] = generator.chisquare(of.degrees) if of.degrees else 0.0
    return np.ascontiguousarray(normal.T), chi
