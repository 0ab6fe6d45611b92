"""Likelihood-ratio tests between fits of one response."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import special

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.errors import CrosslmmWarning, ModelError, warn
from crosslmm.fit import Fit

if TYPE_CHECKING:
    from crosslmm.results import MixedLMResults

SAME = 1e-8
"""Relative difference of sums of squares below which two models are taken to have the same rows."""

WORSE = 1e-4
"""Deviance by which a larger model may be worse than a smaller one, as far as searches leave it."""

SAMPLED = 3.0
"""The same in Monte Carlo standard errors."""

BOUNDARIES = (None, "mixture")


def compare(
    *fits: MixedLMResults,
    refit: bool = False,
    boundary: str | None = None,
) -> pd.DataFrame:
    """Likelihood-ratio table of two or more nested fits.

    Every fit is tested against the one before it, the smallest first. That each is a special case of the next is for
    the caller to know; that they were fitted to the same rows, response and weights is checked.

    Parameters
    ----------
    *fits : MixedLMResults
        In any order.
    refit : bool
        Whether fits by REML may be fitted again by ML where their fixed effects differ (restricted likelihoods of
        different fixed effects are likelihoods of different data), or where some fits are by ML.
    boundary : {None, "mixture"}
        None: plain chi-squared, as lme4; conservative where a variance is tested. ``"mixture"``: the 50:50 mixture of
        chi-squared with df - 1 and df degrees of freedom, right where exactly one variance (with its covariances) is
        added to a fit whose other variances are positive (Self and Liang 1987; Stram and Lee 1994).

    Returns
    -------
    DataFrame
        One row per fit: formula, npar, aic, bic, log_lik, deviance, chisq, df, p_value, and chisq_mc_error where an
        engine sampled. chisq and p_value are nan where there is nothing to test: in the first row, where df is 0, and
        where the larger model fits worse, which is warned of.

    Raises
    ------
    ModelError
        The fits cannot be compared; the message says why.
    """
    if len(fits) < 2:
        raise ModelError("compare needs two fits or more: compare(smaller, larger)")
    for place, fit in enumerate(fits, start=1):
        if not isinstance(getattr(fit, "estimates", None), Fit):
            raise ModelError(
                f"compare takes fits, compare(smaller, larger); argument {place} is of type {type(fit).__name__}"
            )
    if not isinstance(refit, bool):
        raise ModelError(f"refit={refit!r}: expected True or False")
    if boundary not in BOUNDARIES:
        raise ModelError(f"boundary={boundary!r}: expected None (plain chi-squared) or 'mixture'")
    for other in fits[1:]:
        check_same_data(fits[0], other)
    ordered = sorted(_by_one_method(fits, refit), key=lambda fit: fit.estimates.n_parameters)
    return _table(ordered, boundary)


def _by_one_method(fits: tuple[MixedLMResults, ...], refit: bool) -> list[MixedLMResults]:
    """The fits, by ML where REML criteria cannot be compared."""
    reml = [fit.estimates.reml for fit in fits]
    if not any(reml) or (all(reml) and all(same_fixed(fits[0], fit) for fit in fits[1:])):
        return list(fits)
    if not refit:
        reason = "their fixed effects differ" if all(reml) else "some are by REML and some by ML"
        raise ModelError(
            f"these fits cannot be compared, because {reason}: fit all with reml=False, or pass refit=True"
        )
    return [by_ml(fit) for fit in fits]


def by_ml(fit: MixedLMResults) -> MixedLMResults:
    """The fit itself if it is by ML, else the same model fitted by ML."""
    return fit.model.fit(reml=False, engine=fit.estimates.plan.options) if fit.estimates.reml else fit


def same_fixed(a: MixedLMResults, b: MixedLMResults) -> bool:
    """Whether two fits have the same fixed-effects columns, in any order."""
    first, second = a.estimates.layout.fixed, b.estimates.layout.fixed
    if set(first) != set(second):
        return False
    place = [second.index(name) for name in first]
    ours, theirs = raw_gram(a.model.crossproducts), raw_gram(b.model.crossproducts)
    return bool(np.allclose(ours, theirs[np.ix_(place, place)], rtol=SAME, atol=SAME * np.abs(ours).max(initial=0.0)))


def raw_gram(xp: CrossProducts) -> FloatArray:
    """``X'WX`` in the units of the data."""
    p = xp.layout.n_fixed
    to_raw = np.linalg.inv(xp.layout.standardization.x_basis)
    return np.asarray(to_raw.T @ xp.fixed[:p, :p] @ to_raw)


def _response_squares(xp: CrossProducts) -> float:
    """``(y - o)'W(y - o)`` in the units of the data."""
    standard = xp.layout.standardization
    y = np.append(np.linalg.solve(standard.x_basis, standard.origin), standard.scale)
    return float(y @ xp.fixed @ y)


