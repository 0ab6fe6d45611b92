"""Models written with groups, from formulas or arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from crosslmm.design.build import check_options
from crosslmm.design.frame import column_names
from crosslmm.design.groups import MISSING, Beside, Groups, Nested, find_groups, gather, grouped_data
from crosslmm.design.rows import Design, ModelRows, Progress
from crosslmm.errors import DataError
from crosslmm.formula import MixedFormula, formula_texts, parse_fixed, with_groups
from crosslmm.grouped.arrays import assemble, quoted
from crosslmm.grouped.order import in_patsy_order
from crosslmm.grouped.written import Written, lower_names, written
from crosslmm.sources import read_model
from crosslmm.sources.find import find_source

Parts = tuple[MixedFormula, ModelRows, Written]


def model_of_formula(
    formula: str,
    data: Any,
    beside: Beside,
    *,
    re_formula: str | None,
    vc_formula: Mapping[str, str] | None,
    missing: str,
    context: Mapping[str, Any] | None,
    use_sqrt: bool,
    progress: Progress | None,
) -> Parts:
    """Formula, rows and the rest of a model with `groups`; see `crosslmm.MixedLM.from_formula`."""
    fixed = parse_fixed(formula)
    re_text, vc_texts = formula_texts(re_formula, vc_formula)
    if find_source(data) is not None:
        raise DataError(
            "groups= needs a table in memory; for rows in batches write the random part with bars: "
            f"'{fixed.source} + (1 | {beside.groups if isinstance(beside.groups, str) else 'group'})'"
        )
    names = check_options("drop", context)
    given = grouped_data(fixed, [*([re_text] if re_text else []), *vc_texts.values()], data, beside, missing, names)
    whole = with_groups(fixed, given.facts, re_text, vc_texts)
    design = read_model(
        whole, given.frame, weights=given.weights, offset=given.offset, context=context, progress=progress
    )
    design = in_patsy_order(design, whole.fixed)
    if whole.groups is None:
        raise DataError("groups is missing")
    groups = find_groups(whole.groups, whole.random, given.frame)
    made = written(whole, design.layout, groups, use_sqrt=use_sqrt, context=context)
    return whole, _with_dropped(design, given.n_dropped), made


def model_of_arrays(
    endog: Any, exog: Any, groups: Any, exog_re: Any, exog_vc: Any, *, use_sqrt: bool, missing: str
) -> Parts:
    """Formula, rows and the rest of a model from arrays; see `crosslmm.MixedLM`."""
    if missing not in MISSING:
        raise DataError(f"missing must be 'none', 'drop' or 'raise', not {missing!r}")
    given = assemble(endog, exog, groups, exog_re, exog_vc)
    part = given.formula.groups
    if part is None:
        raise DataError("groups is missing")
    complete = given.frame.notna().all(axis=1).to_numpy()
    if missing != "drop" and not complete.all():
        raise DataError(
            f"{int((~complete).sum())} rows miss a value; pass missing='drop' to leave them out, or drop or fill them"
        )
    frame = given.frame if complete.all() else given.frame[complete]
    if frame.empty:
        raise DataError("no row is complete")
    design = read_model(given.formula, frame)
    found = find_groups(part, given.formula.random, frame)
    nested: dict[str, Nested] = {}
    columns: dict[str, tuple[str, ...]] = {}
    for text, component in given.components.items():
        if component.level is None:
            columns[text] = component.labels
        else:
            levels = found.nested[text].owner
            nested[text] = Nested(levels, {level: component.labels[int(level)] for level in levels})
    made = Written(
        part=part,
        groups=Groups(found.labels, found.codes, nested),
        re_names=given.re_full or given.re_names,
        re_full=given.re_full or lower_names(given.re_names),
        labelled=given.labelled,
        use_sqrt=use_sqrt,
        context={},
        exog=given.exog,
        columns=columns,
    )
    return given.formula, _with_dropped(design, int((~complete).sum())), made


def is_column_list(groups: Any, data: Any) -> bool:
    """Whether `groups` is a list of names of columns, and no labels of rows."""
    if not (isinstance(groups, (list, tuple)) and groups and all(isinstance(name, str) for name in groups)):
        return False
    if find_source(data) is not None:
        return True
    present = set(column_names(data))
    return all(name in present for name in groups)


def formula_of_columns(formula: str, groups: Any) -> str:
    """The formula with a crossed random intercept for every column."""
    source = parse_fixed(formula).source
    return f"{source} + " + " + ".join(f"(1 | {quoted(name)})" for name in groups)


def subset_of(
    formula: MixedFormula, data: Any, beside: Beside, context: Mapping[str, Any] | None
) -> tuple[pd.DataFrame, str | None, str | None]:
    """The rows of a subset, and the columns that hold weights and offset."""
    if find_source(data) is not None:
        raise DataError("subset needs a table in memory; leave the other rows out of the source")
    frame, columns = gather(formula, data, replace(beside, groups=None), check_options("drop", context))
    return frame, columns["weights"], columns["offset"]


def _with_dropped(design: ModelRows, n_dropped: int) -> ModelRows:
    if isinstance(design, Design):
        return replace(design, n_dropped=n_dropped)
    from crosslmm.sources.stream import Streamed

    if isinstance(design, Streamed):
        return replace(design, xp=replace(design.xp, n_dropped=n_dropped))
    return design
