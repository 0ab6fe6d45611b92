"""Models: what can be asked of one, options that make no sense, small and extreme data."""

import warnings

import numpy as np
import pandas as pd
import pytest

import crosslmm as clm
from crosslmm import model as model_module


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    n = 160
    frame = pd.DataFrame({"g": rng.integers(0, 16, n), "h": rng.integers(0, 6, n), "x": rng.normal(size=n)})
    frame["y"] = 2 + frame["x"] + rng.normal(size=16)[frame["g"]] + 0.5 * rng.normal(size=6)[frame["h"]]
    frame["y"] += 0.4 * rng.normal(size=16)[frame["g"]] * frame["x"] + rng.normal(size=n)
    return frame


@pytest.fixture(scope="module")
def model(data):
    return clm.MixedLM.from_formula("y ~ x + (1 + x | g) + (1 | h)", data)


@pytest.fixture(scope="module")
def fit(model):
    return model.fit()


# --- the same model in other words ---------------------------------------------------------------


def test_ways_to_the_same_fit(data, fit):
    formula = "y ~ x + (1 + x | g) + (1 | h)"
    for other in (clm.lmer(formula, data), clm.mixedlm(formula, data).fit()):
        assert other.criterion == fit.criterion
    assert clm.lmer(formula, data, False).criterion == fit.model.fit(reml=False).criterion


def test_representation(model):
    assert repr(model) == "MixedLM('y ~ x + (1 + x | g) + (1 | h)', 160 rows, levels g: 16, h: 6)"


def test_refitting_uses_the_same_equations(model, fit):
    assert model.crossproducts is model.crossproducts
    assert model._equations("auto") is model._equations("direct") is model._equations(clm.DirectEngine())
    assert model.fit().criterion == fit.criterion


# --- objective -----------------------------------------------------------------------------------


@pytest.mark.parametrize("reml", [True, False], ids=["reml", "ml"])
def test_objective_at_the_fit(model, reml):
    fit = model.fit(reml)
    value = model.objective(fit.theta, reml)
    assert value.criterion == pytest.approx(fit.criterion, abs=1e-9)
    assert value.gradient.shape == (4,)
    assert value.information.shape == (4, 4)
    np.testing.assert_allclose(value.gradient, 0.0, atol=1e-2)
    assert (np.linalg.eigvalsh(value.information) > 0).all()


def test_objective_is_even_in_a_column(model):
    theta = np.array([0.8, 0.2, 0.5, 0.6])
    mirrored = model.objective(theta * [-1, -1, 1, -1])
    value = model.objective(theta)
    assert mirrored.criterion == pytest.approx(value.criterion, rel=1e-12)
    np.testing.assert_allclose(mirrored.gradient, value.gradient * [-1, -1, 1, -1], atol=1e-9)


@pytest.mark.parametrize("theta", [[], [0.5], np.ones(5), 1.0])
def test_theta_of_the_wrong_length(model, theta):
    message = r"theta has \d elements, expected 4: g.Intercept, g.x.Intercept, g.x, h.Intercept"
    with pytest.raises(clm.ModelError, match=message):
        model.objective(theta)
    with pytest.raises(clm.ModelError, match=message):
        model.fit(start=theta)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_theta_that_is_not_finite(model, bad):
    for call in (model.objective, lambda theta: model.fit(start=theta)):
        with pytest.raises(clm.ModelError, match="not finite"):
            call([0.5, bad, 0.5, 0.5])


def test_theta_beyond_floating_point(data):
    model = clm.MixedLM.from_formula("y ~ x + (1 | g)", data)
    with pytest.raises(clm.NumericalError, match="covariance parameters"):
        model.objective([1e20])


# --- options of fit ------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["nonsense", "", None, 3, clm.DirectEngine])
def test_engines_that_do_not_exist(model, data, engine):
    message = r"expected 'auto', 'direct', 'iterative', a DirectEngine\(\.\.\.\) or an IterativeEngine"
    for call in (
        lambda: model.fit(engine=engine),
        lambda: model.plan(engine),
        lambda: model.objective(np.ones(4), engine=engine),
        lambda: clm.lmer("y ~ x + (1 | g)", data, engine=engine),
    ):
        with pytest.raises(clm.ModelError, match=message):
            call()


@pytest.mark.parametrize(
    "options", [{"tolerance": -1.0}, {"tolerance": np.nan}, {"max_evaluations": 0}, {"reml": "ML"}, {"reml": None}]
)
def test_options_without_meaning(model, options):
    (name,) = options
    with pytest.raises(clm.ModelError, match=f"^{name}=.*expected"):
        model.fit(**options)


def test_method_by_name_is_not_taken_for_true(model, data):
    with pytest.raises(clm.ModelError, match="expected True"):
        model.objective(np.ones(4), "ML")
    with pytest.raises(clm.ModelError, match="expected True"):
        clm.lmer("y ~ x + (1 | g)", data, "ML")


