"""Gradient and average information of the profiled criterion against the dense oracle, on small simulated data.

Both are compared in natural units of theta (one over the root mean square of the column it belongs to): a covariate
with a mean of a thousand has derivatives a thousand times larger.
"""

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pandas as pd
import pytest
from dense import Dense

import crosslmm as clm


@dataclass(frozen=True)
class Case:
    formula: str
    bars: tuple[tuple[str, str], ...]  # (group, columns) in lme4's order
    fixed: str = "1 x"
    options: dict = field(default_factory=dict)


# Numbers of levels: a 9, b 7, c 4.
CASES = {
    "intercept": Case("y ~ x + (1 | a)", (("a", "1"),)),
    "slope": Case("y ~ x + (1 + x | a)", (("a", "1 x"),)),
    "three columns": Case("y ~ x + (1 + x + z | a)", (("a", "1 x z"),)),
    "slope alone": Case("y ~ x + (0 + x | a)", (("a", "x"),)),
    "two crossed": Case("y ~ x + (1 | a) + (1 | b)", (("a", "1"), ("b", "1"))),
    "three crossed": Case("y ~ x + (1 | a) + (1 | b) + (1 | c)", (("a", "1"), ("b", "1"), ("c", "1"))),
    "crossed slopes": Case("y ~ x + (1 + x | a) + (1 + z | b)", (("a", "1 x"), ("b", "1 z"))),
    "crossed, smallest first": Case("y ~ x + (1 + x | c) + (1 | b) + (1 | a)", (("a", "1"), ("b", "1"), ("c", "1 x"))),
    "nested": Case("y ~ x + (1 + x | c / b)", (("b:c", "1 x"), ("c", "1 x"))),
    # Equal numbers of levels out of order would be reversed; these are in order, so they stay as written.
    "double bar": Case("y ~ x + (x || a) + (1 | b)", (("a", "1"), ("a", "x"), ("b", "1"))),
    "three terms, two factors": Case(
        "y ~ x + (1 + x | a) + (0 + z | a) + (1 | b)", (("a", "1 x"), ("a", "z"), ("b", "1"))
    ),
    "weights": Case("y ~ x + (1 + x | a) + (1 | b)", (("a", "1 x"), ("b", "1")), options={"weights": "w"}),
    "offset": Case("y ~ x + (1 | a) + (1 | b)", (("a", "1"), ("b", "1")), options={"offset": "o"}),
    "no fixed effects": Case("y ~ 0 + (1 + x | a) + (1 | b)", (("a", "1 x"), ("b", "1")), fixed=""),
    "mean of a thousand": Case("y ~ t + (1 + t | a) + (1 | b)", (("a", "1 t"), ("b", "1")), fixed="1 t"),
    "mean of a thousand, diagonal": Case("y ~ t + (t || a)", (("a", "1"), ("a", "t")), fixed="1 t"),
}
WHERE = ("optimum", "start", "away", "far", "zero", "some zeros")


@cache
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(20240229)
    n = 56
    sizes = {"a": 9, "b": 7, "c": 4}
    data = pd.DataFrame({key: rng.permutation(np.arange(n) % size) for key, size in sizes.items()})
    data["x"] = rng.normal(size=n)
    data["z"] = rng.uniform(-1, 2, size=n)
    data["t"] = 1000 + rng.normal(size=n)
    data["w"] = rng.uniform(0.3, 3, size=n)
    data["o"] = rng.normal(size=n)
    effects = {key: rng.normal(size=(size, 2)) for key, size in sizes.items()}
    data["y"] = 2 + 0.5 * data["x"] + data["o"] + rng.normal(size=n)
    for key, column in (("a", "x"), ("b", "z"), ("c", "x")):
        data["y"] += effects[key][data[key], 0] + 0.6 * effects[key][data[key], 1] * data[column]
    for key in sizes:
        data[key] = pd.Categorical([f"{key}{code}" for code in data[key]])
    return data


@cache
def problem(name: str) -> tuple[clm.MixedLM, Dense]:
    case, data = CASES[name], frame()

    def columns(names):
        values = [np.ones(len(data)) if column == "1" else data[column].to_numpy() for column in names.split()]
        return np.stack(values, axis=1) if values else np.empty((len(data), 0))

    terms = [
        (pd.factorize(data[group.split(":")].astype(str).agg(":".join, axis=1))[0], columns(names))
        for group, names in case.bars
    ]
    rows = {option: data[column] for option, column in case.options.items()}
    dense = Dense(data["y"], columns(case.fixed), terms, dtype=np.longdouble, **rows)
    return clm.MixedLM.from_formula(case.formula, data, **case.options), dense


