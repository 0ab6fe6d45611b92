"""Formula and data to a `Design`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.design.complete import complete_rows
from crosslmm.design.covariates import covariates
from crosslmm.design.fixed import Columns, read_fixed
from crosslmm.design.frame import column_names, read_frame
from crosslmm.design.identify import check_identified
from crosslmm.design.qr import NEARLY_CONSTANT, ROUNDING, independent_columns, plain_factor, triangular_factor
from crosslmm.design.random import RandomPart, read_random
from crosslmm.design.rows import Design
from crosslmm.design.standardize import check_spread, fixed_coordinates, term_basis
from crosslmm.design.variables import column_uses, used_columns
from crosslmm.errors import DataError, ModelError, RankDeficiencyWarning, warn
from crosslmm.formula import MixedFormula
from crosslmm.layout import Layout, Standardization


def build_design(
    formula: MixedFormula,
    data: Any,
    *,
    weights: Any = None,
    offset: Any = None,
    missing: str = "drop",
    context: Mapping[str, Any] | None = None,
) -> Design:
    """Evaluate a formula on data.

    Parameters
    ----------
    formula : MixedFormula
    data : pandas, polars or pyarrow table, or dict of columns
        Never modified.
    weights : str or array, optional
        Prior weights (the residual variance of row i is ``sigma**2 / weights[i]``): a column of `data`, or
        one positive number per row of `data`.
    offset : str or array, optional
        Known part of the response, in its units: a column of `data`, or one number per row of `data`.
    missing : {"drop", "raise"}
        What to do with rows that miss a value in any column used.
    context : mapping, optional
        Further names (functions, constants) that the formula may use.

    Returns
    -------
    Design

    Raises
    ------
    DataError
        The data do not serve the formula.
    ModelError
        The model cannot be estimated from these data.

    Warns
    -----
    RankDeficiencyWarning
        Fixed-effects columns were dropped as combinations of others.
    """
    if missing not in ("drop", "raise"):
        raise DataError(f"missing must be 'drop' or 'raise', not {missing!r}")
    if context is not None and not isinstance(context, Mapping):
        raise DataError(f"context must be a dict of names and what they stand for, not {type(context).__name__}")
    context = context or {}
    extra = [name for name in (weights, offset) if isinstance(name, str)]
    read_by_formulaic = used_columns(formula, column_names(data), context)
    grouping = [name for term in formula.random for name in term.grouping]
    frame = read_frame(data, dict.fromkeys([*read_by_formulaic, *grouping, *extra]))
    rows = complete_rows(frame, weights, offset, missing)
    used = covariates(rows.frame[read_by_formulaic], *column_uses(formula))
    y, fixed = read_fixed(formula.response, formula.fixed, used, context)
    random = read_random(formula.random, rows.frame, used, context)
    check_identified(random)
    kept, standardization = _coordinates(formula.response, y, fixed, rows.offset, random)
    X = fixed.values if kept.size == len(fixed.names) else np.ascontiguousarray(fixed.values[:, kept])
    names = tuple(fixed.names[j] for j in kept)
    dropped = tuple(fixed.names[j] for j in np.setdiff1d(np.arange(len(fixed.names)), kept)) + fixed.empty
    return Design(
        n=y.size,
        n_dropped=rows.n_dropped,
        response=formula.response,
        y=y,
        X=X,
        fixed_names=names,
        dropped_names=dropped,
        codes=tuple(grouping.codes for grouping in random.groupings),
        Z=tuple(_side_by_side(columns) for columns in random.columns),
        weights=rows.weights,
        offset=rows.offset,
        layout=Layout(formula.response, names, dropped, random.factors, random.terms, standardization),
        row_labels=rows.frame.index,
        fixed_spec=fixed.spec,
        fixed_kept=kept,
        random_specs=random.specs,
        groupings=random.names,
    )


def _coordinates(
    response: str, y: FloatArray, fixed: Columns, offset: FloatArray | None, random: RandomPart
) -> tuple[NDArray[np.intp], Standardization]:
    """Which fixed-effects columns are kept, and the coordinates of the engine."""
    n, p = fixed.values.shape
    target = y if offset is None else y - offset
    spread = check_spread(target, response)
    R = triangular_factor(np.column_stack([fixed.values, target]))
    intercept = p > 0 and bool(np.all(fixed.values[:, 0] == 1.0))
    kept = independent_columns(R[:, :p], intercept=intercept)
    if kept.size >= n:
        raise ModelError(f"the fixed part has {kept.size} independent columns, but there are only {n} rows")
    if kept.size < p:
        _warn_dropped(fixed, np.setdiff1d(np.arange(p), kept), intercept)
        R = plain_factor(R[:, [*kept, p]])
    if fixed.empty:
        warn(
            f"{', '.join(map(repr, fixed.empty))} of the fixed part has one level only in the rows used and gives no "
            "column",
            RankDeficiencyWarning,
        )
    x_basis, origin, scale = fixed_coordinates(R, n, response, spread)
    z_bases = []
    for f, columns in enumerate(random.columns):
        basis = np.zeros((random.factors[f].size, random.factors[f].size))
        own = [term for term in random.terms if term.factor == f]
        for term, part in zip(own, columns, strict=True):
            basis[np.ix_(term.columns, term.columns)] = term_basis(part.values, term.covariance, part.names, term.label)
        z_bases.append(basis)
    return kept, Standardization(x_basis, tuple(z_bases), origin, scale)


def _warn_dropped(fixed: Columns, dropped: NDArray[np.intp], intercept: bool) -> None:
    names = ", ".join(repr(fixed.names[j]) for j in dropped)
    message = f"dropped fixed-effects columns that are linear combinations of earlier ones: {names}"
    columns = fixed.values[:, dropped]
    spread, size = columns.std(axis=0), np.abs(columns).max(axis=0)
    least = ROUNDING if intercept else NEARLY_CONSTANT
    hardly = (columns.min(axis=0) < columns.max(axis=0)) & (spread <= least * size)
    if hardly.any():
        centre = ", ".join(repr(fixed.names[j]) for j in dropped[hardly])
        message += f" ({centre}: hardly varies against its size; subtract its mean first)"
    warn(message, RankDeficiencyWarning)


def _side_by_side(columns: tuple[Columns, ...]) -> FloatArray:
    return columns[0].values if len(columns) == 1 else np.hstack([part.values for part in columns])
