"""What the package asks of a sparse Cholesky factorisation; `crosslmm.linalg.cholmod` provides it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from crosslmm.covariance import FloatArray


class SparseCholesky(Protocol):
    """Numeric factor ``L L' = P S P'``."""

    @property
    def log_det(self) -> float:
        """log |S|."""

    def half_solve(self, B: FloatArray) -> FloatArray:
        """``L^-1 P B`` for B (q, m)."""

    def half_solve_transposed(self, Y: FloatArray) -> FloatArray:
        """``P' L'^-1 Y`` for Y (q, m)."""

    def lower(self) -> sparse.csc_array:
        """L, with sorted rows in every column."""


class SparseAnalysis(Protocol):
    """Fill-reducing ordering and symbolic factor of one pattern, used for any number of numeric factors."""

    @property
    def permutation(self) -> NDArray[np.intp]:
        """Row of S that each row of the factor stands for; shape (q,)."""

    def factorize(self, S: sparse.csc_array) -> SparseCholesky:
        """Numeric factor of the lower triangle S with the pattern that was analysed."""
