"""Predictions against lme4, against n x n algebra, and what is said of rows that do not serve."""

from __future__ import annotations

import joint_oracle
import numpy as np
import pandas as pd
import pytest
from refdata import load_data, load_model, model_names
from scipy import stats
from test_conditional import ENGINES, FORMULAS, crossed_data

import crosslmm as clm

PREDICTED = [name for name in model_names() if load_model(name).get("predict") and load_model(name)["n"] <= 20_000]


# --- known answers -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PREDICTED)
def test_predictions_of_lme4(name, reference_fit) -> None:
    """The modes depend on theta, which is known to 1e-6 or so; the fixed effects hardly do."""
    ref, fit = load_model(name)["predict"], reference_fit(name)
    new = pd.DataFrame(ref["newdata"])
    np.testing.assert_allclose(fit.predict(new, random_effects=False), ref["fixed_only"], rtol=1e-8)
    millionth = 1e-6 * load_model(name)["sigma"]
    np.testing.assert_allclose(fit.predict(new), ref["known_levels"], rtol=0, atol=millionth)
    for case in ref["new_level"].values():
        changed = new.astype({case["column"]: object})
        changed.loc[case["rows_changed"], case["column"]] = case["new_label"]
        np.testing.assert_allclose(fit.predict(changed, new_levels="population"), case["pred"], rtol=0, atol=millionth)


def test_predictions_of_the_training_rows_are_the_fitted_values(reference_fit) -> None:
    for name in ("sleepstudy_offset_reml", "dietox_slope_reml", "machines_nested_reml", "cbpp_weighted_ml"):
        fit, data = reference_fit(name), load_data(load_model(name)["dataset"])
        used = fit.predict(data).loc[fit.fittedvalues.index]
        np.testing.assert_allclose(used, fit.fittedvalues, rtol=1e-12, err_msg=name)
        np.testing.assert_allclose(fit.predict(), fit.fittedvalues, rtol=1e-12)


# --- errors and intervals ------------------------------------------------------------------------


def oracle_variance(fit, data, known) -> np.ndarray:
    """Variance of the error of ``x' beta + z' b`` row by row, from the joint covariance of all effects."""
    design = fit.model.design
    whole = joint_oracle.joint(design, fit.estimates).whole
    same = clm.MixedLM.from_formula(fit.formula, data, weights="w").design
    assert all(
        list(a.levels) == list(b.levels) for a, b in zip(same.layout.factors, design.layout.factors, strict=True)
    )
    wide = np.hstack([same.X, joint_oracle.columns(same) * known])
    return np.einsum("ij,jk,ik->i", wide, whole, wide)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("formula", FORMULAS)
def test_standard_errors_by_the_joint_covariance(formula, engine, monkeypatch) -> None:
    monkeypatch.setattr("crosslmm.effects.prediction.ROWS_AT_ONCE", 7)
    monkeypatch.setattr("crosslmm.effects.covariance.MOST_SOLVED", 5)
    data = crossed_data()
    fit = clm.mixedlm(FORMULAS[formula], data, weights="w").fit(engine=ENGINES[engine])
    new = data.sample(frac=1.0, random_state=1)
    tolerance = 1e-6 if isinstance(ENGINES[engine], clm.IterativeEngine) else 1e-8
    found = fit.predict(new, interval="confidence", level=0.9)
    # the levels of these rows are those of the fit, so that the design of the new rows has the same columns
    expected = oracle_variance(fit, new, 1.0)
    np.testing.assert_allclose(found["se"] ** 2, expected, rtol=tolerance)
    np.testing.assert_array_equal(found.index, new.index)
    np.testing.assert_allclose(found["fit"], fit.predict(new), rtol=1e-14)
    reach = stats.norm.ppf(0.95) * found["se"]
    np.testing.assert_allclose(found["upper"] - found["fit"], reach, rtol=1e-10)
    np.testing.assert_allclose(found["fit"] - found["lower"], reach, rtol=1e-10)
    np.testing.assert_allclose(
        fit.predict(interval="confidence").loc[new.index], fit.predict(new, interval="confidence")
    )


