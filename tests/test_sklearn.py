"""The estimator in scikit-learn's tools, and scikit-learn's own checks of estimators."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

import crosslmm as clm
from crosslmm.sklearn import MixedLMRegressor


class ByRow(MixedLMRegressor):
    """Groups by the number of the row, because scikit-learn's checks bring none."""

    def fit(self, X, y, groups=None):
        n = X.shape[0] if hasattr(X, "shape") else len(np.asarray(X))
        return super().fit(X, y, np.arange(n) % max(min(5, n // 3), 2))


CANNOT = {
    "check_regressors_no_decision_function": "its response is a column of X, which leaves nothing to model: refused",
}


def test_checks_of_scikit_learn() -> None:
    found = check_estimator(ByRow(), on_fail=None, on_skip=None)
    failed = {item["check_name"]: repr(item["exception"]) for item in found if item["status"] == "failed"}
    assert len(found) > 40
    assert failed.keys() == CANNOT.keys(), failed


@pytest.fixture(scope="module")
def sleep():
    data = clm.datasets.load_sleepstudy()
    data["Subject"] = data["Subject"].astype(str)
    return data.drop(columns="Reaction"), data["Reaction"].rename("time")


FORMULA = "~ Days + (Days | Subject)"


def test_the_fit_is_that_of_lmer(sleep) -> None:
    X, y = sleep
    fit = clm.lmer("Reaction ~ Days + (Days | Subject)", clm.datasets.load_sleepstudy())
    before = X.copy()
    ours = MixedLMRegressor(FORMULA).fit(X, y)
    np.testing.assert_allclose(ours.result_.fe_params, fit.fe_params, rtol=1e-9)
    np.testing.assert_allclose(ours.predict(X), fit.fittedvalues, rtol=1e-9)
    pd.testing.assert_frame_equal(X, before)
    assert list(ours.feature_names_in_) == ["Days", "Subject"]
    assert clone(ours).get_params() == ours.get_params()


def test_cross_validation_by_rows_and_by_groups(sleep) -> None:
    X, y = sleep
    rows = cross_val_score(MixedLMRegressor(FORMULA), X, y, cv=5)
    assert rows.shape == (5,) and np.isfinite(rows).all()
    left_out = cross_val_predict(MixedLMRegressor(FORMULA), X, y, groups=X["Subject"], cv=GroupKFold(6))
    for train, test in GroupKFold(6).split(X, y, X["Subject"]):
        fit = clm.lmer("time ~ Days + (Days | Subject)", X.iloc[train].assign(time=y.iloc[train]))
        np.testing.assert_allclose(left_out[test], fit.predict(X.iloc[test], random_effects=False), rtol=1e-9)
    with pytest.raises(clm.DataError, match="'Subject' has levels"):
        strict = MixedLMRegressor(FORMULA, new_levels="error")
        cross_val_score(strict, X, y, groups=X["Subject"], cv=GroupKFold(6), error_score="raise")


def test_searches_and_pipelines(sleep) -> None:
    X, y = sleep
    search = GridSearchCV(MixedLMRegressor(), {"formula": [FORMULA, "~ 1 + (1 | Subject)"]}, cv=3).fit(X, y)
    assert search.best_params_["formula"] == FORMULA
    centred = FunctionTransformer(lambda X: X.assign(Days=X["Days"] - 4.5))
    piped = make_pipeline(centred, MixedLMRegressor(FORMULA)).fit(X, y)
    np.testing.assert_allclose(piped.predict(X), MixedLMRegressor(FORMULA).fit(X, y).predict(X), rtol=1e-6)


def test_groups_beside_an_array(sleep) -> None:
    X, y = sleep
    days, groups = X[["Days"]].to_numpy(float), X["Subject"].to_numpy()
    fit = clm.lmer("Reaction ~ Days + (1 | Subject)", clm.datasets.load_sleepstudy())
    ours = MixedLMRegressor().fit(days, y, groups)
    np.testing.assert_allclose(ours.predict(days, groups), fit.fittedvalues, rtol=1e-9)
    np.testing.assert_allclose(ours.predict(days), fit.predict(random_effects=False), rtol=1e-9)
    slopes = MixedLMRegressor("~ x0 + (x0 | groups)").fit(days, y, groups.tolist())
    np.testing.assert_allclose(slopes.predict(days, groups), MixedLMRegressor(FORMULA).fit(X, y).predict(X), rtol=1e-9)


def test_refusals(sleep) -> None:
    X, y = sleep
    with pytest.raises(clm.ModelError, match="a mixed model needs groups"):
        MixedLMRegressor().fit(X[["Days"]], y)
    with pytest.raises(clm.ModelError, match="the response 'Days' has the name of a column of X"):
        MixedLMRegressor("Days ~ (1 | Subject)").fit(X, y)
    with pytest.raises(clm.DataError, match="X has a column 'groups' already"):
        MixedLMRegressor("~ 1 + (1 | groups)").fit(X.rename(columns={"Subject": "groups"}), y, groups=np.arange(180))
