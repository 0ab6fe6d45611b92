"""The equations of a fit at its estimates, for whatever is said about its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.engine.direct import DirectSystem
from crosslmm.objective import Evaluation, evaluate

if TYPE_CHECKING:
    from crosslmm.diagnosis.selected import SelectedCovariance
    from crosslmm.results import MixedLMResults


def evaluation_at(fit: MixedLMResults) -> Evaluation:
    """Criterion and equations at the estimates, standardised coordinates."""
    estimates, xp = fit.estimates, fit.model.crossproducts
    equations = fit.model.equations_of(estimates)
    templates = xp.layout.templates(xp.layout.to_standard(estimates.theta))
    return evaluate(equations, xp, templates, reml=estimates.reml)


def selected_at(fit: MixedLMResults, value: Evaluation) -> SelectedCovariance | None:
    """Conditional covariance of the effects of a row, units of the data; None where nothing is factorised."""
    from crosslmm.diagnosis.selected import selected_covariance

    if not isinstance(value.system, DirectSystem):
        return None
    xp = fit.model.crossproducts
    return selected_covariance(value.system, xp).raw(xp.layout.standardization.z_bases)


def fixed_modes(fit: MixedLMResults, value: Evaluation) -> tuple[FloatArray, ...]:
    """Modes of every column of X taken as a response, units of the data; each (k, L, p).

    ``X - Z modes`` is W^-1 V^-1 X. The modes are linear in the response, so they are differences of two of y - X beta.
    """
    standard = fit.estimates.layout.standardization
    p = value.beta.size
    plain = value.system.effects(np.zeros(p)).modes
    columns = [value.system.effects(unit).modes for unit in np.eye(p)]
    to_raw = np.linalg.inv(standard.x_basis)
    result = []
    for f, U in enumerate(standard.z_bases):
        modes = [plain[f] - with_column[f] for with_column in columns]
        stacked = np.stack(modes, axis=2) if modes else np.zeros((*plain[f].shape, 0))
        result.append(np.einsum("ij,jlp,pr->ilr", U, stacked, to_raw, optimize=True))
    return tuple(result)
