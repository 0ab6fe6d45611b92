"""Kenward and Roger's covariance of the fixed effects, degrees of freedom and scaled F.

Kenward and Roger (1997, Biometrics 53, 983-997), with the formulas of Halekoh and Hojsgaard (2014, J. Stat. Softw.
59(9)). The covariance of the response is linear in its parameters, ``sum_i gamma_i G_i``. Any basis of the same space
of matrices gives the same result; here it is V itself and, for every variance and covariance of the random effects,
``G_i = sum_l Z_l S_i Z_l'``: then all that holds V is known without a trace.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.engine.protocol import Templates
from crosslmm.errors import ModelError, NumericalError
from crosslmm.inference.drift import Drift, drift
from crosslmm.inference.state import State, covariance_slopes, moved_covariances, paired, white_scores
from crosslmm.inference.traces import Moved, Sampled, trace_products
from crosslmm.layout import Layout, Term
from crosslmm.linalg.dense import solve_lower

VANISHING = 1e-10
"""What is 0 but for rounding in the moments of F (pbkrtest)."""

NEAR_TWO = 1e-2
"""Degrees of freedom this close to 2 leave F unscaled (pbkrtest)."""


@dataclass(frozen=True)
class KenwardRoger:
    """Everything in coordinates in which the covariance of the fixed effects is the identity.

    Attributes
    ----------
    root : ndarray, shape (p, p)
        H with ``cov(beta) = H H'``.
    slopes : ndarray, shape (r, p, p)
        Derivatives of the covariance by the variance parameters are ``H D_i H'``.
    second : ndarray, shape (r, r, p, p)
        ``X' V^-1 G_i V^-1 G_j V^-1 X``.
    information : Sampled
        ``tr(P G_i P G_j)``, half the inverse of the covariance of the variance parameters.
    drift : Drift
        How the fixed effects and their covariance as of known variances move with the probes of the fit.
    """

    root: FloatArray
    slopes: FloatArray
    second: FloatArray
    information: Sampled
    drift: Drift

    @property
    def covariance(self) -> FloatArray:
        """Adjusted covariance of the fixed effects; shape (p, p)."""
        p = self.root.shape[0]
        W = _parameter_covariance(self.information.mean)
        added = np.einsum("ij,ijab->ab", W, self._second_order)
        return np.asarray(self.root @ (np.eye(p) + added + added.T) @ self.root.T)

    @property
    def unadjusted(self) -> FloatArray:
        """Covariance of the fixed effects as of known variances; shape (p, p)."""
        return self.root @ self.root.T

    def covariance_replicates(self, L: FloatArray) -> FloatArray:
        """``L A L'`` with A the adjusted covariance without one probe of the traces each; shape (n, q, q)."""
        white, q = L @ self.root, L.shape[0]
        inner = np.einsum("qa,ijab,sb->ijqs", white, self._second_order, white, optimize=True)
        replicates = [_parameter_covariance(information) for information in self.information.replicates]
        added = np.array([np.einsum("ij,ijqs->qs", W, inner) for W in replicates]).reshape(len(replicates), q, q)
        return white @ white.T + added + added.transpose(0, 2, 1)

    @property
    def _second_order(self) -> FloatArray:
        """What the covariance lacks, by pairs of parameters; shape (r, r, p, p)."""
        return np.asarray(self.second - np.einsum("iab,jbc->ijac", self.slopes, self.slopes, optimize=True))

    def degrees(self, L: FloatArray) -> FloatArray:
        """Degrees of freedom of each row of L (q, p); shape (q,)."""
        return np.array([self.joint(row[None])[1] for row in L])

    def degrees_replicates(self, L: FloatArray) -> FloatArray:
        """The same without one probe each; shape (n, q)."""
        n = len(self.information.deviations)
        return np.array([[r[1] for r in self.joint_replicates(row[None])] for row in L]).reshape(L.shape[0], n).T

    def joint(self, L: FloatArray) -> tuple[float, float]:
        """Scale of F and its denominator degrees of freedom for a joint test of the rows of L (q, p), independent."""
        return self._joint(L, self.information.mean)

    def joint_replicates(self, L: FloatArray) -> list[tuple[float, float]]:
        """The same without one probe each."""
        return [self._joint(L, replicate) for replicate in self.information.replicates]

    def _joint(self, L: FloatArray, information: FloatArray) -> tuple[float, float]:
        white = L @ self.root
        half = solve_lower(np.asarray(np.linalg.cholesky(white @ white.T), dtype=np.float64), white)
        K = np.einsum("qp,ipo,ro->iqr", half, self.slopes, half, optimize=True)
        W = _parameter_covariance(information)
        spur = np.einsum("iqq->i", K)
        a1 = float(spur @ W @ spur)
        a2 = float(np.einsum("ij,iqr,jrq->", W, K, K, optimize=True))
        return scaled_f(L.shape[0], a1, a2)


