"""What statsmodels' results offer for inference, as methods of `GroupedResults`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from crosslmm.covariance import FloatArray
from crosslmm.errors import ModelError
from crosslmm.grouped import hypotheses
from crosslmm.grouped.hypotheses import Contrast, ContrastResults, WaldTest
from crosslmm.grouped.newdata import codings, columns_of_terms

if TYPE_CHECKING:
    from crosslmm.grouped.results import GroupedResults

STEP = 1e-5
"""Step of the derivative of a function of the parameters, in standard errors."""


@dataclass(frozen=True)
class TermTests:
    """Wald tests term by term.

    Attributes
    ----------
    table : DataFrame
        Columns statistic, pvalue and df_constraint; a row per term.
    """

    table: pd.DataFrame

    def summary_frame(self) -> pd.DataFrame:
        """`table` with statsmodels' headers."""
        return self.table.set_axis(["chi2", "P>chi2", "df constraint"], axis=1)

    def __str__(self) -> str:
        return self.summary_frame().to_string()


@dataclass(frozen=True)
class PairwiseTests:
    """Comparisons of the levels of a category, pair by pair.

    Attributes
    ----------
    result_frame : DataFrame
        In statsmodels' columns, with adjusted p-values and whether the difference is refuted at the level asked for.
    """

    result_frame: pd.DataFrame

    def summary_frame(self) -> pd.DataFrame:
        """`result_frame`."""
        return self.result_frame

    def __str__(self) -> str:
        return self.result_frame.to_string()


@dataclass(frozen=True)
class FunctionOfParameters:
    """A function of the parameters with its standard errors by the delta method.

    Attributes
    ----------
    effect, sd : ndarray, each (r,)
    cov : ndarray, shape (r, r)
    """

    effect: FloatArray
    sd: FloatArray
    cov: FloatArray


