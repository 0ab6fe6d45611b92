"""Cross-products: what they are, that those of parts of the rows add up, and those of one factor alone."""

import pickle

import numpy as np
import pandas as pd
import pytest

import crosslmm as clm
from crosslmm.crossproducts import counting_order, pair_block
from crosslmm.design import accumulate
from crosslmm.engine.direct import prepare
from crosslmm.engine.plan import DirectEngine
from crosslmm.objective import evaluate

FORMULAS = ["y ~ x + (1 | a)", "y ~ x + (1 + x | a) + (1 | b)", "y ~ 0 + (x || a) + (1 + x | b) + (1 | c)"]


def design_of(formula, **options):
    rng = np.random.default_rng(1)
    n = 200
    data = pd.DataFrame({"a": rng.integers(0, 20, n), "b": rng.integers(0, 7, n), "c": rng.integers(0, 4, n)})
    data["x"], data["w"], data["o"] = rng.normal(size=n), rng.uniform(0.5, 2, size=n), rng.normal(size=n)
    data["y"] = 5 + data["x"] + rng.normal(size=n)
    return clm.MixedLM.from_formula(formula, data, **options).design


OPTIONS = pytest.mark.parametrize("options", [{}, {"weights": "w", "offset": "o"}], ids=["plain", "weights, offset"])


def assert_equal(a, b):
    assert a.layout is b.layout
    assert a.n == b.n
    assert a.sum_log_weights == pytest.approx(b.sum_log_weights, abs=1e-10)
    for ours, theirs in zip((*a.diagonal, *a.border), (*b.diagonal, *b.border), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-10)
    for (f, g, ours), (h, i, theirs) in zip(a.pairs, b.pairs, strict=True):
        assert (f, g) == (h, i)
        np.testing.assert_array_equal(ours.indptr, theirs.indptr)
        np.testing.assert_array_equal(ours.indices, theirs.indices)
        np.testing.assert_allclose(ours.values, theirs.values, atol=1e-10)
    np.testing.assert_allclose(a.fixed, b.fixed, atol=1e-10)


# --- what they are -------------------------------------------------------------------------------


@OPTIONS
@pytest.mark.parametrize("formula", FORMULAS)
def test_against_whole_matrices(formula, options):
    """``[Z, X, y]' W [Z, X, y]`` in standardised coordinates."""
    design = design_of(formula, **options)
    xp, standard = accumulate(design), design.layout.standardization
    W = np.ones(design.n) if design.weights is None else design.weights
    y = design.y if design.offset is None else design.y - design.offset
    XY = np.column_stack([design.X @ standard.x_basis, (y - design.X @ standard.origin) / standard.scale])
    Z = []
    for codes, Zf, basis, factor in zip(design.codes, design.Z, standard.z_bases, design.layout.factors, strict=True):
        one_hot = codes[:, None] == np.arange(factor.n_levels)
        Z.append(np.einsum("nk,nl->nkl", Zf @ basis, one_hot))
    np.testing.assert_allclose(xp.fixed, XY.T * W @ XY, atol=1e-9)
    assert xp.sum_log_weights == pytest.approx(np.log(W).sum(), abs=1e-10)
    for f, Zf in enumerate(Z):
        np.testing.assert_allclose(xp.border[f], np.einsum("nkl,n,np->klp", Zf, W, XY), atol=1e-9)
        np.testing.assert_allclose(xp.diagonal[f], np.einsum("nil,n,njl->ijl", Zf, W, Zf), atol=1e-9)
    assert [(f, g) for f, g, _ in xp.pairs] == [(f, g) for f in range(len(Z)) for g in range(f + 1, len(Z))]
    for f, g, block in xp.pairs:
        whole = np.einsum("nil,n,njm->ijlm", Z[f], W, Z[g])
        np.testing.assert_allclose(block.values, whole[:, :, block.rows(), block.indices], atol=1e-9)
        met = np.zeros(whole.shape[2:], dtype=bool)
        met[block.rows(), block.indices] = True
        np.testing.assert_array_equal(met, np.einsum("nil,njm->lm", Z[f] != 0, Z[g] != 0) > 0)


def test_standardised_columns_are_orthogonal():
    xp = accumulate(design_of("y ~ x + (1 + x | a)"))
    p = xp.layout.n_fixed
    np.testing.assert_allclose(xp.fixed[:p, :p], xp.n * np.eye(p), atol=1e-9)
    np.testing.assert_allclose(xp.fixed[:p, p], 0.0, atol=1e-9)
    assert xp.fixed[p, p] == pytest.approx(xp.n)
    np.testing.assert_allclose(xp.diagonal[0].sum(axis=2), xp.n * np.eye(2), atol=1e-9)


# --- sums ----------------------------------------------------------------------------------------


