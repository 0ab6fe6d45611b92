"""Estimated marginal means (least-squares means) and contrasts among them.

Searle, Speed and Milliken (1980, The American Statistician 34, 216-221): predictions on a grid of all levels of the
categories of the fixed part, averaged over those that are not of interest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.design.rows import Design
from crosslmm.errors import ModelError, RankDeficiencyWarning, warn
from crosslmm.inference.adjust import adjusted_half_width, adjusted_p, check_adjustment
from crosslmm.inference.at_fit import method_of
from crosslmm.inference.contrasts import ESTIMABLE, Contrasts
from crosslmm.inference.hypothesis import check_level, estimate_frame
from crosslmm.inference.methods import Method
from crosslmm.inference.reference import MOST_POINTS, WEIGHTS, Reference, column_means
from crosslmm.inference.structure import Structure, context_of, structure_of

if TYPE_CHECKING:
    from crosslmm.results import MixedLMResults

DEFAULT_ADJUSTMENT = {"pairwise": "tukey", "control": "holm"}
"""Adjustment of p-values where none is asked for; custom contrasts have none."""


@dataclass(frozen=True)
class Functions:
    """Linear functions of the coefficients of all columns of X.

    Attributes
    ----------
    whole : ndarray, shape (r, all)
    kept : ndarray of intp, shape (p,)
        Columns that are kept.
    to_kept : ndarray, shape (p, all)
        All columns as combinations of the kept ones, on the rows of the data.
    """

    whole: FloatArray
    kept: NDArray[np.intp]
    to_kept: FloatArray

    def estimable(self) -> FloatArray:
        """The same of the kept columns (r, p); nan where a function cannot be estimated."""
        own = self.whole[:, self.kept]
        left = np.abs(self.whole - own @ self.to_kept).max(axis=1, initial=0.0)
        size = np.abs(self.whole).max(axis=1, initial=0.0) * (1.0 + np.abs(self.to_kept).max(initial=0.0))
        return np.where((left > ESTIMABLE * size)[:, None], np.nan, own)


@dataclass(frozen=True, repr=False)
class MarginalMeans:
    """Estimated marginal means; prints as its frame.

    Attributes
    ----------
    grid : DataFrame
        Level or value of every factor, by mean.
    by : tuple of str
        Factors within whose levels means are compared.
    functions : Functions
        The means as functions of all fixed-effects columns.
    beta : ndarray, shape (p,)
    method : Method
    level : float
        Of the intervals.
    averaged : tuple of str
        Categories that were averaged over, and numbers with their values.
    """

    grid: pd.DataFrame
    by: tuple[str, ...]
    functions: Functions
    beta: FloatArray
    method: Method
    level: float
    averaged: tuple[str, ...]

    def to_frame(self) -> pd.DataFrame:
        """Means by row of the grid: estimate, std_error, df, statistic (against 0), p_value, lower, upper.

        Where the engine sampled also std_error_mc_error and df_mc_error. Means that cannot be estimated are nan, and
        warned of.
        """
        if self._unknown:
            warn(self._unknown, RankDeficiencyWarning)
        return self._frame()

    def _frame(self) -> pd.DataFrame:
        return pd.concat(
            [self.grid, _estimates(self.functions.estimable(), self.beta, self.method, self.level)], axis=1
        )

    @property
    def _unknown(self) -> str:
        return _not_estimable(np.isnan(self.functions.estimable().sum(axis=1)), "means")

    @property
    def notes(self) -> tuple[str, ...]:
        """What must be said beside the numbers."""
        return (*([self._unknown] if self._unknown else []), *self.method.notes)

    def contrasts(
        self,
        kind: str | Mapping[str, Any] = "pairwise",
        *,
        adjust: str | None = None,
        reference: Any = None,
        level: float | None = None,
    ) -> pd.DataFrame:
        """Differences and other contrasts of the means, within the levels of `by`.

        Parameters
        ----------
        kind : {"pairwise", "control"} or dict
            All differences; differences from a control; or weights of the means (in the order of the grid) by name.
        adjust : {"tukey", "dunnett", "holm", "bonferroni", "none"}, optional
            For all contrasts within one level of `by`. By default ``"tukey"`` for pairs, ``"holm"`` for a control and
            ``"none"`` for others; ``"dunnett"`` is for a control. Intervals are simultaneous too; with ``"holm"``
            they are Bonferroni's.
        reference : optional
            The control: a level (a tuple of levels where there are several factors); the first by default.
        level : float, optional
            Of the intervals; by default that of the means.

        Returns
        -------
        DataFrame
            Columns of `by`, contrast, estimate, std_error, df, statistic, p_value, lower, upper (and std_error_mc_error
            and df_mc_error where the engine sampled).

        Warns
        -----
        RankDeficiencyWarning
            Some contrasts cannot be estimated; they are nan.

        Raises
        ------
        ModelError
            The kind, adjustment or control is unknown, or weights do not fit the means.
        """
        named = kind if isinstance(kind, str) else "custom"
        chosen = check_adjustment(adjust if adjust is not None else DEFAULT_ADJUSTMENT.get(named, "none"))
        if chosen == "tukey" and named != "pairwise":
            raise ModelError("adjust='tukey' is for all pairwise differences; use 'holm' or 'bonferroni' here")
        if chosen == "dunnett" and named != "control":
            raise ModelError("adjust='dunnett' is for differences from a control; use 'tukey', 'holm' or 'bonferroni'")
        if reference is not None and named != "control":
            raise ModelError(f"reference={reference!r} is for kind='control', not for {named!r}")
        width = self.level if level is None else check_level(level)
        parts = []
        for group, rows in self._groups():
            names, W = _weights(kind, [self._label(i) for i in rows], self._position(reference, rows))
            L = Functions(W @ self.functions.whole[rows], self.functions.kept, self.functions.to_kept).estimable()
            frame = _estimates(L, self.beta, self.method, width)
            t, df = frame["statistic"].to_numpy(), frame["df"].to_numpy()
            correlation = _correlation(L, self.method.covariance)
            half = adjusted_half_width(width, df, chosen, len(rows), correlation) * frame["std_error"].to_numpy()
            frame["p_value"] = adjusted_p(t, df, chosen, len(rows), correlation)
            frame["lower"], frame["upper"] = frame["estimate"] - half, frame["estimate"] + half
            frame.insert(0, "contrast", names)
            for position, (name, value) in enumerate(zip(self.by, group, strict=True)):
                frame.insert(position, name, [value] * len(frame))
            parts.append(frame)
        table = pd.concat(parts, ignore_index=True)
        unknown = _not_estimable(table["estimate"].isna().to_numpy(), "contrasts")
        if unknown:
            warn(unknown, RankDeficiencyWarning)
        return table

    def _groups(self) -> list[tuple[tuple[Any, ...], list[int]]]:
        """Levels of `by`, and the rows of the grid that have them."""
        keys = [tuple(row) for row in self.grid[list(self.by)].itertuples(index=False)]
        return [(key, [i for i, other in enumerate(keys) if other == key]) for key in dict.fromkeys(keys)]

    def _levels(self, i: int) -> tuple[Any, ...]:
        return tuple(self.grid[name].iloc[i] for name in self.grid.columns if name not in self.by)

    def _label(self, i: int) -> str:
        return " ".join(f"{level:g}" if isinstance(level, float) else str(level) for level in self._levels(i))

    def _position(self, reference: Any, rows: list[int]) -> int:
        if reference is None:
            return 0
        wanted = reference if isinstance(reference, tuple) else (reference,)
        for position, i in enumerate(rows):
            if self._levels(i) == wanted:
                return position
        known = ", ".join(self._label(i) for i in rows)
        raise ModelError(f"reference={reference!r} is none of the means; they are: {known}")

    def __repr__(self) -> str:
        over = f"\naveraged over or held at: {', '.join(self.averaged)}" if self.averaged else ""
        table = self._frame().to_string(index=False, float_format=lambda number: f"{number:.5g}")
        return "\n".join([f"Estimated marginal means, {self.method.name} degrees of freedom{over}", table, *self.notes])


def _not_estimable(unknown: NDArray[np.bool_], what: str) -> str:
    """What is to be said of rows that are nan; ``""`` where there are none."""
    if not unknown.any():
        return ""
    return (
        f"{int(unknown.sum())} of {unknown.size} {what} cannot be estimated and are nan: the rows of the data do not "
        "tell them (cells without rows, or values that break a dependence between columns)."
    )


def _correlation(L: FloatArray, covariance: FloatArray) -> FloatArray:
    """Of the estimates of the rows of L (m, p); nan for those that cannot be estimated."""
    product = L @ covariance @ L.T
    errors = np.sqrt(np.diag(product))
    return np.asarray(product / np.outer(errors, errors))


def _weights(kind: str | Mapping[str, Any], labels: list[str], control: int) -> tuple[list[str], FloatArray]:
    """Names (m,) and weights (m, n) of contrasts of n means."""
    n = len(labels)
    unit = np.eye(n)
    if isinstance(kind, Mapping):
        if not kind:
            raise ModelError("kind={}: there is no contrast in it; expected weights by name, {'first': [1, -1, 0]}")
        return list(map(str, kind)), np.array([_custom(name, weights, n) for name, weights in kind.items()])
    if kind == "pairwise":
        pairs = list(combinations(range(n), 2))
    elif kind == "control":
        pairs = [(i, control) for i in range(n) if i != control]
    else:
        raise ModelError(f"kind={kind!r}: expected 'pairwise', 'control' or a dict of weights by name")
    if not pairs:
        raise ModelError("there is one mean only: nothing to compare")
    return [f"{labels[i]} - {labels[j]}" for i, j in pairs], np.array([unit[i] - unit[j] for i, j in pairs])


def _custom(name: str, weights: Any, n: int) -> FloatArray:
    try:
        row = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ModelError(f"the contrast {name!r} must be {n} numbers, not {weights!r}") from error
    if row.shape != (n,) or not np.isfinite(row).all() or not row.any():
        raise ModelError(f"the contrast {name!r} must be {n} finite numbers, one per mean and not all 0")
    return row


def _estimates(L: FloatArray, beta: FloatArray, method: Method, level: float) -> pd.DataFrame:
    """Estimates of functions (r, p); nan for those that cannot be estimated."""
    known = ~np.isnan(L).any(axis=1)
    labels = tuple(map(str, np.flatnonzero(known)))
    frame = estimate_frame(Contrasts(labels, L[known], np.zeros(len(labels))), beta, method, level)
    frame.index = pd.Index(np.flatnonzero(known))
    return frame.reindex(range(len(L)))


def marginal_means(
    fit: MixedLMResults,
    factors: str | Sequence[str],
    *,
    by: str | Sequence[str] = (),
    at: Mapping[str, Any],
    weights: str,
    ddf: str,
    level: float,
) -> MarginalMeans:
    """Means of the response at levels of factors, averaged over the other categories of the fixed part.

    Parameters
    ----------
    fit : MixedLMResults
    factors : str or sequence of str
        Categories (or numbers with values in `at`) whose combinations the means are for.
    by : str or sequence of str
        The same; contrasts are made within their levels.
    at : mapping
        Values of numbers: one, or several for those in `factors` or `by`; levels to keep of a category. Other numbers
        are at their means over the rows: a number in the formula such as ``np.log(x)`` at the mean of its values.
    weights : {"equal", "proportional", "outer"}
        Of the levels averaged over: all alike, as often as their combinations occur in the rows, or as often as each
        occurs by itself.
    ddf : {"satterthwaite", "kenward-roger", "residual", "normal"}
    level : float

    Returns
    -------
    MarginalMeans

    Raises
    ------
    ModelError
        A factor, level, weight or value is unknown, or missing.
    """
    if weights not in WEIGHTS:
        raise ModelError(f"weights={weights!r}: expected one of {', '.join(map(repr, WEIGHTS))}")
    if not isinstance(at, Mapping):
        raise ModelError(f"at={at!r}: expected a dict of values by name, at={{'x': 1.0}}")
    structure = structure_of(fit, "marginal means")
    targets, groups = _names(factors, "factors"), _names(by, "by")
    axes = _axes(structure, (*groups, *targets), at)
    _check_at(structure, at, axes)
    design = fit.model.design
    reference = Reference(
        structure=structure,
        context=context_of(fit),
        at={name: _one_value(name, value) for name, value in at.items() if name not in axes},
        weights=weights,
        column_means=column_means(structure, design.X if isinstance(design, Design) else None),
    )
    grid = pd.DataFrame(list(product(*axes.values())), columns=list(axes))
    return MarginalMeans(
        grid=grid[[*targets, *groups]],
        by=groups,
        functions=_functions(reference, grid),
        beta=fit.estimates.beta,
        method=method_of(fit, ddf),
        level=check_level(level),
        averaged=_averaged(reference, axes),
    )


def _names(given: str | Sequence[str], what: str) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)
    if not all(isinstance(name, str) for name in names) or (what == "factors" and not names):
        raise ModelError(f"{what}={given!r}: expected the name of a factor or a list of names")
    return names


def _category(structure: Structure, name: str) -> int | None:
    """Position of the category that a name stands for: as in the formula, or its column of the data."""
    found = [i for i, v in enumerate(structure.variables) if v.is_category and (v.name == name or v.data == (name,))]
    if len(found) > 1:
        raise ModelError(f"{name!r} is coded in several ways in this formula, so its means are not defined by its name")
    return found[0] if found else None


def _axes(structure: Structure, names: tuple[str, ...], at: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Levels or values of every factor of the grid."""
    axes: dict[str, list[Any]] = {}
    for name in names:
        if name in axes:
            raise ModelError(f"{name!r} is named twice")
        place = _category(structure, name)
        if place is not None:
            levels = list(structure.variables[place].levels)
            chosen = _as_list(at[name]) if name in at else levels
            unknown = [level for level in chosen if level not in levels]
            if unknown or not chosen:
                raise ModelError(f"{name!r} has no level {unknown!r}; its levels are {levels}")
            axes[name] = chosen
        elif _is_number(structure, name):
            if name not in at:
                raise ModelError(f"{name!r} is a number: say at which values, at={{{name!r}: [...]}}")
            axes[name] = [_one_value(name, value) for value in _as_list(at[name])]
            if not axes[name]:
                raise ModelError(f"at[{name!r}] holds no value")
        else:
            known = ", ".join(sorted({n for v in structure.variables for n in (v.name, *v.data)}))
            raise ModelError(f"{name!r} is not in the fixed part, which has {known or 'no variables'}")
        if len(set(axes[name])) < len(axes[name]):
            raise ModelError(f"at[{name!r}] names a level or value twice")
    if np.prod([float(len(axis)) for axis in axes.values()]) > MOST_POINTS:
        raise ModelError(f"the grid would have more than {MOST_POINTS:,} means; restrict levels with at={{}}")
    return axes


