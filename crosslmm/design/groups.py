"""Data for a model whose random part was written with `groups`: one frame of complete rows, and what its groups are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosslmm.design.complete import row_values
from crosslmm.design.frame import column_names, missing_rows, read_frame, settle_column
from crosslmm.design.grouping import cross, encode
from crosslmm.design.variables import used_columns
from crosslmm.errors import DataError
from crosslmm.formula import GroupFacts, GroupPart, MixedFormula, RandomTerm

GROUP = "Group"
"""What groups are called that are given as an array."""

MISSING = ("none", "drop", "raise")


@dataclass(frozen=True)
class Nested:
    """The levels of one variance component.

    Attributes
    ----------
    owner : dict
        Label of a level of the factor to the position of its group.
    column : dict
        Label of a level to the name of its column, as statsmodels has it.
    """

    owner: Mapping[Any, int]
    column: Mapping[Any, str]


@dataclass(frozen=True)
class Groups:
    """The groups of the rows used.

    Attributes
    ----------
    labels : ndarray of object, shape (G,)
        Sorted.
    codes : ndarray of int32, shape (n,)
        Position of the group of every row.
    nested : dict of str to Nested
        Levels of the components that are factors within the groups, by the text of the term.
    """

    labels: NDArray[Any]
    codes: NDArray[np.int32]
    nested: Mapping[str, Nested]

    @property
    def sizes(self) -> NDArray[np.intp]:
        """Rows of every group; shape (G,)."""
        return np.bincount(self.codes, minlength=len(self.labels))


@dataclass(frozen=True)
class GroupedData:
    """Complete rows of the columns that a model uses.

    Attributes
    ----------
    frame : pandas.DataFrame
    weights, offset : str or None
        Columns of `frame`.
    n_dropped : int
        Rows left out because of a missing value.
    facts : GroupFacts
    """

    frame: pd.DataFrame
    weights: str | None
    offset: str | None
    n_dropped: int
    facts: GroupFacts


@dataclass(frozen=True)
class Beside:
    """What is given beside the data, row by row.

    Attributes
    ----------
    groups, weights, offset : str, array or None
        A column of the data, or one value per row of it.
    subset : array or None
        Rows to use: truth values, or labels of the index.
    """

    groups: Any = None
    weights: Any = None
    offset: Any = None
    subset: Any = None


def gather(
    formula: MixedFormula, data: Any, beside: Beside, context: Mapping[str, Any]
) -> tuple[pd.DataFrame, Mapping[str, str | None]]:
    """What a formula uses of a table and what is given beside it, in one frame.

    Parameters
    ----------
    formula : MixedFormula
    data : pandas, polars or pyarrow table, or dict of columns
    beside : Beside
    context : mapping

    Returns
    -------
    frame : pandas.DataFrame
        The rows of the subset.
    columns : dict
        Columns of the frame that hold groups, weights and offset; None where they are not given.

    Raises
    ------
    DataError
        A column is missing, or what is given beside the data does not fit it.
    """
    present = column_names(data)
    given = {"groups": beside.groups, "weights": beside.weights, "offset": beside.offset}
    names = [*used_columns(formula, present, context), *(name for term in formula.random for name in term.grouping)]
    frame = read_frame(data, dict.fromkeys([*names, *(value for value in given.values() if isinstance(value, str))]))
    columns: dict[str, str | None] = {}
    for what, values in given.items():
        if values is None or isinstance(values, str):
            columns[what] = values
            continue
        name = columns[what] = _free(GROUP if what == "groups" else f"{what} (array)", present)
        made = _labels(values, len(frame)) if what == "groups" else row_values(values, what, frame)
        frame = frame.assign(**{name: made})
    return (frame if beside.subset is None else _subset(frame, beside.subset)), columns


def grouped_data(
    formula: MixedFormula, texts: Collection[str], data: Any, beside: Beside, missing: str, context: Mapping[str, Any]
) -> GroupedData:
    """Complete rows of what a model uses.

    Parameters
    ----------
    formula : MixedFormula
        Response and fixed part.
    texts : collection of str
        Right-hand sides of the random part.
    data, beside, context
        See `gather`.
    missing : {"none", "drop", "raise"}

    Raises
    ------
    DataError
        A column or group is missing, or values are.
    """
    if missing not in MISSING:
        raise DataError(f"missing must be 'none', 'drop' or 'raise', not {missing!r}")
    random = tuple(RandomTerm(text, (), "", "identity", text) for text in texts)
    frame, columns = gather(replace(formula, random=random), data, beside, context)
    frame, n_dropped = _complete(frame, missing)
    column = columns["groups"]
    if column is None:
        raise DataError("groups is missing: the name of a column, or one label per row of the data")
    facts = GroupFacts(
        column=column,
        label=beside.groups if isinstance(beside.groups, str) else GROUP,
        several=len(encode(frame[column]).levels) > 1,
        categorical=lambda name: name in frame.columns and is_categorical(frame[name]),
    )
    return GroupedData(frame, columns["weights"], columns["offset"], n_dropped, facts)


def is_categorical(column: pd.Series) -> bool:
    """Whether a formula reads a column as categories: text, truth values or a categorical."""
    dtype = settle_column(column).dtype
    return not pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype)


def _free(name: str, present: Collection[str]) -> str:
    """A name that no column has."""
    while name in present:
        name += "_"
    return name


def _labels(groups: Any, n: int) -> Any:
    """One label per row, without an index."""
    values = label_values(groups)
    if np.shape(values) != (n,):
        raise DataError(
            f"groups must be the name of a column or hold one label for each of the {n} rows of the data, but has "
            f"shape {np.shape(values)}"
        )
    return values


def label_values(groups: Any) -> Any:
    """Labels as an array that can stand in a column, one-dimensional where that is possible."""
    if isinstance(groups, (pd.Series, pd.Index)):
        return groups.array
    if isinstance(groups, (list, tuple)):
        return pd.Series(groups).array
    if isinstance(groups, pd.api.extensions.ExtensionArray):
        return groups
    values = np.asarray(groups)
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def _subset(frame: pd.DataFrame, subset: Any) -> pd.DataFrame:
    """The rows that `subset` names, as pandas' ``loc`` does; in the order of the data."""
    wanted = pd.Series(subset).array if isinstance(subset, (list, tuple)) else subset
    values = np.asarray(wanted)
    if values.dtype == bool or (values.dtype == object and pd.api.types.infer_dtype(values) == "boolean"):
        if values.shape != (len(frame),):
            raise DataError(f"subset has {values.size} truth values, but the data have {len(frame)} rows")
        if isinstance(subset, pd.Series) and not subset.index.equals(frame.index):
            raise DataError(
                "the index of subset differs from that of the data; pass subset.to_numpy() to go by position"
            )
        chosen = values.astype(bool)
    else:
        known = frame.index.isin(values)
        absent = [label for label in dict.fromkeys(values.tolist()) if label not in frame.index]
        if absent:
            raise DataError(
                f"subset holds {absent[0]!r}, which is no label of the data's index; pass truth values or labels"
            )
        chosen = known
    if not chosen.any():
        raise DataError("subset leaves no row of the data")
    return frame[chosen]


