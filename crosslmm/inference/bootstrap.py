"""The bootstrap: responses drawn from the fit (or groups drawn from the data), the model fitted to each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.engine.choose import choose
from crosslmm.engine.protocol import Equations
from crosslmm.errors import CrosslmmError, ModelError
from crosslmm.estimate import estimate
from crosslmm.fit import Fit
from crosslmm.inference.intervals import KINDS, REFLECTED, check_alpha, interval
from crosslmm.inference.parameters import chosen, parameter_values, parameters
from crosslmm.inference.refit import MOST_EVALUATIONS, TOLERANCE, Refits, refit, refitter
from crosslmm.inference.replicates import in_sets, seeds
from crosslmm.inference.simulate import Truth, draw, simulator, standard_truth
from crosslmm.inference.wald import estimates_of
from crosslmm.layout import Layout
from crosslmm.progress import Rows, meter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from crosslmm.results import MixedLMResults

DEPENDENT = 1e-10
"""Smallest eigenvalue of the correlations of X below which its columns count as dependent."""

Statistic = Callable[[Any], Any]


@dataclass(frozen=True, repr=False)
class Bootstrap:
    """Replicates of a fit.

    Attributes
    ----------
    layout : Layout
    kind : str
        ``"parametric"`` or ``"cases"``.
    estimates : ndarray
        All parameters at the fit itself, in the order of `crosslmm.inference.parameters.parameters`.
    sampling : ndarray
        Monte Carlo errors of these by the probes of the iterative engine; 0 where nothing is sampled.
    refits : Refits
        Every replicate, those that failed as well.
    asked : int
        Replicates asked for; there are fewer after an interrupt.
    observed : ndarray, shape (s,), or None
        The user's statistic of the fit.
    statistics : ndarray, shape (r, s), or None
        And of every replicate; nan where it failed.
    """

    layout: Layout
    kind: str
    estimates: FloatArray
    sampling: FloatArray
    refits: Refits
    asked: int
    observed: FloatArray | None
    statistics: FloatArray | None

    @property
    def n(self) -> int:
        """Replicates that are done."""
        return self.refits.criterion.size

    @property
    def n_failed(self) -> int:
        """Replicates without estimates, or whose search did not converge."""
        return int(np.sum([bool(text) for text in self.refits.failure]))

    @property
    def n_singular(self) -> int:
        """Replicates with a random-effects covariance of less than full rank."""
        return int(self.refits.singular.sum())

    @cached_property
    def _values(self) -> FloatArray:
        """All quantities by replicate: parameters, then statistics."""
        values = parameter_values(self.layout, self.refits.theta, self.refits.sigma, self.refits.beta)
        return values if self.statistics is None else np.column_stack([values, self.statistics])

    @property
    def _names(self) -> list[str]:
        names = [p.name for p in parameters(self.layout)]
        return names if self.observed is None else names + [f"statistic_{i}" for i in range(self.observed.size)]

    @property
    def _targets(self) -> FloatArray:
        return self.estimates if self.observed is None else np.append(self.estimates, self.observed)

    @property
    def _sampling(self) -> FloatArray:
        """Monte Carlo errors by the probes; of statistics of one's own they are not known and left out."""
        return np.pad(self.sampling, (0, 0 if self.observed is None else self.observed.size))

    def to_frame(self) -> pd.DataFrame:
        """One row per replicate: parameters, statistics, criterion, converged, singular, failure (empty if none)."""
        frame = pd.DataFrame(self._values, columns=self._names)
        refits = self.refits
        return frame.assign(
            criterion=refits.criterion, converged=refits.converged, singular=refits.singular, failure=refits.failure
        )

    def summary(self) -> pd.DataFrame:
        """Of each parameter: estimate, mean, bias, std_error, their Monte Carlo errors, and the replicates used.

        The bias of a sampled fit has the error of its probes too: refits repeat what these do to the estimate.
        """
        rows = []
        for values, target, probes in zip(self._finite(), self._targets, self._sampling, strict=True):
            n = values.size
            if n < 2:
                rows.append((target, *([np.nan] * 5), n))
                continue
            spread = float(values.std(ddof=1))
            fourth = float(np.mean((values - values.mean()) ** 4))
            mc_spread = np.sqrt(max(fourth - spread**4, 0.0) / n) / (2.0 * spread) if spread > 0.0 else 0.0
            bias = float(values.mean() - target)
            rows.append((target, values.mean(), bias, np.hypot(spread / np.sqrt(n), probes), spread, mc_spread, n))
        columns = ["estimate", "mean", "bias", "bias_mc_error", "std_error", "std_error_mc_error", "n"]
        return pd.DataFrame(rows, columns=columns, index=pd.Index(self._names, name="parameter"))

    def conf_int(
        self, alpha: float = 0.05, *, kind: str = "percentile", which: str | Sequence[str] = "all"
    ) -> pd.DataFrame:
        """Intervals from the replicates.

        Parameters
        ----------
        alpha : float
            One minus the level.
        kind : {"percentile", "basic", "normal", "shortest"}
            Quantiles of the replicates; the same reflected at the estimate; the estimate less its bias, with the
            standard error of the replicates; the shortest interval that holds this part of them.
        which : {"all", "fixed", "random"}, or names
            Statistics of one's own belong to ``"all"``.

        Returns
        -------
        DataFrame
            estimate, lower, upper, Monte Carlo standard errors of both bounds, and n: the replicates that have a value.
            The errors are those by the number of replicates, and of sampled fits by the probes. What probes do to an
            estimate is in the fit and again in its refits: twice in quantiles, and not at all in bounds that are
            reflected at the estimate (``"basic"``, ``"normal"``).
        """
        alpha = check_alpha(alpha)
        if kind not in KINDS:
            raise ModelError(f"kind={kind!r}: expected one of {', '.join(map(repr, KINDS))}")
        names = self._names
        wanted = names if which == "all" else [p.name for p in chosen(self.layout, which)]
        known = dict(zip(names, zip(self._finite(), self._targets, self._sampling, strict=True), strict=True))
        rows = []
        for values, target, probes in (known[name] for name in wanted):
            lower, upper, *errors = interval(values, target, alpha, kind)
            repeated = 0.0 if kind in REFLECTED else 2.0 * probes
            rows.append((target, lower, upper, *np.hypot(errors, repeated), values.size))
        columns = ["estimate", "lower", "upper", "lower_mc_error", "upper_mc_error", "n"]
        return pd.DataFrame(rows, columns=columns, index=pd.Index(wanted, name="parameter"))

    def plot(self, which: str | Sequence[str] = "all", *, ax: Axes | None = None) -> np.ndarray:
        """Draw the density of the replicates with the estimate, a picture per parameter.

        Parameters
        ----------
        which : {"all", "fixed", "random"}, or names
        ax : matplotlib axes, optional
            Where to draw the density if there is one parameter only.

        Returns
        -------
        ndarray of axes, one per parameter
        """
        from crosslmm.plots.panels import sample_panels

        names = self._names
        wanted = names if which == "all" else [p.name for p in chosen(self.layout, which)]
        known = dict(zip(names, zip(self._finite(), self._targets, strict=True), strict=True))
        return sample_panels([(name, known[name][0], float(known[name][1])) for name in wanted], ax=ax)

    def _finite(self) -> list[FloatArray]:
        return [column[np.isfinite(column)] for column in self._values.T]

    def __repr__(self) -> str:
        head = f"{self.n:,} {self.kind} bootstrap replicates, {self.n_singular:,} singular, {self.n_failed:,} failed"
        if self.n < self.asked:
            head += f" (interrupted: {self.asked:,} were asked for)"
        table = self.summary()[["estimate", "bias", "std_error"]].join(self.conf_int()[["lower", "upper"]])
        return f"{head}; 95% percentile intervals\n{table.to_string()}"


