"""A model that is given as cross-products only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.design.rows import Predicted, Progress, Rows
from crosslmm.errors import ModelError
from crosslmm.layout import Layout

NO_ROWS = (
    "this model was made from cross-products and has no rows: fitted values and residuals need the data; make the "
    "model with MixedLM.from_formula(formula, source)"
)


@dataclass(frozen=True)
class WithoutRows:
    """Cross-products, and no rows.

    Attributes
    ----------
    xp : CrossProducts
    """

    xp: CrossProducts

    @property
    def layout(self) -> Layout:
        """What every column means."""
        return self.xp.layout

    @property
    def n(self) -> int:
        """Rows that were summed."""
        return self.xp.n

    @property
    def n_dropped(self) -> int:
        """Rows left out because of a missing value."""
        return self.xp.n_dropped

    @property
    def streamed(self) -> bool:
        """Yes, in so far as no rows are at hand."""
        return True

    def reads(self, path: Path) -> bool:
        """Whether a file is one of those that the rows come from."""
        return False

    def crossproducts(self) -> CrossProducts:
        """The cross-products."""
        return self.xp

    def predictions(
        self, beta: FloatArray, modes: Sequence[FloatArray], progress: Progress | None = None
    ) -> Iterator[Predicted]:
        """There are none."""
        raise ModelError(NO_ROWS)

    def batches(self, progress: Progress | None = None) -> Iterator[tuple[pd.Index, Rows]]:
        """There are none."""
        raise ModelError(NO_ROWS)
