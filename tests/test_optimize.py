"""The search on functions with known minima, even in their columns as a criterion is; box steps by brute force."""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
from scipy.optimize import minimize as reference_minimize

from crosslmm.errors import NumericalError
from crosslmm.optimize import minimize
from crosslmm.quadratic import Problem, box_minimum

# --- steps within a box --------------------------------------------------------------------------


def box_by_brute_force(g, H, low, high):
    """Lowest feasible point among those that hold every subset of the variables at every bound."""
    lowest, best = np.inf, None
    for state in product((-1, 0, 1), repeat=g.size):
        side = np.array(state)
        p = np.where(side < 0, low, np.where(side > 0, high, 0.0))
        if not np.isfinite(p).all():
            continue
        free = side == 0
        p[free] = -np.linalg.solve(H[np.ix_(free, free)], (g + H @ p)[free])
        if (p < low - 1e-12).any() or (p > high + 1e-12).any():
            continue
        value = g @ p + 0.5 * p @ H @ p
        if value < lowest:
            lowest, best = value, p
    return lowest, best


@pytest.mark.parametrize("m", [1, 2, 3, 5])
def test_box_minimum(m):
    """Ill-conditioned ones, bounds that are 0 or infinite."""
    rng = np.random.default_rng(m)
    for _ in range(120):
        G = rng.normal(size=(m, m + rng.integers(0, 3)))
        H = G @ G.T + 10.0 ** rng.uniform(-6, 0) * np.eye(m)
        g = 3 * rng.normal(size=m)
        low, high = -rng.uniform(0, 1, m), rng.uniform(0, 1, m)
        low[rng.random(m) < 0.2] = -np.inf
        high[rng.random(m) < 0.2] = np.inf
        low[rng.random(m) < 0.1] = 0.0
        lowest, _ = box_by_brute_force(g, H, low, high)
        p = box_minimum(g, H, low, high)
        assert ((low <= p) & (p <= high)).all()
        assert g @ p + 0.5 * p @ H @ p <= lowest + 1e-9 * abs(lowest)


def test_box_minimum_of_many_variables():
    rng = np.random.default_rng(6)
    m = 15
    G = rng.normal(size=(m, m + 2))
    H, g = G @ G.T, 5 * rng.normal(size=m)
    low, high = -rng.uniform(0, 1, m), rng.uniform(0, 1, m)
    p = box_minimum(g, H, low, high)
    other = reference_minimize(
        lambda x: (g @ x + 0.5 * x @ H @ x, g + H @ x),
        np.zeros(m),
        jac=True,
        bounds=list(zip(low, high, strict=True)),
        method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 10_000},
    )
    np.testing.assert_allclose(p, other.x, atol=1e-6)
    assert g @ p + 0.5 * p @ H @ p <= other.fun + 1e-10


def test_box_minimum_when_a_variable_nears_its_bound():
    """Projected, the Newton step goes uphill here, and ever shorter ones would end beside the bound."""
    g, H = np.array([1.897, -0.662]), np.array([[4.0012, -1.45465], [-1.45465, 0.529575]])
    low, high = np.array([-0.0873, -0.8786]), np.array([0.38, np.inf])
    _, expected = box_by_brute_force(g, H, low, high)
    np.testing.assert_allclose(box_minimum(g, H, low, high), expected, atol=1e-9)
    assert expected[0] == low[0]


def test_box_minimum_of_nothing():
    empty = np.zeros(0)
    assert box_minimum(empty, np.zeros((0, 0)), empty, empty).shape == (0,)


# --- the search ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Value:
    criterion: float
    theta: np.ndarray
    noise: float = 0.0
    steps: int = 0


@dataclass(frozen=True)
class Derivatives:
    gradient: np.ndarray
    information: np.ndarray
    curvature: np.ndarray
    noise: float = 0.0
    steps: int = 0


def problem_of(f, gradient, information, hessian, *, diagonal, column=None, fails=lambda theta: False):
    """Problem from functions of theta.

    As in a mixed model the information is positive semi-definite and only near the Hessian, which it makes up
    together with the curvature; a variance is missing where the criterion falls to either side of 0.
    """
    diagonal = np.asarray(diagonal)

    def value(theta):
        if fails(theta):
            raise NumericalError("not here")
        return Value(float(f(theta)), theta)

    def slopes(at):
        H = np.atleast_2d(hessian(at.theta))
        A = np.atleast_2d(information(at.theta))
        return Derivatives(np.asarray(gradient(at.theta), dtype=float), A, H - A)

    def collapse(theta, index):
        return np.where(columns == columns[index], 0.0, theta)

    def leave(theta, slopes):
        falls = diagonal & (theta == 0.0) & (np.diag(slopes.information + slopes.curvature) < 0.0)
        return np.where(falls, 0.01, theta) if falls.any() else None

    columns = np.arange(diagonal.size) if column is None else np.asarray(column)

    def reduce(theta):
        small = diagonal & (np.bincount(columns)[columns] == 1) & (theta > 0.0) & (theta < 0.02)
        return np.where(small, 0.0, theta) if small.any() else None

    return Problem(value, slopes, diagonal, columns, collapse, reduce, leave, np.ones(diagonal.size))


