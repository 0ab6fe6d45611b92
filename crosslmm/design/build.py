"""Formula and data to a `Design`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.design.complete import complete_rows
from crosslmm.design.fixed import Columns, read_fixed
from crosslmm.design.frame import column_names, read_frame
from crosslmm.design.qr import independent_columns, plain_factor, triangular_factor
from crosslmm.design.random import RandomPart, read_random
from crosslmm.design.rows import Design
from crosslmm.design.standardize import fixed_coordinates, term_basis
from crosslmm.design.variables import used_columns
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
    context = context or {}
    extra = [name for name in (weights, offset) if isinstance(name, str)]
    frame = read_frame(data, dict.fromkeys([*used_columns(formula, column_names(data), context), *extra]))
    rows = complete_rows(frame, weights, offset, missing)
    y, fixed = read_fixed(formula.response, formula.fixed, rows.frame, context)
    random = read_random(formula.random, rows.frame, context)
    kept, standardization = _coordinates(formula.response, y, fixed, rows.offset, random)
    X = fixed.values if kept.size == len(fixed.names) else np.ascontiguousarray(fixed.values[:, kept])
    names = tuple(fixed.names[j] for j in kept)
    dropped = tuple(fixed.names[j] for j in np.setdiff1d(np.arange(len(fixed.names)), kept))
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
    R = triangular_factor(np.column_stack([fixed.values, y if offset is None else y - offset]))
    kept = independent_columns(R[:, :p])
    if kept.size >= n:
        raise ModelError(f"the fixed part has {kept.size} independent columns, but there are only {n} rows")
    if kept.size < p:
        dropped = ", ".join(repr(fixed.names[j]) for j in np.setdiff1d(np.arange(p), kept))
        warn(
            f"dropped fixed-effects columns that are linear combinations of earlier ones: {dropped}",
            RankDeficiencyWarning,
        )
        R = plain_factor(R[:, [*kept, p]])
    x_basis, origin, scale = fixed_coordinates(R, n, response)
    z_bases = []
    for f, columns in enumerate(random.columns):
        basis = np.zeros((random.factors[f].size, random.factors[f].size))
        own = [term for term in random.terms if term.factor == f]
        for term, part in zip(own, columns, strict=True):
            basis[np.ix_(term.columns, term.columns)] = term_basis(part.values, term.covariance)
        z_bases.append(basis)
    return kept, Standardization(x_basis, tuple(z_bases), origin, scale)


def _side_by_side(columns: tuple[Columns, ...]) -> FloatArray:
    return columns[0].values if len(columns) == 1 else np.hstack([part.values for part in columns])
