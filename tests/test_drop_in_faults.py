"""Known faults of statsmodels' mixed models that are absent here, and what is refused."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import crosslmm as clm


@pytest.fixture(scope="module")
def dietox():
    return clm.datasets.load_dietox()


@pytest.fixture(scope="module")
def classroom():
    return clm.datasets.load_classroom()


# --- numbers of the tutorials ------------------------------------------------------------------------


def test_dietox(dietox):
    fit = clm.mixedlm("Weight ~ Time", dietox, groups=dietox["Pig"]).fit()
    assert_allclose(fit.params, [15.723523, 6.942505, 3.553641], rtol=1e-6)  # statsmodels, bfgs, gtol=1e-12
    assert_allclose([fit.scale, fit.llf, fit.cov_re.iloc[0, 0]], [11.3669, -2404.7753, 40.394], rtol=1e-5)
    assert_allclose(fit.bse_fe, [0.788, 0.033], atol=5e-4)
    assert fit.bse_re["Group Var"] == pytest.approx(2.149, abs=5e-4)
    variance_error = fit.varcorr_se["vcov"].iloc[0]
    assert variance_error == pytest.approx(6.94, abs=0.05)


def test_classroom(classroom):
    fit = clm.mixedlm("score ~ edu", classroom, groups="classroom").fit()
    assert_allclose(fit.fe_params, [9.865, 0.131], atol=1e-3)
    assert_allclose(fit.bse_fe, [1.789, 0.038], atol=1e-3)
    assert_allclose([fit.cov_re.iloc[0, 0], fit.scale, fit.llf], [9.427, 0.8693, -88.8676], atol=1e-3)
    modes = [float(fit.random_effects[c].iloc[0]) for c in ("c0", "c1", "c2")]
    assert_allclose(modes, [-2.889009, -0.323129, 3.212138], atol=1e-5)


def test_classroom_slopes_reach_the_singular_optimum_and_say_so(classroom):
    fit = clm.mixedlm("score ~ edu", classroom, groups="classroom", re_formula="~1+edu").fit()
    assert fit.llf >= -88.5987 - 1e-4
    assert fit.singular
    assert fit.converged
    assert_allclose(fit.fe_params, [9.900, 0.127], atol=1e-3)
    assert "estimated as -1" in fit.summary().as_text()
    assert set(fit.random_effects) == {"c0", "c1", "c2"}
    assert np.isnan(fit.bse["edu Var"])


# --- faults ------------------------------------------------------------------------------------------


def test_plain_fit_reaches_the_optimum(dietox):
    fit = clm.mixedlm("Weight ~ Time", dietox, groups="Pig", re_formula="~Time").fit()
    assert fit.llf == pytest.approx(-2217.0475, abs=1e-4)  # statsmodels' default stops at -2220.39
    assert fit.converged


def test_slopes_alone_have_a_finite_likelihood(dietox):
    fit = clm.mixedlm("Weight ~ Time", dietox, groups="Pig", re_formula="0 + Time").fit()
    assert np.isfinite(fit.llf)  # statsmodels: inf, "Converged: Yes"
    assert fit.cov_re.iloc[0, 0] > 0.1


def test_units_change_nothing(dietox):
    fit = clm.mixedlm("Weight ~ Time", dietox, groups="Pig", re_formula="~Time").fit()
    other = clm.mixedlm("Weight ~ T", dietox.assign(T=dietox["Time"] * 1e6), groups="Pig", re_formula="~T").fit()
    assert other.fe_params["T"] * 1e6 == pytest.approx(fit.fe_params["Time"], rel=1e-8)
    assert other.cov_re.iloc[1, 1] * 1e12 == pytest.approx(fit.cov_re.iloc[1, 1], rel=1e-5)
    assert_allclose(other.fittedvalues, fit.fittedvalues, rtol=1e-6)
    ml = [clm.mixedlm(f, d, groups="Pig", re_formula=r).fit(reml=False).llf for f, d, r in (
        ("Weight ~ Time", dietox, "~Time"), ("Weight ~ T", dietox.assign(T=dietox["Time"] * 1e6), "~T")
    )]  # fmt: skip
    assert ml[0] == pytest.approx(ml[1], abs=1e-7)


def test_subset_is_honoured(dietox):
    chosen = dietox["Time"] < 8
    expected = clm.mixedlm("Weight ~ Time", dietox[chosen], groups="Pig").fit()
    labels = dietox.index[chosen]
    for subset in (chosen, chosen.to_numpy(), list(chosen), labels, labels.to_numpy()):
        fit = clm.mixedlm("Weight ~ Time", dietox, groups=dietox["Pig"], subset=subset).fit()
        assert fit.nobs == chosen.sum()
        assert fit.llf == pytest.approx(expected.llf, abs=1e-9)
        assert list(fit.fittedvalues.index) == list(labels)
    bars = clm.mixedlm("Weight ~ Time + (1 | Pig)", dietox, subset=chosen).fit()
    assert bars.llf == pytest.approx(expected.llf, abs=1e-9)
    with pytest.raises(clm.DataError, match="no label of the data's index"):
        clm.mixedlm("Weight ~ Time", dietox, groups="Pig", subset=[-5])
    with pytest.raises(clm.DataError, match="truth values"):
        clm.mixedlm("Weight ~ Time", dietox, groups="Pig", subset=[True, False])


def test_a_repeated_index_works(dietox):
    repeated = dietox.set_index(np.arange(len(dietox)) % 7)
    options = {"groups": "Litter", "re_formula": "1", "vc_formula": {"pig": "0 + C(Pig)"}}
    fit = clm.mixedlm("Weight ~ Time", repeated, **options).fit()
    expected = clm.mixedlm("Weight ~ Time", dietox, **options).fit()
    assert fit.llf == expected.llf
    assert_allclose(fit.fittedvalues.to_numpy(), expected.fittedvalues.to_numpy())
    assert list(fit.resid.index) == list(repeated.index)


def test_contrasts_as_strings_and_lists(dietox):
    fit = clm.mixedlm("Weight ~ Time + C(Evit)", dietox, groups="Pig").fit()
    for spec in ("Time", "Time = 0", ["Time"], [[0, 0, 0, 1]], [0, 0, 0, 1]):
        assert_allclose(fit.t_test(spec).statistic, [fit.tvalues["Time"]])


def test_fits_do_not_change_each_other(dietox):
    model = clm.mixedlm("Weight ~ Time", dietox, groups="Pig")
    reml = model.fit()

    def said() -> tuple[object, ...]:
        return reml.llf, reml.criterion, reml.summary().as_text(), model.loglike(reml.params_object)

    before = said()
    ml = model.fit(reml=False)
    assert ml.method == "ML"
    assert said() == before
    assert model.loglike(reml.params_object) == pytest.approx(reml.llf, abs=1e-8)
    assert model.loglike(ml.params_object, reml=False) == pytest.approx(ml.llf, abs=1e-8)


def test_no_silent_zeros_where_a_variance_is_zero():
    """statsmodels#10239: fixed effects of exactly 0.0 when a variance reaches 0."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"g": np.repeat(np.arange(30), 4), "x": rng.normal(size=120)})
    noise = rng.normal(size=(30, 4))
    frame["y"] = 3 + 2 * frame["x"] + (noise - noise.mean(axis=1, keepdims=True)).ravel()
    for options in ({}, {"re_formula": "1", "vc_formula": {"x": "0 + x"}}, {"vc_formula": {"g": "1"}}):
        fit = clm.mixedlm("y ~ x", frame, groups="g", **options).fit()
        assert fit.singular
        ols = np.linalg.lstsq(np.column_stack([np.ones(120), frame["x"]]), frame["y"], rcond=None)[0]
        assert_allclose(fit.fe_params, ols, atol=0.05)
        assert np.isfinite(fit.bse_fe).all()
        assert np.isfinite(fit.llf)
        assert len(fit.random_effects) == 30
        assert np.isfinite(np.concatenate([effects for effects in fit.random_effects.values()])).all()
        assert all(np.isfinite(cov.to_numpy()).all() for cov in fit.random_effects_cov.values())
    intercepts = clm.mixedlm("y ~ x", frame, groups="g").fit()
    assert_allclose(intercepts.fe_params, ols, rtol=1e-10)
    assert all((effects == 0.0).all() for effects in intercepts.random_effects.values())


