"""t and F tests of contrasts by any method, and their frames."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

import numpy as np
import pandas as pd
from scipy import special

from crosslmm.covariance import FloatArray
from crosslmm.errors import ModelError
from crosslmm.inference.contrasts import Contrasts, dependent_rows
from crosslmm.inference.methods import Method

SMALLEST_P = 2.2e-16
"""p-values below this are rounding, and are printed as smaller than it."""


def t_tail(t: FloatArray, df: FloatArray) -> FloatArray:
    """Two-sided p-values; the normal distribution where df is infinite."""
    finite = np.isfinite(df)
    by_t = special.stdtr(np.where(finite, df, 1.0), -np.abs(t))
    return np.asarray(2.0 * np.where(finite, by_t, special.ndtr(-np.abs(t))))


def t_quantile(level: float, df: FloatArray) -> FloatArray:
    """Half width, in standard errors, of an interval of this level."""
    finite = np.isfinite(df)
    by_t = special.stdtrit(np.where(finite, df, 1.0), 0.5 + 0.5 * level)
    return np.asarray(np.where(finite, by_t, special.ndtri(0.5 + 0.5 * level)))


def f_tail(f: FloatArray | float, num_df: FloatArray | float, den_df: FloatArray | float) -> FloatArray:
    """p-values of F; chi-squared over its degrees of freedom where den_df is infinite."""
    finite = np.isfinite(den_df)
    by_f = special.fdtrc(num_df, np.where(finite, den_df, 1.0), f)
    return np.asarray(np.where(finite, by_f, special.chdtrc(num_df, np.multiply(num_df, f))))


def check_level(level: object) -> float:
    """A level between 0 and 1.

    Raises
    ------
    ModelError
        It is not.
    """
    if isinstance(level, bool) or not isinstance(level, Real) or not 0.0 < float(level) < 1.0:
        raise ModelError(f"level={level!r}: expected a number between 0 and 1, such as 0.95")
    return float(level)


def estimate_frame(contrasts: Contrasts, beta: FloatArray, method: Method, level: float) -> pd.DataFrame:
    """Estimates of contrasts with t tests of their values, by contrast.

    Returns
    -------
    DataFrame
        Columns estimate, std_error, df, statistic, p_value, lower, upper; std_error_mc_error and df_mc_error where the
        engine sampled.
    """
    estimate = contrasts.L @ beta
    errors = np.sqrt(np.einsum("qp,po,qo->q", contrasts.L, method.covariance, contrasts.L, optimize=True))
    df = method.degrees(contrasts.L)
    statistic = (estimate - contrasts.value) / errors
    half = t_quantile(check_level(level), df) * errors
    frame = pd.DataFrame(
        {
            "estimate": estimate,
            "std_error": errors,
            "df": df,
            "statistic": statistic,
            "p_value": t_tail(statistic, df),
            "lower": estimate - half,
            "upper": estimate + half,
        },
        index=pd.Index(contrasts.labels, dtype=object),
    )
    sampled = {
        "std_error_mc_error": method.std_error_error(contrasts.L),
        "df_mc_error": method.degrees_error(contrasts.L),
    }
    return frame.assign(**sampled) if any(errors.any() for errors in sampled.values()) else frame


@dataclass(frozen=True, repr=False)
class TestResult:
    """A test of ``L beta = value``.

    Attributes
    ----------
    ddf : str
        Method of the denominator degrees of freedom.
    f_value, num_df, den_df, p_value : float
        F test of all rows; den_df is infinite for ``"normal"``.
    f_mc_error, den_df_mc_error : float
        Monte Carlo standard errors of f_value and den_df; 0 where the engine samples nothing.
    rows : DataFrame
        Every row by itself: estimate, value, std_error, df, statistic, p_value, lower, upper.
    matrix : DataFrame
        L, by row and coefficient.
    notes : tuple of str
    """

    __test__ = False  # no test case of pytest

    ddf: str
    f_value: float
    num_df: int
    den_df: float
    p_value: float
    f_mc_error: float
    den_df_mc_error: float
    rows: pd.DataFrame
    matrix: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def statistic(self) -> float:
        """t (z for ``"normal"``) where one row is tested, else F."""
        return float(self.rows["statistic"].iloc[0]) if len(self.rows) == 1 else self.f_value

    def to_frame(self) -> pd.DataFrame:
        """The joint test as one row: num_df, den_df, f_value, p_value, and Monte Carlo errors where there are any."""
        names = ["num_df", "den_df", "f_value", "p_value"]
        if self.f_mc_error or self.den_df_mc_error:
            names += ["f_mc_error", "den_df_mc_error"]
        return pd.DataFrame({name: [getattr(self, name)] for name in names}, index=["joint"])

    def __repr__(self) -> str:
        f_error, df_error = (
            f" (Monte Carlo error {error:.2g})" if error else "" for error in (self.f_mc_error, self.den_df_mc_error)
        )
        p_value = f"< {SMALLEST_P}" if self.p_value < SMALLEST_P else f"= {self.p_value:.4g}"
        lines = [
            f"Test of fixed effects, {self.ddf} degrees of freedom",
            self.rows.to_string(float_format=lambda number: f"{number:.5g}"),
            f"F = {self.f_value:.5g}{f_error} on {self.num_df} and {self.den_df:.5g}{df_error} degrees of freedom, "
            f"p {p_value}",
        ]
        return "\n".join([*lines, *self.notes])


def tested(
    contrasts: Contrasts, beta: FloatArray, names: tuple[str, ...], method: Method, level: float = 0.95
) -> TestResult:
    """Test a hypothesis by one method.

    Parameters
    ----------
    contrasts : Contrasts
    beta : ndarray, shape (p,)
    names : tuple of str
        Names of the coefficients.
    method : Method
    level : float
        Of the intervals of the rows.

    Raises
    ------
    ModelError
        Rows contradict each other.
    """
    note = dependent_rows(contrasts)
    joint = method.joint(contrasts.L, contrasts.L @ beta - contrasts.value)
    rows = estimate_frame(contrasts, beta, method, level)
    rows.insert(1, "value", contrasts.value)
    return TestResult(
        ddf=method.name,
        f_value=joint.f_value,
        num_df=int(joint.num_df),
        den_df=joint.den_df,
        p_value=float(f_tail(joint.f_value, joint.num_df, joint.den_df)),
        f_mc_error=joint.f_mc_error,
        den_df_mc_error=joint.den_df_mc_error,
        rows=rows,
        matrix=pd.DataFrame(contrasts.L, index=pd.Index(contrasts.labels, dtype=object), columns=list(names)),
        notes=(*([note] if note else []), *method.notes),
    )
