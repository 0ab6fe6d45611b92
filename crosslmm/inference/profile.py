"""Profiles of the likelihood, and the intervals that they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import special

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.engine.protocol import Equations
from crosslmm.errors import ConvergenceWarning, ModelError, NumericalError, warn
from crosslmm.inference.constrained import ModelAt, model_at
from crosslmm.inference.curve import CERTAIN, Best, Curve, Point, Profiled
from crosslmm.inference.intervals import check_alpha
from crosslmm.inference.likelihood_ratio import by_ml
from crosslmm.inference.parameters import CORRELATION, FIXED, SIGMA, Parameter, chosen, parameter_values, parameters
from crosslmm.inference.reach import EXACT, reach
from crosslmm.inference.search import profiled
from crosslmm.objective import evaluate
from crosslmm.progress import Meter, Rows, meter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from crosslmm.fit import Fit
    from crosslmm.results import MixedLMResults

OUTERMOST = 2.6
"""Zeta to which curves are followed: the 99% interval lies inside."""

ROUGHLY = 0.4
"""Error of zeta that is allowed where a curve only has to go on."""

COINCIDE = 0.01
"""Difference of zeta below which two points say the same."""

FIRST = 1.0
"""Zeta of the first point on either side, nearly: with both, a bound is met by two more."""

ALPHA = 0.05


@dataclass(frozen=True, repr=False)
class Profile:
    """Profiles of the ML deviance.

    Attributes
    ----------
    curves : tuple of Curve
    deviance : float
        Of the ML fit.
    n_probes : int
        Random probes that the deviance is sampled with; 0 where it is exact.
    """

    curves: tuple[Curve, ...]
    deviance: float
    n_probes: int
    ready: tuple[Profiled, ...]

    def conf_int(self, alpha: float = ALPHA) -> pd.DataFrame:
        """Intervals of all parameters that were profiled, their bounds found to a millionth of a standard error.

        A bound that the likelihood does not reach is the limit of the parameter: 0, -1 or 1. One that could not be
        found is nan. Where the deviance is sampled, bounds are found to a tenth of their Monte Carlo errors.

        Parameters
        ----------
        alpha : float
            One minus the level.

        Returns
        -------
        DataFrame
            Columns 0 (lower) and 1 (upper), and `lower_mc_error` and `upper_mc_error` where the deviance is sampled:
            their Monte Carlo standard errors. That of a limit is 0, or nan where the probes leave open whether the
            likelihood reaches the bound before.
        """
        goal = _goal(alpha)
        rows = [
            [_bound(of, curve, -goal), _bound(of, curve, goal)]
            for of, curve in zip(self.ready, self.curves, strict=True)
        ]
        bounds = np.array(rows, dtype=float).reshape(-1, 2, 2)
        index = pd.Index([curve.parameter.name for curve in self.curves])
        table = pd.DataFrame(bounds[:, :, 0], columns=[0, 1], index=index)
        if self.n_probes:
            table[["lower_mc_error", "upper_mc_error"]] = bounds[:, :, 1]
        return table

    def to_frame(self) -> pd.DataFrame:
        """The points of all curves: parameter, value, zeta, deviance, and zeta_mc_error where it is sampled."""
        rows = [
            (c.parameter.name, p.value, p.zeta, self.deviance + p.zeta**2, p.zeta_error)
            for c in self.curves
            for p in c.points
        ]
        frame = pd.DataFrame(rows, columns=["parameter", "value", "zeta", "deviance", "zeta_mc_error"])
        return frame if self.n_probes else frame.drop(columns="zeta_mc_error")

    def zeta(self, parameter: str, values: Sequence[float] | FloatArray) -> FloatArray:
        """Signed root of the deviance at some values, by a monotone spline through the points; nan outside of them."""
        from scipy.interpolate import PchipInterpolator

        curve = next((c for c in self.curves if c.parameter.name == parameter), None)
        if curve is None or len(curve.points) < 2:
            raise ModelError(f"{parameter!r} has no profile here")
        spline = PchipInterpolator([p.value for p in curve.points], [p.zeta for p in curve.points], extrapolate=False)
        return np.asarray(spline(np.asarray(values, dtype=float)))

    def plot(self, kind: str = "zeta", which: Sequence[str] | None = None, *, ax: Axes | None = None) -> np.ndarray:
        """Draw the profiles, a picture per parameter.

        Parameters
        ----------
        kind : {"zeta", "density"}
            Signed roots of the deviance, straight lines where a normal interval is right; or the densities that these
            roots imply.
        which : sequence of str, optional
            Parameters to draw; by default all that have a profile.
        ax : matplotlib axes, optional
            Where to draw the profile if there is one only.

        Returns
        -------
        ndarray of axes, one per parameter

        Raises
        ------
        ModelError
            A parameter has no profile here, or the kind is unknown.
        """
        from crosslmm.plots.panels import profile_panels

        curves = {c.parameter.name: c for c in self.curves if len(c.points) > 1}
        missing = [name for name in which or () if name not in curves]
        if missing:
            raise ModelError(f"{missing[0]!r} has no profile here; there are {', '.join(curves)}")
        drawn = [curves[name] for name in (curves if which is None else which)]
        arrays = [(c.parameter.name, *np.transpose([(p.value, p.zeta) for p in c.points])) for c in drawn]
        return profile_panels(arrays, kind, ax=ax)

    def __repr__(self) -> str:
        table = self.conf_int().rename(columns={0: "2.5%", 1: "97.5%"})
        table.insert(0, "estimate", [curve.estimate for curve in self.curves])
        sampled = f", Monte Carlo errors by {self.n_probes} probes" if self.n_probes else ""
        return f"Profile of the ML deviance {self.deviance:.4f}, 95% intervals{sampled}\n{table.to_string()}"


def profile(
    fit: MixedLMResults,
    which: str | Sequence[str] = "all",
    *,
    alpha: float = ALPHA,
    outermost: float = OUTERMOST,
    progress: bool | Rows | None = None,
) -> Profile:
    """Profile the ML deviance of a fit; a fit by REML is fitted by ML first, as in lme4.

    The engine is that of the fit, with its options and as many probes. Where it samples, so is the profile, with its
    Monte Carlo errors.

    Parameters
    ----------
    which : {"all", "fixed", "random"}, or names
        Names as ``sd_Days|Subject``, ``cor_Days.Intercept|Subject``, ``sigma``, or those of fixed effects.
    alpha : float
        The bounds of the intervals of this level are among the points.
    outermost : float
        Zeta to which the curves are followed.
    progress : bool or callable, optional
        As for `MixedLM.from_formula`.

    Raises
    ------
    ModelError
        The fit has not converged.

    Warns
    -----
    ConvergenceWarning
        A part of a curve could not be found.
    """
    best = by_ml(fit)
    estimates = best.estimates
    if not estimates.converged:
        raise ModelError("the ML fit did not converge: a profile needs its minimum; see fit.optimization")
    goal = _goal(alpha)
    equations = best.model.equations_of(estimates)
    lowest, ready = _ready(best.model.crossproducts, equations, estimates, chosen(estimates.layout, which))
    targets = _targets(goal, outermost)
    with meter(progress) as shown:
        total = len(targets) * len(ready)
        curves = tuple(_trace(of, targets, shown, i * len(targets), total) for i, of in enumerate(ready))
    return Profile(curves, lowest.deviance, lowest.samples.size, ready)


def _goal(alpha: float) -> float:
    return float(-special.ndtri(0.5 * check_alpha(alpha)))


def _ready(
    xp: CrossProducts, equations: Equations, estimates: Fit, wanted: tuple[Parameter, ...]
) -> tuple[Best, tuple[Profiled, ...]]:
    layout = estimates.layout
    model = model_at(xp, equations, estimates.theta)
    best = _best(model, estimates)
    values = parameter_values(layout, estimates.theta[None], np.array([estimates.sigma]), estimates.beta[None])[0]
    known = {p: float(v) for p, v in zip(parameters(layout), values, strict=True)}
    ready = (profiled(model, p, known[p], best, _guess(p, known[p], estimates), estimates.sigma) for p in wanted)
    return best, tuple(ready)


def _best(model: ModelAt, estimates: Fit) -> Best:
    if estimates.sampling is None:
        return Best(estimates.criterion, np.zeros(0), 0.0)
    at = evaluate(model.equations, model.xp, model.xp.layout.templates(model.theta), reml=False)
    return Best(estimates.criterion, at.system.log_det_samples, estimates.sampling.ratio**2)


def _guess(parameter: Parameter, estimate: float, fit: Fit) -> float:
    """A first guess of the standard error: that of independent normal variables."""
    if parameter.kind == FIXED:
        return float(fit.beta_se[parameter.columns[0]])
    if parameter.kind == SIGMA:
        return float(estimate / np.sqrt(2.0 * fit.n))
    levels = fit.layout.factors[fit.layout.terms[parameter.term].factor].n_levels
    if parameter.kind == CORRELATION:
        return float(max(1.0 - estimate**2, 0.1) / np.sqrt(levels))
    return float((estimate if estimate > 0.0 else 0.1 * fit.sigma) / np.sqrt(2.0 * levels))


def _targets(goal: float, outermost: float) -> list[tuple[float, float]]:
    """Zeta where points are wanted, and its error that is allowed: both sides near the estimate, then further out."""
    targets = [(side * FIRST, 0.9 * FIRST) for side in (-1.0, 1.0)]
    for side in (-1.0, 1.0):
        targets += [(side * goal, EXACT), (side * max(outermost, goal), ROUGHLY)]
    return targets


def _trace(of: Profiled, targets: Sequence[tuple[float, float]], shown: Meter, before: int, total: int) -> Curve:
    """Points on both sides, the bounds among them; as far as they can be found."""
    if np.isnan(of.estimate):
        return Curve(of.parameter, of.estimate, ())
    points = [of.own_point()]
    for number, (target, accuracy) in enumerate(targets, start=before + 1):
        try:
            points, _ = reach(of, points, target, accuracy)
        except NumericalError as error:
            warn(f"{error}; its curve ends before, and what it does not reach is nan", ConvergenceWarning)
        shown.rows("profile", number, total, "points")
    return Curve(of.parameter, of.estimate, _sorted(points))


def _sorted(points: Sequence[Point]) -> tuple[Point, ...]:
    """Points by value; of those that all but coincide the one that was found last, which is the most exact."""
    kept: list[Point] = []
    for p in [points[0], *reversed(points[1:])]:
        if all(abs(p.zeta - q.zeta) > COINCIDE for q in kept):
            kept.append(p)
    return tuple(sorted(kept, key=lambda p: p.value))


def _bound(of: Profiled, curve: Curve, goal: float) -> tuple[float, float]:
    """A bound and its Monte Carlo error."""
    if np.isnan(of.estimate):
        return float(np.sign(goal)), 0.0
    try:
        point = reach(of, list(curve.points), goal)[1]
    except NumericalError:
        return np.nan, np.nan
    return point.value, point.value_error if point.x is not None else _limit_error(point, goal)


def _limit_error(limit: Point, goal: float) -> float:
    """Of a bound at the limit of the parameter: 0 where it is certain that the likelihood ends there, else nan."""
    certain = abs(limit.zeta) + CERTAIN * limit.zeta_error <= abs(goal)
    return 0.0 if certain else np.nan