def test_no_linear_algebra_errors_on_legitimate_data():
    """statsmodels#7051, #9138: singular matrices for columns of groups of one row, and dependent columns."""
    rng = np.random.default_rng(4)
    g = np.concatenate([np.arange(20), np.repeat(np.arange(20, 40), 5)])  # half of the groups have one row
    frame = pd.DataFrame({"g": g, "x": rng.normal(size=g.size)})
    frame["y"] = frame["x"] + rng.normal(size=40)[g] + rng.normal(size=g.size)
    fit = clm.mixedlm("y ~ x", frame, groups="g", re_formula="~x").fit()
    assert fit.converged
    assert np.isfinite(fit.params).all()
    with pytest.warns(clm.RankDeficiencyWarning, match="'twice'"):
        dependent = clm.mixedlm("y ~ x + twice", frame.assign(twice=2 * frame["x"]), groups="g").fit()
    assert list(dependent.fe_params.index) == ["Intercept", "x"]


def test_many_levels_within_one_group():
    """statsmodels#7214: arrays of the square of the square of the number of levels."""
    rng = np.random.default_rng(2)
    n = 20_000
    frame = pd.DataFrame({"a": rng.integers(0, 3000, n), "b": rng.integers(0, 400, n), "x": rng.normal(size=n)})
    frame["y"] = frame["x"] + rng.normal(size=3000)[frame["a"]] + rng.normal(size=400)[frame["b"]] + rng.normal(size=n)
    model = clm.mixedlm("y ~ x", frame, groups=np.ones(n), vc_formula={"a": "0 + C(a)", "b": "0 + C(b)"})
    began = time.perf_counter()
    fit = model.fit()
    assert time.perf_counter() - began < 10.0  # statsmodels would need 9 TB
    assert fit.converged
    assert_allclose(fit.vcomp, [1.0, 1.0], rtol=0.2)
    assert fit.random_effects[1].size == frame["a"].nunique() + frame["b"].nunique()


