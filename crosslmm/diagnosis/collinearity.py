"""How much fixed effects overlap, and in how many directions random effects vary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crosslmm.errors import ModelError
from crosslmm.inference.terms import formula_terms

if TYPE_CHECKING:
    from crosslmm.results import MixedLMResults

INTERCEPT = "Intercept"


def vif(fit: MixedLMResults) -> pd.DataFrame:
    """Variance inflation of the terms of the fixed part.

    From the correlations of the fixed effects, the intercept left out, as R's car does: a term of one column has the
    usual VIF, one of several the generalised one (Fox and Monette 1992).

    Returns
    -------
    DataFrame
        One row per term; columns vif, df, and adjusted = ``vif^(1 / (2 df))``, which compares terms of different df.

    Raises
    ------
    ModelError
        The fixed part has nothing but an intercept.
    """
    layout = fit.estimates.layout
    terms = [t for t in formula_terms(fit.model.formula.fixed, layout.fixed) if t.factors and t.columns]
    if not terms:
        raise ModelError("the fixed part has no term besides the intercept, so nothing can inflate its variance")
    kept = [j for t in terms for j in t.columns]
    cov = fit.estimates.beta_cov
    sd = np.sqrt(np.diag(cov))
    R = cov / np.outer(sd, sd)
    rows = []
    for term in terms:
        own, others = list(term.columns), [j for j in kept if j not in term.columns]
        log_value = _log_det(R, own) + _log_det(R, others) - _log_det(R, kept)
        value, df = float(np.exp(log_value)), len(own)
        rows.append((value, df, value ** (0.5 / df)))
    index = pd.Index([t.text for t in terms], name="term")
    return pd.DataFrame(rows, columns=["vif", "df", "adjusted"], index=index)


def _log_det(R: np.ndarray, columns: list[int]) -> float:
    return float(np.linalg.slogdet(R[np.ix_(columns, columns)])[1])


@dataclass(frozen=True, repr=False)
class RandomPCA:
    """Principal components of the random effects, as lme4's ``rePCA``.

    Attributes
    ----------
    table : DataFrame
        Rows (group, component); columns sdev (relative to sigma), proportion and cumulative of the variance.
    rotations : dict of DataFrame
        Per group, columns of the random effects by components.
    """

    table: pd.DataFrame
    rotations: dict[str, pd.DataFrame]

    def __repr__(self) -> str:
        return self.table.to_string(float_format=lambda value: f"{value:.4g}")


def random_pca(fit: MixedLMResults) -> RandomPCA:
    """Principal components of the covariance of each factor's random effects.

    A component of (nearly) no variance says that the random effects of a level vary in fewer directions than the
    formula has; the rotation is in the units of the data, as lme4's.
    """
    frames, rotations = [], {}
    for factor, T in zip(fit.estimates.layout.factors, fit.estimates.templates, strict=True):
        U, d, _ = np.linalg.svd(T)
        total = float(np.square(d).sum())
        share = np.square(d) / total if total > 0.0 else np.full(d.size, np.nan)
        names = [f"PC{i + 1}" for i in range(d.size)]
        index = pd.MultiIndex.from_product([[factor.name], names], names=["group", "component"])
        frames.append(pd.DataFrame({"sdev": d, "proportion": share, "cumulative": np.cumsum(share)}, index=index))
        rotations[factor.name] = pd.DataFrame(U, index=list(factor.columns), columns=names)
    return RandomPCA(pd.concat(frames), rotations)
