"""The dense oracle in the coordinates of the engines: what a `System` must give, by n x n matrices, and models for it.

Only the coordinates come from the package (`Layout.standardization`); `test_gradient.py` holds them to the oracle in
the units of the data.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np
import pandas as pd
from dense import Dense

import crosslmm as clm


@dataclass(frozen=True)
class Oracle:
    """A model at one template per factor of the layout, any square matrices."""

    dense: Dense
    templates: tuple[np.ndarray, ...]
    n_levels: tuple[int, ...]

    @cached_property
    def covariance(self) -> np.ndarray:
        """V, n x n."""
        explained = [self.dense.spread(f, T @ T.T) for f, T in enumerate(self.templates)]
        return np.diag(self.dense.variance) + sum(explained)

    @cached_property
    def inverse(self) -> np.ndarray:
        return np.linalg.inv(self.covariance)

    @property
    def log_det(self) -> float:
        """``log |V| + sum log w``."""
        return np.linalg.slogdet(self.covariance)[1] - np.log(self.dense.variance).sum()

    @property
    def fixed(self) -> np.ndarray:
        G = np.column_stack([self.dense.X, self.dense.y])
        return G.T @ self.inverse @ G

    def project(self, reml: bool) -> np.ndarray:
        X = self.dense.X
        if not reml or X.shape[1] == 0:
            return self.inverse
        half = self.inverse @ X
        return self.inverse - half @ np.linalg.solve(X.T @ half, half.T)

    def effects(self, beta: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Modes and scores, each (k, L)."""
        r = self.inverse @ (self.dense.y - self.dense.X @ beta)
        scores = []
        for codes, Z, L in zip(self.dense.codes, self.dense.Z, self.n_levels, strict=True):
            score = np.zeros((L, Z.shape[1]))
            np.add.at(score, codes, Z * r[:, None])
            scores.append(score.T)
        return [T @ T.T @ score for T, score in zip(self.templates, scores, strict=True)], scores

    def inner(self, z: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
        parts = zip(self.dense.codes, self.dense.Z, z, strict=True)
        u = sum(np.einsum("nk,knm->nm", Z, part[:, codes]) for codes, Z, part in parts)
        return u.T @ self.inverse @ u, u.T @ self.inverse @ self.dense.X

    def marginal(self, reml: bool) -> list[np.ndarray]:
        P = self.project(reml)
        pairs = zip(self.dense.codes, self.dense.Z, strict=True)
        return [Z.T @ np.where(codes[:, None] == codes, P, 0.0) @ Z for codes, Z in pairs]


def oracle(model: clm.MixedLM, templates: tuple[np.ndarray, ...]) -> Oracle:
    """The oracle of a model whose rows are in memory, templates in standardised coordinates."""
    rows, layout = model.design, model.design.layout
    standard = layout.standardization
    y = (rows.y - (0.0 if rows.offset is None else rows.offset) - rows.X @ standard.origin) / standard.scale
    terms = [(codes, Z @ U) for codes, Z, U in zip(rows.codes, rows.Z, standard.z_bases, strict=True)]
    dense = Dense(y, rows.X @ standard.x_basis, terms, weights=rows.weights)
    return Oracle(dense, templates, tuple(factor.n_levels for factor in layout.factors))


# --- models --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    formula: str
    options: dict = field(default_factory=dict)


# Numbers of levels: a 60, b 40, c 12.
CASES = {
    "one factor": Case("y ~ x + (1 + x | a)"),
    "crossed": Case("y ~ x + (1 | a) + (1 | b)"),
    "crossed slopes": Case("y ~ x + (1 + x | a) + (1 + z | b)"),
    "three factors": Case("y ~ x + z + (1 + x | a) + (1 + x | b) + (1 | c)"),
    "smallest first": Case("y ~ 1 + (1 + x + z | c) + (1 | b) + (1 | a)"),
    "nested": Case("y ~ x + (1 + x | c / d)"),
    "several terms": Case("y ~ x + (1 + x | a) + (0 + z | a) + (x || b)"),
    "weights and offset": Case("y ~ x + (1 + x | a) + (1 | b) + (1 | c)", {"weights": "w", "offset": "o"}),
    "no fixed effects": Case("y ~ 0 + (1 + x | a) + (1 | b) + (1 | c)"),
}
TEMPLATES = ("full rank", "deficient", "zero", "one zero", "another zero", "weak", "strong")


@cache
def frame():
    rng = np.random.default_rng(11)
    n = 400
    data = pd.DataFrame({"a": rng.permutation(np.arange(n) % 60), "b": rng.permutation(np.arange(n) % 40)})
    data["c"], data["d"] = rng.integers(0, 12, n), rng.integers(0, 4, n)
    data["x"], data["z"], data["o"] = rng.normal(size=n) + 1, rng.uniform(-1, 2, size=n), rng.normal(size=n)
    data["w"] = rng.uniform(0.3, 3, size=n)
    data["y"] = rng.normal(size=n) + 0.5 * data["x"] + data["o"]
    for name in "abc":
        data["y"] += rng.normal(size=60)[data[name]]
    return data


@cache
def model_of(name):
    return clm.MixedLM.from_formula(CASES[name].formula, frame(), **CASES[name].options)


@cache
def templates_of(name, kind):
    """Templates of any shape: in the coordinates of the engines they need not be triangular."""
    rng = np.random.default_rng([12, len(name)])
    factors = model_of(name).design.layout.factors
    templates = [np.eye(f.size) + 0.4 * rng.normal(size=(f.size, f.size)) for f in factors]
    scale = {"zero": 0.0, "weak": 1e-5, "strong": 30.0}.get(kind, 1.0)
    templates = [scale * T for T in templates]
    by_size = sorted(range(len(factors)), key=lambda f: factors[f].n_effects)
    if kind == "one zero":
        templates[by_size[-1]][:] = 0.0
    if kind == "another zero":
        templates[by_size[0]][:] = 0.0
    if kind == "deficient":
        templates = [T if len(T) == 1 else np.outer(T[0], T[1]) for T in templates]
    return tuple(templates)


@cache
def expected_of(name, kind):
    return oracle(model_of(name), templates_of(name, kind))


def standard_error(deviations):
    """Of a mean, by what each of n independent probes says less the mean."""
    n = len(deviations)
    return np.sqrt(np.square(deviations).sum(axis=0) / (n * (n - 1))) if n else np.zeros(deviations.shape[1:])
