"""Size of the tests of fixed effects and coverage, by simulation; `benchmarks.coverage` is the long version."""

import numpy as np
import pytest
from scipy import stats

from benchmarks.coverage import COVERAGE, JOINT, METHODS, SETTINGS, SIZE, responses, simulate

ERRORS = 3.0
"""Binomial standard errors that a rate may be off."""

REPLICATES = 400

pytestmark = pytest.mark.simulation


def test_responses_have_the_moments_of_the_model():
    """Means and covariances of the draws against X beta and Z G Z' + sigma^2 I, written out for one subject's rows."""
    n = 10_000
    setting = SETTINGS["subjects_6"]
    y = np.array([responses(setting, rng)[:10] for rng in np.random.default_rng(3).spawn(n)])
    x = np.arange(10.0)
    V = 25.0**2 + 6.0**2 * np.outer(x, x) + 25.0**2 * np.eye(10)
    spread = np.sqrt(np.diag(V))
    assert np.abs((y.mean(axis=0) - 250.0 - 10.0 * x) / spread).max() < 4.5 / np.sqrt(n)
    assert np.abs((np.cov(y.T) - V) / np.outer(spread, spread)).max() < 4.5 * np.sqrt(2.0 / n)


@pytest.fixture(scope="module", params=["subjects_6", "crossed_8_12"])
def rates(request):
    found = simulate(request.param, REPLICATES, rng=5)
    return request.param, {(rate.quantity, rate.method, rate.parameter): rate for rate in found}


@pytest.mark.parametrize("method", ["satterthwaite", "kenward-roger"])
def test_corrected_tests_keep_their_size(rates, method):
    name, found = rates
    effect = SETTINGS[name].effect
    for quantity, parameter, should in ((SIZE, effect, 0.05), (SIZE, JOINT, 0.05), (COVERAGE, effect, 0.95)):
        if parameter == JOINT and not SETTINGS[name].joint:
            continue
        rate = found[quantity, method, parameter]
        assert rate.replicates == REPLICATES
        assert rate.undefined == 0
        assert abs(rate.rate - should) < ERRORS * rate.std_error, (parameter, rate)


def test_normal_tests_reject_too_often(rates):
    """What the corrections are for. Both designs are balanced, so that the true law of the statistic is known:

    Student's t on 5 degrees of freedom for a slope of six subjects, F on 2 and 9 for 3 conditions of 12 items.
    """
    name, found = rates
    if name == "subjects_6":
        parameter, expected = SETTINGS[name].effect, 2.0 * stats.t.sf(stats.norm.isf(0.025), 5)
    else:
        parameter, expected = JOINT, stats.f.sf(stats.chi2.isf(0.05, 2) / 2.0, 2, 9)
    normal, *corrected = (found[SIZE, method, parameter].rate for method in METHODS)
    assert abs(normal - expected) < ERRORS * np.sqrt(expected * (1.0 - expected) / REPLICATES)
    assert normal > 0.05 + ERRORS * found[SIZE, "normal", parameter].std_error
    assert max(corrected) < normal
