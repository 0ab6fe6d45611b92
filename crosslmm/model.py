"""The model: a formula with its data, ready to be fitted any number of times."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np

from crosslmm.crossproducts import CrossProducts
from crosslmm.design.rows import ModelRows, Progress
from crosslmm.engine.plan import DirectEngine, Engine, IterativeEngine, Plan
from crosslmm.errors import ConvergenceWarning, ModelError, warn
from crosslmm.fit import Fit, Iteration
from crosslmm.formula import MixedFormula, parse
from crosslmm.progress import logger, meter
from crosslmm.results import MixedLMResults
from crosslmm.sources import WithoutRows, read_model

if TYPE_CHECKING:
    from crosslmm.engine.protocol import Equations
    from crosslmm.objective import ObjectiveValue
    from crosslmm.precision import Spread

TOLERANCE = 1e-9
"""Decrease of the criterion (deviance units) still to come at which the optimiser stops: 5e-5 of a standard error."""

MAX_EVALUATIONS = 500


@dataclass(frozen=True, repr=False)
class MixedLM:
    """A linear mixed model: ``y = X beta + Z b + e``.

    Make one with `MixedLM.from_formula` (or `crosslmm.mixedlm`, the same function). Fitting returns a value and leaves
    the model unchanged, so one model can be fitted by REML and ML, with any options, in any order.

    Attributes
    ----------
    formula : MixedFormula
    design : ModelRows
        The rows used: a `Design` of those in memory, or what is known of those in a source or given as cross-products.
    """

    formula: MixedFormula
    design: ModelRows

    @classmethod
    def from_formula(
        cls,
        formula: str,
        data: Any,
        *,
        weights: Any = None,
        offset: Any = None,
        missing: str = "drop",
        context: Mapping[str, Any] | None = None,
        progress: bool | Progress | None = None,
    ) -> MixedLM:
        """Model from a formula and a table or another source of rows.

        Parameters
        ----------
        formula : str
            ``"y ~ x + (1 + x | g) + (1 | h)"``: an ordinary formulaic formula with lme4's random-effects terms.
        data : table, path, list, callable or dask DataFrame
            A pandas, polars or pyarrow table or a dict of columns, never modified. Or rows that come in batches and are
            read twice: the path of a Parquet file or of a directory of such files, a list of paths, a list of tables,
            a callable that returns a new iterator over tables each time, a dask DataFrame.
        weights : str or array, optional
            Prior weights w: the residual variance of row i is ``sigma^2 / w_i`` (as lme4). Rows in batches need the
            name of a column.
        offset : str or array, optional
            A known part of the response, in its units; as `weights`.
        missing : {"drop", "raise"}
            What to do with rows that miss a value in any column used.
        context : mapping, optional
            Further names (functions, constants) that the formula may use.
        progress : bool or callable, optional
            Bars for what takes more than a second (needs tqdm): by default where standard error is a terminal. A
            callable is given the name of a phase, the rows done and the rows in all (or None) while rows in batches
            are read. The logger ``crosslmm`` has the same at level INFO.

        Raises
        ------
        FormulaError
            The formula cannot be read.
        DataError
            The data do not serve the formula.
        ModelError
            The model cannot be estimated from these data.

        Warns
        -----
        RankDeficiencyWarning
            Fixed-effects columns were dropped as combinations of others.
        """
        parsed = parse(formula)
        with meter(progress) as shown:
            design = read_model(
                parsed, data, weights=weights, offset=offset, missing=missing, context=context, progress=shown.rows
            )
        return cls(parsed, design)

    @classmethod
    def from_crossproducts(cls, xp: CrossProducts) -> MixedLM:
        """Model from the cross-products of rows that are elsewhere (see `crosslmm.accumulate`).

        It is fitted like any other; only fitted values and residuals, which need rows, are refused.

        Parameters
        ----------
        xp : CrossProducts

        Raises
        ------
        ModelError
            `xp` is something else, or does not know its formula.
        """
        if not isinstance(xp, CrossProducts):
            kind = type(xp).__name__
            raise ModelError(f"cross-products come from crosslmm.accumulate(formula, source), and are no {kind}")
        if not xp.layout.formula:
            raise ModelError("these cross-products hold no formula; make them with crosslmm.accumulate")
        return cls(parse(xp.layout.formula), WithoutRows(xp))

    def fit(
        self,
        reml: bool = True,
        *,
        engine: str | Engine = "auto",
        start: Any = None,
        tolerance: float = TOLERANCE,
        max_evaluations: int = MAX_EVALUATIONS,
        verbose: bool = False,
        progress: bool | Progress | None = None,
    ) -> MixedLMResults:
        """Estimate the model.

        Parameters
        ----------
        reml : bool
            Restricted maximum likelihood (default), or maximum likelihood.
        engine : {"auto", "direct", "iterative"}, DirectEngine or IterativeEngine
            ``"auto"`` takes the direct engine unless its factor would not fit or would take far longer; see `plan`.
        start : array, optional
            Theta to start from, in lme4's order and units.
        tolerance : float
            Predicted decrease of the criterion, in deviance units, at which to stop.
        max_evaluations : int
            Evaluations of the criterion after which to give up.
        verbose : bool
            Print the iterations as they are made, to standard error.
        progress : bool or callable, optional
            As for `from_formula`; evaluations are shown as bars only.

        Returns
        -------
        MixedLMResults

        Warns
        -----
        ConvergenceWarning
            The optimiser stopped before its test was met.
        """
        from crosslmm.estimate import estimate

        _check_method(reml)
        _check_limits(tolerance, max_evaluations)
        with meter(False if verbose else progress) as shown:
            xp, equations = self.crossproducts, self._equations(engine)
            logger.info("plan: %s engine, %s", equations.plan.engine, equations.plan.reason)
            fit = estimate(
                xp,
                equations,
                reml=reml,
                start=None if start is None else self._theta(start),
                tolerance=tolerance,
                max_evaluations=max_evaluations,
                report=_print_iteration if verbose else shown.iteration if shown.follows_iterations else None,
            )
        if not fit.converged:
            message = f"the fit did not converge: {fit.message}. See fit.optimization; other starts (start=) may help."
            warn(message, ConvergenceWarning)
        return MixedLMResults(self, fit)

    def plan(self, engine: str | Engine = "auto") -> Plan:
        """Which engine a fit will use, how the blocks are stored and what an evaluation costs."""
        return self._equations(engine).plan

    def objective(self, theta: Any, reml: bool = True, *, engine: str | Engine = "auto") -> ObjectiveValue:
        """Criterion, gradient and average information at a theta, for an optimiser of your own.

        Parameters
        ----------
        theta : array, shape (m,)
            Relative covariance parameters in lme4's order and units (`theta_names`).
        reml : bool
        engine : {"auto", "direct", "iterative"}, DirectEngine or IterativeEngine

        Returns
        -------
        ObjectiveValue
        """
        from crosslmm.objective import objective_at

        _check_method(reml)
        return objective_at(self._equations(engine), self.crossproducts, self._theta(theta), reml=reml)

    def statistical_spread(self, fit: Fit) -> Spread:
        """Errors of theta and sigma of one of its fits by the sampling of the data (average information)."""
        from crosslmm.uncertainty import statistical_at

        equations = self._equations(fit.plan.engine)
        return statistical_at(self.crossproducts, equations, fit.theta, fit.sigma, reml=fit.reml)

    @property
    def theta_names(self) -> tuple[str, ...]:
        """Names of the relative covariance parameters."""
        return self.design.layout.theta_names

    @cached_property
    def crossproducts(self) -> CrossProducts:
        """All that estimation needs of the rows."""
        return self.design.crossproducts()

    @cached_property
    def _default_equations(self) -> Equations:
        from crosslmm.engine.choose import choose

        return choose(self.crossproducts, None)

    def _equations(self, engine: str | Engine) -> Equations:
        from crosslmm.engine.choose import choose

        options = _engine_options(engine)
        default = options == DirectEngine() and self._default_equations.plan.engine == "direct"
        return self._default_equations if options is None or default else choose(self.crossproducts, options)

    def _theta(self, theta: Any) -> np.ndarray:
        names = self.theta_names
        try:
            values = np.asarray(theta, dtype=np.float64).ravel()
        except (TypeError, ValueError) as error:
            raise ModelError(f"theta must be {len(names)} numbers ({', '.join(names)}), not {theta!r}") from error
        if values.size != len(names):
            raise ModelError(f"theta has {values.size} elements, expected {len(names)}: {', '.join(names)}")
        if not np.isfinite(values).all():
            raise ModelError("theta holds values that are not finite")
        return values

    def __getstate__(self) -> dict[str, Any]:
        # the factorisations cached beside the fields hold memory of C libraries and are cheap to make again
        return {field.name: self.__dict__[field.name] for field in fields(self)}

    def __repr__(self) -> str:
        groups = ", ".join(f"{f.name}: {f.n_levels:,}" for f in self.design.layout.factors)
        return f"MixedLM({self.formula.source!r}, {self.design.n:,} rows, levels {groups})"


def lmer(
    formula: str,
    data: Any,
    reml: bool = True,
    *,
    weights: Any = None,
    offset: Any = None,
    missing: str = "drop",
    context: Mapping[str, Any] | None = None,
    progress: bool | Progress | None = None,
    engine: str | Engine = "auto",
    start: Any = None,
    verbose: bool = False,
) -> MixedLMResults:
    """Build a model and fit it: ``MixedLM.from_formula(...).fit(...)``.

    Parameters
    ----------
    formula, data, weights, offset, missing, context, progress
        See `MixedLM.from_formula`.
    reml, engine, start, verbose
        See `MixedLM.fit`.

    Returns
    -------
    MixedLMResults

    Examples
    --------
    >>> import crosslmm as clm
    >>> fit = clm.lmer("Reaction ~ Days + (Days | Subject)", clm.datasets.load_sleepstudy())
    >>> fit.fe_params.round(3).to_dict()
    {'Intercept': 251.405, 'Days': 10.467}
    """
    _engine_options(engine)
    model = MixedLM.from_formula(
        formula, data, weights=weights, offset=offset, missing=missing, context=context, progress=progress
    )
    return model.fit(reml, engine=engine, start=start, verbose=verbose, progress=progress)


mixedlm = MixedLM.from_formula


def accumulate(
    formula: str,
    source: Any,
    *,
    weights: Any = None,
    offset: Any = None,
    missing: str = "drop",
    context: Mapping[str, Any] | None = None,
    progress: bool | Progress | None = None,
) -> CrossProducts:
    """All that a fit needs of the rows of a source, to be kept, sent or fitted with `MixedLM.from_crossproducts`.

    Parameters
    ----------
    formula, source, weights, offset, missing, context, progress
        See `MixedLM.from_formula`.

    Returns
    -------
    CrossProducts
    """
    model = MixedLM.from_formula(
        formula, source, weights=weights, offset=offset, missing=missing, context=context, progress=progress
    )
    return model.crossproducts


def _engine_options(engine: str | Engine) -> Engine | None:
    """Options of the engine that was asked for; None where it is to be chosen."""
    if isinstance(engine, DirectEngine | IterativeEngine):
        return engine
    named: dict[str, Engine | None] = {"auto": None, "direct": DirectEngine(), "iterative": IterativeEngine()}
    if isinstance(engine, str) and engine in named:
        return named[engine]
    raise ModelError(
        f"engine={engine!r}: expected 'auto', 'direct', 'iterative', a DirectEngine(...) or an IterativeEngine(...)"
    )


def _check_limits(tolerance: float, max_evaluations: int) -> None:
    if not (isinstance(tolerance, Real) and 0.0 <= float(tolerance) < np.inf):
        raise ModelError(f"tolerance={tolerance!r}: expected a decrease of the criterion, such as {TOLERANCE:g}")
    if not (isinstance(max_evaluations, Integral) and int(max_evaluations) >= 1):
        raise ModelError(f"max_evaluations={max_evaluations!r}: expected a whole number, at least 1")


def _check_method(reml: object) -> None:
    if reml not in (True, False):
        raise ModelError(f"reml={reml!r}: expected True (REML) or False (maximum likelihood)")


def _print_iteration(iteration: Iteration) -> None:
    theta = " ".join(f"{value:.5g}" for value in iteration.theta[:8])
    mark = "" if iteration.accepted else "  (rejected)"
    line = f"{iteration.seconds:8.3f} s  {iteration.step:<9} {iteration.criterion:18.8f}  theta {theta}{mark}"
    print(line, file=sys.stderr, flush=True)
