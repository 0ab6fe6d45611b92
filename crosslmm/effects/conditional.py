"""Conditional covariances of the random effects as numbers with their errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.effects.covariance import IterativeSolver, Joint
from crosslmm.effects.sampled import sampled_blocks
from crosslmm.engine.plan import require_memory
from crosslmm.errors import ModelError
from crosslmm.layout import Layout


@dataclass(frozen=True)
class Blocks:
    """Covariances of the effects of some levels of a factor.

    Attributes
    ----------
    levels : ndarray of intp, shape (m,)
        Their positions among the levels of the factor.
    cov : ndarray, shape (m, k, k)
    error : ndarray, shape (m, k, k)
        Monte Carlo standard errors of `cov`; 0 where it is exact.
    """

    levels: NDArray[np.intp]
    cov: FloatArray
    error: FloatArray


def conditional_blocks(joint: Joint, factor: int, levels: NDArray[np.intp] | None, *, full: bool) -> Blocks:
    """Covariances of ``b_hat - b`` for some levels of a factor.

    Parameters
    ----------
    joint : Joint
    factor : int
    levels : ndarray of intp or None
        None for all: exact by the direct engine, estimated with the probes of the fit by the iterative one. The
        blocks of given levels are exact by both.
    full : bool
        Whether the uncertainty of the fixed effects is part of it.
    """
    error: FloatArray
    if levels is None and isinstance(joint.solver, IterativeSolver):
        blocks, error = sampled_blocks(joint, joint.solver, factor)
    else:
        blocks = joint.blocks(factor, levels)
        error = np.zeros_like(blocks)
    if full:
        blocks = blocks + joint.by_fixed(factor, levels)
    wanted = np.arange(blocks.shape[2]) if levels is None else levels
    return Blocks(wanted, blocks.transpose(2, 0, 1), error.transpose(2, 0, 1))


def positions(layout: Layout, levels: Mapping[str, Sequence[Any]]) -> dict[int, NDArray[np.intp]]:
    """Positions of requested levels by factor.

    Raises
    ------
    ModelError
        A factor or a level is not there.
    """
    names = [factor.name for factor in layout.factors]
    if not isinstance(levels, Mapping):
        raise ModelError(f"levels={levels!r}: expected a dict of factors and their labels, {{{names[0]!r}: [...]}}")
    found = {}
    for name, wanted in levels.items():
        if name not in names:
            raise ModelError(f"no grouping factor {name!r}; there are {', '.join(map(repr, names))}")
        f = names.index(name)
        place = {label: i for i, label in enumerate(layout.factors[f].levels.tolist())}
        wanted = [wanted] if isinstance(wanted, str) or not np.iterable(wanted) else list(wanted)
        for label in wanted:
            if label not in place:
                raise ModelError(f"{name!r} has no level {label!r}; its first is {layout.factors[f].levels[0]!r}")
        found[f] = np.array([place[label] for label in wanted], dtype=np.intp)
    return found


def joint_matrix(joint: Joint) -> pd.DataFrame:
    """Covariance of the errors of fixed effects and modes, all of them; shape (p + q, p + q).

    Raises
    ------
    ResourceError
        It does not fit into memory.
    """
    layout = joint.fit.layout
    p, q = layout.n_fixed, layout.n_random
    require_memory(
        3 * 8 * (p + q) ** 2, f"the joint covariance of {p + q:,} effects", "Ask for single factors: ranef(cov=True). "
    )
    W = np.concatenate([part.transpose(1, 0, 2).reshape(part.shape[0] * part.shape[1], p) for part in joint.moved])
    total = np.zeros((p + q, p + q))
    total[:p, :p] = joint.root @ joint.root.T
    total[p:, p:] = W @ W.T
    total[p:, :p] = -W @ joint.root.T
    total[:p, p:] = total[p:, :p].T
    start = p
    for f, factor in enumerate(layout.factors):
        k = factor.size
        for own, columns in joint.columns(f, np.arange(factor.n_levels)):
            block = np.concatenate([c.transpose(1, 0, 3, 2).reshape(-1, own.size * k) for c in columns])
            total[p:, start : start + block.shape[1]] += block
            start += block.shape[1]
    labels = [("", "", name) for name in layout.fixed]
    labels += [
        (factor.name, level, column)
        for factor in layout.factors
        for level in factor.levels
        for column in factor.columns
    ]
    index = pd.MultiIndex.from_tuples(labels, names=["factor", "level", "term"])
    return pd.DataFrame(0.5 * (total + total.T), index=index, columns=index)
