"""GPBoost: grouped random effects, exact (Cholesky) in place of its iterative default for large data."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from benchmarks.problems import Problem

LABEL = "gpboost (Cholesky)"


def skip(problem: Problem) -> str | None:
    if problem.refit:
        return "fits no model twice without building it"
    if problem.has_slopes:
        return "random slopes are independent of the intercepts: another model"
    return "no REML" if problem.reml else None


def version() -> str:
    import gpboost

    return gpboost.__version__


def fitter(problem: Problem, data: pd.DataFrame, method: str = "cholesky") -> Callable[[], float]:
    import gpboost
    from formulaic import model_matrix

    def fit() -> float:
        fixed = model_matrix(problem.fixed, data).to_numpy(float)
        groups = data[list(problem.groups)].astype(str).to_numpy()
        model = gpboost.GPModel(group_data=groups, likelihood="gaussian", matrix_inversion_method=method)
        model.fit(y=data[problem.response].to_numpy(float), X=fixed)
        return 2.0 * model.get_current_neg_log_likelihood()

    return fit
