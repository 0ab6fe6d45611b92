"""``fit.plot``: from a fit to the pictures of `crosslmm.plots`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from crosslmm.covariance import FloatArray
from crosslmm.diagnosis.alone import effects_alone
from crosslmm.diagnosis.lines import fitted_lines
from crosslmm.diagnosis.modes import mode_sds, some_mode_sds
from crosslmm.diagnosis.residuals import residuals
from crosslmm.errors import ModelError
from crosslmm.plots import curves, groups, rows
from crosslmm.plots.axes import new_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from crosslmm.results import MixedLMResults

RESIDUALS = "residuals"


@dataclass(frozen=True, repr=False)
class Plots:
    """Pictures of a fit. Each method draws on one matplotlib axes, `ax` or new ones, and returns it.

    Attributes
    ----------
    fit : MixedLMResults
    """

    fit: MixedLMResults

    def residuals(self, kind: str = "scaled", *, ax: Axes | None = None) -> Axes:
        """Residuals of a kind (see `MixedLMResults.residuals`) against fitted values.

        Look for bends of the line (a missing term) and for a width that changes (unequal variances).
        """
        values = residuals(self.fit, kind).to_numpy()
        fitted = self.fit.fittedvalues.to_numpy()
        return rows.residuals_against_fitted(fitted, values, ylabel=f"{kind} residual", ax=ax)

    def scale_location(self, *, ax: Axes | None = None) -> Axes:
        """Size of the scaled residuals against fitted values; a rising line says that the variance grows."""
        values = residuals(self.fit, "scaled").to_numpy()
        return rows.scale_location(self.fit.fittedvalues.to_numpy(), values, ax=ax)

    def qq(self, of: str = RESIDUALS, term: str | None = None, *, ax: Axes | None = None) -> Axes:
        """Normal quantiles of the scaled residuals, or of the conditional modes of a factor.

        Parameters
        ----------
        of : str
            ``"residuals"``, or the name of a grouping factor.
        term : str, optional
            Column of the random effects, such as ``"Days"``; the first by default.
        ax : matplotlib axes, optional
        """
        if of == RESIDUALS:
            values = residuals(self.fit, "scaled").to_numpy()
            return rows.quantiles(values, title="Quantiles of residuals", ylabel="scaled residual", ax=ax)
        factor = self._factor(of)
        column = self._column(factor, term)
        modes = self.fit.estimates.modes[factor][:, column]
        name = self.fit.estimates.layout.factors[factor].columns[column]
        return rows.quantiles(modes, title=f"Quantiles of {name} by {of}", ylabel="conditional mode", ax=ax)

    def caterpillar(
        self,
        factor: str,
        term: str | None = None,
        *,
        most: int = groups.MOST_LEVELS,
        level: float = 0.95,
        ax: Axes | None = None,
    ) -> Axes:
        """Conditional modes in increasing order, with intervals by their conditional standard deviations.

        Parameters
        ----------
        factor : str
        term : str, optional
            Column of the random effects; the first by default.
        most : int
            Levels shown; of more, the smallest and the largest.
        level : float
            Of the intervals, given the variances and the fixed effects.
        ax : matplotlib axes, optional
        """
        if not 0.0 < level < 1.0:
            raise ModelError(f"level={level!r}: expected a number between 0 and 1, such as 0.95")
        if most < 2:
            raise ModelError(f"most={most!r}: expected at least 2 levels")
        f = self._factor(factor)
        j = self._column(f, term)
        whole = self.fit.estimates.layout.factors[f]
        modes = self.fit.estimates.modes[f][:, j]
        shown = groups.ends(modes, most)
        return groups.caterpillar(
            modes[shown],
            self._sds(f, shown)[:, j],
            list(whole.levels[shown]),
            n_levels=whole.n_levels,
            title=f"{whole.columns[j]} by {factor}, {100.0 * level:g}% intervals",
            z=float(special.ndtri(0.5 + 0.5 * level)),
            ax=ax,
        )

    def fitted(self, x: str, by: str, *, most: int = groups.MOST_LINES, ax: Axes | None = None) -> Axes:
        """Fitted lines over a covariate: the population's, and one for each level of a factor over its own rows.

        Other covariates are at their means and other factors at 0.

        Parameters
        ----------
        x : str
            A column of the fixed part.
        by : str
            A grouping factor.
        most : int
            Lines drawn; of more levels, a selection spread evenly.
        ax : matplotlib axes, optional
        """
        f = self._factor(by)
        lines = fitted_lines(self.fit, x, f)
        n_levels = self.fit.estimates.layout.factors[f].n_levels
        low, high = np.full(n_levels, np.inf), np.full(n_levels, -np.inf)
        np.minimum.at(low, lines.codes, lines.x)
        np.maximum.at(high, lines.codes, lines.x)
        drawn = np.unique(np.linspace(0, n_levels - 1, min(most, n_levels)).round().astype(np.intp))
        each = []
        for level in drawn:
            at = np.unique([low[level], high[level]])
            each.append((at, lines.groups[level, 0] + lines.groups[level, 1] * at))
        whole = np.array([lines.x.min(), lines.x.max()])
        return groups.fitted_lines(
            (lines.x, lines.y),
            each,
            (whole, lines.fixed[0] + lines.fixed[1] * whole),
            n_groups=n_levels,
            labels=(x, self.fit.estimates.layout.response, by),
            ax=ax,
        )

    def shrinkage(self, factor: str, *, ax: Axes | None = None) -> Axes:
        """From what the rows of each level say alone to the conditional modes: pooling at work."""
        f = self._factor(factor)
        alone, whole = effects_alone(self.fit, f), self.fit.estimates.layout.factors[f]
        known = np.isfinite(alone).all(axis=1)
        if not known.any():
            raise ModelError(f"no level of {factor} has rows enough to tell its effects alone")
        modes = self.fit.estimates.modes[f]
        return groups.shrinkage(alone[known], modes[known], names=whole.columns, factor=factor, ax=ax)

    def trace(self, *, ax: Axes | None = None) -> Axes:
        """How far above its minimum the criterion was at every evaluation."""
        steps = self.fit.estimates.iterations
        if not steps:
            raise ModelError("this fit has no record of its search: it was read from its numbers alone")
        return curves.convergence_trace(
            np.array([step.criterion for step in steps]),
            np.array([step.accepted for step in steps]),
            [step.step for step in steps],
            ax=ax,
        )

    def overview(self) -> np.ndarray:
        """Four pictures in one figure: residuals, their size and quantiles, modes of the largest factor; axes (4,)."""
        panels = new_panels(4, columns=2)
        factors = self.fit.estimates.layout.factors
        largest = max(factors, key=lambda factor: factor.n_levels).name
        self.residuals(ax=panels[0])
        self.scale_location(ax=panels[1])
        self.qq(ax=panels[2])
        self.qq(largest, ax=panels[3])
        return panels

    def _factor(self, name: str) -> int:
        names = [factor.name for factor in self.fit.estimates.layout.factors]
        if name not in names:
            raise ModelError(f"{name!r} is no grouping factor of this model; it has {', '.join(map(repr, names))}")
        return names.index(name)

    def _column(self, factor: int, term: str | None) -> int:
        columns = self.fit.estimates.layout.factors[factor].columns
        if term is None:
            return 0
        if term not in columns:
            name = self.fit.estimates.layout.factors[factor].name
            raise ModelError(f"term={term!r}: the random effects of {name} are {', '.join(map(repr, columns))}")
        return columns.index(term)

    def _sds(self, factor: int, levels: np.ndarray) -> FloatArray:
        whole = mode_sds(self.fit)
        return some_mode_sds(self.fit, factor, levels) if whole is None else whole[factor][levels]
