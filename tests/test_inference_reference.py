"""Degrees of freedom, t, F and p of lmerTest and pbkrtest for every reference model.

What the library promises: degrees of freedom within 1e-3 relative, statistics and p-values within 1e-4. lmerTest's own
degrees of freedom are differenced numerically and good to 6 to 8 digits. Not to be loosened.
"""

import numpy as np
import pytest
from refdata import load_model, model_names, r_columns, unordered

DEGREES, VALUES = 1e-3, 1e-4


def having(*keys):
    """Names of the models that hold some reference."""

    def found(ref, path):
        for key in path:
            ref = ref.get(key) if isinstance(ref, dict) else None
        return bool(ref)

    return pytest.mark.parametrize("name", [name for name in model_names() if found(load_model(name), keys)])


def close(ours, theirs, key):
    """p-values absolutely and on the log scale, where tiny ones say something; all else relatively."""
    ours, theirs = np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)
    if key != "p":
        np.testing.assert_allclose(ours, theirs, rtol=DEGREES if key in ("df", "den_df") else VALUES)
        return
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=VALUES)
    positive = theirs > 1e-300
    np.testing.assert_allclose(np.log(ours[positive]), np.log(theirs[positive]), rtol=VALUES, atol=VALUES)


def check_coefficients(fit, reference, ddf):
    table = fit.coef_table(ddf=ddf)
    theirs = {unordered(name): row for name, row in reference.items()}
    rows = [theirs[name] for name in r_columns(table.index).values()]
    close(table["std_error"], [row["se"] for row in rows], "se")
    close(table["df"], [row["df"] for row in rows], "df")
    np.testing.assert_allclose(table["statistic"], [row["t"] for row in rows], rtol=VALUES, atol=VALUES)
    close(table["p_value"], [row["p"] for row in rows], "p")


@having("satterthwaite", "coef")
def test_satterthwaite(name, reference_fit):
    check_coefficients(reference_fit(name), load_model(name)["satterthwaite"]["coef"], "satterthwaite")


@having("kenward_roger", "coef")
def test_kenward_roger(name, reference_fit):
    check_coefficients(reference_fit(name), load_model(name)["kenward_roger"]["coef"], "kenward-roger")


@having("kenward_roger", "vcov_adjusted")
def test_adjusted_covariance(name, reference_fit):
    ref, fit = load_model(name), reference_fit(name)
    names = [unordered(column) for column in ref["fixef"]]
    order = [names.index(column) for column in r_columns(fit.fe_params.index).values()]
    theirs = np.array(ref["kenward_roger"]["vcov_adjusted"])[np.ix_(order, order)]
    size = np.sqrt(np.outer(np.diag(theirs), np.diag(theirs)))
    np.testing.assert_allclose(fit._kenward_roger.covariance / size, theirs / size, rtol=0, atol=2 * VALUES)


def check_anova(table, reference):
    place = {unordered(term): term for term in table.index}
    assert set(place) == {unordered(row["term"]) for row in reference}
    for row in reference:
        ours = table.loc[place[unordered(row["term"])]]
        assert ours["num_df"] == row["num_df"]
        for key in ("sum_sq", "mean_sq", "den_df"):
            close(ours[key], row[key], key)
        close(ours["f_value"], row["F"], "F")
        close(ours["p_value"], row["p"], "p") if row["p"] else None


@pytest.mark.parametrize("type", ["I", "II", "III"])
@having("anova_satterthwaite", "III")
def test_anova(name, type, reference_fit):
    check_anova(reference_fit(name).anova(type=type), load_model(name)["anova_satterthwaite"][type])


@having("kenward_roger", "anova_III")
def test_anova_by_kenward_roger(name, reference_fit):
    check_anova(reference_fit(name).anova(ddf="kenward-roger"), load_model(name)["kenward_roger"]["anova_III"])


@having("lsmeans")
def test_marginal_means(name, reference_fit):
    fit, rows = reference_fit(name), load_model(name)["lsmeans"]
    for term in dict.fromkeys(row["term"] for row in rows):
        factors = term.split(":")
        frame = fit.emmeans(factors).to_frame()
        labels = [":".join(map(str, row)) for row in frame[factors].itertuples(index=False)]
        theirs = {row["level"]: row for row in rows if row["term"] == term}
        assert sorted(labels) == sorted(theirs)
        own = [theirs[label] for label in labels]
        close(frame["df"], [row["df"] for row in own], "df")
        for ours, key in (("estimate", "estimate"), ("std_error", "se"), ("statistic", "t"), ("lower", "lower")):
            close(frame[ours], [row[key] for row in own], key)
        close(frame["upper"], [row["upper"] for row in own], "upper")
        close(frame["p_value"], [row["p"] for row in own], "p")
