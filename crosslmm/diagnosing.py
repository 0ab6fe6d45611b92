"""What a fit offers to look at it closely: residuals, influence, summaries, checks, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

if TYPE_CHECKING:
    from crosslmm.diagnosis.check import Check
    from crosslmm.diagnosis.collinearity import RandomPCA
    from crosslmm.diagnosis.components import R2
    from crosslmm.diagnosis.influence import Influence
    from crosslmm.diagnosis.pictures import Plots
    from crosslmm.progress import Rows
    from crosslmm.results import MixedLMResults


class Diagnosing:
    """Methods of `MixedLMResults` that look at its rows, its groups and itself."""

    def residuals(self, kind: str = "response") -> pd.Series:
        """Residuals: response, pearson, scaled, studentized, marginal; see `crosslmm.diagnosis.residuals.residuals`."""
        from crosslmm.diagnosis.residuals import residuals

        return residuals(_results(self), kind)

    def leverage(self, rows: Any = None) -> pd.Series:
        """Diagonal of the hat matrix, lme4's ``hatvalues``; see `crosslmm.diagnosis.residuals.leverage`."""
        from crosslmm.diagnosis.residuals import leverage

        return leverage(_results(self), rows)

    def cooks_distance(self) -> pd.Series:
        """Cook's distance of every row used, as lme4; see `crosslmm.diagnosis.residuals.cooks_distance`."""
        from crosslmm.diagnosis.residuals import cooks_distance

        return cooks_distance(_results(self))

    def influence(
        self,
        groups: Any = None,
        *,
        method: str = "auto",
        levels: Sequence[Any] | None = None,
        progress: bool | Rows | None = None,
    ) -> Influence:
        """Estimates without each row, or without each group; see `crosslmm.diagnosis.influence.influence`."""
        from crosslmm.diagnosis.influence import influence

        return influence(_results(self), groups, method=method, levels=levels, progress=progress)

    def r2(self) -> R2:
        """Marginal and conditional R2; see `crosslmm.diagnosis.components.r2`."""
        from crosslmm.diagnosis.components import r2

        return r2(_results(self))

    def icc(self, level: float = 0.95) -> pd.DataFrame:
        """Intraclass correlations with intervals; see `crosslmm.diagnosis.components.icc`."""
        from crosslmm.diagnosis.components import icc

        return icc(_results(self), level)

    def vif(self) -> pd.DataFrame:
        """Variance inflation of the fixed terms; see `crosslmm.diagnosis.collinearity.vif`."""
        from crosslmm.diagnosis.collinearity import vif

        return vif(_results(self))

    def rePCA(self) -> RandomPCA:
        """Principal components of the random effects; see `crosslmm.diagnosis.collinearity.random_pca`."""
        from crosslmm.diagnosis.collinearity import random_pca

        return random_pca(_results(self))

    def tidy(
        self,
        effects: str | Sequence[str] = ("fixed", "ran_pars"),
        *,
        conf_int: bool = False,
        level: float = 0.95,
        ddf: str = "normal",
    ) -> pd.DataFrame:
        """One row per estimate, broom's columns; see `crosslmm.diagnosis.tidy.tidy`."""
        from crosslmm.diagnosis.tidy import tidy

        return tidy(_results(self), effects, conf_int=conf_int, level=level, ddf=ddf)

    def glance(self) -> pd.DataFrame:
        """One row on the whole fit, broom's columns; see `crosslmm.diagnosis.tidy.glance`."""
        from crosslmm.diagnosis.tidy import glance

        return glance(_results(self))

    def augment(self, data: Any = None) -> pd.DataFrame:
        """One row per row used, broom's columns; see `crosslmm.diagnosis.tidy.augment`."""
        from crosslmm.diagnosis.tidy import augment

        return augment(_results(self), data)

    def check(self) -> Check:
        """A short plain-language list of what to know of the fit; see `crosslmm.diagnosis.check.check`."""
        from crosslmm.diagnosis.check import check

        return check(_results(self))

    @property
    def plot(self) -> Plots:
        """Pictures of the fit (needs matplotlib); see `crosslmm.diagnosis.pictures.Plots`."""
        from crosslmm.diagnosis.pictures import Plots

        return Plots(_results(self))


def _results(fit: Diagnosing) -> MixedLMResults:
    return cast("MixedLMResults", fit)
