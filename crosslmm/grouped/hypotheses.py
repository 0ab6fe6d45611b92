"""Linear hypotheses in statsmodels' form: z, chi-squared and F tests of any linear function of the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from formulaic.utils.constraints import LinearConstraints
from scipy import special

from crosslmm.covariance import FloatArray
from crosslmm.errors import ModelError


@dataclass(frozen=True)
class Contrast:
    """Linear functions of the parameters, and what they are supposed to be.

    Attributes
    ----------
    matrix : ndarray, shape (r, k)
    values : ndarray, shape (r,)
    """

    matrix: FloatArray
    values: FloatArray


def contrast(spec: Any, names: Sequence[str], k_fe: int) -> Contrast:
    """Read a hypothesis.

    Parameters
    ----------
    spec : str, list of str, array, or tuple of array and values
        ``"Time = 2, Intercept"``; rows with one number for each fixed effect, or for each parameter.
    names : sequence of str
        Of all k parameters.
    k_fe : int
        How many of them are fixed effects.

    Raises
    ------
    ModelError
        It names no parameter, or has the wrong shape.
    """
    if isinstance(spec, (list, tuple)) and spec and all(isinstance(part, str) for part in spec):
        spec = ", ".join(spec)
    if isinstance(spec, str):
        try:
            read = LinearConstraints.from_spec(spec, list(names))
        except Exception as error:  # formulaic's parser raises errors of many kinds
            raise ModelError(
                f"the hypothesis {spec!r} cannot be read; it is a linear function of {', '.join(map(repr, names))}"
            ) from error
        return Contrast(np.asarray(read.constraint_matrix, float), np.asarray(read.constraint_values, float))
    values = None
    if isinstance(spec, tuple):
        spec, values = spec
    matrix = np.atleast_2d(np.asarray(spec, dtype=float))
    if matrix.shape[1] == k_fe:
        matrix = np.hstack([matrix, np.zeros((len(matrix), len(names) - k_fe))])
    if matrix.ndim != 2 or matrix.shape[1] != len(names):
        raise ModelError(
            f"the hypothesis has {matrix.shape[-1]} columns; expected one for each of the {k_fe} fixed effects (or of "
            f"all {len(names)} parameters)"
        )
    right = np.zeros(len(matrix)) if values is None else np.broadcast_to(np.asarray(values, float).ravel(), len(matrix))
    return Contrast(matrix, right)


@dataclass(frozen=True, repr=False)
class ContrastResults:
    """Tests of linear functions, one by one.

    Attributes
    ----------
    effect, sd, statistic, pvalue : ndarray, each (r,)
    df_denom : float
        Degrees of freedom of t; infinite for the normal distribution.
    distribution : str
        ``"norm"`` or ``"t"``.
    names : tuple of str
    """

    effect: FloatArray
    sd: FloatArray
    statistic: FloatArray
    pvalue: FloatArray
    df_denom: float
    distribution: str
    names: tuple[str, ...]

    @property
    def tvalue(self) -> FloatArray:
        """`statistic`."""
        return self.statistic

    zvalue = tvalue

    def conf_int(self, alpha: float = 0.05) -> FloatArray:
        """Confidence intervals; shape (r, 2)."""
        from crosslmm.inference.intervals import check_alpha

        check_alpha(alpha)
        tail = 1.0 - alpha / 2.0
        q = special.ndtri(tail) if self.distribution == "norm" else special.stdtrit(self.df_denom, tail)
        return np.column_stack([self.effect - q * self.sd, self.effect + q * self.sd])

    def summary_frame(self, xname: Sequence[str] | None = None, alpha: float = 0.05) -> pd.DataFrame:
        """The tests as a table, in statsmodels' columns."""
        letter = "z" if self.distribution == "norm" else "t"
        interval = self.conf_int(alpha)
        columns = {
            "coef": self.effect,
            "std err": self.sd,
            letter: self.statistic,
            f"P>|{letter}|": self.pvalue,
            "Conf. Int. Low": interval[:, 0],
            "Conf. Int. Upp.": interval[:, 1],
        }
        return pd.DataFrame(columns, index=list(self.names if xname is None else xname))

    def summary(self, xname: Sequence[str] | None = None, alpha: float = 0.05) -> pd.DataFrame:
        """`summary_frame`."""
        return self.summary_frame(xname, alpha)

    def __repr__(self) -> str:
        return self.summary_frame().to_string()


