"""A fit is a minimum: a general-purpose minimiser that starts beside it finds nothing lower.

The data are small and their variances often zero or of deficient rank, where most of the traps are: the criterion is
even in each column of a template, so it is stationary wherever one vanishes, and a diagonal element may be zero while
the elements below it are not.
"""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

import crosslmm as clm

FORMULAS = {
    "intercept": "y ~ x + (1 | a)",
    "slope": "y ~ x + (1 + x | a)",
    "three columns": "y ~ x + (1 + x + z | a)",
    "slope and intercept": "y ~ x + (1 + x | a) + (1 | b)",
    "two slopes": "y ~ x + (1 + x | a) + (1 + z | b)",
    "double bar": "y ~ x + (x || a) + (1 | b)",
    "nested slopes": "y ~ x + (1 + x | c / b)",
    "far from zero": "y ~ t + (1 + t | a) + (1 + t | c)",
    "three factors": "y ~ x + (1 + x + z | a) + (1 + x | b) + (1 | c)",
}
SEEDS = (1, 7, 14, 15, 19, 20, 22, 25, 31, 39)  # many of their models are singular


def simulate(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng([2003, seed])
    n = int(rng.integers(110, 180))
    sizes = {"a": int(rng.integers(6, 20)), "b": int(rng.integers(4, 9)), "c": int(rng.integers(3, 6))}
    data = pd.DataFrame({key: rng.integers(0, size, n) for key, size in sizes.items()})
    data["x"] = rng.normal(size=n)
    data["z"] = rng.uniform(-1, 2, size=n)
    data["t"] = rng.choice([1, 100]) + rng.normal(size=n)
    data["y"] = rng.normal(size=n)
    for key, column in (("a", "x"), ("b", "z"), ("c", "x")):
        effects = rng.normal(size=(sizes[key], 2)) * rng.choice([0.0, 0.3, 1.0, 4.0], size=2)
        if rng.random() < 0.3:
            effects[:, 1] = effects[:, 0]
        data["y"] += effects[data[key], 0] + effects[data[key], 1] * data[column]
    return data


def lowest_nearby(model: clm.MixedLM, theta: np.ndarray, reml: bool) -> float:
    """Lowest criterion that L-BFGS-B reaches from a point beside theta, off every bound."""
    diagonal = np.array([name.count(".") == 1 for name in model.theta_names])
    rng = np.random.default_rng(0)
    start = theta + 0.1 * np.where(diagonal, rng.uniform(0.1, 2, theta.size), 0.3 * rng.normal(size=theta.size))

    def both(x):
        value = model.objective(x, reml=reml)
        return value.criterion, value.gradient

    options = {"ftol": 1e-14, "gtol": 1e-8, "maxiter": 500}
    bounds = [(0, None) if flag else (None, None) for flag in diagonal]
    return minimize(both, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).fun


@pytest.mark.parametrize("reml", [True, False], ids=["reml", "ml"])
@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_lower_nearby(seed, name, reml):
    model = clm.MixedLM.from_formula(FORMULAS[name], simulate(seed))
    fit = model.fit(reml=reml)
    assert fit.converged
    assert fit.criterion <= lowest_nearby(model, fit.theta.to_numpy(), reml) + 1e-6


MOST = 100
"""Evaluations of a hard search; most take fewer than ten."""


def with_mean(seed: int) -> pd.DataFrame:
    """Random slopes whose mean no fixed effect takes up: the curvature at the minimum is a thirtieth of the model's."""
    rng = np.random.default_rng([9, seed])
    n, size = int(rng.integers(150, 400)), int(rng.integers(12, 40))
    data = pd.DataFrame({"a": rng.integers(0, size, n), "b": rng.integers(0, 8, n)})
    data["x"] = rng.normal(size=n) * rng.choice([1.0, 5.0]) + rng.choice([0.0, 3.0])
    slopes = 7.0 + rng.choice([0.1, 1.0]) * rng.normal(size=size)
    data["y"] = 20.0 + rng.normal(size=size)[data["a"]] + slopes[data["a"]] * data["x"] + rng.normal(size=n)
    return data.assign(y=data["y"] + 0.5 * rng.normal(size=8)[data["b"]])


@pytest.mark.parametrize("reml", [True, False], ids=["reml", "ml"])
@pytest.mark.parametrize("formula", ["y ~ 1 + (1 + x | a)", "y ~ 1 + (1 + x | a) + (1 | b)", "y ~ 1 + (x || a)"])
@pytest.mark.parametrize("seed", range(6))
def test_random_effects_with_a_mean(seed, formula, reml):
    model = clm.MixedLM.from_formula(formula, with_mean(seed))
    fit = model.fit(reml=reml)
    assert fit.converged
    assert len(fit.optimization) < MOST
    assert fit.criterion <= lowest_nearby(model, fit.theta.to_numpy(), reml) + 1e-6


@pytest.mark.parametrize("reml", [True, False], ids=["reml", "ml"])
def test_pigs_that_grow_without_a_fixed_slope(reml):
    model = clm.MixedLM.from_formula("Weight ~ 1 + (Time | Pig)", clm.datasets.load_dietox())
    fit = model.fit(reml=reml)
    assert fit.converged
    assert len(fit.optimization) < MOST
    assert fit.criterion <= lowest_nearby(model, fit.theta.to_numpy(), reml) + 1e-6
