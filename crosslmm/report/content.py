"""What a report says, before it takes a form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from crosslmm.fit import Fit


@dataclass(frozen=True)
class ReportContent:
    """Everything the report of a fit shows.

    Attributes
    ----------
    formula : str
    fit : Fit
    n_dropped : int
        Rows left out because of a missing value.
    weighted : bool
        Whether rows have prior weights.
    offset : bool
        Whether a known part of the response was given.
    aic, bic : float
    varcorr : DataFrame
        Columns group, name1, name2, vcov, sdcor.
    varcorr_se, varcorr_mc_error : DataFrame or None
        Standard errors and Monte Carlo errors of `varcorr`; None where nothing was sampled.
    coefficients : DataFrame
        One row per fixed effect; columns estimate, std. error, z, P>|z| (or df, t, P>|t|), lower and upper end of the
        95% interval.
    coefficients_note : str
        A line below them, or ``""``.
    resid : ndarray, shape (n,), or None
        Residuals over sigma; None where the rows are not at hand.
    """

    formula: str
    fit: Fit
    n_dropped: int
    weighted: bool
    offset: bool
    aic: float
    bic: float
    varcorr: pd.DataFrame
    varcorr_se: pd.DataFrame | None
    varcorr_mc_error: pd.DataFrame | None
    coefficients: pd.DataFrame
    coefficients_note: str
    resid: np.ndarray | None
