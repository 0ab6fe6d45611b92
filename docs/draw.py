"""Run the Python blocks of pages and save the pictures that they show.

    python docs/draw.py docs/diagnose.md

A line ``![...](pictures/name.png)`` saves what the block before it left in ``ax``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

DPI = 70
BLOCK = re.compile(r"^```python\n(.*?)^```$|^!\[[^\]]*\]\((pictures/[\w-]+\.png)\)$", re.MULTILINE | re.DOTALL)


def draw(page: Path, folder: Path) -> list[Path]:
    """Run the blocks of a page in order, save its pictures below `folder`, and return their paths."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names: dict[str, Any] = {}
    saved = []
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        code, picture = block.groups()
        if code is not None:
            plt.close("all")
            exec(compile(code, str(page), "exec"), names)
            continue
        path = folder / picture
        path.parent.mkdir(parents=True, exist_ok=True)
        figure = getattr(names["ax"], "figure", None) or names["ax"].ravel()[0].figure
        figure.savefig(path, dpi=DPI)
        saved.append(path)
    return saved


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        for path in draw(Path(argument), Path(argument).parent):
            print(path)
