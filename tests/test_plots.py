"""Pictures: what a person would notice. Which numbers are drawn, how many, under which names."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from standard import CASES, frame

import crosslmm as clm
from crosslmm.errors import ModelError
from crosslmm.plots import curves, groups, panels, rows
from crosslmm.plots.axes import MANY_POINTS
from crosslmm.plots.smooth import smooth

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def sleepstudy():
    return clm.lmer("Reaction ~ Days + (Days | Subject)", clm.datasets.load_sleepstudy())


@pytest.fixture(scope="module")
def insteval():
    return clm.lmer("y ~ service + (1 | s) + (1 | d)", clm.datasets.load_insteval())


CALLS = {
    "residuals": lambda plot, ax: plot.residuals(ax=ax),
    "studentized": lambda plot, ax: plot.residuals("studentized", ax=ax),
    "scale_location": lambda plot, ax: plot.scale_location(ax=ax),
    "qq": lambda plot, ax: plot.qq(ax=ax),
    "qq of modes": lambda plot, ax: plot.qq("Subject", "Days", ax=ax),
    "caterpillar": lambda plot, ax: plot.caterpillar("Subject", "Days", ax=ax),
    "fitted": lambda plot, ax: plot.fitted(x="Days", by="Subject", ax=ax),
    "shrinkage": lambda plot, ax: plot.shrinkage("Subject", ax=ax),
    "trace": lambda plot, ax: plot.trace(ax=ax),
}


@pytest.mark.parametrize("name", list(CALLS))
def test_every_picture_draws_on_the_axes_it_is_given(sleepstudy, name):
    figure, ax = plt.subplots()
    assert CALLS[name](sleepstudy.plot, ax) is ax
    assert (ax.get_xlabel() and ax.get_ylabel()) or name == "caterpillar"
    assert ax.get_title()
    figure.canvas.draw()
    own = CALLS[name](sleepstudy.plot, None)
    assert own is not ax and own.figure is not figure


def points(ax):
    """Coordinates of all drawn as markers, lines without markers left out."""
    found = [line.get_xydata() for line in ax.lines if line.get_marker() not in ("None", "", None)]
    return np.vstack(found)


def test_residuals_are_the_fits(sleepstudy):
    drawn = points(sleepstudy.plot.residuals())
    expected = np.column_stack([sleepstudy.fittedvalues, sleepstudy.resid / sleepstudy.sigma])
    np.testing.assert_allclose(drawn, expected)


def test_many_rows_are_drawn_as_density(insteval):
    ax = insteval.plot.residuals()
    assert len(insteval.resid) > MANY_POINTS
    counts = ax.collections[0].get_array()
    assert counts.sum() == insteval.nobs
    assert len(points(insteval.plot.qq())) <= rows.MOST_QUANTILES


def test_caterpillar_names_levels_in_order(sleepstudy):
    ax = sleepstudy.plot.caterpillar("Subject", "Days")
    labels = [text.get_text() for text in ax.get_yticklabels()]
    modes = sleepstudy.random_effects["Subject"]["Days"]
    assert labels == list(modes.sort_values(kind="stable").index)
    drawn = points(ax)
    np.testing.assert_allclose(np.sort(drawn[:, 0]), np.sort(modes))


def test_caterpillar_of_thousands_shows_both_ends(insteval):
    ax = insteval.plot.caterpillar("s")
    modes = insteval.random_effects["s"]["Intercept"].sort_values(kind="stable")
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert labels == [str(level) for level in [*modes.index[:20], *modes.index[-20:]]]
    assert "20 smallest and 20 largest of 2,972" in ax.get_title()
    assert any("2,932 between" in text.get_text() for text in ax.texts)
    assert len(insteval.plot.caterpillar("s", most=10).get_yticklabels()) == 10


def test_caterpillar_intervals_are_the_conditional_ones(sleepstudy):
    table = sleepstudy.tidy("ran_vals", conf_int=True)
    days = table[table["term"] == "Days"]
    ax = sleepstudy.plot.caterpillar("Subject", "Days")
    ends = np.vstack([segment[:, 0] for part in ax.collections for segment in part.get_segments()])
    expected = days[["conf.low", "conf.high"]].to_numpy()
    np.testing.assert_allclose(ends[np.argsort(ends[:, 0])], expected[np.argsort(expected[:, 0])])


def test_fitted_lines_go_through_the_fitted_values(sleepstudy):
    ax = sleepstudy.plot.fitted(x="Days", by="Subject")
    fitted = sleepstudy.fittedvalues.to_numpy().reshape(18, 10)
    drawn = {tuple(np.round(line.get_ydata(), 6)) for line in ax.lines if len(line.get_xdata()) == 2}
    for subject in fitted:
        assert tuple(np.round(subject[[0, 9]], 6)) in drawn
    whole = sleepstudy.fe_params.to_numpy() @ [[1, 1], [0, 9]]
    assert tuple(np.round(whole, 6)) in drawn
    assert len(drawn) == 19


def test_fitted_lines_hold_other_covariates_at_their_means():
    fit = clm.lmer("lang ~ IQ * COMB + SES + (IQ | class)", clm.datasets.load_nlschools())
    ax = fit.plot.fitted(x="IQ", by="class", most=7)
    X, beta = fit.model.design.X, fit.fe_params
    at = dict(zip(beta.index, X.mean(axis=0), strict=True))
    population = ax.lines[-1]
    combined = next(name for name in beta.index if name.startswith("COMB"))
    slope = beta["IQ"] + beta[f"IQ:{combined}"] * at[combined]
    level = beta["Intercept"] + beta[combined] * at[combined] + beta["SES"] * at["SES"]
    np.testing.assert_allclose(population.get_ydata(), level + slope * population.get_xdata())
    assert "7 of 133 levels of class" in {text.get_text() for text in ax.get_legend().get_texts()}


def test_shrinkage_starts_from_the_least_squares_of_each_level(sleepstudy):
    from crosslmm.diagnosis.alone import effects_alone

    data = clm.datasets.load_sleepstudy()
    alone = effects_alone(sleepstudy, 0)
    for level, (label, own) in enumerate(data.groupby("Subject", observed=True)):
        slope, intercept = np.polyfit(own["Days"], own["Reaction"], 1)
        assert sleepstudy.random_effects["Subject"].index[level] == label
        np.testing.assert_allclose(alone[level] + sleepstudy.fe_params, [intercept, slope], rtol=1e-8)


def test_least_squares_of_levels_with_weights_and_unequal_rows():
    from crosslmm.diagnosis.alone import effects_alone

    fit = clm.lmer(CASES["weights and offset"].formula, frame(), weights="w", offset="o")
    rows = fit.model.design
    target = rows.y - rows.offset - rows.X @ fit.estimates.beta
    alone = effects_alone(fit, 0)
    for level in (0, 31, 59):
        own = rows.codes[0] == level
        root = np.sqrt(rows.weights[own])
        expected = np.linalg.lstsq(rows.Z[0][own] * root[:, None], target[own] * root, rcond=None)[0]
        np.testing.assert_allclose(alone[level], expected, rtol=1e-8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda plot: plot.caterpillar("subject"), "'subject' is no grouping factor of this model; it has 'Subject'"),
        (lambda plot: plot.caterpillar("Subject", "days"), "random effects of Subject are 'Intercept', 'Days'"),
        (lambda plot: plot.caterpillar("Subject", most=1), "at least 2"),
        (lambda plot: plot.caterpillar("Subject", level=95), "between 0 and 1"),
        (lambda plot: plot.fitted(x="Time", by="Subject"), "no column of the fixed part, which has 'Days'"),
        (lambda plot: plot.residuals("working"), "expected one of"),
        (lambda plot: plot.residuals(ax="here"), "expected matplotlib axes"),
    ],
)
def test_what_cannot_be_drawn(sleepstudy, call, message):
    with pytest.raises(ModelError, match=message):
        call(sleepstudy.plot)


def test_curves_are_no_lines():
    fit = clm.lmer("Reaction ~ Days + I(Days ** 2) + (1 | Subject)", clm.datasets.load_sleepstudy())
    with pytest.raises(ModelError, match="also enters as"):
        fit.plot.fitted(x="Days", by="Subject")


def test_without_matplotlib_the_message_says_what_to_install():
    code = """
