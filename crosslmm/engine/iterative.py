"""The iterative engine: conjugate gradients in place of a factor of the crossed core, probes in place of its inverse.

Factors with few levels join the fixed effects in a dense border (docs/theory.md, section 8). With G = [Z_s, X, y] the
border and V0 the covariance of the core alone, ``F = G' V0^-1 G`` and the solutions for the columns of G hold all that
the likelihood, the modes and the scores need; nothing there is sampled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from crosslmm.blas import cross
from crosslmm.covariance import FloatArray
from crosslmm.engine.border import Border, Folded
from crosslmm.engine.core import Core, CoreBlocks
from crosslmm.engine.plan import FEWEST_PROBES, IterativeEngine, Plan
from crosslmm.engine.probes import (
    Samples,
    complete,
    exact_traces,
    project,
    read_columns,
    right_hand_sides,
    shifts,
    signs,
)
from crosslmm.engine.protocol import Effects, Marginal, Products, Scores, Templates
from crosslmm.linalg import cg
from crosslmm.linalg.levels import apply

Vectors = tuple[FloatArray, ...]

DATA_TOLERANCE = 1e-8
"""Relative residual of the systems that estimates come from; what is quadratic in it is exact to rounding."""

PROBE_TOLERANCE = 1e-5
"""Relative residual of the probes' systems, far below what their number leaves uncertain."""

INNER_TOLERANCE = 1e-6
"""Relative residual of the systems of `inner`; the error of inner products is its square."""

WEAK = 0.01
"""Squared template times information per level below which probes are not divided by the template: what is left of
their residuals (`PROBE_TOLERANCE`) grows like the inverse of that, and the noise of other factors like its root."""

PROBES_AT_ONCE = 64
"""Right-hand sides of probes solved together; bounds the work space."""

RESOLUTION = 1e-8
"""Deviance units; a ten-thousandth of a standard error."""

MARGIN = 1.2
"""The number of probes that would just do is taken this many times: the error is itself estimated."""

MOST_AT_ONCE = 8.0
"""The error is brought down by no more than this factor at once."""


@dataclass(frozen=True)
class Solved:
    """Columns of the core with their solutions.

    Attributes
    ----------
    h_e : ndarray, shape (k_e, L_e, m)
        ``Z_e' W w`` for each column w.
    v : ndarray, shape (q, m)
        ``T' (h_b - C' Psi h_e)``.
    u, residual : ndarray, shape (q, m)
        Approximate ``S^-1 v``, and ``v - S u``.
    """

    h_e: FloatArray
    v: FloatArray
    u: FloatArray
    residual: FloatArray


def bilinear(core: Core, a: Solved, b: Solved) -> FloatArray:
    """``h_a' (A_core-inverse part) h_b``: what the core explains of ``w_a' W w_b``; shape (m_a, m_b).

    Its error is the product of the two residuals.
    """
    psi_h = np.einsum("ijl,jlm->ilm", core.first.psi, b.h_e)
    by_first = cross(a.h_e.reshape(-1, a.h_e.shape[2]), psi_h.reshape(-1, psi_h.shape[2]))
    return by_first + cross(a.u, b.v) + cross(a.residual, b.u)


