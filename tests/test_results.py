"""Everything a fit can be asked for: shapes, labels, types, and how the numbers hang together."""

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

import crosslmm as clm

CROSSED = "y ~ x + f + (1 + x | g) + (x || h) + (1 | k)"


def crossed_data():
    rng = np.random.default_rng(1)
    n = 300
    data = pd.DataFrame({"g": rng.integers(0, 25, n), "h": rng.integers(0, 12, n), "k": rng.integers(0, 5, n)})
    data["x"] = rng.normal(size=n)
    data["f"] = pd.Categorical(rng.choice(list("uvw"), n))
    data["w"], data["o"] = rng.uniform(0.5, 2, size=n), rng.normal(size=n)
    data["y"] = 4 + data["x"] + data["o"] + rng.normal(size=n) / np.sqrt(data["w"])
    for name, size in (("g", 25), ("h", 12), ("k", 5)):
        effects = rng.normal(size=(size, 2))
        data["y"] += effects[data[name], 0] + (name != "k") * 0.5 * effects[data[name], 1] * data["x"]
    data["g"] = "g" + data["g"].astype(str).str.zfill(2)
    data.index = [f"row {i}" for i in range(n)]
    data.loc[data.index[[3, 50, 299]], "x"] = np.nan
    return data


@pytest.fixture(scope="module")
def sleep():
    return clm.lmer("Reaction ~ Days + (Days | Subject)", clm.datasets.load_sleepstudy())


@pytest.fixture(scope="module")
def data():
    return crossed_data()


@pytest.fixture(scope="module")
def crossed(data):
    return clm.lmer(CROSSED, data, weights="w", offset="o")


@pytest.fixture(scope="module")
def empty():
    """No fixed effects."""
    return clm.lmer("y ~ 0 + (1 | g)", crossed_data())


@pytest.fixture(params=["sleep", "crossed", "empty"])
def fit(request):
    return request.getfixturevalue(request.param)


# --- labels --------------------------------------------------------------------------------------


def test_fixed_effects(sleep, crossed, empty):
    assert list(sleep.fe_params.index) == ["Intercept", "Days"]
    assert list(crossed.fe_params.index) == ["Intercept", "x", "f[T.v]", "f[T.w]"]
    assert empty.fe_params.shape == (0,)
    for fit in (sleep, crossed, empty):
        for name in ("fe_params", "bse_fe", "tvalues", "pvalues"):
            series = getattr(fit, name)
            assert isinstance(series, pd.Series)
            assert series.name == name
            assert series.dtype == float
            pd.testing.assert_index_equal(series.index, fit.fe_params.index)


def test_covariance_matrix(fit):
    cov = fit.cov_params()
    pd.testing.assert_index_equal(cov.index, fit.fe_params.index)
    pd.testing.assert_index_equal(cov.columns, fit.fe_params.index)
    np.testing.assert_allclose(cov, cov.T, rtol=1e-12)
    np.testing.assert_allclose(np.sqrt(np.diag(cov)), fit.bse_fe, rtol=1e-12)
    assert (np.linalg.eigvalsh(cov) > 0).all()


def test_tests_and_intervals(fit):
    z = fit.fe_params / fit.bse_fe
    np.testing.assert_allclose(fit.tvalues, z, rtol=1e-12)
    np.testing.assert_allclose(fit.pvalues, 2 * norm.sf(np.abs(z)), rtol=1e-10)
    for alpha in (0.05, 0.5):
        interval = fit.conf_int(alpha)
        assert list(interval.columns) == [0, 1]
        pd.testing.assert_index_equal(interval.index, fit.fe_params.index)
        half = norm.ppf(1 - alpha / 2) * fit.bse_fe
        np.testing.assert_allclose(interval[0], fit.fe_params - half, rtol=1e-12)
        np.testing.assert_allclose(interval[1], fit.fe_params + half, rtol=1e-12)
    pd.testing.assert_frame_equal(fit.conf_int(), fit.conf_int(alpha=0.05))


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 95, float("nan")])
def test_levels_that_are_none(sleep, alpha):
    with pytest.raises(ValueError, match="alpha must lie between 0 and 1"):
        sleep.conf_int(alpha)


def test_theta_and_names(sleep, crossed):
    names = ["Subject.Intercept", "Subject.Days.Intercept", "Subject.Days"]
    assert list(sleep.theta.index) == names
    assert list(sleep.model.theta_names) == names
    assert list(crossed.theta.index) == [
        "g.Intercept",
        "g.x.Intercept",
        "g.x",
        "h.Intercept",
        "h.1.x",
        "k.Intercept",
    ]
    assert sleep.theta.name == "theta"


