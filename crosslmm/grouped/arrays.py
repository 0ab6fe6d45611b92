"""Arrays, as statsmodels' constructor takes them, to a table with a formula."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosslmm.design.groups import GROUP, label_values
from crosslmm.errors import DataError, ModelError
from crosslmm.formula import Component, GroupPart, MixedFormula, RandomTerm, with_bars
from crosslmm.grouped.components import NestedColumns, VCSpec, nested_columns


@dataclass(frozen=True)
class Assembled:
    """A table and the formula that stands for the arrays.

    Attributes
    ----------
    formula : MixedFormula
    frame : pandas.DataFrame
    exog : tuple of str
        Columns of the table that stand for `exog`.
    re_names : tuple of str
        Names of the random effects of a group.
    re_full : tuple of str or None
        Names of their variances, where they do not follow from `re_names`.
    components : dict of str to NestedColumns
        By the text of the term.
    labelled : bool
        Whether the arrays were pandas objects.
    """

    formula: MixedFormula
    frame: pd.DataFrame
    exog: tuple[str, ...]
    re_names: tuple[str, ...]
    re_full: tuple[str, ...] | None
    components: Mapping[str, NestedColumns]
    labelled: bool


def assemble(endog: Any, exog: Any, groups: Any, exog_re: Any, exog_vc: Any) -> Assembled:
    """Put arrays side by side.

    Raises
    ------
    DataError
        They differ in length, or are no numbers.
    """
    y = _matrix(endog, "endog")
    if y.shape[1] != 1:
        raise DataError(f"endog must be one column of numbers, but has {y.shape[1]}")
    X = _matrix(exog, "exog")
    n = y.shape[0]
    table = _Table({}, n)
    response = table.add(_endog_name(endog), y[:, 0])
    names = _exog_names(exog, X)
    table.check("exog", X)
    columns = tuple(table.add(name, X[:, j]) for j, name in enumerate(names))
    column = table.add_groups(groups)
    components = {} if exog_vc is None else _components(exog_vc, table.columns[column], n)
    terms, re_text, re_names, re_full = _random_effects(exog_re, table, column, bool(components))
    parts, by_term = [], {}
    for name, found in components.items():
        term = _component_term(name, found, table, column)
        terms.append(term)
        parts.append(Component(name, term.text, (("", None),) if found.level is not None else ()))
        by_term[term.text] = found
    fixed = " + ".join(["0", *map(quoted, columns)])
    formula = MixedFormula(
        source=with_bars(f"{quoted(response)} ~ {fixed}", terms),
        response=quoted(response),
        fixed=fixed,
        random=tuple(terms),
        groups=GroupPart(column, GROUP, re_text, tuple(parts)),
    )
    labelled = any(isinstance(values, (pd.DataFrame, pd.Series)) for values in (endog, exog))
    return Assembled(formula, table.frame(_index(endog, exog)), columns, re_names, re_full, by_term, labelled)


def quoted(name: str) -> str:
    """A column name as formula text."""
    return name if name.isidentifier() else f"`{name}`"


@dataclass
class _Table:
    """Columns with names of their own, while they are put together."""

    columns: dict[str, Any]
    n: int

    def add(self, name: str, values: Any) -> str:
        """The name under which the column stands; another one of that name with the same values is shared."""
        name = str(name).replace("`", "'")
        while name in self.columns:
            known = self.columns[name]
            if isinstance(values, np.ndarray) and np.array_equal(np.asarray(known), values):
                return name
            name += "_"
        self.columns[name] = values
        return name

    def check(self, what: str, values: NDArray[Any]) -> None:
        if values.shape[0] != self.n:
            raise DataError(f"{what} has {values.shape[0]} rows, but endog has {self.n}")

    def add_groups(self, groups: Any) -> str:
        values = label_values(groups)
        if np.shape(values) != (self.n,):
            raise DataError(
                f"groups must hold one label for each of the {self.n} rows of endog, but has shape {np.shape(values)}"
            )
        if pd.isna(values).any():
            raise DataError(f"groups misses {int(pd.isna(values).sum())} labels; leave these rows out")
        name = GROUP
        while name in self.columns:
            name += "_"
        self.columns[name] = values
        return name

    def frame(self, index: pd.Index | None) -> pd.DataFrame:
        return pd.DataFrame(self.columns, index=pd.RangeIndex(self.n) if index is None else index)


def _index(endog: Any, exog: Any) -> pd.Index | None:
    return next((values.index for values in (endog, exog) if isinstance(values, (pd.DataFrame, pd.Series))), None)


def _matrix(values: Any, what: str) -> NDArray[np.float64]:
    if values is None:
        raise DataError(f"{what} is missing; a model needs endog, exog and groups")
    try:
        if isinstance(values, pd.DataFrame) and not all(pd.api.types.is_numeric_dtype(kind) for kind in values.dtypes):
            raise TypeError("columns that are not numbers")
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{what} must be numbers ({error}); write a formula, which codes categories: crosslmm.mixedlm(...)"
        ) from error
    if array.ndim not in (1, 2):
        raise DataError(f"{what} must have one or two dimensions, not {array.ndim}")
    return array[:, None] if array.ndim == 1 else array


def _endog_name(endog: Any) -> str:
    if isinstance(endog, pd.Series) and endog.name is not None:
        return str(endog.name)
    if isinstance(endog, pd.DataFrame):
        return str(endog.columns[0])
    return "y"


def _exog_names(exog: Any, X: NDArray[np.float64]) -> list[str]:
    """Names of the columns; of an array, statsmodels' ``const, x1, x2, ...``."""
    if isinstance(exog, pd.DataFrame):
        names = [str(name) for name in exog.columns]
        twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
        if twice is not None:
            raise DataError(f"exog has two columns named {twice!r}; rename one")
        return names
    if isinstance(exog, pd.Series) and exog.name is not None:
        return [str(exog.name)]
    spread = np.var(X, axis=0)
    if not np.any(spread == 0.0):
        return [f"x{j + 1}" for j in range(X.shape[1])]
    names = [f"x{j}" for j in range(1, X.shape[1])]
    names.insert(int(np.argmin(spread)), "const")
    return names


