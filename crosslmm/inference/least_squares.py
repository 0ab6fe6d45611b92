"""What is left when no random effects are: weighted least squares, from cross-products.

Only as much of it as backward elimination needs. The formula is stated, for a package for linear models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.inference.contrasts import Contrasts
from crosslmm.inference.hypothesis import estimate_frame, tested
from crosslmm.inference.methods import Known
from crosslmm.inference.reduce import fixed_only_criterion
from crosslmm.linalg.dense import solve_lower, solve_lower_transposed


@dataclass(frozen=True, repr=False)
class LeastSquares:
    """A linear model by (weighted) least squares; no random effects.

    Attributes
    ----------
    formula : str
    names : tuple of str
        Of the coefficients.
    beta : ndarray, shape (p,)
    cov : ndarray, shape (p, p)
        ``sigma**2 (X'WX)^-1``.
    sigma : float
        Residual standard deviation (of an observation with weight 1).
    n : int
        Rows.
    deviance : float
        ``-2 log L`` at its maximum.
    """

    formula: str
    names: tuple[str, ...]
    beta: FloatArray
    cov: FloatArray
    sigma: float
    n: int
    deviance: float

    @property
    def df_resid(self) -> int:
        """Rows minus coefficients."""
        return self.n - self.beta.size

    @property
    def n_parameters(self) -> int:
        """Coefficients and sigma."""
        return self.beta.size + 1

    @property
    def llf(self) -> float:
        """Log-likelihood."""
        return -0.5 * self.deviance

    @property
    def aic(self) -> float:
        """Akaike's criterion."""
        return self.deviance + 2.0 * self.n_parameters

    def coef_table(self, *, level: float = 0.95) -> pd.DataFrame:
        """Coefficients with t tests and intervals on `df_resid` degrees of freedom, in the columns of a fit's."""
        p = self.beta.size
        contrasts = Contrasts(self.names, np.eye(p), np.zeros(p))
        return estimate_frame(contrasts, self.beta, self._method(self.df_resid), level)

    def f_test(self, columns: tuple[int, ...], *, df: float) -> tuple[int, float, float, float]:
        """F test that coefficients are 0: num_df, den_df (as given), f_value, p_value."""
        labels = tuple(self.names[j] for j in columns)
        contrasts = Contrasts(labels, np.eye(self.beta.size)[list(columns)], np.zeros(len(columns)))
        result = tested(contrasts, self.beta, self.names, self._method(df))
        return result.num_df, result.den_df, result.f_value, result.p_value

    def _method(self, df: float) -> Known:
        return Known("residual", self.cov, float(df))

    def __repr__(self) -> str:
        table = self.coef_table().drop(columns="df").rename(columns={"statistic": "t"})
        lines = [
            f"Least squares: {self.formula}",
            "no coefficients" if table.empty else table.to_string(float_format=lambda number: f"{number:.5g}"),
            f"Residual standard deviation {self.sigma:.5g} on {self.df_resid:,} degrees of freedom",
            "No random effects are left. For more than this, fit the formula with a package for linear models.",
        ]
        return "\n".join(lines)


def least_squares(xp: CrossProducts, formula: str) -> LeastSquares:
    """The fixed part of a model by least squares.

    Parameters
    ----------
    xp : CrossProducts
        Its random effects are passed over.
    formula : str
        Formula of the fixed part.
    """
    p, standard = xp.layout.n_fixed, xp.layout.standardization
    root = np.asarray(np.linalg.cholesky(xp.fixed[:p, :p]), dtype=np.float64)
    half = solve_lower(root, xp.fixed[:p, p:])
    squares = float(xp.fixed[p, p] - half[:, 0] @ half[:, 0])
    sigma = standard.scale * float(np.sqrt(squares / (xp.n - p)))
    own = solve_lower_transposed(root, half)[:, 0]
    spread = sigma * solve_lower(root, standard.x_basis.T)
    return LeastSquares(
        formula=formula,
        names=xp.layout.fixed,
        beta=standard.origin + standard.scale * (standard.x_basis @ own),
        cov=np.asarray(spread.T @ spread),
        sigma=sigma,
        n=xp.n,
        deviance=fixed_only_criterion(xp, reml=False),
    )
