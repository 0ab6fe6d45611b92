"""The direct engine: the largest factor eliminated level by level, the rest by an exact Cholesky factor.

With e the eliminated factor and r all others (docs/theory.md, eq. (17)-(26)):
``Psi_l = T (T' A_l T + I)^-1 T'`` per level of e, then ``S = T'(A_rr - C' Psi C)T + I`` for r, then the
``(p + 1, p + 1)`` matrix ``[X, y]' V^-1 [X, y]``. Nothing is divided by a template, so singular ones are exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np

from crosslmm.blas import cross
from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.engine.plan import DirectEngine, Plan
from crosslmm.engine.protocol import Effects, ExactEquations, ExactSystem, Marginal, Products, Scores, Templates
from crosslmm.engine.symbolic import Symbolic, analyze
from crosslmm.linalg.coupling import Coupling, Scaled, build_coupling
from crosslmm.linalg.dense import solve_lower
from crosslmm.linalg.levels import Elimination, apply, eliminate, multiply
from crosslmm.linalg.pairs import GramOperator, gram_operator
from crosslmm.linalg.rest import RestFactor, RestInverse

WEAK = 1e-8
"""Squared template times information per level below which it is not divided by: half the digits would be lost."""

LEVELS_AT_ONCE = 256
"""Levels whose columns are solved together at such a template; bounds the work space."""


@dataclass(frozen=True)
class DirectEquations(ExactEquations):
    """The equations of one model, analysed once.

    Attributes
    ----------
    symbolic : Symbolic
    diagonal, border : tuple of ndarray
        Blocks of the cross-products, factors in the order of the elimination.
    fixed : ndarray, shape (p + 1, p + 1)
    gram : GramOperator
        ``Z'WZ``, factors in the order of the layout.
    coupling : Coupling
    """

    symbolic: Symbolic
    diagonal: tuple[FloatArray, ...]
    border: tuple[FloatArray, ...]
    fixed: FloatArray
    gram: GramOperator
    coupling: Coupling

    @property
    def plan(self) -> Plan:
        """How the equations are stored and solved."""
        return self.symbolic.plan

    def with_columns(self, border: tuple[FloatArray, ...], fixed: FloatArray) -> DirectEquations:
        """See `Equations.with_columns`."""
        return replace(self, border=tuple(border[f] for f in self.symbolic.order), fixed=fixed)

    def at(self, templates: Templates) -> DirectSystem:
        """See `Equations.at`."""
        ordered = tuple(templates[f] for f in self.symbolic.order)
        first = eliminate(self.diagonal[0], ordered[0])
        scaled = self.coupling.scaled(ordered[1:])
        rest = self.symbolic.rest.factorize(ordered[1:], scaled, first.psi)
        return DirectSystem(self, ordered, first, scaled, rest)


def prepare(xp: CrossProducts, options: DirectEngine) -> DirectEquations:
    """Analyse the cross-products once for any number of evaluations."""
    symbolic = analyze(xp, options)
    order = symbolic.order
    first = xp.layout.factors[order[0]]
    shape = (first.size, first.n_levels, symbolic.rest.matrix.n_columns)
    return DirectEquations(
        symbolic=symbolic,
        diagonal=tuple(xp.diagonal[f] for f in order),
        border=tuple(xp.border[f] for f in order),
        fixed=xp.fixed,
        gram=gram_operator(xp.diagonal, xp.pairs),
        coupling=build_coupling(symbolic.blocks, shape, compiled=symbolic.compiled),
    )


@dataclass(frozen=True)
class DirectSystem(ExactSystem):
    """See `crosslmm.engine.protocol.System`; templates in the order of the elimination."""

    equations: DirectEquations
    templates: Templates
    first: Elimination
    scaled: Scaled
    rest: RestFactor

    @property
    def log_det(self) -> float:
        """See `System.log_det`."""
        return self.first.log_det + self.rest.log_det

    def with_response(self, equations: DirectEquations) -> DirectSystem:
        """See `System.with_response`."""
        return replace(self, equations=equations)

    @cached_property
    def border_first(self) -> FloatArray:
        """``Psi Z_e' W [X, y]``; shape (k, L, p + 1)."""
        return apply(self.first.psi, self.equations.border[0])

    @cached_property
    def border_rest(self) -> FloatArray:
        """``L^-1 T' (Z_r' W - C' Psi Z_e' W) [X, y]``; shape (q, p + 1)."""
        return self.rest.half_solve(self._reduce(self.equations.border[1:], self.border_first))

    @cached_property
    def fixed(self) -> FloatArray:
        """See `System.fixed`."""
        raw = self.equations.border[0]
        size = raw.shape[2]
        explained = cross(raw.reshape(-1, size), self.border_first.reshape(-1, size))
        return self.equations.fixed - explained - cross(self.border_rest, self.border_rest)

    def effects(self, beta: FloatArray) -> Effects:
        """See `System.effects`."""
        contrast = np.append(-beta, 1.0)
        u = self.rest.half_solve_transposed(np.einsum("qp,p->q", self.border_rest, contrast)[:, None])
        targets = [np.einsum("klp,p->kl", border, contrast) for border in self.equations.border]
        modes = [np.einsum("ijl,jl->il", self.first.psi, targets[0] - self.scaled.apply(u)[:, :, 0])]
        start = 0
        for T, border in zip(self.templates[1:], self.equations.border[1:], strict=True):
            k, n_levels = border.shape[:2]
            modes.append(np.einsum("ij,jl->il", T, u[start : start + k * n_levels, 0].reshape(k, n_levels)))
            start += k * n_levels
        in_layout = self._layout_order(modes)
        explained = self.equations.gram.apply(tuple(b[:, :, None] for b in in_layout))
        scores = tuple(t - e[:, :, 0] for t, e in zip(self._layout_order(targets), explained, strict=True))
        return Effects(in_layout, scores)

    def inner(self, z: Templates) -> Products:
        """See `System.inner`."""
        order = self.equations.symbolic.order
        h_layout = self.equations.gram.apply(z)
        h = tuple(h_layout[f] for f in order)
        m = h[0].shape[2]
        h_first = apply(self.first.psi, h[0])
        h_rest = self.rest.half_solve(self._reduce(h[1:], h_first))
        size = self.fixed.shape[0]
        zz = -cross(h[0].reshape(-1, m), h_first.reshape(-1, m)) - cross(h_rest, h_rest)
        zx = -cross(h_first.reshape(-1, m), self.equations.border[0].reshape(-1, size))
        zx -= cross(h_rest, self.border_rest)
        for f, hf in enumerate(h_layout):
            zf = z[f].reshape(-1, m)
            zz += cross(zf, hf.reshape(-1, m))
            zx += cross(zf, self.equations.border[order.index(f)].reshape(-1, size))
        return Products(0.5 * (zz + zz.T), zx[:, :-1], 0)

    def fixed_scores(self) -> Templates:
        """See `System.fixed_scores`."""
        h = tuple(border[:, :, :-1] for border in self.equations.border)
        return self._scores(h, self._layout_order(list(h)), self.border_rest[:, :-1])

    def random_scores(self, z: Templates) -> Scores:
        """See `System.random_scores`."""
        in_layout = self.equations.gram.apply(z)
        h = tuple(in_layout[f] for f in self.equations.symbolic.order)
        reduced = self._reduce(h[1:], apply(self.first.psi, h[0]))
        return Scores(self._scores(h, in_layout, self.rest.half_solve(reduced)), 0)

    def _scores(self, h: Templates, in_layout: Templates, half: FloatArray) -> Templates:
        """``Z' V^-1 w`` of columns w from ``h = Z'W w``, in both orders of the factors, and ``L^-1 T' (...)`` of it."""
        u = self.rest.half_solve_transposed(half)
        modes = [apply(self.first.psi, h[0] - self.scaled.apply(u))]
        start = 0
        for T, part in zip(self.templates[1:], h[1:], strict=True):
            k, n_levels, m = part.shape
            own = u[start : start + k * n_levels].reshape(k, n_levels, m)
            modes.append(np.einsum("ij,jlm->ilm", T, own))
            start += k * n_levels
        explained = self.equations.gram.apply(self._layout_order(modes))
        return tuple(total - part for total, part in zip(in_layout, explained, strict=True))

    def marginal(self, *, reml: bool) -> Marginal:
        """See `System.marginal`."""
        inverse = self.rest.inverse()
        explain = reml and self.fixed.shape[0] > 1
        R = cast(FloatArray, np.linalg.cholesky(self.fixed[:-1, :-1])) if explain else None
        D = self.rest.half_solve_transposed(self.border_rest[:, :-1])
        result = [self._first_marginal(inverse, D, R)]
        spread = np.zeros((D.shape[0], 0)) if R is None else solve_lower(R, D.T).T
        offsets = self.equations.symbolic.rest.matrix.offsets
        for g, T in enumerate(self.templates[1:]):
            A = self.equations.diagonal[g + 1]
            k, _, n_levels = A.shape
            if np.linalg.svd(T, compute_uv=False)[-1] ** 2 * np.trace(A.mean(axis=2)) < WEAK:
                result.append(self._weak_marginal(g, R))
                continue
            N = spread[offsets[g] : offsets[g + 1]].reshape(k, n_levels * spread.shape[1])
            W = inverse.block_sum(offsets[g], k, n_levels) + cross(N.T, N.T)
            T_inverse = np.linalg.inv(T)
            result.append(T_inverse.T @ (n_levels * np.eye(k) - W) @ T_inverse)
        blocks = self._layout_order(result)
        return Marginal(blocks, tuple(np.zeros((0, *B.shape)) for B in blocks), 0)

    def _first_marginal(self, inverse: RestInverse, D: FloatArray, R: FloatArray | None) -> FloatArray:
        """The eliminated factor: ``sum_l H_l A_l - H_l Q_l H_l'`` with ``H_l = I - A_l Psi_l``, theory eq. (23)."""
        A = self.equations.diagonal[0]
        k, _, n_levels = A.shape
        Q = inverse.quadratic(self.scaled)
        if R is not None:
            residual = self.scaled.apply(D) - self.equations.border[0][:, :, :-1]
            N = solve_lower(R, residual.reshape(k * n_levels, -1).T).T.reshape(k, n_levels, -1)
            Q = Q + np.einsum("ilp,jlp->ijl", N, N)
        H = np.eye(k)[:, :, None] - multiply(A, self.first.psi)
        return (multiply(H, A) - multiply(multiply(H, Q), H.transpose(1, 0, 2))).sum(axis=2)

    def _weak_marginal(self, g: int, R: FloatArray | None) -> FloatArray:
        """Factor g of the rest at a template that cannot be divided by, theory eq. (26).

        ``B = sum_l (S_gg - Y' S^-1 Y)_ll`` less the fixed-effects part, where S is taken with the identity in place of
        the factor's own template and ``Y = T' S_.g``; a few levels at a time.
        """
        equations, first = self.equations, self.first
        T = self.templates[g + 1]
        plain = (*self.templates[1 : g + 1], np.eye(T.shape[0]), *self.templates[g + 2 :])
        scaled = equations.coupling.scaled(plain)
        S = equations.symbolic.rest.assemble(plain, scaled, first.psi)
        border = _reduced(plain, equations.border[1:], scaled, self.border_first)[:, :-1]
        k, n_levels = equations.border[g + 1].shape[:2]
        offset = equations.symbolic.rest.matrix.offsets[g]
        own = slice(offset, offset + k * n_levels)
        total = np.zeros((k, k))
        for low in range(0, n_levels, LEVELS_AT_ONCE):
            levels = np.arange(low, min(low + LEVELS_AT_ONCE, n_levels))
            columns = (offset + np.arange(k)[:, None] * n_levels + levels).ravel()
            Y = S.columns(columns)
            Y[columns, np.arange(columns.size)] -= 1.0
            same = Y[columns].reshape(k, levels.size, k, levels.size)
            total += np.einsum("iljl->ij", same)
            Y[own] = np.einsum("ij,im->jm", T, Y[own].reshape(k, -1)).reshape(k * n_levels, -1)
            half = self.rest.half_solve(Y)
            total -= _same_level(half, k)
            if R is not None:
                x_part = border[columns].T - cross(self.border_rest[:, :-1], half)
                total -= _same_level(solve_lower(R, x_part), k)
        return total

    def _reduce(self, h: Templates, psi_h: FloatArray) -> FloatArray:
        """``T' (h_r - C' psi_h)`` from h per factor of the rest (k, L, m); shape (q, m)."""
        return _reduced(self.templates[1:], h, self.scaled, psi_h)

    def _layout_order(self, parts: list[FloatArray]) -> Templates:
        """Parts given in the order of the elimination, in the order of the layout."""
        order = self.equations.symbolic.order
        return tuple(parts[order.index(f)] for f in range(len(parts)))


def _reduced(templates: Templates, h: Templates, scaled: Scaled, psi_h: FloatArray) -> FloatArray:
    """``T' (h_r - C' psi_h)``; shape (q, m)."""
    reduced = -scaled.apply_transposed(psi_h)
    start = 0
    for T, part in zip(templates, h, strict=True):
        k, n_levels, m = part.shape
        reduced[start : start + k * n_levels] += np.einsum("ij,ilm->jlm", T, part).reshape(k * n_levels, m)
        start += k * n_levels
    return reduced


def _same_level(V: FloatArray, k: int) -> FloatArray:
    """Sum over levels of ``V_l' V_l`` from columns numbered ``column * L + level``; shape (k, k)."""
    by_level = V.reshape(V.shape[0], k, -1)
    return np.einsum("qil,qjl->ij", by_level, by_level)