import sys
sys.modules["matplotlib"] = sys.modules["matplotlib.pyplot"] = None
import crosslmm as clm
fit = clm.lmer("Reaction ~ Days + (1 | Subject)", clm.datasets.load_sleepstudy())
try:
    fit.plot.residuals()
except clm.errors.ModelError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'crosslmm[plot]'" in run.stdout


# --- drawing functions ---------------------------------------------------------------------------


def test_smooth_lines_follow_straight_lines_and_find_bends():
    rng = np.random.default_rng(1)
    x = rng.uniform(0, 10, size=500)
    at, line = smooth(x, 3.0 + 2.0 * x)
    np.testing.assert_allclose(line, 3.0 + 2.0 * at, rtol=1e-9)
    at, bend = smooth(x, (x - 5.0) ** 2)
    assert bend[0] > bend.min() + 5.0 and abs(at[bend.argmin()] - 5.0) < 1.0
    assert smooth(np.array([0.0, 1.0] * 50), rng.normal(size=100))[0].size == 0


def test_profile_density_of_a_straight_zeta_is_normal():
    values = np.linspace(-3, 3, 13)
    ax = curves.profile_density(2.0 + 0.5 * values, values, name="x")
    at, density = ax.lines[0].get_data()
    expected = np.exp(-0.5 * ((at - 2.0) / 0.5) ** 2) / (0.5 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(density, expected, atol=2e-2 * expected.max())


def test_profile_zeta_marks_the_interval():
    values = np.linspace(-3, 3, 13)
    ax = curves.profile_zeta(2.0 + 0.5 * values, values, name="x")
    steps = {round(float(line.get_xdata()[0]), 3) for line in ax.lines if len(line.get_xdata()) == 2}
    assert {round(2.0 - 0.5 * 1.959964, 3), round(2.0 + 0.5 * 1.959964, 3)} <= steps
    assert ax.get_xlabel() == "x"


def test_sample_density_has_mass_one_and_leaves_nan_out():
    sample = np.append(np.random.default_rng(2).normal(size=400), np.nan)
    ax = curves.sample_density(sample, name="sd", estimate=0.0)
    at, density = ax.lines[0].get_data()
    assert np.trapezoid(density, at) == pytest.approx(1.0, abs=0.02)
    curves.sample_density(np.zeros(50), name="sd")  # all on the boundary


def test_panels_of_profiles_and_samples():
    values = np.linspace(-3, 3, 9)
    profiles = [(name, values, values) for name in ("sd_a", "sd_b", "sigma", "x")]
    axes = panels.profile_panels(profiles)
    assert [ax.get_xlabel() for ax in axes] == ["sd_a", "sd_b", "sigma", "x"]
    assert len(axes[0].figure.axes) == 4
    assert panels.profile_panels(profiles[:1], "density", ax=axes[3])[0] is axes[3]
    own = panels.sample_panels([("sd_a", np.random.default_rng(3).normal(size=99), 0.5)])
    assert own[0].get_xlabel() == "sd_a" and 0.5 in {line.get_xdata()[0] for line in own[0].lines}
    with pytest.raises(ModelError, match="ax= is one axes, and there are 4 parameters"):
        panels.profile_panels(profiles, ax=axes[0])
    with pytest.raises(ModelError, match="expected one of 'zeta', 'density'"):
        panels.profile_panels(profiles, "beta")
    with pytest.raises(ModelError, match="no parameter"):
        panels.sample_panels([])


def test_ends_keep_order():
    modes = np.array([3.0, -1.0, 2.0, 0.0, 5.0, -4.0])
    assert list(groups.ends(modes, 4)) == [5, 1, 0, 4]
    assert list(groups.ends(modes, 6)) == [5, 1, 3, 2, 0, 4]


def test_quantile_ranks_keep_both_ends():
    ranks = rows._thinned(1_000_000)
    assert len(ranks) <= rows.MOST_QUANTILES
    assert set(range(rows.WHOLE_ENDS)) <= set(ranks) and 999_999 in ranks
    assert (np.diff(ranks) > 0).all()


@pytest.mark.slow
def test_the_page_draws_its_pictures(tmp_path):
    docs = Path(__file__).resolve().parents[1] / "docs"
    draw = runpy.run_path(str(docs / "draw.py"))["draw"]
    saved = draw(docs / "diagnose.md", tmp_path)
    kept = sorted((docs / "pictures").glob("*.png"))
    assert len(saved) == 5
    assert {path.name for path in saved} <= {path.name for path in kept}
    for path in saved:
        assert plt.imread(path).std() > 0.05  # not blank


def test_profiles_and_bootstraps_draw_themselves():
    fit = clm.lmer("Reaction ~ Days + (Days | Subject)", clm.datasets.load_sleepstudy())
    profile = fit.profile()
    axes = profile.plot()
    assert [ax.get_title() or ax.get_xlabel() for ax in axes] and len(axes) == len(profile.conf_int())
    one = profile.plot("density", ["sigma"])
    assert len(one) == 1 and profile.plot(which=["sigma"], ax=one[0])[0] is one[0]
    with pytest.raises(clm.ModelError, match="has no profile here"):
        profile.plot(which=["tau"])
    boot = fit.bootstrap(60, rng=1)
    assert len(boot.plot()) == len(boot.summary()) and len(boot.plot("fixed")) == 2
