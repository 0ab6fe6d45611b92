"""Pairs of levels by compiled loops: the same as by numpy, to rounding."""

import numpy as np
import pytest

from crosslmm import crossproducts
from crosslmm.crossproducts import add_pairs, pair_block


def random_pairs(n, k_f, k_g, seed):
    rng = np.random.default_rng(seed)
    rows, cols = rng.integers(0, 8, n).astype(np.int32), rng.integers(1, 5, n).astype(np.int32)
    return rows, cols, rng.normal(size=(k_f, k_g, n))


def dense(rows, cols, values, shape):
    result = np.zeros((*values.shape[:2], *shape))
    for i, (row, col) in enumerate(zip(rows, cols, strict=True)):
        result[:, :, row, col] += values[:, :, i]
    return result


def check(block, expected, met):
    rebuilt = np.zeros_like(expected)
    rebuilt[:, :, block.rows(), block.indices] = block.values
    np.testing.assert_allclose(rebuilt, expected, atol=1e-12)
    assert set(zip(block.rows().tolist(), block.indices.tolist(), strict=True)) == met
    assert block.indices.dtype == np.int32 and block.indptr.dtype == np.int64
    for i in range(block.indptr.size - 1):
        assert (np.diff(block.indices[block.indptr[i] : block.indptr[i + 1]]) > 0).all()


@pytest.mark.parametrize("few", [0, 10**9], ids=["compiled", "numpy"])
@pytest.mark.parametrize(("k_f", "k_g"), [(1, 1), (2, 1), (2, 3)])
@pytest.mark.parametrize(("n", "m"), [(40, 25), (40, 0), (0, 3), (3, 40)])
def test_blocks_and_their_sums(monkeypatch, few, k_f, k_g, n, m):
    """Levels 8 and 0 do not occur; some pairs are in one block, some in both."""
    monkeypatch.setattr(crossproducts, "FEW_PAIRS", few)
    shape = (9, 5)
    one, other = random_pairs(n, k_f, k_g, 1), random_pairs(m, k_f, k_g, 2)
    blocks = [pair_block(*part, shape) for part in (one, other)]
    pairs = [set(zip(rows.tolist(), cols.tolist(), strict=True)) for rows, cols, _ in (one, other)]
    for block, part, met in zip(blocks, (one, other), pairs, strict=True):
        check(block, dense(*part, shape), met)
    for total in (add_pairs(*blocks), add_pairs(*blocks[::-1])):
        check(total, dense(*one, shape) + dense(*other, shape), pairs[0] | pairs[1])