def test_variances(sleep):
    frame = sleep.varcorr
    assert list(frame.columns) == ["group", "name1", "name2", "vcov", "sdcor"]
    assert list(frame["group"]) == ["Subject", "Subject", "Subject", "Residual"]
    assert list(frame["name1"].fillna("")) == ["Intercept", "Days", "Intercept", ""]
    assert list(frame["name2"].fillna("")) == ["", "", "Days", ""]
    assert frame["vcov"].dtype == frame["sdcor"].dtype == float
    cov = sleep.cov_re["Subject"]
    assert list(cov.index) == list(cov.columns) == ["Intercept", "Days"]
    np.testing.assert_allclose(frame["vcov"], [cov.iloc[0, 0], cov.iloc[1, 1], cov.iloc[0, 1], sleep.scale])
    correlation = cov.iloc[0, 1] / np.sqrt(cov.iloc[0, 0] * cov.iloc[1, 1])
    sd = np.sqrt(np.diag(cov))
    np.testing.assert_allclose(frame["sdcor"], [*sd, correlation, sleep.sigma], rtol=1e-12)


def test_variances_of_several_terms_on_a_factor(crossed):
    assert set(crossed.cov_re) == {"g", "h", "k"}
    between = crossed.cov_re["h"]
    assert list(between.columns) == ["Intercept", "x"]
    assert between.loc["Intercept", "x"] == between.loc["x", "Intercept"] == 0.0
    rows = list(crossed.varcorr[["group", "name1", "name2"]].fillna("").itertuples(index=False, name=None))
    assert rows == [
        ("g", "Intercept", ""),
        ("g", "x", ""),
        ("g", "Intercept", "x"),
        ("h", "Intercept", ""),
        ("h.1", "x", ""),
        ("k", "Intercept", ""),
        ("Residual", "", ""),
    ]


def test_covariances_follow_from_theta(fit):
    for template, cov in zip(fit.estimates.templates, fit.cov_re.values(), strict=True):
        np.testing.assert_allclose(cov, fit.scale * template @ template.T, rtol=1e-12)
        np.testing.assert_array_equal(template, np.tril(template))
    assert fit.scale == pytest.approx(fit.sigma**2)
    assert isinstance(fit.sigma, float)


def test_correlation_with_no_variance_is_missing():
    """Groups whose means and slopes agree more than chance allows: no variance at all is left between them."""
    frame = pd.DataFrame({"g": np.repeat(range(6), 4), "x": np.tile([-1.0, 1.0, -1.0, 1.0], 6)})
    frame["y"] = np.tile([1.0, -1.0, -1.0, 1.0], 6)
    fit = clm.lmer("y ~ x + (1 + x | g)", frame)
    assert fit.singular
    assert fit.converged
    np.testing.assert_array_equal(fit.theta, 0.0)
    np.testing.assert_array_equal(fit.varcorr["sdcor"][:3], [0.0, 0.0, np.nan])
    np.testing.assert_array_equal(fit.varcorr["vcov"][:3], 0.0)
    np.testing.assert_array_equal(fit.random_effects["g"], 0.0)


def test_random_effects(sleep, crossed, data):
    assert list(sleep.random_effects) == ["Subject"]
    modes = sleep.random_effects["Subject"]
    assert modes.shape == (18, 2)
    assert modes.index.name == "Subject"
    assert list(modes.columns) == ["Intercept", "Days"]
    assert list(modes.index) == list(clm.datasets.load_sleepstudy()["Subject"].cat.categories)
    assert {key: value.shape for key, value in crossed.random_effects.items()} == {
        "g": (25, 2),
        "h": (12, 2),
        "k": (5, 1),
    }
    assert list(crossed.random_effects["g"].index) == sorted(data["g"].unique())
    assert crossed.n_groups == {"g": 25, "h": 12, "k": 5}
    assert sleep.n_groups == {"Subject": 18}


# --- rows ----------------------------------------------------------------------------------------


def test_rows(crossed, data):
    used = data.drop(index=data.index[[3, 50, 299]])
    assert (crossed.nobs, crossed.n_dropped, crossed.df_resid) == (297, 3, 293)
    for series, name in ((crossed.fittedvalues, "fittedvalues"), (crossed.resid, "resid")):
        pd.testing.assert_index_equal(series.index, used.index)
        assert series.name == name
    pd.testing.assert_series_equal(crossed.fittedvalues + crossed.resid, used["y"], check_names=False, rtol=1e-13)


