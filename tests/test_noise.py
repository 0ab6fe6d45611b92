"""Noise as cross-products: both roots against the cross-products themselves, and the root by the Lanczos recurrence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import crosslmm as clm
from crosslmm.errors import NumericalError
from crosslmm.inference import simulate
from crosslmm.inference.noise import largest_first, level_roots
from crosslmm.inference.noise_factored import FactoredNoise, factored_noise
from crosslmm.inference.noise_lanczos import LanczosNoise, lanczos_noise
from crosslmm.linalg.lanczos import root_product

FORMULAS = {
    "intercepts": "y ~ x + (1 | a) + (1 | b)",
    "slopes": "y ~ x + (1 + x | a) + (1 + z | b)",
    "three": "y ~ x + z + (1 | c) + (1 + x | a) + (1 | b)",
    "nested": "y ~ x + (1 | c) + (1 | d)",
    "no_fixed": "y ~ 0 + (1 | a) + (1 | b)",
}


def crossed(n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    data = pd.DataFrame({name: rng.integers(size, size=n) for name, size in (("a", 30), ("b", 22), ("c", 5))})
    data["d"] = [f"{c}.{i}" for c, i in zip(data["c"], rng.integers(12, size=n), strict=True)]
    return data.assign(x=rng.normal(size=n), z=rng.normal(size=n), y=rng.normal(size=n), w=rng.uniform(0.2, 4.0, n))


@pytest.fixture(scope="module")
def models():
    data = crossed()
    return {
        (name, weights): clm.MixedLM.from_formula(formula, data, weights=weights)
        for name, formula in FORMULAS.items()
        for weights in (None, "w")
    }


def columns_of(model) -> np.ndarray:
    """``W^1/2 [Z, X]`` in standardised coordinates, factors of the layout first, column after column."""
    design = model.design
    standard = design.layout.standardization
    parts = []
    for codes, Z, U, factor in zip(design.codes, design.Z, standard.z_bases, design.layout.factors, strict=True):
        own = Z @ U
        parts += [
            np.where(codes == level, own[:, j], 0.0) for j in range(factor.size) for level in range(factor.n_levels)
        ]
    G = np.column_stack([*parts, design.X @ standard.x_basis])
    return G if design.weights is None else G * np.sqrt(design.weights)[:, None]


def noise_by(kind: str, xp):
    order = largest_first(xp)
    roots = level_roots(xp.diagonal[order[0]])
    return (factored_noise if kind == "factored" else lanczos_noise)(xp, order, roots)


def flat(drawn) -> np.ndarray:
    return np.vstack([*(part.reshape(-1, part.shape[2]) for part in drawn.border), drawn.fixed])


@pytest.mark.parametrize("weights", [None, "w"])
@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("kind", ["factored", "lanczos"])
def test_the_root_is_one_of_the_cross_products(kind, name, weights, models):
    model = models[name, weights]
    noise = noise_by(kind, model.crossproducts)
    G = columns_of(model)
    R = flat(noise.draw(np.eye(noise.numbers)))
    gram = G.T @ G
    np.testing.assert_allclose(R @ R.T, gram, rtol=0, atol=1e-5 * np.abs(gram).max())


@pytest.mark.parametrize("weights", [None, "w"])
@pytest.mark.parametrize("name", FORMULAS)
def test_squares_are_those_that_the_columns_explain(name, weights, models):
    """``e'We`` is what v explains, ``v' (G'WG)^+ v``, and chi-squared numbers of its own, n degrees in all."""
    model = models[name, weights]
    G = columns_of(model)
    rank = np.linalg.matrix_rank(G)
    rng = np.random.default_rng(1)
    for kind in ("factored", "lanczos"):
        noise = noise_by(kind, model.crossproducts)
        drawn = noise.draw(rng.standard_normal((noise.numbers, 500)))
        v = flat(drawn)
        explained = np.einsum("gr,gr->r", v, np.linalg.pinv(G.T @ G, rcond=1e-9, hermitian=True) @ v)
        beyond = drawn.squares - explained
        hidden = model.design.n - noise.degrees - rank
        assert hidden >= 0 and (kind != "factored" or hidden == 0)
        assert beyond.min() > -1e-4 * explained.mean()
        # a chi-squared with the degrees of the directions that are not there
        assert beyond.mean() == pytest.approx(hidden, abs=4.5 * np.sqrt(2.0 * hidden / 500) + 1e-4 * explained.mean())


def test_the_size_of_the_design_decides(models, monkeypatch):
    xp = models["intercepts", None].crossproducts
    assert isinstance(simulate.noise_of(xp), FactoredNoise)
    monkeypatch.setattr(simulate, "FACTORED", 10)
    assert isinstance(simulate.noise_of(xp), LanczosNoise)
    few = clm.MixedLM.from_formula("y ~ x + (1 | a) + (1 | b)", crossed(40)).crossproducts
    assert isinstance(simulate.noise_of(few), FactoredNoise), "more numbers than rows: the rank has to be known"
    one = clm.MixedLM.from_formula("y ~ x + (1 | a)", crossed()).crossproducts
    assert isinstance(simulate.noise_of(one), FactoredNoise)


def test_draws_by_both_roots_have_the_same_distribution(models, monkeypatch):
    fit = clm.lmer("y ~ x + (1 + x | a) + (1 | b)", crossed().assign(y=lambda d: d["y"] + 0.3 * (d["a"] % 5)))
    kinds = {}
    for limit in (0, 2_000):
        monkeypatch.setattr(simulate, "FACTORED", limit)
        kinds[limit] = fit.bootstrap(500, rng=1).to_frame()
    for name in ("sigma", "sd_Intercept|a", "x"):
        a, b = (frame[name] for frame in kinds.values())
        assert not np.allclose(a, b)
        assert a.mean() == pytest.approx(b.mean(), abs=4.5 * a.std() * np.sqrt(2 / 500))
        assert a.std() == pytest.approx(b.std(), rel=4.5 / np.sqrt(500))


def test_a_draw_does_not_depend_on_the_others_of_its_set(models):
    noise = noise_by("lanczos", models["slopes", "w"].crossproducts)
    z = np.random.default_rng(1).standard_normal((noise.numbers, 7))
    one, all_of_them = flat(noise.draw(z[:, 2:3])), flat(noise.draw(z))
    # the root takes rounding to its own root where directions are not there
    np.testing.assert_allclose(all_of_them[:, 2:3], one, rtol=0, atol=1e-7 * np.abs(one).max())


@pytest.mark.parametrize("spectrum", ["spread", "clustered", "singular", "zero", "chain"])
def test_root_product(spectrum):
    q = 200
    rng = np.random.default_rng(3)
    V = np.linalg.qr(rng.normal(size=(q, q)))[0]
    values = {
        "spread": np.linspace(0.01, 2.0, q),
        "clustered": np.repeat([0.5, 1.0], q // 2),
        "singular": np.r_[np.zeros(40), np.linspace(0.5, 1.5, q - 40)],
        "zero": np.zeros(q),
        "chain": 2.0 - 2.0 * np.cos(np.pi * np.arange(q) / q),
    }[spectrum]
    B = (V * values) @ V.T
    Z = rng.normal(size=(q, 3))
    Z[:, 1] = 0.0
    want = (V * np.sqrt(values)) @ (V.T @ Z)
    got = root_product(lambda v: B @ v, Z, 1e-7)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.linalg.norm(Z))


def test_a_root_that_takes_too_long_is_an_error():
    B = np.diag(np.linspace(0.0, 1.0, 500) ** 4)
    Z = np.random.default_rng(1).normal(size=(500, 2))
    with pytest.raises(NumericalError, match="nearly nested"):
        root_product(lambda v: B @ v, Z, 1e-12, max_steps=20)
