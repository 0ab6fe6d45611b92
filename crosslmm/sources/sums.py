"""The second pass: sums over the rows of a batch, which add up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import PairBlock, add_pairs
from crosslmm.design.accumulate import row_products
from crosslmm.design.qr import plain_factor, triangular_factor
from crosslmm.errors import DataError
from crosslmm.sources.evaluate import Evaluated, evaluate
from crosslmm.sources.moments import Moments, moments
from crosslmm.sources.protocol import Batch
from crosslmm.sources.schema import Schema


@dataclass(frozen=True)
class Sums:
    """Sums over rows, in the coordinates of the sample where nothing else is said.

    Attributes
    ----------
    n : int
    sum_log_weights : float
    diagonal, border : tuple of ndarray
        As in `crosslmm.crossproducts.CrossProducts`.
    fixed : ndarray
    pairs : tuple of tuple of PairBlock
        For every pair of factors, blocks that are to be added, each at least twice as large as the next: so many
        batches add up in linear time.
    fixed_factor : ndarray
        Triangular factor of ``[X, y - offset]`` in the units of the data, without weights.
    random_factor : ndarray
        The same of the columns of all random-effects texts.
    response, target, fixed_moments, random_moments : Moments
        Of y, of ``y - offset``, and of these columns.
    """

    n: int
    sum_log_weights: float
    diagonal: tuple[FloatArray, ...]
    border: tuple[FloatArray, ...]
    fixed: FloatArray
    pairs: tuple[tuple[PairBlock, ...], ...]
    fixed_factor: FloatArray
    random_factor: FloatArray
    response: Moments
    target: Moments
    fixed_moments: Moments
    random_moments: Moments


@dataclass(frozen=True)
class Sum:
    """Sums one batch."""

    schema: Schema

    def __call__(self, batch: Batch) -> Sums | None:
        """Sums over the complete rows; None where there are none."""
        try:
            evaluated = evaluate(self.schema, batch)
        except DataError:
            for part in batch.parts:  # the one to blame says so
                evaluate(self.schema, part)
            raise
        return None if evaluated is None else sums_of(self.schema, evaluated)


def sums_of(schema: Schema, evaluated: Evaluated) -> Sums:
    """Sums over evaluated rows."""
    rows = evaluated.rows
    xp = row_products(schema.layout, rows)
    random = np.hstack(list(evaluated.columns.values()))
    random_moments = moments(random)
    return Sums(
        n=xp.n,
        sum_log_weights=xp.sum_log_weights,
        diagonal=xp.diagonal,
        border=xp.border,
        fixed=xp.fixed,
        pairs=tuple((block,) for _, _, block in xp.pairs),
        fixed_factor=triangular_factor(np.column_stack([rows.X, rows.target])),
        random_factor=_random_factor(random, random_moments),
        response=moments(rows.y[:, None]),
        target=moments(rows.target[:, None]),
        fixed_moments=moments(rows.X),
        random_moments=random_moments,
    )


def _random_factor(columns: FloatArray, of: Moments) -> FloatArray:
    """Triangular factor of columns (n, k); that of one column is its length."""
    return np.sqrt(of.n * of.mean_squares)[None, :] if columns.shape[1] == 1 else triangular_factor(columns)


def add_sums(a: Sums | None, b: Sums | None) -> Sums | None:
    """Sums over the rows of both."""
    if a is None or b is None:
        return a if b is None else b
    return Sums(
        n=a.n + b.n,
        sum_log_weights=a.sum_log_weights + b.sum_log_weights,
        diagonal=tuple(one + other for one, other in zip(a.diagonal, b.diagonal, strict=True)),
        border=tuple(one + other for one, other in zip(a.border, b.border, strict=True)),
        fixed=a.fixed + b.fixed,
        pairs=tuple(_stacked((*one, *other)) for one, other in zip(a.pairs, b.pairs, strict=True)),
        fixed_factor=plain_factor(np.vstack([a.fixed_factor, b.fixed_factor])),
        random_factor=plain_factor(np.vstack([a.random_factor, b.random_factor])),
        response=a.response + b.response,
        target=a.target + b.target,
        fixed_moments=a.fixed_moments + b.fixed_moments,
        random_moments=a.random_moments + b.random_moments,
    )


def _stacked(blocks: tuple[PairBlock, ...]) -> tuple[PairBlock, ...]:
    kept: list[PairBlock] = []
    for block in blocks:
        while kept and kept[-1].nnz <= 2 * block.nnz:
            block = add_pairs(kept.pop(), block)
        kept.append(block)
    return tuple(kept)


def whole_pairs(blocks: tuple[PairBlock, ...]) -> PairBlock:
    """The sum of blocks, the smallest first."""
    total = blocks[-1]
    for block in blocks[-2::-1]:
        total = add_pairs(block, total)
    return total
