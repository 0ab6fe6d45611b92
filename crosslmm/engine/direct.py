"""The direct engine: the largest factor eliminated level by level, the rest by an exact Cholesky factor.

With e the eliminated factor and r all others (docs/theory.md, eq. (16)-(24)):
``Psi_l = T (T' A_l T + I)^-1 T'`` per level of e, then ``S = T'(A_rr - C' Psi C)T + I`` for r, then the
``(p + 1, p + 1)`` matrix ``[X, y]' V^-1 [X, y]``. Nothing is divided by a template, so singular ones are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import solve_triangular

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.engine.plan import DirectEngine, Plan
from crosslmm.engine.protocol import Effects, Templates
from crosslmm.engine.symbolic import Symbolic, analyze
from crosslmm.linalg.coupling import Coupling, Scaled, build_coupling
from crosslmm.linalg.levels import Elimination, apply, eliminate, multiply
from crosslmm.linalg.pairs import GramOperator, gram_operator
from crosslmm.linalg.rest import RestFactor, RestInverse

NEARLY_SINGULAR = 1e-5
"""Ratio of singular values below which a template is not inverted: traces are then taken column by column."""

TRACE_COLUMNS = 256
"""Columns of the rest solved at once for the traces of a singular template; bounds the work space."""


@dataclass(frozen=True)
class DirectEquations:
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
class DirectSystem:
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
        explained = raw.reshape(-1, size).T @ self.border_first.reshape(-1, size)
        explained += self.border_rest.T @ self.border_rest
        return self.equations.fixed - explained

    def effects(self, beta: FloatArray) -> Effects:
        """See `System.effects`."""
        contrast = np.append(-beta, 1.0)
        u = self.rest.half_solve_transposed((self.border_rest @ contrast)[:, None])
        target = self.equations.border[0] @ contrast
        modes = [np.einsum("ijl,jl->il", self.first.psi, target - self.scaled.apply(u)[:, :, 0])]
        start = 0
        for T, border in zip(self.templates[1:], self.equations.border[1:], strict=True):
            k, n_levels = border.shape[:2]
            modes.append(T @ u[start : start + k * n_levels, 0].reshape(k, n_levels))
            start += k * n_levels
        in_layout = self._layout_order(modes)
        explained = self.equations.gram.apply(tuple(b[:, :, None] for b in in_layout))
        targets = self._layout_order([border @ contrast for border in self.equations.border])
        scores = tuple(t - e[:, :, 0] for t, e in zip(targets, explained, strict=True))
        return Effects(in_layout, scores)

    def inner(self, z: Templates) -> tuple[FloatArray, FloatArray]:
        """See `System.inner`."""
        order = self.equations.symbolic.order
        h_layout = self.equations.gram.apply(z)
        h = tuple(h_layout[f] for f in order)
        m = h[0].shape[2]
        h_first = apply(self.first.psi, h[0])
        h_rest = self.rest.half_solve(self._reduce(h[1:], h_first))
        zz = -h[0].reshape(-1, m).T @ h_first.reshape(-1, m) - h_rest.T @ h_rest
        zx = -h_first.reshape(-1, m).T @ self.equations.border[0].reshape(-1, self.fixed.shape[0])
        zx -= h_rest.T @ self.border_rest
        for f, hf in enumerate(h_layout):
            zf = z[f].reshape(-1, m)
            zz += zf.T @ hf.reshape(-1, m)
            zx += zf.T @ self.equations.border[order.index(f)].reshape(-1, zx.shape[1])
        return 0.5 * (zz + zz.T), zx[:, :-1]

    def traces(self, *, reml: bool) -> Templates:
        """See `System.traces`."""
        inverse = self.rest.inverse()
        D = self.rest.half_solve_transposed(self.border_rest[:, :-1])
        R = np.linalg.cholesky(self.fixed[:-1, :-1]) if reml else np.zeros((0, 0))
        result = [self._first_trace(inverse, D, R)]
        effects_x = solve_triangular(R, D.T, lower=True).T if R.size else np.zeros((D.shape[0], 0))
        offsets = self.equations.symbolic.rest.matrix.offsets
        for g, T in enumerate(self.templates[1:]):
            k, n_levels = self.equations.border[g + 1].shape[:2]
            singular_values = np.linalg.svd(T, compute_uv=False)
            if singular_values[-1] <= NEARLY_SINGULAR * singular_values[0] or singular_values[0] == 0.0:
                result.append(self._singular_trace(g, effects_x))
                continue
            N = effects_x[offsets[g] : offsets[g + 1]].reshape(k, n_levels * effects_x.shape[1])
            W = inverse.block_sum(offsets[g], k, n_levels) + N @ N.T
            result.append(np.linalg.solve(T.T, n_levels * np.eye(k) - W))
        return self._layout_order(result)

    def _first_trace(self, inverse: RestInverse, D: FloatArray, R: FloatArray) -> FloatArray:
        """Trace of the eliminated factor: ``sum_l (A_l - Q_l + A_l Psi_l Q_l) gain_l``, theory eq. (22)."""
        A = self.equations.diagonal[0]
        Q = inverse.quadratic(self.scaled)
        if R.size:
            k, n_levels, _ = self.equations.border[0].shape
            residual = self.scaled.apply(D) - self.equations.border[0][:, :, :-1]
            N = solve_triangular(R, residual.reshape(k * n_levels, -1).T, lower=True).T.reshape(k, n_levels, -1)
            Q = Q + np.einsum("ilp,jlp->ijl", N, N)
        core = A - Q + multiply(A, multiply(self.first.psi, Q))
        return np.einsum("ijl,jml->im", core, self.first.gain)

    def _singular_trace(self, g: int, effects_x: FloatArray) -> FloatArray:
        """``sum_l (Z' P Z)_ll T`` of factor g of the rest at a singular template, theory eq. (24).

        By ``T' Z' P Z = W_u. [T' A_.g ; X' Z_g]`` with W the inverse of the mixed-model equations, for a few
        columns of the factor at a time.
        """
        k, n_levels = self.equations.border[g + 1].shape[:2]
        start = self.equations.symbolic.rest.matrix.offsets[g]
        total = np.zeros((k, k))
        for column in range(k):
            for low in range(0, n_levels, TRACE_COLUMNS):
                levels = np.arange(low, min(low + TRACE_COLUMNS, n_levels))
                half, residual_x = self._unit_columns(g, column, levels)
                K = self.rest.half_solve_transposed(half)
                if effects_x.size:
                    K = K + effects_x @ residual_x
                rows = start + np.arange(k)[:, None] * n_levels + levels
                total[:, column] += K[rows, np.arange(levels.size)].sum(axis=1)
        return total.T

    def _unit_columns(self, g: int, column: int, levels: FloatArray) -> tuple[FloatArray, FloatArray]:
        """``L^-1 T' S_rg`` for unit columns of factor g, and their whitened fixed-effects residual (p, m)."""
        order = self.equations.symbolic.order
        unit = [np.zeros((*border.shape[:2], levels.size)) for border in self.equations.border]
        unit[g + 1][column, levels, np.arange(levels.size)] = 1.0
        product = self.equations.gram.apply(self._layout_order(unit))
        h = tuple(product[f] for f in order)
        h_first = apply(self.first.psi, h[0])
        half = self.rest.half_solve(self._reduce(h[1:], h_first))
        p = self.fixed.shape[0] - 1
        if p == 0:
            return half, np.zeros((0, levels.size))
        first_x = self.equations.border[0][:, :, :-1].reshape(-1, p)
        own_x = self.equations.border[g + 1][column, levels, :-1].T
        residual = self.border_rest[:, :-1].T @ half - own_x + first_x.T @ h_first.reshape(-1, levels.size)
        return half, solve_triangular(np.linalg.cholesky(self.fixed[:-1, :-1]), residual, lower=True)

    def _reduce(self, h: Templates, psi_h: FloatArray) -> FloatArray:
        """``T' (h_r - C' psi_h)`` from h per factor of the rest (k, L, m); shape (q, m)."""
        reduced = -self.scaled.apply_transposed(psi_h)
        start = 0
        for T, part in zip(self.templates[1:], h, strict=True):
            k, n_levels, m = part.shape
            reduced[start : start + k * n_levels] += (T.T @ part.reshape(k, -1)).reshape(k * n_levels, m)
            start += k * n_levels
        return reduced

    def _layout_order(self, parts: list[FloatArray]) -> Templates:
        """Parts given in the order of the elimination, in the order of the layout."""
        order = self.equations.symbolic.order
        return tuple(parts[order.index(f)] for f in range(len(parts)))
