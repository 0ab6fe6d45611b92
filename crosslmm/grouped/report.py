"""The numbers of statsmodels' report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crosslmm.covariance import FloatArray
from crosslmm.errors import ModelError
from crosslmm.report.notes import statements
from crosslmm.report.statsmodels import GroupedSummary

if TYPE_CHECKING:
    from crosslmm.grouped.results import GroupedResults

TITLE = "Mixed Linear Model Regression Results"


def summary_of(
    fit: GroupedResults,
    yname: str | None,
    xname_fe: Sequence[str] | None,
    xname_re: Sequence[str] | None,
    title: str | None,
    alpha: float,
) -> GroupedSummary:
    """The report of a fit; see `GroupedResults.summary`."""
    names = [
        *_renamed("xname_fe", xname_fe, fit._fixed_names),
        *_renamed("xname_re", xname_re, fit._written.covariance_names),
    ]
    tables = _facts(fit, yname), _coefficients(fit, names, alpha)
    notes = tuple(statements(fit.estimates))
    if fit.n_dropped:
        rows = "1 row was" if fit.n_dropped == 1 else f"{fit.n_dropped:,} rows were"
        notes += (f"{rows} left out because of a missing value.",)
    return GroupedSummary(tables, TITLE if title is None else title, notes)


def _renamed(what: str, given: Sequence[str] | None, names: tuple[str, ...]) -> Sequence[str]:
    if given is None:
        return names
    if len(given) != len(names):
        raise ModelError(f"{what} should be a list of length {len(names)}")
    return given


def _facts(fit: GroupedResults, yname: str | None) -> pd.DataFrame:
    sizes = fit._written.groups.sizes
    left = {
        "Model:": "MixedLM",
        "No. Observations:": str(fit.nobs),
        "No. Groups:": str(sizes.size),
        "Min. group size:": f"{sizes.min():.0f}",
        "Max. group size:": f"{sizes.max():.0f}",
        "Mean group size:": f"{sizes.mean():.1f}",
    }
    right = {
        "Dependent Variable:": fit.model.endog_names if yname is None else yname,
        "Method:": fit.method,
        "Scale:": f"{fit.scale:.4f}",
        "Log-Likelihood:": f"{fit.llf:.4f}",
        "Converged:": "Yes" if fit.converged else "No",
        "": "",
    }
    rows = [(*a, *b) for a, b in zip(left.items(), right.items(), strict=True)]
    return pd.DataFrame(rows)


def _coefficients(fit: GroupedResults, names: Sequence[str], alpha: float) -> pd.DataFrame:
    p, k = fit.k_fe, fit.df_modelwc
    values = np.full((k, 6), np.nan)
    cov_re = np.asarray(fit.cov_re)
    values[:p, 0] = np.asarray(fit.fe_params)
    values[p:, 0] = np.concatenate([cov_re[np.tril_indices(len(cov_re))], fit.vcomp])
    values[:p, 1] = np.asarray(fit.bse_fe)
    values[p:, 1] = np.asarray(fit.bse_re)
    values[:p, 2] = np.asarray(fit.tvalues)[:p]
    values[:p, 3] = np.asarray(fit.pvalues)[:p]
    values[:p, 4:] = np.asarray(fit.conf_int(alpha))[:p]
    header = ["Coef.", "Std.Err.", "z", "P>|z|", f"[{alpha / 2}", f"{1 - alpha / 2}]"]
    return pd.DataFrame(_texts(values), index=list(names), columns=header)


def _texts(values: FloatArray) -> list[list[str]]:
    return [[f"{value:.3f}" if np.isfinite(value) else "" for value in row] for row in values]
