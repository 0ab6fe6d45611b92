"""Response and fixed-effects columns, by formulaic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from formulaic import Formula, ModelSpec, SimpleFormula
from formulaic.materializers import PandasMaterializer
from formulaic.parser.types import Factor, Term

from crosslmm.covariance import FloatArray
from crosslmm.errors import DataError
from crosslmm.formula.bars import plain
from crosslmm.formula.read import read

LARGEST = 1e120
"""The largest size of a number whose square can be weighted and summed; its inverse is the smallest."""

RESPONSE, FIXED_PART = "the response", "the fixed part"
"""What the columns are called in messages."""

FIRST_ROWS = 1000
"""Rows that show that most columns are not tiny."""


@dataclass(frozen=True)
class Columns:
    """Columns that formulaic made, with their names and what is needed to make them again.

    Attributes
    ----------
    values : ndarray, shape (n, k)
    names : tuple of str
    spec : formulaic.ModelSpec
    empty : tuple of str
        Terms that gave no column: factors of one level.
    """

    values: FloatArray
    names: tuple[str, ...]
    spec: ModelSpec
    empty: tuple[str, ...]


def materialize(formula: str, frame: pd.DataFrame, context: Mapping[str, Any]) -> Any:
    """Formulaic's model matrices; rows with missing values must be gone already.

    Raises
    ------
    DataError
        A piece of the formula cannot be evaluated on these data.
    """
    parsed = read(formula)
    try:
        return _materialize(parsed, frame, context)
    except MemoryError:
        raise
    except Exception as error:  # the formula may call any function
        piece = _failing_piece(parsed, frame, context) or formula
        hint = ". A power is written **, not ^" if "^" in piece else ""
        raise DataError(f"'{piece}' cannot be evaluated on these data: {plain(error)}{hint}") from error


def materialize_again(specs: Sequence[ModelSpec], frame: pd.DataFrame, context: Mapping[str, Any]) -> list[Any]:
    """Model matrices of other rows, encoded as those that the specifications were learned from.

    Raises
    ------
    DataError
        A piece of a formula cannot be evaluated on these rows.
    """
    materializer = PandasMaterializer(frame, context=context)  # keeps the factors that several matrices share
    made = []
    for spec in specs:
        try:
            with np.errstate(all="ignore"):
                made.append(materializer.get_model_matrix(spec))
        except MemoryError:
            raise
        except Exception as error:  # as in `materialize`
            raise DataError(f"'{spec.formula}' cannot be evaluated on these data: {plain(error)}") from error
    return made


def _materialize(formula: Any, frame: pd.DataFrame, context: Mapping[str, Any]) -> Any:
    # Overflow and logarithms of 0 show as values that are not finite, which are refused by name.
    with np.errstate(all="ignore"):
        materializer = PandasMaterializer(frame, context=context)
        return materializer.get_model_matrix(formula, na_action="ignore", output="numpy")


def _is_boolean(piece: str, frame: pd.DataFrame, context: Mapping[str, Any]) -> bool:
    """Whether a piece of a formula is of dtype bool, which formulaic turns into integers."""
    materializer = PandasMaterializer(frame, context=context)
    materializer.get_model_matrix(Formula(f"0 + {piece}"), na_action="ignore", output="numpy")
    return any(
        pd.api.types.is_bool_dtype(np.asarray(factor.values).dtype)
        for name, factor in materializer.factor_cache.items()
        if name != "0"
    )


def _failing_piece(formula: Any, frame: pd.DataFrame, context: Mapping[str, Any]) -> str | None:
    """The first factor of a formula that cannot be evaluated by itself."""
    sides = [formula] if isinstance(formula, SimpleFormula) else [formula.lhs, formula.rhs]
    for factor in (factor for side in sides for term in side for factor in term.factors):
        try:
            _materialize(Formula([Term([factor])]), frame, context)
        except Exception:  # as above
            return str(factor.expr)
    return None


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
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise DataError(f"{what} has two columns named {twice!r}; rename the column of the data that is called so")
    check_finite(values, names, what)
    empty = tuple(str(part.term) for part in spec.structure if not part.columns)
    return Columns(values, names, spec, empty)


def check_finite(values: FloatArray, names: tuple[str, ...], what: str) -> None:
    """Refuse columns (n, k) that hold nan or infinite values, or whose squares leave the range of float64."""
    if values.size == 0:
        return
    largest = max(float(values.max()), -float(values.min()))  # nan when any value is
    if np.isfinite(largest):
        if largest > LARGEST or np.abs(values[:FIRST_ROWS]).max(axis=0).min() < 1.0 / LARGEST:
            check_sizes(np.abs(values).max(axis=0), names, what)
        return
    counts = (~np.isfinite(values)).sum(axis=0)
    bad = "; ".join(
        f"{name!r} in {count} row{'s' if count > 1 else ''}" for name, count in zip(names, counts, strict=True) if count
    )
    raise DataError(
        f"{what} has values that are not finite numbers: {bad}. Look for infinite values, or a transformation such as "
        "the logarithm of a number that is not positive; drop or repair these rows first"
    )


def check_sizes(sizes: FloatArray, names: tuple[str, ...], what: str) -> None:
    """Refuse columns whose largest absolute values (k,) leave the range in which float64 can square and sum them."""
    for name, size in zip(names, sizes, strict=True):
        if size > LARGEST or 0.0 < size < 1.0 / LARGEST:
            raise DataError(
                f"{what} has values of about {size:.1g} in {name!r}, whose squares and products float64 cannot hold; "
                f"rescale {name!r} (sizes from {1.0 / LARGEST:.0e} to {LARGEST:.0e} can be used)"
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
    y = response_column(response, matrices.lhs, frame, context)
    check_varies(response, float(y.min()), float(y.max()), y.size)
    return y, as_columns(matrices.rhs, FIXED_PART)


def response_column(response: str, matrix: Any, frame: pd.DataFrame, context: Mapping[str, Any]) -> FloatArray:
    """The response (n,) from its model matrix.

    Raises
    ------
    DataError
        It is not one column of numbers, or is boolean.
    """
    spec = matrix.model_spec
    if any(kind is Factor.Kind.CATEGORICAL for kind, _ in spec.encoder_state.values()):
        raise DataError(f"the response {response!r} is categorical; a linear mixed model needs a numeric response")
    if len(spec.column_names) != 1:
        columns = ", ".join(spec.column_names) or "none"
        raise DataError(
            f"the response {response!r} must be one numeric column, but gives {len(spec.column_names)}: {columns}"
        )
    y = as_columns(matrix, RESPONSE).values[:, 0]
    if np.isin(y[:2], (0.0, 1.0)).all() and _is_boolean(response, frame, context):
        raise DataError(
            f"the response {response!r} is boolean; a linear mixed model of a yes or no is rarely meant: convert it to "
            "0 and 1 on purpose (.astype(float)) if it is"
        )
    return y


def check_varies(response: str, low: float, high: float, n: int) -> None:
    """Refuse a response that is the same in all n rows."""
    if low == high:
        raise DataError(f"the response {response!r} is {low:g} in all {n} rows; there is nothing to model")
