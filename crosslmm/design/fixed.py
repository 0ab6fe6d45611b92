"""Response and fixed-effects columns, by formulaic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from formulaic import Formula, ModelSpec
from formulaic.errors import FormulaicError
from formulaic.materializers import PandasMaterializer
from formulaic.parser.types import Factor

from crosslmm.covariance import FloatArray
from crosslmm.errors import DataError
from crosslmm.formula.bars import plain


@dataclass(frozen=True)
class Columns:
    """Columns that formulaic made, with their names and what is needed to make them again."""

    values: FloatArray
    names: tuple[str, ...]
    spec: ModelSpec


def materialize(formula: str, frame: pd.DataFrame, context: Mapping[str, Any]) -> Any:
    """Formulaic's model matrices; rows with missing values must be gone already.

    Raises
    ------
    DataError
        A piece of the formula cannot be evaluated on these data.
    """
    try:
        materializer = PandasMaterializer(frame, context=context)
        return materializer.get_model_matrix(Formula(formula), na_action="ignore", output="numpy")
    except (FormulaicError, ValueError, TypeError, ArithmeticError) as error:
        raise DataError(f"'{formula}' cannot be evaluated on these data: {plain(error)}") from error


def as_columns(matrix: Any, what: str) -> Columns:
    """Check that a model matrix is numeric and finite.

    Raises
    ------
    DataError
        It is not; names the column and the number of rows.
    """
    spec = matrix.model_spec
    values = np.asarray(matrix)
    if not np.can_cast(values.dtype, np.float64, "same_kind"):
        raise DataError(
            f"{what} has columns that are not numbers (dtype {values.dtype}): {', '.join(spec.column_names)}"
        )
    values = np.ascontiguousarray(values, dtype=np.float64)
    names = tuple(spec.column_names)
    check_finite(values, names, what)
    return Columns(values, names, spec)


def check_finite(values: FloatArray, names: tuple[str, ...], what: str) -> None:
    """Refuse columns (n, k) that hold nan or infinite values."""
    good = np.isfinite(values)
    if good.all():
        return
    counts = (~good).sum(axis=0)
    bad = "; ".join(f"{name!r} in {count} rows" for name, count in zip(names, counts, strict=True) if count)
    raise DataError(
        f"{what} has values that are not finite numbers: {bad}. Look for infinite values, or a transformation such as "
        "the logarithm of a number that is not positive; drop or repair these rows first"
    )


def read_fixed(
    response: str, fixed: str, frame: pd.DataFrame, context: Mapping[str, Any]
) -> tuple[FloatArray, Columns]:
    """Response (n,) and fixed-effects columns.

    Raises
    ------
    DataError
        The response is not one numeric column, does not vary, or something is not finite.
    """
    matrices = materialize(f"{response} ~ {fixed}", frame, context)
    spec = matrices.lhs.model_spec
    if any(kind is Factor.Kind.CATEGORICAL for kind, _ in spec.encoder_state.values()):
        raise DataError(f"the response {response!r} is categorical; a linear mixed model needs a numeric response")
    if len(spec.column_names) != 1:
        columns = ", ".join(spec.column_names) or "none"
        raise DataError(
            f"the response {response!r} must be one numeric column, but gives {len(spec.column_names)}: {columns}"
        )
    y = as_columns(matrices.lhs, "the response").values[:, 0]
    if y.min() == y.max():
        raise DataError(f"the response {response!r} is {y[0]:g} in all {y.size} rows; there is nothing to model")
    return y, as_columns(matrices.rhs, "the fixed part")