def bootstrap(
    fit: MixedLMResults,
    n: int = 1000,
    *,
    rng: int | np.random.Generator | None = None,
    n_jobs: int = 1,
    kind: str = "parametric",
    by: str | None = None,
    statistic: Statistic | None = None,
    progress: bool | Rows | None = None,
) -> Bootstrap:
    """Fit the model again to n responses drawn from it (parametric), or to n draws of its groups (cases).

    Parameters
    ----------
    n : int
    rng : int or numpy.random.Generator, optional
        A seed makes the result reproducible, for any `n_jobs`.
    n_jobs : int
        Threads.
    kind : {"parametric", "cases"}
        ``"cases"`` draws levels of one grouping factor with replacement, with all their rows; it needs the rows.
    by : str, optional
        That factor; by default the one with the fewest levels.
    statistic : callable, optional
        Given each replicate as a fit without rows, gives numbers that are kept beside the parameters.
    progress : bool or callable, optional
        As for `MixedLM.from_formula`.

    Raises
    ------
    ModelError
        There are no rows to draw groups from, or an argument makes no sense.
    ResourceError
        The model has more effects than rows, and too many for a dense root of its cross-products.
    """
    if kind not in ("parametric", "cases"):
        raise ModelError(f"kind={kind!r}: expected 'parametric' or 'cases'")
    if by is not None and kind != "cases":
        raise ModelError("by= names the groups that kind='cases' draws; leave it out of a parametric bootstrap")
    own = seeds(rng, n)
    observed = None if statistic is None else _numbers(statistic(fit))
    work: Callable[[list[np.random.Generator]], Replicates]
    if kind == "cases":
        from crosslmm.inference.cases import cases_work

        per_set, work = cases_work(fit, by, statistic, observed)
    else:
        per_set, work = _parametric_work(fit, statistic, observed)
    with meter(progress) as shown:
        sets = in_sets(work, own, per_set, n_jobs, shown, "bootstrap")
    statistics = None if observed is None else np.concatenate([part.statistics for part in sets])
    refits = Refits.joined([part.refits for part in sets])
    layout = fit.estimates.layout
    sampling = sampling_errors(fit.estimates)
    return Bootstrap(layout, kind, estimates_of(fit), sampling, refits, len(own), observed, statistics)


