"""Matrices of variance components, group by group, to the columns of one sparse term."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from crosslmm.covariance import FloatArray
from crosslmm.errors import DataError


@dataclass(frozen=True)
class VCSpec:
    """Variance components of a model from arrays, as statsmodels has them.

    Attributes
    ----------
    names : list of str
    colnames : list of list of list of str
        ``colnames[k][i]``: names of the columns of component k in group i.
    mats : list of list of array
        ``mats[k][i]``: matrix of component k in group i, one row per row of the group; groups are sorted.
    """

    names: Sequence[str]
    colnames: Sequence[Sequence[Sequence[Any]]]
    mats: Sequence[Sequence[Any]]

    @classmethod
    def of(cls, given: Any, groups: Sequence[Any]) -> VCSpec:
        """From an object with these attributes, or from a dict of dicts ``{name: {group: matrix}}``.

        Raises
        ------
        DataError
            A group is missing, or numbers of names differ.
        """
        if isinstance(given, Mapping):
            return cls._of_dict(given, groups)
        try:
            spec = cls(list(given.names), list(given.colnames), list(given.mats))
        except AttributeError as error:
            kind = type(given).__name__
            raise DataError(f"exog_vc must be a VCSpec or a dict {{name: {{group: matrix}}}}, not {kind}") from error
        for name, mats in zip(spec.names, spec.mats, strict=True):
            if len(mats) != len(groups):
                raise DataError(f"exog_vc has {len(mats)} matrices for {name!r}, but there are {len(groups)} groups")
        return spec

    @classmethod
    def _of_dict(cls, given: Mapping[Any, Any], groups: Sequence[Any]) -> VCSpec:
        names = sorted(given, key=str)
        for name in names:
            absent = [group for group in groups if group not in given[name]]
            if absent:
                raise DataError(f"exog_vc[{name!r}] has no matrix for the group {absent[0]!r}")
        mats = [[given[name][group] for group in groups] for name in names]
        return cls([str(name) for name in names], [[_names(mat) for mat in own] for own in mats], mats)


def _names(mat: Any) -> list[str]:
    if isinstance(mat, pd.DataFrame):
        return [str(name) for name in mat.columns]
    return [str(j) for j in range(mat.shape[1] if sparse.issparse(mat) else np.atleast_2d(np.asarray(mat)).shape[1])]


@dataclass(frozen=True)
class NestedColumns:
    """Rows of one component.

    Attributes
    ----------
    values : ndarray, shape (n, k)
        The one column that is not 0 in a row, or all columns.
    level : ndarray of int, shape (n,), or None
        Which column of which group it is; None where rows have several.
    owner : ndarray of intp
        Group of every level.
    labels : tuple of str
        Column of every level; of every column where `level` is None.
    """

    values: FloatArray
    level: NDArray[np.intp] | None
    owner: NDArray[np.intp]
    labels: tuple[str, ...]


def nested_columns(
    name: str, colnames: Sequence[Sequence[Any]], mats: Sequence[Any], rows: Sequence[NDArray[np.intp]], n: int
) -> NestedColumns:
    """Columns of one component: a level for every column of every group where no row has two, else side by side.

    Raises
    ------
    DataError
        A matrix does not have the rows of its group.
    """
    parts = [sparse.coo_array(mat if sparse.issparse(mat) else np.atleast_2d(np.asarray(mat, float))) for mat in mats]
    for i, (part, own) in enumerate(zip(parts, rows, strict=True)):
        if part.shape[0] != own.size:
            raise DataError(
                f"the matrix of the component {name!r} for group {i} (sorted) has {part.shape[0]} rows, but the group "
                f"has {own.size}"
            )
    widths = [part.shape[1] for part in parts]
    labels = tuple(str(label) for names in colnames for label in names)
    if all(np.bincount(part.row[part.data != 0.0], minlength=1).max(initial=0) <= 1 for part in parts):
        starts = np.minimum(np.concatenate([[0], np.cumsum(widths)[:-1]]), sum(widths) - 1)
        level, values = np.zeros(n, dtype=np.intp), np.zeros((n, 1))
        for part, own, start in zip(parts, rows, starts, strict=True):
            level[own] = start
            used = part.data != 0.0
            level[own[part.row[used]]] = start + part.col[used]
            values[own[part.row[used]], 0] = part.data[used]
        return NestedColumns(values, level, np.repeat(np.arange(len(parts)), widths), labels)
    wide = np.zeros((n, max(widths)))
    for part, own in zip(parts, rows, strict=True):
        wide[own[part.row], part.col] = part.data
    longest = colnames[int(np.argmax(widths))]
    return NestedColumns(wide, None, np.zeros(0, dtype=np.intp), tuple(str(label) for label in longest))
