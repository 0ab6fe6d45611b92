"""Symbolic Cholesky factor and selected inverse: the entries of S^-1 on the pattern of its factor.

Takahashi, Fagan, Chin 1973; Erisman, Tinney 1975, Commun. ACM 18(3). With ``S = L L'`` and ``Z = S^-1``, column j of
Z on the pattern of column j of L follows from the columns to its right:
``z_jj = 1 / l_jj^2 - l_j' z_j / l_jj`` and ``z_j = -Z_jj l_j / l_jj``.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def column_counts(indptr, indices):
    """Elimination tree and nonzeros per column of L, from the upper triangle (CSC, strictly above the diagonal).

    Row k of L is the set of nodes met on the way from each entry of column k up the tree (Davis 2006, section 4.2).
    """
    n = indptr.size - 1
    parent = np.full(n, -1, np.int64)
    ancestor = np.full(n, -1, np.int64)
    for k in range(n):
        for p in range(indptr[k], indptr[k + 1]):
            i = indices[p]
            while i != -1 and i < k:
                following = ancestor[i]
                ancestor[i] = k
                if following == -1:
                    parent[i] = k
                i = following
    counts = np.ones(n, np.int64)
    mark = np.full(n, -1, np.int64)
    for k in range(n):
        mark[k] = k
        for p in range(indptr[k], indptr[k + 1]):
            i = indices[p]
            while mark[i] != k:
                counts[i] += 1
                mark[i] = k
                i = parent[i]
    return parent, counts


@njit(cache=True, nogil=True)
def factor_pattern(indptr, indices, parent, counts):
    """Pattern of L in CSC form, rows sorted, from `column_counts`; returns (indptr, indices)."""
    n = indptr.size - 1
    l_indptr = np.zeros(n + 1, np.int64)
    for j in range(n):
        l_indptr[j + 1] = l_indptr[j] + counts[j]
    l_indices = np.empty(l_indptr[n], np.int32)
    fill = l_indptr[:-1].copy()
    mark = np.full(n, -1, np.int64)
    for k in range(n):
        mark[k] = k
        l_indices[fill[k]] = k
        fill[k] += 1
        for p in range(indptr[k], indptr[k + 1]):
            i = indices[p]
            while mark[i] != k:
                l_indices[fill[i]] = k
                fill[i] += 1
                mark[i] = k
                i = parent[i]
    return l_indptr, l_indices


@njit(cache=True, nogil=True)
def onto_pattern(a_indptr, a_indices, a_data, indptr, indices):
    """Values of a lower triangular matrix on a larger pattern (CSC, both sorted), zeros elsewhere."""
    data = np.zeros(indices.size)
    for j in range(indptr.size - 1):
        p = indptr[j]
        for s in range(a_indptr[j], a_indptr[j + 1]):
            while indices[p] < a_indices[s]:
                p += 1
            data[p] = a_data[s]
    return data


@njit(cache=True, nogil=True)
def selected_inverse(indptr, indices, l_data):
    """Entries of ``(L L')^-1`` on the pattern of L (CSC, rows sorted, diagonal first); shape (nnz,)."""
    n = indptr.size - 1
    z = np.zeros(indices.size)
    place = np.full(n, -1, np.int64)
    y = np.empty(n)
    for j in range(n - 1, -1, -1):
        first = indptr[j] + 1
        last = indptr[j + 1]
        size = last - first
        diagonal = l_data[first - 1]
        for a in range(size):
            place[indices[first + a]] = a
            y[a] = 0.0
        for a in range(size):
            column = indices[first + a]
            l_a = l_data[first + a]
            start = indptr[column]
            y[a] += z[start] * l_a
            found = a + 1
            p = start + 1
            while found < size:
                row = indices[p]
                b = place[row]
                if b >= 0:
                    y[b] += z[p] * l_a
                    y[a] += z[p] * l_data[first + b]
                    found += 1
                p += 1
        dot = 0.0
        for a in range(size):
            z[first + a] = -y[a] / diagonal
            dot += l_data[first + a] * z[first + a]
        z[first - 1] = 1.0 / (diagonal * diagonal) - dot / diagonal
        for a in range(size):
            place[indices[first + a]] = -1
    return z
