"""Contrasts: linear functions of the fixed effects, from texts, dicts, matrices or frames."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from crosslmm.covariance import FloatArray
from crosslmm.errors import ModelError
from crosslmm.inference.expressions import listed, read_hypotheses
from crosslmm.layout import Layout

ESTIMABLE = 1e-8
"""What may be left of a contrast, relative to its largest coefficient, once combinations of columns are taken out."""

DEPENDENT = 1e-9
"""Singular value, relative to the largest, below which rows of a contrast count as combinations of others."""

FORMS = "a text, a dict of weights by name, a list of these, a matrix of numbers or a frame"


@dataclass(frozen=True)
class Contrasts:
    """The hypothesis ``L beta = value``.

    Attributes
    ----------
    labels : tuple of str
        One per row.
    L : ndarray, shape (q, p)
    value : ndarray, shape (q,)
    """

    labels: tuple[str, ...]
    L: FloatArray
    value: FloatArray


def read_contrasts(hypothesis: Any, layout: Layout, value: Any = None) -> Contrasts:
    """A hypothesis in any of the forms that `fit.test` takes.

    Parameters
    ----------
    hypothesis : str, mapping (or Series by name), array, DataFrame, or a list of texts and mappings
    layout : Layout
    value : number or array, optional
        What ``L beta`` is tested to be; with texts, beside what they say.

    Raises
    ------
    ModelError
        It cannot be read, has the wrong shape, or is not estimable.
    """
    names = layout.fixed + known_dropped(layout)
    if not names:
        raise ModelError("this fit has no fixed effects, so there is nothing to test")
    labels, whole, constants = _rows(hypothesis, names, layout)
    L = without_dropped(whole, layout, labels)
    empty = [label for label, row in zip(labels, L, strict=True) if not row.any()]
    if empty:
        raise ModelError(f"the contrast {empty[0]!r} has no coefficient other than 0; there is nothing to test")
    return Contrasts(labels, L, constants + _values(value, len(labels)))


def known_dropped(layout: Layout) -> tuple[str, ...]:
    """Names of the dropped columns whose combination of the kept ones is known."""
    return layout.dropped[: layout.standardization.aliases.shape[1]]


def without_dropped(whole: FloatArray, layout: Layout, labels: Sequence[str]) -> FloatArray:
    """Contrasts of all columns as contrasts of the kept ones; (q, p + d) to (q, p).

    With ``X_dropped = X A`` a contrast is estimable when its part of the dropped columns is A' times that of the kept
    ones; then its value does not depend on which columns are kept. A contrast of kept columns alone is taken as it is:
    a statement on the coefficients that are reported.

    Raises
    ------
    ModelError
        One is not estimable.
    """
    p, aliases = layout.n_fixed, layout.standardization.aliases
    kept, dropped = whole[:, :p], whole[:, p:]
    for label, own, other in zip(labels, kept, dropped, strict=True):
        size = max(np.abs(own).max(initial=0.0), np.abs(other).max(initial=0.0))
        if other.any() and np.abs(other - own @ aliases).max() > ESTIMABLE * size * (1.0 + np.abs(aliases).max()):
            names = [name for name, weight in zip(known_dropped(layout), other, strict=True) if weight]
            raise ModelError(
                f"{label!r} cannot be estimated: {', '.join(map(repr, names))} was dropped as a linear combination of "
                "other columns, and the data do not tell their coefficients apart"
            )
    return kept


def dependent_rows(contrasts: Contrasts) -> str:
    """What is to be said of rows that are combinations of others; ``""`` where there are none.

    Raises
    ------
    ModelError
        The rows contradict each other.
    """
    L, value = contrasts.L, contrasts.value
    size = np.abs(L).max(axis=1)
    U, s, _ = np.linalg.svd(L / size[:, None])
    rank = int((s > DEPENDENT * s[0]).sum())
    if rank == L.shape[0]:
        return ""
    scaled = value / size
    if np.abs(U[:, rank:].T @ scaled).max() > ESTIMABLE * max(np.abs(scaled).max(), 1.0):
        raise ModelError("these hypotheses contradict each other: some are combinations of others, with other values")
    said = "1 is independent: the joint test has 1 numerator degree of freedom."
    if rank > 1:
        said = f"{rank} are independent: the joint test has {rank} numerator degrees of freedom."
    return f"Of {L.shape[0]} rows {said}"


def _rows(hypothesis: Any, names: tuple[str, ...], layout: Layout) -> tuple[tuple[str, ...], FloatArray, FloatArray]:
    """Labels, matrix (q, p + d) and values (q,)."""
    if isinstance(hypothesis, pd.DataFrame):
        return _from_frame(hypothesis, names)
    if isinstance(hypothesis, str | Mapping):
        hypothesis = [hypothesis]
    if isinstance(hypothesis, pd.Series) and pd.api.types.is_string_dtype(hypothesis.index):
        hypothesis = [hypothesis.to_dict()]
    if isinstance(hypothesis, Sequence) and hypothesis and all(isinstance(row, str | Mapping) for row in hypothesis):
        labels, rows, values = [], [], []
        for part in hypothesis:
            read = _from_text(part, names) if isinstance(part, str) else [_from_mapping(part, names)]
            for label, row, number in read:
                labels.append(label)
                rows.append(row)
                values.append(number)
        return tuple(labels), np.array(rows), np.array(values)
    return _from_array(hypothesis, names, layout)


def _from_text(text: str, names: tuple[str, ...]) -> list[tuple[str, FloatArray, float]]:
    """Equations, or the name of a term alone (or set to 0), which stands for all its coefficients."""
    term = re.sub(r"==?\s*0\s*$", "", text).strip()
    if term not in names:
        pattern = ":".join(re.escape(part.strip()) + r"(\[[^:]*\])?" for part in term.split(":"))
        columns = [name for name in names if term and re.fullmatch(pattern, name)]
        if columns:
            return [row for name in columns for row in read_hypotheses(f"{name} = 0", names)]
    return read_hypotheses(text, names)


def _from_mapping(weights: Mapping[Any, Any], names: tuple[str, ...]) -> tuple[str, FloatArray, float]:
    row = np.zeros(len(names))
    for name, weight in weights.items():
        _check_names([name], names)
        row[names.index(name)] = _number(weight, f"the weight of {name!r}", "a number")
    label = " + ".join(f"{weight:g} * {name}" for name, weight in zip(names, row, strict=True) if weight)
    return label.replace("+ -", "- ") or "0", row, 0.0


def _from_frame(frame: pd.DataFrame, names: tuple[str, ...]) -> tuple[tuple[str, ...], FloatArray, FloatArray]:
    _check_names(list(frame.columns), names)
    if frame.columns.has_duplicates:
        raise ModelError("the frame of contrasts has a column twice")
    whole = frame.reindex(columns=list(names), fill_value=0.0)
    matrix = _finite(whole, "the frame of contrasts", "numbers")
    if not len(matrix):
        raise ModelError("the frame of contrasts has no rows")
    return tuple(str(label) for label in frame.index), matrix, np.zeros(len(frame))


def _from_array(
    hypothesis: Any, names: tuple[str, ...], layout: Layout
) -> tuple[tuple[str, ...], FloatArray, FloatArray]:
    p = layout.n_fixed
    matrix = np.atleast_2d(_finite(hypothesis, "a hypothesis", FORMS))
    if matrix.ndim != 2 or matrix.shape[0] == 0 or matrix.shape[1] != p:
        raise ModelError(
            f"a contrast matrix has one column per fixed effect, {p} here ({listed(layout.fixed)}), and one row or "
            f"more; this one has shape {np.shape(hypothesis)}"
        )
    whole = np.hstack([matrix, np.zeros((len(matrix), len(names) - p))])
    return tuple(f"row {i + 1}" for i in range(len(matrix))), whole, np.zeros(len(matrix))


def _check_names(given: Sequence[Any], names: tuple[str, ...]) -> None:
    unknown = [name for name in given if name not in names]
    if unknown:
        raise ModelError(f"{unknown[0]!r} is no coefficient of this fit. Its coefficients are: {listed(names)}")


def _finite(values: Any, what: str, expected: str) -> FloatArray:
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{what} must be {expected}, not {values!r}") from error
    if values is None:
        raise ModelError(f"{what} must be {expected}, not None")
    if not np.isfinite(numbers).all():
        raise ModelError(f"{what} holds values that are not finite numbers")
    return numbers


def _number(value: Any, what: str, expected: str) -> float:
    numbers = _finite(value, what, expected)
    if numbers.ndim:
        raise ModelError(f"{what} must be one number, not {value!r}")
    return float(numbers)


def _values(value: Any, n: int) -> FloatArray:
    if value is None:
        return np.zeros(n)
    values = _finite(value, "value", "a number, or one for each row")
    if values.shape not in ((), (n,)):
        raise ModelError(
            f"value must be one number or one for each of the {n} rows, not an array of shape {values.shape}"
        )
    return np.broadcast_to(values, (n,)).copy()
