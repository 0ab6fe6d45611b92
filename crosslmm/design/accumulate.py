"""Cross-products of the rows of a design."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from crosslmm.blas import cross, times
from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts, PairBlock, pair_block
from crosslmm.design.rows import Design, Rows
from crosslmm.layout import Layout, Standardization

# Up to here adding up columns beats a BLAS product of a tall matrix with a tiny one.
FEW_COLUMNS = 8


def accumulate(design: Design, rows: slice = slice(None)) -> CrossProducts:
    """Sum the products of standardised columns over rows.

    Parameters
    ----------
    design : Design
    rows : slice
        Rows to sum over; the values of disjoint slices add up to that of their union.

    Returns
    -------
    CrossProducts
    """
    return row_products(design.layout, design.rows(rows))


def row_products(layout: Layout, rows: Rows) -> CrossProducts:
    """Sum the products of the columns of `rows`, in the coordinates of `layout`."""
    coordinates = layout.standardization
    weights, codes = rows.weights, rows.codes
    Z = [_times(Zf, basis) for Zf, basis in zip(rows.Z, coordinates.z_bases, strict=True)]
    XY = _standard_xy(coordinates, rows)
    ZW = Z if weights is None else [[column * weights for column in columns] for columns in Z]
    n_levels = [factor.n_levels for factor in layout.factors]
    pairs = [(f, g) for f in range(len(codes)) for g in range(f + 1, len(codes))]
    return CrossProducts(
        layout=layout,
        n=XY.shape[0],
        sum_log_weights=0.0 if weights is None else float(np.sum(np.log(weights))),
        diagonal=tuple(_diagonal(codes[f], Z[f], ZW[f], n_levels[f]) for f in range(len(codes))),
        pairs=tuple((f, g, _pair(codes, ZW[f], Z[g], n_levels, f, g)) for f, g in pairs),
        border=tuple(_border(codes[f], ZW[f], XY, n_levels[f]) for f in range(len(codes))),
        fixed=cross(XY, XY if weights is None else XY * weights[:, None]),
    )


def _standard_xy(coordinates: Standardization, rows: Rows) -> FloatArray:
    X = rows.X
    XY = np.empty((X.shape[0], X.shape[1] + 1))
    if X.shape[1] > FEW_COLUMNS:
        XY[:, :-1] = times(X, coordinates.x_basis)
    else:
        for j, column in enumerate(_times(X, coordinates.x_basis)):
            XY[:, j] = column
    XY[:, -1] = (rows.target - _times(X, coordinates.origin[:, None])[0]) / coordinates.scale
    return XY


def _times(A: FloatArray, basis: FloatArray) -> list[FloatArray]:
    """Columns of ``A @ basis``, each contiguous."""
    if A.shape[1] > FEW_COLUMNS:
        return list(np.ascontiguousarray(times(A, basis).T))
    columns = []
    for factors in basis.T:
        column = np.zeros(A.shape[0])
        for j in np.flatnonzero(factors):
            column += A[:, j] * factors[j]
        columns.append(column)
    return columns


def _diagonal(codes: NDArray[np.int32], Z: list[FloatArray], ZW: list[FloatArray], n_levels: int) -> FloatArray:
    k = len(Z)
    blocks = np.empty((k, k, n_levels))
    for i in range(k):
        for j in range(i + 1):
            blocks[i, j] = blocks[j, i] = np.bincount(codes, weights=ZW[i] * Z[j], minlength=n_levels)
    return blocks


def _border(codes: NDArray[np.int32], ZW: list[FloatArray], XY: FloatArray, n_levels: int) -> FloatArray:
    n = codes.size
    indptr = np.arange(n + 1, dtype=np.int32)
    return np.stack([sparse.csc_array((z, codes, indptr), shape=(n_levels, n)) @ XY for z in ZW])


def _pair(
    codes: tuple[NDArray[np.int32], ...],
    ZWf: list[FloatArray],
    Zg: list[FloatArray],
    n_levels: list[int],
    f: int,
    g: int,
) -> PairBlock:
    values = np.empty((len(ZWf), len(Zg), codes[f].size))
    for i, left in enumerate(ZWf):
        for j, right in enumerate(Zg):
            np.multiply(left, right, out=values[i, j])
    return pair_block(codes[f], codes[g], values, (n_levels[f], n_levels[g]))
