"""Random effects group by group: means and covariances given the data, from cross-products."""

from __future__ import annotations

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


def covariances(where: Blocks, fit: Fit, xp: CrossProducts) -> list[FloatArray]:
    """Conditional covariance of the effects of each group, ``sigma**2 L (L'AL + I)^-1 L'`` with A its ``Z'WZ``.

    Groups are independent of each other, so that each has a block of its own; those of one size are computed together.

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
    places = _places(where, xp)
    A, L, raw = places.products(xp), places.templates(standard), places.templates(list(fit.templates))
    found: list[FloatArray] = [np.zeros((0, 0))] * places.sizes.size
    for size in np.unique(places.sizes):
        chosen = np.flatnonzero(places.sizes == size)
        for some in np.array_split(chosen, max(1, chosen.size * int(size) ** 2 // AT_ONCE)):
            index = places.offsets[some][:, None] + np.arange(size * size)
            inside, half, own = (values[index].reshape(-1, size, size) for values in (A, L, raw))
            inner = np.linalg.inv(half.transpose(0, 2, 1) @ inside @ half + np.eye(size))
            made = fit.sigma**2 * (own @ inner @ own.transpose(0, 2, 1))
            for g, cov in zip(some.tolist(), made, strict=True):
                found[g] = cov
    return found


AT_ONCE = 2**20
"""Numbers of the groups that are inverted together."""


@dataclass(frozen=True)
class Places:
    """Where the block of every group stands in one flat array.

    Attributes
    ----------
    sizes, offsets : ndarray of intp, each (G,)
        Effects of every group, and where its block begins.
    group : tuple of ndarray of intp, each (L,)
        Group of every level, per factor.
    position : tuple of ndarray of intp, each (L, k)
        Position of every effect among those of its group.
    """

    sizes: NDArray[np.intp]
    offsets: NDArray[np.intp]
    group: tuple[NDArray[np.intp], ...]
    position: tuple[NDArray[np.intp], ...]

    @property
    def total(self) -> int:
        """Length of the array."""
        return int(np.sum(self.sizes**2))

    def put(self, into: FloatArray, f: int, rows: NDArray[Any], g: int, cols: NDArray[Any], values: FloatArray) -> None:
        """Enter values (k_f, k_g, n) for n pairs of levels of two factors."""
        own = self.group[f][rows]
        for i in range(values.shape[0]):
            for j in range(values.shape[1]):
                place = self.position[f][rows, i] * self.sizes[own] + self.position[g][cols, j]
                into[self.offsets[own] + place] = values[i, j]

    def products(self, xp: CrossProducts) -> FloatArray:
        """``Z'WZ`` in the coordinates of the engine."""
        into = np.zeros(self.total)
        for f, D in enumerate(xp.diagonal):
            levels = np.arange(D.shape[2])
            self.put(into, f, levels, f, levels, D)
        for f, g, pair in xp.pairs:
            self.put(into, f, pair.rows(), g, pair.indices, pair.values)
            self.put(into, g, pair.indices, f, pair.rows(), pair.values.transpose(1, 0, 2))
        return into

    def templates(self, templates: list[FloatArray]) -> FloatArray:
        """The templates (k, k) of the factors, at every level."""
        into = np.zeros(self.total)
        for f, T in enumerate(templates):
            levels = np.arange(self.group[f].size)
            self.put(into, f, levels, f, levels, np.repeat(T[:, :, None], levels.size, axis=2))
        return into


def _places(where: Blocks, xp: CrossProducts) -> Places:
    sizes = np.diff(where.starts)
    group, position = [], []
    for f, D in enumerate(xp.diagonal):
        own = np.flatnonzero(where.factor == f)
        owner = np.zeros(D.shape[2], dtype=np.intp)
        owner[where.level[own]] = where.group[own]
        place = np.zeros((D.shape[2], D.shape[0]), dtype=np.intp)
        place[where.level[own], where.column[own]] = own - where.starts[where.group[own]]
        group.append(owner)
        position.append(place)
    return Places(sizes, np.concatenate([[0], np.cumsum(sizes**2)[:-1]]), tuple(group), tuple(position))