def test_intervals_without_random_effects() -> None:
    data = crossed_data()
    fit = clm.lmer(FORMULAS["slopes"], data, weights="w")
    design = fit.model.design
    found = fit.predict(data, random_effects=False, interval="confidence")
    np.testing.assert_allclose(
        found["se"] ** 2, np.einsum("ij,jk,ik->i", design.X, fit.cov_params(), design.X), rtol=1e-12
    )
    whole = fit.predict(data, random_effects=False, interval="prediction")
    extra = fit.scale / data["w"]
    for Z, cov in zip(design.Z, fit.estimates.covariances, strict=True):
        extra = extra + np.einsum("ni,ij,nj->n", Z, cov, Z)
    np.testing.assert_allclose(whole["se"] ** 2 - found["se"] ** 2, extra, rtol=1e-9)


def test_some_random_effects_and_the_variance_of_the_others() -> None:
    data = crossed_data()
    fit = clm.lmer(FORMULAS["two terms"], data, weights="w")
    beta, b = fit.fe_params, fit.random_effects
    by_hand = beta["Intercept"] + beta["x"] * data.x + data.x * b["a"].loc[data.a, "x"].to_numpy()
    for name in ("(0 + x | a)", "(0+x|a)", "a.1"):
        np.testing.assert_allclose(fit.predict(data, random_effects=[name]), by_hand, rtol=1e-12)
    both = by_hand + b["a"].loc[data.a, "Intercept"].to_numpy()
    np.testing.assert_allclose(fit.predict(data.drop(columns="b"), random_effects="a"), both, rtol=1e-12)
    mean = fit.predict(data, random_effects="a", interval="confidence")
    new = fit.predict(data, random_effects="a", interval="prediction")
    expected = fit.scale / data.w + fit.cov_re["b"].iloc[0, 0]
    np.testing.assert_allclose(new["se"] ** 2 - mean["se"] ** 2, expected, rtol=1e-9)


def test_intervals_cover_as_often_as_they_say() -> None:
    """Fresh data from known parameters: intervals for the means and for new responses."""
    rng = np.random.default_rng(3)
    grid = pd.DataFrame({"a": np.repeat(np.arange(30), 12), "b": np.tile(np.arange(12), 30)})
    inside = {"confidence": [], "prediction": []}
    for _ in range(20):
        effects = rng.standard_normal(30)[grid.a] + 0.5 * rng.standard_normal(12)[grid.b]
        data = grid.assign(y=3.0 + effects + 2.0 * rng.standard_normal(len(grid)))
        fit = clm.lmer("y ~ 1 + (1 | a) + (1 | b)", data)
        again = 3.0 + effects + 2.0 * rng.standard_normal(len(grid))
        for kind, truth in (("confidence", 3.0 + effects), ("prediction", again)):
            found = fit.predict(interval=kind, level=0.8)
            inside[kind].append(((found.lower < truth) & (truth < found.upper)).mean())
    assert abs(np.mean(inside["prediction"]) - 0.8) < 0.02
    assert abs(np.mean(inside["confidence"]) - 0.8) < 0.04


# --- new levels ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sleep():
    return clm.lmer("Reaction ~ Days + (Days | Subject)", clm.datasets.load_sleepstudy())


def test_new_levels_by_policy(sleep) -> None:
    new = pd.DataFrame({"Days": [3.0, 3.0, 3.0, 5.0], "Subject": ["308", "x", "y", "x"]}, index=list("pqrs"))
    with pytest.raises(clm.DataError, match=r"'Subject' has levels that .*: 'x', 'y'\. Pass new_levels"):
        sleep.predict(new)
    flat = sleep.predict(new, new_levels="population")
    np.testing.assert_allclose(flat.iloc[1:3], sleep.fe_params @ [1.0, 3.0])
    drawn = sleep.predict(new, new_levels="sample", rng=7)
    pd.testing.assert_series_equal(drawn, sleep.predict(new, new_levels="sample", rng=7))
    assert drawn["p"] == flat["p"] and drawn["q"] != flat["q"] and drawn["q"] != drawn["r"]
    pairs = pd.DataFrame(
        {"Days": np.tile([3.0, 5.0], 5000), "Subject": np.repeat([f"new {i}" for i in range(5000)], 2)}
    )
    mean = sleep.predict(pairs, random_effects=False)
    many = (sleep.predict(pairs, new_levels="sample", rng=1) - mean).to_numpy().reshape(-1, 2)
    Z = np.array([[1.0, 3.0], [1.0, 5.0]])  # the rows of one new level share one draw
    expected = Z @ sleep.cov_re["Subject"].to_numpy() @ Z.T
    np.testing.assert_allclose(np.cov(many.T), expected, rtol=0.08)


