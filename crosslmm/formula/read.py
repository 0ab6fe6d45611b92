"""One reading of each formulaic text: a model looks at the same few texts a dozen times, at 0.2 ms each."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from formulaic import Formula

TEXTS_KEPT = 256


@lru_cache(maxsize=TEXTS_KEPT)
def read(text: str) -> Any:
    """The formulaic formula that `text` states; shared, so never to be changed."""
    return Formula(text)
