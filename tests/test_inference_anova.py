"""Anova tables beyond the reference models: codings, empty cells, rows in batches, refusals."""

import numpy as np
import pandas as pd
import pytest

import crosslmm as clm

COLUMNS = ["sum_sq", "mean_sq", "num_df", "den_df", "f_value", "p_value"]


@pytest.fixture(scope="module")
def unbalanced():
    """Two crossed factors with unequal cells, a number, and random effects."""
    rng = np.random.default_rng(5)
    n = 160
    data = pd.DataFrame({"a": rng.choice(list("uvw"), n, p=[0.5, 0.3, 0.2]), "b": rng.choice(list("st"), n)})
    data["x"], data["g"] = rng.uniform(1, 3, n), rng.permutation(np.arange(n) % 16)
    data["y"] = data["x"] + 0.3 * (data["a"] == "v") + 0.5 * rng.normal(size=16)[data["g"]] + rng.normal(size=n)
    return data


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
def test_type_3_does_not_depend_on_the_coding(unbalanced, ddf):
    treatment = clm.lmer("y ~ a * b + a * x + (1 | g)", unbalanced).anova(ddf=ddf)
    coded = "y ~ C(a, contr.sum) * C(b, contr.helmert) + C(a, contr.sum) * x + (1 | g)"
    other = clm.lmer(coded, unbalanced).anova(type="III", ddf=ddf)
    np.testing.assert_allclose(other[COLUMNS], treatment[COLUMNS], rtol=1e-6)


def test_type_3_of_main_effects_is_of_unweighted_means(unbalanced):
    """The hypothesis of a term without covariates is that the means of its levels, each over all cells, are equal."""
    fit = clm.lmer("y ~ a * b + (1 | g)", unbalanced)
    means = fit.emmeans("a").functions.estimable()
    test = fit.test(means[1:] - means[0])
    table = fit.anova(ddf="normal")
    assert table.loc["a", "f_value"] == pytest.approx(test.f_value, rel=1e-9)


def test_type_1_and_2_against_sequences_of_columns(unbalanced):
    """Hypotheses by projection: a term's columns, cleaned of those before it, are orthogonal to the rest of X."""
    fit = clm.lmer("y ~ a * b + x + (1 | g)", unbalanced)
    X, names = fit.model.design.X, list(fit.fe_params.index)

    def sequential(before, own):
        """F test that the part of the fit along `own`, after `before`, is 0."""
        Q = np.linalg.qr(X[:, before + own])[0][:, len(before) :]
        return fit.test(Q.T @ X)

    columns = {
        "a": [i for i, n in enumerate(names) if n.startswith("a[") and ":" not in n],
        "b": [i for i, n in enumerate(names) if n.startswith("b[")],
        "x": [names.index("x")],
        "a:b": [i for i, n in enumerate(names) if ":" in n],
    }
    before = [0]
    first = fit.anova(type=1, ddf="normal")
    for term in first.index:
        expected = sequential(before, columns[term])
        assert first.loc[term, "f_value"] == pytest.approx(expected.f_value, rel=1e-8)
        before += columns[term]
    second = fit.anova(type=2, ddf="normal")
    for term, others in {"a": ["b", "x"], "b": ["a", "x"]}.items():
        expected = sequential([0, *(i for other in others for i in columns[other])], columns[term])
        assert second.loc[term, "f_value"] == pytest.approx(expected.f_value, rel=1e-8)


def test_empty_cells(unbalanced):
    """One interaction fewer; what is left of each hypothesis is estimable."""
    data = unbalanced[~((unbalanced["a"] == "v") & (unbalanced["b"] == "t"))]
    with pytest.warns(clm.RankDeficiencyWarning):
        fit = clm.lmer("y ~ a * b + (1 | g)", data)
    for type in (1, 2, 3):
        table = fit.anova(type=type)
        assert table["num_df"].to_dict() == {"a": 2, "b": 1, "a:b": 1}
    interaction = fit.anova(type=3).loc["a:b"]
    own = fit.test("a[T.w]:b[T.t]", ddf="satterthwaite")
    assert interaction["f_value"] == pytest.approx(own.f_value, rel=1e-9)


def test_rows_in_batches_and_in_memory(unbalanced):
    batches = [unbalanced.iloc[i : i + 40] for i in range(0, 160, 40)]
    formula = "y ~ a * b + np.log(x) + (1 | g)"
    memory, streamed = clm.lmer(formula, unbalanced), clm.lmer(formula, batches)
    for type in (1, 2, 3):
        np.testing.assert_allclose(streamed.anova(type=type), memory.anova(type=type), rtol=1e-6)
    for options in ({"weights": "proportional"}, {"at": {"x": 1.5}}):
        np.testing.assert_allclose(
            streamed.emmeans("a", **options).to_frame().iloc[:, 1:],
            memory.emmeans("a", **options).to_frame().iloc[:, 1:],
            rtol=1e-5,
        )


def test_refusals(unbalanced):
    fit = clm.lmer("y ~ a + (1 | g)", unbalanced)
    with pytest.raises(clm.ModelError, match="expected 1, 2 or 3"):
        fit.anova(type=4)
    with pytest.raises(clm.ModelError, match="expected one of 'normal'"):
        fit.anova(ddf="exact")
    rowless = clm.MixedLM.from_crossproducts(clm.accumulate("y ~ a + (1 | g)", unbalanced)).fit()
    with pytest.raises(clm.ModelError, match="made from cross-products only"):
        rowless.anova()
    assert rowless.test("a", ddf="kenward-roger").den_df == pytest.approx(fit.test("a", ddf="kenward-roger").den_df)
    assert clm.lmer("y ~ 1 + (1 | g)", unbalanced).anova().empty


def test_terms_without_hypothesis_are_named(unbalanced):
    data = unbalanced.assign(twice=2 * unbalanced["x"])
    with pytest.warns(clm.RankDeficiencyWarning):
        fit = clm.lmer("y ~ x + twice + a + (1 | g)", data)
    for type in (1, 2, 3):
        with pytest.warns(clm.RankDeficiencyWarning, match="no hypothesis on 'twice'"):
            table = fit.anova(type=type)
        assert table["num_df"].to_dict() == {"x": 1, "twice": 0, "a": 2}
        assert table.loc["twice"].isna().sum() == 5 and table.drop("twice").notna().all().all()


@pytest.mark.parametrize("type", [4, "iii", None, True, [1], 2.5])
def test_other_types_are_refused(unbalanced, type):
    with pytest.raises(clm.ModelError, match="expected 1, 2 or 3"):
        clm.lmer("y ~ a + (1 | g)", unbalanced).anova(type=type)
