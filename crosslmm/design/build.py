"""Formula and data to a `Design`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.design.fixed import Columns, check_finite, read_fixed
from crosslmm.design.frame import column_names, missing_rows, read_frame, settle
from crosslmm.design.qr import independent_columns, plain_factor, triangular_factor
from crosslmm.design.random import RandomPart, read_random
from crosslmm.design.rows import Design
from crosslmm.design.standardize import fixed_coordinates, term_basis
from crosslmm.design.variables import used_columns
from crosslmm.errors import DataError, ModelError, RankDeficiencyWarning
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
    rows = {"weights": _row_values(weights, "weights", frame), "offset": _row_values(offset, "offset", frame)}
    arrays = {
        what: rows[what] for what, given in (("weights", weights), ("offset", offset)) if not isinstance(given, str)
    }
    keep = _complete_rows({**{name: frame[name] for name in frame.columns}, **arrays}, missing)
    n_dropped = 0 if keep is None else int(keep.size - keep.sum())
    frame = settle(frame if keep is None else frame[keep])
    rows = {what: values if values is None or keep is None else values[keep] for what, values in rows.items()}
    y, fixed = read_fixed(formula.response, formula.fixed, frame, context)
    random = read_random(formula.random, frame, context)
    _check_rows(rows)
    kept, standardization = _coordinates(formula.response, y, fixed, rows["offset"], random)
    X = fixed.values if kept.size == len(fixed.names) else np.ascontiguousarray(fixed.values[:, kept])
    names = tuple(fixed.names[j] for j in kept)
    dropped = tuple(name for name in fixed.names if name not in set(names))
    return Design(
        n=y.size,
        n_dropped=n_dropped,
        response=formula.response,
        y=y,
        X=X,
        fixed_names=names,
        dropped_names=dropped,
        codes=tuple(grouping.codes for grouping in random.groupings),
        Z=tuple(_side_by_side(columns) for columns in random.columns),
        weights=rows["weights"],
        offset=rows["offset"],
        layout=Layout(formula.response, names, dropped, random.factors, random.terms, standardization),
        row_labels=frame.index,
        fixed_spec=fixed.spec,
        fixed_kept=kept,
        random_specs=random.specs,
        groupings=random.names,
    )


def _row_values(values: Any, what: str, frame: pd.DataFrame) -> FloatArray | None:
    """Weights or offset as floats, one per row of the data; missing values are nan."""
    if values is None:
        return None
    if isinstance(values, pd.Series) and not values.index.equals(frame.index):
        raise DataError(
            f"the index of {what} differs from that of the data; add it to the data as a column and pass its name"
        )
    series = frame[values] if isinstance(values, str) else values
    try:
        if isinstance(series, pd.Series):
            array = pd.to_numeric(series).to_numpy(dtype=float, na_value=np.nan)
        else:
            array = np.asarray(series, dtype=float)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} must be numbers: a column of the data or one number per row of it") from error
    if array.shape != (len(frame),):
        raise DataError(
            f"{what} must hold one number for each of the {len(frame)} rows of the data (before any are dropped), "
            f"but has shape {array.shape}"
        )
    return array


def _complete_rows(columns: Mapping[str, pd.Series | FloatArray | None], missing: str) -> NDArray[np.bool_] | None:
    """Which rows have a value in every column; None when all have."""
    flags = {name: missing_rows(values) for name, values in columns.items() if values is not None}
    found = {name: flag for name, flag in flags.items() if flag is not None}
    if not found:
        return None
    counts = ", ".join(f"{name!r} ({int(flag.sum())})" for name, flag in found.items())
    if missing == "raise":
        raise DataError(f"values are missing in columns (rows): {counts}; drop or fill them, or pass missing='drop'")
    keep: NDArray[np.bool_] = ~np.logical_or.reduce(list(found.values()))
    if not keep.any():
        raise DataError(f"every row misses a value; missing in columns (rows): {counts}")
    return keep


def _check_rows(rows: dict[str, FloatArray | None]) -> None:
    weights, offset = rows["weights"], rows["offset"]
    if offset is not None:
        check_finite(offset[:, None], ("offset",), "the offset")
    if weights is not None:
        bad = int(np.sum(~(np.isfinite(weights) & (weights > 0.0))))
        if bad:
            raise DataError(
                f"weights must be finite and greater than 0, but {bad} are not: "
                "the residual variance of a row is sigma^2 / weight; leave rows of weight 0 out of the data"
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
        warnings.warn(
            f"dropped fixed-effects columns that are linear combinations of earlier ones: {dropped}",
            RankDeficiencyWarning,
            stacklevel=4,
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