def test_fitted_values_from_the_parts(crossed, data):
    used = data.drop(index=data.index[[3, 50, 299]])
    beta, modes = crossed.fe_params, crossed.random_effects
    expected = used["o"] + beta["Intercept"] + beta["x"] * used["x"]
    expected += beta["f[T.v]"] * (used["f"] == "v") + beta["f[T.w]"] * (used["f"] == "w")
    for factor in ("g", "h", "k"):
        own = modes[factor].loc[used[factor]].set_axis(used.index)
        expected += own["Intercept"] + (own["x"] * used["x"] if "x" in own else 0.0)
    np.testing.assert_allclose(crossed.fittedvalues, expected, rtol=1e-10)


def test_sigma_from_the_residuals(crossed, data):
    """``sigma^2 = (r'Wr + b' Cov(b)^-1 b sigma^2) / (n - p)`` (Bates et al. 2015, eq. 31 and 42)."""
    w = data.drop(index=data.index[[3, 50, 299]])["w"]
    penalty = 0.0
    for factor, modes in crossed.random_effects.items():
        precision = np.linalg.pinv(crossed.cov_re[factor].to_numpy()) * crossed.scale
        penalty += np.einsum("li,ij,lj->", modes, precision, modes)
    assert crossed.scale == pytest.approx(((w * crossed.resid**2).sum() + penalty) / crossed.df_resid, rel=1e-6)


# --- likelihood and the fit itself ---------------------------------------------------------------


def test_information_criteria(fit):
    parameters = len(fit.fe_params) + len(fit.theta) + 1
    assert fit.llf == -fit.criterion / 2
    assert fit.aic == pytest.approx(-2 * fit.llf + 2 * parameters, rel=1e-13)
    assert fit.bic == pytest.approx(-2 * fit.llf + np.log(fit.nobs) * parameters, rel=1e-13)
    for name in ("criterion", "llf", "aic", "bic", "scale"):
        assert isinstance(getattr(fit, name), float)


def test_about_the_fit(sleep, crossed):
    assert (sleep.method, sleep.converged, sleep.singular) == ("REML", True, False)
    assert sleep.model.fit(reml=False).method == "ML"
    assert sleep.formula == "Reaction ~ Days + (Days | Subject)"
    assert crossed.formula == CROSSED
    assert isinstance(sleep.converged, bool)
    assert isinstance(sleep.singular, bool)
    assert sleep.n_dropped == 0
    assert sleep.df_resid == 178


def test_table_of_the_iterations(fit):
    table = fit.optimization
    assert list(table.columns) == [
        *("step", "accepted", "criterion", "gradient_norm", "decrement", "cg_steps", "seconds"),
        *fit.theta.index,
    ]
    assert table["step"].iloc[0] == "start"
    assert table["accepted"].dtype == bool
    assert set(table["step"]) <= {"start", "newton", "damped", "boundary", "release", "last"}
    assert table["seconds"].is_monotonic_increasing
    assert (table["cg_steps"] == 0).all()
    assert table["criterion"].min() == pytest.approx(fit.criterion, abs=1e-9)
    np.testing.assert_allclose(table[table["accepted"]].iloc[-1][list(fit.theta.index)].astype(float), fit.theta)
    assert len(table) <= clm.model.MAX_EVALUATIONS


def test_report(fit):
    text = str(fit)
    assert text == repr(fit) == fit.summary().as_text()
    assert fit.formula in text
    assert fit._repr_html_() == fit.summary().as_html()


# --- pickles -------------------------------------------------------------------------------------


@pytest.mark.parametrize("looked_at", [False, True], ids=["fresh", "looked at"])
def test_results_can_be_pickled(data, looked_at):
    fit = clm.lmer(CROSSED, data, weights="w", offset="o")
    if looked_at:
        str(fit), fit.resid, fit.random_effects, fit.model.plan()
    copy = pickle.loads(pickle.dumps(fit))
    assert str(copy) == str(fit)
    pd.testing.assert_series_equal(copy.theta, fit.theta, check_exact=True)
    pd.testing.assert_series_equal(copy.fe_params, fit.fe_params, check_exact=True)
    pd.testing.assert_series_equal(copy.fittedvalues, fit.fittedvalues, check_exact=True)
    pd.testing.assert_frame_equal(copy.varcorr, fit.varcorr, check_exact=True)
    pd.testing.assert_frame_equal(copy.optimization, fit.optimization, check_exact=True)
    for factor, modes in fit.random_effects.items():
        pd.testing.assert_frame_equal(copy.random_effects[factor], modes, check_exact=True)
    again, before = copy.model.fit(reml=False), fit.model.fit(reml=False)
    assert again.criterion == before.criterion


def test_pickled_models_hold_no_factorisations(data):
    model = clm.MixedLM.from_formula(CROSSED, data)
    expected = model.fit().criterion
    copy = pickle.loads(pickle.dumps(model))
    assert set(vars(copy)) == {"formula", "design", "written"}
    assert copy.theta_names == model.theta_names
    assert copy.fit().criterion == expected