def test_many_groups_take_seconds():
    """statsmodels#9097: 125,066 groups."""
    rng = np.random.default_rng(1)
    n_groups, n = 125_066, 300_000
    g = np.concatenate([np.arange(n_groups), rng.integers(0, n_groups, n - n_groups)])
    frame = pd.DataFrame({"g": g, "x": rng.normal(size=n)})
    frame["y"] = 1 + frame["x"] + rng.normal(size=n_groups)[g] + rng.normal(size=n)
    began = time.perf_counter()
    fit = clm.mixedlm("y ~ x", frame, groups="g").fit()
    text = fit.summary().as_text()
    assert time.perf_counter() - began < 10.0
    assert "125066" in text
    assert len(fit.random_effects) == n_groups
    assert_allclose(fit.params, [1.0, 1.0, 1.0], atol=0.02)


def test_predictions_can_include_random_effects(dietox):
    fit = clm.mixedlm(
        "Weight ~ Time", dietox, groups="Litter", re_formula="~Time", vc_formula={"p": "0 + C(Pig)"}
    ).fit()
    assert_allclose(fit.predict(random_effects=True), fit.fittedvalues)
    new = dietox.iloc[[5, 40, 300]].assign(Time=[20.0, 21.0, np.nan])
    fixed, whole = fit.predict(new), fit.predict(new, random_effects=True)
    assert_allclose(fixed.iloc[:2], fit.fe_params["Intercept"] + fit.fe_params["Time"] * np.array([20.0, 21.0]))
    assert np.isnan(fixed.iloc[2])
    assert np.isnan(whole.iloc[2])
    litter, pig = new["Litter"].iloc[0], new["Pig"].iloc[0]
    effects = fit.random_effects[litter]
    expected = effects["Litter"] + 20.0 * effects["Time"] + effects[f"p[C(Pig)[{pig}]]"]
    assert whole.iloc[0] - fixed.iloc[0] == pytest.approx(expected)
    strangers = new.iloc[:2].assign(Pig="no such pig", Litter=-1)
    assert_allclose(fit.predict(strangers, random_effects=True), fit.predict(strangers))


# --- arguments of statsmodels ------------------------------------------------------------------------