class Inference:
    """Tests and resampling; the results stay as they are."""

    def t_test(self, r_matrix: Any, use_t: bool | None = None) -> ContrastResults:
        """Test linear functions of the parameters, one by one.

        Parameters
        ----------
        r_matrix : str, list of str, array, or tuple of array and values
            ``"Time = 0"``, ``["Time = 7", "Intercept"]``, or rows with a number for each fixed effect (or parameter).
        use_t : bool, optional
            Take the t distribution with `df_resid` degrees of freedom; by default the normal one.
        """
        fit = _fit(self)
        given = fit._contrast(r_matrix)
        return hypotheses.test_each(given, np.asarray(fit.params), fit._covariance, float(fit.df_resid), bool(use_t))

    def f_test(self, r_matrix: Any, cov_p: Any = None, invcov: Any = None) -> WaldTest:
        """Test linear functions together, by the F distribution with `df_resid` degrees of freedom.

        Parameters
        ----------
        r_matrix
            As in `t_test`.
        cov_p : array, optional
            Covariance of the parameters to take instead.
        invcov : array, optional
            Inverse of the covariance of the functions.
        """
        return self.wald_test(r_matrix, cov_p=cov_p, invcov=invcov, use_f=True)

    def wald_test(
        self,
        r_matrix: Any,
        cov_p: Any = None,
        invcov: Any = None,
        use_f: bool | None = None,
        df_constraints: int | None = None,
        scalar: bool = True,
    ) -> WaldTest:
        """Test linear functions of the parameters together, by the chi-squared distribution.

        Parameters
        ----------
        r_matrix
            As in `t_test`.
        cov_p : array, optional
            Covariance of the parameters to take instead.
        invcov : array, optional
            Inverse of the covariance of the functions.
        use_f : bool, optional
            Take the F distribution instead.
        df_constraints : int, optional
            Number of functions, where it is not their rank.
        scalar : bool
            Accepted as in statsmodels; the statistic is a number.
        """
        fit = _fit(self)
        given = fit._contrast(r_matrix)
        cov = fit._covariance if cov_p is None else np.asarray(cov_p, dtype=float)
        return hypotheses.test_together(
            given,
            np.asarray(fit.params),
            cov,
            float(fit.df_resid),
            bool(use_f),
            inverse=None if invcov is None else np.asarray(invcov, dtype=float),
            rank=df_constraints,
        )

    def wald_test_terms(
        self,
        skip_single: bool = False,
        extra_constraints: Sequence[tuple[str, Any]] | None = None,
        combine_terms: Sequence[str] | None = None,
        scalar: bool = True,
    ) -> TermTests:
        """Test every term of the fixed part.

        Parameters
        ----------
        skip_single : bool
            Leave out terms of one column.
        extra_constraints : list of (name, matrix), optional
            Further hypotheses.
        combine_terms : list of str, optional
            Test all terms whose names contain one of these together.
        scalar : bool
            Accepted as in statsmodels.
        """
        fit = _fit(self)
        terms = columns_of_terms(fit.model)
        tests = [(name, columns) for name, columns in terms if columns and not (skip_single and len(columns) == 1)]
        for text in combine_terms or ():
            joined = [column for name, columns in terms if text in name for column in columns]
            if not joined:
                raise ModelError(f"no term of the fixed part has {text!r} in its name")
            tests.append((text, joined))
        identity = np.eye(fit.df_modelwc)
        found = [(name, self.wald_test(identity[columns])) for name, columns in tests]
        found += [(name, self.wald_test(matrix)) for name, matrix in extra_constraints or ()]
        rows = [(test.statistic, test.pvalue, test.df_num) for _, test in found]
        names = [name for name, _ in found]
        return TermTests(pd.DataFrame(rows, index=names, columns=["statistic", "pvalue", "df_constraint"]))

    def t_test_pairwise(
        self, term_name: str, method: str = "hs", alpha: float = 0.05, factor_labels: Sequence[str] | None = None
    ) -> PairwiseTests:
        """Compare the levels of a category pair by pair, all else equal.

        Parameters
        ----------
        term_name : str
            A term of the fixed part that is one category, such as ``"C(Evit)"``.
        method : str
            How p-values are adjusted: Holm-Sidak (``"hs"``), ``"holm"``, ``"bonferroni"``, ``"sidak"``, ``"fdr_bh"``.
        alpha : float
            Level of the tests and intervals.
        factor_labels : list of str, optional
            Names of the levels.
        """
        fit = _fit(self)
        from crosslmm.inference.intervals import check_alpha

        check_alpha(alpha)
        levels, coding = codings(fit.model, term_name)
        names = [str(level) for level in levels] if factor_labels is None else list(factor_labels)
        if len(names) != len(levels):
            raise ModelError(f"factor_labels has {len(names)} names, but {term_name!r} has {len(levels)} levels")
        pairs = list(combinations(range(len(levels)), 2))
        matrix = np.array([coding[j] - coding[i] for i, j in pairs])
        test = self.t_test(np.hstack([matrix, np.zeros((len(pairs), fit.df_modelwc - matrix.shape[1]))]))
        frame = test.summary_frame([f"{names[j]}-{names[i]}" for i, j in pairs], alpha)
        corrected = hypotheses.adjusted(test.pvalue, method)
        frame[f"pvalue-{method}"] = corrected
        frame[f"reject-{method}"] = corrected <= alpha
        return PairwiseTests(frame)

    def profile_re(
        self,
        re_ix: int | str,
        vtype: str,
        num_low: int = 5,
        dist_low: float = 1.0,
        num_high: int = 5,
        dist_high: float = 1.0,
        **fit_kwargs: Any,
    ) -> FloatArray:
        """Log-likelihood with one variance over the residual variance held at values around its estimate.

        Parameters
        ----------
        re_ix : int or str
            Position of a random effect, or name of a variance component.
        vtype : {"re", "vc"}
            Which of the two.
        num_low, num_high : int
            Numbers of points below and above the estimate.
        dist_low, dist_high : float
            How far the first and last are from it, in units of the variance.
        **fit_kwargs
            Accepted as in statsmodels.

        Returns
        -------
        ndarray, shape (num_low + num_high + 1, 2)
            The variance (ratio times residual variance there), and the log-likelihood.
        """
        from crosslmm.grouped.profile import profile_re

        return profile_re(_fit(self), re_ix, vtype, (num_low, dist_low), (num_high, dist_high))

    def get_nlfun(self, fun: Callable[[FloatArray], Any]) -> FunctionOfParameters:
        """A smooth function of `params` with its standard error by the delta method; statsmodels leaves this open.

        Parameters
        ----------
        fun : callable
            Takes an array (k,) and gives a number or an array (r,).
        """
        fit = _fit(self)
        params = np.array(fit.params, dtype=float)
        errors = np.asarray(fit.bse, dtype=float)
        effect = np.atleast_1d(np.asarray(fun(params), dtype=float))
        slopes = np.zeros((effect.size, params.size))
        for j in np.flatnonzero(errors > 0.0):
            step = np.zeros(params.size)
            step[j] = STEP * errors[j]
            up, down = (np.atleast_1d(np.asarray(fun(params + sign * step), float)) for sign in (1.0, -1.0))
            slopes[:, j] = (up - down) / (2.0 * step[j])
        cov = slopes @ hypotheses.finite(fit._covariance, slopes) @ slopes.T
        return FunctionOfParameters(effect, np.sqrt(np.diag(cov)), cov)

    def _contrast(self, spec: Any) -> Contrast:
        fit = _fit(self)
        return hypotheses.contrast(spec, fit._names, fit.k_fe)


def _fit(results: Inference) -> GroupedResults:
    return cast("GroupedResults", results)
