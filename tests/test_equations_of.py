"""What comes after a fit is computed with the engine of the fit, its options and its probes."""

import numpy as np
import pytest

import crosslmm as clm

FORMULA = "y ~ service + (1 | s) + (1 | d) + (1 | dept)"


@pytest.fixture(scope="module")
def model():
    return clm.MixedLM.from_formula(FORMULA, clm.datasets.load_insteval().iloc[:4000])


@pytest.mark.parametrize(
    "engine",
    [
        "auto",
        clm.DirectEngine(rest="sparse"),
        clm.IterativeEngine(rng=5, border=0, max_probes=40),
        clm.IterativeEngine(rng=np.random.default_rng(8), n_probes=20),
    ],
)
def test_the_criterion_is_that_of_the_fit(model, engine):
    fit = model.fit(engine=engine)
    equations = model.equations_of(fit.estimates)
    assert equations.plan == fit.estimates.plan or fit.estimates.sampling is not None
    layout = model.crossproducts.layout
    from crosslmm.objective import evaluate

    templates = layout.templates(layout.to_standard(fit.estimates.theta))
    value = evaluate(equations, model.crossproducts, templates, reml=True)
    assert value.criterion == pytest.approx(fit.criterion, abs=1e-8)
    if fit.estimates.sampling is not None:
        assert equations.n_probes == fit.estimates.sampling.n_probes
        assert value.system.log_det_error == pytest.approx(fit.estimates.sampling.criterion_error, rel=1e-8)


def test_default_equations_are_kept(model):
    fit = model.fit()
    assert model.equations_of(fit.estimates) is model.equations_of(model.fit(engine="direct").estimates)