def test_optimiser_arguments_are_accepted_and_said_once(dietox):
    model = clm.mixedlm("Weight ~ Time", dietox, groups="Pig")
    with pytest.warns(clm.DataWarning, match="method, gtol, maxiter have no meaning here") as caught:
        fit = model.fit(method=["lbfgs", "cg"], gtol=1e-7, maxiter=200, disp=False)
    assert len(caught) == 1
    assert fit.llf == model.fit().llf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(None, True, 0, True, None, None, None, False, None)
    with pytest.raises(clm.ModelError, match="no argument 'metod'"):
        model.fit(metod="bfgs")


def test_method_of_estimation_by_position(dietox):
    model = clm.mixedlm("Weight ~ Time", dietox, groups="Pig")
    assert model.fit(False).method == model.fit(None, False).method == model.fit(reml=False).method == "ML"


def test_starts(dietox):
    model = clm.mixedlm("Weight ~ Time", dietox, groups="Pig", re_formula="~Time")
    fit = model.fit()
    for start in (
        fit.params_object,
        fit.params_object.get_packed(True),
        fit.params_object.get_packed(True, has_fe=True),
        list(fit.params_object.get_packed(True)),
    ):
        again = model.fit(start_params=start)
        assert again.llf == pytest.approx(fit.llf, abs=1e-8)
        assert len(again.optimization) < len(fit.optimization)
    stopped = model.fit(start_params=clm.MixedLMParams.from_components(np.zeros(2), np.eye(2)), do_cg=False)
    assert_allclose(stopped.cov_re_unscaled, np.eye(2), atol=1e-12)
    assert not stopped.converged
    with pytest.raises(clm.ModelError, match="4 elements"):
        model.fit(start_params=np.ones(4))


def test_history(dietox):
    model = clm.mixedlm("Weight ~ Time", dietox, groups="Pig")
    assert model.fit().hist is None
    assert len(model.fit(full_output=True).hist[0]) >= 3


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"formula": "Weight ~ Time + (1 | Pig)", "groups": "Pig"}, clm.FormulaError, "written twice"),
        ({"re_formula": "~Time"}, clm.FormulaError, "need groups="),
        ({"groups": "Pg"}, clm.DataError, "did you mean 'Pig'"),
        ({"groups": [1, 2]}, clm.DataError, "one label for each of the 861 rows"),
        ({"groups": ["Pig", "Litter"], "re_formula": "~Time"}, clm.FormulaError, "crossed random intercepts"),
        ({"groups": "Pig", "re_formula": "(1 | Pig)"}, clm.FormulaError, "names columns only"),
        ({"groups": "Pig", "re_formula": 1}, clm.FormulaError, "is a formula such as"),
        ({"groups": "Pig", "vc_formula": "0 + Evit"}, clm.FormulaError, "a dict of names and formulas"),
        ({"groups": "Litter", "vc_formula": {"p": "C(Pig)"}}, clm.FormulaError, "write '0 \\+ C\\(Pig\\)'"),
        ({"groups": "Litter", "vc_formula": {"p": "0 + C(Pig, Sum)"}}, clm.FormulaError, "mixes the category"),
        ({"groups": "Litter", "vc_formula": {"p": "0 + center(Time)"}}, clm.FormulaError, "other rows of a group"),
        ({"groups": "Pig", "re_formula": "~Weight"}, clm.FormulaError, "the response 'Weight'"),
        ({"groups": "Pig", "missing": "ignore"}, clm.DataError, "'none', 'drop' or 'raise'"),
        (
            {"groups": "Pig", "vc_formula": {"p": "0 + C(Pig)"}, "re_formula": "1"},
            clm.FormulaError,
            "cannot be told apart",
        ),
    ],
)
def test_what_is_refused(dietox, options, error, message):
    options = {"formula": "Weight ~ Time", **options}
    with pytest.raises(error, match=message):
        clm.mixedlm(data=dietox, **options)