def sampling_errors(fit: Fit) -> FloatArray:
    """Monte Carlo errors of all parameters by the probes of the engine; of fixed effects a bound."""
    layout, sampling = fit.layout, fit.sampling
    if sampling is None:
        return np.zeros(len(parameters(layout)))
    fixed = sampling.fixed_ratio * fit.beta_se

    def values(theta: FloatArray, sigma: float) -> FloatArray:
        return parameter_values(layout, theta[None], np.array([sigma]), fit.beta[None])[0]

    errors = np.zeros(len(parameters(layout)))
    errors[:] = sampling.monte_carlo.error(values)  # one 0 where every variance is 0 and nothing moves
    errors[errors.size - fixed.size :] = fixed
    return errors


@dataclass(frozen=True)
class Replicates:
    """One set of replicates.

    Attributes
    ----------
    refits : Refits
    statistics : ndarray, shape (r, s)
        s = 0 without a statistic.
    """

    refits: Refits
    statistics: FloatArray


def truth_of(fit: Fit, layout: Layout) -> Truth:
    """A fit's parameters in the standardised coordinates of `layout`."""
    return standard_truth(layout, fit.beta, fit.sigma, fit.theta)


def _parametric_work(
    fit: MixedLMResults, statistic: Statistic | None, observed: FloatArray | None
) -> tuple[int, Callable[[list[np.random.Generator]], Replicates]]:
    xp, estimates = fit.model.crossproducts, fit.estimates
    source = simulator(xp, truth_of(estimates, xp.layout))
    again = refitter(xp, fit.model.equations_of(estimates), estimates.theta, reml=estimates.reml)

    def work(generators: list[np.random.Generator]) -> Replicates:
        y = draw(source, generators)
        if statistic is None or observed is None:
            return Replicates(refit(again, y), np.zeros((y.size, 0)))
        return with_statistic(fit, [y.one(xp, r) for r in range(y.size)], again.equations, statistic, observed)

    return again.per_set, work


def with_statistic(
    fit: MixedLMResults,
    samples: list[CrossProducts],
    equations: Equations | None,
    statistic: Statistic | None,
    observed: FloatArray | None,
) -> Replicates:
    """Whole fits of each sample, and the statistic of each.

    Parameters
    ----------
    equations : Equations or None
        Those of the fit where only the response differs; None where the design does, too.
    """
    layout, width = fit.estimates.layout, 0 if observed is None else observed.size
    n = len(samples)
    theta, beta = np.full((n, layout.n_theta), np.nan), np.full((n, layout.n_fixed), np.nan)
    sigma, criterion = np.full(n, np.nan), np.full(n, np.nan)
    converged, singular = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    statistics, failure = np.full((n, width), np.nan), [""] * n
    for r, xp in enumerate(samples):
        try:
            again = _whole_fit(fit, xp, equations)
        except (CrosslmmError, np.linalg.LinAlgError) as error:
            failure[r] = str(error)
            continue
        theta[r], beta[r], sigma[r], criterion[r] = again.theta, again.beta, again.sigma, again.criterion
        converged[r], singular[r] = again.converged, again.singular
        failure[r] = "" if again.converged else again.message
        if statistic is not None and observed is not None:
            model = type(fit.model).from_crossproducts(xp)
            statistics[r] = _checked(_numbers(statistic(replace(fit, model=model, estimates=again))), observed)
    refits = Refits(theta, beta, sigma, criterion, converged, singular, tuple(failure))
    return Replicates(refits, statistics)


def _whole_fit(fit: MixedLMResults, xp: CrossProducts, equations: Equations | None) -> Fit:
    if equations is None:
        _check_columns(xp)
        own: Equations = choose(xp, fit.estimates.plan.options)
    else:
        own = equations.with_columns(xp.border, xp.fixed)
    return estimate(
        xp,
        own,
        reml=fit.estimates.reml,
        start=fit.estimates.theta,
        tolerance=TOLERANCE,
        max_evaluations=MOST_EVALUATIONS,
    )


def _check_columns(xp: CrossProducts) -> None:
    """Refuse a sample whose fixed-effects columns depend on each other."""
    X = xp.fixed[:-1, :-1]
    unit = np.sqrt(np.diag(X))
    if X.size and not (unit.all() and np.linalg.eigvalsh(X / np.outer(unit, unit))[0] > DEPENDENT):
        raise ModelError("fixed-effects columns depend on each other in this sample of the groups")


def _numbers(value: Any) -> FloatArray:
    try:
        return np.atleast_1d(np.asarray(value, dtype=np.float64)).ravel()
    except (TypeError, ValueError) as error:
        raise ModelError(f"the statistic gave {value!r}: expected a number or numbers") from error


def _checked(values: FloatArray, observed: FloatArray) -> FloatArray:
    if values.size != observed.size:
        raise ModelError(
            f"the statistic gave {values.size} numbers for a replicate and {observed.size} for the fit: it has to give "
            "as many for each"
        )
    return values
