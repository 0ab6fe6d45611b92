"""What may not matter does not matter, and what a change of units does is known in advance.

A factor on y moves the criterion by ``2 nu log(factor)``; a factor on a column of X moves the REML criterion by
``2 log(factor)`` and leaves the deviance; shifts move neither, as long as the random part spans them too.
"""

import copy

import numpy as np
import pandas as pd
import pytest

import crosslmm as clm

FORMULA = "y ~ x + f + (1 + x | g) + (1 | h)"
MILLION = 1e6
METHODS = pytest.mark.parametrize("reml", [True, False], ids=["reml", "ml"])


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(11)
    n = 240
    frame = pd.DataFrame({"g": rng.integers(0, 30, n), "h": rng.integers(0, 8, n), "f": rng.choice(list("uvw"), n)})
    frame["x"] = rng.normal(size=n)
    slopes, other = rng.normal(size=(30, 2)) @ [[1.0, 0.3], [0.0, 0.5]], rng.normal(size=8)
    frame["y"] = 3 + frame["x"] + slopes[frame["g"], 0] + slopes[frame["g"], 1] * frame["x"] + other[frame["h"]]
    frame["y"] += rng.normal(size=n)
    frame["w"] = rng.uniform(0.5, 2, size=n)
    for factor in "ghf":
        frame[factor] = pd.Categorical(frame[factor].astype(str))
    return frame


@pytest.fixture(scope="module")
def base(data):
    return {reml: clm.lmer(FORMULA, data, reml=reml) for reml in (True, False)}


def assert_same_estimates(fit, other, *, criterion_shift=0.0):
    assert fit.criterion == pytest.approx(other.criterion + criterion_shift, abs=1e-6)
    se = other.bse_fe
    np.testing.assert_allclose(fit.fe_params[se.index] / se, other.fe_params / se, rtol=0, atol=1e-5)
    np.testing.assert_allclose(fit.bse_fe[se.index], se, rtol=1e-5)
    np.testing.assert_allclose(fit.varcorr["sdcor"], other.varcorr["sdcor"], rtol=1e-5)
    np.testing.assert_allclose(fit.theta, other.theta, rtol=1e-5, atol=1e-6)


def sdcor(fit):
    """Standard deviations and correlations by (group, name1, name2)."""
    names = fit.varcorr[["group", "name1", "name2"]].fillna("").itertuples(index=False, name=None)
    return dict(zip(names, fit.varcorr["sdcor"], strict=True))


@METHODS
def test_row_order(data, base, reml):
    shuffled = data.sample(frac=1, random_state=3)
    fit = clm.lmer(FORMULA, shuffled, reml=reml)
    assert_same_estimates(fit, base[reml])
    pd.testing.assert_index_equal(fit.fittedvalues.index, shuffled.index)
    aligned = fit.fittedvalues.loc[data.index]
    np.testing.assert_allclose(aligned, base[reml].fittedvalues, atol=1e-5 * base[reml].sigma)
    for factor, modes in base[reml].random_effects.items():
        ours = fit.random_effects[factor].loc[modes.index]
        np.testing.assert_allclose(ours, modes, atol=1e-5 * base[reml].sigma)


@METHODS
def test_level_names_and_order(data, base, reml):
    renamed = data.copy()
    levels = data["g"].cat.categories
    new = {level: f"({i * 7 % len(levels):02d})" for i, level in enumerate(levels)}
    renamed["g"] = pd.Categorical(data["g"].astype(str).map(new), categories=sorted(new.values(), reverse=True))
    fit = clm.lmer(FORMULA, renamed, reml=reml)
    assert_same_estimates(fit, base[reml])
    modes = base[reml].random_effects["g"]
    ours = fit.random_effects["g"].loc[[new[level] for level in modes.index]]
    np.testing.assert_allclose(ours, modes, atol=1e-5 * base[reml].sigma)


@pytest.mark.parametrize("kind", ["string", "integer", "unused levels", "Int64", "object"])
def test_type_of_the_grouping_column(data, base, kind):
    other = data.copy()
    text = data["g"].astype(str)
    other["g"] = {
        "string": lambda: text,
        "object": lambda: text.astype(object),
        "integer": lambda: text.astype(int),
        "Int64": lambda: text.astype(int).astype("Int64"),
        "unused levels": lambda: data["g"].cat.add_categories(["none", "nobody"]),
    }[kind]()
    fit = clm.lmer(FORMULA, other)
    assert_same_estimates(fit, base[True])
    assert len(fit.random_effects["g"]) == 30