def test_a_new_level_counts_in_the_prediction_interval(sleep) -> None:
    new = pd.DataFrame({"Days": [3.0], "Subject": ["x"]})
    mean = sleep.predict(new, new_levels="population", interval="confidence")["se"].iloc[0] ** 2
    whole = sleep.predict(new, new_levels="population", interval="prediction")["se"].iloc[0] ** 2
    x = np.array([1.0, 3.0])
    assert mean == pytest.approx(x @ sleep.cov_params() @ x, rel=1e-10)
    assert whole - mean == pytest.approx(sleep.scale + x @ sleep.cov_re["Subject"] @ x, rel=1e-10)


def test_new_combinations_of_known_levels_are_new() -> None:
    fit = clm.lmer(
        "score ~ Machine + (1 | Worker/Machine)",
        clm.datasets.load_machines().query("not (Worker == '1' and Machine == 'A')"),
    )
    new = {"Machine": ["A", "B"], "Worker": ["1", "1"]}
    with pytest.raises(clm.DataError, match=r"'Machine:Worker' has levels .*: 'A:1'"):
        fit.predict(new)
    ours = fit.predict(new, new_levels="population")
    by_hand = fit.fe_params["Intercept"] + fit.random_effects["Worker"].loc["1", "Intercept"]
    assert ours.iloc[0] == pytest.approx(by_hand, rel=1e-12)


# --- rows ----------------------------------------------------------------------------------------


def test_missing_values_give_missing_predictions(sleep) -> None:
    new = pd.DataFrame({"Days": [1.0, np.nan, 3.0, 4.0], "Subject": ["308", "309", None, "310"]}, index=[5, 3, 9, 1])
    found = sleep.predict(new)
    assert list(found.index) == [5, 3, 9, 1]
    assert list(found.isna()) == [False, True, True, False]
    assert list(sleep.predict(new, random_effects=False).isna()) == [False, True, False, False]
    frame = sleep.predict(new, interval="prediction")
    assert frame.loc[3].isna().all() and frame.loc[1].notna().all()
    np.testing.assert_array_equal(frame["fit"].dropna(), found.dropna())
    assert sleep.predict(new.iloc[1:3]).isna().all()


def test_empty_frames(sleep) -> None:
    new = pd.DataFrame({"Days": np.zeros(0), "Subject": np.zeros(0, dtype=object)})
    assert len(sleep.predict(new)) == 0
    assert list(sleep.predict(new, interval="prediction").columns) == ["fit", "se", "lower", "upper"]


def test_any_table_without_the_response() -> None:
    polars, pyarrow = pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    data = clm.datasets.load_sleepstudy()
    fit = clm.lmer("Reaction ~ Days + (Days | Subject)", data)
    plain = {"Days": data["Days"].tolist(), "Subject": data["Subject"].astype(str).tolist()}
    for table in (plain, polars.DataFrame(plain), pyarrow.table(plain), pd.DataFrame(plain)):
        np.testing.assert_allclose(fit.predict(table), fit.fittedvalues, rtol=1e-12)


def test_grouping_columns_of_unused_terms_need_not_be_there(sleep) -> None:
    assert sleep.predict({"Days": [0.0]}, random_effects=False).iloc[0] == sleep.fe_params["Intercept"]
    with pytest.raises(clm.DataError, match="no column 'Subject'"):
        sleep.predict({"Days": [0.0]})


