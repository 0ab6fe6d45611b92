"""Random effects in pandas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from crosslmm.covariance import FloatArray
from crosslmm.effects.conditional import Blocks, conditional_blocks, positions
from crosslmm.effects.covariance import Joint
from crosslmm.fit import Fit
from crosslmm.layout import Factor


@dataclass(frozen=True)
class RandomEffects:
    """Random effects of one factor with their conditional covariances.

    Attributes
    ----------
    modes, sd : DataFrame, levels x columns
        Conditional modes and standard deviations.
    cov, mc_error : DataFrame
        Conditional covariances, and their Monte Carlo standard errors (0 where they are exact): one row for each level
        and column; ``cov.loc[level]`` is the matrix of a level.
    """

    modes: pd.DataFrame
    sd: pd.DataFrame
    cov: pd.DataFrame
    mc_error: pd.DataFrame

    @property
    def blocks(self) -> FloatArray:
        """The covariances as an array, shape (levels, k, k)."""
        k = self.modes.shape[1]
        return self.cov.to_numpy().reshape(-1, k, k)


def random_effects(
    fit: Fit, joint: Callable[[], Joint] | None, *, full: bool, levels: Mapping[str, Any] | None
) -> dict[str, pd.DataFrame] | dict[str, RandomEffects]:
    """Random effects by factor; see `MixedLMResults.ranef`."""
    layout = fit.layout
    wanted = None if levels is None else positions(layout, levels)
    used = range(len(layout.factors)) if wanted is None else wanted
    if joint is None:
        return {
            layout.factors[f].name: modes_frame(layout.factors[f], fit.modes[f], None if wanted is None else wanted[f])
            for f in used
        }
    found = {}
    for f in used:
        factor = layout.factors[f]
        blocks = conditional_blocks(joint(), f, None if wanted is None else wanted[f], full=full)
        found[factor.name] = _with_covariances(factor, fit.modes[f], blocks)
    return found


def modes_frame(factor: Factor, modes: FloatArray, some: Any = None) -> pd.DataFrame:
    """Modes (L, k) of a factor, or of some of its levels."""
    levels = factor.levels if some is None else factor.levels[some]
    values = modes if some is None else modes[some]
    return pd.DataFrame(values, index=pd.Index(levels, name=factor.name), columns=list(factor.columns))


def _with_covariances(factor: Factor, modes: FloatArray, blocks: Blocks) -> RandomEffects:
    frame = modes_frame(factor, modes, blocks.levels)
    columns = list(factor.columns)
    sd = np.sqrt(np.maximum(np.einsum("lii->li", blocks.cov), 0.0))
    index = pd.MultiIndex.from_product([frame.index, columns], names=[factor.name, "term"])

    def stacked(values: FloatArray) -> pd.DataFrame:
        return pd.DataFrame(values.reshape(-1, len(columns)), index=index, columns=columns)

    sd_frame = pd.DataFrame(sd, index=frame.index, columns=columns)
    return RandomEffects(frame, sd_frame, stacked(blocks.cov), stacked(blocks.error))


def long_frame(found: Mapping[str, RandomEffects]) -> pd.DataFrame:
    """One row for each random effect."""
    parts = []
    for name, effects in found.items():
        n_levels, k = effects.modes.shape
        levels = np.repeat(effects.modes.index.to_numpy(dtype=object), k)
        columns = {
            "factor": np.full(n_levels * k, name, dtype=object),
            "level": levels,
            "term": np.tile(np.array(effects.modes.columns, dtype=object), n_levels),
            "mode": effects.modes.to_numpy().ravel(),
            "sd": effects.sd.to_numpy().ravel(),
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def coefficients(fit: Fit) -> dict[str, pd.DataFrame]:
    """Fixed effects plus the modes of each factor, in the units of their columns."""
    layout = fit.layout
    result = {}
    for factor, modes in zip(layout.factors, fit.modes, strict=True):
        names = list(dict.fromkeys([*layout.fixed, *factor.columns]))
        values = np.zeros((factor.n_levels, len(names)))
        values[:, : layout.n_fixed] = fit.beta
        for j, column in enumerate(factor.columns):
            values[:, names.index(column)] += modes[:, j]
        result[factor.name] = pd.DataFrame(values, index=pd.Index(factor.levels, name=factor.name), columns=names)
    return result
