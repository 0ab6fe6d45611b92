"""Linear algebra against plain dense matrices: blocks by level, coupling and rest in each of their stores."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.linalg import block_diag

import crosslmm as clm
from crosslmm.crossproducts import pair_block
from crosslmm.engine.direct import prepare
from crosslmm.errors import NumericalError
from crosslmm.linalg import coupling as coupling_module
from crosslmm.linalg import dense, schur, threads
from crosslmm.linalg.coupling import RestBlock, build_coupling
from crosslmm.linalg.levels import apply, congruence, eliminate, invert, multiply
from crosslmm.linalg.pairs import gram_operator
from crosslmm.linalg.schur import sparse_coupling

SIZES = pytest.mark.parametrize("k", [1, 2, 5])


def positive_definite(rng, k, n_levels):
    """Blocks (k, k, L)."""
    G = rng.normal(size=(n_levels, k, k + 2))
    return np.moveaxis(G @ G.transpose(0, 2, 1), 0, 2)


def per_level(blocks):
    """(i, j, L) to (L, i, j)."""
    return np.moveaxis(blocks, 2, 0)


# --- blocks by level -----------------------------------------------------------------------------


@SIZES
def test_invert(k):
    blocks = positive_definite(np.random.default_rng(k), k, 7) + np.eye(k)[:, :, None]
    given = blocks.copy()
    inverse, log_det = invert(blocks)
    np.testing.assert_allclose(per_level(inverse), np.linalg.inv(per_level(blocks)), rtol=1e-10, atol=1e-13)
    assert log_det == pytest.approx(np.linalg.slogdet(per_level(blocks))[1].sum(), rel=1e-12)
    np.testing.assert_array_equal(blocks, given)


@SIZES
@pytest.mark.parametrize("rank", ["full", "deficient", "zero"])
def test_eliminate(k, rank):
    rng = np.random.default_rng(10 + k)
    A = positive_definite(rng, k, 6)
    T = {"full": np.tril(rng.normal(size=(k, k))), "zero": np.zeros((k, k))}.get(rank)
    if T is None:
        T = np.tril(rng.normal(size=(k, k)))
        T[:, -1] = 0.0
    result = eliminate(A, T)
    M = T.T @ per_level(A) @ T + np.eye(k)
    gain = T @ np.linalg.inv(M)
    np.testing.assert_allclose(per_level(result.gain), gain, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(per_level(result.psi), gain @ T.T, rtol=1e-9, atol=1e-12)
    assert result.log_det == pytest.approx(np.linalg.slogdet(M)[1].sum(), rel=1e-12, abs=1e-12)


@SIZES
@pytest.mark.parametrize("m", [1, 2])
def test_congruence(k, m):
    rng = np.random.default_rng(20)
    blocks, T, U = rng.normal(size=(k, m, 4)), rng.normal(size=(k, k)), rng.normal(size=(m, m))
    np.testing.assert_allclose(per_level(congruence(T, blocks, U)), T.T @ per_level(blocks) @ U, atol=1e-12)


@SIZES
def test_products(k):
    rng = np.random.default_rng(30)
    A, B, v = rng.normal(size=(k, k, 4)), rng.normal(size=(k, k, 4)), rng.normal(size=(k, 4, 3))
    np.testing.assert_allclose(per_level(multiply(A, B)), per_level(A) @ per_level(B), atol=1e-12)
    np.testing.assert_allclose(apply(A, v).transpose(1, 0, 2), per_level(A) @ v.transpose(1, 0, 2), atol=1e-12)


# --- LAPACK --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 6])
def test_dense_cholesky(n):
    rng = np.random.default_rng(40)
    G = rng.normal(size=(n, n + 3))
    S, B = G @ G.T, rng.normal(size=(n, 2))
    L = dense.cholesky_in_place(S.copy(order="F"))
    np.testing.assert_allclose(np.tril(L) @ np.tril(L).T, S, atol=1e-12)
    assert dense.log_det(L) == pytest.approx(np.linalg.slogdet(S)[1], abs=1e-12)
    half = dense.solve_lower(L, B)
    np.testing.assert_allclose(half, np.linalg.solve(np.tril(L), B), atol=1e-10)
    np.testing.assert_allclose(dense.solve_lower_transposed(L, half), np.linalg.solve(S, B), atol=1e-9)
    np.testing.assert_allclose(np.tril(dense.inverse_from_cholesky(L)), np.tril(np.linalg.inv(S)), atol=1e-9)


def test_dense_cholesky_of_an_indefinite_matrix():
    with pytest.raises(NumericalError, match="positive definite"):
        dense.cholesky_in_place(np.asfortranarray(np.diag([1.0, -1.0])))


# --- the coupling --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Coupled:
    """A random coupling with its dense twin ``CT`` (k_e, L_e, q) and everything its methods are called with."""

    blocks: tuple
    templates: tuple
    shape: tuple
    CT: np.ndarray
    psi: np.ndarray
    W: np.ndarray  # symmetric (q, q)

    @property
    def by_level(self):
        return self.CT.transpose(1, 0, 2)

    @property
    def schur(self):
        return sum(C.T @ P @ C for C, P in zip(self.by_level, per_level(self.psi), strict=True))


RESTS = {
    "one factor": [(1, 7)],
    "one factor with a slope": [(2, 5)],
    "two factors": [(1, 6), (2, 4)],
    "three factors": [(2, 3), (1, 5), (2, 4)],
}


def coupled(k_e, rest, seed=0, n_levels=9):
    rng = np.random.default_rng([seed, k_e, len(rest)])
    blocks, columns, templates, offset = [], [], [], 0
    for k, L in rest:
        cells = rng.choice(n_levels * L, size=n_levels * L // 3, replace=False)  # pairs in no order
        rows, cols = np.divmod(cells, L)
        values = rng.normal(size=(k_e, k, cells.size))
        blocks.append(RestBlock(offset, k, L, rows.astype(np.int32), cols.astype(np.int32), values))
        C = np.zeros((k_e, n_levels, k, L))
        C[:, rows, :, cols] = values.transpose(2, 0, 1)
        T = np.tril(rng.normal(size=(k, k)))
        columns.append(C.reshape(k_e, n_levels, k * L) @ np.kron(T, np.eye(L)))
        templates.append(T)
        offset += k * L
    G = rng.normal(size=(offset, offset))
    psi = positive_definite(rng, k_e, n_levels)
    CT = np.concatenate(columns, axis=2)
    return Coupled(tuple(blocks), tuple(templates), (k_e, n_levels, offset), CT, psi, G + G.T)


@pytest.fixture(params=["dense", "compressed", "compressed, three threads"])
def scaled(request, monkeypatch):
    """A function that stores a `Coupled` and scales it."""
    if "threads" in request.param:
        monkeypatch.setattr(coupling_module, "PARALLEL_WORK", 0)
        monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: range(3))

    def build(problem):
        stored = build_coupling(problem.blocks, problem.shape, compiled=request.param != "dense")
        assert stored.shape == problem.shape
        if request.param != "dense":
            assert len(stored.bounds) - 1 == (3 if "threads" in request.param else 1)
        return stored.scaled(problem.templates)

    return build


COUPLINGS = [
    pytest.param(coupled(k_e, rest), id=f"{k_e} columns, {name}") for k_e in (1, 2, 3) for name, rest in RESTS.items()
]


@pytest.mark.parametrize("problem", COUPLINGS)
def test_coupling(scaled, problem):
    """Every method of `Scaled`, in every store."""
    rng = np.random.default_rng(50)
    k_e, n_levels, q = problem.shape
    C = scaled(problem)
    B, V = rng.normal(size=(q, 3)), rng.normal(size=(k_e, n_levels, 2))
    np.testing.assert_allclose(C.apply(B), problem.CT @ B, atol=1e-12)
    np.testing.assert_allclose(C.apply_transposed(V), np.einsum("klq,klm->qm", problem.CT, V), atol=1e-12)

    S = problem.W.copy(order="F")
    C.subtract_schur(problem.psi, S)
    np.testing.assert_allclose(np.tril(S), np.tril(problem.W - problem.schur), atol=1e-11)

    quadratic = problem.by_level @ problem.W @ problem.CT.transpose(1, 2, 0)
    lower = np.asfortranarray(np.where(np.tri(q, dtype=bool), problem.W, 1e6))  # the upper triangle may hold anything
    np.testing.assert_allclose(per_level(C.quadratic(lower)), quadratic, atol=1e-10)


@pytest.mark.parametrize("problem", COUPLINGS)
def test_coupling_with_a_sparse_rest(scaled, problem):
    q = problem.shape[2]
    C = scaled(problem)
    met = np.abs(problem.CT).max(axis=0).T > 0
    pattern = sparse.csc_array(np.tril(met.astype(float) @ met.T + np.eye(q)))
    pattern.sort_indices()
    rows, cols = pattern.indices, np.repeat(np.arange(q), np.diff(pattern.indptr))

    data = problem.W[rows, cols].copy()
    C.subtract_schur_sparse(problem.psi, pattern, data)
    np.testing.assert_allclose(data, (problem.W - problem.schur)[rows, cols], atol=1e-11)

    known = np.where((met.astype(float) @ met.T + np.eye(q)) > 0, problem.W, 0.0)
    quadratic = problem.by_level @ known @ problem.CT.transpose(1, 2, 0)
    np.testing.assert_allclose(
        per_level(C.quadratic_sparse(pattern, problem.W[rows, cols].copy())), quadratic, atol=1e-11
    )


# --- the coupling whose Schur complement is never formed -----------------------------------------


def blocks_of(whole, shapes):
    """Diagonal blocks (k, k, L) per factor of a matrix whose columns are numbered ``column * L + level``."""
    result, start = [], 0
    for k, L in shapes:
        own = whole[start : start + k * L, start : start + k * L].reshape(k, L, k, L)
        result.append(np.einsum("iljl->ijl", own))
        start += k * L
    return result


def side_by_side(parts):
    return np.concatenate([part.reshape(-1, part.shape[2]) for part in parts])


@pytest.fixture(params=[1, 3, 20], ids=["one thread", "three threads", "more threads than levels"])
def unformed(request, monkeypatch):
    """A function that draws a coupling: its store, the dense C (k_e * L_e, q), psi as blocks and as one matrix."""
    monkeypatch.setattr(schur, "SERIAL_PAIRS", 0)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: range(request.param))

    def draw(k_e, shapes, n_levels=9):
        rng = np.random.default_rng([90, k_e, len(shapes)])
        stored, columns = [], []
        for k, L in shapes:
            cells = rng.choice((n_levels - 2) * (L - 1), size=(n_levels - 2) * (L - 1) // 2, replace=False)
            rows, cols = np.divmod(cells, L - 1)
            rows[rows >= 4] += 1  # levels 4 and 8 of the eliminated factor meet nobody, nor does the last here
            values = rng.normal(size=(k_e, k, cells.size))
            stored.append(pair_block(rows, cols, values, (n_levels, L)))
            C = np.zeros((k_e, n_levels, k, L))
            C[:, rows, :, cols] = values.transpose(2, 0, 1)
            columns.append(C.reshape(k_e * n_levels, k * L))
        store = sparse_coupling(tuple(stored), tuple(L for _, L in shapes))
        assert len(store.cuts) == request.param + 1
        assert store.shape == (k_e, n_levels)
        psi = positive_definite(rng, k_e, n_levels)
        whole = np.zeros((k_e, n_levels, k_e, n_levels))
        whole[:, np.arange(n_levels), :, np.arange(n_levels)] = per_level(psi)
        return store, np.hstack(columns), psi, whole.reshape(k_e * n_levels, -1)

    return draw


UNFORMED = pytest.mark.parametrize(
    "shapes", [[(1, 7)], [(2, 5)], [(1, 6), (3, 4)], [(2, 3), (1, 5), (2, 4)]], ids=["1", "2", "1 and 3", "2, 1 and 2"]
)


@pytest.mark.parametrize("m", [1, schur.WIDTH, 2 * schur.WIDTH + 1])
@pytest.mark.parametrize("k_e", [1, 2, 3])
@UNFORMED
def test_products_with_a_schur_complement(unformed, shapes, k_e, m):
    store, C, psi, whole = unformed(k_e, shapes)
    rng = np.random.default_rng(91)
    x = tuple(rng.normal(size=(k, L, m)) for k, L in shapes)
    t = rng.normal(size=(k_e, psi.shape[2], m))
    explained = store.schur_product(psi, x)
    assert [part.shape for part in explained] == [part.shape for part in x]
    np.testing.assert_allclose(side_by_side(explained), C.T @ whole @ C @ side_by_side(x), atol=1e-11)
    np.testing.assert_allclose(store.gather(x).reshape(-1, m), C @ side_by_side(x), atol=1e-12)
    np.testing.assert_allclose(side_by_side(store.scatter(t)), C.T @ t.reshape(-1, m), atol=1e-12)


@pytest.mark.parametrize("k_e", [1, 2, 3])
@UNFORMED
def test_products_take_views(unformed, shapes, k_e):
    """Right-hand sides that are columns of wider arrays, as the solver cuts them."""
    store, C, psi, whole = unformed(k_e, shapes)
    wide = [np.random.default_rng(92).normal(size=(k, L, 7)) for k, L in shapes]
    x = tuple(part[:, :, 1:6:2] for part in wide)
    t = np.random.default_rng(93).normal(size=(k_e, psi.shape[2], 7))[:, :, 1:6:2]
    np.testing.assert_allclose(side_by_side(store.schur_product(psi, x)), C.T @ whole @ C @ side_by_side(x), atol=1e-11)
    np.testing.assert_allclose(store.gather(x).reshape(-1, 3), C @ side_by_side(x), atol=1e-12)
    np.testing.assert_allclose(side_by_side(store.scatter(t)), C.T @ t.reshape(-1, 3), atol=1e-12)


@pytest.mark.parametrize("k_e", [1, 2, 3])
@UNFORMED
def test_blocks_of_a_schur_complement(unformed, shapes, k_e):
    store, C, psi, whole = unformed(k_e, shapes)
    for ours, expected in zip(store.schur_diagonal(psi), blocks_of(C.T @ whole @ C, shapes), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-11)

    rng = np.random.default_rng(94)
    B = tuple(positive_definite(rng, k, L) + 0.3 * rng.normal(size=(k, k, L)) for k, L in shapes)  # not symmetric
    q = C.shape[1]
    spread, start = np.zeros((q, q)), 0
    for (k, L), block in zip(shapes, B, strict=True):
        own = np.zeros((k, L, k, L))
        own[:, np.arange(L), :, np.arange(L)] = per_level(block)
        spread[start : start + k * L, start : start + k * L] = own.reshape(k * L, k * L)
        start += k * L
    (expected,) = blocks_of(C @ spread @ C.T, [(k_e, psi.shape[2])])
    np.testing.assert_allclose(store.level_quadratic(B), expected, atol=1e-10)


def test_few_pairs_take_one_thread():
    """And many are cut into shares with about as many pairs each."""
    rng = np.random.default_rng(95)
    n = 2 * schur.SERIAL_PAIRS
    rows, cols = rng.integers(0, 2_000, n) ** 2 // 2_000, rng.integers(0, 50_000, n)
    block = pair_block(rows, cols, np.ones((1, 1, n)), (2_000, 50_000))
    few = pair_block(rows[:500], cols[:500], np.ones((1, 1, 500)), (2_000, 50_000))
    assert sparse_coupling((few,), (50_000,)).cuts == (0, 2_000)
    cuts = sparse_coupling((block,), (50_000,)).cuts
    assert len(cuts) == threads.n_threads() + 1
    shares = np.diff(block.indptr[list(cuts)])
    assert shares.sum() == block.nnz
    assert shares.max() < 1.1 * block.nnz / len(shares)


# --- the rest, from the equations of whole models ------------------------------------------------

FORMULAS = {
    "crossed": "y ~ x + (1 | a) + (1 | b)",
    "slopes": "y ~ x + (1 + x | a) + (1 + x | b)",
    "three factors": "y ~ x + (1 + x | a) + (1 + x | b) + (1 | c)",
    "nested": "y ~ x + (1 + x | c / a)",
}


def frame():
    rng = np.random.default_rng(60)
    n = 240
    data = pd.DataFrame({"a": rng.integers(0, 25, n)})
    data["b"] = (data["a"] // 3 + rng.integers(0, 2, n)) % 8  # few levels of b meet each level of a
    data["c"] = rng.integers(0, 4, n)
    data["x"] = rng.normal(size=n)
    data["y"] = rng.normal(size=n)
    return data


def whole_gram(xp, order):
    """``Z'WZ`` (dense), factors in `order`, columns of each numbered ``column * L + level``."""
    size = [xp.layout.factors[f].n_effects for f in order]
    start = dict(zip(order, np.concatenate([[0], np.cumsum(size)[:-1]]), strict=True))
    A = np.zeros((sum(size), sum(size)))
    for f, D in enumerate(xp.diagonal):
        k, _, L = D.shape
        for i in range(k):
            for j in range(k):
                A[start[f] + i * L + np.arange(L), start[f] + j * L + np.arange(L)] = D[i, j]
    for f, g, block in xp.pairs:
        L_f, L_g = xp.layout.factors[f].n_levels, xp.layout.factors[g].n_levels
        for i in range(block.values.shape[0]):
            for j in range(block.values.shape[1]):
                rows, cols = start[f] + i * L_f + block.rows(), start[g] + j * L_g + block.indices
                A[rows, cols] = A[cols, rows] = block.values[i, j]
    return A