@dataclass(frozen=True, repr=False)
class WaldTest:
    """A joint test.

    Attributes
    ----------
    statistic, pvalue : float
    df_num : int
        Number of independent functions.
    df_denom : float
        Of the F distribution; `df_num` for chi-squared, as in statsmodels.
    distribution : str
        ``"F"`` or ``"chi2"``.
    """

    statistic: float
    pvalue: float
    df_num: int
    df_denom: float
    distribution: str

    @property
    def fvalue(self) -> float:
        """`statistic` of an F test."""
        return self.statistic

    def __repr__(self) -> str:
        if self.distribution == "F":
            return f"<F test: F={self.statistic}, p={self.pvalue}, df_denom={self.df_denom:.3g}, df_num={self.df_num}>"
        return f"<Wald test (chi2): statistic={self.statistic}, p-value={self.pvalue}, df_denom={self.df_denom}>"


def test_each(given: Contrast, params: FloatArray, cov: FloatArray, df: float, use_t: bool) -> ContrastResults:
    """Test every function by itself."""
    effect = given.matrix @ params
    sd = np.sqrt(np.einsum("ij,jk,ik->i", given.matrix, finite(cov, given.matrix), given.matrix))
    statistic = (effect - given.values) / sd
    tail = special.stdtr(df, -np.abs(statistic)) if use_t else special.ndtr(-np.abs(statistic))
    names = tuple(f"c{i}" for i in range(len(effect)))
    return ContrastResults(effect, sd, statistic, 2.0 * tail, df if use_t else np.inf, "t" if use_t else "norm", names)


def test_together(
    given: Contrast,
    params: FloatArray,
    cov: FloatArray,
    df: float,
    use_f: bool,
    *,
    inverse: FloatArray | None = None,
    rank: int | None = None,
) -> WaldTest:
    """Test all functions at once.

    Parameters
    ----------
    given : Contrast
    params, cov : ndarray
        Estimates and their covariance.
    df : float
        Denominator of the F distribution.
    use_f : bool
    inverse : ndarray, optional
        Inverse of the covariance of the functions, where it is not to follow from `cov`.
    rank : int, optional
        Number of functions, where it is not the rank of their covariance.

    Raises
    ------
    ModelError
        They concern parameters on the boundary.
    """
    distance = given.matrix @ params - given.values
    between = np.zeros((0, 0)) if inverse is None else inverse
    if inverse is None:
        inner = given.matrix @ finite(cov, given.matrix) @ given.matrix.T
        found = int(np.linalg.matrix_rank(inner, hermitian=True)) if np.isfinite(inner).all() else 0
        if found == 0:
            raise ModelError("the hypothesis concerns only parameters without a standard error (on the boundary)")
        between = np.asarray(np.linalg.pinv(inner, hermitian=True), float)
        rank = found if rank is None else rank
    rank = len(distance) if rank is None else rank
    chi2 = float(distance @ between @ distance)
    if use_f:
        return WaldTest(chi2 / rank, float(special.fdtrc(rank, df, chi2 / rank)), rank, df, "F")
    return WaldTest(chi2, float(special.chdtrc(rank, chi2)), rank, rank, "chi2")


def finite(cov: FloatArray, matrix: FloatArray) -> FloatArray:
    """The covariance with zeros for parameters that are not asked for, so that their nan does not spread."""
    asked = np.any(matrix != 0.0, axis=0)
    return np.where(asked[:, None] & asked, cov, 0.0)


ADJUSTMENTS = ("hs", "holm-sidak", "h", "holm", "b", "bonferroni", "s", "sidak", "fdr_bh")


def adjusted(pvalues: FloatArray, method: str) -> FloatArray:
    """p-values of a family of tests.

    Parameters
    ----------
    pvalues : ndarray, shape (r,)
    method : str
        One of `ADJUSTMENTS`: Holm-Sidak, Holm, Bonferroni, Sidak, false discovery rate (Benjamini, Hochberg 1995).
    """
    if method not in ADJUSTMENTS:
        raise ModelError(f"method={method!r}: expected one of {', '.join(ADJUSTMENTS)}")
    r = pvalues.size
    if method in ("b", "bonferroni"):
        return np.minimum(r * pvalues, 1.0)
    if method in ("s", "sidak"):
        return -np.expm1(r * np.log1p(-pvalues))
    order = np.argsort(pvalues)
    ordered, left = pvalues[order], np.arange(r, 0, -1)
    if method in ("hs", "holm-sidak"):
        steps = np.maximum.accumulate(-np.expm1(left * np.log1p(-ordered)))
    elif method in ("h", "holm"):
        steps = np.maximum.accumulate(left * ordered)
    else:
        steps = np.minimum.accumulate((ordered * r / np.arange(1, r + 1))[::-1])[::-1]
    result = np.empty(r)
    result[order] = np.minimum(steps, 1.0)
    return result
