"""The rows of a model from whatever holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crosslmm.design import build_design
from crosslmm.design.build import check_options
from crosslmm.design.complete import row_values
from crosslmm.design.frame import column_names, read_frame
from crosslmm.design.rows import ModelRows, Progress
from crosslmm.formula import MixedFormula
from crosslmm.sources.find import find_source
from crosslmm.sources.local import Slices

MANY_ROWS = 2_000_000
"""A table in memory with more rows is read in stretches, so that memory beyond the data does not grow with them."""


def read_model(
    formula: MixedFormula,
    data: Any,
    *,
    weights: Any = None,
    offset: Any = None,
    missing: str = "drop",
    context: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> ModelRows:
    """Rows of a model: at once from a table in memory, in batches from a large one and from any other source.

    Parameters
    ----------
    formula : MixedFormula
    data : table, or source
    weights, offset, missing, context
        As in `crosslmm.design.build_design`; for a source `weights` and `offset` are names of columns.
    progress : callable, optional
        Told the phase, the rows done and the rows in all while a source is read.

    Raises
    ------
    DataError, ModelError
        As `crosslmm.design.build_design`; names the batch where one is to blame.
    """
    source = find_source(data)
    options: dict[str, Any] = {"missing": missing, "context": context}
    if source is not None:
        from crosslmm.sources.stream import stream_design

        return stream_design(formula, source, weights=weights, offset=offset, progress=progress, **options)
    if _n_rows(data) > MANY_ROWS:
        from crosslmm.sources.rowwise import NeedsAllRows

        try:
            return _in_stretches(formula, data, weights, offset, progress, **options)
        except NeedsAllRows:
            pass  # they are in memory
    return build_design(formula, data, weights=weights, offset=offset, **options)


def _n_rows(data: Any) -> int:
    """Rows of a table; 0 for a dict of columns or what is no table."""
    shape = getattr(data, "shape", None)
    return shape[0] if isinstance(shape, tuple) and len(shape) == 2 and isinstance(shape[0], int) else 0


def _in_stretches(
    formula: MixedFormula,
    data: Any,
    weights: Any,
    offset: Any,
    progress: Progress | None,
    *,
    missing: str,
    context: Mapping[str, Any] | None,
) -> ModelRows:
    from crosslmm.sources.learn import needs_of
    from crosslmm.sources.stream import stream_design

    given = {"weights": weights, "offset": offset}
    names = {what: value for what, value in given.items() if isinstance(value, str)}
    present = column_names(data)
    needs = needs_of(
        formula, present, check_options(missing, context), names.get("weights"), names.get("offset"), missing
    )
    frame = read_frame(data, needs.columns)
    for what, value in given.items():
        if value is not None and what not in names:
            names[what] = f"{what} (array)"
            frame[names[what]] = row_values(value, what, frame)
    return stream_design(formula, Slices(frame), missing=missing, context=context, progress=progress, **names)
