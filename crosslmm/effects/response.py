"""Another response for the rows of a model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from crosslmm.blas import length
from crosslmm.covariance import FloatArray
from crosslmm.design.fixed import check_finite, check_varies
from crosslmm.design.qr import triangular_factor
from crosslmm.design.rows import Design, ModelRows
from crosslmm.design.standardize import check_spread, fixed_coordinates
from crosslmm.errors import DataError, ModelError


def with_response(design: ModelRows, y: Any) -> Design:
    """The rows of a model with another response.

    Parameters
    ----------
    design : ModelRows
    y : array or Series, shape (n,)
        One number for each row used; a Series may have more rows, and is matched by its index.

    Raises
    ------
    ModelError
        The rows are not in memory.
    DataError
        `y` does not fit the rows, or is not finite.
    """
    if not isinstance(design, Design):
        raise ModelError(
            "refit needs the rows of the model in memory; these are in a source, or gone: add the response to the "
            "data as a "
            "column and make a model with it"
        )
    values = _values(design, y)
    check_finite(values[:, None], (design.response,), "the new response")
    check_varies(design.response, float(values.min()), float(values.max()), values.size)
    target = values if design.offset is None else values - design.offset
    mean = float(target.mean())
    spread = length(target - mean)
    check_spread(mean, spread, values.size, design.response)
    factor = triangular_factor(np.column_stack([design.X, target]))
    x_basis, origin, scale = fixed_coordinates(factor, values.size, design.response, spread)
    standardization = replace(design.layout.standardization, x_basis=x_basis, origin=origin, scale=scale)
    layout = replace(design.layout, standardization=standardization)
    return replace(
        design, y=values, layout=layout, given=None if design.given is None else replace(design.given, data=None)
    )


def _values(design: Design, y: Any) -> FloatArray:
    if isinstance(y, pd.DataFrame):
        if y.shape[1] != 1:
            raise DataError(f"the new response must be one column, not {y.shape[1]}; refit them one by one")
        y = y.iloc[:, 0]
    if isinstance(y, pd.Series) and not y.index.equals(design.row_labels):
        if not (y.index.is_unique and design.row_labels.is_unique and design.row_labels.isin(y.index).all()):
            raise DataError(
                f"the index of the new response does not match that of the {design.n} rows used; pass an array in "
                "their order"
            )
        y = y.loc[design.row_labels]
    try:
        values = np.asarray(y, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError("the new response must be numbers") from error
    if values.shape != (design.n,):
        raise DataError(
            f"the new response must hold one number for each of the {design.n} rows used ({design.n_dropped} were "
            "left out "
            f"because of missing values), but has shape {values.shape}"
        )
    return values