def _random_effects(
    exog_re: Any, table: _Table, column: str, components: bool
) -> tuple[list[RandomTerm], str | None, tuple[str, ...], tuple[str, ...] | None]:
    """The term of the random effects of a group, its text, and statsmodels' names."""
    if exog_re is None and components:
        return [], None, (), None
    if exog_re is None:
        text = f"(1 | {column})"
        return [RandomTerm("1", (column,), column, "unstructured", text)], text, ("Group",), ("Group Var",)
    Z = _matrix(exog_re, "exog_re")
    table.check("exog_re", Z)
    if isinstance(exog_re, pd.DataFrame):
        names = tuple(str(name) for name in exog_re.columns)
    elif isinstance(exog_re, pd.Series) and exog_re.name is not None:
        names = (str(exog_re.name),)
    else:
        names = tuple(f"x_re{j + 1}" for j in range(Z.shape[1]))
    stored = [table.add(name, Z[:, j]) for j, name in enumerate(names)]
    if len(set(stored)) < len(stored):
        raise DataError("two columns of exog_re are the same; their covariances cannot be told apart: leave one out")
    columns = " + ".join(["0", *map(quoted, stored)])
    text = f"({columns} | {column})"
    return [RandomTerm(columns, (column,), column, "unstructured", text)], text, names, None


def _components(exog_vc: Any, groups: Any, n: int) -> dict[str, NestedColumns]:
    labels = np.asarray(groups)
    order, codes = np.unique(labels, return_inverse=True)
    rows = [np.flatnonzero(codes == g) for g in range(len(order))] if len(order) < 2 else _rows_by(codes, len(order))
    spec = VCSpec.of(exog_vc, order.tolist())
    return {name: nested_columns(name, spec.colnames[k], spec.mats[k], rows, n) for k, name in enumerate(spec.names)}


def _rows_by(codes: NDArray[np.intp], n_groups: int) -> Sequence[NDArray[np.intp]]:
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.cumsum(np.bincount(codes, minlength=n_groups))[:-1])


def _component_term(name: str, found: NestedColumns, table: _Table, column: str) -> RandomTerm:
    """The term of one component; its rows go into the table."""
    if found.level is not None:
        level = table.add(f"{name} (level)", found.level)
        constant = bool(np.all(found.values == 1.0))
        columns = "1" if constant else f"0 + {quoted(table.add(f'{name} (value)', found.values[:, 0]))}"
        return RandomTerm(columns, (level,), level, "identity", f"{name}: ({columns} | {level})")
    if found.values.shape[1] == 0:
        raise ModelError(f"the variance component {name!r} has no columns")
    stored = [table.add(f"{name} [{j}]", found.values[:, j]) for j in range(found.values.shape[1])]
    columns = " + ".join(["0", *map(quoted, stored)])
    return RandomTerm(columns, (column,), column, "identity", f"{name}: ({columns} | {column})")