def _parameter_covariance(information: FloatArray) -> FloatArray:
    """``2 I^-1``; its pseudo-inverse where parameters cannot be told apart, as pbkrtest."""
    unit = np.sqrt(np.diag(information))
    scaled = information / np.outer(unit, unit)
    inverse = np.linalg.pinv(scaled, rcond=VANISHING, hermitian=True)
    return np.asarray(2.0 * inverse / np.outer(unit, unit))


def scaled_f(q: int, a1: float, a2: float) -> tuple[float, float]:
    """Scale and denominator degrees of freedom from the moments of F (Halekoh and Hojsgaard 2014, section 2.3).

    Parameters
    ----------
    q : int
        Numerator degrees of freedom.
    a1, a2 : float
        ``A_1`` and ``A_2`` of Kenward and Roger.
    """
    if not a2 > 0.0:
        return 1.0, float("inf")
    b = (a1 + 6.0 * a2) / (2.0 * q)
    g = ((q + 1) * a1 - (q + 4) * a2) / ((q + 2) * a2)
    below = 3.0 * q + 2.0 * (1.0 - g)
    c1, c2, c3 = g / below, (q - g) / below, (q + 2 - g) / below
    v0, v1, v2 = 1.0 + c1 * b, 1.0 - c2 * b, 1.0 - c3 * b
    if abs(v0) < VANISHING:
        v0 = 0.0
    mean = 1.0 - a2 / q
    ratio = 1.0 if abs(mean) < VANISHING and abs(v1) < VANISHING else mean / v1
    df = 4.0 + (q + 2.0) * v2 / (ratio**2 * v0 - v2)  # as 4 + (q + 2) / (q rho - 1); v2 = 0 is Hotelling's case
    scale = 1.0 if abs(df - 2.0) < NEAR_TWO else df * mean / (df - 2.0)
    return scale, df


def kenward_roger(state: State) -> KenwardRoger:
    """What Kenward and Roger's method needs of a fit by REML.

    Raises
    ------
    ModelError
        The fit is by maximum likelihood.
    """
    if not state.fit.reml:
        raise ModelError(
            "Kenward-Roger's method is for fits by REML and this one is by maximum likelihood: fit again with "
            "reml=True, or use ddf='satterthwaite'"
        )
    value, layout = state.value, state.xp.layout
    moved = linear_parameters(layout)
    white = white_scores(value)
    p, r = state.fit.beta.size, len(moved)
    slopes = covariance_slopes(white, moved)
    marginal = value.system.marginal(reml=True).blocks
    traces = trace_products(value.system, white, moved, n_probes=state.equations.n_probes, seed=state.seed)
    single = np.array([np.vdot(marginal[f], S) for f, S in moved])
    information = np.block([[np.array([[float(value.degrees)]]), single[None]], [single[:, None], traces.mean]])
    deviations = np.zeros((traces.deviations.shape[0], r + 1, r + 1))
    deviations[:, 1:, 1:] = traces.deviations
    second = np.zeros((r + 1, r + 1, p, p))
    second[0, 0] = np.eye(p)
    second[0, 1:] = second[1:, 0] = slopes
    second[1:, 1:] = second_products(state, white, moved)
    if not np.isfinite(information).all():
        raise NumericalError("the information on the variances is not finite at these estimates")
    whole = np.concatenate([np.eye(p)[None], slopes])
    by_theta = covariance_slopes(white, moved_covariances(state))
    return KenwardRoger(state.root, whole, second, Sampled(information, deviations), drift(state, by_theta))


def second_products(state: State, white: Templates, moved: Moved) -> FloatArray:
    """``R^-1 X' V^-1 G_i V^-1 G_j V^-1 X R'^-1``; shape (r, r, p, p)."""
    p, r = white[0].shape[2], len(moved)
    result = np.zeros((r, r, p, p))
    if p == 0:
        return result
    for j, (g, S) in enumerate(moved):
        z = [np.zeros_like(w) for w in white]
        z[g] = np.einsum("ab,blp->alp", S, white[g])
        scores = state.value.system.random_scores(tuple(z)).values
        for i, (f, U) in enumerate(moved):
            result[i, j] = paired(white[f], U, scores[f])
    return result


def linear_parameters(layout: Layout) -> Moved:
    """Factor and symmetric matrix (k, k) of every variance and covariance of the random effects."""
    return tuple((term.factor, S) for term in layout.terms for S in _symmetric_basis(layout, term))


def _symmetric_basis(layout: Layout, term: Term) -> list[FloatArray]:
    k = layout.factors[term.factor].size
    size = len(term.columns)
    if term.covariance.name == "identity":
        blocks = [np.eye(size)]
    elif term.covariance.name == "diagonal":
        blocks = [np.diag(row) for row in np.eye(size)]
    else:
        blocks = []
        for a in range(size):
            for b in range(a + 1):
                S = np.zeros((size, size))
                S[a, b] = S[b, a] = 1.0
                blocks.append(S)
    basis = []
    for block in blocks:
        whole = np.zeros((k, k))
        whole[np.ix_(term.columns, term.columns)] = block
        basis.append(whole)
    return basis
