"""A plain-language list of what a reader of a fit should know."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crosslmm.diagnosis.collinearity import vif
from crosslmm.errors import ModelError
from crosslmm.report.notes import singular_components

if TYPE_CHECKING:
    from crosslmm.results import MixedLMResults

PROBLEM, NOTE = "problem", "note"

HIGH_VIF = 10.0
"""Inflation of the variance, per degree of freedom, from which terms are called near-collinear."""

FEW_LEVELS = 6
"""Fewer levels than this say little about a variance (Bolker et al. 2009: five or six at least)."""

FAR_APART = 1e4
"""Ratio of the sizes of two columns of X from which their coefficients are hard to read side by side."""

NEAR_ONE = 0.95
"""Correlation of random effects, in absolute value, that is called near 1."""

LONELY = 0.5
"""Share of levels with a single row from which a factor's variance leans on assumptions."""


@dataclass(frozen=True)
class Finding:
    """One thing to know.

    Attributes
    ----------
    kind : {"problem", "note"}
        A problem puts estimates in doubt, a note says how to read them.
    topic : str
    message : str
        What was found, and what to do.
    """

    kind: str
    topic: str
    message: str


@dataclass(frozen=True, repr=False)
class Check:
    """Findings about a fit.

    Attributes
    ----------
    findings : tuple of Finding
        Problems first.
    """

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether no problem was found."""
        return all(finding.kind != PROBLEM for finding in self.findings)

    def to_frame(self) -> pd.DataFrame:
        """Columns kind, topic, message."""
        return pd.DataFrame([(f.kind, f.topic, f.message) for f in self.findings], columns=["kind", "topic", "message"])

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __repr__(self) -> str:
        if not self.findings:
            return "Nothing to report."
        return "\n".join(f"{finding.kind.upper()}, {finding.topic}: {finding.message}" for finding in self.findings)


def check(fit: MixedLMResults) -> Check:
    """What to know of a fit: convergence, singular fits, near-collinear terms, scales, few levels, sampling errors."""
    found = [
        *_convergence(fit),
        *_singular(fit),
        *_correlations(fit),
        *_collinear(fit),
        *_dropped(fit),
        *_levels(fit),
        *_scales(fit),
        *_sampling(fit),
    ]
    return Check(tuple(sorted(found, key=lambda finding: finding.kind != PROBLEM)))


def _convergence(fit: MixedLMResults) -> Iterator[Finding]:
    if not fit.converged:
        message = f"{fit.estimates.message}. These are not the estimates: see fit.optimization, try another start=."
        yield Finding(PROBLEM, "not converged", message)


def _singular(fit: MixedLMResults) -> Iterator[Finding]:
    if fit.singular:
        what = "; ".join(singular_components(fit.estimates))
        yield Finding(
            NOTE,
            "singular",
            f"{what}. The data do not ask for this part of the random effects; the estimates are right, but a formula "
            "without it, such as (1 | g) for (x | g), says the same. Intervals of other variances lean on it.",
        )


def _correlations(fit: MixedLMResults) -> Iterator[Finding]:
    if fit.singular:
        return
    table = fit.varcorr[fit.varcorr["name2"].notna()]
    for row in table[table["sdcor"].abs() > NEAR_ONE].itertuples():
        yield Finding(
            NOTE,
            "near-singular",
            f"the correlation of {row.name1} and {row.name2} for {row.group} is {row.sdcor:.3f}: these vary almost in "
            "one direction; compare with || in place of |.",
        )


def _collinear(fit: MixedLMResults) -> Iterator[Finding]:
    try:
        table = vif(fit)
    except ModelError:
        return
    for term, row in table[np.square(table["adjusted"]) > HIGH_VIF].iterrows():
        inflation = float(row["adjusted"]) ** 2
        message = f"the variance of {term} is {inflation:.3g} times what it would be without the other terms"
        if ":" in str(term) or any(str(term) in str(other).split(":") and ":" in str(other) for other in table.index):
            message += "; it is part of an interaction, where centring the covariates helps."
        else:
            message += "; its coefficient cannot be told well from theirs. Leave one of them out, or join them."
        yield Finding(NOTE, "near-collinear", message)


def _dropped(fit: MixedLMResults) -> Iterator[Finding]:
    names = fit.estimates.layout.dropped
    if names:
        what = ", ".join(names)
        yield Finding(NOTE, "dropped columns", f"{what}: combinations of earlier columns, so without a coefficient.")


def _levels(fit: MixedLMResults) -> Iterator[Finding]:
    for factor in fit.estimates.layout.factors:
        if factor.n_levels < FEW_LEVELS:
            yield Finding(
                NOTE,
                "few levels",
                f"{factor.name} has {factor.n_levels} levels, which say little about a variance: its error is large, "
                "and normal intervals of fixed effects are too narrow. Consider a fixed effect, or "
                "ddf='kenward-roger'.",
            )
        elif factor.n_levels > LONELY * fit.nobs and factor.size == 1:
            yield Finding(
                NOTE,
                "hardly repeated",
                f"{factor.name} has {factor.n_levels:,} levels in {fit.nobs:,} rows: its variance is hard to tell from "
                "the residual one.",
            )


def _scales(fit: MixedLMResults) -> Iterator[Finding]:
    layout = fit.estimates.layout
    sizes = np.linalg.norm(np.linalg.inv(layout.standardization.x_basis), axis=0)
    named = [(name, size) for name, size in zip(layout.fixed, sizes, strict=True) if name != "Intercept"]
    if len(named) < 2:
        return
    small, large = min(named, key=lambda pair: pair[1]), max(named, key=lambda pair: pair[1])
    if large[1] > FAR_APART * small[1]:
        yield Finding(
            NOTE,
            "scales",
            f"{large[0]} is typically {large[1] / small[1]:.0e} times as large as {small[0]}. The fit does not mind, "
            "but coefficients are easier to read with covariates in units of their spread.",
        )


def _sampling(fit: MixedLMResults) -> Iterator[Finding]:
    sampling = fit.estimates.sampling
    if sampling is not None and sampling.ratio > sampling.asked:
        yield Finding(
            NOTE,
            "sampling",
            f"the Monte Carlo error of theta is {100.0 * sampling.ratio:.2g}% of its standard error, "
            f"{100.0 * sampling.asked:.2g}% was asked for: raise max_probes of IterativeEngine.",
        )