def run(problem, start, **options):
    options = {"tolerance": 1e-8, "max_evaluations": 200} | options
    return minimize(problem, np.array(start, dtype=float), **options)


def double_well(a, **options):
    """``sum (x^2 - a)^2``: at ``sqrt(a)`` where a is positive, else at 0; even in every x."""
    a = np.asarray(a, dtype=float)
    return problem_of(
        lambda x: ((x**2 - a) ** 2).sum(),
        lambda x: 4 * x * (x**2 - a),
        lambda x: np.diag(8 * x**2),
        lambda x: np.diag(12 * x**2 - 4 * a),
        diagonal=np.ones(a.size, dtype=bool),
        **options,
    )


@pytest.mark.parametrize("start", [[0.3, 0.3], [3, 0.01], [20, 20], [1, 2]])
def test_double_well(start):
    optimum = run(double_well([1.0, 4.0]), start)
    assert optimum.converged
    np.testing.assert_allclose(optimum.theta, [1.0, 2.0], atol=1e-5)
    assert optimum.value.criterion == pytest.approx(0.0, abs=1e-9)
    assert optimum.value.theta is optimum.theta


def test_leaves_a_zero_that_is_no_minimum():
    """0 is stationary whatever the criterion does beside it."""
    for start in ([0.0, 0.0], [0.0, 2.0], [1.0, 0.0]):
        optimum = run(double_well([1.0, 4.0]), start)
        assert optimum.converged
        np.testing.assert_allclose(optimum.theta, [1.0, 2.0], atol=1e-5)
        assert "release" in [step.kind for step in optimum.steps]


@pytest.mark.parametrize("start", [[1.0, 1.0], [0.1, 5.0], [1.0, 0.0]])
def test_a_minimum_at_zero_is_exactly_zero(start):
    optimum = run(double_well([1.0, -0.5]), start)
    assert optimum.converged
    assert optimum.theta[1] == 0.0
    assert optimum.theta[0] == pytest.approx(1.0, abs=1e-5)
    assert optimum.value.criterion == pytest.approx(0.25, abs=1e-9)
    assert len(optimum.steps) < 20


def test_everything_at_zero():
    optimum = run(double_well([-1.0, -2.0, -3.0]), [1.0, 1.0, 1.0])
    assert optimum.converged
    np.testing.assert_array_equal(optimum.theta, 0.0)


def test_a_minimum_at_zero_is_found_where_the_noise_is_largest():
    """A sampled criterion can be higher at 0 than beside it, against its gradient, which is sampled apart."""
    well = double_well([1.0, -0.05])

    def value(theta):
        exact = well.value(theta)
        return replace(exact, criterion=exact.criterion + 0.004 * np.exp(-theta[1] / 0.03), noise=0.005)

    optimum = run(replace(well, value=value), [1.0, 0.1])
    assert optimum.converged
    assert optimum.theta[1] == 0.0
    assert len(optimum.steps) < 12


@pytest.mark.parametrize("start", [[0.5, 1.0], [2.0, -3.0], [0.05, 0.0]])
def test_a_negative_diagonal_turns_its_column(start):
    """Two parameters in one column: only their signs together can be told from the criterion."""
    target = np.array([1.0, -0.6])

    def misfit(x):
        return np.array([x[0] ** 2 - target[0] ** 2, x[0] * x[1] - target[0] * target[1], x[1] ** 2 - target[1] ** 2])

    def jacobian(x):
        return np.array([[2 * x[0], 0.0], [x[1], x[0]], [0.0, 2 * x[1]]])

    def hessian(x):
        second = np.array([[[2, 0], [0, 0]], [[0, 1], [1, 0]], [[0, 0], [0, 2]]])
        return 2 * (jacobian(x).T @ jacobian(x) + np.einsum("r,rij->ij", misfit(x), second))

    problem = problem_of(
        lambda x: misfit(x) @ misfit(x),
        lambda x: 2 * jacobian(x).T @ misfit(x),
        lambda x: 2 * jacobian(x).T @ jacobian(x),
        hessian,
        diagonal=[True, False],
        column=[0, 0],
    )
    optimum = run(problem, start)
    assert optimum.converged
    np.testing.assert_allclose(optimum.theta, target, atol=1e-4)


