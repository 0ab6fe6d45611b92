"""Compiled loops over the coupling of the eliminated factor with the rest.

Imported only for problems large enough to need them (numba takes a second to load). Each kernel works on
a range of columns of the rest and releases the GIL, so threads can share the columns out among themselves.

The coupling is stored twice: by level (`indptr`, `indices`, `values`, entries of a level sorted by column) and by
column (`colptr`, `levels`, `positions`: where the entry of that level and column stands in the arrays by level).
Only entries at or after a position are visited, so that each pair of columns is met once, in the lower triangle.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, inline="always")
def _schur_column(b, indptr, indices, values, colptr, levels, positions, psi, column):
    """Subtract column b of ``C' Psi C`` (rows >= b) from the dense vector `column`."""
    k = values.shape[1]
    if k == 1:
        for t in range(colptr[b], colptr[b + 1]):
            level = levels[t]
            start = positions[t]
            v = psi[0, 0, level] * values[start, 0]
            for p in range(start, indptr[level + 1]):
                column[indices[p]] -= v * values[p, 0]
    elif k == 2:
        for t in range(colptr[b], colptr[b + 1]):
            level = levels[t]
            start = positions[t]
            c_0, c_1 = values[start, 0], values[start, 1]
            v_0 = psi[0, 0, level] * c_0 + psi[0, 1, level] * c_1
            v_1 = psi[1, 0, level] * c_0 + psi[1, 1, level] * c_1
            for p in range(start, indptr[level + 1]):
                column[indices[p]] -= v_0 * values[p, 0] + v_1 * values[p, 1]
    else:
        v_all = np.empty(k)
        for t in range(colptr[b], colptr[b + 1]):
            level = levels[t]
            start = positions[t]
            for i in range(k):
                s = 0.0
                for j in range(k):
                    s += psi[i, j, level] * values[start, j]
                v_all[i] = s
            for p in range(start, indptr[level + 1]):
                s = 0.0
                for i in range(k):
                    s += v_all[i] * values[p, i]
                column[indices[p]] -= s


@njit(cache=True, nogil=True, inline="always")
def _quadratic_column(b, indptr, indices, values, colptr, levels, positions, column, Q):
    """Add what column b of W contributes to half of ``C_l W C_l'``, for every level l that meets it."""
    k = values.shape[1]
    if k == 1:
        for t in range(colptr[b], colptr[b + 1]):
            level = levels[t]
            start = positions[t]
            s = 0.5 * column[b] * values[start, 0]
            for p in range(start + 1, indptr[level + 1]):
                s += column[indices[p]] * values[p, 0]
            Q[0, 0, level] += s * values[start, 0]
    elif k == 2:
        for t in range(colptr[b], colptr[b + 1]):
            level = levels[t]
            start = positions[t]
            s_0 = 0.5 * column[b] * values[start, 0]
            s_1 = 0.5 * column[b] * values[start, 1]
            for p in range(start + 1, indptr[level + 1]):
                w = column[indices[p]]
                s_0 += w * values[p, 0]
                s_1 += w * values[p, 1]
            for j in range(2):
                Q[0, j, level] += s_0 * values[start, j]
                Q[1, j, level] += s_1 * values[start, j]
    else:
        s_all = np.empty(k)
        for t in range(colptr[b], colptr[b + 1]):
            level = levels[t]
            start = positions[t]
            for i in range(k):
                s_all[i] = 0.5 * column[b] * values[start, i]
            for p in range(start + 1, indptr[level + 1]):
                w = column[indices[p]]
                for i in range(k):
                    s_all[i] += w * values[p, i]
            for i in range(k):
                for j in range(k):
                    Q[i, j, level] += s_all[i] * values[start, j]


@njit(cache=True, nogil=True)
def schur_dense(first, last, indptr, indices, values, colptr, levels, positions, psi, S):
    """``S -= C' Psi C`` in columns first..last of the lower triangle of the Fortran-ordered S (q, q)."""
    for b in range(first, last):
        _schur_column(b, indptr, indices, values, colptr, levels, positions, psi, S[:, b])


@njit(cache=True, nogil=True)
def quadratic_dense(first, last, indptr, indices, values, colptr, levels, positions, W, Q):
    """``Q_l += half of C_l W C_l'`` from columns first..last of the lower triangle of W (q, q), Fortran order."""
    for b in range(first, last):
        _quadratic_column(b, indptr, indices, values, colptr, levels, positions, W[:, b], Q)


@njit(cache=True, nogil=True)
def schur_sparse(first, last, indptr, indices, values, colptr, levels, positions, psi, s_indptr, s_indices, s_data):
    """`schur_dense` into the lower triangle of a sparse S (CSC) whose pattern holds every pair that occurs."""
    column = np.zeros(s_indptr.size - 1)
    for b in range(first, last):
        for p in range(s_indptr[b], s_indptr[b + 1]):
            column[s_indices[p]] = 0.0
        _schur_column(b, indptr, indices, values, colptr, levels, positions, psi, column)
        for p in range(s_indptr[b], s_indptr[b + 1]):
            s_data[p] += column[s_indices[p]]


@njit(cache=True, nogil=True)
def quadratic_sparse(first, last, indptr, indices, values, colptr, levels, positions, s_indptr, s_indices, w_data, Q):
    """`quadratic_dense` from W stored on the pattern of S (CSC, lower triangle)."""
    column = np.zeros(s_indptr.size - 1)
    for b in range(first, last):
        for p in range(s_indptr[b], s_indptr[b + 1]):
            column[s_indices[p]] = w_data[p]
        _quadratic_column(b, indptr, indices, values, colptr, levels, positions, column, Q)
