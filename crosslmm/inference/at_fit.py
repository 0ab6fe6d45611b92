"""From a fit to the methods of inference: what is dear is made once and kept as small values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from crosslmm.inference.information import information
from crosslmm.inference.kenward_roger import KenwardRoger, kenward_roger
from crosslmm.inference.methods import ByKenwardRoger, BySatterthwaite, Known, Method, check_method
from crosslmm.inference.satterthwaite import Satterthwaite, satterthwaite
from crosslmm.inference.state import State, state_of

if TYPE_CHECKING:
    from crosslmm.results import MixedLMResults


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
