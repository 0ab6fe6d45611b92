"""The profile of one parameter: what is known of its curve.

The signed root ``zeta(v) = sign(v - estimate) sqrt(d(v) - d(estimate))`` of the deviance, minimised over all other
parameters, is nearly a straight line in a suitable scale of v.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.inference.constrained import Constrained, ModelAt
from crosslmm.inference.parameters import CORRELATION, FIXED, Parameter

TOLERANCE = 1e-7
"""Decrease of the deviance still to come at which the search over the others stops: 3e-8 of zeta at a 95% bound."""

WITHIN = 0.1
"""Part of a Monte Carlo error to which something sampled is found: it makes the error half a percent larger."""

CERTAIN = 3.0
"""Monte Carlo errors beyond which something sampled is certain."""

TWO_SQUARES = 2.0
"""Standard deviation of the difference of the squares of two standard normal numbers."""


@dataclass(frozen=True)
class Point:
    """A point on the curve.

    Attributes
    ----------
    value, zeta : float
    x : ndarray or None
        Where the search over the others ended; None at a limit.
    slope : float
        Derivative of zeta by the value; nan where it is not known.
    error : float
        Monte Carlo standard error of ``zeta**2``, the rise of the deviance; 0 where nothing is sampled.
    sure : bool
        Whether the deviance was looked for elsewhere, too, where it could be lower.
    """

    value: float
    zeta: float
    x: FloatArray | None
    slope: float = np.nan
    error: float = 0.0
    sure: bool = False

    @property
    def zeta_error(self) -> float:
        """Monte Carlo standard error of zeta; nan where the deviance has not risen but should have."""
        if self.error == 0.0:
            return 0.0
        return self.error / abs(2.0 * self.zeta) if self.zeta else np.nan

    @property
    def value_error(self) -> float:
        """Monte Carlo standard error of the value at which zeta is what it is here; nan without a slope."""
        return 0.0 if self.error == 0.0 else self.zeta_error / abs(self.slope)


@dataclass(frozen=True)
class Curve:
    """What is known of the profile of one parameter.

    Attributes
    ----------
    parameter : Parameter
    estimate : float
        By ML; nan for a correlation with a standard deviation of 0.
    points : tuple of Point
        Increasing in value.
    """

    parameter: Parameter
    estimate: float
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Best:
    """The least deviance, which all curves rise from.

    Attributes
    ----------
    deviance : float
    samples : ndarray, shape (n,)
        What each probe says of the log-determinant there; n = 0 where nothing is sampled.
    excess : float
        By how much searches end above the least deviance, because theta is sampled: the square of the Monte Carlo error
        of theta over its standard error.
    """

    deviance: float
    samples: FloatArray
    excess: float

    @property
    def sampled(self) -> bool:
        """Whether the deviance is known up to sampling only."""
        return self.samples.size > 0

    @property
    def tolerance(self) -> float:
        """Decrease of the deviance still to come at which a search may stop."""
        return max(TOLERANCE, WITHIN * self.excess)

    def rise_error(self, samples: FloatArray) -> float:
        """Monte Carlo standard error of the rise of the deviance to where the same probes say `samples`.

        Probe by probe, what is left open is nearly the same there and at the estimate. The excesses at both ends count
        only where the rest is as good as exact.
        """
        if not self.sampled:
            return 0.0
        paired = (samples - self.samples).std(ddof=1) / np.sqrt(samples.size)
        return float(np.hypot(paired, TWO_SQUARES * self.excess))


@dataclass(frozen=True)
class Profiled:
    """One parameter ready to be held.

    Attributes
    ----------
    model : ModelAt
    parameter : Parameter
    constrained : Constrained
    estimate : float
        At the ML fit.
    best : Best
    step : float
        A guess of the standard error, in the scale of `forward`.
    sigma : float
        Residual standard deviation of the ML fit.
    plain : bool
        Whether values are taken as they are, as has to be where the limit is a point to interpolate from.
    plateau : Point or None
        Of a correlation: where one of its effects is left out, so that it can have any value. Its curve is nowhere
        higher.
    """

    model: ModelAt
    parameter: Parameter
    constrained: Constrained
    estimate: float
    best: Best
    step: float
    sigma: float
    plain: bool = False
    plateau: Point | None = None

    @property
    def lower(self) -> float:
        """Least value that the parameter can have."""
        return {CORRELATION: -1.0, FIXED: -np.inf}.get(self.parameter.kind, 0.0)

    @property
    def upper(self) -> float:
        """Largest value that the parameter can have."""
        return 1.0 if self.parameter.kind == CORRELATION else np.inf

    @property
    def inside(self) -> bool:
        """Whether the estimate lies off both limits."""
        return self.lower < self.estimate < self.upper

    @property
    def _as_it_is(self) -> bool:
        return self.plain or self.parameter.kind == FIXED or not self.inside

    def forward(self, value: float) -> float:
        """The scale in which the curve is nearly straight."""
        if self._as_it_is:
            return value
        return float(np.arctanh(value) if self.parameter.kind == CORRELATION else np.log(value))

    def back(self, scaled: float) -> float:
        """The value again."""
        if self._as_it_is:
            return min(max(scaled, self.lower), self.upper)
        return float(np.tanh(scaled) if self.parameter.kind == CORRELATION else np.exp(scaled))

    def rate(self, value: float) -> float:
        """Derivative of `forward`."""
        if self._as_it_is:
            return 1.0
        return 1.0 / (1.0 - value**2) if self.parameter.kind == CORRELATION else 1.0 / value

    def own_point(self) -> Point:
        """The ML estimate as a point."""
        return Point(self.estimate, 0.0, self.constrained.start)
