"""Statsmodels on the same data, at the optimum: its own optimisers stop early too often to be compared with."""

from __future__ import annotations

import csv
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

statsmodels = pytest.importorskip("statsmodels")

import statsmodels.formula.api as smf  # noqa: E402
from statsmodels.regression import mixed_linear_model as theirs  # noqa: E402, F401

LME = Path(statsmodels.__file__).parent / "regression" / "tests" / "results"


def simulated(seed: int = 3, n: int = 400) -> pd.DataFrame:
    """Rows of 40 shuffled groups g with a slope on x, a category c and effects of c within the groups."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "g": rng.permutation(np.repeat(np.arange(40), n // 40)),
            "x": rng.normal(size=n),
            "z": rng.normal(size=n),
            "c": rng.choice(list("abc"), n),
        }
    )
    code = frame["c"].map({"a": 0, "b": 1, "c": 2})
    frame["y"] = 1 + frame["x"] + 1.5 * rng.normal(size=40)[frame["g"]] + rng.normal(size=40)[frame["g"]] * frame["x"]
    frame["y"] += 1.2 * rng.normal(size=(40, 3))[frame["g"], code] + 0.6 * rng.normal(size=40)[frame["g"]] * frame["z"]
    frame["y"] += rng.normal(size=n)
    return frame


def fit_from(model: Any, start: Any, **options: Any) -> Any:
    """Statsmodels' fit of its model, begun at `start` (a MixedLMParams)."""
    packed = start.get_packed(model.use_sqrt)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(start_params=packed, method=["bfgs"], **options)


def mixedlm(*args: Any, **kwargs: Any) -> Any:
    """Statsmodels' model of a formula."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return smf.mixedlm(*args, **kwargs)


@dataclass(frozen=True)
class FromR:
    """What R's lmer says of one of statsmodels' twelve test data sets, and the data."""

    endog: np.ndarray
    exog: np.ndarray
    groups: np.ndarray
    exog_re: np.ndarray
    values: dict[str, np.ndarray]


def r_results(number: int, *, reml: bool, independent: bool) -> FromR | None:
    """Data set `number` with R's results; None where R was not asked."""
    results = pytest.importorskip("statsmodels.regression.tests.results.lme_r_results")
    suffix = f"_{'reml' if reml else 'ml'}_{'irf' if independent else 'drf'}_{number}"
    names = ("coef", "vcov", "cov_re", "scale", "loglike", "ranef_mean", "ranef_condvar")
    values = {name: np.asarray(vars(results)[name + suffix]) for name in names if name + suffix in vars(results)}
    if not values:
        return None
    with (LME / f"lme{number:02d}.csv").open() as file:
        header, *rows = csv.reader(file)
    data = pd.DataFrame(np.array(rows, dtype=float), columns=header)
    pick = lambda stem: data[[name for name in header if name.startswith(stem)]].to_numpy()  # noqa: E731
    return FromR(data["endog"].to_numpy(), pick("exog_fe"), data["groups"].to_numpy(), pick("exog_re"), values)
