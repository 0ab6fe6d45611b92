"""Conjugate gradients against numpy's solver, and their Lanczos matrices against logarithms of known spectra."""

import numpy as np
import pytest
from scipy.linalg import solve_triangular

from crosslmm.errors import NumericalError
from crosslmm.linalg import cg

TIGHT = 1e-13


def matrix_with(values, seed=0):
    """A symmetric matrix with these eigenvalues."""
    rng = np.random.default_rng([seed, len(values)])
    Q = np.linalg.qr(rng.normal(size=(len(values), len(values))))[0]
    return (Q * values) @ Q.T


def log_of(S):
    values, vectors = np.linalg.eigh(S)
    return (vectors * np.log(values)) @ vectors.T


def positive_definite(q, seed=0, condition=50.0):
    return matrix_with(np.geomspace(1.0, condition, q), seed)


def counted(A):
    """The product with A, and the widths of the blocks it was called with."""
    widths = []

    def product(v):
        widths.append(v.shape[1])
        return A @ v

    return product, widths


def solve(S, B, tolerance=TIGHT, P=None, **options):
    inverse = np.eye(len(S)) if P is None else np.linalg.inv(P)
    goals = np.broadcast_to(np.asarray(tolerance, dtype=float), B.shape[1]).copy()
    return cg.solve(lambda v: S @ v, lambda v: inverse @ v, B, goals, **options)


@pytest.fixture(params=["plain", "diagonal", "close"])
def system(request):
    """A matrix with a preconditioner: none, its diagonal, or nearly itself."""
    S = positive_definite(60, seed=1)
    P = {
        "plain": np.eye(60),
        "diagonal": np.diag(np.diag(S)),
        "close": S + 0.1 * positive_definite(60, seed=2, condition=10),
    }[request.param]
    return S, P


# --- solutions -----------------------------------------------------------------------------------


def test_solutions(system):
    S, P = system
    B = np.random.default_rng(3).normal(size=(60, 5))
    given = B.copy()
    result = solve(S, B, P=P)
    np.testing.assert_allclose(result.x, np.linalg.solve(S, B), rtol=0, atol=1e-10)
    np.testing.assert_allclose(result.residual, B - S @ result.x, rtol=0, atol=1e-11)
    np.testing.assert_array_equal(B, given)


@pytest.mark.parametrize("q", [1, 2, 7])
def test_small_systems_take_no_more_steps_than_equations(q):
    S = positive_definite(q, seed=4, condition=5)
    B = np.random.default_rng(5).normal(size=(q, 3))
    result = solve(S, B, tolerance=1e-10)
    assert result.steps <= q
    np.testing.assert_allclose(result.x, np.linalg.solve(S, B), rtol=0, atol=1e-9)


def test_tolerances_are_kept_column_by_column(system):
    """In the norm of the inverse preconditioner, and with the residual that belongs to the solution."""
    S, P = system
    rng = np.random.default_rng(6)
    B = rng.normal(size=(60, 4)) * [1e-6, 1.0, 1e6, 1.0]
    tolerance = np.array([1e-2, 1e-10, 1e-4, 1e-6])
    result = solve(S, B, tolerance=tolerance, P=P)

    def norms(v):
        return np.sqrt(np.einsum("qm,qm->m", v, np.linalg.solve(P, v)))

    true = norms(B - S @ result.x)
    assert (true <= 1.001 * tolerance * norms(B)).all()
    scale = np.abs(B).max(axis=0)
    np.testing.assert_allclose(result.residual / scale, (B - S @ result.x) / scale, rtol=0, atol=1e-11)
    lengths = [diagonal.size for diagonal, _ in result.tridiagonals]
    assert np.argsort(lengths).tolist() == np.argsort(-tolerance).tolist()
    assert max(lengths) == result.steps


