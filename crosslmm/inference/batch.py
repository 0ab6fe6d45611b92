"""Many fits of one design to different responses at once, for models with one grouping factor.

All replicates share Z, X and the weights; only what stands in y differs. Every quantity of docs/theory.md, sections
2 and 4, becomes an array with one more axis, and one Newton step of all replicates is a few dozen array operations.
Replicates that come near a singular covariance, or do not converge in a few steps, are left to the full search.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.inference.simulate import Responses
from crosslmm.layout import Layout

STEPS = 12
"""Newton steps after which a replicate is left to the full search; five or six are usual."""

NEAR_SINGULAR = 0.1
"""Smallest singular value of a template, in natural scales, below which a replicate is left to the full search."""

SHRINK = 0.3
"""A diagonal element shrinks to no less than this part of itself in one step."""

GROW = 3.0
"""A step is no longer than this many times theta, plus the natural scales."""

POOR = 0.25
MORE_DAMPING, FIRST_DAMPING, LESS_DAMPING, LEAST_DAMPING = 8.0, 0.1, 0.1, 1e-3
"""Damping: grows after a step that gained less than POOR of what was predicted, falls after every other."""

DEFINITE = 1e-6
"""Smallest eigenvalue, in correlation form, of a Hessian that counts as positive definite."""

WORK_ENTRIES = 200_000
"""Entries of the largest arrays of one set of replicates: they should stay in the cache."""

FEWEST = 8
"""Replicates in a set below which nothing is gained."""


@dataclass(frozen=True)
class BatchDesign:
    """What all replicates have in common; standardised coordinates.

    Attributes
    ----------
    layout : Layout
    n : int
    reml : bool
    A : ndarray, shape (k, k, L)
    H : ndarray, shape (k, L, p)
        ``Z'WX``.
    XX : ndarray, shape (p, p)
    HH : ndarray, shape (k k L, p p)
        Products of the rows of H, so that ``H' Psi H`` is one matrix product.
    AA : ndarray, shape (k k L, k k)
        The same of A: ``sum_l A_l Psi_l A_l``.
    constant : float
        Of the criterion.
    scale : ndarray, shape (m,)
        Natural scale of theta.
    """

    layout: Layout
    n: int
    reml: bool
    A: FloatArray
    H: FloatArray
    XX: FloatArray
    HH: FloatArray
    AA: FloatArray
    constant: float
    scale: FloatArray

    @property
    def degrees(self) -> int:
        """Nu."""
        return self.n - self.XX.shape[0] if self.reml else self.n

    @property
    def per_set(self) -> int:
        """Replicates that are fitted at once."""
        k, n_levels, p = self.H.shape
        return int(WORK_ENTRIES // (n_levels * k * max(k, p, self.layout.n_theta)))


@dataclass(frozen=True)
class Fits:
    """Fits of r replicates, standardised coordinates.

    Attributes
    ----------
    theta : ndarray, shape (r, m)
    beta : ndarray, shape (r, p)
    sigma2, criterion : ndarray, shape (r,)
    converged : ndarray of bool, shape (r,)
        False where the replicate is left to the full search.
    """

    theta: FloatArray
    beta: FloatArray
    sigma2: FloatArray
    criterion: FloatArray
    converged: NDArray[np.bool_]


@dataclass(frozen=True)
class _State:
    """Criterion and derivatives at one theta for each of r replicates."""

    criterion: FloatArray
    sigma2: FloatArray
    beta: FloatArray
    gradient: FloatArray
    information: FloatArray
    curvature: FloatArray


def batch_design(xp: CrossProducts, scale: FloatArray, *, reml: bool) -> BatchDesign | None:
    """The design of a model with one factor small enough to be worth it, else None."""
    if len(xp.diagonal) != 1:
        return None
    A, H = xp.diagonal[0], xp.border[0][:, :, :-1]
    k, n_levels, p = H.shape
    standard = xp.layout.standardization
    nu = xp.n - p if reml else xp.n
    constant = -xp.sum_log_weights + nu * (1.0 + np.log(2.0 * np.pi / nu) + 2.0 * np.log(standard.scale))
    if reml:
        constant -= 2.0 * standard.log_det_x_basis
    design = BatchDesign(
        layout=xp.layout,
        n=xp.n,
        reml=reml,
        A=A,
        H=H,
        XX=xp.fixed[:-1, :-1],
        HH=np.einsum("ilp,jlq->ijlpq", H, H).reshape(k * k * n_levels, p * p),
        AA=np.einsum("ail,jbl->ijlab", A, A).reshape(k * k * n_levels, k * k),
        constant=float(constant),
        scale=scale,
    )
    return design if design.per_set >= FEWEST else None


def fit_batch(design: BatchDesign, y: Responses, start: FloatArray, tolerance: float) -> Fits:
    """Fit all replicates from one start."""
    r = y.size
    theta = np.tile(start, (r, 1))
    hy, xy, yy = y.border[0].transpose(0, 2, 1), y.fixed.T, y.squares
    done = _state(design, theta, hy, xy, yy)
    damping = np.zeros(r)
    active = np.arange(r)
    converged = np.zeros(r, dtype=bool)
    for _ in range(STEPS):
        at = _take(done, active)
        step, decrement = _newton(design, theta[active], at, damping[active])
        ended = decrement <= tolerance
        converged[active[ended]] = True
        going = ~ended & np.isfinite(decrement)
        active, step, decrement = active[going], step[going], decrement[going]
        if active.size == 0:
            break
        trial = _state(design, theta[active] + step, hy[:, active], xy[active], yy[active])
        gain = done.criterion[active] - trial.criterion
        accepted = gain > 1e-4 * decrement
        poor = ~(gain > POOR * decrement)
        less = np.where(damping[active] > LEAST_DAMPING, LESS_DAMPING * damping[active], 0.0)
        damping[active] = np.where(poor, np.maximum(MORE_DAMPING * damping[active], FIRST_DAMPING), less)
        theta[active[accepted]] += step[accepted]
        done = _put(done, active[accepted], _take(trial, np.flatnonzero(accepted)))
    inside = _smallest(design, theta) > NEAR_SINGULAR
    return Fits(theta, done.beta, done.sigma2, done.criterion, converged & inside & np.isfinite(done.criterion))


def _take(state: _State, index: NDArray[np.intp]) -> _State:
    return _State(*(getattr(state, name)[index] for name in _State.__dataclass_fields__))


def _put(state: _State, index: NDArray[np.intp], new: _State) -> _State:
    for name in _State.__dataclass_fields__:
        getattr(state, name)[index] = getattr(new, name)
    return state


def _templates(layout: Layout, theta: FloatArray) -> FloatArray:
    """Templates of all replicates; shape (k, k, r)."""
    return np.tensordot(np.stack(layout.theta_basis, axis=-1), theta.T, axes=1)


def _smallest(design: BatchDesign, theta: FloatArray) -> FloatArray:
    """Smallest singular value of the terms' templates in natural scales; shape (r,)."""
    layout = design.layout
    T = _templates(layout, theta).transpose(2, 0, 1)
    smallest = np.full(len(theta), np.inf)
    for term in layout.terms:
        cov = term.covariance
        unit = np.ones(cov.size)
        on = cov.rows == cov.cols
        unit[cov.rows[on]] = design.scale[term.theta_slice][cov.params[on]]
        block = T[:, term.columns][:, :, term.columns] / unit[:, None]
        smallest = np.minimum(smallest, np.linalg.svd(block, compute_uv=False)[:, -1])
    return smallest


