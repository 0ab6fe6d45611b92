"""What the iterative engine samples agrees with the exact answer within the error it carries."""

from functools import cache

import numpy as np
import pandas as pd
import pytest

import crosslmm as clm
from crosslmm.engine.choose import choose
from crosslmm.inference import traces
from crosslmm.inference.at_fit import state_at
from crosslmm.inference.information import expected_hessian, observed_hessian
from crosslmm.inference.kenward_roger import linear_parameters
from crosslmm.inference.state import state_of, white_scores

ERRORS = 5.0
"""Standard errors within which what is sampled must lie."""


@cache
def fits():
    rng = np.random.default_rng(21)
    n = 3000
    data = pd.DataFrame({"a": rng.integers(0, 150, n), "b": rng.integers(0, 80, n), "x": rng.normal(size=n)})
    data["u"] = rng.normal(size=150)[data["a"]]  # between levels of a: few degrees of freedom
    data["y"] = 0.3 * data["x"] + rng.normal(size=n) + 0.7 * rng.normal(size=150)[data["a"]]
    data["y"] += 0.9 * rng.normal(size=80)[data["b"]] + 0.4 * rng.normal(size=80)[data["b"]] * data["x"]
    model = clm.MixedLM.from_formula("y ~ x + u + (1 | a) + (1 + x | b)", data)
    sampled = model.fit(engine=clm.IterativeEngine(n_probes=64, border=0))
    return model.fit(), sampled


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
def test_degrees_of_freedom(ddf):
    exact, sampled = (fit.coef_table(ddf=ddf) for fit in fits())
    assert "df_mc_error" not in exact
    error = sampled["df_mc_error"]
    assert (error > 0).all()
    assert (error < 0.1 * sampled["df"]).all()
    # theta has an error of its own, which moves df by no more than its error over its standard error
    slack = fits()[1].estimates.sampling.ratio * exact["df"]
    assert ((sampled["df"] - exact["df"]).abs() < ERRORS * error + slack).all()
    np.testing.assert_allclose(sampled["std_error"], exact["std_error"], rtol=2e-2)
    result = fits()[1].test("x = 0, u = 0", ddf=ddf)
    assert result.den_df_mc_error > 0
    assert "Monte Carlo error" in repr(result)


def test_traces_by_signs_and_exactly():
    state = state_at(fits()[0])
    white, moved = white_scores(state.value), linear_parameters(state.xp.layout)
    exact = traces.trace_products(state.value.system, white, moved, n_probes=0)
    assert exact.deviations.shape[0] == 0
    sampled = traces.trace_products(state.value.system, white, moved, n_probes=300, seed=5)
    n = 300
    error = np.sqrt(np.square(sampled.deviations).sum(axis=0) / (n * (n - 1)))
    assert (error < 0.05 * np.abs(exact.mean).max()).all()
    assert (np.abs(sampled.mean - exact.mean) <= ERRORS * error + 1e-9 * np.abs(exact.mean)).all()


def test_stretches_of_levels_do_not_matter(monkeypatch):
    state = state_at(fits()[0])
    white, moved = white_scores(state.value), linear_parameters(state.xp.layout)
    whole = traces.trace_products(state.value.system, white, moved, n_probes=0)
    monkeypatch.setattr(traces, "STRETCH_BYTES", 8 * 310 * 7)
    parts = traces.trace_products(state.value.system, white, moved, n_probes=0)
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-10)


def test_jackknife_of_a_mean():
    sample = np.random.default_rng(0).normal(size=40)
    deviations = (sample - sample.mean())[:, None, None]
    of = traces.Sampled(np.array([[sample.mean()]]), deviations)
    error = traces.jackknife(of.replicates[:, 0, 0])
    assert float(error) == pytest.approx(sample.std(ddof=1) / np.sqrt(40))


def test_sampled_information():
    """The Hessian from sampled gradients, and traces by signs, at the same theta as the exact ones."""
    fit, model = fits()[0], fits()[0].model
    exact = state_at(fit)
    equations = choose(model.crossproducts, clm.IterativeEngine(n_probes=32, border=0, rng=3))
    sampled = state_of(model.crossproducts, equations, fit.estimates)
    pairs = [
        (observed_hessian(sampled), observed_hessian(exact)),
        (expected_hessian(sampled)[0], expected_hessian(exact)[0]),
    ]
    for ours, theirs in pairs:
        error = np.sqrt(np.square(ours.deviations).sum(axis=0) / (32 * 31))
        size = np.sqrt(np.outer(np.diag(theirs.mean), np.diag(theirs.mean)))
        assert (error < 0.02 * size).all()
        assert (np.abs(ours.mean - theirs.mean) <= ERRORS * error + 1e-6 * size).all()
