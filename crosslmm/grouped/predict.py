"""Expected responses of the rows of a model, or of new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from crosslmm.covariance import FloatArray
from crosslmm.errors import DataError, ModelError
from crosslmm.grouped.newdata import fixed_part, with_groups
from crosslmm.predicting import Predicting

if TYPE_CHECKING:
    from crosslmm.grouped.results import GroupedResults
    from crosslmm.model import MixedLM


def predict(fit: GroupedResults, exog: Any, *, transform: bool, random_effects: bool, groups: Any) -> Any:
    """Expected responses; see `GroupedResults.predict`."""
    written = fit._written
    if exog is None:
        modes = fit.estimates.modes if random_effects else tuple(np.zeros_like(b) for b in fit.estimates.modes)
        parts = [
            pd.Series(rows.fitted, index=rows.index) for rows in fit.model.design.predictions(fit.estimates.beta, modes)
        ]
        whole = parts[0] if len(parts) == 1 else pd.concat(parts)
        return whole if written.labelled else whole.to_numpy()
    if written.exog is not None or not transform:
        if random_effects:
            raise ModelError(
                "random effects of new rows need a model from a formula, which says how rows become columns of theirs"
            )
        return _of_columns(fit.model, exog, fit.estimates.beta)
    if not random_effects:
        return Predicting.predict(fit, exog, random_effects=False)
    return Predicting.predict(fit, with_groups(exog, written, groups), random_effects=True, new_levels="population")


def _of_columns(model: MixedLM, exog: Any, beta: FloatArray) -> Any:
    """Of rows given as columns of the fixed effects, those that the fit left out included."""
    kept = fixed_part(model)[1]
    try:
        X = np.asarray(exog, dtype=float)
    except (TypeError, ValueError) as error:
        raise DataError(f"exog must be numbers, the columns of the fixed effects: {error}") from error
    X = X[None, :] if X.ndim == 1 else X
    n_columns = len(fixed_part(model)[0].column_names)
    if X.ndim != 2 or X.shape[1] != n_columns:
        raise DataError(f"exog has the shape {np.shape(exog)}, but the fixed part has {n_columns} columns")
    values = X[:, kept] @ beta
    return pd.Series(values, index=exog.index) if isinstance(exog, pd.DataFrame) else values
