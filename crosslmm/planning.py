"""Studies that have not been made: responses of a design, and the power of a test."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from crosslmm.crossproducts import CrossProducts
from crosslmm.effects.numbers import count, generator
from crosslmm.effects.simulate import Study, read_study, simulate
from crosslmm.errors import ConvergenceWarning, CrosslmmError, NumericalError
from crosslmm.inference.intervals import check_alpha
from crosslmm.inference.simulate import Responses, draw, simulator, standard_truth
from crosslmm.model import MixedLM
from crosslmm.progress import meter
from crosslmm.results import MixedLMResults
from crosslmm.sources import WithoutRows

__all__ = ["Power", "power", "simulate"]

LEVEL = 0.95
"""Of the interval of the power."""


@dataclass(frozen=True)
class Power:
    """Power of a test, by simulation.

    Attributes
    ----------
    test : str
        The hypothesis.
    alpha : float
        Size of the test.
    p_values : ndarray, shape (n,)
        Of the simulated studies; nan where a fit failed.
    """

    test: str
    alpha: float
    p_values: np.ndarray

    @property
    def n(self) -> int:
        """Studies whose fit did not fail."""
        return int(np.isfinite(self.p_values).sum())

    @property
    def n_failed(self) -> int:
        """Studies whose fit failed; they do not count."""
        return self.p_values.size - self.n

    @property
    def rejected(self) -> int:
        """Studies in which the hypothesis was rejected."""
        return int(np.sum(self.p_values < self.alpha))

    @property
    def power(self) -> float:
        """Share of the studies in which the hypothesis was rejected."""
        return self.rejected / self.n if self.n else float("nan")

    @property
    def se(self) -> float:
        """Standard error of `power` by the number of studies; see `interval` where it is near 0 or 1."""
        return float(np.sqrt(self.power * (1.0 - self.power) / self.n)) if self.n else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of `power`: Clopper and Pearson 1934, Biometrika 26(4)."""
        k, n, tail = self.rejected, self.n, 0.5 * (1.0 - LEVEL)
        low = 0.0 if k == 0 else float(special.betaincinv(k, n - k + 1, tail))
        high = 1.0 if k == n else float(special.betaincinv(k + 1, n - k, 1.0 - tail))
        return low, high

    def __str__(self) -> str:
        low, high = self.interval
        failed = f", {self.n_failed} more failed" if self.n_failed else ""
        return (
            f"power {self.power:.3f} (standard error {self.se:.3f}, 95% interval {low:.3f} to {high:.3f}) of the "
            "test of "
            f"'{self.test}' at level {self.alpha:g}, from {self.n} simulated studies{failed}"
        )

    __repr__ = __str__


def power(
    formula: str,
    data: Any,
    beta: Any,
    theta: Any,
    sigma: float,
    test: Any,
    *,
    n: int = 500,
    alpha: float = 0.05,
    ddf: str = "satterthwaite",
    reml: bool = True,
    rng: int | np.random.Generator | None = None,
    weights: Any = None,
    offset: Any = None,
    context: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> Power:
    """Power of a test of fixed effects in a design that has not been observed, by simulation.

    Responses are drawn with new random effects, the model is fitted to each, and the hypothesis is tested. They are
    drawn as cross-products, so the work does not grow with the number of rows.

    Parameters
    ----------
    formula, data, beta, theta, sigma
        See `crosslmm.simulate`.
    test : str, dict, array or list
        Hypothesis as for `MixedLMResults.test`: ``"x"``, ``"x = 0"``, ``"a = b, c = 0"``.
    n : int
        Simulated studies.
    alpha : float
        Size of the test.
    ddf : {"satterthwaite", "normal", "residual", "kenward-roger"}
        Denominator degrees of freedom.
    reml : bool
    rng : int or numpy.random.Generator, optional
    weights, offset, context
        See `MixedLM.from_formula`.
    progress : bool, optional
        As in `MixedLM.from_formula`.

    Returns
    -------
    Power

    Raises
    ------
    ModelError
        A parameter or the hypothesis cannot be read.
    NumericalError
        Every fit failed.

    Examples
    --------
    >>> import crosslmm as clm
    >>> design = {"x": [0, 1] * 40, "s": [f"s{i // 4}" for i in range(80)]}
    >>> found = clm.power("~ x + (1 | s)", design, [0.0, 0.8], [0.5], 1.0, "x", n=50, rng=1)
    >>> 0.8 < found.power <= 1.0
    True
    """
    alpha = check_alpha(alpha)
    times, draws = count(n, "n"), generator(rng)
    study = read_study(formula, data, beta, theta, sigma, weights=weights, offset=offset, context=context)
    xp = study.design.crossproducts()
    drawing = simulator(xp, standard_truth(xp.layout, study.truth.beta, study.truth.sigma, study.relative))
    p_values = np.full(times, np.nan)
    first: CrosslmmError | None = None
    with meter(progress) as shown:
        for i in range(times):
            try:
                fit = _fitted(study, xp, draw(drawing, [draws]), reml=reml)
                p_values[i] = fit.test(test, ddf=ddf).p_value
            except NumericalError as error:
                first = first or error
            shown.rows("simulating", i + 1, times)
    if first is not None and not np.isfinite(p_values).any():
        raise first
    return Power(str(test), float(alpha), p_values)


def _fitted(study: Study, xp: CrossProducts, responses: Responses, *, reml: bool) -> MixedLMResults:
    """The model fitted to one response; starts from the parameters it was drawn from."""
    model = MixedLM._made(study.formula, WithoutRows(responses.one(xp, 0)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # counted as failed below
        fit = model.fit(reml=reml, start=study.start)
    if not fit.converged:
        raise NumericalError(f"the fit of a simulated study did not converge: {fit.estimates.message}")
    return fit
