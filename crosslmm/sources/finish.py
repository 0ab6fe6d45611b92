"""From sums in the coordinates of a sample to the cross-products of the model, with all checks that rows allow."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts, PairBlock
from crosslmm.design.build import layout_of
from crosslmm.design.coordinates import FixedSums, Ranges, coordinates
from crosslmm.design.fixed import FIXED_PART, RESPONSE, check_sizes, check_varies
from crosslmm.design.identify import check_identified, proportional_columns
from crosslmm.design.qr import plain_factor
from crosslmm.design.random import check_nonzero, random_part
from crosslmm.design.standardize import TermSums
from crosslmm.sources.provisional import fixed_step, random_steps
from crosslmm.sources.schema import Schema
from crosslmm.sources.sums import Sums, whole_pairs


def finish(schema: Schema, sums: Sums) -> tuple[NDArray[np.intp], CrossProducts]:
    """Positions of the fixed-effects columns that are kept, and the cross-products.

    Raises
    ------
    DataError, ModelError
        As `crosslmm.design.build_design`.

    Warns
    -----
    RankDeficiencyWarning
    """
    formula, needs, arrangement = schema.formula, schema.needs, schema.arrangement
    check_sizes(sums.response.sizes, schema.response_spec.column_names, RESPONSE)
    check_varies(formula.response, float(sums.response.low[0]), float(sums.response.high[0]), sums.n)
    check_sizes(sums.fixed_moments.sizes, schema.fixed.names, FIXED_PART)
    pairs = [whole_pairs(blocks) for blocks in sums.pairs]
    terms = _check_random(schema, sums, pairs)
    kept, standardization = coordinates(formula.response, schema.fixed, _fixed_sums(sums), arrangement, terms)
    layout = layout_of(
        formula, schema.fixed, kept, arrangement, standardization, needs.weights is not None, needs.offset is not None
    )
    before = schema.layout.standardization
    XY = fixed_step(before, standardization, kept)
    Z = random_steps(before, standardization)
    positions = [(f, g) for f in range(len(Z)) for g in range(f + 1, len(Z))]
    return kept, CrossProducts(
        layout=layout,
        n=sums.n,
        sum_log_weights=sums.sum_log_weights,
        diagonal=tuple(_both(T, T, blocks) for T, blocks in zip(Z, sums.diagonal, strict=True)),
        pairs=tuple((f, g, _pairs(Z[f], Z[g], block)) for (f, g), block in zip(positions, pairs, strict=True)),
        border=tuple(np.einsum("ki,klp,pq->ilq", T, S, XY, optimize=True) for T, S in zip(Z, sums.border, strict=True)),
        fixed=XY.T @ sums.fixed @ XY,
        n_dropped=schema.n_dropped,
    )


def _check_random(schema: Schema, sums: Sums, pairs: list[PairBlock]) -> Mapping[str, TermSums]:
    """Check the columns of the random-effects terms; what their coordinates need of them."""
    arrangement, made = schema.arrangement, schema.random
    R, of = sums.random_factor, sums.random_moments
    starts = np.cumsum([0, *(len(columns.names) for columns in made.values())])
    place = {text: slice(starts[i], starts[i + 1]) for i, text in enumerate(made)}
    for text, columns in made.items():
        check_sizes(of.sizes[place[text]], columns.names, random_part(text))
    check_nonzero(schema.formula.random, made, {text: of.sizes[place[text]] > 0.0 for text in made})
    n_factors = len(arrangement.factors)
    blocks = dict(zip([(f, g) for f in range(n_factors) for g in range(f + 1, n_factors)], pairs, strict=True))
    check_identified(
        arrangement,
        made,
        lambda f, g: blocks[f, g].nnz == arrangement.factors[f].n_levels == arrangement.factors[g].n_levels,
        lambda one, other: proportional_columns(R[:, place[one]], R[:, place[other]]),
    )
    return {
        text: TermSums(
            n=sums.n,
            mean_squares=of.mean_squares[place[text]],
            factor=plain_factor(R[:, place[text]]),
            constant=bool(of.low[place[text]][0] == 1.0 == of.high[place[text]][0]),
        )
        for text in made
    }


def _fixed_sums(sums: Sums) -> FixedSums:
    of = sums.fixed_moments

    def ranges(positions: NDArray[np.intp]) -> Ranges:
        return Ranges(of.low[positions], of.high[positions], np.sqrt(of.squares[positions] / of.n))

    return FixedSums(
        n=sums.n,
        factor=sums.fixed_factor,
        mean=float(sums.target.mean[0]),
        spread=float(np.sqrt(sums.target.squares[0])),
        intercept=of.ones,
        ranges=ranges,
    )


def _both(left: FloatArray, right: FloatArray, blocks: FloatArray) -> FloatArray:
    """``left' B right`` of blocks (k, m, ...)."""
    if _is_identity(left) and _is_identity(right):
        return blocks
    return np.einsum("ki,kml,mj->ijl", left, blocks, right, optimize=True)


def _pairs(left: FloatArray, right: FloatArray, block: PairBlock) -> PairBlock:
    return PairBlock(block.indptr, block.indices, _both(left, right, block.values))


def _is_identity(matrix: FloatArray) -> bool:
    return bool(np.array_equal(matrix, np.eye(len(matrix))))
