"""Marginal means against predictions on a grid made by hand, and contrasts against textbook adjustments."""

import itertools
import warnings

import formulaic
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import crosslmm as clm
from crosslmm.inference.adjust import range_quantile
from crosslmm.inference.dunnett import dunnett_quantile, spread, tail

FORMULA = "a * b + C(c, contr.sum) * np.log(x) + b:z"


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(8)
    n = 240
    frame = pd.DataFrame(
        {"a": rng.choice(list("uvw"), n, p=[0.5, 0.3, 0.2]), "b": rng.choice(list("st"), n, p=[0.7, 0.3])}
    )
    frame["c"] = np.where(rng.random(n) < 0.6, "k", np.where(frame["b"] == "s", "l", "m"))
    frame["x"], frame["z"], frame["g"] = rng.uniform(1, 4, n), rng.normal(1, 1, n), rng.permutation(np.arange(n) % 20)
    frame["y"] = frame["x"] + (frame["a"] == "v") + 0.6 * rng.normal(size=20)[frame["g"]] + rng.normal(size=n)
    return frame


@pytest.fixture(scope="module")
def fit(data):
    return clm.lmer(f"y ~ {FORMULA} + (1 | g)", data)


def by_hand(fit, data, factors, weights, x=None, z=None):
    """Means by predicting on every combination of levels and averaging."""
    levels = {name: sorted(data[name].unique()) for name in "abc"}
    x = np.exp(np.log(data["x"]).mean()) if x is None else x  # the mean of the evaluated column
    z = data["z"].mean() if z is None else z
    grid = pd.DataFrame(list(itertools.product(*levels.values())), columns=list(levels)).assign(x=x, z=z)
    spec = formulaic.model_matrix(FORMULA, data).model_spec
    X = spec.get_model_matrix(grid)[list(fit.fe_params.index)].to_numpy()
    over = [name for name in levels if name not in factors]
    if weights == "equal":
        w = np.ones(len(grid))
    elif weights == "proportional":
        counts = data.groupby(over).size()
        w = np.array([counts.get(key[0] if len(over) == 1 else key, 0) for key in grid[over].itertuples(index=False)])
    else:
        shares = {name: data[name].value_counts(normalize=True) for name in over}
        w = np.prod([shares[name].loc[grid[name]].to_numpy() for name in over], axis=0)
    rows = {}
    for key, index in grid.groupby(factors[0] if len(factors) == 1 else factors).groups.items():
        own = w[index] / w[index].sum()
        rows[key if isinstance(key, tuple) else (key,)] = own @ X[index]
    return rows


@pytest.mark.parametrize("weights", ["equal", "proportional", "outer"])
@pytest.mark.parametrize("factors", [["a"], ["b"], ["c"], ["a", "b"], ["b", "c"]], ids="-".join)
def test_means(fit, data, factors, weights):
    ours = fit.emmeans(factors, weights=weights, ddf="residual")
    expected = by_hand(fit, data, factors, weights)
    frame = ours.to_frame()
    assert len(frame) == len(expected)
    for i, key in enumerate(frame[factors].itertuples(index=False)):
        np.testing.assert_allclose(ours.functions.estimable()[i], expected[tuple(key)], atol=1e-9)
        row = expected[tuple(key)]
        assert frame["estimate"].iloc[i] == pytest.approx(row @ fit.fe_params.to_numpy(), rel=1e-9)
        error = np.sqrt(row @ fit.cov_params().to_numpy() @ row)
        assert frame["std_error"].iloc[i] == pytest.approx(error, rel=1e-9)
        assert frame["df"].iloc[i] == fit.df_resid


def test_values_of_numbers(fit, data):
    """By column of the data, which is put into its expressions, or by the expression itself."""
    ours = fit.emmeans("a", at={"x": 2.0, "z": 0.5}).functions.estimable()
    expected = by_hand(fit, data, ["a"], "equal", x=2.0, z=0.5)
    np.testing.assert_allclose(ours, list(expected.values()), atol=1e-9)
    same = fit.emmeans("a", at={"np.log(x)": np.log(2.0), "z": 0.5}).functions.estimable()
    np.testing.assert_allclose(same, ours, atol=1e-12)
    two = fit.emmeans(["x"], at={"x": [1.5, 2.5]}).to_frame()
    slope = (two["estimate"].iloc[1] - two["estimate"].iloc[0]) / (np.log(2.5) - np.log(1.5))
    assert slope == pytest.approx(fit.fe_params["np.log(x)"], rel=1e-9)  # sum coding: the mean slope


