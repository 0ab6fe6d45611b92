"""Every reference model of R through the public functions.

The tolerances are those the library promises: criterion no more than 1e-6 above R's polished optimum; fixed effects
within 1e-4 standard errors; standard errors, standard deviations, correlations and sigma within 1e-4 relative; modes
and fitted values within 1e-4 sigma. They are not to be loosened.
"""

import numpy as np
import pandas as pd
import pytest
from refdata import load_model, model_names, r_columns, r_name, unordered

pytestmark = pytest.mark.parametrize("name", model_names())
TOLERANCE = 1e-4


def test_criterion(name, reference_fit):
    ref, fit = load_model(name), reference_fit(name)
    assert fit.criterion <= ref["criterion"] + 1e-6


def test_objective_at_given_thetas(name, reference_fit):
    ref, model = load_model(name), reference_fit(name).model
    at_optimum = {"theta": ref["theta"]["values"], "criterion": ref["criterion"]}
    for check in [*ref["objective_checks"], at_optimum]:
        value = model.objective(np.array(check["theta"], dtype=float), reml=ref["reml"])
        assert value.criterion == pytest.approx(check["criterion"], rel=1e-8)


def test_converged_and_singular(name, reference_fit):
    fit = reference_fit(name)
    assert fit.converged
    assert fit.singular == load_model(name)["singular"]


def test_fixed_effects(name, reference_fit):
    ref, fit = load_model(name), reference_fit(name)
    ours = r_columns(fit.fe_params.index)
    theirs = {unordered(column): column for column in ref["fixef"]}
    assert set(ours.values()) == set(theirs)
    order = [theirs[column] for column in ours.values()]
    beta, se = (np.array([ref[key][column] for column in order]) for key in ("fixef", "fixef_se"))
    np.testing.assert_allclose(fit.fe_params.to_numpy() / se, beta / se, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(fit.bse_fe.to_numpy(), se, rtol=TOLERANCE)

    index = [list(ref["fixef"]).index(column) for column in order]
    cov = np.array(ref["vcov"])[np.ix_(index, index)]
    scale = np.outer(se, se)
    np.testing.assert_allclose(fit.cov_params().to_numpy() / scale, cov / scale, rtol=0, atol=2 * TOLERANCE)


def test_sigma(name, reference_fit):
    ref, fit = load_model(name), reference_fit(name)
    assert fit.sigma == pytest.approx(ref["sigma"], rel=TOLERANCE)
    assert fit.scale == pytest.approx(fit.sigma**2, rel=1e-12)


def test_variances_and_correlations(name, reference_fit):
    ref, fit = load_model(name), reference_fit(name)
    theirs = [(row["grp"], row["var1"], row["var2"]) for row in ref["varcorr"]]
    assert _varcorr_keys(fit.varcorr) == theirs
    zero = {key[:2] for key, row in zip(theirs, ref["varcorr"], strict=True) if row["sdcor"] == 0 and key[2] is None}
    for key, sdcor, row in zip(theirs, fit.varcorr["sdcor"], ref["varcorr"], strict=True):
        group, name1, name2 = key
        if key[:2] in zero and name2 is None:
            assert 0 <= sdcor < TOLERANCE * ref["sigma"], key
        elif (group, name1) not in zero and (group, name2) not in zero:
            assert sdcor == pytest.approx(row["sdcor"], rel=TOLERANCE), key


def _varcorr_keys(table):
    """(group, name1, name2) of each row in R's names, None for a missing one."""
    columns = [table[column] for column in ("group", "name1", "name2")]
    return [tuple(None if pd.isna(text) else r_name(text) for text in row) for row in zip(*columns, strict=True)]


def test_vcov_is_sdcor_squared_or_times_the_deviations(name, reference_fit):
    table = reference_fit(name).varcorr
    keys = _varcorr_keys(table)
    sd = {key[:2]: value for key, value in zip(keys, table["sdcor"], strict=True) if key[2] is None}
    for (group, name1, name2), vcov, sdcor in zip(keys, table["vcov"], table["sdcor"], strict=True):
        if name2 is None:
            assert vcov == pytest.approx(sdcor**2, rel=1e-12)
        elif sd[group, name1] > 0 and sd[group, name2] > 0:
            assert vcov == pytest.approx(sdcor * sd[group, name1] * sd[group, name2], rel=1e-12)


def test_conditional_modes(name, reference_fit):
    ref, fit = load_model(name), reference_fit(name)
    assert set(fit.random_effects) == set(ref["ranef"])
    for group, expected in ref["ranef"].items():
        frame = fit.random_effects[group]
        assert [r_name(column) for column in frame.columns] == expected["columns"]
        assert len(frame) == expected["n_levels"]
        close = {"rtol": 0, "atol": TOLERANCE * ref["sigma"]}
        np.testing.assert_allclose(frame.loc[expected["levels"]].to_numpy(), expected["values"], **close)
        np.testing.assert_allclose(frame.abs().max().to_numpy(), expected["absmax_all"], **close)
        rms = np.sqrt(np.array(expected["sumsq_all"]) / len(frame))
        np.testing.assert_allclose(np.sqrt((frame**2).mean().to_numpy()), rms, **close)


def test_fitted_values_and_residuals(name, reference_fit):
    ref, fit = load_model(name), reference_fit(name)
    close = {"rtol": 0, "atol": TOLERANCE * ref["sigma"]}
    fitted, resid = fit.fittedvalues.to_numpy(), fit.resid.to_numpy()
    assert len(fitted) == len(resid) == ref["n"]
    np.testing.assert_allclose(fitted[ref["rows_first20"]], ref["fitted"], **close)
    np.testing.assert_allclose(resid[ref["rows_first20"]], ref["resid"], **close)
    np.testing.assert_allclose(fitted.mean(), ref["fitted_sum"] / ref["n"], **close)
    root_mean_square = [np.sqrt(value / ref["n"]) for value in (ref["fitted_sumsq"], ref["resid_sumsq"])]
    np.testing.assert_allclose([np.sqrt(np.mean(v**2)) for v in (fitted, resid)], root_mean_square, **close)


def test_information_criteria(name, reference_fit):
    ref, fit = load_model(name), reference_fit(name)
    assert fit.nobs == ref["n"]
    assert fit.llf == pytest.approx(-fit.criterion / 2, rel=1e-14)
    assert fit.aic == pytest.approx(fit.criterion + 2 * ref["df"], rel=1e-14)
    assert fit.bic == pytest.approx(fit.criterion + np.log(ref["n"]) * ref["df"], rel=1e-14)
    assert fit.llf >= ref["logLik"] - 1e-6
    assert fit.aic <= ref["AIC"] + 1e-6
    assert fit.bic <= ref["BIC"] + 1e-6


def test_groups(name, reference_fit):
    assert dict(reference_fit(name).n_groups) == load_model(name)["groups"]