@pytest.mark.parametrize("start", [[0.1, 0, 0.1, 0.1], [5, -2, 3, 9], [0, 0, 0, 0], [-1, 0.3, -0.5, 0.2]])
def test_starts(model, fit, start):
    """Anywhere, also at zero and at the mirror image of a covariance."""
    other = model.fit(start=start)
    assert other.converged
    assert other.criterion == pytest.approx(fit.criterion, abs=1e-6)
    np.testing.assert_allclose(other.theta, fit.theta, atol=1e-3)


def test_a_start_is_where_it_starts(model, fit):
    first = model.fit(start=[0.9, 0.1, 0.3, 0.2]).optimization.iloc[0]
    np.testing.assert_allclose(first[list(model.theta_names)].astype(float), [0.9, 0.1, 0.3, 0.2], rtol=1e-12)
    again = model.fit(start=fit.theta)
    assert len(again.optimization) <= 3
    assert again.criterion <= fit.criterion + 1e-9


def test_tolerance(model, fit):
    rough = model.fit(tolerance=1.0)
    assert rough.converged
    assert len(rough.optimization) < len(fit.optimization)
    assert fit.criterion <= rough.criterion < fit.criterion + 1.0
    exact = model.fit(tolerance=0.0)
    assert exact.converged
    assert exact.criterion == pytest.approx(fit.criterion, abs=1e-8)


@pytest.mark.parametrize("limit", [1, 2])
def test_too_few_evaluations(model, limit):
    with pytest.warns(clm.ConvergenceWarning, match=f"stopped after {limit} evaluations") as caught:
        fit = model.fit(max_evaluations=limit)
    assert [warning.filename for warning in caught] == [__file__]
    assert not fit.converged
    assert len(fit.optimization) == limit
    assert np.isfinite(fit.criterion)
    assert "onverge" in str(fit)


def test_warnings_point_at_the_caller(data):
    with pytest.warns(clm.RankDeficiencyWarning) as caught:
        clm.lmer("y ~ x + I(2 * x) + (1 | g)", data)
    assert [warning.filename for warning in caught] == [__file__]


