"""Responses drawn from a fit, or from given parameters and a design."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from crosslmm.covariance import FloatArray
from crosslmm.design.build import build_design, check_options
from crosslmm.design.frame import column_names, read_frame
from crosslmm.design.rows import Design
from crosslmm.design.variables import used_columns
from crosslmm.effects.newrows import Beside, NewRows
from crosslmm.effects.numbers import count, generator, named_values
from crosslmm.effects.predicted import own_rows, rows_of
from crosslmm.effects.prediction import POPULATION, SAMPLE, Wanted
from crosslmm.effects.selection import choose
from crosslmm.effects.simulation import FITTED, Effects, Truth, check_effects, simulated
from crosslmm.errors import FormulaError, ModelError
from crosslmm.formula import MixedFormula, parse

if TYPE_CHECKING:
    from crosslmm.results import MixedLMResults

RESPONSE = "y"
"""What the response of a formula without one is called."""


def simulate_fit(
    fit: MixedLMResults, n: Any, rng: Any, random_effects: Any, data: Any, new_levels: Any, beside: Beside
) -> pd.DataFrame:
    """See `MixedLMResults.simulate`."""
    estimates, times = fit.estimates, count(n, "n")
    fitted = check_effects(random_effects) == FITTED
    levels = Wanted.of(new_levels, None, 0.95).new_levels
    draws = generator(rng)
    truth = Truth.of(estimates)
    effects = Effects.fitted(estimates, times, draws) if fitted else Effects.fresh(truth, times, draws)
    refused = levels if fitted else SAMPLE  # new effects are drawn for any level
    batches = rows_of(fit.model, choose(estimates.layout, True), data, beside, whole=True, new_levels=refused)
    if fitted and levels == POPULATION:
        batches = (_without_new(truth, rows) for rows in batches)
    return simulated(truth, effects, batches, estimates.n if data is None else None)


def _without_new(truth: Truth, rows: NewRows) -> NewRows:
    """The rows without the random effects of new levels."""
    known = [codes < factor.n_levels for codes, factor in zip(rows.codes, truth.layout.factors, strict=True)]
    return replace(
        rows,
        Z=tuple(Z * own[:, None] for Z, own in zip(rows.Z, known, strict=True)),
        codes=tuple(np.where(own, codes, 0) for codes, own in zip(rows.codes, known, strict=True)),
        new=tuple(np.empty(0, dtype=object) for _ in rows.new),
    )


@dataclass(frozen=True)
class Study:
    """A design with the parameters that responses of it are drawn from.

    Attributes
    ----------
    formula : MixedFormula
    design : Design
        With a response that stands for none.
    truth : Truth
    relative : ndarray, shape (m,)
        Theta.
    """

    formula: MixedFormula
    design: Design
    truth: Truth
    relative: FloatArray

    @property
    def start(self) -> FloatArray | None:
        """Theta to start a fit from; None where a variance is 0."""
        return self.relative if np.all(self.relative[self.design.layout.on_diagonal] > 0.0) else None


def simulate(
    formula: str,
    data: Any,
    beta: Any,
    theta: Any,
    sigma: float,
    rng: int | np.random.Generator | None = None,
    *,
    n: int = 1,
    weights: Any = None,
    offset: Any = None,
    context: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Responses of a design that has not been observed, drawn from given parameters.

    Parameters
    ----------
    formula : str
        As for `MixedLM.from_formula`. The response may be left out (``"~ x + (1 | s)"``) and need not be in the data.
    data : table
        Covariates and grouping columns, without missing values.
    beta : mapping or array, shape (p,)
        Fixed effects, by name or in order.
    theta : mapping or array, shape (m,)
        Relative covariance parameters in lme4's order and units, by name or in order: for a random intercept its
        standard deviation over sigma.
    sigma : float
        Residual standard deviation.
    rng : int or numpy.random.Generator, optional
    n : int
        Number of responses.
    weights, offset, context
        See `MixedLM.from_formula`.

    Returns
    -------
    DataFrame, shape (rows, n)
        Columns sim_1, sim_2, ..., indexed like the data.

    Raises
    ------
    ModelError
        A parameter is missing or is no number; the model could not be estimated from these data.
    DataError
        The data do not serve the formula.

    Examples
    --------
    >>> import crosslmm as clm
    >>> design = {"x": [0, 1, 2] * 4, "s": [f"s{i // 3}" for i in range(12)]}
    >>> y = clm.simulate("~ x + (1 | s)", design, {"Intercept": 1.0, "x": 0.5}, [0.8], 1.0, rng=1, n=2)
    >>> y.shape
    (12, 2)
    """
    times, draws = count(n, "n"), generator(rng)
    study = read_study(formula, data, beta, theta, sigma, weights=weights, offset=offset, context=context)
    return simulated(study.truth, Effects.fresh(study.truth, times, draws), _batches(study), study.design.n)


def _batches(study: Study) -> Iterator[NewRows]:
    layout = study.design.layout
    for index, rows in study.design.batches():
        yield own_rows(layout, choose(layout, True), index, rows)


def read_study(
    formula: str, data: Any, beta: Any, theta: Any, sigma: Any, *, weights: Any, offset: Any, context: Any
) -> Study:
    """A design without a response, and parameters for it; see `simulate`."""
    if not isinstance(formula, str):
        raise FormulaError(f"the formula must be text, not {type(formula).__name__}", str(formula), (0, 1))
    text = f"{RESPONSE} {formula.strip()}" if formula.strip().startswith("~") else formula
    parsed = parse(text)
    if not re.fullmatch(r"[^\W\d]\w*", parsed.response):
        raise ModelError(
            f"the response {parsed.response!r} is a formula of its own: draw it by itself, '~ ...' or 'y ~ ...', and "
            "transform what is drawn"
        )
    design = build_design(
        parsed,
        _with_stand_in(parsed, data, weights, offset, context),
        weights=weights,
        offset=offset,
        missing="raise",
        context=context,
    )
    if isinstance(sigma, bool) or not isinstance(sigma, Real) or not 0.0 < float(sigma) < np.inf:
        raise ModelError(f"sigma={sigma!r}: expected a positive number, the residual standard deviation")
    layout = design.layout
    fixed = named_values(beta, layout.fixed, "beta")
    relative = named_values(theta, layout.theta_names, "theta")
    return Study(parsed, design, Truth(layout, fixed, layout.templates(relative), float(sigma)), relative)


def _with_stand_in(formula: MixedFormula, data: Any, weights: Any, offset: Any, context: Any) -> pd.DataFrame:
    """The columns that a model needs, and normal numbers for its response."""
    present = [name for name in column_names(data) if name != formula.response]
    known = check_options("raise", context)
    part = replace(formula, response="0")
    names = [*used_columns(part, present, known), *(name for term in formula.random for name in term.grouping)]
    names += [name for name in (weights, offset) if isinstance(name, str)]
    frame = read_frame(data, dict.fromkeys(names)).copy()
    frame[formula.response] = np.random.default_rng(0).standard_normal(len(frame))
    return frame
