"""A design whose rows stay where they are: two passes over a source, and more when rows are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.design.build import check_options
from crosslmm.design.rows import Predicted, Progress, Rows, predicted
from crosslmm.errors import DataError
from crosslmm.formula import MixedFormula
from crosslmm.layout import Layout
from crosslmm.sources.evaluate import evaluate
from crosslmm.sources.finish import finish
from crosslmm.sources.learn import Learn, add_learned, needs_of
from crosslmm.sources.protocol import LEARNING, PREDICTING, SUMMING, Source
from crosslmm.sources.rowwise import check_functions
from crosslmm.sources.schema import Schema, make_schema
from crosslmm.sources.sums import Sum, add_sums

MOST_ROWS = 2**20
"""Rows of one batch at most; larger ones are cut."""

BATCH_BYTES = 2**28
"""Memory that the columns of a batch may take, roughly."""


CHANGED = "that the model was made from; its rows must be the same each time: make the model again"
"""What to do about a source that is no longer what it was."""


@dataclass(frozen=True)
class Streamed:
    """The rows of a source, summed; they are read again when they are needed.

    Attributes
    ----------
    schema : Schema
    source : Source
    kept : ndarray of intp
        Positions of the fixed-effects columns that are kept.
    xp : CrossProducts
    """

    schema: Schema
    source: Source
    kept: NDArray[np.intp]
    xp: CrossProducts

    @property
    def streamed(self) -> bool:
        """Yes: the rows are read again for predictions."""
        return True

    @property
    def layout(self) -> Layout:
        """What every column means."""
        return self.xp.layout

    @property
    def n(self) -> int:
        """Rows used."""
        return self.xp.n

    @property
    def n_dropped(self) -> int:
        """Rows left out because of a missing value."""
        return self.xp.n_dropped

    def reads(self, path: Path) -> bool:
        """Whether a file is one of those that the rows come from."""
        return self.source.reads(path)

    def crossproducts(self) -> CrossProducts:
        """All that estimation needs of the rows."""
        return self.xp

    def predictions(
        self, beta: FloatArray, modes: Sequence[FloatArray], progress: Progress | None = None
    ) -> Iterator[Predicted]:
        """Fitted values batch by batch."""
        for index, rows in self.batches(progress):
            yield predicted(index, rows, rows.X, beta, modes)

    def batches(self, progress: Progress | None = None) -> Iterator[tuple[pd.Index, Rows]]:
        """Labels and rows batch by batch; the source is read again.

        Raises
        ------
        DataError
            It gives more or fewer complete rows than when the model was made.
        """
        n = 0
        watch = _watch(progress, PREDICTING, self.source.n_rows())
        whole = np.array_equal(self.kept, np.arange(len(self.schema.fixed.names)))
        for batch in self.source.batches(self.schema.needs.columns, _rows(self.schema)):
            evaluated = evaluate(self.schema, batch)
            if evaluated is not None:
                rows = evaluated.rows
                n += rows.y.size
                if n > self.n:
                    raise DataError(f"the source gives more than the {self.n} complete rows {CHANGED}")
                if not whole:
                    rows = replace(rows, X=rows.X[:, self.kept])
                yield evaluated.index, rows
            watch(len(batch.table))
        if n != self.n:
            raise DataError(f"the source gives {n} complete rows in place of the {self.n} {CHANGED}")


def stream_design(
    formula: MixedFormula,
    source: Source,
    *,
    weights: Any = None,
    offset: Any = None,
    missing: str = "drop",
    context: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Streamed:
    """Read a source twice: to learn its levels, and to sum its rows.

    Parameters
    ----------
    formula : MixedFormula
    source : Source
    weights, offset : str, optional
        Columns of the source.
    missing, context
        As in `crosslmm.design.build_design`.
    progress : callable, optional
        Told the phase, the rows done and the rows in all.

    Raises
    ------
    DataError, ModelError
        As `crosslmm.design.build_design`; names the batch where one is to blame.
    """
    context = check_options(missing, context)
    for what, value in (("weights", weights), ("offset", offset)):
        if value is not None and not isinstance(value, str):
            raise DataError(
                f"{what} must be the name of a column when rows come in batches, not {type(value).__name__}; add them "
                "to the data as a column"
            )
    check_functions(formula, context)
    needs = needs_of(formula, source.columns(), context, weights, offset, missing)
    total = source.n_rows()
    learned = source.reduce(
        needs.columns, MOST_ROWS, Learn(needs), add_learned, _watch(progress, LEARNING, total), together=False
    )
    schema = make_schema(formula, needs, learned, context)
    sums = source.reduce(
        needs.columns, _rows(schema), Sum(schema), add_sums, _watch(progress, SUMMING, total), together=True
    )
    if sums is None or sums.n != schema.n:
        raise DataError(
            f"the source gave {schema.n} complete rows when it was read first and {0 if sums is None else sums.n} when "
            "it was read again; its rows must be the same each time"
        )
    kept, xp = finish(schema, sums)
    return Streamed(schema, source, kept, xp)


def _rows(schema: Schema) -> int:
    """Rows of a batch whose columns take about `BATCH_BYTES`."""
    width = 3 * (len(schema.fixed.names) + 1) + sum(3 * factor.size + 3 for factor in schema.layout.factors)
    width += sum(a.size * b.size for a in schema.layout.factors for b in schema.layout.factors)
    return int(min(MOST_ROWS, max(BATCH_BYTES // (8 * width), 1024)))


def _watch(progress: Progress | None, phase: str, total: int | None) -> Callable[[int], None]:
    done = 0

    def watch(rows: int) -> None:
        nonlocal done
        done += rows
        if progress is not None:
            progress(phase, done, total)

    if progress is not None:
        progress(phase, 0, total)
    return watch
