"""Conditional covariances of all levels of a factor, by the probes of the iterative engine.

With S the equations of the core, P their diagonal blocks, ``P = L_P L_P'``, w independent signs, ``z = L_P w``,
``x = S^-1 z`` and ``y = P^-1 z``, the mean of ``(x - y) y'`` is ``S^-1 - P^-1``: the blocks of P^-1 are exact and only
what is beside them is sampled, but for the directions in which a whole factor shifts (docs/theory.md, section 8). The
border's share is exact.
"""

from __future__ import annotations

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.effects.covariance import SOLVE_NUMBERS, IterativeSolver, Joint
from crosslmm.engine.core import Core
from crosslmm.engine.iterative import PROBE_TOLERANCE, IterativeSystem
from crosslmm.engine.probes import project, right_hand_sides, shifts, signs
from crosslmm.linalg import cg
from crosslmm.linalg.levels import apply, multiply

LEAST = 32
"""Probes, at least: one level is seen by all of them alone, while a trace averages over levels too."""


def sampled_blocks(joint: Joint, solver: IterativeSolver, factor: int) -> tuple[FloatArray, FloatArray]:
    """``sigma^2 M^-1`` of the effects of every level of a factor, with Monte Carlo standard errors; each (k, k, L)."""
    system = solver.system
    place = system.equations.order.index(factor)
    n_core = 1 + len(system.core.blocks.shapes)
    U, sigma2 = joint.fit.layout.standardization.z_bases[factor], joint.fit.sigma**2
    if place >= n_core or not system.core.blocks.shapes:
        found = joint.blocks(factor)
        return found, np.zeros_like(found)
    exact, mean, error = _core_blocks(system, place, max(solver.n_probes, LEAST))
    blocks = exact + mean + _by_border(system, place)
    raw = np.einsum("ia,abl,jb->ijl", U, blocks, U, optimize=True)
    weight = np.einsum("ia,jb->ijab", U, U) ** 2
    return sigma2 * raw, sigma2 * np.sqrt(np.einsum("ijab,abl->ijl", weight, error**2))


def _core_blocks(system: IterativeSystem, place: int, n: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Exact part, mean over the probes of the rest and its standard error."""
    core = system.core
    shapes = core.blocks.shapes
    psi = core.first.psi
    if place == 0:
        exact = psi + multiply(multiply(psi, core.level_quadratic(core.psi)), psi.transpose(1, 0, 2))
    else:
        exact = core.psi[place - 1]
    Q = shifts(core)
    exact = exact + _each(core, Q, place).sum(axis=3)
    at_once = max(min(SOLVE_NUMBERS // max(core.blocks.n_equations, 1), 64), 1)
    total, squares = np.zeros_like(exact), np.zeros_like(exact)
    for low in range(0, n, at_once):
        r = signs(shapes, range(low, min(low + at_once, n)), system.equations.options.seed)
        each = _each(core, project(r, Q), place)
        total += each.sum(axis=3)
        squares += np.einsum("ijln,ijln->ijl", each, each)
    mean = total / n
    return exact, mean, np.sqrt(np.maximum(squares / n - mean**2, 0.0) / (n - 1))


def _each(core: Core, w: FloatArray, place: int) -> FloatArray:
    """What columns w (q, n) add to the blocks of a factor beyond those of ``P^-1``; shape (k, k, L, n)."""
    z = right_hand_sides(core, w)
    x = cg.solve(core.matrix, core.precondition, z, np.full(w.shape[1], PROBE_TOLERANCE)).x
    y = core.precondition(z)
    left, right = core.scaled(x - y), core.scaled(y)
    if place == 0:
        a, b = apply(core.first.psi, core.gather(left)), apply(core.first.psi, core.gather(right))
    else:
        a, b = left[place - 1], right[place - 1]
    found = np.einsum("iln,jln->ijln", a, b)
    return 0.5 * (found + found.transpose(1, 0, 2, 3))


def _by_border(system: IterativeSystem, place: int) -> FloatArray:
    """What not knowing the effects of the border adds; shape (k, k, L)."""
    s = system.equations.border.n_effects
    columns = system.modes[place - 1] if place else apply(system.core.first.psi, system.remainder)
    half = np.asarray(system.folded.effects(np.eye(s)))
    return np.einsum("ils,st,jlt->ijl", columns[:, :, :s], half, columns[:, :, :s], optimize=True)