@dataclass(frozen=True)
class IterativeEquations:
    """The equations of one model, split into core and border.

    Attributes
    ----------
    plan : Plan
    options : IterativeEngine
    n_probes : int
    order : tuple of int
        Factors of the layout: the eliminated one, those solved for by conjugate gradients, those of the border.
    core : CoreBlocks
    border : Border
    """

    plan: Plan
    options: IterativeEngine
    n_probes: int
    order: tuple[int, ...]
    core: CoreBlocks
    border: Border

    @property
    def resolution(self) -> float:
        """See `Equations.resolution`."""
        return RESOLUTION if self.n_probes else 0.0

    @property
    def asked_error(self) -> float:
        """See `Equations.asked_error`."""
        return self.options.error

    def sharper(self, ratio: float) -> IterativeEquations | None:
        """See `Equations.sharper`: the error falls with the root of the number of probes."""
        if not self.n_probes or ratio <= self.options.error:
            return None
        wanted = int(np.ceil(MARGIN * self.n_probes * min(ratio / self.options.error, MOST_AT_ONCE) ** 2))
        n = min(max(wanted, self.n_probes + FEWEST_PROBES), self.options.max_probes)
        if n <= self.n_probes:
            return None
        return replace(self, n_probes=n)

    def with_columns(self, border: tuple[FloatArray, ...], fixed: FloatArray) -> IterativeEquations:
        """See `Equations.with_columns`."""
        return replace(self, border=self.border.with_columns(tuple(border[f] for f in self.order), fixed))

    def at(self, templates: Templates) -> IterativeSystem:
        """See `Equations.at`."""
        ordered = tuple(templates[f] for f in self.order)
        n_core = 1 + len(self.core.shapes)
        core = self.core.at(ordered[:n_core])
        columns, samples, steps = _solve_columns(core, self.border, self.n_probes, self.options.seed)
        return IterativeSystem(self, core, ordered[n_core:], columns, samples, steps)


def _solve_columns(core: Core, border: Border, n_probes: int, seed: int) -> tuple[Solved, Samples | None, int]:
    """The columns of the border, the probes, and the steps they took; the first probes share the border's passes."""
    if not core.blocks.n_equations:
        nothing = np.zeros((0, border.n_columns))
        return Solved(border.first, nothing, nothing, nothing), None, 0
    v = _reduced_columns(core, border)
    Q = shifts(core)
    fixed = np.hstack([v, right_hand_sides(core, Q)])
    samples: list[Samples] = []
    c, steps = v.shape[1], 0
    for numbers in _chunks(n_probes):
        w = project(signs(core.blocks.shapes, numbers, seed), Q)
        z = right_hand_sides(core, w)
        own = 0 if samples else fixed.shape[1]
        tolerance = np.repeat([DATA_TOLERANCE, PROBE_TOLERANCE], [own, len(numbers)])
        solution = cg.solve(core.matrix, core.precondition, np.hstack([fixed[:, :own], z]), tolerance)
        if not samples:
            solved = Solved(border.first, v, solution.x[:, :c], solution.residual[:, :c])
            exact = read_columns(core, Q, fixed[:, c:], solution, slice(c, own))
        samples.append(read_columns(core, w, z, solution, slice(own, None)))
        steps += solution.steps
    return solved, complete(samples, exact), steps


def _reduced_columns(core: Core, border: Border, first: int = 0) -> FloatArray:
    """``T' (h_b - C' Psi h_e)`` of the border's columns from `first` on; shape (q, m)."""
    return core.transposed(core.reduce(border.first[:, :, first:], tuple(h[:, :, first:] for h in border.others)))


def _solve_response(system: IterativeSystem, border: Border) -> tuple[Solved, int]:
    """The columns of a border that differs from that of the system in the last one, and the steps it took."""
    core, old = system.core, system.columns
    if not core.blocks.n_equations:
        return replace(old, h_e=border.first), 0
    v = _reduced_columns(core, border, border.n_columns - 1)
    y = cg.solve(core.matrix, core.precondition, v, np.full(1, DATA_TOLERANCE))
    both = [np.hstack([a[:, :-1], b]) for a, b in ((old.v, v), (old.u, y.x), (old.residual, y.residual))]
    return Solved(border.first, *both), y.steps


