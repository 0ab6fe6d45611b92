"""Sparse factors: the CHOLMOD adapter for both interfaces of scikit-sparse, symbolic factors, selected inverses."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import sparse
from scipy.linalg import solve_triangular

from crosslmm.errors import NumericalError
from crosslmm.linalg import cholmod, selinv

ORDERINGS = ("default", "amd", "metis", "nesdis", "best", "natural")


class ImitatedNotPositiveDefiniteError(Exception):
    pass


class ImitatedCholeskyFactor:
    """What scikit-sparse 0.5.0 documents of its ``CholeskyFactor``, done by numpy: it cannot be built everywhere.

    An imitation shows that the adapter calls what the documentation says, not that scikit-sparse does what it says.
    """

    def __init__(self, A, *, lower=True, order="default"):
        assert A.format == "csc"
        assert lower
        assert order in ORDERINGS
        n = A.shape[0]
        self.permutation = np.arange(n) if order == "natural" else np.arange(n)[::-1].copy()
        self.L = None

    def get_perm(self):
        return self.permutation.copy()

    def copy(self):
        other = object.__new__(type(self))
        other.permutation, other.L = self.permutation, self.L
        return other

    def factorize(self, A, ldl=None):
        assert A.format == "csc"
        assert ldl is False
        lower = np.tril(A.toarray())
        S = lower + np.tril(lower, -1).T
        try:
            self.L = np.linalg.cholesky(S[np.ix_(self.permutation, self.permutation)])
        except np.linalg.LinAlgError as error:
            raise ImitatedNotPositiveDefiniteError("not positive definite") from error
        return self

    def solve(self, b, system="A"):
        """The systems other than "A" leave the permutation out."""
        trans = {"L": "N", "Lt": "T"}[system]
        return np.asfortranarray(solve_triangular(self.L, b, lower=True, trans=trans))

    def logdet(self):
        return 2.0 * np.log(np.diag(self.L)).sum()

    def get_factor(self, kind=None, lower=None):
        """A copy without explicit zeros."""
        assert kind == "LL"
        assert lower is True
        return sparse.csc_array(self.L)


@pytest.fixture(params=["installed", "imitation of 0.5"])
def adapter(request, monkeypatch):
    if request.param == "imitation of 0.5":
        module = SimpleNamespace(
            CholeskyFactor=ImitatedCholeskyFactor, CholmodNotPositiveDefiniteError=ImitatedNotPositiveDefiniteError
        )
        monkeypatch.setattr(cholmod, "cholmod", module)
        monkeypatch.setattr(cholmod, "HAS_CLASS_INTERFACE", True)
    return cholmod


def random_spd(seed, q, density):
    """Symmetric positive definite, with its lower triangle in CSC form."""
    rng = np.random.default_rng([seed, q])
    A = np.where(rng.random((q, q)) < density, rng.normal(size=(q, q)), 0.0)
    A = np.tril(A, -1) + np.tril(A, -1).T
    S = A + np.diag(np.abs(A).sum(axis=1) + 1.0)
    lower = sparse.csc_array(np.tril(S))
    lower.sort_indices()
    return S, lower


# --- the adapter ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize(("q", "density"), [(1, 0.0), (12, 0.0), (40, 0.05), (40, 1.0), (200, 0.3)])
def test_factor(adapter, q, density, ordering):
    S, lower = random_spd(1, q, density)
    analysis = adapter.analyze(lower, ordering)
    P = analysis.permutation
    np.testing.assert_array_equal(np.sort(P), np.arange(q))
    if ordering == "natural":
        np.testing.assert_array_equal(P, np.arange(q))

    factor = analysis.factorize(lower)
    L = factor.lower()
    assert L.has_sorted_indices
    dense = L.toarray()
    np.testing.assert_array_equal(np.triu(dense, 1), 0.0)
    np.testing.assert_allclose(dense @ dense.T, S[np.ix_(P, P)], atol=1e-10 * np.abs(S).max())
    assert factor.log_det == pytest.approx(np.linalg.slogdet(S)[1], rel=1e-10, abs=1e-10)

    B = np.random.default_rng(2).normal(size=(q, 3))
    half = factor.half_solve(B)
    np.testing.assert_allclose(half, np.linalg.solve(dense, B[P]), atol=1e-10)
    X = factor.half_solve_transposed(B)
    np.testing.assert_allclose(X[P], np.linalg.solve(dense.T, B), atol=1e-10)
    np.testing.assert_allclose(factor.half_solve_transposed(half), np.linalg.solve(S, B), atol=1e-10)
    one = factor.half_solve(B[:, :1])
    np.testing.assert_allclose(one, half[:, :1], atol=1e-12)


def test_an_analysis_serves_many_factors(adapter):
    """The factors of one analysis do not share values, and a failure leaves the others as they were."""
    S, lower = random_spd(3, 30, 0.2)
    analysis = adapter.analyze(lower)
    first = analysis.factorize(lower)
    second = analysis.factorize(sparse.csc_array(2.0 * lower))
    bad = lower.copy()
    bad.data = -bad.data
    with pytest.raises(NumericalError, match="not positive definite"):
        analysis.factorize(bad)
    assert first.log_det == pytest.approx(np.linalg.slogdet(S)[1])
    assert second.log_det == pytest.approx(np.linalg.slogdet(2.0 * S)[1])
    b = np.ones((30, 1))
    for factor, matrix in ((first, S), (second, 2.0 * S)):
        x = factor.half_solve_transposed(factor.half_solve(b))
        np.testing.assert_allclose(x, np.linalg.solve(matrix, b), atol=1e-10)


def test_entries_that_happen_to_be_zero(adapter):
    """Stored zeros belong to the pattern; a factor may leave them out of its L."""
    _, lower = random_spd(4, 20, 0.3)
    analysis = adapter.analyze(lower)
    diagonal = lower.copy()
    rows, cols = diagonal.indices, np.repeat(np.arange(20), np.diff(diagonal.indptr))
    diagonal.data = np.where(rows == cols, 4.0, 0.0)
    factor = analysis.factorize(diagonal)
    np.testing.assert_allclose(factor.lower().toarray(), 2.0 * np.eye(20), atol=1e-14)
    assert factor.log_det == pytest.approx(20 * np.log(4.0))


# --- symbolic factors and selected inverses ------------------------------------------------------


def strict_upper(S):
    upper = sparse.csc_array(np.triu(S, 1))
    upper.sort_indices()
    return upper


def eliminated(S):
    """Pattern of the Cholesky factor by eliminating one variable after the other; bool (q, q)."""
    pattern = S != 0.0
    for j in range(len(S)):
        below = j + 1 + np.flatnonzero(pattern[j + 1 :, j])
        pattern[np.ix_(below, below)] = True
    return np.tril(pattern)


PATTERNS = pytest.mark.parametrize(
    ("q", "density"), [(1, 0.0), (15, 0.0), (30, 0.05), (60, 0.03), (60, 0.1), (25, 1.0)]
)


def symbolic_factor(S):
    upper = strict_upper(S)
    parent, counts = selinv.column_counts(upper.indptr, upper.indices)
    return parent, counts, *selinv.factor_pattern(upper.indptr, upper.indices, parent, counts)


@PATTERNS
def test_symbolic_factor(q, density):
    S, lower = random_spd(5, q, density)
    parent, counts, indptr, indices = symbolic_factor(S)
    expected = eliminated(S)
    np.testing.assert_array_equal(counts, expected.sum(axis=0))
    below = np.tril(expected, -1)
    np.testing.assert_array_equal(parent, np.where(below.any(axis=0), below.argmax(axis=0), -1))
    for j in range(q):
        np.testing.assert_array_equal(indices[indptr[j] : indptr[j + 1]], np.flatnonzero(expected[:, j]))

    L = cholmod.analyze(lower, "natural").factorize(lower).lower()
    np.testing.assert_array_equal(L.toarray() != 0.0, expected)


@pytest.mark.parametrize("ordering", ["default", "amd", "metis"])
@PATTERNS
def test_symbolic_factor_of_the_permuted_matrix(q, density, ordering):
    """The factor CHOLMOD makes lies within the pattern that is predicted from its permutation."""
    S, lower = random_spd(6, q, density)
    analysis = cholmod.analyze(lower, ordering)
    P = analysis.permutation
    *_, indptr, indices = symbolic_factor(S[np.ix_(P, P)])
    predicted = sparse.csc_array((np.ones(indices.size), indices, indptr), shape=(q, q)).toarray() > 0
    np.testing.assert_array_equal(analysis.factorize(lower).lower().toarray() != 0.0, predicted)


@PATTERNS
def test_selected_inverse(q, density):
    S, lower = random_spd(7, q, density)
    *_, indptr, indices = symbolic_factor(S)
    L = cholmod.analyze(lower, "natural").factorize(lower).lower()
    data = selinv.onto_pattern(L.indptr, L.indices, L.data, indptr, indices)
    z = selinv.selected_inverse(indptr, indices, data)
    cols = np.repeat(np.arange(q), np.diff(indptr))
    np.testing.assert_allclose(z, np.linalg.inv(S)[indices, cols], atol=1e-12)


def test_onto_a_larger_pattern():
    small = sparse.csc_array(np.array([[1.0, 0, 0, 0], [0, 2, 0, 0], [3, 0, 4, 0], [0, 0, 0, 5]]))
    large = sparse.csc_array(np.tril(np.ones((4, 4))))
    data = selinv.onto_pattern(small.indptr, small.indices, small.data, large.indptr, large.indices)
    result = sparse.csc_array((data, large.indices, large.indptr), shape=(4, 4))
    np.testing.assert_array_equal(result.toarray(), small.toarray())
