"""Fits as text and as pickles."""

from __future__ import annotations

import datetime
import json
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from test_conditional import crossed_data

import crosslmm as clm
from crosslmm import version
from crosslmm.effects import saving
from crosslmm.effects.codec import pack, unpack


def rich_data() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    data = crossed_data()
    data["text"] = rng.choice(["u", "v", "w"], 180)
    data["code"] = rng.integers(1, 5, 180)
    data["my col"] = rng.standard_normal(180)
    data["date"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 9, 180), "D")
    data["flag"] = rng.integers(0, 2, 180).astype(bool)
    data["off"] = rng.standard_normal(180)
    return data


FORMULAS = [
    "y ~ x + (x | a) + (1 | b)",
    "y ~ scale(x) + text + (1 | a)",
    "y ~ 0 + text + `my col` + (0 + scale(x) | a) + (1 | a:b)",
    "y ~ C(code, contr.sum) * text + (1 + x || a)",
    "y ~ bs(x, df=4) + C(code, contr.helmert) + flag + (1 | date)",
    "y ~ poly(x, 2) + C(text, contr.treatment(base='v')) + (1 | b/c)",
    "np.log(y + 100) ~ np.exp(x / 100) + text:x + (text | c)",
]


STREAMED = [formula for formula in FORMULAS if "bs(" not in formula and "poly(" not in formula]  # these need all rows


@pytest.mark.parametrize(
    ("formula", "streamed"), [*((formula, False) for formula in FORMULAS), *((formula, True) for formula in STREAMED)]
)
def test_a_fit_from_text_predicts_the_same_numbers(formula, streamed) -> None:
    data = rich_data()
    source = [data.iloc[:100], data.iloc[100:]] if streamed else data
    fit = clm.lmer(formula, source, weights="w", offset="off", context={"np": np})
    text = json.dumps(fit.to_dict(), allow_nan=False)
    again = clm.load_fit(text, context={"np": np})
    new = data.drop(columns="y").sample(40, random_state=1)
    np.testing.assert_array_equal(again.predict(new), fit.predict(new))
    for interval in ("confidence", "prediction"):
        options = {"random_effects": False, "interval": interval}
        np.testing.assert_array_equal(again.predict(new, **options), fit.predict(new, **options))
    for name in ("fe_params", "theta", "varcorr", "bse_fe"):
        assert getattr(again, name).equals(getattr(fit, name)), name
    for name, frame in fit.random_effects.items():
        pd.testing.assert_frame_equal(again.random_effects[name], frame)
    assert (again.llf, again.aic, again.nobs, again.method) == (fit.llf, fit.aic, fit.nobs, fit.method)
    assert again.formula == fit.formula and "Linear mixed model" in str(again.summary())
    assert again.simulate(2, rng=1, data=new).equals(fit.simulate(2, rng=1, data=new))


def test_a_fit_from_a_file(tmp_path) -> None:
    fit = clm.lmer(FORMULAS[0], rich_data())
    path = tmp_path / "fit.json"
    path.write_text(json.dumps(fit.to_dict()), encoding="utf-8")
    for source in (path, str(path), fit.to_dict(), path.read_text()):
        assert clm.load_fit(source).criterion == fit.criterion


def test_another_process_predicts_from_text(tmp_path) -> None:
    fit = clm.lmer(FORMULAS[1], rich_data())
    path = tmp_path / "fit.json"
    path.write_text(json.dumps(fit.to_dict()), encoding="utf-8")
    new = {"x": [40.0], "text": ["v"], "a": [3]}
    code = f"import crosslmm; print(float(crosslmm.load_fit({str(path)!r}).predict({new}).iloc[0]).hex())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float.fromhex(run.stdout.strip()) == fit.predict(new).iloc[0]


def test_a_singular_fit_and_one_of_the_iterative_engine() -> None:
    singular = clm.lmer("Yield ~ 1 + (1 | Batch)", clm.datasets.load_dyestuff2())
    assert clm.load_fit(json.dumps(singular.to_dict())).singular
    fit = clm.mixedlm(FORMULAS[0], rich_data()).fit(engine=clm.IterativeEngine(n_probes=8, border=0))
    again = clm.load_fit(json.dumps(fit.to_dict()))
    assert again.estimates.plan.engine == "iterative"
    np.testing.assert_array_equal(again.predict(rich_data()), fit.predict(rich_data()))


def test_what_needs_the_data_is_refused() -> None:
    again = clm.load_fit(clm.lmer(FORMULAS[0], rich_data()).to_dict())
    for use in (
        lambda: again.fittedvalues,
        lambda: again.predict(),
        lambda: again.simulate(),
        lambda: again.ranef(cov=True),
        lambda: again.predict(rich_data(), interval="confidence"),
        lambda: again.model.fit(),
    ):
        with pytest.raises(clm.ModelError, match="read from its numbers alone"):
            use()
    with pytest.raises(clm.ModelError, match="pass data="):
        again.update("~ . - x")
    with pytest.raises(clm.ModelError, match="rows of the model in memory"):
        again.refit(np.zeros(180))