def test_transformations_and_categories_are_those_of_the_fit() -> None:
    data = clm.datasets.load_sleepstudy()
    data["kind"] = np.where(data["Days"] % 3 == 0, "low", np.where(data["Days"] % 3 == 1, "mid", "top"))
    fit = clm.lmer("Reaction ~ bs(Days, df=4) + C(kind, contr.sum) + (scale(Days) | Subject)", data)
    few = data.iloc[[7]].drop(columns="Reaction")
    assert fit.predict(few).iloc[0] == pytest.approx(fit.fittedvalues.iloc[7], rel=1e-12)
    turned = few.assign(kind=pd.Categorical(few["kind"], categories=["top", "mid", "low", "more"]))
    assert fit.predict(turned).iloc[0] == fit.predict(few).iloc[0]
    with pytest.raises(
        clm.DataError, match=r"'C\(kind, contr.sum\)' has categories .*: 'new' \(it knows 'low', 'mid', 'top'\)"
    ):
        fit.predict(few.assign(kind="new"))


def test_pieces_that_depend_on_other_rows_have_no_meaning_for_new_ones() -> None:
    data = clm.datasets.load_sleepstudy().assign(Days=lambda d: d["Days"].astype(float))
    good = clm.lmer("Reaction ~ center(Days) + np.log(Days + 1) + (1 | Subject)", data, context={"np": np})
    bad = clm.lmer("Reaction ~ I(Days - Days.mean()) + (1 | Subject)", data)
    assert good.predict(data.iloc[[4]]).iloc[0] == pytest.approx(good.fittedvalues.iloc[4], rel=1e-12)
    for rows in (data, data.iloc[:2], data.iloc[[4]]):
        good.predict(rows)
        with pytest.raises(clm.DataError, match=r"'I\(Days - Days.mean\(\)\)' says something else of a row"):
            bad.predict(rows)
    np.testing.assert_allclose(
        bad.predict(random_effects=False).iloc[:3], bad.fe_params @ [[1, 1, 1], [-4.5, -3.5, -2.5]]
    )


def test_learned_splines_serve_batches() -> None:
    data = clm.datasets.load_sleepstudy()
    fit = clm.lmer("Reaction ~ poly(Days, 2) + (1 | Subject)", data)
    np.testing.assert_allclose(fit.predict([data.iloc[:33], data.iloc[33:]]), fit.fittedvalues, rtol=1e-12)


def test_context_and_columns_beside_the_formula() -> None:
    data = clm.datasets.load_sleepstudy().assign(known=lambda d: 3.0 * d["Days"], w=lambda d: 1.0 + d["Days"])
    half = lambda x: x / 2  # noqa: E731
    fit = clm.lmer("Reaction ~ half(Days) + (1 | Subject)", data, offset="known", weights="w", context={"half": half})
    np.testing.assert_allclose(fit.predict(data), fit.fittedvalues, rtol=1e-12)
    np.testing.assert_allclose(fit.predict(data, offset=np.zeros(180)), fit.fittedvalues - data["known"], rtol=1e-10)
    variance = lambda **more: fit.predict(data, interval="prediction", **more)["se"] ** 2  # noqa: E731
    mean = fit.predict(data, interval="confidence")["se"] ** 2
    np.testing.assert_allclose(variance() - mean, fit.scale / data["w"], rtol=1e-9)
    np.testing.assert_allclose(variance(weights=np.full(180, 4.0)) - mean, fit.scale / 4.0, rtol=1e-9)
    array = clm.lmer("Reaction ~ Days + (1 | Subject)", data, offset=data["known"].to_numpy())
    with pytest.raises(clm.DataError, match="offset that is no column of the data: pass offset="):
        array.predict(data)


# --- sources -------------------------------------------------------------------------------------