def _inverse(M: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Inverses and log-determinants of positive definite blocks (k, k, r, L), by Gauss-Jordan sweeps."""
    W = M.copy()
    log_det = np.zeros(M.shape[2:])
    for j in range(M.shape[0]):
        pivot = W[j, j].copy()
        log_det += np.log(pivot)
        row, col = W[j] / pivot, W[:, j].copy()
        W -= col[:, None] * row
        W[j], W[:, j] = row, -col / pivot
        W[j, j] = 1.0 / pivot
    return W, log_det.sum(axis=1)


def _state(design: BatchDesign, theta: FloatArray, hy: FloatArray, xy: FloatArray, yy: FloatArray) -> _State:
    """Everything at theta (r, m); hy has shape (k, r, L), xy (r, p), yy (r,)."""
    A, H = design.A, design.H
    k, n_levels, p = H.shape
    r = len(theta)
    T = _templates(design.layout, theta)
    M = np.einsum("iarl,jar->ijrl", np.einsum("bir,bal->iarl", T, A), T.transpose(1, 0, 2))
    index = np.arange(k)
    M[index, index] += 1.0
    inverse, log_det = _inverse(M)
    psi = np.einsum("iarl,jar->ijrl", np.einsum("ibr,barl->iarl", T, inverse), T)
    flat = psi.transpose(2, 0, 1, 3).reshape(r, k * k * n_levels)
    psi_y = np.einsum("ijrl,jrl->irl", psi, hy)
    XX = design.XX - (flat @ design.HH).reshape(r, p, p)
    Xy = xy - np.tensordot(psi_y, H, axes=([0, 2], [0, 1]))
    with np.errstate(all="ignore"):
        XX_inverse, log_det_x = _fixed_inverse(XX)
        beta = np.einsum("rpq,rq->rp", XX_inverse, Xy)
        r2 = yy - np.einsum("irl,irl->r", hy, psi_y) - np.einsum("rp,rp->r", beta, Xy)
        criterion = design.constant + log_det + design.degrees * np.log(r2)
        if design.reml:
            criterion = criterion + log_det_x
    sigma2 = r2 / design.degrees
    target = hy - np.einsum("ilp,rp->irl", H, beta)
    scores = target - np.einsum("ijl,jrl->irl", A, np.einsum("ijrl,jrl->irl", psi, target))
    G = np.einsum("ijl,jprl->iprl", A, np.einsum("ijrl,jlp->iprl", psi, H))
    G = H.transpose(0, 2, 1)[:, :, None] - G
    B = A.sum(axis=2)[:, :, None] - (flat @ design.AA).reshape(r, k, k).transpose(1, 2, 0)
    if design.reml:
        B = B - np.einsum("iprl,jprl->ijr", np.einsum("iqrl,rqp->iprl", G, XX_inverse), G)
    gamma = B - np.einsum("irl,jrl->ijr", scores, scores) / sigma2
    return _State(criterion, sigma2, beta, *_derivatives(design, T, psi, scores, G, XX_inverse, gamma, sigma2))


def _fixed_inverse(XX: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Inverses and log-determinants (r, p, p); nan where not positive definite."""
    if XX.shape[1] == 0:
        return XX, np.zeros(len(XX))
    values, vectors = np.linalg.eigh(XX)
    values = np.where(values > 0.0, values, np.nan)
    return np.einsum("rip,rp,rjp->rij", vectors, 1.0 / values, vectors), np.log(values).sum(axis=1)


def _derivatives(
    design: BatchDesign,
    T: FloatArray,
    psi: FloatArray,
    scores: FloatArray,
    G: FloatArray,
    XX_inverse: FloatArray,
    gamma: FloatArray,
    sigma2: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Gradient (r, m), average information and curvature (r, m, m); theory eq. (13)-(15)."""
    E = np.stack(design.layout.theta_basis)
    half = np.einsum("mia,jar->mijr", E, T)
    D = half + half.transpose(0, 2, 1, 3)
    gradient = np.einsum("mijr,ijr->rm", D, gamma)
    z = np.einsum("mijr,jrl->mirl", D, scores)
    Az = np.einsum("ijl,mjrl->mirl", design.A, z)
    Vz = Az - np.einsum("ijl,mjrl->mirl", design.A, np.einsum("ijrl,mjrl->mirl", psi, Az))
    zz = np.einsum("airl,birl->rab", z, Vz)
    zx = np.einsum("airl,iprl->rap", z, G)
    zz -= np.einsum("rap,rpq,rbq->rab", zx, XX_inverse, zx)
    s = np.einsum("irl,airl->ra", scores, z) / sigma2[:, None]
    information = zz / sigma2[:, None, None] - s[:, :, None] * s[:, None, :] / design.degrees
    curvature = 2.0 * np.einsum("aijr,bij->rab", np.einsum("akj,kir->aijr", E, gamma), E)
    return gradient, information, curvature


def _newton(design: BatchDesign, theta: FloatArray, at: _State, damping: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Steps (r, m) and the decrease that they promise (r,); nan where there is none."""
    H = _definite(at.information, at.curvature)
    diagonal = np.einsum("rii->ri", at.information) + np.abs(np.einsum("rii->ri", at.curvature))
    index = np.arange(theta.shape[1])
    H[:, index, index] += damping[:, None] * diagonal
    bad = np.asarray(~(np.isfinite(H).all(axis=(1, 2)) & np.isfinite(at.gradient).all(axis=1)))
    H[bad] = np.eye(theta.shape[1])
    step = -np.linalg.solve(H, np.where(bad[:, None], 0.0, at.gradient)[:, :, None])[:, :, 0]
    on = design.layout.on_diagonal
    room = np.where(on & (step < 0.0), (1.0 - SHRINK) * theta / np.maximum(-step, 1e-300), np.inf).min(axis=1)
    length = np.linalg.norm(theta, axis=1) + np.linalg.norm(design.scale)
    reach = GROW * length / np.maximum(np.linalg.norm(step, axis=1), 1e-300)
    step *= np.minimum(np.minimum(room, reach), 1.0)[:, None]
    decrement = -np.einsum("ri,ri->r", at.gradient, step) - 0.5 * np.einsum("ri,rij,rj->r", step, H, step)
    return np.asarray(step, dtype=np.float64), np.where(bad, np.nan, decrement)


def _definite(information: FloatArray, curvature: FloatArray) -> FloatArray:
    """Information plus curvature where that is positive definite, else plus its positive part."""
    diagonal = np.einsum("rii->ri", information) + np.abs(np.einsum("rii->ri", curvature))
    root = np.sqrt(np.maximum(diagonal, 1e-300))
    unit = root[:, :, None] * root[:, None, :]
    H = information + curvature
    known = np.asarray(np.isfinite(H).all(axis=(1, 2)))
    scaled = np.where(known[:, None, None], H / unit, np.eye(H.shape[1]))
    weak = np.flatnonzero(np.linalg.eigvalsh(scaled)[:, 0] < DEFINITE)
    if weak.size:
        values, vectors = np.linalg.eigh((curvature / unit)[weak])
        positive = np.einsum("rip,rp,rjp->rij", vectors, np.maximum(values, 0.0), vectors)
        H[weak] = information[weak] + unit[weak] * positive
    return H