def test_a_column_does_not_depend_on_its_company(system):
    S, P = system
    B = np.random.default_rng(7).normal(size=(60, 6))
    tolerance = np.geomspace(0.3, 1e-3, 6)  # few steps: rounding, which depends on the company, grows with them
    together = solve(S, B, tolerance=tolerance, P=P)
    for j in range(6):
        alone = solve(S, B[:, [j]], tolerance=tolerance[[j]], P=P)
        np.testing.assert_allclose(together.x[:, [j]], alone.x, rtol=0, atol=1e-10)
        assert together.tridiagonals[j][0].size == alone.steps


def test_columns_that_are_done_leave_the_passes():
    S = positive_definite(40, seed=8)
    product, widths = counted(S)
    B = np.random.default_rng(9).normal(size=(40, 3))
    B[:, 0] = np.linalg.eigh(S)[1][:, 0]  # one step
    result = cg.solve(product, lambda v: v, B, np.array([1e-8, 1e-2, 1e-10]))
    assert widths[0] == 3
    assert widths[-1] == 1
    assert widths == sorted(widths, reverse=True)
    assert len(widths) == result.steps


@pytest.mark.parametrize("zeros", [[0], [1, 3], [0, 1, 2, 3]])
def test_columns_of_zeros(zeros):
    S = positive_definite(20, seed=10)
    B = np.random.default_rng(11).normal(size=(20, 4))
    B[:, zeros] = 0.0
    result = solve(S, B)
    np.testing.assert_allclose(result.x, np.linalg.solve(S, B), rtol=0, atol=1e-10)
    assert not result.x[:, zeros].any()
    assert not result.residual[:, zeros].any()
    for j, (diagonal, off) in enumerate(result.tridiagonals):
        assert (diagonal.size == 0) == (j in zeros)
        assert off.size == max(diagonal.size - 1, 0)
    if len(zeros) == 4:
        assert result.steps == 0


def test_no_columns():
    result = solve(np.eye(3), np.zeros((3, 0)))
    assert result.x.shape == (3, 0)
    assert result.steps == 0
    assert result.tridiagonals == ()


def test_an_exhausted_krylov_space():
    """Three different eigenvalues: the third step is exact, and so is the quadrature."""
    values = np.repeat([1.0, 3.0, 20.0], 10)
    S = matrix_with(values, seed=12)
    B = np.random.default_rng(13).normal(size=(30, 4))
    result = solve(S, B, tolerance=1e-9)
    assert result.steps == 3
    np.testing.assert_allclose(result.x, np.linalg.solve(S, B), rtol=0, atol=1e-10)
    lengths = np.einsum("qm,qm->m", B, B)
    exact = np.einsum("qm,qm->m", B, log_of(S) @ B) / lengths
    np.testing.assert_allclose([cg.log_quadrature(t) for t in result.tridiagonals], exact, rtol=1e-10)


def test_the_identity_takes_one_step():
    B = np.random.default_rng(14).normal(size=(8, 3))
    result = solve(np.eye(8), B)
    assert result.steps == 1
    np.testing.assert_array_equal(result.x, B)
    assert [cg.log_quadrature(t) for t in result.tridiagonals] == [0.0, 0.0, 0.0]


def test_giving_up():
    S = positive_definite(200, seed=15, condition=1e10)
    B = np.random.default_rng(16).normal(size=(200, 3))
    B[:, 1] = np.linalg.eigh(S)[1][:, -1]
    with pytest.raises(NumericalError, match="2 of 3 systems of 200 equations are not solved after 5 steps"):
        solve(S, B, tolerance=1e-8, max_steps=5)
    enough = solve(S, B[:, [1]], tolerance=1e-8, max_steps=5)
    assert enough.steps <= 5


@pytest.mark.parametrize("values", [[1.0, 2.0, -0.5], [1.0, 0.0, 0.0], [np.nan, 1.0, 1.0], [np.inf, 1.0, 1.0]], ids=str)
def test_matrices_that_are_not_positive_definite(values):
    """Said at the first step that sees it, and not for a slow one."""
    product, widths = counted(np.diag(values))
    B = np.eye(3) + np.array([[0.0], [0.0], [1.0]])
    with np.errstate(all="ignore"), pytest.raises(NumericalError, match="not positive definite"):
        cg.solve(product, lambda v: v, B, np.full(3, 1e-8))
    assert len(widths) <= 3