def _complete(frame: pd.DataFrame, missing: str) -> tuple[pd.DataFrame, int]:
    flags = {name: missing_rows(frame[name]) for name in frame.columns}
    found = {name: flag for name, flag in flags.items() if flag is not None}
    if not found:
        return frame, 0
    counts = ", ".join(f"{name!r} ({int(flag.sum())})" for name, flag in found.items())
    if missing != "drop":
        raise DataError(
            f"values are missing in columns (rows): {counts}; pass missing='drop' to leave these rows out, or drop or "
            "fill them first"
        )
    keep = ~np.logical_or.reduce(list(found.values()))
    if not keep.any():
        raise DataError(f"every row misses a value; missing in columns (rows): {counts}")
    return frame[keep], int(keep.size - keep.sum())


def find_groups(part: GroupPart, terms: Sequence[RandomTerm], frame: pd.DataFrame) -> Groups:
    """Groups of the rows, and to which of them the levels of the nested factors belong."""
    own = encode(frame[part.column])
    order = _sorted(own.levels)
    place = np.empty(len(order), dtype=np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    codes = place[own.codes]
    grouping = {term.text: term.grouping for term in terms}
    nested = {
        component.term: _nested(frame, grouping[component.term], component.pieces, codes)
        for component in part.components
        if component.pieces
    }
    return Groups(own.levels[order], codes, nested)


def _sorted(labels: NDArray[Any]) -> NDArray[np.intp]:
    """Order of labels of one kind, or by their text."""
    try:
        return np.array(sorted(range(len(labels)), key=lambda i: labels[i]), dtype=np.intp)
    except TypeError:
        return np.array(sorted(range(len(labels)), key=lambda i: str(labels[i])), dtype=np.intp)


def _nested(
    frame: pd.DataFrame,
    grouping: tuple[str, ...],
    pieces: tuple[tuple[str, str | None], ...],
    codes: NDArray[np.int32],
) -> Nested:
    encoded = {name: encode(frame[name]) for name in grouping}
    crossed = cross([encoded[name] for name in grouping])
    first = np.zeros(len(crossed.levels), dtype=np.intp)
    first[crossed.codes[::-1]] = np.arange(len(crossed.codes))[::-1]
    owner = dict(zip(crossed.levels.tolist(), codes[first].tolist(), strict=True))
    texts = []
    for expression, name in pieces:
        if name is None:
            texts.append([expression] * len(first))
        else:
            levels = encoded[name] if name in encoded else encode(frame[name])
            texts.append([f"{expression}[{levels.levels[code]}]" for code in levels.codes[first]])
    column = dict(zip(crossed.levels.tolist(), (":".join(parts) for parts in zip(*texts, strict=True)), strict=True))
    return Nested(owner, column)