@METHODS
def test_scale_of_y(data, base, reml):
    fit = clm.lmer(FORMULA, data.assign(y=data["y"] * MILLION), reml=reml)
    other = base[reml]
    degrees = len(data) - len(other.fe_params) if reml else len(data)
    assert fit.criterion == pytest.approx(other.criterion + 2 * degrees * np.log(MILLION), abs=1e-6)
    np.testing.assert_allclose(fit.fe_params / other.bse_fe / MILLION, other.fe_params / other.bse_fe, atol=1e-5)
    np.testing.assert_allclose(fit.theta, other.theta, rtol=1e-5)
    assert fit.sigma == pytest.approx(other.sigma * MILLION, rel=1e-6)


@METHODS
@pytest.mark.parametrize("shift", [MILLION, -MILLION])
def test_shift_of_y(data, base, reml, shift):
    fit = clm.lmer(FORMULA, data.assign(y=data["y"] + shift), reml=reml)
    other = base[reml]
    assert fit.criterion == pytest.approx(other.criterion, abs=1e-6)
    expected = other.fe_params + shift * (other.fe_params.index == "Intercept")
    np.testing.assert_allclose((fit.fe_params - expected) / other.bse_fe, 0, atol=1e-5)
    np.testing.assert_allclose(fit.varcorr["sdcor"], other.varcorr["sdcor"], rtol=1e-5)


@METHODS
@pytest.mark.parametrize("factor", [MILLION, 1 / MILLION])
def test_scale_of_a_covariate(data, base, reml, factor):
    fit = clm.lmer(FORMULA, data.assign(x=data["x"] * factor), reml=reml)
    other = base[reml]
    assert fit.criterion == pytest.approx(other.criterion + (2 * np.log(factor) if reml else 0), abs=1e-6)
    unit = np.where(other.fe_params.index == "x", factor, 1.0)
    np.testing.assert_allclose(fit.fe_params * unit / other.bse_fe, other.fe_params / other.bse_fe, atol=1e-5)
    np.testing.assert_allclose(fit.bse_fe * unit, other.bse_fe, rtol=1e-5)
    ours, theirs = sdcor(fit), sdcor(other)
    for key, value in theirs.items():
        scale = factor if key == ("g", "x", "") else 1.0
        assert ours[key] * scale == pytest.approx(value, rel=1e-5), key


@METHODS
@pytest.mark.parametrize("shift", [MILLION, -MILLION])
def test_shift_of_a_covariate(data, base, reml, shift):
    fit = clm.lmer(FORMULA, data.assign(x=data["x"] + shift), reml=reml)
    other = base[reml]
    # The sum with a million keeps ten digits of x: the data themselves differ by 1e-10.
    assert fit.criterion == pytest.approx(other.criterion, abs=1e-6)
    assert fit.sigma == pytest.approx(other.sigma, rel=1e-5)
    assert fit.fe_params["x"] == pytest.approx(other.fe_params["x"], rel=1e-5)
    assert fit.bse_fe["x"] == pytest.approx(other.bse_fe["x"], rel=1e-5)
    ours, theirs = sdcor(fit), sdcor(other)
    for key in [("g", "x", ""), ("h", "Intercept", "")]:
        assert ours[key] == pytest.approx(theirs[key], rel=1e-5), key
    cov = other.cov_re["g"].to_numpy()
    intercept = np.sqrt(cov[0, 0] - 2 * shift * cov[0, 1] + shift**2 * cov[1, 1])
    assert ours["g", "Intercept", ""] == pytest.approx(intercept, rel=1e-5)
    np.testing.assert_allclose(fit.fittedvalues, other.fittedvalues, atol=1e-5 * other.sigma)


@METHODS
def test_covariate_of_mean_a_million_against_its_centred_twin(data, reml):
    """The criterion at a given theta, too, survives a mean of 1e6: raw cross-products would lose it (3e-3)."""
    shifted = data.assign(x=data["x"] + MILLION)
    centred = data.assign(x=shifted["x"] - MILLION)  # exactly
    formula = "y ~ x + (1 + x | g)"
    T = np.array([[0.8, 0.0], [0.2, 0.5]])
    moved = np.array([[1.0, -MILLION], [0.0, 1.0]]) @ T
    # Rotate it back to lower triangular: L with L L' = moved moved'.
    lower = np.linalg.qr(moved.T)[1].T
    lower *= np.sign(np.diag(lower))
    theta = lower[np.tril_indices(2)][[0, 1, 2]]
    ours = clm.MixedLM.from_formula(formula, shifted).objective(theta, reml=reml).criterion
    theirs = clm.MixedLM.from_formula(formula, centred).objective(np.array([0.8, 0.2, 0.5]), reml=reml).criterion
    assert ours == pytest.approx(theirs, abs=1e-6)