def test_missing_values(dietox):
    holes = dietox.assign(Time=dietox["Time"].where(dietox.index % 50 != 3))
    for missing in ("none", "raise"):
        with pytest.raises(clm.DataError, match="missing='drop'"):
            clm.mixedlm("Weight ~ Time", holes, groups="Pig", missing=missing)
    fit = clm.mixedlm("Weight ~ Time", holes, groups=holes["Pig"], missing="drop").fit()
    expected = clm.mixedlm("Weight ~ Time", holes.dropna(subset=["Time"]), groups="Pig").fit()
    assert fit.llf == expected.llf
    assert fit.n_dropped == holes["Time"].isna().sum()
    exog = np.column_stack([np.ones(len(holes)), holes["Time"]])
    with pytest.raises(clm.DataError, match="missing='drop'"):
        clm.MixedLM(holes["Weight"], exog, holes["Pig"])
    assert clm.MixedLM(holes["Weight"], exog, holes["Pig"], missing="drop").fit().llf == pytest.approx(expected.llf)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 2.0], [[1.0], [1.0]], [1]), "groups must hold one label for each of the 2 rows"),
        (([1.0, 2.0], [[1.0]], [1, 2]), "exog has 1 rows, but endog has 2"),
        ((["a", "b"], [[1.0], [1.0]], [1, 2]), "endog must be numbers"),
        (([1.0, 2.0], None, [1, 2]), "exog is missing"),
    ],
)
def test_arrays_that_do_not_fit(arguments, message):
    with pytest.raises(clm.DataError, match=message):
        clm.MixedLM(*arguments)


def test_bars_have_no_parameters_of_statsmodels(dietox):
    model = clm.mixedlm("Weight ~ Time + (1 | Pig)", dietox)
    with pytest.raises(clm.ModelError, match="groups="):
        model.loglike([1.0])
    with pytest.raises(clm.ModelError, match="start_params belongs to a model with groups="):
        model.fit(start_params=[1.0])
    with pytest.raises(clm.DataError, match="rows in batches"):
        clm.mixedlm("Weight ~ Time", lambda: iter([dietox]), groups="Pig")


def test_rows_beyond_two_million_are_read_in_stretches(monkeypatch, dietox):
    """Tables of many rows take another way into the model; columns keep the order of statsmodels there too."""
    from crosslmm.sources import model_rows

    options = {"groups": "Litter", "re_formula": "~Time", "vc_formula": {"p": "0 + C(Pig)"}}
    expected = clm.mixedlm("Weight ~ Time + C(Evit)", dietox, **options).fit()
    monkeypatch.setattr(model_rows, "MANY_ROWS", 100)
    model = clm.mixedlm("Weight ~ Time + C(Evit)", dietox, **options)
    assert model.design.streamed
    fit = model.fit()
    assert list(fit.params.index) == list(expected.params.index)
    assert_allclose(fit.params, expected.params, rtol=1e-5, atol=1e-7)
    assert_allclose(fit.fittedvalues, expected.fittedvalues, rtol=1e-7)
    assert_allclose(fit.predict(dietox.iloc[:3]), expected.predict(dietox.iloc[:3]), rtol=1e-7)
    key = next(iter(expected.random_effects))
    assert_allclose(fit.random_effects[key], expected.random_effects[key], rtol=1e-4, atol=1e-7)
    free = clm.MixedLMParams.from_components(np.ones(4), np.eye(2), None, [1.0])
    held = clm.mixedlm("Weight ~ Time + C(Evit)", dietox, **options).fit(free=free)
    monkeypatch.undo()
    assert held.llf == pytest.approx(clm.mixedlm("Weight ~ Time + C(Evit)", dietox, **options).fit(free=free).llf)


def test_order_of_columns_is_statsmodels(dietox):
    mixedlm = pytest.importorskip("statsmodels.formula.api").mixedlm
    for formula in (
        "Weight ~ Time + C(Evit)",
        "Weight ~ Time * C(Evit) + Cu",
        "Weight ~ 0 + Time + Evit",
        "Weight ~ Time:Start + Start + Time + Evit:Time",
        "Weight ~ np.log(Time) + Evit:Cu + Cu",
    ):
        frame = dietox.dropna().astype({"Pig": str, "Evit": str, "Cu": str})
        ours = clm.mixedlm(formula, frame, groups="Pig")
        reference = mixedlm(formula, frame, groups="Pig")
        assert ours.exog_names == reference.exog_names, formula
        assert_allclose(ours.exog, reference.exog)