def theta_at(where: str, model: clm.MixedLM, dense: Dense, reml: bool) -> np.ndarray:
    units = dense.units
    diagonal = np.array([r == c for _, r, c in dense.elements])
    rng = np.random.default_rng(7)
    random = np.where(diagonal, rng.uniform(0.2, 1.5, len(units)), rng.normal(size=len(units))) * units
    if where == "some zeros":
        random[np.flatnonzero(diagonal)[::2]] = 0.0
    points = {
        "start": diagonal * 1.0,
        "away": random,
        "far": 20 * random,
        "zero": np.zeros(len(units)),
        "some zeros": random,
    }
    return model.fit(reml=reml).theta.to_numpy() if where == "optimum" else points[where]


@pytest.mark.parametrize("reml", [True, False], ids=["reml", "ml"])
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("name", CASES)
def test_gradient_and_information(name, where, reml):
    model, dense = problem(name)
    theta = theta_at(where, model, dense, reml)
    check(model.objective(theta, reml=reml), dense, theta, reml, dense.gradient(theta, reml))


@pytest.mark.parametrize("reml", [True, False], ids=["reml", "ml"])
@pytest.mark.parametrize("where", ["away", "zero", "some zeros"])
@pytest.mark.parametrize("name", ["three crossed", "crossed slopes", "nested", "no fixed effects", "weights"])
@pytest.mark.parametrize("rest", ["dense", "sparse"])
def test_either_storage_of_the_equations(rest, name, where, reml):
    model, dense = problem(name)
    theta = theta_at(where, model, dense, reml)
    value = model.objective(theta, reml=reml, engine=clm.DirectEngine(rest=rest))
    check(value, dense, theta, reml, dense.score(theta, reml))


@pytest.mark.parametrize("rest", ["dense", "sparse"])
@pytest.mark.parametrize("formula", ["y ~ x + (1 + x | a) + (1 + x | b) + (1 | c)", "y ~ x + (1 + x | a) + (x || c)"])
def test_many_levels(formula, rest):
    """Levels of b lie within two levels of a at most, and c is crossed with both: sparse, with fill."""
    rng = np.random.default_rng(5)
    n = 300
    a = np.arange(n) % 60
    data = pd.DataFrame({"a": a, "b": a // 2 + rng.integers(0, 2, n), "c": rng.integers(0, 10, n)})
    data["x"] = rng.normal(size=n) + 3
    data["y"] = rng.normal(size=n) + 0.3 * data["x"] * rng.normal(size=60)[a]
    one, slope = np.ones((n, 1)), np.stack([np.ones(n), data["x"]], axis=1)
    a, b, c = (pd.factorize(data[key])[0] for key in "abc")
    if "||" in formula:
        terms, theta = [(a, slope), (c, one), (c, slope[:, 1:])], np.array([0.8, -0.3, 0.4, 0.5, 0.2])
    else:
        terms, theta = [(a, slope), (b, slope), (c, one)], np.array([0.8, -0.3, 0.4, 0.6, 0.1, 0.0, 0.5])
    dense = Dense(data["y"], slope, terms)
    model = clm.MixedLM.from_formula(formula, data)
    for reml in (True, False):
        value = model.objective(theta, reml=reml, engine=clm.DirectEngine(rest=rest))
        check(value, dense, theta, reml, dense.score(theta, reml))


def check(value, dense, theta, reml, gradient):
    assert value.criterion == pytest.approx(float(dense.criterion(theta, reml)), rel=1e-9)

    expected = gradient.astype(float) * dense.units
    error = np.asarray(value.gradient) * dense.units - expected
    assert np.abs(error).max() < 1e-7 * max(1.0, np.abs(expected).max())

    units = np.outer(dense.units, dense.units)
    expected = dense.information(theta, reml).astype(float) * units
    error = np.asarray(value.information) * units - expected
    assert np.abs(error).max() < 1e-6 * max(1e-3, np.abs(expected).max())


@pytest.mark.parametrize("reml", [True, False], ids=["reml", "ml"])
@pytest.mark.parametrize("name", [name for name in CASES if "thousand" not in name])
def test_gradient_vanishes_at_the_fit(name, reml):
    model, dense = problem(name)
    theta = model.fit(reml=reml).theta.to_numpy()
    gradient = dense.gradient(theta, reml).astype(float)
    inside = theta != 0
    assert np.abs(gradient[inside]).max(initial=0) < 1e-3
    diagonal = np.array([r == c for _, r, c in dense.elements])
    for k in np.flatnonzero(diagonal & ~inside):  # at a bound the criterion must not fall on the inner side
        inner = theta.copy()
        inner[k] = 1e-3
        assert dense.criterion(inner, reml) >= dense.criterion(theta, reml)
