"""Models whose rows come in batches in the tests of sources, and what must be equal however they come."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from refdata import load_data

N = 240


@dataclass(frozen=True)
class Case:
    formula: str
    data: pd.DataFrame
    options: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-12


def mixed_frame():
    """Every kind of column, with values missing here and there."""
    rng = np.random.default_rng(11)
    g = rng.choice([f"place {i:02d}" for i in range(23)], N)
    h = rng.integers(-3, 9, N)
    x = rng.normal(5.0, 2.0, N)
    data = pd.DataFrame(
        {
            "x": np.where(rng.random(N) < 0.05, np.nan, x),
            "k": rng.integers(1, 4, N),
            "f": pd.Categorical(rng.choice(list("pqr"), N), categories=["r", "none", "p", "q"]),
            "t": rng.choice(["tea", "coffee", "water"], N),
            "b": rng.random(N) < 0.4,
            "g": np.where(rng.random(N) < 0.03, None, g),
            "h": h,
            "w": rng.uniform(0.5, 3.0, N),
            "o": rng.normal(size=N),
        }
    )
    effects = dict(zip(np.unique(g), rng.normal(size=23), strict=True))
    data["y"] = 3.0 + 0.4 * x + (data.t == "tea") + [effects[name] for name in g] + 0.3 * h + rng.normal(size=N)
    return data


def far_frame():
    """A covariate and a response with means of a million standard deviations."""
    rng = np.random.default_rng(12)
    g, x = rng.integers(0, 15, N), rng.normal(size=N)
    y = x * (1.0 + 0.3 * rng.normal(size=15)[g]) + rng.normal(size=15)[g] + rng.normal(size=N)
    return pd.DataFrame({"y": 1e6 + y, "x": 1e6 + x, "g": g})


def deficient_frame():
    data = mixed_frame().dropna()
    data["twice"] = 2.0 * data.x - 1.0
    data["late"] = np.where(np.arange(len(data)) >= len(data) - 3, data.o, 0.0)
    return data


MIXED = "y ~ np.log(x + 40) * f + t + C(k) + b + (x | g) + (b || h) + (1 | t:h)"
CASES = {
    "insteval": Case("y ~ service + (1 | s) + (1 | d) + (1 | dept)", load_data("insteval")),
    "sleepstudy": Case("Reaction ~ Days + (Days | Subject)", load_data("sleepstudy"), {"offset": "off"}),
    "penicillin": Case("diameter ~ 1 + (1 | plate) + (1 | sample)", load_data("penicillin")),
    "mixed": Case(MIXED, mixed_frame(), {"weights": "w", "offset": "o"}),
    "nested": Case("y ~ x + (1 | t/g)", mixed_frame()),
    # [1, x] has a condition number of 1e6, so the coefficients of ordinary least squares hold 1e6 times the rounding
    "far": Case("y ~ x + (x | g)", far_frame(), tolerance=1e-8),
    # the last of its columns depends on the others by way of a column that is 1e5 times as large
    "far, deficient": Case("y ~ far + center(x):f + (1 | g)", mixed_frame().assign(far=lambda d: 1e5 + d.x), {}, 1e-8),
    "scaled": Case("center(y) ~ scale(x) * f + standardize(np.log(h + 9)) + (scale(x) | g)", mixed_frame()),
    "deficient": Case("y ~ x + twice + late + (1 | g) + (1 | h)", deficient_frame()),
}
SMALL = [name for name in CASES if name != "insteval"]


def close(ours, theirs, tolerance):
    """Equal to rounding, relative to the largest element."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=tolerance * np.abs(theirs).max(initial=1e-300))


def assert_same(ours, theirs, tolerance=1e-12):
    """Cross-products of the same rows: the same layout, and the same numbers to rounding."""
    a, b = ours.layout, theirs.layout
    assert (a.formula, a.response, a.fixed, a.dropped) == (b.formula, b.response, b.fixed, b.dropped)
    assert (a.weighted, a.offset, a.theta_names) == (b.weighted, b.offset, b.theta_names)
    assert [(f.name, f.columns, list(f.levels)) for f in a.factors] == [
        (f.name, f.columns, list(f.levels)) for f in b.factors
    ]
    assert [type(level) for f in a.factors for level in f.levels] == [type(v) for f in b.factors for v in f.levels]
    assert (ours.n, ours.n_dropped) == (theirs.n, theirs.n_dropped)
    assert abs(ours.sum_log_weights - theirs.sum_log_weights) <= 1e-12 * theirs.n
    close(a.standardization.x_basis, b.standardization.x_basis, tolerance)
    close(a.standardization.origin, b.standardization.origin, tolerance)
    close(a.standardization.scale, b.standardization.scale, tolerance)
    for one, other in zip(a.standardization.z_bases, b.standardization.z_bases, strict=True):
        close(one, other, tolerance)
    close(ours.fixed, theirs.fixed, tolerance)
    for one, other in zip((*ours.diagonal, *ours.border), (*theirs.diagonal, *theirs.border), strict=True):
        close(one, other, tolerance)
    for (f, g, one), (i, j, other) in zip(ours.pairs, theirs.pairs, strict=True):
        assert (f, g) == (i, j)
        np.testing.assert_array_equal(one.indptr, other.indptr)
        np.testing.assert_array_equal(one.indices, other.indices)
        close(one.values, other.values, tolerance)


def cut(data, rows):
    """A frame in batches of so many rows."""
    return [data.iloc[start : start + rows] for start in range(0, len(data), rows)]