def check_same_data(a: MixedLMResults, b: MixedLMResults) -> None:
    """Refuse fits of different rows, responses or weights."""
    first, second = a.model.crossproducts, b.model.crossproducts
    names = (a.estimates.layout.response, b.estimates.layout.response)
    if names[0] != names[1]:
        raise ModelError(f"fits of different responses cannot be compared: {names[0]!r} and {names[1]!r}")
    if a.nobs != b.nobs:
        raise ModelError(
            f"fits of different rows cannot be compared: {a.nobs:,} rows and {b.nobs:,} rows. Where values are missing "
            "in one model only, leave those rows out of both"
        )
    scale = 1.0 + abs(first.sum_log_weights)
    weights = a.estimates.layout.weighted == b.estimates.layout.weighted
    if not weights or abs(first.sum_log_weights - second.sum_log_weights) > SAME * scale:
        raise ModelError("fits with different prior weights cannot be compared")
    squares = (_response_squares(first), _response_squares(second))
    if abs(squares[0] - squares[1]) > SAME * max(squares):
        raise ModelError(
            f"these fits are of different values of {names[0]!r}: its (weighted) sum of squares, without the offset, "
            f"is {squares[0]:.10g} in one and {squares[1]:.10g} in the other"
        )


def _table(fits: list[MixedLMResults], boundary: str | None) -> pd.DataFrame:
    npar = np.array([fit.estimates.n_parameters for fit in fits])
    deviance = np.array([fit.criterion for fit in fits])
    df = np.append(np.nan, np.diff(npar))
    errors = 2.0 * np.array([fit.llf_mc_error for fit in fits])
    chisq = np.append(np.nan, [_ratio(*pair) for pair in pairwise(fits)])
    chisq[1:][df[1:] == 0] = np.nan
    p_value = chi_squared_tail(chisq, df)
    if boundary == "mixture":
        for i, (smaller, larger) in enumerate(pairwise(fits), start=1):
            _check_one_variance(smaller, larger)
            p_value[i] = mixture_tail(float(chisq[i]), int(df[i]))
    table = pd.DataFrame(
        {
            "formula": [fit.formula for fit in fits],
            "npar": npar,
            "aic": [fit.aic for fit in fits],
            "bic": [fit.bic for fit in fits],
            "log_lik": [fit.llf for fit in fits],
            "deviance": deviance,
            "chisq": chisq,
            "df": pd.array([None, *df[1:].astype(int)], dtype="Int64"),
            "p_value": p_value,
        }
    )
    if errors.any():
        table["chisq_mc_error"] = np.append(np.nan, np.hypot(errors[1:], errors[:-1]))
    return table


def _ratio(smaller: MixedLMResults, larger: MixedLMResults) -> float:
    """Likelihood ratio; nan, with a warning, where the larger model fits worse."""
    drop = smaller.criterion - larger.criterion
    nested = smaller.estimates.n_parameters < larger.estimates.n_parameters
    if nested and is_worse(drop, criterion_error(smaller.estimates), criterion_error(larger.estimates)):
        warn(
            f"the deviance of {larger.formula!r} is higher, by {-drop:.4g}, than that of {smaller.formula!r} with "
            "fewer parameters: the one is no special case of the other, or a search ended early. They are not tested",
            CrosslmmWarning,
        )
        return np.nan
    return max(drop, 0.0)


def criterion_error(fit: Fit) -> float:
    """Monte Carlo standard error of the criterion; 0 where nothing is sampled."""
    return 0.0 if fit.sampling is None else fit.sampling.criterion_error


def is_worse(drop: float, *errors: float) -> bool:
    """Whether a larger model fits worse, by more than searches and sampling leave open.

    Parameters
    ----------
    drop : float
        Criterion of the smaller model less that of the larger one.
    *errors : float
        Monte Carlo standard errors of both.
    """
    return drop < -(WORSE + SAMPLED * float(np.linalg.norm(errors)))


def chi_squared_tail(chisq: FloatArray, df: FloatArray) -> FloatArray:
    """Probability that chi-squared exceeds; nan where there are no degrees of freedom."""
    known = np.isfinite(chisq) & (df > 0)
    return np.asarray(np.where(known, special.chdtrc(np.where(known, df, 1.0), np.where(known, chisq, 0.0)), np.nan))


def mixture_tail(chisq: float, df: int) -> float:
    """Tail of the 50:50 mixture of chi-squared with df - 1 and df degrees of freedom."""
    below = float(special.chdtrc(df - 1.0, chisq)) if df > 1 else float(chisq <= 0.0)
    return 0.5 * below + 0.5 * float(special.chdtrc(float(df), chisq))


def _check_one_variance(smaller: MixedLMResults, larger: MixedLMResults) -> None:
    added = int(larger.estimates.layout.on_diagonal.sum()) - int(smaller.estimates.layout.on_diagonal.sum())
    if added != 1 or not same_fixed(smaller, larger):
        raise ModelError(
            "boundary='mixture' tests one variance (with its covariances) at a time, with the same fixed effects: "
            f"{larger.formula!r} has {added} more variances than {smaller.formula!r}"
            + ("" if same_fixed(smaller, larger) else " and other fixed effects")
        )
