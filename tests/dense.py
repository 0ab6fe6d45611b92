"""Linear mixed models by the book, in n x n matrices: the oracle of the tests.

The response has mean ``offset + X beta`` and covariance ``sigma^2 V``, ``V = sum_t Z_t T_t T_t' Z_t' + W^-1``
(marginal form; Searle, Casella, McCulloch 1992, chapter 6). Nothing here is shared with crosslmm, which works in
the penalised form. With ``dtype=np.longdouble`` everything runs in extended precision (numpy's LAPACK does not, hence
the small factorisations below), which is what differences of the criterion need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.linalg import solve_triangular


def cholesky(A: np.ndarray) -> np.ndarray:
    if A.dtype == np.float64:
        return np.linalg.cholesky(A)
    A = A.copy()
    for j in range(len(A)):
        A[j:, j] /= np.sqrt(A[j, j])
        A[j + 1 :, j + 1 :] -= np.outer(A[j + 1 :, j], A[j + 1 :, j])
    return np.tril(A)


def solve_lower(L: np.ndarray, B: np.ndarray) -> np.ndarray:
    if L.dtype == np.float64:
        return solve_triangular(L, B, lower=True)
    B = B.copy()
    for i in range(len(L)):
        B[i] = (B[i] - L[i, :i] @ B[:i]) / L[i, i]
    return B


def solve_upper(U: np.ndarray, B: np.ndarray) -> np.ndarray:
    return solve_lower(U[::-1, ::-1], B[::-1])[::-1]


def qr(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gram-Schmidt with every projection done twice."""
    Q, R = A.copy(), np.zeros((A.shape[1], A.shape[1]), dtype=A.dtype)
    for j in range(A.shape[1]):
        for _ in range(2):
            s = Q[:, :j].T @ Q[:, j]
            Q[:, j] -= Q[:, :j] @ s
            R[:j, j] += s
        R[j, j] = np.sqrt(Q[:, j] @ Q[:, j])
        Q[:, j] /= R[j, j]
    return Q, R


@dataclass(frozen=True)
class DenseFit:
    criterion: float
    sigma: float
    beta: np.ndarray  # (p,)
    cov: np.ndarray  # (p, p)
    modes: list[np.ndarray]  # (L, k) for each term
    fitted: np.ndarray  # (n,)
    Py: np.ndarray  # (n,), P = V^-1 - V^-1 X (X'V^-1 X)^-1 X'V^-1
    project: Callable[[np.ndarray], np.ndarray]  # v -> P v
    solve: Callable[[np.ndarray], np.ndarray]  # v -> V^-1 v


