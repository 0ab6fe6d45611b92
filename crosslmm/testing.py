"""What a fit offers for tests: contrasts, tables of coefficients and terms, marginal means, information."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from crosslmm.inference.emmeans import MarginalMeans
    from crosslmm.inference.hypothesis import TestResult
    from crosslmm.inference.kenward_roger import KenwardRoger
    from crosslmm.inference.satterthwaite import Satterthwaite
    from crosslmm.results import MixedLMResults


class Testing:
    """Methods of `MixedLMResults` that test its fixed effects; they need solves with its equations and no rows."""

    __test__ = False  # no test case of pytest

    def test(self, hypothesis: Any, *, value: Any = None, ddf: str = "normal", level: float = 0.95) -> TestResult:
        """Test linear hypotheses on the fixed effects, jointly and one by one.

        Parameters
        ----------
        hypothesis : str, dict, array, DataFrame or list
            ``"x1 = x2"`` with the names of `fe_params` (several equations separated by commas), a dict (or Series) of
            weights by name, a list of these, a matrix with one column per fixed effect, or a frame whose columns are
            names.
        value : float or array, optional
            What the combinations are tested to be; 0 by default.
        ddf : {"normal", "residual", "satterthwaite", "kenward-roger"}
            Denominator degrees of freedom.
        level : float
            Of the intervals of the single rows.

        Returns
        -------
        TestResult

        Raises
        ------
        ModelError
            The hypothesis cannot be read or estimated, or Kenward-Roger is asked of a fit by maximum likelihood.

        Examples
        --------
        >>> import crosslmm as clm
        >>> fit = clm.lmer("Reaction ~ Days + (Days | Subject)", clm.datasets.load_sleepstudy())
        >>> result = fit.test("Days = 0", ddf="satterthwaite")
        >>> round(result.f_value, 3), result.num_df, round(result.den_df, 3)
        (45.853, 1, 17.0)
        """
        from crosslmm.inference.at_fit import method_of
        from crosslmm.inference.contrasts import read_contrasts
        from crosslmm.inference.hypothesis import tested

        fit = _results(self)
        layout = fit.estimates.layout
        contrasts = read_contrasts(hypothesis, layout, value)
        return tested(contrasts, fit.estimates.beta, layout.fixed, method_of(fit, ddf), level)

    def coef_table(self, *, ddf: str = "normal", level: float = 0.95) -> pd.DataFrame:
        """Fixed effects with t tests and intervals.

        Parameters
        ----------
        ddf : {"normal", "residual", "satterthwaite", "kenward-roger"}
            Degrees of freedom; ``"kenward-roger"`` also adjusts the standard errors.
        level : float
            Of the intervals.

        Returns
        -------
        DataFrame
            Columns estimate, std_error, df, statistic, p_value, lower, upper. Where the engine sampled, by
            Satterthwaite's and Kenward and Roger's methods also std_error_mc_error and df_mc_error, the Monte Carlo
            standard errors of both.
        """
        from crosslmm.inference.at_fit import method_of
        from crosslmm.inference.contrasts import Contrasts
        from crosslmm.inference.hypothesis import estimate_frame

        fit = _results(self)
        p = fit.estimates.beta.size
        contrasts = Contrasts(fit.estimates.layout.fixed, np.eye(p), np.zeros(p))
        return estimate_frame(contrasts, fit.estimates.beta, method_of(fit, ddf), level)

    def report_table(self, ddf: str) -> tuple[pd.DataFrame, str]:
        """Fixed effects as the report shows them, and a line below them."""
        from crosslmm.inference.at_fit import method_of

        table = self.coef_table(ddf=ddf)
        names = {"estimate": "estimate", "std_error": "std. error", "df": "df", "statistic": "t", "p_value": "P>|t|"}
        names |= {"lower": "2.5%", "upper": "97.5%"}
        if ddf == "normal":
            del names["df"]
            names |= {"statistic": "z", "p_value": "P>|z|"}
            return table[list(names)].rename(columns=names), ""
        note = " ".join((f"Degrees of freedom: {ddf}.", *method_of(_results(self), ddf).notes))
        return table[list(names)].rename(columns=names), note

    def anova(self, *, type: int | str = 3, ddf: str = "satterthwaite") -> pd.DataFrame:
        """F tests of the terms of the fixed part; see `crosslmm.inference.anova.anova_table`."""
        from crosslmm.inference.anova import anova_table

        return anova_table(_results(self), type=type, ddf=ddf)

    def emmeans(
        self,
        factors: str | Sequence[str],
        *,
        by: str | Sequence[str] = (),
        at: Mapping[str, Any] | None = None,
        weights: str = "equal",
        ddf: str = "satterthwaite",
        level: float = 0.95,
    ) -> MarginalMeans:
        """Estimated marginal means; see `crosslmm.inference.emmeans.marginal_means`."""
        from crosslmm.inference.emmeans import marginal_means

        fit = _results(self)
        return marginal_means(fit, factors, by=by, at={} if at is None else at, weights=weights, ddf=ddf, level=level)

    def parameter_cov(self, information: str = "observed") -> pd.DataFrame:
        """Covariance matrix of theta and sigma; nan for elements of theta on the boundary.

        Parameters
        ----------
        information : {"observed", "expected", "average"}
            What is inverted: second derivatives of the criterion, their expectation, or the average information.

        Returns
        -------
        DataFrame
            By the elements of `theta`, in the units of the data, and ``"sigma"``.
        """
        from crosslmm.inference.at_fit import state_at
        from crosslmm.inference.delta import parameter_covariance

        covariance = parameter_covariance(state_at(_results(self)), information)
        names = self._parameter_names
        return pd.DataFrame(covariance, index=names, columns=names)

    def parameter_table(self, information: str = "observed") -> pd.DataFrame:
        """Theta and sigma with their standard errors by any information.

        Parameters
        ----------
        information : {"observed", "expected", "average"}
            As for `parameter_cov`.

        Returns
        -------
        DataFrame
            By the elements of `theta`, in the units of the data, and ``"sigma"``: estimate, std_error (nan on the
            boundary). Where the engine sampled also mc_error and std_error_mc_error, the Monte Carlo standard errors of
            both.
        """
        from crosslmm.inference.at_fit import state_at
        from crosslmm.inference.delta import parameter_errors

        fit = _results(self)
        found = parameter_errors(state_at(fit), information)
        columns = {"estimate": found.values, "std_error": found.std_error}
        if fit.estimates.sampling is not None:
            columns |= {"mc_error": found.mc_error, "std_error_mc_error": found.std_error_mc_error}
        return pd.DataFrame(columns, index=self._parameter_names)

    def varcorr_table(self, information: str = "observed") -> pd.DataFrame:
        """Variance components with their standard errors by any information and the delta method.

        Parameters
        ----------
        information : {"observed", "expected", "average"}
            As for `parameter_cov`.

        Returns
        -------
        DataFrame
            In the rows of `varcorr`: group, name1, name2, vcov, vcov_se, sdcor, sdcor_se. A standard error is nan
            where a variance is 0 or a correlation is 1 or -1. Where the engine sampled also vcov_mc_error,
            vcov_se_mc_error, sdcor_mc_error and sdcor_se_mc_error, the Monte Carlo standard errors of these.
        """
        from crosslmm.inference.at_fit import state_at
        from crosslmm.inference.delta import component_errors

        fit = _results(self)
        found = component_errors(state_at(fit), information)
        parts = {"": found.values, "_se": found.std_error}
        if fit.estimates.sampling is not None:
            parts |= {"_mc_error": found.mc_error, "_se_mc_error": found.std_error_mc_error}
        halves = {end: values.reshape(2, -1) for end, values in parts.items()}
        columns = {name + end: half[k] for k, name in enumerate(("vcov", "sdcor")) for end, half in halves.items()}
        return fit.varcorr[["group", "name1", "name2"]].assign(**columns)

    @cached_property
    def theta_cov(self) -> pd.DataFrame:
        """Covariance matrix of `theta` by the average information, as `theta_se`; nan on the boundary."""
        return self.parameter_cov("average").iloc[:-1, :-1]

    @property
    def _parameter_names(self) -> list[str]:
        return [*_results(self).estimates.layout.theta_names, "sigma"]

    @cached_property
    def _satterthwaite(self) -> Satterthwaite:
        from crosslmm.inference.at_fit import make_satterthwaite

        return make_satterthwaite(_results(self), "observed")

    @cached_property
    def _kenward_roger(self) -> KenwardRoger:
        from crosslmm.inference.at_fit import make_kenward_roger

        return make_kenward_roger(_results(self))


def _results(fit: Testing) -> MixedLMResults:
    return cast("MixedLMResults", fit)
