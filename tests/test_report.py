from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

import crosslmm as clm
from crosslmm.report import numbers
from crosslmm.report.text import WIDTH


def lines_of(fit):
    return [line.rstrip() for line in str(fit).splitlines()]


@pytest.fixture(scope="module")
def sleep():
    return clm.datasets.load_sleepstudy()


@pytest.fixture(scope="module")
def correlated(sleep):
    return clm.lmer("Reaction ~ Days + (Days | Subject)", sleep)


def test_sleepstudy_report(correlated):
    lines = lines_of(correlated)
    # numbers as printed by lme4's summary(); see also tests/reference
    for line in [
        "Linear mixed model fit by REML",
        "Formula   Reaction ~ Days + (Days | Subject)",
        "Rows      180 used",
        "Levels    Subject 18",
        "  REML criterion  log-lik.       AIC       BIC",
        "        1743.628  -871.814  1755.628  1774.786",
        "  -3.954  -0.463   0.023  0.463  5.179",
        "  Groups    Name       Variance  Std.Dev.   Corr",
        "  Subject   Intercept   612.09    24.740",
        "            Days         35.072    5.9221  0.066",
        "  Residual              654.94    25.592",
        "             estimate  std. error      z   P>|z|     2.5%    97.5%",
        "  Intercept   251.405       6.825  36.84  <0.001  238.029  264.781",
        "  Days         10.467       1.546   6.77  <0.001    7.438   13.497",
    ]:
        assert line in lines
    assert "Singular" not in str(correlated)
    assert str(correlated) == repr(correlated) == str(correlated.summary())


def test_independent_terms_have_rows_of_their_own_and_no_correlation(sleep):
    lines = lines_of(clm.lmer("Reaction ~ Days + (Days || Subject)", sleep, reml=False))
    assert "Linear mixed model fit by maximum likelihood (ML)" in lines
    assert "  Groups     Name       Variance  Std.Dev." in lines
    assert "  Subject.1  Days         33.633    5.7994" in lines


def test_zero_standard_deviation_is_stated():
    text = str(clm.lmer("Yield ~ 1 + (1 | Batch)", clm.datasets.load_dyestuff2()))
    assert "Singular fit: the standard deviation of Intercept for Batch is estimated as 0.\n" in text
    assert "  Batch     Intercept     0        0" in text


def test_perfect_correlation_is_stated():
    rng = np.random.default_rng(1)
    group, x = rng.integers(0, 20, 400), rng.normal(size=400)
    y = 1 + rng.normal(size=20)[group] * (1 - x) + rng.normal(size=400)
    fit = clm.lmer("y ~ x + (x | g)", pd.DataFrame({"y": y, "x": x, "g": group}))
    assert fit.singular
    assert "Singular fit: the correlation of Intercept and x for g is estimated as -1.\n" in str(fit)
    assert "-1.000" in str(fit)


def test_dropped_columns_and_rows_weights_and_offset_are_stated(sleep):
    data = sleep.assign(hours=24.0 * sleep["Days"], off=1.0, w=2.0)
    data.loc[[3, 7], "Reaction"] = np.nan
    with pytest.warns(clm.RankDeficiencyWarning):
        fit = clm.lmer("Reaction ~ Days + hours + (1 | Subject)", data, weights="w", offset="off")
    text = " ".join(str(fit).split())
    assert "Rows 178 used, 2 dropped because of missing values; prior weights" in text
    assert "; offset Levels" in text
    assert (
        "Dropped from the fixed effects, as linear combinations of earlier columns (or factors of one level): hours."
        in text
    )


def test_a_search_cut_short_is_stated_first(sleep):
    model = clm.MixedLM.from_formula("Reaction ~ Days + (Days | Subject)", sleep)
    with pytest.warns(clm.ConvergenceWarning):
        text = str(model.fit(max_evaluations=2))
    assert "not converged, 2 evaluations" in text
    assert text.index("NOT CONVERGED") < text.index("Fixed effects")


def test_no_fixed_effects(sleep):
    assert str(clm.lmer("Reaction ~ 0 + (Days | Subject)", sleep)).endswith("Fixed effects: none")


class Texts(HTMLParser):
    """Texts of the cells and captions of an HTML report; checks that every tag is closed in turn."""

    def __init__(self):
        super().__init__()
        self.open, self.texts = [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_html_says_what_the_text_says(correlated):
    parser = Texts()
    parser.feed(correlated._repr_html_())
    assert parser.open == []
    said = " ".join(" ".join(parser.texts).split())
    words = " ".join(str(correlated).split())
    assert sorted(said.split()) == sorted(words.split())


def test_html_escapes_names(sleep):
    late = pd.Categorical(np.where(sleep["Days"] > 4, "<i>", "&"))
    data = sleep.rename(columns={"Subject": "a<b"}).assign(late=late)
    html = clm.lmer("Reaction ~ late + (1 | `a<b`)", data)._repr_html_()
    assert "a&lt;b" in html and "a<b" not in html
    assert "<i>" not in html and "&lt;i&gt;" in html


def test_width():
    rng = np.random.default_rng(8)
    name = "a_name_of_a_covariate_that_is_so_long_that_the_table_would_become_too_wide_to_read"
    data = pd.DataFrame({f"x{j}": rng.normal(size=900) for j in range(8)})
    data = data.assign(y=rng.normal(size=900), g=np.arange(900) % 60, **{name: data["x0"] ** 2})
    effects = rng.normal(size=(60, 8))
    data["y"] += np.einsum("ij,ij->i", effects[data["g"]], data.iloc[:, :8])
    columns = " + ".join(f"x{j}" for j in range(8))
    lines = lines_of(clm.lmer(f"y ~ {columns} + {name} + (0 + {columns} | g)", data))
    assert max(map(len, lines)) <= WIDTH
    assert f"  {name}" in lines
    assert "  Further correlations are in fit.varcorr." in lines


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (-0.0, "0"), (123456.7, "123457"), (1e12, "1e+12"), (1.2346e-7, "1.235e-07"), (np.nan, "nan")],
)
def test_significant(value, text):
    assert numbers.significant(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.0004, "<0.001"), (0.0501, "0.050"), (1.0, "1.000"), (np.nan, "nan")])
def test_probability(value, text):
    assert numbers.probability(value) == text


def test_estimates_show_the_digits_of_their_errors():
    assert numbers.like_error(251.40510484848, 6.8245970) == "251.405"
    assert numbers.like_error(-1e-12, 1.0) == "0.000"
    assert numbers.like_error(2.0, 0.0) == "2.0000"


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (1.7e9 + 1.234567, 17.55, "1700000001.23"),
        (-1.7e9, 17.55, "-1700000000.00"),
        (1e12 + 123456.0, 3e5, "1000000123456"),
        (1e12, 0.05, "1000000000000"),
        (1e17 + 123456789.0, 3e8, "1.000000001235e+17"),
        (1.2345678e-9, 2e-12, "1.234568e-09"),
        (2e-12, 2e-12, "2e-12"),
        (0.0, 2e-12, "0"),
        (3e5, 3e5, "300000"),
    ],
)
def test_digits_of_estimates_far_larger_than_their_errors(value, error, text):
    assert numbers.like_error(value, error) == text


def test_a_response_far_from_zero_keeps_its_digits_in_the_report(sleep):
    data = sleep.assign(Reaction=sleep["Reaction"] + 1.7e9)
    assert "  Intercept  1700000251.405       6.825" in str(clm.lmer("Reaction ~ Days + (1 + Days | Subject)", data))


def test_criteria_keep_their_decimals():
    assert numbers.with_decimals(1234567890.1234, 3) == "1234567890.123"
