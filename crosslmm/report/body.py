"""A report as facts, statements and tables of texts; `text` and `html` only lay them out."""

from __future__ import annotations

from dataclasses import dataclass

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
        tables=(_likelihood(content), _residuals(content.resid), _random(content.varcorr), _fixed(content)),
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
    if plan.rest == "none":
        return f"{plan.engine}: {plan.reason}"
    return (
        f"{plan.engine}: {plan.eliminated} eliminated, {plan.rest} factor of the other {plan.rest_size:,} equations "
        f"({plan.reason})"
    )


def _search(fit: Fit) -> str:
    outcome = "converged" if fit.converged else "not converged"
    evaluations = f"{len(fit.iterations)} evaluation" + ("s" if len(fit.iterations) != 1 else "")
    return f"{outcome}, {evaluations}, {numbers.duration(fit.seconds)}: {fit.message}"


def _likelihood(content: ReportContent) -> Table:
    fit = content.fit
    values = (fit.criterion, fit.log_likelihood, content.aic, content.bic)
    header = ("REML criterion" if fit.reml else "-2 log-lik.", "log-lik.", "AIC", "BIC")
    return Table("", header, (tuple(numbers.with_decimals(value, 3) for value in values),))


def _residuals(resid: np.ndarray | None) -> Table:
    if resid is None:
        return Table(
            "Scaled residuals: rows are not in memory; see fit.fitted_batches() and fit.write_fitted(path)", (), ()
        )
    values = np.quantile(resid, list(QUANTILES.values()))
    return Table("Scaled residuals", tuple(QUANTILES), (tuple(numbers.with_decimals(v, 3) for v in values),))


def _random(varcorr: pd.DataFrame) -> Table:
    """lme4's table: a row per column of a term, its correlations with the columns above it."""
    records = varcorr.astype(object).where(varcorr.notna(), None).to_numpy().tolist()
    correlations = {(group, first, second): sdcor for group, first, second, _, sdcor in records if second is not None}
    rows: list[tuple[str, ...]] = []
    above: list[str | None] = []
    shown, widest = "", 0
    for group, name, second, variance, sd in records:
        if second is not None:
            continue
        if group != shown:
            above = []
        known = [correlations[group, other, name] for other in above if (group, other, name) in correlations]
        texts = [numbers.significant(variance), numbers.significant(sd)]
        texts += [numbers.correlation(np.nan if c is None else c) for c in known[:MOST_CORRELATIONS]]
        rows.append(("" if group == shown else group, name or "", *texts))
        widest = max(widest, len(known))
        above.append(name)
        shown = group
    n_corr = min(widest, MOST_CORRELATIONS)
    padded = tuple(row + ("",) * (4 + n_corr - len(row)) for row in rows)
    header = ("Groups", "Name", "Variance", "Std.Dev.", *(("Corr",) if n_corr else ()), *("",) * (n_corr - 1))
    note = "Further correlations are in fit.varcorr." if widest > MOST_CORRELATIONS else ""
    return Table("Random effects", header, padded, n_labels=2, note=note)


def _fixed(content: ReportContent) -> Table:
    rows = []
    for row in content.coefficients.itertuples(name=None):
        name, estimate, error, z, p, lower, upper = row
        values = [numbers.like_error(v, error) for v in (estimate, error)]
        ends = [numbers.like_error(v, error) for v in (lower, upper)]
        rows.append((str(name), *values, numbers.ratio(z), numbers.probability(p), *ends))
    if not rows:
        return Table("Fixed effects: none", (), ())
    header = ("", "estimate", "std. error", "z", "P>|z|", "2.5%", "97.5%")
    return Table("Fixed effects", header, tuple(rows), n_labels=1)
