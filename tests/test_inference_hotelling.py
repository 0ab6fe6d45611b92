"""Kenward and Roger's scaled F where it is Hotelling's T squared, and the formula of their paper divides by 0."""

import numpy as np
import pandas as pd
import pytest

import crosslmm as clm
from crosslmm.inference.kenward_roger import scaled_f


def test_six_balanced_subjects():
    scale, df = scaled_f(2, 0.8, 1.2)
    assert (scale, df) == pytest.approx((0.8, 4.0))


def test_joint_test_of_intercept_and_slope_is_hotellings():
    """With a mean and a slope for each of n subjects, T^2 (n - 2) / (2 (n - 1)) is F(2, n - 2)."""
    rng = np.random.default_rng(4)
    n, days = 6, np.arange(5.0)
    subject, day = np.repeat(np.arange(n), days.size), np.tile(days, n)
    effects = rng.multivariate_normal([1.0, 0.5], [[4.0, 0.5], [0.5, 1.0]], size=n)
    y = effects[subject, 0] + effects[subject, 1] * day + 0.3 * rng.normal(size=day.size)
    fit = clm.lmer("y ~ day + (day | g)", pd.DataFrame({"y": y, "day": day, "g": subject}))
    assert not fit.singular
    own = np.array([np.polyfit(days, y[subject == i], 1)[::-1] for i in range(n)])
    mean, S = own.mean(axis=0), np.cov(own.T)
    expected = n * mean @ np.linalg.solve(S, mean) * (n - 2) / (2 * (n - 1))
    test = fit.test(["Intercept = 0", "day = 0"], ddf="kenward-roger")
    assert test.den_df == pytest.approx(n - 2, rel=1e-4)
    assert test.f_value == pytest.approx(expected, rel=1e-4)
