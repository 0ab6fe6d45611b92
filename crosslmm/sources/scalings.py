"""``scale(x)``, ``center(x)`` and ``standardize(x)``, made exact by moments over all rows from the first pass."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

import numpy as np
from formulaic import ModelSpec

from crosslmm.design.variables import named_calls
from crosslmm.formula import MixedFormula
from crosslmm.sources.moments import Moments

SCALINGS = ("scale", "center", "standardize")
"""Functions of the formula language that need means and standard deviations of all rows, and nothing else."""


def called(call: ast.Call) -> str:
    """Name of the function that is called."""
    return call.func.id if isinstance(call.func, ast.Name) else ""


def is_scaling(call: ast.Call) -> bool:
    """Whether a call is ``scale(x)`` or the like: one argument without a back-quoted name or a scaling in it."""
    if called(call) not in SCALINGS or len(call.args) != 1 or call.keywords:
        return False
    names = [node.id for node in ast.walk(call.args[0]) if isinstance(node, ast.Name)]
    return not any(name in SCALINGS or name.startswith("_quoted_") for name in names)


def scaled_calls(formula: MixedFormula, context: Mapping[str, Any]) -> dict[str, str]:
    """Calls that scale, as formulaic writes them, and what they scale."""
    return {
        ast.unparse(call): ast.unparse(call.args[0])
        for call, _ in named_calls(formula)
        if is_scaling(call) and called(call) not in context
    }


def with_scalings(spec: ModelSpec, scalings: Mapping[str, Moments]) -> ModelSpec:
    """An encoding that scales by moments over all rows; that of a sample knows its own."""
    state = {call: _state(known, scalings[call]) for call, known in spec.transform_state.items() if call in scalings}
    return spec.update(transform_state={**spec.transform_state, **state}) if state else spec


def _state(known: Mapping[str, Any], of: Moments) -> dict[str, Any]:
    state = {**known, "center": of.mean[0]}
    if known["scale"] is not None:
        state["scale"] = np.sqrt(of.squares[0] / (of.n - known["ddof"]))
    return state
