"""The replication page runs, and its tables are the published ones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from numpy.testing import assert_allclose

pytest.importorskip("statsmodels")

PAGE = Path(__file__).resolve().parents[1] / "docs" / "classroom.md"

# E. Duchesnay, Statistics and Machine Learning in Python (pystatsml), chapter on linear mixed models.
PUBLISHED = {
    "LM-Global (biased)": (2.694785, 0.232842, 2.139165, 0.036643),
    "ANCOVA-Inter (biased)": (0.932351, 0.130717, 3.441072, 0.001102),
    "Aggregation": (0.587859, 6.073401, 7.497672, 0.084411),
    "Hierarchical": (0.061318, 0.120808, 3.412469, 0.076190),
    "LMM-Inter": (0.916211, 0.131193, 3.453472, 0.000553),
    "ANCOVA-Full (biased)": (0.935869, 0.129084, 1.978708, 0.052959),
    "LMM-Full (biased)": (0.911742, 0.127270, 2.757142, 0.005831),
}
OBSERVED = {"LMM-Inter": "intercept", "LMM-Full (biased)": "slope"}


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(code, names)  # the code of the page, as a reader would run it
    return names


def test_table(page):
    table = page["table"].set_index("Model")
    assert list(table.index) == list(PUBLISHED)
    for name, (rmse, coefficient, statistic, pvalue) in PUBLISHED.items():
        row = table.loc[name]
        assert_allclose(row[["RMSE", "Coef"]].astype(float), [rmse, coefficient], atol=2e-6)
        if name not in OBSERVED:
            assert_allclose(row[["Stat", "Pval"]].astype(float), [statistic, pvalue], atol=2e-6)
    assert table.loc["LMM-Inter", "Pval"] == pytest.approx(PUBLISHED["LMM-Inter"][3], abs=2e-6)


def test_published_statistics_by_the_observed_information(page):
    assert_allclose(page["published"], [PUBLISHED[name][2] for name in OBSERVED], atol=3e-4)


def test_what_the_page_prints(page):
    text = PAGE.read_text(encoding="utf-8")
    assert page["table"].to_string() in text
    assert page["slope"].summary().as_text() in text
    assert f"{page['slope'].ranova()['p_value'].iloc[-1]:.2f}" in text
