"""Anova tables of types I, II and III, with the hypotheses of lmerTest (and of SAS).

Type I tests each term after those before it, type II after all that do not contain it, type III after all others.
The hypotheses follow from the columns of X alone and do not use the random effects:

- I: rows of the unit upper triangular factor of X'X (Doolittle),
- II: the same with the columns of a term and of those that contain it last; a term that no other contains is tested by
  its own coefficients,
- III: general form of the estimable functions, each term made orthogonal to those that contain it (Goodnight 1978);
  made in treatment coding, so that it does not depend on the coding of the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crosslmm.covariance import FloatArray
from crosslmm.design.qr import independent_columns
from crosslmm.errors import ModelError, RankDeficiencyWarning, warn
from crosslmm.inference.at_fit import method_of
from crosslmm.inference.hypothesis import f_tail
from crosslmm.inference.methods import independent_parts
from crosslmm.inference.structure import INTERCEPT, DesignTerm, Structure, indicators, structure_of

if TYPE_CHECKING:
    from crosslmm.results import MixedLMResults

TYPES = {1: 1, 2: 2, 3: 3, "I": 1, "II": 2, "III": 3}

ZERO_ROW = 1e-8
"""Sum of absolute values of a row of a type III hypothesis that counts as 0 (lmerTest)."""

MC_ERRORS = ("f_mc_error", "den_df_mc_error")

ROUNDING = 1e-11
"""Elements of estimable functions below this are rounding."""


def anova_table(fit: MixedLMResults, *, type: int | str = 3, ddf: str = "satterthwaite") -> pd.DataFrame:
    """F tests of the terms of the fixed part.

    Parameters
    ----------
    fit : MixedLMResults
    type : {3, 2, 1, "III", "II", "I"}
        Which hypotheses.
    ddf : {"satterthwaite", "kenward-roger", "residual", "normal"}
        Denominator degrees of freedom.

    Returns
    -------
    DataFrame
        By term: sum_sq, mean_sq, num_df, den_df, f_value, p_value; f_mc_error and den_df_mc_error where the engine
        sampled. A mean square is F, before Kenward and Roger's scaling, times the residual variance, as in lmerTest.
        A term without estimable hypothesis has num_df 0 and is warned of.

    Warns
    -----
    RankDeficiencyWarning
        Nothing of a term can be estimated.

    Raises
    ------
    ModelError
        Another type; a model made from cross-products; a term with too many combinations of levels.
    """
    if isinstance(type, bool) or not isinstance(type, int | str) or type not in TYPES:
        raise ModelError(f"type={type!r}: expected 1, 2 or 3")
    structure = structure_of(fit, "an anova table")
    method = method_of(fit, ddf)
    beta, variance = fit.estimates.beta, fit.estimates.sigma**2
    rows = []
    for L in hypotheses(structure, TYPES[type]).values():
        if not len(L):
            rows.append((np.nan, np.nan, 0, np.nan, np.nan, np.nan, 0.0, 0.0))
            continue
        joint = method.joint(L, L @ beta)
        mean_sq = float(np.square(independent_parts(L, L @ beta, method.covariance)[1]).mean()) * variance
        p_value = float(f_tail(joint.f_value, joint.num_df, joint.den_df))
        sums = (joint.num_df * mean_sq, mean_sq, int(joint.num_df))
        rows.append((*sums, joint.den_df, joint.f_value, p_value, joint.f_mc_error, joint.den_df_mc_error))
    names = [term.name for term in _tested(structure)]
    empty = [name for name, row in zip(names, rows, strict=True) if row[2] == 0]
    if empty:
        warn(
            f"no hypothesis on {', '.join(map(repr, empty))} can be estimated, so the row has num_df 0 and is nan: its "
            "columns are combinations of those of other terms",
            RankDeficiencyWarning,
        )
    columns = ["sum_sq", "mean_sq", "num_df", "den_df", "f_value", "p_value", *MC_ERRORS]
    frame = pd.DataFrame(rows, columns=columns, index=pd.Index(names, name="term"))
    return frame if frame[list(MC_ERRORS)].to_numpy().any() else frame.drop(columns=list(MC_ERRORS))


def hypotheses(structure: Structure, type: int) -> dict[str, FloatArray]:
    """Contrast matrix (q, p) of every term but the intercept."""
    if type == 1 or (type in (2, 3) and len(_tested(structure)) <= 1):
        return type_1(structure)
    return type_2(structure) if type == 2 else type_3(structure)


def _tested(structure: Structure) -> list[DesignTerm]:
    """Terms but the intercept, in the order of their columns (statsmodels' for a model written with groups)."""
    terms = [term for term in structure.terms if term.name != INTERCEPT]
    if np.all(np.diff(structure.kept) > 0):
        return terms
    return sorted(terms, key=lambda term: min(structure.kept_columns(term), default=structure.kept.size))


def type_1(structure: Structure) -> dict[str, FloatArray]:
    """Each term after those before it."""
    U = unit_upper(structure.triangle)
    return {term.name: U[structure.kept_columns(term)] for term in _tested(structure)}


def unit_upper(R: FloatArray) -> FloatArray:
    """Rows of a triangular factor divided by their diagonal elements."""
    return R / np.diag(R)[:, None]


def type_2(structure: Structure) -> dict[str, FloatArray]:
    """Each term after all that do not contain it."""
    R, p = structure.triangle, structure.kept.size
    result = {}
    for term in _tested(structure):
        own = structure.kept_columns(term)
        containing = [other for other in structure.terms if structure.contains(term, other)]
        if not containing:
            result[term.name] = np.eye(p)[own]
            continue
        last = np.concatenate([own, *(structure.kept_columns(other) for other in containing)])
        order = np.concatenate([np.setdiff1d(np.arange(p), last), last])
        U = unit_upper(np.asarray(np.linalg.qr(R[:, order], mode="r")))
        first = p - last.size
        L = np.zeros((own.size, p))
        L[:, order] = U[first : first + own.size]
        result[term.name] = L
    return result


def type_3(structure: Structure) -> dict[str, FloatArray]:
    """Each term after all others, whatever the coding."""
    rows = structure.rows
    overall = [indicators(structure, term, rows.values) for term in structure.terms]
    whole, treatment = rows.combination(np.hstack(overall)), rows.combination(rows.treatment)
    if whole is None or treatment is None:
        raise ModelError("the terms of the fixed part do not hold the margins that a type III table needs; use type=1")
    M, N = _cleaned(structure.to_kept @ whole), _cleaned(structure.to_kept @ treatment)
    kept = independent_columns(np.asarray(np.linalg.qr(N, mode="r"), dtype=np.float64))
    general = _cleaned(np.asarray(np.linalg.solve(N[:, kept], M).T, dtype=np.float64))
    place = {term.name: np.flatnonzero(np.isin(kept, term.columns)) for term in structure.terms}
    back = np.linalg.pinv(M)
    for term in sorted(_tested(structure), key=lambda t: -len(t.variables)):
        containing = [place[other.name] for other in structure.terms if structure.contains(term, other)]
        if containing:
            outer, own = general[:, np.concatenate(containing)], general[:, place[term.name]]
            left = own - outer @ np.linalg.lstsq(outer, own, rcond=None)[0]
            general[:, place[term.name]] = _cleaned(left, float(np.abs(own).max(initial=0.0)))
    result = {}
    for term in _tested(structure):
        L = general[:, place[term.name]].T
        result[term.name] = L[np.abs(L).sum(axis=1) > ZERO_ROW] @ back
    return result


def _cleaned(matrix: FloatArray, size: float | None = None) -> FloatArray:
    """A matrix with 0 for what is rounding against its largest element, or against `size`."""
    largest = float(np.abs(matrix).max(initial=0.0)) if size is None else size
    return np.where(np.abs(matrix) < ROUNDING * largest, 0.0, matrix)