def test_curved_valley():
    """Rosenbrock's, squares for the first parameter: ``(1 - x^2)^2 + 100 (y - x^2)^2``."""

    def hessian(v):
        x, y = v
        return np.array([[12 * x**2 - 4 + 400 * (3 * x**2 - y), -400 * x], [-400 * x, 200.0]])

    def information(v):
        J = np.array([[2 * v[0], 0.0], [20 * v[0], -10.0]])
        return 2 * J.T @ J

    problem = problem_of(
        lambda v: (1 - v[0] ** 2) ** 2 + 100 * (v[1] - v[0] ** 2) ** 2,
        lambda v: np.array([-4 * v[0] * (1 - v[0] ** 2) - 400 * v[0] * (v[1] - v[0] ** 2), 200 * (v[1] - v[0] ** 2)]),
        information,
        hessian,
        diagonal=[True, False],
    )
    for start in ([0.2, 3.0], [4.0, -2.0]):
        optimum = run(problem, start)
        assert optimum.converged
        np.testing.assert_allclose(optimum.theta, [1.0, 1.0], atol=1e-3)
        assert optimum.value.criterion < 1e-7
        assert len(optimum.steps) < 60


def test_information_that_is_far_from_the_hessian():
    """Ten times too large or too small: damping and secants make up for it."""
    for factor in (0.1, 10.0):
        problem = problem_of(
            lambda x: np.log1p((x[0] - 3) ** 2),
            lambda x: 2 * (x - 3) / (1 + (x - 3) ** 2),
            lambda x, factor=factor: np.array([[2 * factor]]),
            lambda x, factor=factor: np.array([[2 * factor]]),
            diagonal=[True],
        )
        optimum = run(problem, [0.5], max_evaluations=500)
        assert optimum.converged
        assert optimum.theta[0] == pytest.approx(3.0, abs=1e-3)


# --- what goes wrong -----------------------------------------------------------------------------


def test_breakdowns_in_trial_steps_are_survived():
    """A step into a region without values is taken back and shortened."""
    problem = double_well([4.0], fails=lambda x: x[0] > 2.05)
    optimum = run(problem, [0.5])
    failed = [step for step in optimum.steps if np.isnan(step.criterion)]
    assert failed
    assert not any(step.accepted for step in failed)
    assert optimum.converged
    assert optimum.theta[0] == pytest.approx(2.0, abs=1e-5)


def test_breakdown_at_the_boundary_is_survived():
    problem = double_well([-0.5, 1.0], fails=lambda x: x[0] == 0.0)
    optimum = run(problem, [1.0, 0.5])
    assert optimum.theta[0] < 0.1
    assert optimum.value.criterion == pytest.approx(0.25, abs=0.01)


def test_breakdown_at_the_start_is_the_callers():
    with pytest.raises(NumericalError, match="not here"):
        run(double_well([1.0], fails=lambda x: True), [1.0])


def test_no_descent_is_reported():
    """A gradient of the wrong sign: no step lowers the criterion."""
    problem = problem_of(
        lambda x: (x[0] - 3) ** 2,
        lambda x: -2 * (x - 3),
        lambda x: np.array([[2.0]]),
        lambda x: np.array([[2.0]]),
        diagonal=[True],
    )
    optimum = run(problem, [1.0])
    assert not optimum.converged
    assert "no step lowers the criterion" in optimum.message
    np.testing.assert_array_equal(optimum.theta, [1.0])


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_limit_of_evaluations(limit):
    optimum = run(double_well([1.0, 4.0]), [20.0, 0.1], max_evaluations=limit)
    assert not optimum.converged
    assert len(optimum.steps) == limit
    assert optimum.message == f"stopped after {limit} evaluations"
    accepted = [step.criterion for step in optimum.steps if step.accepted]
    assert optimum.value.criterion == min(accepted)


def test_the_start_is_left_alone():
    start = np.array([3.0, 3.0])
    run(double_well([1.0, 4.0]), start)
    np.testing.assert_array_equal(start, 3.0)


# --- the record ----------------------------------------------------------------------------------


def test_every_evaluation_is_recorded_and_reported():
    seen, calls = [], []

    def counted(x):
        calls.append(x)
        return False

    optimum = run(double_well([1.0, -0.5], fails=counted), [3.0, 3.0], report=seen.append)
    assert len(seen) == len(optimum.steps) == len(calls)
    assert [step.kind for step in seen] == [step.kind for step in optimum.steps]
    for step, theta in zip(optimum.steps, calls, strict=True):
        np.testing.assert_array_equal(step.theta, theta)
    accepted = [step for step in optimum.steps if step.accepted and step.kind != "release"]
    assert (np.diff([step.criterion for step in accepted]) <= 1e-12).all()
    assert optimum.steps[0].kind == "start"
    assert optimum.steps[0].gradient_norm == pytest.approx(np.linalg.norm([96.0, 114.0]))
    assert optimum.steps[0].decrement > 0


def test_an_exception_in_the_report_ends_the_search():
    def interrupt(step):
        if step.kind != "start":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(double_well([1.0]), [3.0], report=interrupt)
