"""Tables and sources to predictions: what `MixedLMResults.predict` does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from crosslmm.design.rows import Progress, Rows
from crosslmm.effects.covariance import Joint
from crosslmm.effects.encoding import Encoding, encoding_of
from crosslmm.effects.newrows import Beside, NewRows, check_known, new_rows
from crosslmm.effects.prediction import (
    ERROR,
    PREDICTION,
    SAMPLE,
    Wanted,
    bounds,
    fixed_variance,
    mean_variance,
    point,
    unknown_variance,
)
from crosslmm.effects.selection import Chosen
from crosslmm.effects.simulation import Effects
from crosslmm.errors import DataError, ModelError
from crosslmm.fit import Fit
from crosslmm.layout import Layout
from crosslmm.sources.find import find_source
from crosslmm.sources.protocol import PREDICTING, Source, batch_errors

if TYPE_CHECKING:
    from crosslmm.model import MixedLM

MOST_ROWS = 2**18
"""Rows of one batch of a source at most."""


@dataclass(frozen=True)
class Predictor:
    """How rows are predicted.

    Attributes
    ----------
    fit : Fit
    wanted : Wanted
    chosen : Chosen
    joint : callable
        Makes the joint covariance; not called where nothing asks for it.
    effects : Effects or None
        Draws the effects of new levels.
    """

    fit: Fit
    wanted: Wanted
    chosen: Chosen
    joint: Callable[[], Joint]
    effects: Effects | None

    @classmethod
    def of(
        cls, fit: Fit, wanted: Wanted, chosen: Chosen, joint: Callable[[], Joint], rng: np.random.Generator
    ) -> Predictor:
        """Predictor of a fit."""
        return cls(fit, wanted, chosen, joint, Effects.fitted(fit, 1, rng) if wanted.new_levels == SAMPLE else None)

    def predict(self, rows: NewRows) -> pd.Series | pd.DataFrame:
        """Predictions of some rows."""
        wanted, fit = self.wanted, self.fit
        values = point(fit, rows, self.effects)
        if wanted.interval is None:
            return pd.Series(rows.spread(values), index=rows.index, name="fit")
        variance = mean_variance(self.joint(), rows) if self.chosen.terms else fixed_variance(fit, rows.X)
        if wanted.interval == PREDICTION:
            variance = variance + unknown_variance(fit, rows, wanted.new_levels)
        se = np.sqrt(np.maximum(variance, 0.0))
        reach = bounds(wanted.level) * se
        columns = {"fit": values, "se": se, "lower": values - reach, "upper": values + reach}
        return pd.DataFrame({name: rows.spread(column) for name, column in columns.items()}, index=rows.index)


def rows_of(
    model: MixedLM,
    chosen: Chosen,
    data: Any,
    beside: Beside,
    *,
    whole: bool,
    new_levels: str = ERROR,
    progress: Progress | None = None,
) -> Iterator[NewRows]:
    """The rows of a table at once, those of a source, or of the model itself (``data=None``), in batches.

    Raises
    ------
    ModelError, DataError
        See `crosslmm.effects.newrows.new_rows`.
    """
    layout = model.design.layout
    if data is None:
        if beside.offset is not None or beside.weights is not None:
            raise ModelError("the rows of the model have their own offset and weights: pass data= with others")
        for index, own in model.design.batches(progress):
            yield own_rows(layout, chosen, index, own)
        return
    encoding = encoding_of(model.design, model.formula)
    source = find_source(data)
    if source is None:
        rows = new_rows(layout, encoding, chosen, data, beside, whole=whole)
        if new_levels == ERROR:
            check_known(layout, rows)
        yield rows
        return
    for what, value in (("offset", beside.offset), ("weights", beside.weights)):
        if value is not None and not isinstance(value, str):
            raise DataError(f"{what} must be the name of a column when rows come in batches")
    batches = _source_rows(layout, encoding, chosen, source, beside, whole=whole, progress=progress)
    for name, rows in batches:
        if new_levels == ERROR:
            with batch_errors(name):
                check_known(layout, rows)
        yield rows


def own_rows(layout: Layout, chosen: Chosen, index: pd.Index, rows: Rows) -> NewRows:
    """Rows of a model as rows to predict or simulate."""
    used = [np.zeros(factor.size, dtype=bool) for factor in layout.factors]
    for t in chosen.terms:
        used[layout.terms[t].factor][list(layout.terms[t].columns)] = True
    return NewRows(
        index=index,
        complete=np.ones(len(index), dtype=bool),
        X=rows.X,
        Z=tuple(np.where(own, Z, 0.0) for Z, own in zip(rows.Z, used, strict=True)),
        Z_out=tuple(np.where(own, 0.0, Z) for Z, own in zip(rows.Z, used, strict=True)),
        codes=tuple(codes.astype(np.int64) for codes in rows.codes),
        new=tuple(np.empty(0, dtype=object) for _ in layout.factors),
        offset=rows.offset,
        weights=rows.weights,
    )


def _source_rows(
    layout: Layout,
    encoding: Encoding,
    chosen: Chosen,
    source: Source,
    beside: Beside,
    *,
    whole: bool,
    progress: Progress | None,
) -> Iterator[tuple[str, NewRows]]:
    terms = tuple(range(len(layout.terms))) if whole else chosen.terms
    factors = [f for f in range(len(layout.factors)) if chosen.uses(layout, f)]
    present = source.columns()
    names = encoding.columns(encoding.part(terms), present)
    names += [name for f in factors for name in encoding.groupings[f]]
    extra = (beside.offset, beside.weights, encoding.offset, encoding.weights)
    names += [name for name in extra if isinstance(name, str)]
    wanted = [name for name in dict.fromkeys(names) if name in present]  # a missing one is refused by its batch
    done, total = 0, source.n_rows()
    for batch in source.batches(wanted or present[:1], MOST_ROWS):
        with batch_errors(batch.name):
            rows = new_rows(layout, encoding, chosen, batch.table, beside, whole=whole)
        yield batch.name, rows
        done += len(rows.index)
        if progress is not None:
            progress(PREDICTING, done, total)


def joined(parts: list[Any]) -> Any:
    """Predictions of all batches as one Series or frame."""
    return parts[0] if len(parts) == 1 else pd.concat(parts)