def _chunks(n: int, columns: int = 1) -> list[range]:
    """Numbers of n probes in sets that are solved together, where each is so many right-hand sides."""
    size = max(PROBES_AT_ONCE // columns, 1)
    return [range(low, min(low + size, n)) for low in range(0, n, size)]


@dataclass(frozen=True)
class IterativeSystem:
    """See `crosslmm.engine.protocol.System`.

    Attributes
    ----------
    equations : IterativeEquations
    core : Core
    small : tuple of ndarray
        Templates of the factors of the border.
    columns : Solved
        The columns of the border.
    samples : Samples or None
        None where nothing is sampled.
    steps : int
    """

    equations: IterativeEquations
    core: Core
    small: Templates
    columns: Solved
    samples: Samples | None
    steps: int

    @cached_property
    def gram(self) -> FloatArray:
        """``F = G' V0^-1 G``; shape (c, c)."""
        F = self.equations.border.gram - bilinear(self.core, self.columns, self.columns)
        return 0.5 * (F + F.T)

    @cached_property
    def folded(self) -> Folded:
        """The factors of the border taken into the covariance."""
        return self.equations.border.fold(self.gram, self.small)

    @property
    def fixed(self) -> FloatArray:
        """See `System.fixed`."""
        return self.folded.fixed

    @cached_property
    def log_det(self) -> float:
        """See `System.log_det`."""
        preconditioner = sum(P.log_det for P in self.core.preconditioner)
        sampled = 0.0 if self.samples is None else float(self.samples.log_dets.mean())
        return self.core.first.log_det + preconditioner + sampled + self.folded.log_det

    @cached_property
    def log_det_error(self) -> float:
        """See `System.log_det_error`."""
        if self.samples is None:
            return 0.0
        return float(self.samples.log_dets.std(ddof=1) / np.sqrt(self.samples.log_dets.size))

    @property
    def log_det_samples(self) -> FloatArray:
        """See `System.log_det_samples`."""
        return np.zeros(0) if self.samples is None else self.samples.log_dets

    def with_response(self, equations: IterativeEquations) -> IterativeSystem:
        """See `System.with_response`; only the response is solved for."""
        columns, steps = _solve_response(self, equations.border)
        return replace(self, equations=equations, columns=columns, steps=steps)

    @cached_property
    def modes(self) -> Vectors:
        """Modes of the factors b for every column of the border; each (k, L, c)."""
        return self.core.scaled(self.columns.u)

    @cached_property
    def remainder(self) -> FloatArray:
        """``Z_e' W (g - Z_b b)`` for every column g of the border; shape (k_e, L_e, c)."""
        return self.core.remainder(self.equations.border.first, self.modes)

    @cached_property
    def scores(self) -> Vectors:
        """``Z' V0^-1 G`` of the factors e, b; each (k, L, c)."""
        first = np.einsum("ijl,jlc->ilc", self.core.outside, self.remainder)
        if not self.modes:
            return (first,)
        border = self.equations.border
        others = self.core.reduce(border.first, border.others)
        explained = self.core.reduced_gram(self.modes)
        return (first, *(h - K for h, K in zip(others, explained, strict=True)))

    def effects(self, beta: FloatArray) -> Effects:
        """See `System.effects`."""
        a = self.folded.contrast(np.append(-beta, 1.0))
        first = np.einsum("ijl,jlc,c->il", self.core.first.psi, self.remainder, a)
        modes = [first, *(np.einsum("klc,c->kl", b, a) for b in self.modes)]
        scores = [np.einsum("klc,c->kl", s, a) for s in self.scores]
        border = self.equations.border
        modes += [-part[:, :, 0] for part in border.split(a[: border.n_effects, None])]
        scores += [part[:, :, 0] for part in border.split((self.gram[: border.n_effects] @ a)[:, None])]
        return Effects(self._layout_order(modes), self._layout_order(scores))

    def inner(self, z: Templates) -> Products:
        """See `System.inner`."""
        ordered = tuple(z[f] for f in self.equations.order)
        n_core = 1 + len(self.core.blocks.shapes)
        zz, zg, steps = self._core_products(ordered[:n_core])
        s = self.equations.border.join(ordered[n_core:], zz.shape[0])
        F = self.gram[: s.shape[0]]
        zz = zz + zg[:, : s.shape[0]] @ s + s.T @ zg[:, : s.shape[0]].T + s.T @ F[:, : s.shape[0]] @ s
        zg = zg + s.T @ F
        zz, zx = self.folded.project(zz, zg)
        return Products(0.5 * (zz + zz.T), zx[:, :-1], steps)

    def fixed_scores(self) -> Templates:
        """See `System.fixed_scores`."""
        s, p = self.equations.border.n_effects, self.fixed.shape[0] - 1
        a = np.stack([self.folded.contrast(unit) for unit in np.eye(p, p + 1)], axis=1) if p else np.zeros((s + 1, 0))
        scores = [np.einsum("klc,cp->klp", part, a) for part in self.scores]
        scores += self.equations.border.split(self.gram[:s] @ a)
        return self._layout_order(scores)

    def random_scores(self, z: Templates) -> Scores:
        """See `System.random_scores`."""
        ordered = tuple(z[f] for f in self.equations.order)
        n_core = 1 + len(self.core.blocks.shapes)
        core, zg, steps = self._core_scores(ordered[:n_core])
        border = self.equations.border
        s = border.n_effects
        own, F = zg[:, :s].T, self.gram[:s, :s]
        z_s = border.join(ordered[n_core:], zg.shape[0])
        left = z_s - self.folded.effects(own + F @ z_s)
        scores = [part + np.einsum("kls,sm->klm", g[:, :, :s], left) for part, g in zip(core, self.scores, strict=True)]
        scores += border.split(own + F @ left)
        return Scores(self._layout_order(scores), steps)

    def _core_products(self, z: Vectors) -> tuple[FloatArray, FloatArray, int]:
        """``(Zz)' V0^-1 (Zz)`` and ``(Zz)' V0^-1 G`` for z of the factors e, b."""
        h, solved, steps = self._core_solve(z, INNER_TOLERANCE)
        m = z[0].shape[2]
        zz = -bilinear(self.core, solved, solved)
        for part, own in zip(z, h, strict=True):
            zz += cross(part.reshape(-1, m), own.reshape(-1, m))
        return zz, self._with_border(z, solved), steps

    def _with_border(self, z: Vectors, solved: Solved) -> FloatArray:
        """``(Zz)' V0^-1 G`` from the solution for z of the factors e, b; shape (m, c)."""
        border, m = self.equations.border, z[0].shape[2]
        zg = -bilinear(self.core, solved, self.columns)
        for part, g in zip(z, (border.first, *border.others), strict=True):
            zg += cross(part.reshape(-1, m), g.reshape(-1, border.n_columns))
        return zg

    def _core_scores(self, z: Vectors) -> tuple[Vectors, FloatArray, int]:
        """``Z' V0^-1 (Zz)`` of the factors e, b, and ``(Zz)' V0^-1 G``, for z of the factors e, b."""
        h, solved, steps = self._core_solve(z, DATA_TOLERANCE)
        modes = self.core.scaled(solved.u)
        first = np.einsum("ijl,jlm->ilm", self.core.outside, self.core.remainder(h[0], modes))
        zg = self._with_border(z, solved)
        if not modes:
            return (first,), zg, steps
        explained = self.core.reduced_gram(modes)
        others = (a - K for a, K in zip(self.core.reduce(h[0], h[1:]), explained, strict=True))
        return (first, *others), zg, steps

    def _core_solve(self, z: Vectors, tolerance: float) -> tuple[Vectors, Solved, int]:
        """``Z'W Zz`` of the factors e, b, and its solution."""
        blocks = self.core.blocks
        h_e = np.einsum("ijl,jlm->ilm", blocks.diagonal, z[0])
        if blocks.coupling is None:
            nothing = np.zeros((0, z[0].shape[2]))
            return (h_e,), Solved(h_e, nothing, nothing, nothing), 0
        h_e = h_e + blocks.coupling.gather(z[1:])
        own = blocks.gram.apply(z[1:])
        h_b = tuple(a + b for a, b in zip(own, blocks.coupling.scatter(z[0]), strict=True))
        v = self.core.transposed(self.core.reduce(h_e, h_b))
        solution = cg.solve(self.core.matrix, self.core.precondition, v, np.full(v.shape[1], tolerance))
        return (h_e, *h_b), Solved(h_e, v, solution.x, solution.residual), solution.steps

    def marginal(self, *, reml: bool) -> Marginal:
        """See `System.marginal`."""
        R = self.folded.spread(reml=reml)
        samples, steps = self._core_samples()
        blocks = []
        for sampled, scores in zip(samples, self.scores, strict=True):
            N = np.einsum("klc,cd->kld", scores[:, :, : R.shape[0]], R)
            blocks.append(sampled.mean(axis=0) - np.einsum("ild,jld->ij", N, N))
        n = self.equations.n_probes
        deviations = [(s - s.mean(axis=0))[:n] for s in samples]
        small = self.equations.border.marginal(self.gram, R)
        deviations += [np.zeros((n, *B.shape)) for B in small]
        return Marginal(self._layout_order([*blocks, *small]), self._layout_order(deviations), steps)

    def _core_samples(self) -> tuple[Vectors, int]:
        """What each probe says of ``sum_l (Z' V0^-1 Z)_ll`` of the factors e, b; each (n, k, k), n = 1 if exact."""
        first, others = exact_traces(self.core)
        if self.samples is None:
            return (first[None],), 0
        result, steps = [first + self.samples.first], 0
        for b, (exact, sampled) in enumerate(zip(others, self.samples.others, strict=True)):
            T, D = self.core.templates[1 + b], self.core.blocks.gram.diagonal[b]
            if np.linalg.svd(T, compute_uv=False)[-1] ** 2 * np.trace(D.mean(axis=2)) >= WEAK:
                result.append(exact + sampled)
                continue
            weak, more = self._weak_samples(b)
            result.append(weak)
            steps += more
        return tuple(result), steps

    def _weak_samples(self, b: int) -> tuple[FloatArray, int]:
        """`_core_samples` of one factor whose template is not divided by: ``(Zr)' V0^-1 (Zr)`` for signs r."""
        A, shapes = self.core.blocks.diagonal, self.core.blocks.shapes
        k, n_levels = shapes[b]
        found, steps = [], 0
        for numbers in _chunks(self.equations.n_probes, k):
            r = signs(((1, n_levels),), numbers, self.equations.options.seed)[0]
            z = [np.zeros((*shape, k * len(numbers))) for shape in ((A.shape[0], A.shape[2]), *shapes)]
            for i in range(k):
                z[1 + b][i, :, i * len(numbers) : (i + 1) * len(numbers)] = r[0]
            zz, _, more = self._core_products(tuple(z))
            same = (zz - self._between_levels(b, z)).reshape(k, len(numbers), k, len(numbers))
            found.append(np.einsum("injn->nij", same))
            steps += more
        return np.concatenate(found), steps

    def _between_levels(self, b: int, z: list[FloatArray]) -> FloatArray:
        """What `_core_products` of signs z of factor b have, to first order, of products between levels: 0 in the mean.

        ``z' G' O G z`` with O the blocks of K between levels, ``G = (I + T T' K_l)^-1`` (docs/theory.md, section 8).
        """
        K = self.core.K[b]
        Gz = z[1 + b] - apply(self.core.psi[b], apply(K, z[1 + b]))
        whole = [np.zeros_like(part) for part in z[1:]]
        whole[b] = Gz
        between = self.core.reduced_gram(tuple(whole))[b] - apply(K, Gz)
        m = Gz.shape[2]
        return cross(Gz.reshape(-1, m), between.reshape(-1, m))

    def _layout_order(self, parts: list[FloatArray]) -> Templates:
        """Parts in the order of the equations, in the order of the layout."""
        order = self.equations.order
        return tuple(parts[order.index(f)] for f in range(len(parts)))
