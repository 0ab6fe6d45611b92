"""A fit as numbers and text, and back: estimates, names and the learned encoding, without data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
from formulaic import ModelSpec

from crosslmm import covariance
from crosslmm.covariance import Covariance
from crosslmm.effects.codec import pack, unpack
from crosslmm.effects.encoding import Encoded, Encoding, encoding_of
from crosslmm.effects.saved import SavedRows
from crosslmm.engine.plan import DirectEngine, IterativeEngine, Plan
from crosslmm.errors import ModelError
from crosslmm.fit import Fit
from crosslmm.formula import MixedFormula, parse
from crosslmm.formula.read import read
from crosslmm.layout import Factor, Layout, Standardization, Term
from crosslmm.version import VERSION

if TYPE_CHECKING:
    from crosslmm.results import MixedLMResults

FORMAT = 1
"""Number of the layout of these dictionaries; one that is read by this version has it."""

STRUCTURES = {
    "unstructured": covariance.unstructured,
    "diagonal": covariance.diagonal,
    "identity": covariance.identity,
}
NUMBERS: tuple[str, ...] = ("reml", "n", "theta", "criterion", "sigma", "beta", "beta_cov", "converged", "message")
NUMBERS += ("boundary", "singular", "unit", "seconds")
"""Fields of a `Fit` that are written as they are."""


def to_dict(fit: MixedLMResults) -> dict[str, Any]:
    """See `MixedLMResults.to_dict`."""
    estimates, model = fit.estimates, fit.model
    if model.written is not None:
        raise ModelError(
            "a fit that was written with groups= cannot be written as text: write it with bars, or pickle it"
        )
    encoding = encoding_of(model.design, model.formula)
    layout = estimates.layout
    return {
        "format": FORMAT,
        "crosslmm": VERSION,
        "formula": model.formula.source,
        "response": layout.response,
        "n_dropped": model.design.n_dropped,
        "weighted": layout.weighted,
        "offset": layout.offset,
        "fit": {name: pack(getattr(estimates, name)) for name in NUMBERS},
        "modes": [pack(modes) for modes in estimates.modes],
        "plan": {name: pack(getattr(estimates.plan, name)) for name in _plan_fields()},
        "fixed": {"names": list(layout.fixed), "dropped": list(layout.dropped)},
        "factors": [
            {"name": f.name, "levels": pack(f.levels), "columns": list(f.columns), "data": list(names)}
            for f, names in zip(layout.factors, encoding.groupings, strict=True)
        ],
        "terms": [_term(term) for term in layout.terms],
        "coordinates": _coordinates(layout.standardization),
        "encoding": {
            "fixed": _encoded(encoding.fixed),
            "terms": [_encoded(term) for term in encoding.terms],
            "weights": encoding.weights,
            "offset": encoding.offset,
            "context": sorted(encoding.context),
        },
    }


def _term(term: Term) -> dict[str, Any]:
    own = {"label": term.label, "group": term.group, "factor": term.factor, "columns": list(term.columns)}
    return {**own, "covariance": term.covariance.name, "size": term.covariance.size, "theta_start": term.theta_start}


def _coordinates(standard: Standardization) -> dict[str, Any]:
    bases = [pack(basis) for basis in standard.z_bases]
    arrays = {"x_basis": standard.x_basis, "origin": standard.origin, "aliases": standard.aliases}
    return {**{name: pack(array) for name, array in arrays.items()}, "scale": pack(standard.scale), "z_bases": bases}


def _encoded(part: Encoded) -> dict[str, Any]:
    return {
        "text": part.text,
        "names": list(part.names),
        "kept": pack(part.kept),
        "full_rank": bool(part.spec.ensure_full_rank),
        "transformations": pack(part.spec.transform_state),
        "columns": pack(part.spec.encoder_state),
    }


def from_dict(saved: Any, context: Mapping[str, Any] | None) -> tuple[MixedFormula, SavedRows, Fit]:
    """What `to_dict` was made of: formula, encoding in place of rows, and numbers.

    Raises
    ------
    ModelError
        It was not written by `to_dict`, by a later version, or needs names of the formula's context.
    """
    if not isinstance(saved, Mapping) or "format" not in saved or "encoding" not in saved:
        raise ModelError("this is no fit: expected what fit.to_dict() gave, as a dict, JSON text or a path of it")
    if saved["format"] != FORMAT:
        raise ModelError(
            f"this fit has format {saved['format']!r}, written by crosslmm {saved.get('crosslmm')}; crosslmm "
            f"{VERSION} reads "
            f"format {FORMAT}: use that version"
        )
    try:
        return _read(saved, dict(context or {}))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ModelError(f"this fit is damaged: {type(error).__name__}: {error}") from error


def _read(saved: Mapping[str, Any], context: dict[str, Any]) -> tuple[MixedFormula, SavedRows, Fit]:
    missing = [name for name in saved["encoding"]["context"] if name not in context]
    if missing:
        names = ", ".join(missing)
        raise ModelError(f"the formula uses {names}, which text cannot hold: pass load_fit(..., context=...)")
    formula = parse(saved["formula"])
    factors = tuple(Factor(f["name"], unpack(f["levels"]), tuple(f["columns"])) for f in saved["factors"])
    layout = Layout(
        response=saved["response"],
        fixed=tuple(saved["fixed"]["names"]),
        dropped=tuple(saved["fixed"]["dropped"]),
        factors=factors,
        terms=tuple(_read_term(term) for term in saved["terms"]),
        standardization=_read_coordinates(saved["coordinates"]),
        formula=saved["formula"],
        weighted=saved["weighted"],
        offset=saved["offset"],
    )
    numbers = {name: unpack(value) for name, value in saved["fit"].items()}
    fit = Fit(
        layout=layout,
        plan=_read_plan(saved["plan"]),
        modes=tuple(unpack(modes) for modes in saved["modes"]),
        iterations=(),
        sampling=None,
        **numbers,
    )
    own = saved["encoding"]
    encoding = Encoding(
        formula=formula,
        fixed=_read_encoded(own["fixed"]),
        terms=tuple(_read_encoded(term) for term in own["terms"]),
        groupings=tuple(tuple(f["data"]) for f in saved["factors"]),
        levels=tuple(factor.levels for factor in factors),
        context=context,
        weights=own["weights"],
        offset=own["offset"],
    )
    return formula, SavedRows(layout, encoding, fit.n, saved["n_dropped"]), fit


def _plan_fields() -> list[str]:
    """Fields of a plan but the options, which are for a fit that is made again."""
    return [field.name for field in fields(Plan) if field.name != "options"]


def _read_plan(saved: Mapping[str, Any]) -> Plan:
    options = IterativeEngine() if saved["engine"] == "iterative" else DirectEngine()
    return Plan(**{name: unpack(value) for name, value in saved.items()}, options=options)


def _read_term(saved: Mapping[str, Any]) -> Term:
    structure: Covariance = STRUCTURES[saved["covariance"]](saved["size"])
    columns = tuple(saved["columns"])
    return Term(saved["label"], saved["group"], saved["factor"], columns, structure, saved["theta_start"])


def _read_coordinates(saved: Mapping[str, Any]) -> Standardization:
    return Standardization(
        x_basis=unpack(saved["x_basis"]),
        z_bases=tuple(unpack(basis) for basis in saved["z_bases"]),
        origin=unpack(saved["origin"]),
        scale=unpack(saved["scale"]),
        aliases=unpack(saved["aliases"]),
    )


def _read_encoded(saved: Mapping[str, Any]) -> Encoded:
    spec = ModelSpec(
        formula=read(saved["text"]),
        materializer="pandas",
        ensure_full_rank=saved["full_rank"],
        na_action="ignore",
        output="numpy",
        transform_state=unpack(saved["transformations"]),
        encoder_state=unpack(saved["columns"]),
    )
    return Encoded(saved["text"], spec, tuple(saved["names"]), np.asarray(unpack(saved["kept"]), dtype=np.intp))