def test_no_warnings_from_an_ordinary_fit(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        str(model.fit())


def test_verbose_prints_the_iterations(model, fit, capsys):
    loud = model.fit(verbose=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == len(loud.optimization)
    assert f"{loud.criterion:.8f}"[:-2] in err.splitlines()[-1]
    assert loud.criterion == fit.criterion


def test_an_interrupt_leaves_the_model_usable(model, fit, monkeypatch):
    seen = []

    def interrupt(iteration):
        seen.append(iteration)
        if len(seen) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(model_module, "_print_iteration", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(verbose=True)
    assert len(seen) == 3
    assert model.fit().criterion == fit.criterion


def test_ml_after_reml_leaves_the_first_result(data):
    model = clm.MixedLM.from_formula("y ~ x + (1 + x | g) + (1 | h)", data)
    first = model.fit()
    kept = (first.criterion, first.theta.copy(), first.estimates.beta.copy(), str(first))
    second = model.fit(reml=False)
    assert (first.method, second.method) == ("REML", "ML")
    assert (first.criterion, str(first)) == (kept[0], kept[3])
    np.testing.assert_array_equal(first.theta, kept[1])
    np.testing.assert_array_equal(first.estimates.beta, kept[2])
    assert second.theta["g.Intercept"] != first.theta["g.Intercept"]


# --- small data ----------------------------------------------------------------------------------


def test_no_fixed_effects(data):
    fits = [clm.lmer("y ~ 0 + (1 | g)", data, reml=reml) for reml in (True, False)]
    assert fits[0].criterion == pytest.approx(fits[1].criterion)  # nothing to integrate out
    assert fits[0].sigma == pytest.approx(fits[1].sigma)
    assert fits[0].fe_params.empty
    assert fits[0].df_resid == len(data)
    assert fits[0].cov_params().shape == (0, 0)
    assert fits[0].conf_int().shape == (0, 2)


def test_balanced_one_way_by_hand():
    """Analysis of variance: ``sigma^2 = MSE``, ``sigma_g^2 = (MSA - MSE) / n`` (Searle et al. 1992, section 3.5)."""
    frame = pd.DataFrame({"g": np.repeat(list("abc"), 2), "y": [1.0, 2.0, 5.0, 7.0, 10.0, 9.0]})
    fit = clm.lmer("y ~ 1 + (1 | g)", frame)
    means = frame.groupby("g")["y"].mean()
    mse = ((frame["y"] - means[frame["g"]].to_numpy()) ** 2).sum() / 3
    msa = 2 * ((means - means.mean()) ** 2).sum() / 2
    assert fit.scale == pytest.approx(mse, rel=1e-5)
    assert fit.varcorr["vcov"][0] == pytest.approx((msa - mse) / 2, rel=1e-5)
    assert fit.fe_params["Intercept"] == pytest.approx(frame["y"].mean())
    assert fit.bse_fe["Intercept"] == pytest.approx(np.sqrt(msa / 6), rel=1e-5)


def test_three_rows():
    fit = clm.lmer("y ~ 1 + (1 | g)", pd.DataFrame({"y": [1.0, 2.0, 4.0], "g": list("aab")}))
    assert fit.converged
    assert fit.fittedvalues["aab".index("b")] == pytest.approx(4.0, abs=1.0)


def test_one_level(data):
    with pytest.raises(clm.ModelError, match=r"'g' has one level only.*leave \(1 \| g\) out"):
        clm.lmer("y ~ x + (1 | g)", data.assign(g="all"))


def test_as_many_levels_as_rows(data):
    with pytest.raises(clm.ModelError, match="160 levels, but there are only 160 rows"):
        clm.lmer("y ~ x + (1 | g)", data.assign(g=range(len(data))))
    with pytest.raises(clm.ModelError, match="160 random effects, but there are only 160 rows"):
        clm.lmer("y ~ x + (1 + x | g)", data.assign(g=np.arange(len(data)) // 2))


def test_one_level_fewer_than_rows(data):
    fit = clm.lmer("y ~ x + (1 | g)", data.assign(g=np.maximum(np.arange(len(data)), 1)))
    assert np.isfinite(fit.criterion)
    assert fit.n_groups == {"g": len(data) - 1}


def test_two_levels(data):
    fit = clm.lmer("y ~ x + (1 | g)", data.assign(g=np.arange(len(data)) % 2, y=data["y"] + 3 * (data.index % 2)))
    assert fit.converged
    assert not fit.singular
    assert fit.varcorr["sdcor"][0] == pytest.approx(3 / np.sqrt(2), rel=0.2)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_constant_response(data, value):
    for formula in ("y ~ 1 + (1 | g)", "y ~ 0 + (1 | g)"):
        with pytest.raises(clm.DataError, match=f"the response 'y' is {value:g} in all 160 rows"):
            clm.lmer(formula, data.assign(y=value))


def test_fixed_effects_that_fit_perfectly(data):
    with pytest.raises(clm.ModelError, match="fit the response 'y' perfectly"):
        clm.lmer("y ~ x + (1 | g)", data.assign(y=1 + 2 * data["x"]))


@pytest.mark.parametrize("formula", ["y ~ 1 + (1 | g)", "y ~ 1 + (1 | g) + (1 | h)"])
@pytest.mark.parametrize("reml", [True, False], ids=["reml", "ml"])
def test_random_effects_that_fit_perfectly(data, formula, reml):
    with pytest.raises(clm.ModelError, match="all but exactly"):
        clm.lmer(formula, data.assign(y=1.0 * data["g"]), reml=reml)


@pytest.mark.parametrize("noise", [1e-2, 1e-3])
def test_random_effects_that_fit_almost_perfectly(data, noise):
    """Standard deviations of a thousand sigma: far from the start, still the optimum."""
    rng = np.random.default_rng(2)
    frame = data.assign(y=1.0 * data["g"] + noise * rng.normal(size=len(data)))
    fit = clm.lmer("y ~ 1 + (1 | g)", frame)
    within = frame["y"] - frame.groupby("g")["y"].transform("mean")
    assert fit.converged
    assert fit.scale == pytest.approx((within**2).sum() / (len(data) - 16), rel=1e-4)
    assert fit.varcorr["sdcor"][0] == pytest.approx(frame.groupby("g")["y"].mean().std(), rel=1e-4)


# --- extreme units -------------------------------------------------------------------------------


@pytest.mark.parametrize("reml", [True, False], ids=["reml", "ml"])
@pytest.mark.parametrize("unit", [1e-8, 1e8, 1e-100, 1e100])
def test_units_of_the_response(model, data, unit, reml):
    fit = clm.lmer("y ~ x + (1 + x | g) + (1 | h)", data.assign(y=unit * data["y"]), reml=reml)
    base = model.fit(reml)
    degrees = len(data) - (2 if reml else 0)
    assert fit.criterion == pytest.approx(base.criterion + 2 * degrees * np.log(unit), abs=1e-6)
    np.testing.assert_allclose(fit.theta, base.theta, rtol=1e-6)
    np.testing.assert_allclose(fit.fe_params / unit, base.fe_params, rtol=1e-8)
    np.testing.assert_allclose(fit.bse_fe / unit, base.bse_fe, rtol=1e-6)
    np.testing.assert_allclose(fit.resid / unit, base.resid, atol=1e-7)
    assert len(fit.optimization) == len(base.optimization)


@pytest.mark.parametrize("unit", [1e-8, 1e8])
def test_units_of_a_covariate(fit, data, unit):
    other = clm.lmer("y ~ x + (1 + x | g) + (1 | h)", data.assign(x=unit * data["x"]))
    assert other.fe_params["x"] * unit == pytest.approx(fit.fe_params["x"], rel=1e-7)
    np.testing.assert_allclose(other.fittedvalues, fit.fittedvalues, atol=1e-6)
    np.testing.assert_allclose(other.theta * [1, unit, unit, 1], fit.theta, rtol=1e-5)
