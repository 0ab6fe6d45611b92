"""Hypotheses in all their forms: read, refused, and tested."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import crosslmm as clm


@pytest.fixture(scope="module")
def cake():
    return clm.lmer("angle ~ recipe * temp + (1 | replicate)", clm.datasets.load_cake())


@pytest.fixture(scope="module")
def deficient():
    data = clm.datasets.load_cake().assign(twice=lambda d: 2 * d["temp"] + 1)
    with pytest.warns(clm.RankDeficiencyWarning):
        return clm.lmer("angle ~ temp + twice + recipe + (1 | replicate)", data)


def test_forms_agree(cake):
    names = list(cake.fe_params.index)
    row = np.zeros(len(names))
    row[names.index("recipe[T.B]")], row[names.index("recipe[T.C]")] = 2, -1
    forms = [
        "2 * recipe[T.B] = recipe[T.C] + 3",
        "-(recipe[T.C] - recipe[T.B] * 4 / 2) - 3 = 0",
        "2*recipe[T.B]-recipe[T.C]=3e0",
        "2*recipe[T.B] == recipe[T.C] + 3",
    ]
    results = [cake.test(form, ddf="satterthwaite") for form in forms]
    weights = {"recipe[T.B]": 2, "recipe[T.C]": -1}
    results += [cake.test(form, value=3, ddf="satterthwaite") for form in (weights, row, [row], [weights])]
    results.append(cake.test(pd.Series(weights), value=3, ddf="satterthwaite"))
    results.append(cake.test(pd.DataFrame([weights], index=["mine"]), value=3, ddf="satterthwaite"))
    for result in results:
        assert result.f_value == pytest.approx(results[0].f_value, rel=1e-12)
        assert result.den_df == pytest.approx(results[0].den_df, rel=1e-12)
    assert results[-1].rows.index[0] == "mine"
    assert results[0].statistic ** 2 == pytest.approx(results[0].f_value, rel=1e-12)


def test_names_are_read_whole():
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"x": rng.normal(size=80), "x1": rng.normal(size=80) + 9, "g": np.arange(80) % 8})
    data["z"] = rng.normal(size=80)
    data["y"] = data["x"] + rng.normal(size=80)
    fit = clm.lmer("y ~ x * x1 + np.log(x1) + poly(z, 2) + (1 | g)", data)
    for name in fit.fe_params.index:
        result = fit.test(f"{name} = 0")
        assert result.matrix.loc[result.matrix.index[0]].to_dict() == {
            other: float(other == name) for other in fit.fe_params.index
        }
    both = fit.test("x = x1, np.log(x1) = x:x1")
    assert both.num_df == 2
    assert both.matrix.iloc[1].to_dict()["x:x1"] == -1.0
    for text in ("poly(z, 2)", "poly(z, 2) = 0", "poly(z, 2) == 0"):
        assert fit.test(text).num_df == 2  # a term stands for its coefficients
    assert fit.test(pd.Series({name: 1.0 * i for i, name in enumerate(fit.fe_params.index[::-1])})).matrix.iloc[
        0
    ].to_dict() == {name: 1.0 * i for i, name in enumerate(fit.fe_params.index[::-1])}


def test_normal_and_residual(cake):
    beta, cov = cake.fe_params.to_numpy(), cake.cov_params().to_numpy()
    L = np.eye(len(beta))[1:3]
    wald = L @ beta @ np.linalg.solve(L @ cov @ L.T, L @ beta)
    normal, residual = cake.test(L), cake.test(L, ddf="residual")
    assert normal.p_value == pytest.approx(stats.chi2.sf(wald, 2), rel=1e-10)
    assert residual.p_value == pytest.approx(stats.f.sf(wald / 2, 2, cake.df_resid), rel=1e-10)
    assert (normal.den_df, residual.den_df) == (np.inf, cake.df_resid)
    table = cake.coef_table()
    np.testing.assert_allclose(table["p_value"], cake.pvalues)
    np.testing.assert_allclose(table[["lower", "upper"]], cake.conf_int())
    t = stats.t(cake.df_resid)
    table = cake.coef_table(ddf="residual", level=0.9)
    np.testing.assert_allclose(table["p_value"], 2 * t.sf(np.abs(cake.tvalues)))
    np.testing.assert_allclose(table["upper"] - table["estimate"], t.ppf(0.95) * cake.bse_fe)


@pytest.mark.parametrize("ddf", ["normal", "residual", "satterthwaite", "kenward-roger"])
def test_dependent_rows_are_reduced_and_said(cake, ddf):
    two = cake.test(["recipe[T.B] = 1", "recipe[T.C] = 2"], ddf=ddf)
    three = cake.test(["recipe[T.B] = 1", "recipe[T.C] = 2", "recipe[T.B] + recipe[T.C] = 3"], ddf=ddf)
    assert three.num_df == two.num_df == 2
    assert three.f_value == pytest.approx(two.f_value, rel=1e-9)
    assert "Of 3 rows 2 are independent" in three.notes[0]
    assert len(three.rows) == 3
    with pytest.raises(clm.ModelError, match="contradict"):
        cake.test(["recipe[T.B] = 1", "recipe[T.C] = 2", "recipe[T.B] + recipe[T.C] = 4"], ddf=ddf)


@pytest.mark.parametrize(
    "hypothesis, message",
    [
        ("recipes = 0", "'recipes' is no coefficient"),
        ("recipe[T.B] === 0", "a coefficient or a number is missing"),
        ("recipe[T.B] < 0", "tested against both sides"),
        ("recipe[T.B] >= 0", "tested against both sides"),
        ("recipe[T.B] = 1e400", "too large"),
        (None, "not None"),
        (pd.Series({"q": 1.0}), "'q' is no coefficient"),
        (pd.Series([1.0, 2.0]), "one column per fixed effect"),
        ("recipe[T.B] * recipe[T.C] = 1", "not linear"),
        ("recipe[T.B] / temp = 1", "numbers other than 0"),
        ("recipe[T.B] / 0 = 1", "numbers other than 0"),
        ("2 = 1", "no coefficient"),
        ("temp = temp", "no coefficient"),
        ("recipe[T.B] recipe[T.C]", "an operator"),
        ("temp = 1 = 2", "one equation has one"),
        ("(temp = 1", "closing bracket"),
        ("temp = ", "is missing here"),
        ("temp,", "is missing here"),
        ("", "is missing here"),
        (np.ones(3), "one column per fixed effect, 6 here"),
        (np.zeros(6), "no coefficient other than 0"),
        (np.full(6, np.nan), "not finite"),
        (np.ones((1, 1, 6)), "shape"),
        ({"q": 1.0}, "'q' is no coefficient"),
        ({"temp": "a"}, "the weight of 'temp' must be a number"),
        (pd.DataFrame({"q": [1.0]}), "'q' is no coefficient"),
        (pd.DataFrame({"temp": []}), "no rows"),
        ([], "one column per fixed effect"),
        (7, "one column per fixed effect"),
        (object(), "a text, a dict of weights"),
    ],
)
def test_what_cannot_be_read(cake, hypothesis, message):
    with pytest.raises(clm.ModelError, match=message):
        cake.test(hypothesis)


def test_other_refusals(cake):
    with pytest.raises(clm.ModelError, match="'satterthwaite'"):
        cake.test("temp", ddf="kr")
    with pytest.raises(clm.ModelError, match="value must be a number"):
        cake.test("temp", value="a")
    with pytest.raises(clm.ModelError, match="value must be one number or one for each of the 1 rows"):
        cake.test("temp", value=[1, 2])
    with pytest.raises(clm.ModelError, match="between 0 and 1"):
        cake.coef_table(level=95)
    with pytest.raises(clm.ModelError, match="'expected'"):
        cake.parameter_cov("fisher")
    by_ml = cake.model.fit(reml=False)
    for refused in (lambda: by_ml.test("temp", ddf="kenward-roger"), lambda: by_ml.anova(ddf="kenward-roger")):
        with pytest.raises(clm.ModelError, match="Kenward-Roger's method is for fits by REML"):
            refused()
    assert by_ml.test("temp", ddf="satterthwaite").den_df > 200


def test_estimability(deficient):
    """``twice = 2 temp + 1``: only what weighs the three columns alike can be told."""
    with pytest.raises(clm.ModelError, match="'twice' was dropped"):
        deficient.test("twice = 0")
    with pytest.raises(clm.ModelError, match="cannot be estimated"):
        deficient.test("temp + twice = 0")
    slope, both = deficient.test("temp = 0"), deficient.test("temp + 2 * twice = 0")
    assert both.rows["estimate"].iloc[0] == pytest.approx(slope.rows["estimate"].iloc[0], rel=1e-9)
    assert deficient.test("Intercept + twice = 0").rows["estimate"].iloc[0] == deficient.fe_params["Intercept"]


def test_results_print_and_travel(cake):
    import pickle

    result = pickle.loads(pickle.dumps(cake.test("temp", ddf="satterthwaite")))
    assert "F = " in repr(result)
    assert list(result.to_frame().columns) == ["num_df", "den_df", "f_value", "p_value"]
    text = str(cake.summary(ddf="satterthwaite"))
    assert "P>|t|" in text
    assert "Degrees of freedom: satterthwaite" in text
    assert "P>|z|" in str(cake.summary())
    pickle.loads(pickle.dumps(cake)).coef_table(ddf="kenward-roger")


@pytest.mark.parametrize("ddf", ["normal", "residual", "satterthwaite", "kenward-roger"])
@pytest.mark.parametrize("engine", ["direct", "iterative"])
def test_fits_without_fixed_effects(ddf, engine):
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"a": rng.integers(0, 80, 600), "b": rng.integers(0, 70, 600)})
    data["y"] = rng.normal(size=600) + rng.normal(size=80)[data["a"]] + rng.normal(size=70)[data["b"]]
    fit = clm.lmer("y ~ 0 + (1 | a) + (1 | b)", data, engine=engine)
    assert fit.coef_table(ddf=ddf).empty and fit.anova(ddf=ddf).empty
    assert "Fixed effects: none" in str(fit.summary(ddf=ddf))
    with pytest.raises(clm.ModelError, match="no fixed effects"):
        fit.test("x", ddf=ddf)
    for information in ("observed", "expected", "average"):
        assert fit.varcorr_table(information)["vcov_se"].notna().all()
    assert "no coefficients" in repr(fit.step(alpha_random=0.0).fit)