@pytest.fixture(params=["dense", "sparse"])
def rest_kind(request):
    return request.param


@pytest.mark.parametrize("singular", [False, True], ids=["full rank", "singular"])
@pytest.mark.parametrize("name", FORMULAS)
def test_rest(rest_kind, name, singular):
    rng = np.random.default_rng(70)
    xp = clm.MixedLM.from_formula(FORMULAS[name], frame()).crossproducts
    equations = prepare(xp, clm.DirectEngine(rest=rest_kind))
    assert equations.plan.rest == rest_kind
    templates = [np.tril(rng.uniform(0.2, 1.5, size=(D.shape[0],) * 2)) for D in xp.diagonal]
    if singular:
        templates[equations.symbolic.order[-1]][:, -1] = 0.0
    system = equations.at(tuple(templates))

    order = equations.symbolic.order
    A = whole_gram(xp, order)
    T = block_diag(*[np.kron(templates[f], np.eye(xp.layout.factors[f].n_levels)) for f in order])
    whole = T.T @ A @ T + np.eye(A.shape[0])
    first = xp.layout.factors[order[0]].n_effects
    M, C = whole[:first, :first], whole[:first, first:]
    S = whole[first:, first:] - C.T @ np.linalg.solve(M, C)
    S_inverse = np.linalg.inv(S)

    factor = system.rest
    assert factor.log_det == pytest.approx(np.linalg.slogdet(S)[1], abs=1e-9)
    assert system.log_det == pytest.approx(np.linalg.slogdet(whole)[1], abs=1e-9)
    B = rng.normal(size=(S.shape[0], 3))
    half = factor.half_solve(B)
    np.testing.assert_allclose(half.T @ half, B.T @ S_inverse @ B, atol=1e-9)
    np.testing.assert_allclose(factor.half_solve_transposed(half), S_inverse @ B, atol=1e-9)

    rest = equations.symbolic.rest
    assembled = rest.assemble(tuple(templates[f] for f in order[1:]), system.scaled, system.first.psi)
    index = rng.permutation(S.shape[0])[:5]
    np.testing.assert_allclose(assembled.columns(index), S[:, index], atol=1e-9)

    inverse = factor.inverse()
    k, n_levels = xp.layout.factors[order[0]].size, xp.layout.factors[order[0]].n_levels
    raw = (A[:first, first:] @ T[first:, first:]).reshape(k, n_levels, -1)
    quadratic = np.einsum("ilq,qr,jlr->ijl", raw, S_inverse, raw)
    np.testing.assert_allclose(inverse.quadratic(system.scaled), quadratic, atol=1e-8 * np.abs(quadratic).max())
    for position, f in enumerate(order[1:]):
        size, L = xp.layout.factors[f].size, xp.layout.factors[f].n_levels
        offset = rest.matrix.offsets[position]
        own = S_inverse[offset : offset + size * L, offset : offset + size * L].reshape(size, L, size, L)
        np.testing.assert_allclose(inverse.block_sum(offset, size, L), np.einsum("iljl->ij", own), atol=1e-8)


@pytest.mark.parametrize("name", FORMULAS)
def test_gram_operator(name):
    xp = clm.MixedLM.from_formula(FORMULAS[name], frame()).crossproducts
    rng = np.random.default_rng(80)
    z = tuple(rng.normal(size=(factor.size, factor.n_levels, 2)) for factor in xp.layout.factors)
    result = gram_operator(xp.diagonal, xp.pairs).apply(z)
    expected = whole_gram(xp, range(len(z))) @ np.concatenate([part.reshape(-1, 2) for part in z])
    np.testing.assert_allclose(np.concatenate([part.reshape(-1, 2) for part in result]), expected, atol=1e-10)
