"""Compiled sums over pairs of levels: numba kernels for blocks that are large, loaded where they are used.

A block is compressed by rows, its columns increase within a row, and its values are (k, nnz).
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def counting_sort(codes, n_levels):
    """Stable order that sorts codes, as int32; in one pass over counts and one over rows."""
    starts = np.zeros(n_levels + 1, np.int64)
    for code in codes:
        starts[code + 1] += 1
    for level in range(n_levels):
        starts[level + 1] += starts[level]
    order = np.empty(codes.size, np.int32)
    for i in range(codes.size):
        order[starts[codes[i]]] = i
        starts[codes[i]] += 1
    return order


@njit(cache=True, nogil=True)
def sorted_pairs(rows, order, n_rows):
    """Rows of the data in the order of their pairs, from the order of their columns; and where each row begins."""
    starts = np.zeros(n_rows + 1, np.int64)
    for row in rows:
        starts[row + 1] += 1
    for row in range(n_rows):
        starts[row + 1] += starts[row]
    begin = starts.copy()
    result = np.empty(rows.size, np.int32)
    for i in order:
        result[starts[rows[i]]] = i
        starts[rows[i]] += 1
    return result, begin


@njit(cache=True, nogil=True)
def count_pairs(cols, order, begin):
    """Offsets of the distinct pairs of each row of levels; shape (n_rows + 1,)."""
    indptr = np.zeros(begin.size, np.int64)
    for row in range(begin.size - 1):
        count = 0
        for t in range(begin[row], begin[row + 1]):
            if t == begin[row] or cols[order[t]] != cols[order[t - 1]]:
                count += 1
        indptr[row + 1] = indptr[row] + count
    return indptr


@njit(cache=True, nogil=True)
def fill_pairs(cols, order, begin, values, indices, sums):
    """Columns and sums of the distinct pairs."""
    at = -1
    for row in range(begin.size - 1):
        for t in range(begin[row], begin[row + 1]):
            i = order[t]
            if t == begin[row] or cols[i] != indices[at]:
                at += 1
                indices[at] = cols[i]
                for k in range(sums.shape[0]):
                    sums[k, at] = values[k, i]
            else:
                for k in range(sums.shape[0]):
                    sums[k, at] += values[k, i]


@njit(cache=True, nogil=True)
def count_merged(indptr_a, indices_a, indptr_b, indices_b):
    """Offsets of the sum of two blocks; shape (n_rows + 1,)."""
    indptr = np.zeros(indptr_a.size, np.int64)
    for row in range(indptr_a.size - 1):
        i, j, count = indptr_a[row], indptr_b[row], 0
        while i < indptr_a[row + 1] and j < indptr_b[row + 1]:
            a, b = indices_a[i], indices_b[j]
            i += a <= b
            j += b <= a
            count += 1
        indptr[row + 1] = indptr[row] + count + (indptr_a[row + 1] - i) + (indptr_b[row + 1] - j)
    return indptr


@njit(cache=True, nogil=True)
def fill_merged(indptr_a, indices_a, values_a, indptr_b, indices_b, values_b, indices, values):
    """Columns and values of the sum of two blocks."""
    at = 0
    for row in range(indptr_a.size - 1):
        i, j = indptr_a[row], indptr_b[row]
        while i < indptr_a[row + 1] or j < indptr_b[row + 1]:
            left = j >= indptr_b[row + 1] or (i < indptr_a[row + 1] and indices_a[i] <= indices_b[j])
            right = i >= indptr_a[row + 1] or (j < indptr_b[row + 1] and indices_b[j] <= indices_a[i])
            indices[at] = indices_a[i] if left else indices_b[j]
            for k in range(values.shape[0]):
                value = 0.0
                if left:
                    value += values_a[k, i]
                if right:
                    value += values_b[k, j]
                values[k, at] = value
            i += left
            j += right
            at += 1
