"""Formula and data to a `Design`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosslmm.blas import length
from crosslmm.covariance import FloatArray
from crosslmm.design.complete import complete_rows
from crosslmm.design.coordinates import FixedSums, coordinates, ranges
from crosslmm.design.covariates import covariates
from crosslmm.design.fixed import Columns, read_fixed
from crosslmm.design.frame import column_names, read_frame
from crosslmm.design.given import Given
from crosslmm.design.identify import check_identified, proportional_columns, same_partition
from crosslmm.design.qr import triangular_factor
from crosslmm.design.random import Arrangement, read_random
from crosslmm.design.rows import Design
from crosslmm.design.standardize import term_sums
from crosslmm.design.variables import column_uses, used_columns
from crosslmm.errors import DataError
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
    context = check_options(missing, context)
    extra = [name for name in (weights, offset) if isinstance(name, str)]
    read_by_formulaic = used_columns(formula, column_names(data), context)
    grouping = [name for term in formula.random for name in term.grouping]
    frame = read_frame(data, dict.fromkeys([*read_by_formulaic, *grouping, *extra]))
    rows = complete_rows(frame, weights, offset, missing)
    used = covariates(rows.frame[read_by_formulaic], *column_uses(formula))
    y, fixed = read_fixed(formula.response, formula.fixed, used, context)
    random = read_random(formula.random, rows.frame, used, context)
    arrangement = random.arrangement
    check_identified(
        arrangement,
        random.columns,
        lambda f, g: same_partition(random.groupings[f], random.groupings[g]),
        lambda one, other: proportional_columns(random.columns[one].values, random.columns[other].values),
    )
    terms = {text: term_sums(columns.values) for text, columns in random.columns.items()}
    kept, standardization = coordinates(
        formula.response, fixed, _fixed_sums(y, fixed.values, rows.offset), arrangement, terms
    )
    X = fixed.values if kept.size == len(fixed.names) else np.ascontiguousarray(fixed.values[:, kept])
    return Design(
        n=y.size,
        n_dropped=rows.n_dropped,
        response=formula.response,
        y=y,
        X=X,
        codes=tuple(grouping.codes for grouping in random.groupings),
        Z=tuple(_side_by_side([random.columns[text] for text in texts]) for texts in arrangement.texts),
        weights=rows.weights,
        offset=rows.offset,
        layout=layout_of(formula, fixed, kept, arrangement, standardization, weights is not None, offset is not None),
        row_labels=rows.frame.index,
        fixed_spec=fixed.spec,
        fixed_kept=kept,
        random_specs=tuple(random.columns[text].spec for text in arrangement.term_texts),
        groupings=arrangement.names,
        given=Given(data, weights, offset, missing, context),
    )


def check_options(missing: str, context: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The context, once it and `missing` are what they may be."""
    if missing not in ("drop", "raise"):
        raise DataError(f"missing must be 'drop' or 'raise', not {missing!r}")
    if context is not None and not isinstance(context, Mapping):
        raise DataError(f"context must be a dict of names and what they stand for, not {type(context).__name__}")
    return context or {}


def layout_of(
    formula: MixedFormula,
    fixed: Columns,
    kept: NDArray[np.intp],
    arrangement: Arrangement,
    standardization: Standardization,
    weighted: bool,
    offset: bool,
) -> Layout:
    """The layout of a model whose fixed part keeps some of its columns."""
    dropped = tuple(fixed.names[j] for j in np.setdiff1d(np.arange(len(fixed.names)), kept)) + fixed.empty
    return Layout(
        response=formula.response,
        fixed=tuple(fixed.names[j] for j in kept),
        dropped=dropped,
        factors=arrangement.factors,
        terms=arrangement.terms,
        standardization=standardization,
        formula=formula.source if formula.in_bars else "",
        weighted=weighted,
        offset=offset,
    )


def _fixed_sums(y: FloatArray, X: FloatArray, offset: FloatArray | None) -> FixedSums:
    target = y if offset is None else y - offset
    mean = float(target.mean())
    return FixedSums(
        n=y.size,
        factor=triangular_factor(np.column_stack([X, target])),
        mean=mean,
        spread=length(target - mean),
        intercept=X.shape[1] > 0 and bool(np.all(X[:, 0] == 1.0)),
        ranges=lambda positions: ranges(X[:, positions]),
    )


def _side_by_side(columns: list[Columns]) -> FloatArray:
    return columns[0].values if len(columns) == 1 else np.hstack([part.values for part in columns])
