"""Long work says what it does: bars on a terminal, records of a logger, a callable of the user's, nothing otherwise."""

import io
import logging
import sys

import numpy as np
import pandas as pd
import pytest

import crosslmm as clm
from crosslmm import progress

FORMULA = "y ~ x + (1 | g) + (1 | h)"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def data():
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"g": rng.integers(0, 30, 900), "h": rng.integers(0, 20, 900), "x": rng.normal(size=900)})
    frame["y"] = rng.normal(size=30)[frame["g"]] + rng.normal(size=20)[frame["h"]] + rng.normal(size=900)
    return frame


@pytest.fixture
def terminal(monkeypatch):
    """A function that makes standard error a terminal, where bars show at once.

    It is called in the test: pytest sets standard error anew after the fixtures.
    """

    def install(delay=-1.0):
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(progress, "DELAY", delay)
        return stream

    return install


def test_bars_on_a_terminal(data, terminal):
    stream = terminal()
    clm.lmer(FORMULA, [data[:500], data[500:]], engine=clm.IterativeEngine(border=0))
    shown = stream.getvalue()
    assert "fitting" in shown and "conjugate gradient steps" in shown and "criterion" in shown
    assert shown.count("rows") >= 2, "both passes over the rows"


def test_short_work_shows_nothing(data, terminal):
    stream = terminal(delay=60.0)
    clm.lmer(FORMULA, [data])
    assert stream.getvalue() == ""


@pytest.mark.parametrize("switch", [False, lambda phase, done, total: None])
def test_no_bars_when_switched_off(data, terminal, switch):
    stream = terminal()
    clm.lmer(FORMULA, [data], progress=switch)
    assert stream.getvalue() == ""


def test_no_bars_without_a_terminal(data, capsys, monkeypatch):
    monkeypatch.setattr(progress, "DELAY", -1.0)
    clm.lmer(FORMULA, [data])
    assert capsys.readouterr() == ("", "")


def test_bars_on_demand(data, capsys, monkeypatch):
    monkeypatch.setattr(progress, "DELAY", -1.0)
    clm.lmer(FORMULA, [data], progress=True)
    assert "fitting" in capsys.readouterr().err


def test_bars_on_demand_without_tqdm(data, monkeypatch):
    monkeypatch.setattr(progress, "_has_tqdm", lambda: False)
    with pytest.raises(clm.ModelError, match="pip install tqdm"):
        clm.lmer(FORMULA, data, progress=True)
    clm.lmer(FORMULA, data)


@pytest.mark.parametrize("bad", ["yes", 3, []])
def test_what_is_no_progress(data, bad):
    with pytest.raises(clm.ModelError, match="expected None, True, False or a callable"):
        clm.lmer(FORMULA, data, progress=bad)


def test_log_records(data, caplog):
    with caplog.at_level(logging.INFO, logger="crosslmm"):
        fit = clm.lmer(FORMULA, [data])
    text = caplog.text
    assert f"plan: {fit.estimates.plan.engine} engine" in text
    assert sum("fitting: " in record.message for record in caplog.records) == len(fit.optimization)
    assert sum("900 rows" in record.message for record in caplog.records) == 2


def test_nothing_is_logged_by_default(data, caplog):
    clm.lmer(FORMULA, [data])
    assert not [record for record in caplog.records if record.name == "crosslmm"]


def test_a_callable_is_told_the_rows(data):
    told = []
    clm.accumulate(FORMULA, [data[:400], data[400:]], progress=lambda *news: told.append(news))
    phases = list(dict.fromkeys(phase for phase, _, _ in told))
    assert len(phases) == 2
    for phase in phases:
        done = [rows for name, rows, _ in told if name == phase]
        assert done == sorted(done) and done[-1] == 900


def test_an_interrupt_closes_the_bar(data, terminal):
    def frames():
        yield data
        raise KeyboardInterrupt

    stream = terminal()
    with pytest.raises(KeyboardInterrupt):
        clm.lmer(FORMULA, frames)
    assert stream.getvalue().endswith("\r"), "the bar is wiped out"
    assert clm.lmer(FORMULA, [data]).converged
