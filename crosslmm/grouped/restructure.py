"""The same rows under a random part whose random effects are correlated within sets of columns only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from crosslmm.covariance import FloatArray, unstructured
from crosslmm.crossproducts import CrossProducts, PairBlock
from crosslmm.design.rows import Design, ModelRows
from crosslmm.errors import ModelError
from crosslmm.layout import Layout, Term

Sets = tuple[tuple[int, ...], ...]


def correlated_sets(allowed: FloatArray) -> Sets:
    """Sets of columns whose covariances are free, from a mask (k, k) that is 0 where a covariance is held at 0.

    Raises
    ------
    ModelError
        A covariance is held at 0 between two columns that are both correlated with a third, or a variance is.
    """
    free = (np.asarray(allowed) != 0.0) | (np.asarray(allowed).T != 0.0)
    if not np.diag(free).all():
        raise ModelError("free holds a variance of cov_re at its start; leave the column out of exog_re instead")
    sets = sorted({tuple(int(j) for j in np.flatnonzero(row)) for row in free})
    if sum(map(len, sets)) != len(free):
        raise ModelError(
            "free holds a covariance of cov_re at 0 between two random effects that are both correlated with a third: "
            "they must fall into sets that are independent of each other, such as an identity matrix gives"
        )
    return tuple(sets)


def restructured(design: ModelRows, text: str, sets: Sets) -> ModelRows:
    """The rows with one unstructured term for every set in place of the term written as `text`."""
    layout = _layout(design.layout, text, sets, design.crossproducts())
    if isinstance(design, Design):
        return replace(design, layout=layout)
    from crosslmm.sources.stream import Streamed

    if isinstance(design, Streamed):
        return replace(design, xp=_mapped(design.xp, layout))
    raise ModelError("covariances can be held at 0 only in a model whose rows are at hand")


def _layout(layout: Layout, text: str, sets: Sets, xp: CrossProducts) -> Layout:
    terms: list[Term] = []
    bases = list(layout.standardization.z_bases)
    for term in layout.terms:
        parts: list[Term] = [term]
        if term.label == text:
            bases[term.factor] = _basis(bases[term.factor], term, sets, xp)
            parts = [
                replace(
                    term,
                    label=f"{text} {i}",
                    group=term.group + (f" {i}" if i else ""),
                    columns=tuple(term.columns[j] for j in own),
                    covariance=unstructured(len(own)),
                )
                for i, own in enumerate(sets)
            ]
        for part in parts:
            start = terms[-1].theta_slice.stop if terms else 0
            terms.append(replace(part, theta_start=start))
    standardization = replace(layout.standardization, z_bases=tuple(bases))
    return replace(layout, terms=tuple(terms), standardization=standardization, formula="")


def _basis(basis: FloatArray, term: Term, sets: Sets, xp: CrossProducts) -> FloatArray:
    """Coordinates in which the columns of each set are orthogonal with mean square 1."""
    back = np.linalg.inv(basis)
    gram = back.T @ xp.diagonal[term.factor].sum(axis=2) @ back / xp.n
    result = basis.copy()
    result[np.ix_(term.columns, term.columns)] = 0.0
    for own in sets:
        index = np.ix_([term.columns[j] for j in own], [term.columns[j] for j in own])
        unit = np.sqrt(np.diag(gram[index]))
        root = np.linalg.cholesky(gram[index] / np.outer(unit, unit))
        result[index] = np.linalg.inv(root).T / unit[:, None]
    return result


def _mapped(xp: CrossProducts, layout: Layout) -> CrossProducts:
    """Cross-products in the coordinates of another layout of the same columns."""
    bases = zip(xp.layout.standardization.z_bases, layout.standardization.z_bases, strict=True)
    maps = [np.linalg.solve(old, new) for old, new in bases]

    def both(f: int, g: int, block: PairBlock) -> PairBlock:
        return replace(block, values=np.einsum("ia,ijn,jb->abn", maps[f], block.values, maps[g]))

    return replace(
        xp,
        layout=layout,
        diagonal=tuple(np.einsum("ia,ijl,jb->abl", M, D, M) for M, D in zip(maps, xp.diagonal, strict=True)),
        pairs=tuple((f, g, both(f, g, block)) for f, g, block in xp.pairs),
        border=tuple(np.einsum("ia,ilp->alp", M, B) for M, B in zip(maps, xp.border, strict=True)),
    )