@OPTIONS
@pytest.mark.parametrize("cut", [0, 1, 77, 199])
@pytest.mark.parametrize("formula", FORMULAS)
def test_parts_add_up(formula, cut, options):
    """Also where a part of the rows lacks most levels and most pairs."""
    design = design_of(formula, **options)
    whole = accumulate(design)
    first, second = accumulate(design, slice(0, cut)), accumulate(design, slice(cut, None))
    assert_equal(first + second, whole)
    assert_equal(second + first, whole)


def test_three_parts_add_up_in_any_order():
    design = design_of(FORMULAS[2])
    a, b, c = (accumulate(design, slice(*bounds)) for bounds in [(0, 30), (30, 120), (120, None)])
    assert_equal((a + b) + c, a + (c + b))
    assert_equal(a + b + c, accumulate(design))


def test_the_sum_is_a_model():
    """Same criterion from the sum as from the whole."""
    design = design_of(FORMULAS[1])
    whole = accumulate(design)
    parts = accumulate(design, slice(0, 90)) + accumulate(design, slice(90, None))
    templates = tuple(np.tril(np.full((f.size, f.size), 0.7)) for f in design.layout.factors)
    ours, theirs = (evaluate(prepare(xp, DirectEngine()), xp, templates, reml=True) for xp in (parts, whole))
    assert ours.criterion == pytest.approx(theirs.criterion, rel=1e-13)


def test_different_layouts_do_not_add_up():
    one, other = accumulate(design_of(FORMULAS[0])), accumulate(design_of(FORMULAS[0], weights="w"))
    with pytest.raises(ValueError, match="same layout"):
        one + other


def test_a_copy_of_a_layout_is_the_same_layout():
    xp = accumulate(design_of(FORMULAS[1]))
    copy = pickle.loads(pickle.dumps(xp))
    assert copy.layout is not xp.layout
    np.testing.assert_array_equal((xp + copy).fixed, 2.0 * xp.fixed)


# --- one factor ----------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0, 1])
def test_restricted_to_one_factor(factor):
    """The model that has only the terms of one factor: same rows, same fixed effects, same coordinates."""
    xp = accumulate(design_of("y ~ x + (1 + x | a) + (1 | b)"))
    alone = xp.restrict(factor)
    expected = accumulate(design_of(["y ~ x + (1 + x | a)", "y ~ x + (1 | b)"][factor]))
    assert alone.layout.theta_names == expected.layout.theta_names
    assert [t.theta_start for t in alone.layout.terms] == [0]
    assert alone.pairs == ()
    np.testing.assert_allclose(alone.diagonal[0], expected.diagonal[0], atol=1e-10)
    np.testing.assert_allclose(alone.border[0], expected.border[0], atol=1e-10)
    templates = (np.tril(np.full((alone.layout.factors[0].size,) * 2, 0.6)),)
    ours, theirs = (evaluate(prepare(one, DirectEngine()), one, templates, reml=True) for one in (alone, expected))
    assert ours.criterion == pytest.approx(theirs.criterion, rel=1e-12)


def test_restricted_to_a_factor_of_two_terms():
    xp = accumulate(design_of("y ~ x + (x || a) + (1 | b)"))
    position = [factor.name for factor in xp.layout.factors].index("a")
    alone = xp.restrict(position)
    assert alone.layout.n_theta == 2
    assert [term.theta_slice for term in alone.layout.terms] == [slice(0, 1), slice(1, 2)]


# --- pairs of levels -----------------------------------------------------------------------------


@pytest.mark.parametrize(("k_f", "k_g"), [(1, 1), (2, 1), (2, 3)])
def test_pair_block(k_f, k_g):
    rng = np.random.default_rng(2)
    n, shape = 60, (9, 5)
    rows, cols = rng.integers(0, 8, n), rng.integers(1, 5, n)  # levels 8 and 0 do not occur
    values = rng.normal(size=(k_f, k_g, n))
    dense = np.zeros((k_f, k_g, *shape))
    for i in range(n):
        dense[:, :, rows[i], cols[i]] += values[:, :, i]
    block = pair_block(rows, cols, values, shape)
    assert block.indptr.shape == (shape[0] + 1,)
    assert block.nnz == block.indices.size == len(set(zip(rows, cols, strict=True)))
    rebuilt = np.zeros_like(dense)
    rebuilt[:, :, block.rows(), block.indices] = block.values
    np.testing.assert_allclose(rebuilt, dense, atol=1e-12)
    for i in range(shape[0]):
        assert (np.diff(block.indices[block.indptr[i] : block.indptr[i + 1]]) > 0).all()


def test_counting_order_is_a_stable_sort():
    codes = np.random.default_rng(3).integers(0, 6, 50)
    np.testing.assert_array_equal(counting_order(codes, 8), np.argsort(codes, kind="stable"))
