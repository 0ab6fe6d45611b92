"""Joint covariance of the errors of the fixed effects and the conditional modes, block by block.

Given theta, ``(beta_hat - beta, b_hat - b)`` has covariance sigma^2 times the inverse of the mixed-model equations
(Henderson 1975, Biometrics 31(2), 423-447). With M the equations of b alone (docs/theory.md, eq. (17)-(26)) it is

    cov(b_hat - b) = sigma^2 M^-1 + W W',    cov(b_hat - b, beta_hat - beta) = -W H',    cov(beta_hat) = H H',

where H is a root of the last and W = M^-1 Z'WX H: what an error of the fixed effects does to the modes. M is never
formed: its inverse comes by solves for the levels that are asked for, or from the factors of the direct engine. The
uncertainty of theta is left out, as in lme4.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.engine.direct import DirectSystem
from crosslmm.engine.iterative import IterativeEquations, IterativeSystem
from crosslmm.engine.plan import FEWEST_PROBES
from crosslmm.engine.protocol import Equations, Templates
from crosslmm.fit import Fit
from crosslmm.linalg import cg
from crosslmm.linalg.dense import solve_lower
from crosslmm.linalg.levels import apply, multiply
from crosslmm.objective import evaluate

SOLVE_NUMBERS = 2**24
"""Numbers of the right-hand sides that are solved for together; bounds the work space."""

MOST_SOLVED = 256
"""Right-hand sides that are solved for together, at most."""

TOLERANCE = 1e-10
"""Relative residual of the systems that conjugate gradients solve."""


class Solver(Protocol):
    """M^-1 in standardised coordinates, over sigma^2."""

    def solve(self, h: Templates) -> Templates:
        """``M^-1 h`` for h given per factor as (k, L, m)."""

    def blocks(self, factor: int) -> FloatArray | None:
        """Diagonal blocks of one factor, (k, k, L); None where they are known by solving for each level only."""


@dataclass(frozen=True)
class DirectSolver:
    """`Solver` by the factors of the direct engine."""

    system: DirectSystem

    def solve(self, h: Templates) -> Templates:
        """See `Solver.solve`."""
        system, order = self.system, self.system.equations.symbolic.order
        ordered = [h[f] for f in order]
        reduced = -system.scaled.apply_transposed(apply(system.first.psi, ordered[0]))
        start = 0
        for T, part in zip(system.templates[1:], ordered[1:], strict=True):
            k, n_levels, m = part.shape
            reduced[start : start + k * n_levels] += np.einsum("ij,ilm->jlm", T, part).reshape(k * n_levels, m)
            start += k * n_levels
        u = system.rest.half_solve_transposed(system.rest.half_solve(reduced))
        parts = [apply(system.first.psi, ordered[0] - system.scaled.apply(u))]
        start = 0
        for T, part in zip(system.templates[1:], ordered[1:], strict=True):
            k, n_levels, m = part.shape
            parts.append(np.einsum("ij,jlm->ilm", T, u[start : start + k * n_levels].reshape(k, n_levels, m)))
            start += k * n_levels
        return tuple(parts[order.index(f)] for f in range(len(parts)))

    @cached_property
    def _inverse_blocks(self) -> tuple[FloatArray, ...]:
        """Of every factor, in the order of the elimination."""
        system = self.system
        inverse = system.rest.inverse()
        psi = system.first.psi
        found = [psi + multiply(multiply(psi, inverse.quadratic(system.scaled)), psi.transpose(1, 0, 2))]
        offsets = system.equations.symbolic.rest.matrix.offsets
        for g, T in enumerate(system.templates[1:]):
            k, _, n_levels = system.equations.diagonal[g + 1].shape
            found.append(np.einsum("ia,abl,jb->ijl", T, inverse.blocks(offsets[g], k, n_levels), T, optimize=True))
        return tuple(found)

    def blocks(self, factor: int) -> FloatArray:
        """See `Solver.blocks`."""
        return self._inverse_blocks[self.system.equations.symbolic.order.index(factor)]


@dataclass(frozen=True)
class IterativeSolver:
    """`Solver` by conjugate gradients for the core, and the dense border.

    Attributes
    ----------
    system : IterativeSystem
    n_probes : int
        Of the fit; for estimates of what is not solved for.
    """

    system: IterativeSystem
    n_probes: int

    def solve(self, h: Templates) -> Templates:
        """See `Solver.solve`."""
        system = self.system
        core, border = system.core, system.equations.border
        ordered = [h[f] for f in system.equations.order]
        n_core, m = 1 + len(core.blocks.shapes), h[0].shape[2]
        modes = self._core(ordered[0], tuple(ordered[1:n_core]), m)
        s = border.n_effects
        if s:
            gathered = np.einsum("klc,klm->cm", border.first[:, :, :s], modes[0])
            for own, b in zip(border.others, modes[1:], strict=True):
                gathered = gathered + np.einsum("klc,klm->cm", own[:, :, :s], b)
            small = system.folded.effects(border.join(tuple(ordered[n_core:]), m) - gathered)
            columns = (np.einsum("ijl,jlc->ilc", core.first.psi, system.remainder), *system.modes)
            moved = [np.einsum("klc,cm->klm", own[:, :, :s], small) for own in columns]
            modes = [*(b - part for b, part in zip(modes, moved, strict=True)), *border.split(small)]
        return tuple(modes[system.equations.order.index(f)] for f in range(len(modes)))

    def _core(self, h_e: FloatArray, h_b: Templates, m: int) -> list[FloatArray]:
        """Effects of the core given those of the border."""
        core = self.system.core
        if not h_b:
            return [apply(core.first.psi, h_e)]
        v = core.transposed(core.reduce(h_e, h_b))
        u = cg.solve(core.matrix, core.precondition, v, np.full(m, TOLERANCE)).x
        others = core.scaled(u)
        return [apply(core.first.psi, core.remainder(h_e, others)), *others]

    def blocks(self, factor: int) -> None:
        """See `Solver.blocks`: nothing is factorised."""


@dataclass(frozen=True)
class Joint:
    """The joint covariance of a fit, units of the data.

    Attributes
    ----------
    fit : Fit
    solver : Solver
    root : ndarray, shape (p, p)
        H, with ``H H'`` the covariance of the fixed effects.
    x_factor : ndarray, shape (p, p)
        Lower root of ``X' V^-1 X``, standardised coordinates.
    xp : CrossProducts
    """

    fit: Fit
    solver: Solver
    root: FloatArray
    x_factor: FloatArray
    xp: CrossProducts

    @property
    def _bases(self) -> tuple[FloatArray, ...]:
        return self.fit.layout.standardization.z_bases

    @cached_property
    def moved(self) -> Templates:
        """W per factor; each (k, L, p)."""
        p = self.root.shape[0]
        if p == 0:
            return tuple(np.zeros((f.size, f.n_levels, 0)) for f in self.fit.layout.factors)
        found = self.solver.solve(tuple(np.ascontiguousarray(border[:, :, :p]) for border in self.xp.border))
        result = []
        for U, modes in zip(self._bases, found, strict=True):
            k, n_levels, _ = modes.shape
            raw = np.einsum("ij,jlp->ilp", U, modes).reshape(k * n_levels, p)
            result.append(self.fit.sigma * solve_lower(self.x_factor, raw.T).T.reshape(k, n_levels, p))
        return tuple(result)

    def columns(self, factor: int, levels: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.intp], Templates]]:
        """``sigma^2 M^-1`` of the effects of some levels with all others, in batches.

        Yields
        ------
        levels : ndarray
            Those of the batch, m.
        columns : tuple of ndarray, each (k_g, L_g, k, m)
            Per factor g.
        """
        factors = self.fit.layout.factors
        k = factors[factor].size
        at_once = min(SOLVE_NUMBERS // max(self.fit.layout.n_random, 1), MOST_SOLVED) // k
        at_once = max(at_once, 1)
        U = self._bases[factor]
        for low in range(0, levels.size, at_once):
            own = levels[low : low + at_once]
            m = own.size
            h = [np.zeros((f.size, f.n_levels, k * m)) for f in factors]
            for j in range(k):
                h[factor][:, own, j * m + np.arange(m)] = U[j][:, None]
            solved = self.solver.solve(tuple(h))
            yield (
                own,
                tuple(
                    self.fit.sigma**2 * np.einsum("ij,jlm->ilm", V, part).reshape(*part.shape[:2], k, m)
                    for V, part in zip(self._bases, solved, strict=True)
                ),
            )

    def blocks(self, factor: int, levels: NDArray[np.intp] | None = None) -> FloatArray:
        """``sigma^2 M^-1`` of the effects of each of some levels (all by default); shape (k, k, m)."""
        wanted = np.arange(self.fit.layout.factors[factor].n_levels) if levels is None else levels
        k = self.fit.layout.factors[factor].size
        standard = self.solver.blocks(factor) if wanted.size * k > MOST_SOLVED else None
        if standard is not None:
            U = self._bases[factor]
            found = np.einsum("ia,abl,jb->ijl", U, standard, U, optimize=True)
            return self.fit.sigma**2 * found[:, :, wanted]
        parts = [
            found[factor][:, own, :, np.arange(own.size)].transpose(1, 2, 0)
            for own, found in self.columns(factor, wanted)
        ]
        blocks = np.concatenate(parts, axis=2) if parts else np.zeros((k, k, 0))
        return 0.5 * (blocks + blocks.transpose(1, 0, 2))

    def by_fixed(self, factor: int, levels: NDArray[np.intp] | None = None) -> FloatArray:
        """What the uncertainty of the fixed effects adds to `blocks`; shape (k, k, m)."""
        W = self.moved[factor] if levels is None else self.moved[factor][:, levels]
        return np.einsum("ilp,jlp->ijl", W, W)


def joint_covariance(xp: CrossProducts, equations: Equations, fit: Fit) -> Joint:
    """The joint covariance of a fit.

    Parameters
    ----------
    xp : CrossProducts
    equations : Equations
        Of the engine of the fit.
    fit : Fit
    """
    n_probes = 0
    if isinstance(equations, IterativeEquations) and equations.n_probes:  # solves need none
        n_probes, equations = equations.n_probes, replace(equations, n_probes=FEWEST_PROBES)
    layout = xp.layout
    value = evaluate(equations, xp, layout.templates(layout.to_standard(fit.theta)), reml=fit.reml)
    system = value.system
    solver: Solver
    if isinstance(system, DirectSystem):
        solver = DirectSolver(system)
    elif isinstance(system, IterativeSystem):
        solver = IterativeSolver(system, n_probes)
    else:
        raise TypeError(f"no solver for {type(system).__name__}")
    half = solve_lower(value.x_factor, layout.standardization.x_basis.T)
    return Joint(fit, solver, np.asarray(fit.sigma * half.T), value.x_factor, xp)
