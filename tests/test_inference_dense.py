"""Information, Satterthwaite's and Kenward and Roger's methods against n x n matrices in extended precision.

Second derivatives of the deviance and derivatives of the covariance of the fixed effects are differences there, of
functions of theta and sigma in the units of the data; Kenward and Roger's formulas are those of the paper, with one
n x n matrix per variance.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import pytest
from dense import Dense, gradient

import crosslmm as clm


@dataclass(frozen=True)
class Case:
    formula: str
    bars: tuple[tuple[str, str], ...]  # (group, columns) in lme4's order
    weights: str | None = None
    reml: bool = True


CASES = {
    "intercept": Case("y ~ x + k + (1 | a)", (("a", "1"),)),
    "slope": Case("y ~ x + k + (1 + x | a)", (("a", "1 x"),)),
    "crossed": Case("y ~ x + k + (1 | a) + (1 | b)", (("a", "1"), ("b", "1"))),
    "diagonal": Case("y ~ x + k + (x || a)", (("a", "1"), ("a", "x"))),
    "weights": Case("y ~ x + k + (1 | a) + (1 | b)", (("a", "1"), ("b", "1")), weights="w"),
    "ml": Case("y ~ x + k + (1 | a) + (1 | b)", (("a", "1"), ("b", "1")), reml=False),
}
every_case = pytest.mark.parametrize("name", CASES)
restricted = pytest.mark.parametrize("name", [name for name in CASES if CASES[name].reml])


@cache
def frame():
    rng = np.random.default_rng(31)
    n = 60
    data = pd.DataFrame({"a": rng.permutation(np.arange(n) % 9), "b": rng.integers(0, 7, n)})
    data["x"], data["w"] = rng.normal(size=n) + 0.5, rng.uniform(0.4, 2.5, size=n)
    data["k"] = rng.permutation(np.arange(n) % 2).astype(float)
    data["y"] = 1 + 0.4 * data["x"] + rng.normal(size=n)
    data["y"] += 1.2 * rng.normal(size=9)[data["a"]] + 0.9 * rng.normal(size=7)[data["b"]]
    data["y"] += 0.8 * rng.normal(size=9)[data["a"]] * data["x"]
    return data


@cache
def fit_of(name):
    case = CASES[name]
    model = clm.MixedLM.from_formula(case.formula, frame(), weights=case.weights)
    fit = model.fit(case.reml, tolerance=1e-13)
    assert (fit.theta[fit.estimates.layout.on_diagonal] > 0.05).all()  # off the boundary
    return fit


@cache
def dense_of(name, dtype=np.longdouble):
    data, case = frame(), CASES[name]
    X = np.column_stack([np.ones(len(data)), data["x"], data["k"]])
    make = {"1": lambda: np.ones(len(data)), "x": lambda: data["x"].to_numpy()}
    bars = [
        (data[group].to_numpy(), np.column_stack([make[c]() for c in columns.split()])) for group, columns in case.bars
    ]
    weights = None if case.weights is None else data[case.weights].to_numpy()
    return Dense(data["y"].to_numpy(), X, bars, weights=weights, dtype=dtype)


class Unprofiled:
    """Deviance and covariance of the fixed effects as functions of theta and sigma."""

    def __init__(self, name):
        self.dense, self.reml = dense_of(name), CASES[name].reml
        n, p = self.dense.X.shape
        self.degrees = n - p if self.reml else n
        fit = fit_of(name)
        self.at = np.append(fit.theta.to_numpy(), fit.sigma).astype(np.longdouble)

    def deviance(self, parameters):
        fit, sigma = self.dense.fit(parameters[:-1], self.reml), parameters[-1]
        own = self.degrees * (1 + 2 * np.log(fit.sigma))
        return fit.criterion - own + self.degrees * (2 * np.log(sigma) + (fit.sigma / sigma) ** 2)

    def covariance(self, parameters):
        fit = self.dense.fit(parameters[:-1], self.reml)
        return fit.cov * (parameters[-1] / fit.sigma) ** 2


@cache
def differenced(name):
    """Covariance of theta and sigma, and derivatives of the covariance of the fixed effects by them."""
    functions = Unprofiled(name)
    steps = 0.02 * functions.at.astype(float).clip(0.1)
    first = lambda x: gradient(functions.deviance, x, steps, levels=3)  # noqa: E731
    hessian = gradient(first, functions.at, steps, levels=3).astype(float)
    slopes = gradient(functions.covariance, functions.at, steps).astype(float)
    return 2 * np.linalg.inv(0.5 * (hessian + hessian.T)), slopes


@every_case
def test_observed_information(name):
    expected, _ = differenced(name)
    unit = np.sqrt(np.diag(expected))
    ours = fit_of(name).parameter_cov("observed").to_numpy()
    np.testing.assert_allclose(ours / np.outer(unit, unit), expected / np.outer(unit, unit), rtol=0, atol=2e-6)


def components(name, parameters):
    """Variances, then covariances, of every term and sigma**2; then standard deviations and correlations."""
    squares, roots = [], []
    for T in dense_of(name).templates(parameters[:-1]):
        cov = parameters[-1] ** 2 * T @ T.T
        sd = np.sqrt(np.diag(cov))
        upper = np.triu_indices(len(T), 1)
        squares += [*np.diag(cov), *cov[upper]]
        roots += [*sd, *(cov / np.outer(sd, sd))[upper]]
    return np.array([*squares, parameters[-1] ** 2, *roots, parameters[-1]])


def check_errors(name, information, covariance, rtol):
    """Tables of standard errors against a covariance of theta and sigma and the delta method."""
    fit = fit_of(name)
    at = np.append(fit.theta.to_numpy(), fit.sigma).astype(np.longdouble)
    slopes = gradient(lambda x: components(name, x), at, 0.02 * at.astype(float).clip(0.1)).astype(float)
    errors = np.sqrt(np.einsum("av,ab,bv->v", slopes, covariance, slopes))
    table = fit.varcorr_table(information)
    np.testing.assert_allclose(np.append(table["vcov_se"], table["sdcor_se"]), errors, rtol=rtol)
    np.testing.assert_allclose(np.append(table["vcov"], table["sdcor"]), components(name, at).astype(float), rtol=1e-10)
    own = fit.parameter_table(information)
    np.testing.assert_allclose(own["std_error"], np.sqrt(np.diag(covariance)), rtol=rtol)
    assert list(own.index) == [*fit.theta.index, "sigma"]
    np.testing.assert_allclose(own["estimate"], at.astype(float), rtol=1e-14)


@every_case
def test_errors_of_components_by_the_observed_information(name):
    check_errors(name, "observed", differenced(name)[0], 2e-6)


@every_case
def test_errors_of_components_by_the_average_information(name):
    """`varcorr_se` and `theta_se` are the same by other code."""
    fit = fit_of(name)
    table, errors = fit.varcorr_table("average"), fit.varcorr_se
    np.testing.assert_allclose(table["vcov_se"], errors["vcov"], rtol=1e-6)
    np.testing.assert_allclose(table["sdcor_se"], errors["sdcor"], rtol=1e-6)
    np.testing.assert_allclose(fit.parameter_table("average")["std_error"].iloc[:-1], fit.theta_se, rtol=1e-6)
    assert not np.allclose(table["vcov_se"], fit.varcorr_table("observed")["vcov_se"], rtol=1e-3)


@every_case
def test_satterthwaite(name):
    """Degrees of freedom of coefficients and of a combination."""
    A, slopes = differenced(name)
    fit = fit_of(name)
    C = fit.cov_params().to_numpy()
    for contrast in [*np.eye(3), np.array([1.0, 2.0, -0.5])]:
        f = contrast @ C @ contrast
        g = np.einsum("p,kpo,o->k", contrast, slopes, contrast)
        df = fit.test(contrast, ddf="satterthwaite").den_df
        assert df == pytest.approx(2 * f**2 / (g @ A @ g), rel=5e-6)


@every_case
def test_expected_information(name):
    """``tr(P V_i P V_j)`` by n x n matrices, for theta and log sigma."""
    fit, dense = fit_of(name), dense_of(name, np.float64)
    at = dense.fit(fit.theta.to_numpy(), CASES[name].reml)
    operator = at.project if CASES[name].reml else at.solve
    V = np.linalg.inv(at.solve(np.eye(len(dense.y))))
    whole = [operator(D) for D in [*dense.derivatives(fit.theta.to_numpy()), 2 * V / fit.sigma]]
    information = np.array([[np.trace(a @ b) for b in whole] for a in whole])
    expected, ours = 2 * np.linalg.inv(information), fit.parameter_cov("expected")
    unit = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(ours / np.outer(unit, unit), expected / np.outer(unit, unit), rtol=0, atol=1e-7)
    check_errors(name, "expected", expected, 1e-7)


@every_case
def test_average_information(name):
    """With what the second derivative of V adds, a Hessian without its trace (theory eq. (14)-(15))."""
    fit = fit_of(name)
    np.testing.assert_allclose(np.diag(fit.theta_cov), fit.theta_se**2, rtol=1e-4)
    assert fit.parameter_cov("average").loc["sigma", "sigma"] > 0


def kenward_roger(name):
    """Adjusted covariance, and scale and degrees of freedom of an F test, by the formulas of the paper."""
    fit, dense, case = fit_of(name), dense_of(name, np.float64), CASES[name]
    n, X, sigma2 = len(dense.y), dense.X, fit.scale
    G = []
    for t, (_, columns) in enumerate(case.bars):
        k = len(columns.split())
        for a in range(k):
            for b in range(a + 1):
                S = np.zeros((k, k))
                S[a, b] = S[b, a] = 1.0
                G.append(dense.spread(t, S))
    G.append(np.diag(dense.variance))
    V = np.linalg.inv(dense.fit(fit.theta.to_numpy(), True).solve(np.eye(n))) * sigma2
    Vi = np.linalg.inv(V)
    Phi = np.linalg.inv(X.T @ Vi @ X)
    P = [-X.T @ Vi @ g @ Vi @ X for g in G]
    Q = [[X.T @ Vi @ g @ Vi @ h @ Vi @ X for h in G] for g in G]
    r = range(len(G))
    information = np.array(
        [
            [np.trace(Vi @ G[i] @ Vi @ G[j]) - 2 * np.sum(Phi * Q[i][j]) + np.trace(Phi @ P[i] @ Phi @ P[j]) for j in r]
            for i in r
        ]
    )
    W = 2 * np.linalg.inv(information)
    inner = sum(W[i, j] * (Q[i][j] - P[i] @ Phi @ P[j]) for i in r for j in r)
    return Phi, Phi + 2 * Phi @ inner @ Phi, P, W


def scaled(q, Phi, P, W, L):
    theta = L.T @ np.linalg.solve(L @ Phi @ L.T, L)
    u = [theta @ Phi @ p @ Phi for p in P]
    r = range(len(P))
    a1 = sum(W[i, j] * np.trace(u[i]) * np.trace(u[j]) for i in r for j in r)
    a2 = sum(W[i, j] * np.trace(u[i] @ u[j]) for i in r for j in r)
    b = (a1 + 6 * a2) / (2 * q)
    g = ((q + 1) * a1 - (q + 4) * a2) / ((q + 2) * a2)
    c = [g / (3 * q + 2 * (1 - g)), (q - g) / (3 * q + 2 * (1 - g)), (q + 2 - g) / (3 * q + 2 * (1 - g))]
    mean = 1 / (1 - a2 / q)
    variance = 2 / q * (1 + c[0] * b) / ((1 - c[1] * b) ** 2 * (1 - c[2] * b))
    rho = variance / (2 * mean**2)
    df = 4 + (q + 2) / (q * rho - 1)
    return df / (mean * (df - 2)), df


@restricted
def test_kenward_roger(name):
    fit = fit_of(name)
    Phi, adjusted, P, W = kenward_roger(name)
    np.testing.assert_allclose(fit._kenward_roger.covariance, adjusted, rtol=1e-7, atol=1e-9)
    for L in (np.array([[0.0, 1.0, 0.0]]), np.eye(3)[1:], np.eye(3)):
        scale, df = scaled(len(L), Phi, P, W, L)
        result = fit.test(L, ddf="kenward-roger")
        estimate = L @ fit.fe_params.to_numpy()
        wald = estimate @ np.linalg.solve(L @ adjusted @ L.T, estimate) / len(L)
        assert result.den_df == pytest.approx(df, rel=1e-6)
        assert result.f_value == pytest.approx(scale * wald, rel=1e-6)


def test_boundary_is_left_out_and_said():
    data = frame().assign(y=np.random.default_rng(1).normal(size=60))
    data["y"] -= data.groupby("a")["y"].transform("mean")
    fit = clm.lmer("y ~ x + (1 | a) + (1 | b)", data)
    assert "a.Intercept" in fit.estimates.boundary
    result = fit.test("x", ddf="satterthwaite")
    assert "a.Intercept" in result.notes[0]
    without = clm.lmer("y ~ x + (1 | b)", data).test("x", ddf="satterthwaite")
    assert result.den_df == pytest.approx(without.den_df, rel=1e-6)
    cov = fit.parameter_cov()
    assert cov["a.Intercept"].isna().all()
    assert cov.loc["sigma", "sigma"] > 0
    table = fit.varcorr_table().set_index("group")
    assert table.loc["a", ["vcov_se", "sdcor_se"]].isna().all() and table.loc["a", "vcov"] == 0.0
    alone = clm.lmer("y ~ x + (1 | b)", data).varcorr_table().set_index("group")
    np.testing.assert_allclose(
        table.loc[alone.index, ["vcov_se", "sdcor_se"]], alone[["vcov_se", "sdcor_se"]], rtol=1e-5
    )
    assert fit.parameter_table()["std_error"].isna().to_dict() == {
        "a.Intercept": True,
        "b.Intercept": False,
        "sigma": False,
    }


def test_a_correlation_on_its_boundary_has_no_standard_error():
    data = frame().assign(y=np.random.default_rng(8).normal(size=60))
    data["y"] += np.random.default_rng(2).normal(size=9)[data["a"]] * (1 + data["x"])
    fit = clm.lmer("y ~ x + (1 + x | a)", data)
    assert fit.estimates.boundary == ("a.x",) and abs(fit.varcorr["sdcor"].iloc[2]) == pytest.approx(1.0)
    for information in ("observed", "expected", "average"):
        table = fit.varcorr_table(information)
        assert table["sdcor_se"].isna().tolist() == [False, False, True, False]
        assert table["vcov_se"].notna().all()
    assert fit.varcorr_se["sdcor"].isna().tolist() == [False, False, True, False]
    assert fit.varcorr_se["vcov"].notna().all()