class Dense:
    """A model: theta is, term after term, the lower triangle of each T by columns."""

    def __init__(self, y, X, terms: Sequence[tuple], weights=None, offset=None, dtype=np.float64):
        n = len(y)
        self.y, self.X = np.asarray(y, dtype), np.asarray(X, dtype).reshape(n, -1)
        self.codes = [np.asarray(codes) for codes, _ in terms]
        self.Z = [np.asarray(Z, dtype).reshape(n, -1) for _, Z in terms]
        self.variance = 1 / np.asarray(np.ones(n) if weights is None else weights, dtype)
        self.offset = np.asarray(np.zeros(n) if offset is None else offset, dtype)
        self.elements = [
            (t, r, c) for t, Z in enumerate(self.Z) for c in range(Z.shape[1]) for r in range(c, Z.shape[1])
        ]

    def templates(self, theta) -> list[np.ndarray]:
        T = [np.zeros((Z.shape[1], Z.shape[1]), self.y.dtype) for Z in self.Z]
        for (t, r, c), value in zip(self.elements, theta, strict=True):
            T[t][r, c] = value
        return T

    def spread(self, t: int, S: np.ndarray) -> np.ndarray:
        """``Z_t (I x S) Z_t'``, n x n."""
        same = self.codes[t][:, None] == self.codes[t]
        return np.where(same, self.Z[t] @ S @ self.Z[t].T, 0)

    def fit(self, theta, reml: bool) -> DenseFit:
        T = self.templates(theta)
        C = cholesky(np.diag(self.variance) + sum(self.spread(t, T[t] @ T[t].T) for t in range(len(T))))
        y = solve_lower(C, self.y - self.offset)
        Q, R = qr(solve_lower(C, self.X))
        n, p = self.X.shape
        nu = n - p if reml else n
        r = y - Q @ (Q.T @ y)
        variance = r @ r / nu
        log_det = 2 * np.log(np.diag(C)).sum() + (2 * np.log(np.diag(R)).sum() if reml else 0)
        beta, root = solve_upper(R, Q.T @ y), solve_upper(R, np.eye(p, dtype=y.dtype))
        Py = solve_upper(C.T, r)
        modes = [np.zeros((codes.max() + 1, Z.shape[1]), y.dtype) for codes, Z in zip(self.codes, self.Z, strict=True)]
        for b, codes, Z, S in zip(modes, self.codes, self.Z, T, strict=True):
            np.add.at(b, codes, Py[:, None] * (Z @ S @ S.T))
        return DenseFit(
            criterion=log_det + nu * (1 + np.log(2 * np.pi * variance)),
            sigma=np.sqrt(variance),
            beta=beta,
            cov=variance * root @ root.T,
            modes=modes,
            fitted=self.y - self.variance * Py,
            Py=Py,
            project=lambda v: solve_upper(C.T, (u := solve_lower(C, v)) - Q @ (Q.T @ u)),
            solve=lambda v: solve_upper(C.T, solve_lower(C, v)),
        )

    def criterion(self, theta, reml: bool) -> float:
        return self.fit(theta, reml).criterion

    def derivatives(self, theta) -> list[np.ndarray]:
        """``dV / dtheta_k``, n x n each."""
        result = []
        for t, r, c in self.elements:
            T = self.templates(theta)[t]
            E = np.zeros_like(T)
            E[r, c] = 1
            result.append(self.spread(t, E @ T.T + T @ E.T))
        return result

    def score(self, theta, reml: bool) -> np.ndarray:
        """Gradient by formula: ``tr(P V_k) - y'P V_k P y / sigma^2`` (ML: V^-1 for the first P)."""
        fit = self.fit(theta, reml)
        operator = fit.project if reml else fit.solve
        return np.array([np.trace(operator(D)) - fit.Py @ D @ fit.Py / fit.sigma**2 for D in self.derivatives(theta)])

    def information(self, theta, reml: bool) -> np.ndarray:
        """Average information with sigma profiled out: ``y'P V_k P V_l P y / sigma^2 - s_k s_l / nu``."""
        fit = self.fit(theta, reml)
        F = np.stack([D @ fit.Py for D in self.derivatives(theta)], axis=1)
        s = F.T @ fit.Py / fit.sigma**2
        nu = self.y.size - self.X.shape[1] if reml else self.y.size
        return F.T @ fit.project(F) / fit.sigma**2 - np.outer(s, s) / nu

    @property
    def units(self) -> np.ndarray:
        """Natural unit of each element of theta: one over the root mean square of its column of Z."""
        return np.array([1 / np.sqrt(np.mean(self.Z[t][:, r] ** 2)) for t, r, _ in self.elements], dtype=float)

    def gradient(self, theta, reml: bool) -> np.ndarray:
        return gradient(lambda x: self.criterion(x, reml), np.asarray(theta, self.y.dtype), 0.02 * self.units)

    def hessian(self, theta, reml: bool) -> np.ndarray:
        f = lambda x: gradient(lambda z: self.criterion(z, reml), x, 0.02 * self.units)  # noqa: E731
        return gradient(f, np.asarray(theta, self.y.dtype), 0.02 * self.units)


def gradient(f: Callable, x: np.ndarray, steps: np.ndarray, levels: int = 4) -> np.ndarray:
    """Central differences at steps h, h/2, h/4, ..., extrapolated to 0 (Richardson); first axis: element of x."""
    rows = []
    for k in range(len(x)):
        e = np.zeros_like(x)
        e[k] = 1
        hs = [steps[k] / 2**i for i in range(levels)]
        D = [(f(x + h * e) - f(x - h * e)) / (2 * h) for h in hs]
        for order in range(1, levels):
            D = [(4**order * b - a) / (4**order - 1) for a, b in pairwise(D)]
        rows.append(D[0])
    return np.array(rows)
