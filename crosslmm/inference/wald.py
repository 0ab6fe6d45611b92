"""Intervals from standard errors: normal for fixed effects, on a scale without limits for the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import special

from crosslmm.covariance import FloatArray
from crosslmm.inference.parameters import CORRELATION, FIXED, Parameter, parameter_values, parameters

if TYPE_CHECKING:
    from crosslmm.results import MixedLMResults


def estimates_of(fit: MixedLMResults) -> FloatArray:
    """Values of all parameters at a fit, in the order of `parameters`."""
    estimates = fit.estimates
    sigma = np.array([estimates.sigma])
    return np.asarray(parameter_values(estimates.layout, estimates.theta[None], sigma, estimates.beta[None])[0])


def wald_intervals(fit: MixedLMResults, wanted: tuple[Parameter, ...], alpha: float) -> pd.DataFrame:
    """Wald intervals: of standard deviations and sigma on the log scale, of correlations on that of atanh.

    Bounds are nan where a standard deviation is 0 or a correlation is not inside (-1, 1).

    Returns
    -------
    DataFrame
        Columns 0 (lower) and 1 (upper).
    """
    known = parameters(fit.estimates.layout)
    values = estimates_of(fit)
    errors = np.zeros(values.size)
    errors[[p.kind == FIXED for p in known]] = fit.estimates.beta_se
    if any(p.kind != FIXED for p in wanted):
        errors = _scaled_errors(fit, known, errors)
    z = -special.ndtri(0.5 * alpha)
    scaled = np.array([_forward(p, v) for p, v in zip(known, values, strict=True)])
    bounds = {p: (_back(p, s - z * e), _back(p, s + z * e)) for p, s, e in zip(known, scaled, errors, strict=True)}
    return pd.DataFrame([bounds[p] for p in wanted], columns=[0, 1], index=[p.name for p in wanted], dtype=float)


def _scaled_errors(fit: MixedLMResults, known: tuple[Parameter, ...], errors: FloatArray) -> FloatArray:
    """Standard errors of the parameters of the random part in the scale of their intervals."""
    estimates = fit.estimates
    sampling = estimates.sampling
    spread = fit.model.statistical_spread(estimates) if sampling is None else sampling.statistical

    def scaled(theta: FloatArray, sigma: float) -> FloatArray:
        values = parameter_values(estimates.layout, theta[None], np.array([sigma]), estimates.beta[None])[0]
        return np.array([0.0 if p.kind == FIXED else _forward(p, v) for p, v in zip(known, values, strict=True)])

    with np.errstate(invalid="ignore"):
        return np.where([p.kind == FIXED for p in known], errors, spread.error(scaled))


def _forward(parameter: Parameter, value: float) -> float:
    if parameter.kind == FIXED:
        return value
    if parameter.kind == CORRELATION:
        return float(np.arctanh(value)) if abs(value) < 1.0 else np.nan
    return float(np.log(value)) if value > 0.0 else np.nan


def _back(parameter: Parameter, scaled: float) -> float:
    if parameter.kind == FIXED:
        return scaled
    return float(np.tanh(scaled) if parameter.kind == CORRELATION else np.exp(scaled))