# --- logarithms ----------------------------------------------------------------------------------


SPECTRA = {
    "even": np.linspace(1.0, 4.0, 25),
    "wide": np.geomspace(1.0, 1e4, 25),
    "two clusters": np.concatenate([np.linspace(1.0, 1.1, 20), np.linspace(500.0, 600.0, 5)]),
    "below one": np.geomspace(1e-3, 1.0, 25),
    "one far out": np.append(np.ones(24), 1e6),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_log_quadrature(name):
    values = SPECTRA[name]
    S = matrix_with(values, seed=17)
    B = np.random.default_rng(18).normal(size=(25, 6))
    result = solve(S, B)
    exact = np.einsum("qm,qm->m", B, log_of(S) @ B) / np.einsum("qm,qm->m", B, B)
    found = [cg.log_quadrature(t) for t in result.tridiagonals]
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-8 * np.abs(np.log(values)).max())


@pytest.mark.parametrize("name", SPECTRA)
def test_quadratures_over_an_orthogonal_set_sum_to_the_log_determinant(name):
    values = SPECTRA[name]
    S = matrix_with(values, seed=19)
    Q = np.linalg.qr(np.random.default_rng(20).normal(size=S.shape))[0]
    result = solve(S, Q)
    total = sum(cg.log_quadrature(t) for t in result.tridiagonals)
    assert total == pytest.approx(np.log(values).sum(), rel=1e-8, abs=1e-8)


def test_quadratures_see_what_the_preconditioner_leaves(system):
    """Started at ``L r``, ``L L' = P``, for orthogonal r they sum to ``log |S| - log |P|``."""
    S, P = system
    L = np.linalg.cholesky(P)
    Q = np.linalg.qr(np.random.default_rng(21).normal(size=S.shape))[0]
    result = solve(S, L @ Q, P=P)
    found = [cg.log_quadrature(t) for t in result.tridiagonals]
    left = solve_triangular(L, solve_triangular(L, S, lower=True).T, lower=True)
    np.testing.assert_allclose(found, np.diag(Q.T @ log_of(left) @ Q), rtol=0, atol=1e-8)
    assert sum(found) == pytest.approx(np.linalg.slogdet(S)[1] - np.linalg.slogdet(P)[1], rel=1e-8)


def test_lanczos_matrices_have_the_moments_of_the_spectrum(system):
    """``e1' T^j e1 = v' A^j v`` up to twice the steps less one, A the preconditioned matrix (Golub, Meurant 2010)."""
    S, P = system
    L = np.linalg.cholesky(P)
    A = solve_triangular(L, solve_triangular(L, S, lower=True).T, lower=True)
    r = np.random.default_rng(22).normal(size=60)
    r /= np.linalg.norm(r)
    diagonal, off = solve(S, (L @ r)[:, None], tolerance=1e-3, P=P).tridiagonals[0]
    m = diagonal.size
    T = np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1)
    for j in range(min(2 * m, 8)):
        ours = np.linalg.matrix_power(T, j)[0, 0]
        assert ours == pytest.approx(r @ np.linalg.matrix_power(A, j) @ r, rel=1e-9)


def test_a_quadrature_that_stops_early_is_a_bound_that_falls():
    """Even derivatives of the logarithm are negative, so Gauss quadrature lies above it (Golub, Meurant 2010, 6.2)."""
    S = positive_definite(80, seed=23, condition=1e4)
    b = np.random.default_rng(24).normal(size=(80, 1))
    exact = float(b[:, 0] @ log_of(S) @ b[:, 0] / (b[:, 0] @ b[:, 0]))
    found = [cg.log_quadrature(solve(S, b, tolerance=t).tridiagonals[0]) for t in (0.5, 1e-1, 1e-2, 1e-3)]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[-1] > exact - 1e-10
    assert found[-1] == pytest.approx(exact, abs=1e-3)
