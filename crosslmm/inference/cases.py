"""Resampling of groups: levels of one factor drawn with replacement, each with all its rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.design.accumulate import accumulate
from crosslmm.design.rows import Design
from crosslmm.errors import ModelError

if TYPE_CHECKING:
    from crosslmm.inference.bootstrap import Replicates, Statistic
    from crosslmm.results import MixedLMResults

PER_SET = 16
"""Replicates of a set."""


@dataclass(frozen=True)
class Groups:
    """The rows of a model sorted by the groups that are drawn.

    Attributes
    ----------
    design : Design
    factor : int
    rows : ndarray of intp, shape (n,)
        Rows, group after group.
    start : ndarray of intp, shape (L + 1,)
        Where each group's begin.
    nested : tuple of bool
        Which factors have every level inside one group: their levels are new ones in every copy of it.
    """

    design: Design
    factor: int
    rows: NDArray[np.intp]
    start: NDArray[np.intp]
    nested: tuple[bool, ...]


def cases_work(
    fit: MixedLMResults, by: str | None, statistic: Statistic | None, observed: FloatArray | None
) -> tuple[int, Callable[[list[np.random.Generator]], Replicates]]:
    """Replicates per set, and what makes a set."""
    from crosslmm.inference.bootstrap import with_statistic

    groups = _groups(fit, by)

    def work(generators: list[np.random.Generator]) -> Replicates:
        samples = [drawn(groups, generator) for generator in generators]
        return with_statistic(fit, samples, None, statistic, observed)

    return PER_SET, work


def _groups(fit: MixedLMResults, by: str | None) -> Groups:
    design = fit.model.design
    if not isinstance(design, Design):
        raise ModelError(
            "kind='cases' draws rows, and this model has none in memory: make it from a table, or use kind='parametric'"
        )
    factors = design.layout.factors
    names = [factor.name for factor in factors]
    if by is not None and by not in names:
        raise ModelError(f"by={by!r} is no grouping factor of the model: expected one of {', '.join(map(repr, names))}")
    index = min(range(len(factors)), key=lambda f: factors[f].n_levels) if by is None else names.index(by)
    codes = design.codes[index]
    rows = np.argsort(codes, kind="stable")
    start = np.searchsorted(codes[rows], np.arange(factors[index].n_levels + 1))
    return Groups(design, index, rows, start, tuple(_is_nested(inner, codes) for inner in design.codes))


def _is_nested(inner: NDArray[np.int32], outer: NDArray[np.int32]) -> bool:
    """Whether every level of one factor is inside one level of the other."""
    pairs = np.unique(inner.astype(np.int64) * (int(outer.max()) + 1) + outer)
    return bool(pairs.size == np.unique(inner).size)


def drawn(groups: Groups, generator: np.random.Generator) -> CrossProducts:
    """Cross-products of as many groups as there are, drawn with replacement."""
    design = groups.design
    n_groups = groups.start.size - 1
    chosen = generator.integers(n_groups, size=n_groups)
    rows = np.concatenate([groups.rows[groups.start[g] : groups.start[g + 1]] for g in chosen])
    copy = np.repeat(np.arange(n_groups), np.diff(groups.start)[chosen])
    codes, factors = [], []
    for own, factor, nested in zip(design.codes, design.layout.factors, groups.nested, strict=True):
        if not nested:
            codes.append(own[rows])
            factors.append(factor)
            continue
        labels, inverse = np.unique(copy * factor.n_levels + own[rows], return_inverse=True)
        codes.append(inverse.astype(np.int32))
        levels = np.array([f"{factor.levels[label % factor.n_levels]}.{label // factor.n_levels}" for label in labels])
        factors.append(replace(factor, levels=levels.astype(object)))
    sample = replace(
        design,
        n=rows.size,
        n_dropped=0,
        y=design.y[rows],
        X=design.X[rows],
        codes=tuple(codes),
        Z=tuple(Z[rows] for Z in design.Z),
        weights=None if design.weights is None else design.weights[rows],
        offset=None if design.offset is None else design.offset[rows],
        layout=replace(design.layout, factors=tuple(factors)),
        row_labels=design.row_labels[rows],
    )
    return accumulate(sample)
