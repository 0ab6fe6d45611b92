"""Fixed-effects columns in the order of patsy, which statsmodels' users see: categories come before numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from formulaic import Formula, ModelSpec
from formulaic.parser.types import Factor
from numpy.typing import NDArray
from scipy.linalg import rq

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.design.rows import Design, ModelRows
from crosslmm.layout import Layout


def patsy_order(text: str, spec: ModelSpec) -> list[int]:
    """Positions of the columns of a specification in patsy's order of terms.

    Terms without numbers come first; the others stand together by the numbers that they multiply, in the order in which
    these appear; in each such bucket terms of fewer factors come first (patsy.build).
    """
    columns: dict[str, list[int]] = {}
    start = 0
    for part in spec.structure:
        columns[str(part.term)] = list(range(start, start + len(part.columns)))
        start += len(part.columns)
    buckets: dict[frozenset[str], list[str]] = {frozenset(): []}
    degree: dict[str, int] = {}
    for term in Formula(text, _ordering="none"):
        own = frozenset(factor.expr for factor in term.factors if _is_number(factor, spec))
        degree[str(term)] = 0 if str(term) == "1" else len(term.factors)
        buckets.setdefault(own, []).append(str(term))
    ordered = [term for terms in buckets.values() for term in sorted(terms, key=lambda term: degree[term])]
    found = [column for term in ordered for column in columns.get(term, [])]
    return found if len(found) == start else list(range(start))


def _is_number(factor: Factor, spec: ModelSpec) -> bool:
    kind, _ = spec.encoder_state.get(factor.expr, (None, None))
    return factor.expr != "1" and kind is not Factor.Kind.CATEGORICAL


def in_patsy_order(design: ModelRows, text: str) -> ModelRows:
    """The rows with their fixed-effects columns in that order."""
    from crosslmm.sources.stream import Streamed

    if isinstance(design, Design):
        spec, kept = design.fixed_spec, design.fixed_kept
    elif isinstance(design, Streamed):
        spec, kept = design.schema.fixed.spec, design.kept
    else:
        return design
    place = {column: i for i, column in enumerate(patsy_order(text, spec))}
    order = np.array(sorted(range(kept.size), key=lambda i: place[int(kept[i])]), dtype=np.intp)
    if np.array_equal(order, np.arange(kept.size)):
        return design
    layout, rotation = _reordered(design.layout, order)
    if isinstance(design, Design):
        return replace(design, X=design.X[:, order], fixed_kept=kept[order], layout=layout)
    return replace(design, kept=kept[order], xp=_rotated(design.xp, layout, rotation))


def _reordered(layout: Layout, order: NDArray[np.intp]) -> tuple[Layout, FloatArray]:
    """The layout of the columns in another order, and the rotation Q of its coordinates: ``X' U' Q = X U``."""
    standard = layout.standardization
    upper, rotation = rq(standard.x_basis[order])
    signs = np.where(np.diag(upper) < 0.0, -1.0, 1.0)
    basis = replace(standard, x_basis=upper * signs, origin=standard.origin[order])
    return replace(layout, fixed=tuple(layout.fixed[i] for i in order), standardization=basis), signs[
        :, None
    ] * rotation


def _rotated(xp: CrossProducts, layout: Layout, rotation: FloatArray) -> CrossProducts:
    p = len(rotation)
    K = np.eye(p + 1)
    K[:p, :p] = rotation.T
    return replace(xp, layout=layout, border=tuple(border @ K for border in xp.border), fixed=K.T @ xp.fixed @ K)