def _is_number(structure: Structure, name: str) -> bool:
    return any(name == v.name or name in v.data for v in structure.variables if not v.is_category)


def _check_at(structure: Structure, at: Mapping[str, Any], axes: Mapping[str, Any]) -> None:
    for name in at:
        if name not in axes and not _is_number(structure, name):
            hint = (
                "add it to factors or by" if _category(structure, name) is not None else "it is not in the fixed part"
            )
            raise ModelError(f"at gives {name!r}: {hint}")


def _as_list(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray) else list(value)


def _one_value(name: str, value: Any) -> float:
    try:
        number = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ModelError(f"at[{name!r}] must be a number, not {value!r}") from error
    if number.size != 1 or not np.isfinite(number).all():
        raise ModelError(
            f"at[{name!r}] must be a finite number (several where {name!r} is in factors or by), not {value!r}"
        )
    return float(number.reshape(-1)[0])


def _functions(reference: Reference, grid: pd.DataFrame) -> Functions:
    """The means as functions of the coefficients."""
    structure = reference.structure
    rows = []
    places = {name: _category(structure, str(name)) for name in grid.columns}
    for point in grid.itertuples(index=False):
        levels: dict[int, int] = {}
        numbers: dict[str, float] = {}
        for name, value in zip(grid.columns, point, strict=True):
            place = places[name]
            if place is None:
                numbers[str(name)] = float(value)
            else:
                levels[place] = structure.variables[place].levels.index(value)
        rows.append(reference.row(levels, numbers))
    return Functions(np.array(rows), structure.kept, structure.to_kept)


def _averaged(reference: Reference, axes: Mapping[str, Any]) -> tuple[str, ...]:
    """Categories averaged over, and numbers with the values they are held at, as text."""
    structure, said = reference.structure, []
    for v in structure.variables:
        if v.is_category and v.name not in axes and not (len(v.data) == 1 and v.data[0] in axes):
            said.append(v.name)
        if not v.is_category and v.name not in axes and not set(v.data) & set(axes):
            values = reference.number(v, reference.at)
            said.append(f"{v.name} = {', '.join(f'{value:.5g}' for value in values)}")
    return tuple(said)
