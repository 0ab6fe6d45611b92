"""Covariances of less than full rank: when a random effect is dropped, and when one is let in."""

import numpy as np
import pytest

from crosslmm.boundary import leave_boundary, without_negligible
from crosslmm.covariance import diagonal, unstructured
from crosslmm.layout import Factor, Layout, Standardization, Term

LEVELS = 20


def layout_of(covariance):
    k = covariance.size
    columns = tuple(f"x{j}" for j in range(k))
    factor = Factor("g", np.arange(LEVELS).astype(object), columns)
    term = Term("(x | g)", "g", 0, tuple(range(k)), covariance, 0)
    standard = Standardization(np.zeros((0, 0)), (np.eye(k),), np.zeros(0), 1.0)
    return Layout("y", (), (), (factor,), (term,), standard)


def test_a_hidden_lack_of_rank_is_found():
    layout = layout_of(unstructured(3))
    # no column is small, but the second and third are nearly parallel
    T = np.array([[1.0, 0.0, 0.0], [0.5, 1e-4, 0.0], [0.2, 0.7, 0.4]])
    theta = without_negligible(layout, layout.theta((T,)), np.full(6, 0.3))
    reduced = layout.templates(theta)[0]
    assert np.linalg.matrix_rank(reduced) == 2
    assert np.all(reduced[:, 2] == 0.0)
    np.testing.assert_allclose(reduced @ reduced.T, T @ T.T, atol=2e-4)


@pytest.mark.parametrize("covariance", [unstructured(2), diagonal(2)])
def test_what_matters_stays(covariance):
    layout = layout_of(covariance)
    theta = covariance.theta(np.diag([1.0, 0.1]))
    assert without_negligible(layout, theta, np.ones(theta.size)) is None


def test_small_and_exact_zeros_of_independent_columns():
    layout = layout_of(diagonal(2))
    np.testing.assert_array_equal(without_negligible(layout, np.array([1.0, 0.001]), np.ones(2)), [1.0, 0.0])
    assert without_negligible(layout, np.array([1.0, 0.0]), np.ones(2)) is None


def test_a_missing_effect_enters_in_its_direction():
    layout = layout_of(unstructured(2))
    v = np.array([0.6, 0.8])
    gamma = 3.0 * np.eye(2) - 8.0 * np.outer(v, v)  # eigenvalues 3 and -5
    theta = leave_boundary(layout, np.zeros(3), (gamma,), np.ones(3))
    T = layout.templates(theta)[0]
    np.testing.assert_allclose(T @ T.T, 5.0 / LEVELS * np.outer(v, v), atol=1e-12)


@pytest.mark.parametrize("covariance", [unstructured(2), diagonal(2)])
def test_the_boundary_is_kept_where_nothing_is_missing(covariance):
    layout = layout_of(covariance)
    theta = np.zeros(covariance.n_theta)
    assert leave_boundary(layout, theta, (np.diag([2.0, 1.0]),), np.ones(theta.size)) is None
    # a multiplier that promises less than the criterion can resolve
    assert leave_boundary(layout, theta, (np.diag([2.0, -1e-6]),), np.ones(theta.size)) is None


def test_only_zeros_of_independent_columns_are_released():
    layout = layout_of(diagonal(2))
    theta = leave_boundary(layout, np.array([0.5, 0.0]), (np.diag([-1.0, -4.0]),), np.ones(2))
    np.testing.assert_allclose(theta, [0.5, np.sqrt(4.0 / LEVELS)])