def test_damage_is_named(tmp_path) -> None:
    saved = clm.lmer(FORMULAS[0], rich_data()).to_dict()
    for bad, message in (
        ({}, "this is no fit"),
        ("{", "this is no JSON text"),
        (3, "a fit comes as a dict, JSON text or a path, not int"),
        (saved | {"format": 99}, r"this fit has format 99, written by crosslmm .* reads format 1"),
        ({key: value for key, value in saved.items() if key != "terms"}, "this fit is damaged: KeyError: 'terms'"),
        (saved | {"modes": [{"@strange": 1}]}, "'@strange' is unknown"),
    ):
        with pytest.raises(clm.ModelError, match=message):
            clm.load_fit(bad)
    with pytest.raises(clm.DataError, match="cannot be read"):
        clm.load_fit(tmp_path / "nothing.json")


def test_context_is_asked_for() -> None:
    fit = clm.lmer("y ~ half(x) + (1 | a)", rich_data(), context={"half": lambda x: x / 2})
    with pytest.raises(
        clm.ModelError, match=r"the formula uses half, which text cannot hold: pass load_fit\(..., context"
    ):
        clm.load_fit(fit.to_dict())
    again = clm.load_fit(fit.to_dict(), context={"half": lambda x: x / 2})
    np.testing.assert_array_equal(again.predict(rich_data()), fit.predict(rich_data()))


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, None, True, "text"], "b": (1, (2,))},
        {1: "one", (2, 3): "two"},
        float("inf"),
        np.arange(6.0).reshape(2, 3),
        pd.Timestamp("2024-02-03 04:05:06"),
        datetime.date(2024, 2, 3),
    ],
)
def test_values_come_back(value) -> None:
    back = unpack(json.loads(json.dumps(pack(value), allow_nan=False)))
    if isinstance(value, np.ndarray):
        np.testing.assert_array_equal(back, value)
        assert back.dtype == value.dtype
    else:
        assert back == value and type(back) is type(value)


def test_values_of_unknown_kinds_are_refused() -> None:
    with pytest.raises(clm.ModelError, match=r"object .* cannot be written as text; pickle the fit instead"):
        pack({"state": object()})


# --- pickles -------------------------------------------------------------------------------------


def test_pickles_keep_the_numbers_and_leave_caches_and_data_behind() -> None:
    data = rich_data()
    fit = clm.lmer("y ~ half(x) + (x | a) + (1 | b)", data, weights="w", context={"half": lambda x: x / 2})
    small = len(pickle.dumps(fit))
    fit.predict(data, interval="confidence")
    fit.ranef_frame()
    assert len(pickle.dumps(fit)) < 1.1 * small  # factors hold memory of C libraries
    again = pickle.loads(pickle.dumps(fit))
    assert again.model.design.given.data is None
    np.testing.assert_array_equal(again.fittedvalues, fit.fittedvalues)
    plain = clm.lmer(FORMULAS[1], data, weights="w", offset="off")
    again = pickle.loads(pickle.dumps(plain))
    np.testing.assert_array_equal(
        again.predict(data, interval="prediction"), plain.predict(data, interval="prediction")
    )
    np.testing.assert_array_equal(again.refit(2.0 * data["y"]).theta, plain.refit(2.0 * data["y"]).theta)


@pytest.mark.parametrize("what", ["fit", "model"])
def test_pickles_of_another_version_are_refused(what, monkeypatch) -> None:
    fit = clm.lmer(FORMULAS[0], rich_data())
    dumped = pickle.dumps(fit if what == "fit" else fit.model)
    kind = "MixedLMResults" if what == "fit" else "MixedLM"
    monkeypatch.setattr(version, "VERSION", "9.9.9")
    with pytest.raises(
        clm.ModelError, match=rf"this {kind} was pickled by crosslmm {clm.__version__}, and this is crosslmm 9"
    ):
        pickle.loads(dumped)


def test_the_version_is_looked_at_before_the_contents() -> None:
    """What another version called differently must not be met first."""
    fit = clm.lmer(FORMULAS[0], rich_data())
    old = (
        pickle.dumps(fit, protocol=2)
        .replace(b"crosslmm.layout", b"crosslmm.gone__")
        .replace(clm.__version__.encode(), b"0.0.1")
    )
    with pytest.raises(clm.ModelError, match=r"pickled by crosslmm 0\.0\.1"):
        pickle.loads(old)


def test_every_number_of_a_fit_is_written() -> None:
    """A new field of a fit or a plan must be thought of here."""
    from dataclasses import fields

    from crosslmm.engine.plan import Plan
    from crosslmm.fit import Fit

    assert {f.name for f in fields(Fit)} == {*saving.NUMBERS, "layout", "plan", "modes", "iterations", "sampling"}
    assert {f.name for f in fields(Plan)} == {*saving._plan_fields(), "options"}
