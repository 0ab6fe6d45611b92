"""Cross-products of a smaller model from those of a larger one, without its rows.

Columns that are combinations of columns have cross-products that are combinations of cross-products, so leaving out
fixed effects or random slopes is a small linear map. The smaller model gets coordinates of its own (docs/theory.md,
eq. (9)), so that nothing is lost in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from crosslmm.covariance import Covariance, FloatArray, diagonal, identity, unstructured
from crosslmm.crossproducts import CrossProducts, PairBlock
from crosslmm.layout import Factor, Layout, Standardization, Term

STRUCTURES = {"unstructured": unstructured, "diagonal": diagonal, "identity": identity}


@dataclass(frozen=True)
class TermColumns:
    """What is kept of a random-effects term.

    Attributes
    ----------
    term : int
        Its position in the layout.
    names : tuple of str
        Names of the columns that are left.
    combination : ndarray, shape (k, len(names))
        These columns as combinations of the term's columns, units of the data.
    label : str
        The smaller term as text.
    """

    term: int
    names: tuple[str, ...]
    combination: FloatArray
    label: str


def whole_term(layout: Layout, index: int) -> TermColumns:
    """A term with all its columns."""
    term = layout.terms[index]
    names = tuple(layout.factors[term.factor].columns[j] for j in term.columns)
    return TermColumns(index, names, np.eye(len(names)), term.label)


def with_fixed(xp: CrossProducts, keep: Sequence[int], formula: str) -> CrossProducts:
    """Cross-products with some of the fixed-effects columns only.

    Parameters
    ----------
    keep : sequence of int
        Positions of the columns to keep, increasing.
    formula : str
        Formula of the smaller model.
    """
    layout, old = xp.layout, xp.layout.standardization
    p = layout.n_fixed
    to_raw = np.linalg.inv(old.x_basis)
    kept = to_raw[:, list(keep)]
    x_basis = _orthonormal(kept.T @ xp.fixed[:p, :p] @ kept / xp.n)
    columns = kept @ x_basis
    origin = to_raw @ old.origin
    coefficients = columns.T @ (old.scale * xp.fixed[:p, p] + xp.fixed[:p, :p] @ origin) / xp.n
    response = np.append(origin - columns @ coefficients, old.scale)
    scale = float(np.sqrt(response @ xp.fixed @ response / xp.n))
    K = np.column_stack([np.vstack([columns, np.zeros((1, len(keep)))]), response / scale])
    standard = replace(old, x_basis=x_basis, origin=x_basis @ coefficients, scale=scale)
    names = tuple(layout.fixed[j] for j in keep)
    smaller = replace(layout, fixed=names, dropped=(), standardization=standard, formula=formula)
    return mapped(xp, smaller, K)


def mapped(xp: CrossProducts, layout: Layout, K: FloatArray) -> CrossProducts:
    """Cross-products of ``[X, y] K`` in place of ``[X, y]``; K has shape (p + 1, p' + 1)."""
    return replace(
        xp, layout=layout, border=tuple(border @ K for border in xp.border), fixed=_symmetric(K.T @ xp.fixed @ K)
    )


def with_terms(xp: CrossProducts, kept: Sequence[TermColumns], formula: str) -> CrossProducts:
    """Cross-products with some random-effects terms, or parts of them, only; at least one.

    Parameters
    ----------
    kept : sequence of TermColumns
        In the order of the layout.
    formula : str
        Formula of the smaller model.
    """
    layout = xp.layout
    factors = sorted({layout.terms[part.term].factor for part in kept})
    maps = [_factor_map(xp, f, kept) for f in factors]
    new_factors = tuple(
        Factor(layout.factors[f].name, layout.factors[f].levels, names)
        for f, (names, _, _) in zip(factors, maps, strict=True)
    )
    standard = replace(layout.standardization, z_bases=tuple(basis for _, basis, _ in maps))
    smaller = replace(
        layout, factors=new_factors, terms=_terms(layout, kept, factors), standardization=standard, formula=formula
    )
    columns = {f: M for f, (_, _, M) in zip(factors, maps, strict=True)}
    return replace(
        xp,
        layout=smaller,
        diagonal=tuple(np.einsum("ia,ijl,jb->abl", columns[f], xp.diagonal[f], columns[f]) for f in factors),
        pairs=tuple(
            (factors.index(f), factors.index(g), _mapped_pairs(block, columns[f], columns[g]))
            for f, g, block in xp.pairs
            if f in columns and g in columns
        ),
        border=tuple(np.einsum("ia,ilp->alp", columns[f], xp.border[f]) for f in factors),
    )


def _mapped_pairs(block: PairBlock, left: FloatArray, right: FloatArray) -> PairBlock:
    return replace(block, values=np.einsum("ia,ijn,jb->abn", left, block.values, right))


def _factor_map(
    xp: CrossProducts, factor: int, kept: Sequence[TermColumns]
) -> tuple[tuple[str, ...], FloatArray, FloatArray]:
    """Names, basis and map (k, k') of a factor's columns that are left, standardised columns to standardised ones."""
    layout = xp.layout
    k = layout.factors[factor].size
    to_raw = np.linalg.inv(layout.standardization.z_bases[factor])
    gram = xp.diagonal[factor].sum(axis=2) / xp.n
    names: list[str] = []
    bases, columns = [], []
    for part in kept:
        term = layout.terms[part.term]
        if term.factor != factor:
            continue
        S = np.zeros((k, len(part.names)))
        S[list(term.columns)] = part.combination
        raw = to_raw @ S
        basis = _term_basis(raw.T @ gram @ raw, term.covariance)
        names += part.names
        bases.append(basis)
        columns.append(raw @ basis)
    return tuple(names), _block_diagonal(bases), np.hstack(columns)


def _term_basis(gram: FloatArray, covariance: Covariance) -> FloatArray:
    """Coordinates in which a term's columns have mean square 1 as far as its structure allows."""
    if covariance.name == "unstructured":
        return _orthonormal(gram)
    squares = np.diag(gram)
    if covariance.name == "identity":
        squares = np.full(squares.size, squares.mean())
    return np.diag(1.0 / np.sqrt(squares))


def _terms(layout: Layout, kept: Sequence[TermColumns], factors: list[int]) -> tuple[Term, ...]:
    terms: list[Term] = []
    start = 0
    width = dict.fromkeys(factors, 0)
    for part in kept:
        term = layout.terms[part.term]
        first, k = width[term.factor], len(part.names)
        width[term.factor] += k
        covariance = STRUCTURES[term.covariance.name](k)
        terms.append(
            replace(
                term,
                label=part.label,
                factor=factors.index(term.factor),
                columns=tuple(range(first, first + k)),
                covariance=covariance,
                theta_start=start,
            )
        )
        start += covariance.n_theta
    return tuple(terms)


def fixed_only_criterion(xp: CrossProducts, *, reml: bool) -> float:
    """Deviance or REML criterion of the model without random effects (weighted least squares)."""
    p = xp.layout.n_fixed
    root = np.linalg.cholesky(xp.fixed[:p, :p])
    half = np.linalg.solve(root, xp.fixed[:p, p])
    r2 = float(xp.fixed[p, p] - half @ half)
    standard: Standardization = xp.layout.standardization
    nu = xp.n - p if reml else xp.n
    log_det = -xp.sum_log_weights
    if reml:
        log_det += 2.0 * float(np.log(np.diag(root)).sum()) - 2.0 * standard.log_det_x_basis
    return float(log_det + nu * (1.0 + np.log(2.0 * np.pi * r2 / nu) + 2.0 * np.log(standard.scale)))


def _orthonormal(gram: FloatArray) -> FloatArray:
    """Upper triangular U with ``U' G U = I``."""
    if gram.size == 0:
        return np.zeros(gram.shape)
    unit = np.sqrt(np.diag(gram))
    root = np.linalg.cholesky(gram / np.outer(unit, unit))
    return np.asarray(np.linalg.inv(root).T / unit[:, None], dtype=np.float64)


def _block_diagonal(blocks: Sequence[FloatArray]) -> FloatArray:
    size = sum(len(B) for B in blocks)
    whole = np.zeros((size, size))
    start = 0
    for B in blocks:
        whole[start : start + len(B), start : start + len(B)] = B
        start += len(B)
    return whole


def _symmetric(A: FloatArray) -> FloatArray:
    return 0.5 * (A + A.T)