@METHODS
def test_units_of_the_weights(data, reml):
    """Weights ten times larger: the random effects' covariance stays, sigma**2 is ten times larger."""
    fit = clm.lmer(FORMULA, data, weights="w", reml=reml)
    other = clm.lmer(FORMULA, data.assign(w=10 * data["w"]), weights="w", reml=reml)
    assert other.criterion == pytest.approx(fit.criterion, abs=1e-6)
    assert other.sigma == pytest.approx(fit.sigma * np.sqrt(10), rel=1e-5)
    np.testing.assert_allclose(other.varcorr["sdcor"][:-1], fit.varcorr["sdcor"][:-1], rtol=1e-5)
    np.testing.assert_allclose(other.fe_params / fit.bse_fe, fit.fe_params / fit.bse_fe, atol=1e-5)


@METHODS
def test_weights_of_two_are_doubled_rows(data, reml):
    """At one theta: the same weighted sums, so the same fixed effects, modes and residual sum of squares."""
    doubled = pd.concat([data, data], ignore_index=True)
    theta = np.array([0.9, 0.2, 0.6, 0.7])
    with pytest.warns(clm.ConvergenceWarning):
        weighted = clm.MixedLM.from_formula(FORMULA, data.assign(w=2.0), weights="w").fit(
            reml, start=theta, max_evaluations=1
        )
    with pytest.warns(clm.ConvergenceWarning):
        repeated = clm.MixedLM.from_formula(FORMULA, doubled).fit(reml, start=theta, max_evaluations=1)
    for fit in (weighted, repeated):
        np.testing.assert_allclose(fit.theta, theta, rtol=1e-12)
    se = weighted.bse_fe
    np.testing.assert_allclose(repeated.fe_params / se, weighted.fe_params / se, rtol=0, atol=1e-9)
    p = len(se) if reml else 0
    n = len(data)
    ratio = np.sqrt((n - p) / (2 * n - p))
    assert repeated.sigma == pytest.approx(weighted.sigma * ratio, rel=1e-10)
    np.testing.assert_allclose(repeated.bse_fe, se * ratio, rtol=1e-9)
    for factor, modes in weighted.random_effects.items():
        np.testing.assert_allclose(repeated.random_effects[factor], modes, rtol=0, atol=1e-9 * weighted.sigma)
    np.testing.assert_allclose(repeated.fittedvalues[:n], weighted.fittedvalues, rtol=0, atol=1e-9 * weighted.sigma)


def test_offset_is_subtracted_from_the_response(data, base):
    moved = data.assign(y=data["y"] + 5 * data["x"] ** 2, o=5 * data["x"] ** 2)
    fit = clm.lmer(FORMULA, moved, offset="o")
    assert_same_estimates(fit, base[True])
    np.testing.assert_allclose(fit.resid, base[True].resid, atol=1e-5 * fit.sigma)
    np.testing.assert_allclose(fit.fittedvalues + fit.resid, moved["y"], rtol=1e-12)


def test_fitting_leaves_the_data_alone(data):
    given = data.copy(deep=True)
    kept = given.copy(deep=True)
    model = clm.MixedLM.from_formula(FORMULA, given, weights="w")
    model.fit()
    model.fit(reml=False)
    pd.testing.assert_frame_equal(given, kept)


def snapshot(fit):
    return {
        "numbers": (fit.criterion, fit.llf, fit.aic, fit.bic, fit.sigma, fit.scale),
        "theta": fit.theta.copy(),
        "fe_params": fit.fe_params.copy(),
        "bse_fe": fit.bse_fe.copy(),
        "varcorr": fit.varcorr.copy(),
        "modes": copy.deepcopy(fit.random_effects),
        "fitted": fit.fittedvalues.copy(),
        "text": str(fit),
    }


def assert_identical(a, b):
    assert a["numbers"] == b["numbers"]
    assert a["text"] == b["text"]
    np.testing.assert_array_equal(a["theta"], b["theta"])
    for key in ("fe_params", "bse_fe", "fitted"):
        pd.testing.assert_series_equal(a[key], b[key], check_exact=True)
    pd.testing.assert_frame_equal(a["varcorr"], b["varcorr"], check_exact=True)
    for factor, modes in a["modes"].items():
        pd.testing.assert_frame_equal(modes, b["modes"][factor], check_exact=True)


def test_a_second_fit_leaves_the_first_result_alone(data):
    model = clm.MixedLM.from_formula(FORMULA, data)
    first = model.fit()
    before = snapshot(first)
    second = model.fit(reml=False)
    assert second.criterion != first.criterion
    assert_identical(snapshot(first), before)


def test_a_fit_depends_on_nothing_fitted_before(data):
    model = clm.MixedLM.from_formula(FORMULA, data)
    alone = model.fit()
    model.fit(reml=False)
    model.objective(np.zeros_like(alone.theta))
    again = model.fit()
    np.testing.assert_array_equal(again.theta, alone.theta)
    assert again.criterion == alone.criterion
