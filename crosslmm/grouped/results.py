"""Results of a model that was written with groups, under statsmodels' names and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy import special

from crosslmm.covariance import FloatArray
from crosslmm.grouped import effects
from crosslmm.grouped.inference import Inference
from crosslmm.grouped.information import held_covariances, parameter_covariance, sampled_covariance
from crosslmm.grouped.keeping import Keeping
from crosslmm.grouped.parameters import MixedLMParams, Point, Space
from crosslmm.grouped.predict import predict
from crosslmm.grouped.report import summary_of
from crosslmm.grouped.written import Written
from crosslmm.refitting import WALD
from crosslmm.report.statsmodels import GroupedSummary
from crosslmm.results import MixedLMResults


@dataclass(frozen=True, repr=False)
class GroupedResults(Inference, Keeping, MixedLMResults):
    """A fitted model that was written with groups.

    Names, labels and units are statsmodels': `params` holds variances over the residual variance. Of a model that was
    made from arrays, vectors and matrices are numpy arrays; else they are pandas objects.

    Attributes
    ----------
    model : MixedLM
    estimates : Fit
    freepat : MixedLMParams or None
        What was held at 0, as it was given.
    keep_history : bool
        Whether `hist` was asked for.
    """

    freepat: Any = None
    keep_history: bool = False

    # --- parameters ------------------------------------------------------------------------------

    @cached_property
    def params(self) -> Any:
        """Fixed effects, then covariances of the random effects and variance components over the residual variance."""
        point = self._point
        lower = point.cov_re[np.tril_indices(len(point.cov_re))]
        return self._vector(np.concatenate([self.estimates.beta, lower, point.vcomp]), self._names)

    @cached_property
    def params_object(self) -> MixedLMParams:
        """`params` in parts."""
        return MixedLMParams.from_components(self.estimates.beta, self._point.cov_re, None, self._point.vcomp)

    @cached_property
    def fe_params(self) -> Any:
        """Fixed effects."""
        return self._vector(self.estimates.beta, self._fixed_names)

    @cached_property
    def cov_re(self) -> Any:
        """Covariance of the random effects of a group."""
        return self._square(self.scale * self._point.cov_re, self._written.re_names)

    @cached_property
    def cov_re_unscaled(self) -> Any:
        """`cov_re` over the residual variance."""
        return self._square(self._point.cov_re, self._written.re_names)

    @cached_property
    def vcomp(self) -> FloatArray:
        """Variance components, in the order of their names."""
        return self.scale * self._point.vcomp

    # --- errors ----------------------------------------------------------------------------------

    @cached_property
    def bse(self) -> Any:
        """Standard errors of `params`; nan on the boundary."""
        return self._vector(np.sqrt(np.diag(self._covariance)), self._names)

    @cached_property
    def bse_fe(self) -> Any:
        """Standard errors of the fixed effects: roots of the diagonal of ``scale (X' V^-1 X)^-1``."""
        return self._vector(self.estimates.beta_se, self._fixed_names)

    @cached_property
    def bse_re(self) -> Any:
        """Standard errors of covariances and variance components in statsmodels' convention.

        That of the ratio to the residual variance, times the root of the residual variance. The standard error of a
        variance itself is in `varcorr_se`.
        """
        own = np.sqrt(self.scale * np.diag(self._covariance)[self.k_fe :])
        return self._vector(own, self._written.covariance_names)

    @cached_property
    def tvalues(self) -> Any:
        """`params` over `bse`."""
        return self._vector(self._z, self._names)

    @cached_property
    def pvalues(self) -> Any:
        """Two-sided p-values of `tvalues` by the normal distribution."""
        return self._vector(2.0 * special.ndtr(-np.abs(self._z)), self._names)

    def conf_int(self, alpha: float = 0.05, *, method: str = WALD, **options: Any) -> Any:
        """Confidence intervals of `params`, normal; or those of bar formulas, by name.

        Parameters
        ----------
        alpha : float
            One minus the level, between 0 and 1.
        method : {"wald", "profile", "bootstrap"}
        **options
            ``which`` and the others of `MixedLMResults.conf_int`, which is asked where any is given.

        Returns
        -------
        DataFrame
            Columns 0 (lower) and 1 (upper); an array for a model from arrays.
        """
        from crosslmm.inference.intervals import check_alpha

        check_alpha(alpha)
        if method != WALD or options:
            return super().conf_int(alpha, method=method, **options)
        values, half = np.asarray(self.params), -special.ndtri(alpha / 2.0) * np.asarray(self.bse)
        ends = np.column_stack([values - half, values + half])
        return pd.DataFrame(ends, index=pd.Index(self._names)) if self._written.labelled else ends

    def cov_params(
        self,
        r_matrix: Any = None,
        column: Any = None,
        scale: float | None = None,
        cov_p: Any = None,
        other: Any = None,
    ) -> Any:
        """Covariance of `params`, or of linear functions of them.

        Fixed effects and covariance parameters are taken as independent of each other, which they are in expectation.

        Parameters
        ----------
        r_matrix : array, shape (r, k), optional
            Linear functions of the parameters.
        column : int or array, optional
            Positions of some parameters.
        scale : float, optional
            Residual variance to take instead of the estimate.
        cov_p : array, shape (k, k), optional
            Covariance of the parameters to take instead.
        other : array, shape (s, k), optional
            Further functions; the covariances of those in `r_matrix` with these are given.
        """
        cov = self._covariance if cov_p is None else np.asarray(cov_p, dtype=float)
        if scale is not None:
            cov = cov * scale / self.scale
        if column is not None and r_matrix is None:
            index = np.atleast_1d(column)
            return cov[column, column] if np.ndim(column) == 0 else cov[np.ix_(index, index)]
        if r_matrix is None:
            return self._square(cov, self._names)
        rows = np.atleast_2d(np.asarray(r_matrix, dtype=float))
        return rows @ cov @ (rows if other is None else np.atleast_2d(np.asarray(other, dtype=float))).T

    @cached_property
    def normalized_cov_params(self) -> Any:
        """`cov_params` over the residual variance."""
        return self._square(self._covariance / self.scale, self._names)

    @cached_property
    def _covariance(self) -> FloatArray:
        p, m = self.k_fe, self.k_re2 + self.k_vc
        result = np.zeros((p + m, p + m))
        result[:p, :p] = self.estimates.beta_cov
        space = self._space
        sets = tuple(tuple(space.re_columns.index(j) for j in term.columns) for term in space.re)
        held = held_covariances(sets, space.k_re, space.k_vc)
        sampling = self.estimates.sampling
        if sampling is None:
            likelihood = self.model._likelihood(self.reml, self.estimates.plan.options)
            result[p:, p:] = parameter_covariance(likelihood, self._point, held)
        else:
            result[p:, p:] = sampled_covariance(sampling.statistical, space, self._point, held)
        return result

    # --- numbers ---------------------------------------------------------------------------------

    @property
    def k_fe(self) -> int:
        """Number of fixed effects."""
        return self._space.k_fe

    @property
    def k_re(self) -> int:
        """Number of random effects of a group."""
        return self._space.k_re

    @property
    def k_re2(self) -> int:
        """Number of their variances and covariances."""
        return self._space.k_re2

    @property
    def k_vc(self) -> int:
        """Number of variance components."""
        return self._space.k_vc

    @property
    def df_modelwc(self) -> int:
        """Number of parameters in `params`."""
        return self._space.k_fe + self._space.k_re2 + self._space.k_vc

    @property
    def reml(self) -> bool:
        """Whether the fit was by REML."""
        return self.estimates.reml

    @property
    def use_t(self) -> bool:
        """False: tests are normal unless they ask for something else."""
        return False

    @property
    def use_sqrt(self) -> bool:
        """As the model was made."""
        return self._written.use_sqrt

    @property
    def hist(self) -> list[pd.DataFrame] | None:
        """`optimization` in a list, where `full_output` asked for it."""
        return [self.optimization] if self.keep_history else None

    # --- random effects --------------------------------------------------------------------------

    @cached_property
    def random_effects(self) -> dict[Any, pd.Series]:  # type: ignore[override]
        """Conditional means of the random effects, by group."""
        values = effects.means(self._blocks, self.estimates)
        return {
            label: pd.Series(values[a:b], index=index)
            for (label, index), a, b in zip(self._effect_names, *self._ends, strict=True)
        }

    @cached_property
    def random_effects_cov(self) -> dict[Any, pd.DataFrame]:
        """Conditional covariances of the random effects given the data, by group."""
        made = effects.covariances(self._blocks, self.estimates, self.model.crossproducts)
        named = zip(self._effect_names, made, strict=True)
        return {label: pd.DataFrame(cov, index=index, columns=index) for (label, index), cov in named}

    @cached_property
    def _effect_names(self) -> list[tuple[Any, pd.Index]]:
        """Label of every group and names of its effects; one index for all groups with the same names."""
        labels = self._written.groups.labels.tolist()
        known: dict[tuple[str, ...], pd.Index] = {}
        found = []
        for label, a, b in zip(labels, *self._ends, strict=True):
            names = tuple(self._blocks.labels[a:b])
            if names not in known:
                known[names] = pd.Index(list(names))
            found.append((label, known[names]))
        return found

    @property
    def _ends(self) -> tuple[list[int], list[int]]:
        """Where the effects of every group begin and end."""
        starts = self._blocks.starts.tolist()
        return starts[:-1], starts[1:]

    @cached_property
    def _blocks(self) -> effects.Blocks:
        return effects.blocks(self._written, self.estimates)

    @cached_property
    def fittedvalues(self) -> Any:
        """``X beta + Z b`` of every row used."""
        return self._rows(MixedLMResults.fittedvalues.func(self))  # type: ignore[attr-defined]

    @cached_property
    def resid(self) -> Any:
        """Response minus `fittedvalues`."""
        return self._rows(MixedLMResults.resid.func(self))  # type: ignore[attr-defined]

    def predict(  # type: ignore[override]
        self,
        exog: Any = None,
        transform: bool = True,
        *,
        random_effects: bool = False,
        groups: Any = None,
        **options: Any,
    ) -> Any:
        """Expected responses.

        Parameters
        ----------
        exog : table or array, optional
            New rows: a table of the formula's columns, or columns of the fixed effects for a model from arrays. By
            default the rows of the model.
        transform : bool
            False: `exog` holds the columns of the fixed effects, whatever the model was made from.
        random_effects : bool
            Add the random effects of the groups; those of groups that the model did not see are 0.
        groups : array, optional
            Groups of the new rows, where the model's groups are no column of a table.
        **options
            ``interval``, ``new_levels`` and the others of the results of a formula with bars, whose `predict` is asked
            where any is given.

        Returns
        -------
        Series
            With the index of `exog`; nan in rows that miss a value. An array for a model from arrays.

        Raises
        ------
        DataError, ModelError
            The new rows do not serve.
        """
        if options:
            return super().predict(exog, random_effects=random_effects, **options)
        return predict(self, exog, transform=transform, random_effects=random_effects, groups=groups)

    def bootstrap(  # type: ignore[override]
        self,
        nrep: int = 100,
        method: str = "nm",
        disp: int = 0,
        store: int = 1,
        rng: Any = None,
        **parametric: Any,
    ) -> Any:
        """Fit the model to groups drawn with replacement.

        Statsmodels draws rows, which are not independent; here whole groups are drawn.

        Parameters
        ----------
        nrep : int
            Number of fits.
        method : str
            Accepted as in statsmodels: its optimiser.
        disp, store : int
            Accepted as in statsmodels.
        rng : int, Generator or None
            Seed or source of random numbers.
        **parametric
            Options of the parametric bootstrap, `MixedLMResults.bootstrap`, which is made where any is given.

        Returns
        -------
        mean, sd : ndarray, each (k,)
            Of `params` over the fits.
        results : BootstrapResults
            `params` of every fit.
        """
        from crosslmm.grouped.bootstrap import bootstrap

        if parametric:
            return super().bootstrap(nrep, rng=rng, **parametric)
        return bootstrap(self, nrep, rng)

    # --- report ----------------------------------------------------------------------------------

    def summary(  # type: ignore[override]
        self,
        yname: str | None = None,
        xname_fe: Sequence[str] | None = None,
        xname_re: Sequence[str] | None = None,
        title: str | None = None,
        alpha: float = 0.05,
    ) -> GroupedSummary:
        """The report, in statsmodels' layout; notes below it say what else a reader must know.

        Parameters
        ----------
        yname : str, optional
            Name of the response.
        xname_fe, xname_re : list of str, optional
            Names of the fixed effects, and of the covariance parameters.
        title : str, optional
        alpha : float
            One minus the level of the intervals.
        """
        return summary_of(self, yname, xname_fe, xname_re, title, alpha)

    # --- names -----------------------------------------------------------------------------------

    @property
    def _written(self) -> Written:
        return cast(Written, self.model.written)

    @cached_property
    def _space(self) -> Space:
        return Space.of(self._written, self.estimates.layout)

    @cached_property
    def _point(self) -> Point:
        cov, vcomp = self._space.covariances(self.estimates.theta)
        return Point(self.estimates.beta, cov, vcomp)

    @property
    def _z(self) -> FloatArray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.asarray(self.params) / np.asarray(self.bse))

    @property
    def _fixed_names(self) -> tuple[str, ...]:
        return self.estimates.layout.fixed

    @property
    def _names(self) -> tuple[str, ...]:
        return (*self._fixed_names, *self._written.covariance_names)

    def _vector(self, values: FloatArray, names: Sequence[str]) -> Any:
        return pd.Series(values, index=pd.Index(list(names))) if self._written.labelled else values

    def _square(self, values: FloatArray, names: Sequence[str]) -> Any:
        labels = list(names)
        return pd.DataFrame(values, index=labels, columns=labels) if self._written.labelled else values

    def _rows(self, values: pd.Series) -> Any:
        return values.rename(None) if self._written.labelled else values.to_numpy()
