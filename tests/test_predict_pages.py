"""The pages on predictions and simulations run, and draw their pictures."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.mark.slow
@pytest.mark.parametrize(("page", "pictures"), [("predict", 1), ("simulate", 2)])
def test_pages_run_and_draw(page, pictures, tmp_path) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    pytest.importorskip("sklearn")
    saved = runpy.run_path(str(DOCS / "draw.py"))["draw"](DOCS / f"{page}.md", tmp_path)
    assert len(saved) == pictures
    for path in saved:
        assert (DOCS / "pictures" / path.name).exists()
        assert plt.imread(path).std() > 0.05  # not blank
