"""The likelihood-ratio test of two fits with its distribution under the smaller one by simulation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from crosslmm.covariance import FloatArray, lower_factor
from crosslmm.errors import ModelError
from crosslmm.inference.bootstrap import truth_of
from crosslmm.inference.likelihood_ratio import SAME, by_ml, check_same_data, raw_gram, same_fixed
from crosslmm.inference.refit import TOLERANCE, Refitter, refit, refitter
from crosslmm.inference.replicates import in_sets, seeds
from crosslmm.inference.simulate import Responses, Simulator, Truth, draw, simulator
from crosslmm.layout import Layout
from crosslmm.progress import Rows, meter

if TYPE_CHECKING:
    from crosslmm.results import MixedLMResults


TIED = 2.0
"""Monte Carlo errors of a statistic within which it cannot be told from another."""

RESOLVED = 10.0 * TOLERANCE
"""Deviance units to which statistics are known where nothing is sampled: where two models coincide they are not 0."""


@dataclass(frozen=True, repr=False)
class BootstrapTest:
    """A likelihood-ratio test by simulation.

    Attributes
    ----------
    statistic : float
        Twice the difference of the log-likelihoods.
    df : int
        Difference in parameters.
    draws : ndarray, shape (r,)
        The statistic of responses drawn from the smaller fit; nan where a refit failed.
    statistic_mc_error : float
        Monte Carlo error of the statistic by the probes of the iterative engine; 0 where nothing is sampled. Draws have
        no larger ones, and nearly the same where their covariances are near, since refits share the probes.
    asked : int
    formulas : tuple of str
        Smaller, larger.
    """

    statistic: float
    df: int
    draws: FloatArray
    statistic_mc_error: float
    asked: int
    formulas: tuple[str, str]

    @property
    def n(self) -> int:
        """Draws that count."""
        return int(np.isfinite(self.draws).sum())

    @property
    def n_failed(self) -> int:
        """Draws whose refits failed."""
        return self.draws.size - self.n

    @property
    def p_value(self) -> float:
        """``(1 + draws at least as large) / (1 + draws)`` (Davison and Hinkley 1997, eq. 4.11).

        Draws that are smaller by no more than `tie` count as large.
        """
        known = self.draws[np.isfinite(self.draws)]
        return float((1 + np.sum(known >= self.statistic - self.tie)) / (1 + known.size))

    @property
    def tie(self) -> float:
        """Difference below which two statistics cannot be told apart: two Monte Carlo errors, and rounding."""
        return TIED * self.statistic_mc_error + RESOLVED

    @property
    def p_mc_error(self) -> float:
        """Monte Carlo standard error of `p_value`."""
        return float(np.sqrt(self.p_value * (1.0 - self.p_value) / (1 + self.n)))

    @property
    def p_chi_squared(self) -> float:
        """The p-value of plain chi-squared, for comparison."""
        return float(special.chdtrc(float(self.df), max(self.statistic, 0.0)))

    def __repr__(self) -> str:
        sampled = f" (Monte Carlo error {self.statistic_mc_error:.2g})" if self.statistic_mc_error else ""
        lines = [
            "Likelihood-ratio test by simulation",
            f"smaller: {self.formulas[0]}",
            f"larger:  {self.formulas[1]}",
            f"statistic {self.statistic:.4f}{sampled}, p-value {self.p_value:.4g} (Monte Carlo error "
            f"{self.p_mc_error:.2g}), {self.n:,} draws, {self.n_failed:,} failed",
            f"chi-squared on {self.df} df: p-value {self.p_chi_squared:.4g}",
        ]
        return "\n".join(lines)


def bootstrap_test(
    larger: MixedLMResults,
    smaller: MixedLMResults,
    n: int = 1000,
    *,
    rng: int | np.random.Generator | None = None,
    n_jobs: int = 1,
    progress: bool | Rows | None = None,
) -> BootstrapTest:
    """Test a smaller fit within a larger one by responses drawn from the smaller.

    Both are fitted by ML unless both are by REML with the same fixed effects.

    Parameters
    ----------
    smaller : MixedLMResults
        Its columns must be among those of the larger fit, by name.
    n, rng, n_jobs, progress
        See `crosslmm.inference.bootstrap.bootstrap`.

    Raises
    ------
    ModelError
        The fits are of different data, or the smaller is not smaller or not inside the larger.
    """
    check_same_data(smaller, larger)
    if not (smaller.estimates.reml and larger.estimates.reml and same_fixed(smaller, larger)):
        smaller, larger = by_ml(smaller), by_ml(larger)
    df = larger.estimates.n_parameters - smaller.estimates.n_parameters
    if df < 1:
        raise ModelError(
            f"{smaller.formula!r} has as many parameters as {larger.formula!r}, or more: the larger fit comes first, "
            "as in larger.bootstrap_test(smaller)"
        )
    inside = _embed(smaller, larger)
    own = seeds(rng, n)

    def work(generators: list[np.random.Generator]) -> FloatArray:
        y = draw(inside.source, generators)
        return np.asarray(refit(inside.small, inside.reduced(y)).criterion - refit(inside.large, y).criterion)

    with meter(progress) as shown:
        per_set = min(inside.small.per_set, inside.large.per_set)
        sets = in_sets(work, own, per_set, n_jobs, shown, "bootstrap")
    draws, statistic = np.concatenate(sets), smaller.criterion - larger.criterion
    error = 2.0 * float(np.hypot(smaller.llf_mc_error, larger.llf_mc_error))
    if error == 0.0:  # else both have an unknown part in common, and may lie below 0 by it
        draws, statistic = np.maximum(draws, 0.0), max(statistic, 0.0)
    formulas = (smaller.formula, larger.formula)
    return BootstrapTest(statistic, df, draws, error, len(own), formulas)


@dataclass(frozen=True)
class Embedding:
    """A smaller model inside a larger one, in one unit of the response.

    Attributes
    ----------
    source : Simulator
        Draws from the smaller fit, as cross-products with the columns of the larger.
    small, large : Refitter
    fixed : ndarray, shape (p, p')
        The smaller model's columns of X as combinations of the larger one's, standardised coordinates.
    random : tuple of (factor, ndarray)
        For each factor of the smaller model: which it is in the larger, and the same of its columns.
    """

    source: Simulator
    small: Refitter
    large: Refitter
    fixed: FloatArray
    random: tuple[tuple[int, FloatArray], ...]

    def reduced(self, y: Responses) -> Responses:
        """Cross-products with the columns of the smaller model."""
        border = tuple(np.einsum("ia,ilr->alr", M, y.border[f]) for f, M in self.random)
        return Responses(border, self.fixed.T @ y.fixed, y.squares)


def _embed(smaller: MixedLMResults, larger: MixedLMResults) -> Embedding:
    small, large = smaller.model.crossproducts, larger.model.crossproducts
    keep = _fixed_inside(smaller, larger)
    random = tuple(_factor_inside(small.layout, large.layout, f) for f in range(len(small.layout.factors)))
    # the response less the smaller fit's origin, in its unit: then both models see the same numbers
    origin = np.zeros(large.layout.n_fixed)
    origin[keep] = small.layout.standardization.origin
    unit = small.layout.standardization.scale
    standard = replace(large.layout.standardization, origin=origin, scale=unit)
    large = replace(large, layout=replace(large.layout, standardization=standard))
    truth = truth_of(smaller.estimates, small.layout)
    own, theirs = small.layout.standardization, large.layout.standardization
    columns_of_x = np.eye(large.layout.n_fixed)[:, keep] @ own.x_basis
    fixed = np.asarray(np.linalg.solve(theirs.x_basis, columns_of_x), dtype=np.float64)
    maps = []
    templates = [np.zeros((f.size, f.size)) for f in large.layout.factors]
    for f, (g, columns) in enumerate(random):
        E = np.eye(large.layout.factors[g].size)[:, columns]
        M = np.linalg.solve(theirs.z_bases[g], E @ own.z_bases[f])
        maps.append((g, np.asarray(M)))
        templates[g] = lower_factor(
            np.hstack([M @ truth.templates[f], np.zeros((M.shape[0], M.shape[0] - M.shape[1]))])
        )
    source = simulator(large, Truth(fixed @ truth.beta, truth.sigma, tuple(templates)))
    reml = smaller.estimates.reml
    return Embedding(
        source,
        refitter(small, smaller.model.equations_of(smaller.estimates), smaller.estimates.theta, reml=reml),
        refitter(large, larger.model.equations_of(larger.estimates), larger.estimates.theta, reml=reml),
        fixed,
        tuple(maps),
    )


def _fixed_inside(smaller: MixedLMResults, larger: MixedLMResults) -> list[int]:
    names = larger.estimates.layout.fixed
    lost = [name for name in smaller.estimates.layout.fixed if name not in names]
    if lost:
        raise ModelError(
            f"{smaller.formula!r} is not inside {larger.formula!r}: the larger fit has no column {lost[0]!r}"
        )
    keep = [names.index(name) for name in smaller.estimates.layout.fixed]
    ours, theirs = raw_gram(smaller.model.crossproducts), raw_gram(larger.model.crossproducts)[np.ix_(keep, keep)]
    if not np.allclose(ours, theirs, rtol=SAME, atol=SAME * np.abs(ours).max(initial=0.0)):
        raise ModelError("columns of the same name differ between the two fits")
    return keep


def _factor_inside(small: Layout, large: Layout, index: int) -> tuple[int, list[int]]:
    factor = small.factors[index]
    for g, other in enumerate(large.factors):
        if other.name == factor.name and np.array_equal(other.levels, factor.levels):
            lost = [name for name in factor.columns if name not in other.columns]
            if not lost and len(set(other.columns)) == len(other.columns):
                return g, [other.columns.index(name) for name in factor.columns]
    raise ModelError(
        f"the random effects {', '.join(factor.columns)} of {factor.name!r} are not among those of the larger fit"
    )
