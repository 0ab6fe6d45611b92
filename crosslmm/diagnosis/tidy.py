"""Frames with the column names of R's broom and broom.mixed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import special

from crosslmm.blas import times
from crosslmm.design.frame import column_names, read_frame
from crosslmm.diagnosis.modes import mode_sds
from crosslmm.diagnosis.residuals import hat_frame
from crosslmm.errors import DataError, ModelError

if TYPE_CHECKING:
    from crosslmm.results import MixedLMResults

EFFECTS = ("fixed", "ran_pars", "ran_vals")


def tidy(
    fit: MixedLMResults,
    effects: str | Sequence[str] = ("fixed", "ran_pars"),
    *,
    conf_int: bool = False,
    level: float = 0.95,
    ddf: str = "normal",
) -> pd.DataFrame:
    """One row per estimate, as broom.mixed's ``tidy``.

    Parameters
    ----------
    fit : MixedLMResults
    effects : {"fixed", "ran_pars", "ran_vals"}, or several
        Fixed effects; standard deviations and correlations of the random effects; conditional modes.
    conf_int : bool
        Add Wald intervals, columns conf.low and conf.high (of standard deviations on the log scale, of correlations on
        that of atanh).
    level : float
        Of the intervals.
    ddf : str
        Degrees of freedom of the fixed effects; see `MixedLMResults.coef_table`.

    Returns
    -------
    DataFrame
        Columns effect, group, level (with modes), term, estimate, std.error, and with fixed effects statistic, df,
        p.value.
    """
    wanted = (effects,) if isinstance(effects, str) else tuple(effects)
    for name in wanted:
        if name not in EFFECTS:
            raise ModelError(f"effects={name!r}: expected some of {', '.join(map(repr, EFFECTS))}")
    if not 0.0 < level < 1.0:
        raise ModelError(f"level={level!r}: expected a number between 0 and 1, such as 0.95")
    parts = []
    if "fixed" in wanted:
        parts.append(_fixed(fit, level, ddf))
    if "ran_pars" in wanted:
        parts.append(_parameters(fit, level))
    if "ran_vals" in wanted:
        parts.append(_modes(fit, level))
    columns = ["effect", "group", "level", "term", "estimate", "std.error", "statistic", "df", "p.value"]
    columns += ["conf.low", "conf.high"] if conf_int else []
    whole = pd.concat(parts, ignore_index=True)
    return whole[[name for name in columns if name in whole]]


def _fixed(fit: MixedLMResults, level: float, ddf: str) -> pd.DataFrame:
    table = fit.coef_table(ddf=ddf, level=level)
    return pd.DataFrame(
        {
            "effect": "fixed",
            "group": None,
            "term": list(fit.estimates.layout.fixed),
            "estimate": table["estimate"].to_numpy(),
            "std.error": table["std_error"].to_numpy(),
            "statistic": table["statistic"].to_numpy(),
            "df": table["df"].to_numpy(),
            "p.value": table["p_value"].to_numpy(),
            "conf.low": table["lower"].to_numpy(),
            "conf.high": table["upper"].to_numpy(),
        }
    )


def _parameters(fit: MixedLMResults, level: float) -> pd.DataFrame:
    table, errors = fit.varcorr, fit.varcorr_se["sdcor"].to_numpy()
    values, z = table["sdcor"].to_numpy(), float(special.ndtri(0.5 + 0.5 * level))
    correlation = table["name2"].notna().to_numpy()
    terms = []
    for name1, name2 in zip(table["name1"], table["name2"], strict=True):
        if pd.isna(name1):
            terms.append("sd__Observation")
        else:
            terms.append(f"sd__{name1}" if pd.isna(name2) else f"cor__{name1}.{name2}")
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = np.where(correlation, np.arctanh(values), np.log(values))
        half = z * errors / np.where(correlation, 1.0 - np.square(values), values)
    low, high = (np.where(correlation, np.tanh(s), np.exp(s)) for s in (centre - half, centre + half))
    return pd.DataFrame(
        {
            "effect": "ran_pars",
            "group": table["group"].to_numpy(),
            "term": terms,
            "estimate": values,
            "std.error": errors,
            "conf.low": low,
            "conf.high": high,
        }
    )


def _modes(fit: MixedLMResults, level: float) -> pd.DataFrame:
    """Modes with their conditional standard deviations (nan where the engine factorises nothing)."""
    sds, z = mode_sds(fit), float(special.ndtri(0.5 + 0.5 * level))
    frames = []
    for f, (factor, modes) in enumerate(zip(fit.estimates.layout.factors, fit.estimates.modes, strict=True)):
        sd = np.full(modes.shape, np.nan) if sds is None else sds[f]
        for j, name in enumerate(factor.columns):
            frame = {"effect": "ran_vals", "group": factor.name, "level": factor.levels, "term": name}
            numbers = {"estimate": modes[:, j], "std.error": sd[:, j]}
            bounds = {"conf.low": modes[:, j] - z * sd[:, j], "conf.high": modes[:, j] + z * sd[:, j]}
            frames.append(pd.DataFrame({**frame, **numbers, **bounds}))
    return pd.concat(frames, ignore_index=True)


def glance(fit: MixedLMResults) -> pd.DataFrame:
    """One row on the whole fit, as broom.mixed's ``glance``.

    Returns
    -------
    DataFrame
        Columns nobs, sigma, logLik, AIC, BIC, REMLcrit (or deviance), df.residual. As in lme4 df.residual counts the
        variance parameters too; `MixedLMResults.df_resid` does not.
    """
    estimates = fit.estimates
    criterion = "REMLcrit" if estimates.reml else "deviance"
    row = {
        "nobs": fit.nobs,
        "sigma": fit.sigma,
        "logLik": fit.llf,
        "AIC": fit.aic,
        "BIC": fit.bic,
        criterion: fit.criterion,
        "df.residual": fit.nobs - estimates.n_parameters,
    }
    return pd.DataFrame([row])


def augment(fit: MixedLMResults, data: Any = None) -> pd.DataFrame:
    """One row per row used, as broom.mixed's ``augment``.

    Parameters
    ----------
    fit : MixedLMResults
    data : table, optional
        The data of the fit, whose columns come first; only the response without it.

    Returns
    -------
    DataFrame
        Columns .fitted, .resid, .hat and .cooksd (not for fits by the iterative engine), .fixed (offset plus ``X
        beta``), .mu, .offset, .sqrtXwt, .weights, .wtres (residuals times the root of the weight).

    Raises
    ------
    DataError
        `data` lacks rows of the fit, or its index does not tell rows apart.
    """
    beta = fit.estimates.beta
    parts = []
    for index, rows in fit.model.design.batches():
        offset = np.zeros(rows.y.size) if rows.offset is None else rows.offset
        weights = np.ones(rows.y.size) if rows.weights is None else rows.weights
        columns = {
            fit.estimates.layout.response: rows.y,
            ".fixed": offset + times(rows.X, beta[:, None])[:, 0],
            ".offset": offset,
            ".sqrtXwt": np.sqrt(weights),
            ".weights": weights,
        }
        parts.append(pd.DataFrame(columns, index=index))
    frame = pd.concat(parts)
    frame[".fitted"] = frame[".mu"] = fit.fittedvalues.to_numpy()
    frame[".resid"] = fit.resid.to_numpy()
    frame[".wtres"] = frame[".resid"] * frame[".sqrtXwt"]
    names = [".fitted", ".resid"]
    if fit.estimates.plan.engine == "direct":
        hats = hat_frame(fit)
        frame[".hat"], frame[".cooksd"] = hats["leverage"].to_numpy(), hats["cooks_distance"].to_numpy()
        names += [".hat", ".cooksd"]
    frame = frame[[fit.estimates.layout.response, *names, ".fixed", ".mu", ".offset", ".sqrtXwt", ".weights", ".wtres"]]
    return frame if data is None else _beside(data, frame)


def _beside(data: Any, frame: pd.DataFrame) -> pd.DataFrame:
    given = data if isinstance(data, pd.DataFrame) else read_frame(data, list(column_names(data)))
    if not given.index.is_unique or not frame.index.isin(given.index).all():
        raise DataError("data must be the table of the fit, with an index that tells its rows apart")
    own = given.loc[frame.index]
    clash = own.columns.intersection(frame.columns)
    return pd.concat([own, frame.drop(columns=clash)], axis=1)
