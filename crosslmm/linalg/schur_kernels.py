"""Compiled loops over the levels of the eliminated factor, for products with a Schur complement that is never formed.

The coupling with each other factor g is a block of the cross-products: pairs of levels by rows (`indptr`, `indices`)
with values (k_e, k_g, nnz). Several blocks come as tuples. Vectors of random effects have shape (k, L, m): the m
right-hand sides of one level stand side by side, so one visit of a pair serves them all. Each kernel works on a range
of levels and releases the GIL; what it adds to other factors must be private to its thread.
"""

from __future__ import annotations

import numpy as np
from numba import njit

FAST = {"contract"}
"""A product and a sum may be fused into one instruction; nothing is reordered."""


@njit(cache=True, nogil=True, inline="always", fastmath=FAST)
def _gather(start, stop, indices, values, x, t):
    """``t += C_u x`` for the pairs start..stop of one level u; t (k_e, m)."""
    k_e, k_g, m = t.shape[0], x.shape[0], t.shape[1]
    if k_e == 1 and k_g == 1:
        for p in range(start, stop):
            v = values[0, 0, p]
            level = indices[p]
            for r in range(m):
                t[0, r] += v * x[0, level, r]
    else:
        for p in range(start, stop):
            level = indices[p]
            for i in range(k_e):
                for j in range(k_g):
                    v = values[i, j, p]
                    for r in range(m):
                        t[i, r] += v * x[j, level, r]


@njit(cache=True, nogil=True, inline="always", fastmath=FAST)
def _scatter(start, stop, indices, values, t, y):
    """``y += C_u' t`` for the pairs start..stop of one level u."""
    k_e, k_g, m = t.shape[0], y.shape[0], t.shape[1]
    if k_e == 1 and k_g == 1:
        for p in range(start, stop):
            v = values[0, 0, p]
            level = indices[p]
            for r in range(m):
                y[0, level, r] += v * t[0, r]
    else:
        for p in range(start, stop):
            level = indices[p]
            for i in range(k_e):
                for j in range(k_g):
                    v = values[i, j, p]
                    for r in range(m):
                        y[j, level, r] += v * t[i, r]


@njit(cache=True, nogil=True, fastmath=FAST)
def schur_product(first, last, indptr, indices, values, psi, x, y):
    """``y += C' Psi C x`` from the levels first..last; x and y are tuples of (k_g, L_g, m)."""
    k_e, m = psi.shape[0], x[0].shape[2]
    t = np.empty((k_e, m))
    s = np.empty((k_e, m))
    for u in range(first, last):
        t[:] = 0.0
        for g in range(len(indptr)):
            _gather(indptr[g][u], indptr[g][u + 1], indices[g], values[g], x[g], t)
        for i in range(k_e):
            for r in range(m):
                s[i, r] = psi[i, 0, u] * t[0, r]
            for j in range(1, k_e):
                for r in range(m):
                    s[i, r] += psi[i, j, u] * t[j, r]
        for g in range(len(indptr)):
            _scatter(indptr[g][u], indptr[g][u + 1], indices[g], values[g], s, y[g])


@njit(cache=True, nogil=True, fastmath=FAST)
def gather(first, last, indptr, indices, values, x, t):
    """``t = C x`` in the levels first..last of t (k_e, L_e, m)."""
    for u in range(first, last):
        t[:, u, :] = 0.0
        for g in range(len(indptr)):
            _gather(indptr[g][u], indptr[g][u + 1], indices[g], values[g], x[g], t[:, u, :])


@njit(cache=True, nogil=True, fastmath=FAST)
def scatter(first, last, indptr, indices, values, t, y):
    """``y += C' t`` from the levels first..last of t (k_e, L_e, m)."""
    for u in range(first, last):
        for g in range(len(indptr)):
            _scatter(indptr[g][u], indptr[g][u + 1], indices[g], values[g], t[:, u, :], y[g])


@njit(cache=True, nogil=True, fastmath=FAST)
def schur_diagonal(first, last, indptr, indices, values, psi, D):
    """``D_l += sum_u C_ul' Psi_u C_ul`` for the levels l of one other factor; D (k_g, k_g, L_g)."""
    k_e, k_g = values.shape[:2]
    for u in range(first, last):
        for p in range(indptr[u], indptr[u + 1]):
            level = indices[p]
            for a in range(k_g):
                for i in range(k_e):
                    s = 0.0
                    for j in range(k_e):
                        s += psi[i, j, u] * values[j, a, p]
                    for b in range(k_g):
                        D[a, b, level] += s * values[i, b, p]


@njit(cache=True, nogil=True, fastmath=FAST)
def level_quadratic(first, last, indptr, indices, values, blocks, Q):
    """``Q_u += sum_l C_ul B_l C_ul'`` in the levels first..last of Q (k_e, k_e, L_e); blocks B (k_g, k_g, L_g)."""
    k_e, k_g = values.shape[:2]
    for u in range(first, last):
        for p in range(indptr[u], indptr[u + 1]):
            level = indices[p]
            for i in range(k_e):
                for b in range(k_g):
                    s = 0.0
                    for a in range(k_g):
                        s += values[i, a, p] * blocks[a, b, level]
                    for j in range(k_e):
                        Q[i, j, u] += s * values[j, b, p]