@pytest.mark.parametrize("ddf", ["normal", "satterthwaite", "kenward-roger"])
def test_contrasts(fit, ddf):
    means = fit.emmeans("a", by="b", ddf=ddf)
    pairs = means.contrasts(adjust="none")
    assert list(pairs["b"]) == ["s"] * 3 + ["t"] * 3
    assert list(pairs["contrast"]) == ["u - v", "u - w", "v - w"] * 2
    L = means.functions.estimable()
    rows = means.grid.index[means.grid["b"] == "t"]
    expected = fit.test(L[rows[0]] - L[rows[2]], ddf=ddf).rows.iloc[0]
    for column in ("estimate", "std_error", "df", "statistic", "p_value", "lower", "upper"):
        assert pairs[column].iloc[4] == pytest.approx(expected[column], rel=1e-9)
    control = means.contrasts("control", reference="w")
    assert list(control["contrast"]) == ["u - w", "v - w"] * 2
    custom = means.contrasts({"middle": [-0.5, 1, -0.5]}, adjust="bonferroni")
    assert custom["estimate"].iloc[1] == pytest.approx((L[rows[1]] - (L[rows[0]] + L[rows[2]]) / 2) @ fit.fe_params)


def test_adjustments(fit):
    means = fit.emmeans("a", ddf="residual")
    raw = means.contrasts(adjust="none")
    p, m = raw["p_value"].to_numpy(), len(raw)
    np.testing.assert_allclose(means.contrasts(adjust="bonferroni")["p_value"], np.minimum(m * p, 1))
    holm, running = np.empty(m), 0.0
    for place, i in enumerate(np.argsort(p)):
        running = max(running, min((m - place) * p[i], 1.0))
        holm[i] = running
    np.testing.assert_allclose(means.contrasts(adjust="holm")["p_value"], holm)
    tukey = means.contrasts()
    law = stats.studentized_range(3, fit.df_resid)
    np.testing.assert_allclose(tukey["p_value"], law.sf(np.sqrt(2) * raw["statistic"].abs()), rtol=1e-9)
    half = law.ppf(0.95) / np.sqrt(2) * raw["std_error"]
    np.testing.assert_allclose(tukey["upper"] - tukey["estimate"], half, rtol=1e-6)
    wide = stats.t.ppf(1 - 0.05 / (2 * m), fit.df_resid) * raw["std_error"]
    np.testing.assert_allclose(means.contrasts(adjust="bonferroni")["upper"] - raw["estimate"], wide)


@pytest.mark.parametrize("low, high", [(3.0, 40.0), (20.0, 2e4)])
def test_many_quantiles_of_the_range(low, high):
    df = np.append(np.geomspace(low, high, 40), high)
    expected = [stats.studentized_range.ppf(0.95, 5, value) for value in df]
    np.testing.assert_allclose(range_quantile(0.95, 5, df), expected, rtol=1e-7)


def test_small_p_values_of_tukey_are_within_their_bounds():
    """Beyond 1e-12 one minus a probability says nothing; a joint p lies between the single one and Bonferroni's."""
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"g": np.repeat(np.arange(12), 20), "f": np.tile(list("abcd"), 60)})
    data["y"] = (
        rng.normal(size=240) + rng.normal(size=12)[data["g"]] + 3.0 * (data["f"] == "d") + 1.0 * (data["f"] == "c")
    )
    means = clm.lmer("y ~ f + (1 | g)", data).emmeans("f", ddf="residual")
    single, joint, wide = (means.contrasts(adjust=a)["p_value"] for a in ("none", "tukey", "bonferroni"))
    assert (single < 1e-30).any()
    assert (single <= joint).all() and (joint <= wide).all()


