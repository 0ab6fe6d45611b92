"""A report as facts, statements and tables of texts; `text` and `html` only lay them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from crosslmm.fit import Fit
from crosslmm.report import numbers
from crosslmm.report.content import ReportContent
from crosslmm.report.notes import statements

QUANTILES = {"Min": 0.0, "1Q": 0.25, "Median": 0.5, "3Q": 0.75, "Max": 1.0}

MOST_CORRELATIONS = 6
"""Columns of correlations that are shown; a wider covariance matrix is left to `varcorr`."""


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes
    ----------
    title : str
    header : tuple of str
    rows : tuple of tuple of str
    n_labels : int
        Leading columns that hold names (left-aligned); all others hold numbers.
    note : str
        A line below the table, or ``""``.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    n_labels: int = 0
    note: str = ""


@dataclass(frozen=True)
class Body:
    """All texts of a report.

    Attributes
    ----------
    title : str
    facts : tuple of (label, text)
    notes : tuple of str
    tables : tuple of Table
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    tables: tuple[Table, ...]


def body(content: ReportContent) -> Body:
    """Put the content of a report into words."""
    fit = content.fit
    method = "REML" if fit.reml else "maximum likelihood (ML)"
    return Body(
        title=f"Linear mixed model fit by {method}",
        facts=(
            ("Formula", content.formula),
            ("Rows", _rows(content)),
            ("Levels", ", ".join(f"{f.name} {f.n_levels:,}" for f in fit.layout.factors)),
            ("Engine", _engine(fit)),
            ("Search", _search(fit)),
        ),
        notes=tuple(statements(fit)),
        tables=(_likelihood(content), _residuals(content.resid), _random(content), _fixed(content)),
    )


def _rows(content: ReportContent) -> str:
    text = f"{content.fit.n:,} used"
    if content.n_dropped:
        text += f", {content.n_dropped:,} dropped because of missing values"
    if content.weighted:
        text += "; prior weights (the residual variance is that of a row of weight 1)"
    if content.offset:
        text += "; offset"
    return text


def _engine(fit: Fit) -> str:
    plan = fit.plan
    if plan.rest == "none" and not plan.border:
        return f"{plan.engine}: {plan.reason}"
    parts = [f"{plan.eliminated} eliminated"]
    if plan.engine == "direct":
        parts.append(f"{plan.rest} factor of the other {plan.rest_size:,} equations")
    elif plan.rest_size:
        parts.append(f"conjugate gradients on {plan.rest_size:,} equations")
    if plan.border:
        parts.append(f"{', '.join(plan.border)} exact in the border")
    if fit.sampling is not None:
        parts.append(f"{fit.sampling.n_probes} probes")
    return f"{plan.engine}: {', '.join(parts)} ({plan.reason})"


def _search(fit: Fit) -> str:
    outcome = "converged" if fit.converged else "not converged"
    evaluations = f"{len(fit.iterations)} evaluation" + ("s" if len(fit.iterations) != 1 else "")
    steps = sum(iteration.cg_steps for iteration in fit.iterations)
    solver = f", {steps} conjugate gradient steps" if steps else ""
    return f"{outcome}, {evaluations}{solver}, {numbers.duration(fit.seconds)}: {fit.message}"


def _likelihood(content: ReportContent) -> Table:
    fit = content.fit
    values = (fit.criterion, fit.log_likelihood, content.aic, content.bic)
    header = ("REML criterion" if fit.reml else "-2 log-lik.", "log-lik.", "AIC", "BIC")
    if fit.sampling is None:
        return Table("", header, (tuple(numbers.with_decimals(value, 3) for value in values),))
    error = fit.sampling.criterion_error
    errors = (error, 0.5 * error, error, error)
    rows = tuple(
        (label, *(numbers.with_decimals(value, 3) for value in row))
        for label, row in (("", values), ("Monte Carlo error", errors))
    )
    return Table("", ("", *header), rows, n_labels=1)


def _residuals(resid: np.ndarray | None) -> Table:
    if resid is None:
        return Table(
            "Scaled residuals: left out (another pass); see fit.fitted_batches(), fit.write_fitted(path)", (), ()
        )
    values = np.quantile(resid, list(QUANTILES.values()))
    return Table("Scaled residuals", tuple(QUANTILES), (tuple(numbers.with_decimals(v, 3) for v in values),))


def _random(content: ReportContent) -> Table:
    """lme4's table: a row per column of a term, its correlations with the columns above it.

    Where the fit was sampled, standard error and Monte Carlo error of the standard deviation stand beside it.
    """
    records = _records(content.varcorr)
    correlations = {(group, first, second): sdcor for group, first, second, _, sdcor in records if second is not None}
    errors = _errors(content)
    rows: list[tuple[str, ...]] = []
    above: list[str | None] = []
    shown, widest = "", 0
    for (group, name, second, variance, sd), error in zip(records, errors, strict=True):
        if second is not None:
            continue
        if group != shown:
            above = []
        known = [correlations[group, other, name] for other in above if (group, other, name) in correlations]
        texts = [numbers.significant(variance), numbers.significant(sd), *error]
        texts += [numbers.correlation(np.nan if c is None else c) for c in known[:MOST_CORRELATIONS]]
        rows.append(("" if group == shown else group, name or "", *texts))
        widest = max(widest, len(known))
        above.append(name)
        shown = group
    n_corr = min(widest, MOST_CORRELATIONS)
    labels = ("Groups", "Name", "Variance", "Std.Dev.", *(("Std.Err.", "MC Err.") if any(errors) else ()))
    padded = tuple(row + ("",) * (len(labels) + n_corr - len(row)) for row in rows)
    header = (*labels, *(("Corr",) if n_corr else ()), *("",) * (n_corr - 1))
    note = "Further correlations are in fit.varcorr." if widest > MOST_CORRELATIONS else ""
    return Table("Random effects", header, padded, n_labels=2, note=note)


def _records(frame: pd.DataFrame) -> list[list[Any]]:
    return frame.astype(object).where(frame.notna(), None).to_numpy().tolist()


def _errors(content: ReportContent) -> list[tuple[str, ...]]:
    """Standard error and Monte Carlo error of sdcor, row by row of `varcorr`; empty where nothing was sampled."""
    if content.varcorr_se is None or content.varcorr_mc_error is None:
        return [()] * len(content.varcorr)
    pairs = zip(content.varcorr_se["sdcor"], content.varcorr_mc_error["sdcor"], strict=True)
    return [tuple(numbers.error(error) for error in pair) for pair in pairs]


def _fixed(content: ReportContent) -> Table:
    """Estimates with their intervals; degrees of freedom stand in it where the tests are not normal."""
    frame = content.coefficients
    rows = []
    for name, values in zip(frame.index, frame.to_numpy(), strict=True):
        row = dict(zip(frame.columns, values, strict=True))
        error = row["std. error"]
        rows.append((str(name), *(_cell(column, value, error) for column, value in row.items())))
    if not rows:
        return Table("Fixed effects: none", (), ())
    return Table("Fixed effects", ("", *frame.columns), tuple(rows), n_labels=1, note=content.coefficients_note)


def _cell(column: str, value: float, error: float) -> str:
    """A number of the table of fixed effects."""
    if column in ("z", "t"):
        return numbers.ratio(value)
    if column.startswith("P>"):
        return numbers.probability(value)
    return numbers.significant(value, 4) if column == "df" else numbers.like_error(value, error)
