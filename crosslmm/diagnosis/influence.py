"""Influence: what the estimates would be without a row, or without all rows of a group.

Rows are deleted at the estimated theta, where that is a formula: with h the leverage and r the row of ``W^-1 V^-1 X``,

    beta - beta_(-i) = (X' V^-1 X)^-1 r_i w_i e_i / (1 - h_i)

(Christensen, Pearson and Johnson 1992, Technometrics 34). Groups are deleted by summing the products of the other rows
and fitting again from the theta of the whole: to the optimum, or by one Newton step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from crosslmm.covariance import FloatArray
from crosslmm.diagnosis.deletion import Deletion, group_labels, without_group
from crosslmm.diagnosis.leverage import row_hats
from crosslmm.diagnosis.residuals import DECIDED
from crosslmm.errors import ModelError
from crosslmm.inference.parameters import FIXED, parameter_values, parameters
from crosslmm.progress import Rows, meter

if TYPE_CHECKING:
    from crosslmm.results import MixedLMResults

AUTO, REFIT, ONE_STEP, HELD = "auto", "refit", "one-step", "theta held"
METHODS = (AUTO, REFIT, ONE_STEP)

MOST_REFITS = 100
"""Groups up to which ``method="auto"`` fits to the optimum each time."""


@dataclass(frozen=True, repr=False)
class Influence:
    """Estimates with rows left out.

    Attributes
    ----------
    groups : str
        What was left out, one after another: ``"rows"``, or levels of this.
    method : {"refit", "one-step", "theta held"}
        How the estimates without them were made: fitted to the optimum, by one Newton step from the theta of the whole
        data, or with theta as it is.
    fixed : DataFrame
        Fixed effects without the row or group of each line.
    dfbeta : DataFrame
        Fixed effects of the whole data less `fixed`, as in R.
    dfbetas : DataFrame
        The same over the standard errors of the whole data.
    cooks_distance : Series
        ``dfbeta' cov(beta)^-1 dfbeta / p``, with the covariance of the whole data.
    components : DataFrame or None
        Standard deviations and correlations without the group of each line; None where theta was held.
    refused : dict
        Groups without which the model cannot be estimated, and why; their lines are nan.
    """

    groups: str
    method: str
    fixed: pd.DataFrame
    dfbeta: pd.DataFrame
    dfbetas: pd.DataFrame
    cooks_distance: pd.Series
    components: pd.DataFrame | None
    refused: dict[Any, str]

    def __repr__(self) -> str:
        most = self.cooks_distance.sort_values(ascending=False).head(10)
        table = pd.concat([most, self.dfbetas.loc[most.index].add_prefix("dfbetas ")], axis=1)
        lines = [f"Influence of {self.groups} ({len(self.fixed):,} left out in turn; {self.method}), the largest first"]
        lines.append(table.to_string(float_format=lambda value: f"{value:.4g}"))
        lines += [f"Not estimated without {label}: {why}" for label, why in self.refused.items()]
        return "\n".join(lines)


def influence(
    fit: MixedLMResults,
    groups: Any = None,
    *,
    method: str = AUTO,
    levels: Sequence[Any] | None = None,
    progress: bool | Rows | None = None,
) -> Influence:
    """Estimates without each row, or without each group of rows.

    Parameters
    ----------
    fit : MixedLMResults
    groups : str or array, optional
        A grouping factor of the model, or one label per row used (a Series is matched by its index). By default single
        rows are left out, with theta held.
    method : {"auto", "refit", "one-step"}
        For groups: fit to the optimum without each of them, or take one Newton step from the theta of the whole data.
        ``"auto"`` refits up to 100 groups. The result says which.
    levels : sequence, optional
        Groups to leave out; all by default.
    progress : bool or callable, optional
        As for `MixedLM.from_formula`; for groups.

    Raises
    ------
    ModelError
        No such factor or level, unknown method, no fixed effects, or a model without rows.
    DataError
        The labels do not fit the rows.
    """
    if fit.estimates.beta.size == 0:
        raise ModelError("influence is told by fixed effects, and this model has none")
    if method not in METHODS:
        raise ModelError(f"method={method!r}: expected one of {', '.join(map(repr, METHODS))}")
    if groups is None:
        if method != AUTO or levels is not None:
            raise ModelError("method= and levels= are for groups; single rows are left out with theta held")
        return _of_rows(fit)
    name, codes, labels = group_labels(fit, groups)
    wanted = _wanted(labels, levels, name)
    if method == AUTO:
        method = REFIT if wanted.size <= MOST_REFITS else ONE_STEP
    found = []
    with meter(progress) as shown:
        for done, code in enumerate(wanted, start=1):
            found.append(without_group(fit, codes, int(code), one_step=method == ONE_STEP))
            shown.rows("influence", done, wanted.size, "groups")
    return _collect(fit, name, method, pd.Index(labels[wanted], name=name), found)


def _wanted(labels: pd.Index, levels: Sequence[Any] | None, name: str) -> np.ndarray:
    if levels is None:
        return np.arange(len(labels))
    if isinstance(levels, str):
        levels = [levels]
    places = labels.get_indexer(pd.Index(list(levels)))
    if (places < 0).any():
        missing = list(levels)[int(np.flatnonzero(places < 0)[0])]
        raise ModelError(f"levels holds {missing!r}, which is no level of {name}; they are as {labels[0]!r}")
    return places


def _of_rows(fit: MixedLMResults) -> Influence:
    estimates = fit.estimates
    parts, labels = [], []
    for rows in row_hats(fit):
        left = 1.0 - rows.leverage
        share = rows.weights * rows.resid / np.where(left > DECIDED, left, np.nan)
        parts.append((rows.pull * share[:, None]) @ (estimates.beta_cov / estimates.sigma**2))
        labels.append(rows.index)
    index = labels[0].append(labels[1:]) if len(labels) > 1 else labels[0]
    return _result(fit, "rows", HELD, index, np.concatenate(parts), None, {})


def _collect(fit: MixedLMResults, name: str, method: str, index: pd.Index, found: list[Deletion]) -> Influence:
    layout, p = fit.estimates.layout, fit.estimates.beta.size
    random = [i for i, parameter in enumerate(parameters(layout)) if parameter.kind != FIXED]
    labels = [parameters(layout)[i].name for i in random]
    change = np.full((len(found), p), np.nan)
    components = np.full((len(found), len(labels)), np.nan)
    refused: dict[Any, str] = {}
    for i, deletion in enumerate(found):
        if deletion.fit is None:
            refused[index[i]] = deletion.refused
            continue
        other = deletion.fit
        change[i] = fit.estimates.beta - other.beta
        values = parameter_values(layout, other.theta[None], np.array([other.sigma]), other.beta[None])
        components[i] = values[0, random]
    table = pd.DataFrame(components, index=index, columns=labels)
    return _result(fit, name, method, index, change, table, refused)


def _result(
    fit: MixedLMResults,
    name: str,
    method: str,
    index: pd.Index,
    change: FloatArray,
    components: pd.DataFrame | None,
    refused: dict[Any, str],
) -> Influence:
    estimates = fit.estimates
    columns = pd.Index(estimates.layout.fixed)
    half = np.linalg.solve(np.linalg.cholesky(estimates.beta_cov), change.T)
    distance = np.einsum("pn,pn->n", half, half) / estimates.beta.size
    return Influence(
        groups=name,
        method=method,
        fixed=pd.DataFrame(estimates.beta - change, index=index, columns=columns),
        dfbeta=pd.DataFrame(change, index=index, columns=columns),
        dfbetas=pd.DataFrame(change / estimates.beta_se, index=index, columns=columns),
        cooks_distance=pd.Series(distance, index=index, name="cooks_distance"),
        components=components,
        refused=refused,
    )