def test_tukey_is_the_test_of_tukey():
    """Balanced data without a random effect: Tukey's honestly significant difference."""
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"a": np.repeat(list("pqrs"), 15), "g": np.tile(np.arange(5), 12)})
    data["y"] = rng.normal(size=60) + 0.8 * (data["a"] == "q")
    data["y"] -= data.groupby("g")["y"].transform("mean")
    fit = clm.lmer("y ~ a + (1 | g)", data)
    assert fit.theta.iloc[0] == 0.0
    ours = fit.emmeans("a", ddf="residual").contrasts()
    theirs = stats.tukey_hsd(*(data.loc[data["a"] == level, "y"] for level in "pqrs")).pvalue
    expected = [theirs[i, j] for i, j in itertools.combinations(range(4), 2)]
    np.testing.assert_allclose(ours["p_value"], expected, rtol=1e-6)


# Dunnett (1964, Biometrics 20, 482-491), table II: two-sided 5% points for equal groups, by contrasts and degrees.
POINTS_OF_DUNNETT = [(2, 10, 2.57), (3, 10, 2.76), (2, 20, 2.38), (3, 20, 2.54), (5, 20, 2.73), (9, 20, 2.95)]


@pytest.mark.parametrize("m, df, published", POINTS_OF_DUNNETT)
def test_points_of_dunnett(m, df, published):
    correlation = 0.5 + 0.5 * np.eye(m)
    ours = dunnett_quantile(0.95, np.array([float(df)]), correlation, np.array([1.9]), np.array([5.0]))
    assert round(ours[0], 2) == published


@pytest.mark.parametrize("df", [6.0, np.inf])
def test_largest_of_correlated_statistics(df):
    """Unequal correlations, one of them negative: against numerical integration over the box by scipy."""
    root = np.array([[1.0, 0.0, 0.2], [0.7, 0.7, 0.1], [0.3, -0.8, 0.4], [0.5, 0.1, 0.9]])
    product = root @ root.T + 0.1 * np.eye(4)
    correlation = product / np.sqrt(np.outer(np.diag(product), np.diag(product)))
    law = stats.multivariate_normal(cov=correlation) if np.isinf(df) else stats.multivariate_t(shape=correlation, df=df)
    for h in (1.0, 2.0, 3.0):
        options = {} if np.isinf(df) else {"maxpts": 400_000, "random_state": 1}
        inside = law.cdf(np.full(4, h), lower_limit=np.full(4, -h), **options)
        assert tail(h, df, *spread(correlation)) == pytest.approx(1.0 - inside, abs=1e-4)


def test_dunnett_is_the_test_of_dunnett():
    """Unequal groups without a random effect, against scipy's test of the same name."""
    rng = np.random.default_rng(4)
    sizes = {"p": 20, "q": 10, "r": 15, "s": 5}
    data = pd.DataFrame({"a": np.repeat(list(sizes), list(sizes.values())), "g": np.tile(np.arange(5), 10)})
    data["y"] = rng.normal(size=50) + 0.7 * (data["a"] == "q")
    data["y"] -= data.groupby("g")["y"].transform("mean")
    fit = clm.lmer("y ~ a + (1 | g)", data)
    assert fit.theta.iloc[0] == 0.0
    ours = fit.emmeans("a", ddf="residual").contrasts("control", adjust="dunnett")
    groups = {level: data.loc[data["a"] == level, "y"] for level in sizes}
    theirs = stats.dunnett(groups["q"], groups["r"], groups["s"], control=groups["p"], random_state=1)
    np.testing.assert_allclose(ours["p_value"], theirs.pvalue, atol=2e-4)
    interval = theirs.confidence_interval(0.95)
    np.testing.assert_allclose(ours["lower"], interval.low, atol=5e-3)
    np.testing.assert_allclose(ours["upper"], interval.high, atol=5e-3)


def test_dunnett_by_any_degrees(fit):
    """Between the tests of single contrasts and Bonferroni's, the same in every call, and within the levels of by."""
    for ddf in ("normal", "satterthwaite", "kenward-roger"):
        means = fit.emmeans("a", by="b", ddf=ddf)
        single, ours, most = (means.contrasts("control", adjust=a) for a in ("none", "dunnett", "bonferroni"))
        assert (single["p_value"] <= ours["p_value"]).all() and (ours["p_value"] <= most["p_value"]).all()
        widths = [(frame["upper"] - frame["lower"]).to_numpy() for frame in (single, ours, most)]
        assert (widths[0] < widths[1]).all() and (widths[1] < widths[2]).all()
        pd.testing.assert_frame_equal(ours, means.contrasts("control", adjust="dunnett"))
        bound = np.abs(ours["estimate"]) > 0.5 * widths[1]
        assert (bound == (ours["p_value"] < 0.05)).all()


