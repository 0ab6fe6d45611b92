"""The bootstrap by groups: whole groups are drawn with replacement, so that rows stay with what they depend on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.design.rows import Design
from crosslmm.errors import CrosslmmError, DataWarning, ModelError, warn
from crosslmm.grouped.parameters import Space

if TYPE_CHECKING:
    from crosslmm.grouped.results import GroupedResults


@dataclass(frozen=True)
class BootstrapResults:
    """Parameters of models fitted to groups drawn with replacement.

    Attributes
    ----------
    params : DataFrame
        One row per fit; nan where a draw could not be fitted.
    """

    params: pd.DataFrame


def bootstrap(fit: GroupedResults, nrep: int, rng: Any) -> tuple[FloatArray, FloatArray, BootstrapResults]:
    """Draw and fit; see `GroupedResults.bootstrap`.

    Raises
    ------
    ModelError
        There are too few groups or no rows, or every draw failed.
    """
    design = fit.model.design
    if not isinstance(design, Design):
        raise ModelError("the bootstrap draws groups of rows, which are not at hand")
    codes = fit._written.groups.codes
    n_groups = len(fit._written.groups.labels)
    if n_groups < 2:
        raise ModelError("the bootstrap draws groups, but there is one group only")
    order = np.argsort(codes, kind="stable")
    rows = np.split(order, np.cumsum(np.bincount(codes, minlength=n_groups))[:-1])
    generator = np.random.default_rng(rng)
    found = np.full((nrep, fit.df_modelwc), np.nan)
    for i in range(nrep):
        drawn = generator.integers(0, n_groups, n_groups)
        try:
            found[i] = _params(fit, redrawn(design, [rows[g] for g in drawn]))
        except CrosslmmError:
            continue  # a draw without some level of a covariate; its row stays nan, and is counted below
    kept = found[np.isfinite(found).all(axis=1)]
    if not len(kept):
        raise ModelError("no draw of groups could be fitted")
    if len(kept) < nrep:
        warn(f"{nrep - len(kept)} of {nrep} draws could not be fitted and are left out", DataWarning)
    return kept.mean(axis=0), kept.std(axis=0), BootstrapResults(pd.DataFrame(found, columns=list(fit._names)))


def _params(fit: GroupedResults, design: Design) -> FloatArray:
    model = fit.model._made(fit.model.formula, design, fit.model.written)
    estimates = model.estimate_once(reml=fit.reml)
    cov, vcomp = Space.of(fit._written, estimates.layout).covariances(estimates.theta)
    return np.concatenate([estimates.beta, cov[np.tril_indices(len(cov))], vcomp])


def redrawn(design: Design, parts: list[NDArray[np.intp]]) -> Design:
    """The design with the rows of drawn groups; a level counts anew each time its group is drawn.

    Parameters
    ----------
    design : Design
    parts : list of ndarray
        Rows of every draw.
    """
    rows = np.concatenate(parts)
    draw = np.repeat(np.arange(len(parts)), [part.size for part in parts])
    codes, factors = [], []
    for own, factor in zip(design.codes, design.layout.factors, strict=True):
        _, new = np.unique(draw * factor.n_levels + own[rows].astype(np.int64), return_inverse=True)
        codes.append(new.astype(np.int32))
        factors.append(replace(factor, levels=np.arange(int(new.max()) + 1).astype(object)))
    return replace(
        design,
        n=rows.size,
        y=design.y[rows],
        X=design.X[rows],
        codes=tuple(codes),
        Z=tuple(Z[rows] for Z in design.Z),
        weights=None if design.weights is None else design.weights[rows],
        offset=None if design.offset is None else design.offset[rows],
        layout=replace(design.layout, factors=tuple(factors)),
        row_labels=design.row_labels[rows],
    )
