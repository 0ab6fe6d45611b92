"""Fits of the same model to another response, and of a changed model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crosslmm.design.rows import Design
from crosslmm.effects.response import with_response
from crosslmm.effects.rewrite import updated_formula
from crosslmm.errors import ModelError
from crosslmm.sources.stream import Streamed

if TYPE_CHECKING:
    from crosslmm.results import MixedLMResults

FIT = "fit"


def refit(fit: MixedLMResults, y: Any, start: Any) -> MixedLMResults:
    """See `MixedLMResults.refit`."""
    model, estimates = fit.model, fit.estimates
    changed = type(model)._made(model.formula, with_response(model.design, y), model.written)
    if isinstance(start, str):
        if start != FIT:
            raise ModelError(f"start={start!r}: expected 'fit', None or values of theta")
        start = None if estimates.boundary else estimates.theta
    return changed.fit(reml=estimates.reml, engine=estimates.plan.options, start=start)


def update(
    fit: MixedLMResults,
    formula: str | None,
    data: Any,
    reml: bool | None,
    weights: Any,
    offset: Any,
    missing: str | None,
    context: Mapping[str, Any] | None,
) -> MixedLMResults:
    """See `MixedLMResults.update`."""
    model = fit.model
    if model.written is not None:
        raise ModelError("a model that was written with groups= is not updated: write the new one with its arguments")
    old = _given(model.design)
    source = old["data"] if data is None else data
    if source is None:
        raise ModelError(
            "the data of this model are not known any more (it was made from cross-products, or has been in a "
            "file): pass "
            "data="
        )
    if data is not None:  # arrays beside the old data do not belong to the new ones
        old = {name: value if isinstance(value, str) or name == "context" else None for name, value in old.items()}
    changed = type(model).from_formula(
        model.formula.source if formula is None else updated_formula(model.formula, formula),
        source,
        weights=old["weights"] if weights is None else weights,
        offset=old["offset"] if offset is None else offset,
        missing=(old["missing"] or "drop") if missing is None else missing,
        context=old["context"] if context is None else context,
    )
    return changed.fit(reml=fit.estimates.reml if reml is None else reml)


def _given(design: Any) -> dict[str, Any]:
    """What a design was made from."""
    if isinstance(design, Design) and design.given is not None:
        given = design.given
        return {
            "data": given.data,
            "weights": given.weights,
            "offset": given.offset,
            "missing": given.missing,
            "context": given.context,
        }
    if isinstance(design, Streamed):
        needs = design.schema.needs
        return {
            "data": design.source,
            "weights": needs.weights,
            "offset": needs.offset,
            "missing": needs.missing,
            "context": design.schema.context,
        }
    return dict.fromkeys(("data", "weights", "offset", "missing", "context"))
