"""Results: pandas views over a `Fit`. Nothing here computes more than a transformation of names and shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import special

from crosslmm.components import component_labels, component_values, on_boundary
from crosslmm.design.rows import Predicted, Progress
from crosslmm.diagnosing import Diagnosing
from crosslmm.errors import DataError
from crosslmm.fit import Fit
from crosslmm.precision import Spread
from crosslmm.predicting import Predicting
from crosslmm.progress import meter
from crosslmm.refitting import Refitting
from crosslmm.report.content import ReportContent
from crosslmm.report.html import render_html
from crosslmm.report.text import render_text
from crosslmm.sources.write import write_batches
from crosslmm.testing import Testing
from crosslmm.version import Versioned

if TYPE_CHECKING:
    from crosslmm.model import MixedLM


@dataclass(frozen=True)
class Summary:
    """A report that prints as text and shows as HTML in notebooks."""

    content: ReportContent

    def as_text(self) -> str:
        """The report as plain text."""
        return render_text(self.content)

    def as_html(self) -> str:
        """The report as an HTML fragment."""
        return render_html(self.content)

    def __str__(self) -> str:
        return self.as_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.as_html()


@dataclass(frozen=True, repr=False)
class MixedLMResults(Refitting, Testing, Diagnosing, Predicting, Versioned):
    """A fitted linear mixed model.

    Attributes
    ----------
    model : MixedLM
        The model that was fitted; fitting left it as it was.
    estimates : Fit
        Every estimated number as arrays.
    """

    model: MixedLM
    estimates: Fit

    # --- fixed effects ---------------------------------------------------------------------------

    @cached_property
    def fe_params(self) -> pd.Series:
        """Fixed effects."""
        return pd.Series(self.estimates.beta, index=self._fixed_index, name="fe_params")

    @cached_property
    def bse_fe(self) -> pd.Series:
        """Standard errors of the fixed effects."""
        return pd.Series(self.estimates.beta_se, index=self._fixed_index, name="bse_fe")

    @cached_property
    def tvalues(self) -> pd.Series:
        """Fixed effects over their standard errors."""
        return (self.fe_params / self.bse_fe).rename("tvalues")

    @cached_property
    def pvalues(self) -> pd.Series:
        """Two-sided p-values of `tvalues` by the normal distribution."""
        return pd.Series(2.0 * special.ndtr(-np.abs(self.tvalues)), index=self._fixed_index, name="pvalues")

    def cov_params(self) -> pd.DataFrame:
        """Covariance matrix of the fixed effects, ``sigma^2 (X' V^-1 X)^-1``."""
        return pd.DataFrame(self.estimates.beta_cov, index=self._fixed_index, columns=self._fixed_index)

    @property
    def _fixed_index(self) -> pd.Index:
        return pd.Index(self.estimates.layout.fixed)

    # --- variance components ---------------------------------------------------------------------

    @property
    def scale(self) -> float:
        """Residual variance sigma^2 (of an observation with weight 1)."""
        return self.estimates.sigma**2

    @property
    def sigma(self) -> float:
        """Residual standard deviation."""
        return self.estimates.sigma

    @cached_property
    def theta(self) -> pd.Series:
        """Relative covariance parameters, in lme4's order and units."""
        return pd.Series(self.estimates.theta, index=pd.Index(self.estimates.layout.theta_names), name="theta")

    @cached_property
    def cov_re(self) -> dict[str, pd.DataFrame]:
        """Covariance of the random effects of one level, by factor (zero between terms on one factor)."""
        factors = self.estimates.layout.factors
        return {
            factor.name: pd.DataFrame(cov, index=list(factor.columns), columns=list(factor.columns))
            for factor, cov in zip(factors, self.estimates.covariances, strict=True)
        }

    @cached_property
    def varcorr(self) -> pd.DataFrame:
        """Variances, then covariances, of every term and the residual variance last.

        Returns
        -------
        DataFrame
            Columns group, name1, name2, vcov, sdcor. Where name2 is missing, vcov is a variance and sdcor a standard
            deviation; elsewhere a covariance and a correlation (nan where a standard deviation is 0).
        """
        fit = self.estimates
        return self._component_frame(component_values(fit.layout, fit.theta, fit.sigma))

    @cached_property
    def varcorr_se(self) -> pd.DataFrame:
        """Standard errors of `varcorr`, in the same rows and columns; nan where a variance is 0.

        By the average information and the delta method.
        """
        return self._component_errors(self._statistical)

    @cached_property
    def varcorr_mc_error(self) -> pd.DataFrame:
        """Monte Carlo standard errors of `varcorr`: 0 where the engine samples nothing."""
        sampling = self.estimates.sampling
        return self._component_errors(None if sampling is None else sampling.monte_carlo)

    @cached_property
    def theta_se(self) -> pd.Series:
        """Standard errors of `theta`; nan where a parameter is 0 because its variance is."""
        errors = self._statistical.error(lambda theta, _: theta)
        return pd.Series(np.where(errors > 0.0, errors, np.nan), index=self.theta.index, name="theta_se")

    @cached_property
    def theta_mc_error(self) -> pd.Series:
        """Monte Carlo standard errors of `theta`: 0 where the engine samples nothing."""
        sampling = self.estimates.sampling
        errors = 0.0 if sampling is None else sampling.monte_carlo.error(lambda theta, _: theta)
        return pd.Series(errors, index=self.theta.index, name="theta_mc_error")

    @cached_property
    def _statistical(self) -> Spread:
        """Errors of theta and sigma by the sampling of the data."""
        fit = self.estimates
        if fit.sampling is not None:
            return fit.sampling.statistical
        return self.model.statistical_spread(fit)

    def _component_errors(self, spread: Spread | None) -> pd.DataFrame:
        layout = self.estimates.layout
        values = self.varcorr[["vcov", "sdcor"]].to_numpy()
        if spread is None:
            return self._component_frame(np.where(np.isnan(values), np.nan, 0.0))
        errors = spread.error(lambda theta, sigma: component_values(layout, theta, sigma))
        return self._component_frame(np.where(on_boundary(layout, values), np.nan, errors))

    def _component_frame(self, values: np.ndarray) -> pd.DataFrame:
        labels = pd.DataFrame(component_labels(self.estimates.layout), columns=["group", "name1", "name2"])
        labels = labels.where(labels.notna(), np.nan)  # pandas keeps None where a column has nothing else
        return labels.assign(vcov=values[:, 0], sdcor=values[:, 1])

    # --- random effects --------------------------------------------------------------------------

    @cached_property
    def random_effects(self) -> dict[str, pd.DataFrame]:
        """Conditional modes by factor: levels x columns."""
        frames = {}
        for factor, modes in zip(self.estimates.layout.factors, self.estimates.modes, strict=True):
            index = pd.Index(factor.levels, name=factor.name)
            frames[factor.name] = pd.DataFrame(modes, index=index, columns=list(factor.columns))
        return frames

    @property
    def n_groups(self) -> dict[str, int]:
        """Number of levels of every factor."""
        return {factor.name: factor.n_levels for factor in self.estimates.layout.factors}

    # --- likelihood ------------------------------------------------------------------------------

    @property
    def criterion(self) -> float:
        """REML criterion, or deviance -2 log L under ML."""
        return self.estimates.criterion

    @property
    def llf(self) -> float:
        """Log-likelihood (restricted under REML)."""
        return self.estimates.log_likelihood

    @property
    def aic(self) -> float:
        """Akaike's criterion, counting fixed effects, covariance parameters and sigma."""
        return self.criterion + 2.0 * self.estimates.n_parameters

    @property
    def llf_mc_error(self) -> float:
        """Monte Carlo standard error of `llf`, half that of aic and bic; 0 where the engine samples nothing."""
        sampling = self.estimates.sampling
        return 0.0 if sampling is None else 0.5 * sampling.criterion_error

    @property
    def bic(self) -> float:
        """Schwarz's criterion with log(nobs), as lme4."""
        return self.criterion + float(np.log(self.nobs)) * self.estimates.n_parameters

    # --- rows ------------------------------------------------------------------------------------

    @cached_property
    def fittedvalues(self) -> pd.Series:
        """``offset + X beta + Z b`` of every row used.

        Indexed like a table in memory, and by the number of the row in any other source (which is read once more).
        """
        return self._row_values("fittedvalues", lambda rows: rows.fitted)

    @cached_property
    def resid(self) -> pd.Series:
        """Response minus `fittedvalues`."""
        return self._row_values("resid", lambda rows: rows.y - rows.fitted)

    def fitted_batches(self, progress: Progress | None = None) -> Iterator[pd.DataFrame]:
        """Fitted values and residuals batch by batch, in the order of the rows; those of a table in memory at once.

        Parameters
        ----------
        progress : callable, optional
            Called with the name of the phase, the rows done and the rows in all (None where nobody knows).

        Yields
        ------
        DataFrame
            Columns fitted and resid, indexed as `fittedvalues`.

        Raises
        ------
        ModelError
            The model was made from cross-products and has no rows.
        """
        for rows in self._predictions(progress):
            yield pd.DataFrame({"fitted": rows.fitted, "resid": rows.y - rows.fitted}, index=rows.index)

    def write_fitted(self, path: str | Path, progress: bool | Progress | None = None) -> None:
        """Write fitted values and residuals to a Parquet file, batch by batch.

        The file has the columns row (label of the row), fitted and resid, and appears when it is complete.

        Parameters
        ----------
        path : str or Path
            Replaced if it exists.
        progress : bool or callable, optional
            As in `fitted_batches`.

        Raises
        ------
        ModelError
            The model was made from cross-products and has no rows.
        DataError
            pyarrow is not installed, the file cannot be written, or the rows of the model come from it.
        """
        if self.model.design.reads(Path(path)):
            raise DataError(f"{str(path)!r} holds the rows of the model; write the fitted values to another file")
        with meter(progress) as shown:
            batches = self.fitted_batches(shown.rows)
            write_batches(Path(path), (batch.reset_index(names="row") for batch in batches))

    def _row_values(self, name: str, of: Callable[[Predicted], np.ndarray]) -> pd.Series:
        values = np.empty(self.nobs)
        labels, start = [], 0
        for rows in self._predictions():
            values[start : start + rows.y.size] = of(rows)
            labels.append(rows.index)
            start += rows.y.size
        index = labels[0].append(labels[1:]) if len(labels) > 1 else labels[0]
        return pd.Series(values, index=index, name=name)

    def _predictions(self, progress: Progress | None = None) -> Iterator[Predicted]:
        return self.model.design.predictions(self.estimates.beta, self.estimates.modes, progress)

    @property
    def nobs(self) -> int:
        """Rows used."""
        return self.estimates.n

    @property
    def n_dropped(self) -> int:
        """Rows left out because of a missing value."""
        return self.model.design.n_dropped

    @property
    def df_resid(self) -> int:
        """Rows used minus fixed effects."""
        return self.nobs - self.estimates.beta.size

    # --- the fit itself --------------------------------------------------------------------------

    @property
    def converged(self) -> bool:
        """Whether the optimiser's test was met."""
        return self.estimates.converged

    @property
    def singular(self) -> bool:
        """Whether a random-effects covariance has less than full rank."""
        return self.estimates.singular

    @property
    def method(self) -> str:
        """``"REML"`` or ``"ML"``."""
        return "REML" if self.estimates.reml else "ML"

    @property
    def formula(self) -> str:
        """The formula as it was written."""
        return self.model.formula.source

    @cached_property
    def optimization(self) -> pd.DataFrame:
        """One row per evaluation of the criterion: what was tried, what came of it, and theta."""
        names = list(self.estimates.layout.theta_names)
        rows = [
            (it.step, it.accepted, it.criterion, it.gradient_norm, it.decrement, it.cg_steps, it.seconds, *it.theta)
            for it in self.estimates.iterations
        ]
        columns = ["step", "accepted", "criterion", "gradient_norm", "decrement", "cg_steps", "seconds", *names]
        return pd.DataFrame(rows, columns=columns)

    # --- report ----------------------------------------------------------------------------------

    def summary(self, ddf: str = "normal") -> Summary:
        """The report: what was fitted, how it went, variance components, fixed effects.

        Parameters
        ----------
        ddf : {"normal", "residual", "satterthwaite", "kenward-roger"}
            Degrees of freedom of the tests and intervals of the fixed effects.
        """
        coefficients, note = self.report_table(ddf)
        return Summary(
            ReportContent(
                formula=self.formula,
                fit=self.estimates,
                n_dropped=self.n_dropped,
                weighted=self.estimates.layout.weighted,
                offset=self.estimates.layout.offset,
                aic=self.aic,
                bic=self.bic,
                varcorr=self.varcorr,
                varcorr_se=None if self.estimates.sampling is None else self.varcorr_se,
                varcorr_mc_error=None if self.estimates.sampling is None else self.varcorr_mc_error,
                coefficients=coefficients,
                coefficients_note=note,
                resid=self._scaled_resid(),
            )
        )

    def _scaled_resid(self) -> np.ndarray | None:
        """Residuals over sigma, weighted; shape (n,). None where the rows are not at hand."""
        if self.model.design.streamed:
            return None
        parts = []
        for rows in self._predictions():
            resid = (rows.y - rows.fitted) / self.sigma
            parts.append(resid if rows.weights is None else resid * np.sqrt(rows.weights))
        return np.concatenate(parts)

    def __repr__(self) -> str:
        return self.summary().as_text()

    def _repr_html_(self) -> str:
        return self.summary().as_html()
