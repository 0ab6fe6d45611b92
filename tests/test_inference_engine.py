"""What inference asks of the engines, ``Z' V^-1 X`` and ``Z' V^-1 Zz``, against dense algebra."""

import numpy as np
from test_engine import (
    every_case,
    every_engine,
    every_template,
    expected_of,
    model_of,
    sampled,
    system_of,
)

EXACT, SOLVED = 1e-9, 1e-5
"""Relative error of what is linear in a factorised, and in an iterated, solution."""


def by_level(oracle, w):
    """``Z' w`` per factor, each (k, L, m)."""
    parts = []
    for codes, Z, n_levels in zip(oracle.dense.codes, oracle.dense.Z, oracle.n_levels, strict=True):
        total = np.zeros((n_levels, Z.shape[1], w.shape[1]))
        np.add.at(total, codes, Z[:, :, None] * w[:, None, :])
        parts.append(total.transpose(1, 0, 2))
    return parts


def check(ours, expected, atol):
    for a, b in zip(ours, expected, strict=True):
        assert a.shape == b.shape
        size = 1.0 + np.abs(b).max(axis=(0, 1), initial=0.0)
        np.testing.assert_allclose(a / size, b / size, rtol=0, atol=atol)


@every_engine
@every_template
@every_case
def test_fixed_scores(name, kind, engine):
    oracle = expected_of(name, kind)
    expected = by_level(oracle, oracle.inverse @ oracle.dense.X)
    check(system_of(name, kind, engine).fixed_scores(), expected, SOLVED if sampled(name, engine) else EXACT)


@every_engine
@every_template
@every_case
def test_random_scores(name, kind, engine):
    rng = np.random.default_rng(15)
    z = tuple(rng.normal(size=(f.size, f.n_levels, 3)) for f in model_of(name).design.layout.factors)
    z[0][:, :, 0] = 0.0
    oracle = expected_of(name, kind)
    parts = zip(oracle.dense.codes, oracle.dense.Z, z, strict=True)
    u = sum(np.einsum("nk,knm->nm", Z, part[:, codes]) for codes, Z, part in parts)
    ours = system_of(name, kind, engine).random_scores(z)
    check(ours.values, by_level(oracle, oracle.inverse @ u), SOLVED if sampled(name, engine) else EXACT)
    assert sampled(name, engine) or ours.steps == 0
