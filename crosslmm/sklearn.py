"""A mixed model as an estimator of scikit-learn: for pipelines, cross-validation and searches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted, column_or_1d, validate_data

from crosslmm.errors import DataError, ModelError
from crosslmm.formula import parse
from crosslmm.functions import lmer
from crosslmm.results import MixedLMResults

GROUPS = "groups"
"""Name of the column of groups that are given beside the data."""

RESPONSE = "y"


class MixedLMRegressor(RegressorMixin, BaseEstimator):
    """Linear mixed model.

    Parameters
    ----------
    formula : str, optional
        Right-hand side of a formula, ``"~ x + (1 | s)"``, over the columns of X (``x0``, ``x1``, ... of an array) and
        ``groups``, if these are given to `fit`. A left-hand side is a name for y. By default all columns of X, with a
        random intercept by ``groups``.
    reml : bool
        Restricted maximum likelihood, or maximum likelihood.
    new_levels : {"population", "error", "sample"}
        What to predict for levels that were not there in `fit`, as they are when whole groups are left out for testing:
        see `MixedLMResults.predict`.
    weights, offset : str, optional
        Columns of X with prior weights and a known part of the response.
    context : mapping, optional
        Further names that the formula uses.
    engine : str
        See `MixedLM.fit`.

    Attributes
    ----------
    result_ : MixedLMResults
        The fit.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Where X has names.
    """

    def __init__(
        self,
        formula: str | None = None,
        *,
        reml: bool = True,
        new_levels: str = "population",
        weights: str | None = None,
        offset: str | None = None,
        context: Mapping[str, Any] | None = None,
        engine: str = "auto",
    ):
        self.formula = formula
        self.reml = reml
        self.new_levels = new_levels
        self.weights = weights
        self.offset = offset
        self.context = context
        self.engine = engine

    def fit(self, X: Any, y: Any, groups: Any = None) -> MixedLMRegressor:
        """Fit the model.

        Parameters
        ----------
        X : DataFrame or array, shape (n, k)
        y : array, shape (n,)
        groups : array, shape (n,), optional
            A column ``groups`` beside those of X.

        Raises
        ------
        ModelError, DataError
            See `crosslmm.lmer`.
        """
        frame = self._frame(X, groups, fitting=True, y=y)
        text = self._formula_text(frame)
        response = parse(text).response
        if response in frame.columns:
            raise ModelError(f"the response {response!r} has the name of a column of X; leave it out: '~ ...'")
        frame[response] = column_or_1d(check_array(y, ensure_2d=False, dtype=np.float64, input_name="y"), warn=True)
        self.result_: MixedLMResults = lmer(
            text,
            frame,
            self.reml,
            weights=self.weights,
            offset=self.offset,
            context=self.context,
            progress=False,
            engine=self.engine,
        )
        return self

    def predict(self, X: Any, groups: Any = None) -> np.ndarray:
        """Predictions with the random effects of levels that are known; shape (n,).

        Parameters
        ----------
        X : DataFrame or array, shape (n, k)
        groups : array, shape (n,), optional
            Without them, random effects by ``groups`` are left out.
        """
        check_is_fitted(self, "result_")
        frame = self._frame(X, groups)
        fit = self.result_
        used: list[str] = []
        for term in fit.model.formula.random:
            if not (GROUPS in term.grouping and GROUPS not in frame.columns):
                used.append(term.group)
        return np.asarray(fit.predict(frame, random_effects=used, new_levels=self.new_levels), dtype=np.float64)

    def _formula_text(self, frame: pd.DataFrame) -> str:
        if self.formula is None:
            if GROUPS not in frame.columns:
                raise ModelError(
                    "a mixed model needs groups: pass formula='~ x + (1 | s)' with a column s of X, or fit(X, y, "
                    "groups=...)"
                )
            names = [name if name.isidentifier() else f"`{name}`" for name in frame.columns if name != GROUPS]
            return f"{RESPONSE}_ ~ {' + '.join(names) or '1'} + (1 | {GROUPS})"
        if not isinstance(self.formula, str):
            raise ModelError(f"formula={self.formula!r}: expected text, such as '~ x + (1 | s)'")
        text = self.formula.strip()
        return f"{RESPONSE}_ {text}" if text.startswith("~") else text

    def _frame(self, X: Any, groups: Any, *, fitting: bool = False, y: Any = None) -> pd.DataFrame:
        """X as a frame with the groups."""
        target = {"y": y} if fitting else {}
        if isinstance(X, pd.DataFrame) and self.formula is not None:
            validate_data(self, X, reset=fitting, skip_check_array=True, **target)
            frame = X.copy(deep=False)
        elif fitting:
            values, _ = validate_data(self, X, y, y_numeric=True, dtype=np.float64, ensure_min_samples=2)
            frame = pd.DataFrame(values, columns=_names(X, values.shape[1]))
        else:
            values = validate_data(self, X, reset=False, dtype=np.float64)
            frame = pd.DataFrame(values, columns=_names(X, values.shape[1]))
        if groups is not None:
            labels = np.asarray(groups, dtype=object) if isinstance(groups, list) else np.asarray(groups)
            check_consistent_length(frame, labels)
            if GROUPS in frame.columns:
                raise DataError(f"X has a column {GROUPS!r} already; leave groups= out")
            frame[GROUPS] = labels
        return frame


def _names(X: Any, n: int) -> list[str]:
    """Names of the columns; x0, x1, ... where they have none, or numbers, which a formula would read as such."""
    names = list(X.columns) if isinstance(X, pd.DataFrame) else [None] * n
    return [name if isinstance(name, str) and not name.strip().isdigit() else f"x{i}" for i, name in enumerate(names)]