def test_cells_without_rows(data):
    rows = data[~((data["a"] == "v") & (data["b"] == "t"))]
    with pytest.warns(clm.RankDeficiencyWarning):
        fit = clm.lmer("y ~ a * b + (1 | g)", rows)
    cells = fit.emmeans(["a", "b"])
    with pytest.warns(clm.RankDeficiencyWarning, match="1 of 6 means cannot be estimated and are nan"):
        frame = cells.to_frame()
    missing = (frame["a"] == "v") & (frame["b"] == "t")
    assert list(frame["estimate"].isna()) == list(missing)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "1 of 6 means cannot be estimated" in repr(cells)
    with pytest.warns(clm.RankDeficiencyWarning, match="1 of 3 means"):
        assert fit.emmeans("a").to_frame()["estimate"].isna().tolist() == [False, True, False]
    with pytest.warns(clm.RankDeficiencyWarning, match="5 of 15 contrasts"):
        pairs = cells.contrasts(adjust="holm").set_index("contrast")
    assert np.isfinite(pairs.loc["u s - w t", "p_value"])
    assert np.isnan(pairs.loc["u s - v t", "p_value"])
    with pytest.warns(clm.RankDeficiencyWarning, match="1 of 5 contrasts"):
        control = cells.contrasts("control", adjust="dunnett").set_index("contrast")
    assert list(control["p_value"].isna()) == [name == "v t - u s" for name in control.index]
    assert list(control["upper"].isna()) == list(control["p_value"].isna())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"factors": "q"}, "'q' is not in the fixed part"),
        ({"factors": "x"}, "'x' is a number"),
        ({"factors": []}, "expected the name"),
        ({"factors": 3}, "factors=3: expected the name"),
        ({"factors": None}, "factors=None: expected the name"),
        ({"factors": "a", "by": 3}, "by=3: expected the name"),
        ({"factors": "a", "at": 3}, "at=3: expected a dict"),
        ({"factors": "a", "at": 0}, "at=0: expected a dict"),
        ({"factors": "x", "at": {"x": []}}, "holds no value"),
        ({"factors": "x", "at": {"x": [1, 1.0]}}, "twice"),
        ({"factors": "a", "at": {"a": ["u", "u"]}}, "twice"),
        ({"factors": "x", "at": {"x": [np.nan]}}, "a finite number"),
        ({"factors": ["a", "a"]}, "named twice"),
        ({"factors": "a", "at": {"x": "b"}}, "must be a number"),
        ({"factors": "a", "at": {"x": [1.0, 2.0]}}, "a finite number"),
        ({"factors": "a", "at": {"q": 1.0}}, "not in the fixed part"),
        ({"factors": "a", "at": {"b": "s"}}, "add it to factors"),
        ({"factors": "a", "at": {"a": ["q"]}}, "no level"),
        ({"factors": "a", "at": {"x": -1.0}}, "not finite"),
        ({"factors": "a", "weights": "cells"}, "'proportional'"),
        ({"factors": "a", "level": 2}, "between 0 and 1"),
    ],
)
def test_refusals(fit, options, message):
    with pytest.raises(clm.ModelError, match=message):
        fit.emmeans(**options)


def test_refusals_of_contrasts(fit):
    means = fit.emmeans("a")
    for arguments, message in [
        ({"kind": "all"}, "expected 'pairwise'"),
        ({"kind": {}}, "no contrast in it"),
        ({"reference": "u"}, "is for kind='control'"),
        ({"adjust": "fdr"}, "expected one of"),
        ({"kind": "control", "adjust": "tukey"}, "pairwise differences"),
        ({"adjust": "dunnett"}, "differences from a control"),
        ({"kind": "control", "reference": "q"}, "none of the means"),
        ({"kind": {"c": [1, 2]}}, "3 finite numbers"),
        ({"kind": {"c": "ab"}}, "must be 3 numbers"),
    ]:
        with pytest.raises(clm.ModelError, match=message):
            means.contrasts(**arguments)
    with pytest.raises(clm.ModelError, match="one mean only"):
        fit.emmeans("a", at={"a": "u"}).contrasts()
