"""From a fit to the methods of inference: what is dear is made once and kept as small values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.inference.information import Information, information
from crosslmm.inference.kenward_roger import KenwardRoger, kenward_roger
from crosslmm.inference.methods import ByKenwardRoger, BySatterthwaite, Known, Method, check_method
from crosslmm.inference.satterthwaite import Satterthwaite, satterthwaite
from crosslmm.inference.state import State, state_of

if TYPE_CHECKING:
    from crosslmm.results import MixedLMResults


DELTA = 1e-3
"""Steps of the numerical derivative of the change of units, in standard errors."""


def state_at(fit: MixedLMResults) -> State:
    """The equations of a fit at its estimates."""
    model, estimates = fit.model, fit.estimates
    return state_of(model.crossproducts, model.equations_of(estimates), estimates)


def make_satterthwaite(fit: MixedLMResults, kind: str) -> Satterthwaite:
    """Derivatives for Satterthwaite's method with one kind of information."""
    state = state_at(fit)
    return satterthwaite(state, information(state, kind))


def make_kenward_roger(fit: MixedLMResults) -> KenwardRoger:
    """Derivatives and traces for Kenward and Roger's method."""
    return kenward_roger(state_at(fit))


def method_of(fit: MixedLMResults, ddf: str) -> Method:
    """A method for the tests of a fit."""
    name = check_method(ddf)
    estimates = fit.estimates
    if name == "satterthwaite":
        return BySatterthwaite(fit._satterthwaite)
    if name == "kenward-roger":
        return ByKenwardRoger(fit._kenward_roger, estimates.boundary)
    df = np.inf if name == "normal" else float(estimates.n - estimates.beta.size)
    return Known(name, estimates.beta_cov, df)


def parameter_covariance(fit: MixedLMResults, kind: str) -> tuple[FloatArray, Information]:
    """Covariance of theta (units of the data) and sigma; rows of parameters on the boundary are nan.

    Returns
    -------
    ndarray, shape (m + 1, m + 1)
    Information
    """
    state = state_at(fit)
    known = information(state, kind)
    layout, m = state.xp.layout, state.free.size
    inner = known.covariance(known.hessian.mean)
    J = np.zeros((m + 1, inner.shape[0]))
    errors = np.sqrt(np.diag(inner))
    for a, i in enumerate(np.flatnonzero(state.free)):
        for part, weight in ((1.0, -1.0 / 3.0), (0.5, 4.0 / 3.0)):  # the error is of the fourth power of the step
            step = np.zeros(m)
            step[i] = part * DELTA * errors[a]
            up, down = (layout.to_raw(state.minimum.theta + sign * step) for sign in (1.0, -1.0))
            J[:m, a] += weight * (up - down) / (2.0 * step[i])
    J[m, -1] = 0.5 * fit.estimates.sigma
    covariance = J @ inner @ J.T
    known_theta = np.append(np.abs(J[:m, :-1]).max(axis=1, initial=0.0) > 0.0, True)
    covariance[~known_theta] = np.nan
    covariance[:, ~known_theta] = np.nan
    return covariance, known
