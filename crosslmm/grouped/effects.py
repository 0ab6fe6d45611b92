"""Random effects group by group: means and covariances given the data, from cross-products."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.errors import ResourceError
from crosslmm.fit import Fit
from crosslmm.grouped.parameters import Space
from crosslmm.grouped.written import Written
from crosslmm.layout import Term

LARGEST_GROUP = 20_000
"""Random effects of one group whose covariance is formed (3 GB); more are refused."""


@dataclass(frozen=True)
class Blocks:
    """Where the random effects of every group stand: group by group, random effects before components.

    Attributes
    ----------
    group, factor, level, column : ndarray of intp, each (q,)
    labels : tuple of str
        Of every effect.
    starts : ndarray of intp, shape (G + 1,)
        Where the effects of each group begin.
    """

    group: NDArray[np.intp]
    factor: NDArray[np.intp]
    level: NDArray[np.intp]
    column: NDArray[np.intp]
    labels: NDArray[np.object_]
    starts: NDArray[np.intp]


def blocks(written: Written, fit: Fit) -> Blocks:
    """Order of the random effects of a fit."""
    parts = []
    space = Space.of(written, fit.layout)
    if space.re:
        owner = _owner_of_groups(written, fit, space.re[0])
        names = [np.full(owner.size, name, dtype=object) for name in written.re_names]
        pairs = zip(space.re_columns, names, strict=True)
        parts += [_part(owner, space.re_factor, j, 0, name) for j, name in pairs]
    for place, (component, term) in enumerate(zip(written.part.components, written.vc_terms(fit.layout), strict=True)):
        nested = written.groups.nested.get(component.term)
        levels = fit.layout.factors[term.factor].levels
        if nested is None:
            owner = _owner_of_groups(written, fit, term)
            own = fit.layout.factors[term.factor].columns
            named = written.columns.get(component.term) or [own[j] for j in term.columns]
            labels = [np.full(owner.size, f"{component.name}[{name}]", dtype=object) for name in named]
        else:
            owner = np.array([nested.owner[label] for label in levels.tolist()], dtype=np.intp)
            texts = [f"{component.name}[{nested.column[label]}]" for label in levels.tolist()]
            labels = [np.array(texts, dtype=object)]
        parts += [_part(owner, term.factor, j, place + 1, text) for j, text in zip(term.columns, labels, strict=True)]
    group, factor, level, column, place_, labels_ = (np.concatenate([part[i] for part in parts]) for i in range(6))
    order = np.lexsort((np.arange(group.size), place_, group))
    starts = np.concatenate([[0], np.cumsum(np.bincount(group, minlength=len(written.groups.labels)))])
    return Blocks(group[order], factor[order], level[order], column[order], labels_[order], starts)


def _owner_of_groups(written: Written, fit: Fit, term: Term) -> NDArray[np.intp]:
    """Position of the group of every level of the factor of the groups themselves."""
    place = {label: i for i, label in enumerate(written.groups.labels.tolist())}
    return np.array([place[label] for label in fit.layout.factors[term.factor].levels.tolist()], dtype=np.intp)


def _part(
    owner: NDArray[np.intp], factor: int, column: int, place: int, labels: NDArray[np.object_]
) -> tuple[NDArray[Any], ...]:
    size = owner.size
    return owner, np.full(size, factor), np.arange(size), np.full(size, column), np.full(size, place), labels


def means(where: Blocks, fit: Fit) -> FloatArray:
    """Conditional means of all effects, in that order; shape (q,)."""
    values = np.empty(where.group.size)
    for f, modes in enumerate(fit.modes):
        own = where.factor == f
        values[own] = modes[where.level[own], where.column[own]]
    return values


def covariances(where: Blocks, fit: Fit, xp: CrossProducts) -> Iterator[FloatArray]:
    """Conditional covariance of the effects of each group, ``sigma**2 L (L'AL + I)^-1 L'`` with A its ``Z'WZ``.

    Groups are independent of each other, so that each has a block of its own.

    Raises
    ------
    ResourceError
        A group has so many effects that its covariance would not fit.
    """
    largest = int(np.diff(where.starts).max(initial=0))
    if largest > LARGEST_GROUP:
        raise ResourceError(
            f"a group has {largest:,} random effects; their covariance, of the square of that, is not formed"
        )
    bases = fit.layout.standardization.z_bases
    standard = [np.asarray(np.linalg.solve(U, T), float) for U, T in zip(bases, fit.templates, strict=True)]
    inside = _products(where, xp)
    for g in range(where.starts.size - 1):
        own = slice(where.starts[g], where.starts[g + 1])
        yield _covariance(where, own, fit, standard, inside[g])


def _covariance(where: Blocks, own: slice, fit: Fit, standard: list[FloatArray], A: FloatArray) -> FloatArray:
    f, level, column = where.factor[own], where.level[own], where.column[own]
    same = (f[:, None] == f) & (level[:, None] == level)
    L, raw = np.zeros(same.shape), np.zeros(same.shape)
    for factor in np.unique(f):
        index = np.flatnonzero(f == factor)
        block = np.ix_(index, index)
        cells = np.ix_(column[index], column[index])
        L[block] = np.where(same[block], standard[factor][cells], 0.0)
        raw[block] = np.where(same[block], fit.templates[factor][cells], 0.0)
    inner = np.linalg.inv(L.T @ A @ L + np.eye(len(f)))
    return fit.sigma**2 * (raw @ inner @ raw.T)


def _products(where: Blocks, xp: CrossProducts) -> list[FloatArray]:
    """``Z'WZ`` of the effects of each group, in the coordinates of the engine."""
    sizes = np.diff(where.starts)
    inside = [np.zeros((size, size)) for size in sizes]
    place = [np.full((D.shape[2], D.shape[0]), -1, dtype=np.intp) for D in xp.diagonal]
    group = [np.zeros(D.shape[2], dtype=np.intp) for D in xp.diagonal]
    for i in range(where.group.size):
        place[where.factor[i]][where.level[i], where.column[i]] = i - where.starts[where.group[i]]
        group[where.factor[i]][where.level[i]] = where.group[i]
    for f, D in enumerate(xp.diagonal):
        for level in range(D.shape[2]):
            inside[group[f][level]][np.ix_(place[f][level], place[f][level])] = D[:, :, level]
    for f, g, pair in xp.pairs:
        for at, (row, col) in enumerate(zip(pair.rows().tolist(), pair.indices.tolist(), strict=True)):
            block = np.ix_(place[f][row], place[g][col])
            A = inside[group[f][row]]
            A[block] = pair.values[:, :, at]
            A[block[1].T, block[0].T] = pair.values[:, :, at].T
    return inside
