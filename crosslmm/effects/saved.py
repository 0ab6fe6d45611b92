"""The rows of a fit that was read from a file: how new rows become columns, and no rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.design.rows import Predicted, Progress, Rows
from crosslmm.effects.encoding import Encoding
from crosslmm.errors import ModelError
from crosslmm.layout import Layout


@dataclass(frozen=True)
class SavedRows:
    """What is left of the rows of a model in a file.

    Attributes
    ----------
    layout : Layout
    encoding : Encoding
    n, n_dropped : int
    """

    layout: Layout
    encoding: Encoding
    n: int
    n_dropped: int

    @property
    def streamed(self) -> bool:
        """Yes, in so far as no rows are at hand."""
        return True

    def reads(self, path: Path) -> bool:
        """Nothing is read."""
        return False

    def crossproducts(self) -> CrossProducts:
        """There are none."""
        raise _no_data("the equations of the model")

    def predictions(
        self, beta: FloatArray, modes: Sequence[FloatArray], progress: Progress | None = None
    ) -> Iterator[Predicted]:
        """There are none."""
        raise _no_data("fitted values and residuals")

    def batches(self, progress: Progress | None = None) -> Iterator[tuple[pd.Index, Rows]]:
        """There are none."""
        raise _no_data("the rows of the model")


def _no_data(what: str) -> ModelError:
    return ModelError(
        f"this fit was read from its numbers alone, which hold no data: {what} cannot be had from it. Its "
        "estimates, its "
        "random effects and predictions can; fit the model again for the rest"
    )