def test_sources_are_predicted_batch_by_batch(sleep, tmp_path) -> None:
    pytest.importorskip("pyarrow")
    data = clm.datasets.load_sleepstudy().drop(columns="Reaction")
    data["Subject"] = data["Subject"].astype(str)
    whole = sleep.predict(data, interval="prediction")
    tables = [data.iloc[:50], data.iloc[50:51], data.iloc[51:]]
    parts = list(sleep.predict_batches(tables, interval="prediction"))
    assert [len(part) for part in parts] == [50, 1, 129]
    np.testing.assert_allclose(pd.concat(parts), whole, rtol=1e-10)
    data.to_parquet(tmp_path / "new.parquet")
    np.testing.assert_allclose(sleep.predict(tmp_path / "new.parquet"), whole["fit"], rtol=1e-12)
    sleep.write_predictions(tmp_path / "out.parquet", tables)
    np.testing.assert_allclose(pd.read_parquet(tmp_path / "out.parquet")["fit"], whole["fit"], rtol=1e-12)
    changed = [table.assign(Subject=table["Subject"].replace("308", "zz")) for table in tables]
    drawn = pd.concat(list(sleep.predict_batches(changed, new_levels="sample", rng=2)))
    np.testing.assert_allclose(drawn, sleep.predict(pd.concat(changed), new_levels="sample", rng=2), rtol=1e-12)
    with pytest.raises(clm.DataError, match="batch 0: 'Subject' has levels"):
        list(sleep.predict_batches(changed))


def test_streamed_models_predict() -> None:
    data = clm.datasets.load_sleepstudy()
    data["kind"] = np.where(data["Days"] > 4, "late", "early")
    formula = "Reaction ~ scale(Days) + kind + (Days | Subject)"
    local, streamed = clm.lmer(formula, data), clm.lmer(formula, [data.iloc[:100], data.iloc[100:]])
    for options in ({}, {"random_effects": False}, {"interval": "confidence"}, {"interval": "prediction"}):
        np.testing.assert_allclose(streamed.predict(data, **options), local.predict(data, **options), rtol=1e-6)
    np.testing.assert_allclose(streamed.predict(interval="confidence"), local.predict(interval="confidence"), rtol=1e-6)


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"random_effects": "Sub"},
            r"no random-effects term is called 'Sub'; there are 'Subject', '\(1 \+ Days",
        ),
        ({"random_effects": 3}, "random_effects=3: expected True, False, a name or a list"),
        ({"new_levels": "zero"}, "new_levels='zero': expected one of 'error', 'population', 'sample'"),
        ({"interval": "conf"}, "interval='conf': expected None or one of"),
        ({"interval": "confidence", "level": 95}, "level=95: expected a number between 0 and 1"),
        ({"rng": -1}, "rng=-1: expected a whole number"),
    ],
)
def test_arguments_are_checked(sleep, options, message) -> None:
    with pytest.raises(clm.ModelError, match=message):
        sleep.predict({"Days": [1.0], "Subject": ["308"]}, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Days": ["one"]}, "'Days' was a number when the model was fitted, and here it holds 'one'"),
        ({"Days": [np.inf]}, "not finite numbers: 'Days'"),
        (
            {"Subject": [308]},
            r"'Subject' has levels .*: 308\. They are int here and str in the fit",
        ),
    ],
)
def test_columns_of_another_type_are_refused(sleep, change, message) -> None:
    new = pd.DataFrame({"Days": [1.0], "Subject": ["308"]} | change)
    before = sleep.predict({"Days": [2.0], "Subject": ["308"]}).iloc[0]
    with pytest.raises(clm.DataError, match=message):
        sleep.predict(new)
    assert sleep.predict({"Days": [2.0], "Subject": ["308"]}).iloc[0] == before  # the fit learns nothing from it


def test_rows_of_the_model_have_their_own_offset(sleep) -> None:
    with pytest.raises(clm.ModelError, match="their own offset and weights"):
        sleep.predict(offset=np.zeros(180))


def test_a_model_of_crossproducts_does_not_know_the_encoding() -> None:
    data = clm.datasets.load_sleepstudy()
    fit = clm.MixedLM.from_crossproducts(clm.accumulate("Reaction ~ Days + (1 | Subject)", data)).fit()
    with pytest.raises(clm.ModelError, match="made from cross-products"):
        fit.predict(data)


@pytest.mark.slow
def test_a_million_rows_are_predicted_in_seconds() -> None:
    import time

    data = clm.datasets.load_insteval()
    fit = clm.lmer("y ~ service + (1 | s) + (1 | d) + (1 | dept)", data)
    new = pd.concat([data] * 14, ignore_index=True)
    began = time.perf_counter()
    found = fit.predict(new)
    assert time.perf_counter() - began < 10.0
    np.testing.assert_allclose(found.iloc[: len(data)], fit.fittedvalues, rtol=1e-12)
