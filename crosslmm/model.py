"""The model: a formula with its data, ready to be fitted any number of times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from crosslmm.crossproducts import CrossProducts
from crosslmm.design.groups import Beside
from crosslmm.design.rows import ModelRows, Progress
from crosslmm.engine.plan import DirectEngine, Engine, IterativeEngine, Plan
from crosslmm.errors import ConvergenceWarning, FormulaError, ModelError, warn
from crosslmm.fit import Fit
from crosslmm.formula import MixedFormula, parse
from crosslmm.grouped.arguments import FitArguments, read_arguments
from crosslmm.grouped.build import formula_of_columns, is_column_list, model_of_arrays, model_of_formula, subset_of
from crosslmm.grouped.model_methods import ModelMethods
from crosslmm.grouped.restructure import Sets, restructured
from crosslmm.grouped.written import Written
from crosslmm.options import MAX_EVALUATIONS, TOLERANCE, check_limits, check_method, engine_options
from crosslmm.options import print_iteration as _print_iteration
from crosslmm.progress import logger, meter
from crosslmm.results import MixedLMResults
from crosslmm.sources import WithoutRows, read_model
from crosslmm.version import Versioned

if TYPE_CHECKING:
    from crosslmm.engine.protocol import Equations
    from crosslmm.objective import ObjectiveValue
    from crosslmm.precision import Spread


@dataclass(frozen=True, init=False, repr=False)
class MixedLM(ModelMethods, Versioned):
    """A linear mixed model: ``y = X beta + Z b + e``.

    Make one with `MixedLM.from_formula` (or `crosslmm.mixedlm`, the same function), or from arrays as in statsmodels.
    Fitting returns a value and leaves the model unchanged, so one model can be fitted by REML and ML, with any options,
    in any order.

    Parameters
    ----------
    endog : array, shape (n,)
        Response.
    exog : array, shape (n, p)
        Columns of the fixed effects.
    groups : array, shape (n,)
        Label of the group of every row.
    exog_re : array, shape (n, k), optional
        Columns whose effects vary by group, with any covariance; by default an intercept, unless `exog_vc` is given.
    exog_vc : VCSpec or dict, optional
        Variance components: for each, a matrix per group whose columns have independent effects of one variance.
    use_sqrt : bool
        Whether packed parameters (of `loglike` and the like) hold the Cholesky factor of `cov_re`.
    missing : {"none", "drop", "raise"}
        What to do with rows that miss a value: ``"none"`` and ``"raise"`` refuse them.

    Attributes
    ----------
    formula : MixedFormula
    design : ModelRows
        The rows used: a `Design` of those in memory, or what is known of those in a source or given as cross-products.
    written : Written or None
        How a model with `groups` was written; None for a formula with bars.
    """

    formula: MixedFormula
    design: ModelRows
    written: Written | None

    def __init__(
        self,
        endog: Any,
        exog: Any,
        groups: Any,
        exog_re: Any = None,
        exog_vc: Any = None,
        use_sqrt: bool = True,
        missing: str = "none",
    ):
        self._set(*model_of_arrays(endog, exog, groups, exog_re, exog_vc, use_sqrt=use_sqrt, missing=missing))

    def _set(self, formula: MixedFormula, design: ModelRows, written: Written | None) -> None:
        for name, value in (("formula", formula), ("design", design), ("written", written)):
            object.__setattr__(self, name, value)

    @classmethod
    def _made(cls, formula: MixedFormula, design: ModelRows, written: Written | None = None) -> MixedLM:
        """A model of its parts."""
        model = cls.__new__(cls)
        model._set(formula, design, written)
        return model

    @classmethod
    def from_formula(
        cls,
        formula: str,
        data: Any,
        re_formula: str | None = None,
        vc_formula: Mapping[str, str] | None = None,
        subset: Any = None,
        use_sparse: bool = False,
        missing: str = "none",
        *,
        groups: Any = None,
        weights: Any = None,
        offset: Any = None,
        context: Mapping[str, Any] | None = None,
        progress: bool | Progress | None = None,
        use_sqrt: bool = True,
    ) -> MixedLM:
        """Model from a formula and a table or another source of rows.

        The random part is written with bars, as in lme4, or with `groups`, `re_formula` and `vc_formula`, as in
        statsmodels; a formula with bars takes none of these three.

        Parameters
        ----------
        formula : str
            ``"y ~ x + (1 + x | g) + (1 | h)"``: an ordinary formulaic formula with lme4's random-effects terms, or
            without them where `groups` is given.
        data : table, path, list, callable or dask DataFrame
            A pandas, polars or pyarrow table or a dict of columns, never modified. Or rows that come in batches and are
            read twice: the path of a Parquet file or of a directory of such files, a list of paths, a list of tables,
            a callable that returns a new iterator over tables each time, a dask DataFrame.
            The rows of a model with `groups` are in memory.
        re_formula : str, optional
            Columns whose effects vary by group, with any covariance: ``"~ x"``, ``"0 + x"``. By default an intercept,
            unless `vc_formula` is given.
        vc_formula : dict of str to str, optional
            Variance components: for each name, columns within the groups that have independent effects of one
            variance. ``{"class": "0 + C(classroom)"}``: an effect of every classroom of every school.
        subset : array, optional
            Rows to use: truth values, or labels of the index.
        use_sparse : bool
            Accepted as in statsmodels: nothing here is stored densely.
        missing : {"none", "drop", "raise"}
            What to do with rows that miss a value in any column used. ``"none"`` leaves them out for a formula with
            bars and refuses them with `groups` (statsmodels: an error of its formulas).
        groups : str, array or list of str, optional
            A column of `data`, or a label for each of its rows by position. A list of two columns, which statsmodels
            cannot take, means crossed random intercepts: ``(1 | a) + (1 | b)``.
        weights : str or array, optional
            Prior weights w: the residual variance of row i is ``sigma^2 / w_i`` (as lme4). Rows in batches need the
            name of a column.
        offset : str or array, optional
            A known part of the response, in its units; as `weights`.
        context : mapping, optional
            Further names (functions, constants) that the formula may use.
        progress : bool or callable, optional
            Bars for what takes more than a second (needs tqdm): by default where standard error is a terminal. A
            callable is given the name of a phase, the rows done and the rows in all (or None) while rows in batches
            are read. The logger ``crosslmm`` has the same at level INFO.
        use_sqrt : bool
            As for `MixedLM`.

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
        crossed = is_column_list(groups, data)
        groups = groups[0] if crossed and len(groups) == 1 else groups
        beside = Beside(groups, weights, offset, subset)
        if groups is None:
            if re_formula is not None or vc_formula is not None:
                raise FormulaError("re_formula and vc_formula need groups=, the column or the labels of the groups")
            return cls._with_bars(formula, data, beside, missing, context, progress)
        if crossed and not isinstance(groups, str):
            if re_formula is not None or vc_formula is not None:
                raise FormulaError(
                    "a list of columns in groups means crossed random intercepts; for more write bars: "
                    "y ~ x + (1 + x | a) + (1 | b)"
                )
            return cls._with_bars(formula_of_columns(formula, groups), data, beside, missing, context, progress)
        with meter(progress) as shown:
            made = model_of_formula(
                formula,
                data,
                beside,
                re_formula=re_formula,
                vc_formula=vc_formula,
                missing=missing,
                context=context,
                use_sqrt=use_sqrt,
                progress=shown.rows,
            )
        return cls._made(*made)

    @classmethod
    def _with_bars(
        cls,
        formula: str,
        data: Any,
        beside: Beside,
        missing: str,
        context: Mapping[str, Any] | None,
        progress: bool | Progress | None,
    ) -> MixedLM:
        parsed = parse(formula)
        missing = "drop" if missing == "none" else missing
        weights, offset = beside.weights, beside.offset
        if beside.subset is not None:
            data, weights, offset = subset_of(parsed, data, beside, context)
        with meter(progress) as shown:
            design = read_model(
                parsed, data, weights=weights, offset=offset, missing=missing, context=context, progress=shown.rows
            )
        return cls._made(parsed, design)

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
        return cls._made(parse(xp.layout.formula), WithoutRows(xp))

    def fit(
        self,
        start_params: Any = None,
        reml: bool = True,
        niter_sa: int = 0,
        do_cg: bool = True,
        fe_pen: None = None,
        cov_pen: None = None,
        free: Any = None,
        full_output: bool = False,
        method: str | Sequence[str] | None = None,
        *,
        engine: str | Engine = "auto",
        start: Any = None,
        tolerance: float = TOLERANCE,
        max_evaluations: int = MAX_EVALUATIONS,
        verbose: bool = False,
        progress: bool | Progress | None = None,
        **fit_kwargs: Any,
    ) -> MixedLMResults:
        """Estimate the model.

        Parameters
        ----------
        start_params : MixedLMParams or array, optional
            Where to start, as in statsmodels: of a model with `groups`. True or False in this place is taken for
            `reml`: ``model.fit(False)``.
        reml : bool
            Restricted maximum likelihood (default), or maximum likelihood.
        niter_sa, method
            Arguments of statsmodels' optimisers, which have no meaning here: said in a `DataWarning`.
        do_cg : bool
            False stops where the search would begin.
        fe_pen, cov_pen : None
            Penalties are refused; see `fit_regularized`.
        free : MixedLMParams, optional
            Holds covariances of `cov_re` at 0 where its own are 0: an identity matrix makes the random effects
            independent. They must fall into sets, independent of each other. Of a model with `groups`.
        full_output : bool
            Keep the iterations in `hist`. They are in `optimization` at any rate.
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
        **fit_kwargs
            Further arguments of statsmodels' optimisers, such as ``gtol`` or ``maxiter``; as `method`.

        Returns
        -------
        MixedLMResults

        Raises
        ------
        ModelError
            A penalty or an unknown argument is given, or one that the model cannot use.

        Warns
        -----
        ConvergenceWarning
            The optimiser stopped before its test was met.
        DataWarning
            An argument of statsmodels' optimisers was given.
        """
        if isinstance(start_params, (bool, np.bool_)):
            start_params, reml = None, bool(start_params)
        check_method(reml)
        given = read_arguments(
            FitArguments(start_params, niter_sa, do_cg, fe_pen, cov_pen, free, full_output, method, fit_kwargs),
            None if self.written is None else self._space,
        )
        model = self if given.sets is None else self._restructured(given.sets)
        theta = start if given.theta is None else given.theta
        limit = max_evaluations if do_cg else 1
        found = model._estimate(reml, engine, theta, tolerance, limit, verbose or given.show, progress)
        if not found.converged and do_cg:
            message = (
                f"the fit did not converge: {found.message}. See fit.optimization; other starts (start=) may help."
            )
            warn(message, ConvergenceWarning)
        if self.written is None:
            return MixedLMResults(model, found)
        from crosslmm.grouped.results import GroupedResults

        return GroupedResults(model, found, freepat=free, keep_history=bool(full_output))

    def _estimate(
        self,
        reml: bool,
        engine: str | Engine,
        start: Any,
        tolerance: float,
        max_evaluations: int,
        verbose: bool,
        progress: bool | Progress | None,
    ) -> Fit:
        from crosslmm.estimate import estimate

        check_limits(tolerance, max_evaluations)
        with meter(False if verbose else progress) as shown:
            xp, equations = self.crossproducts, self._equations(engine)
            logger.info("plan: %s engine, %s", equations.plan.engine, equations.plan.reason)
            return estimate(
                xp,
                equations,
                reml=reml,
                start=None if start is None else self._theta(start),
                tolerance=tolerance,
                max_evaluations=max_evaluations,
                report=_print_iteration if verbose else shown.iteration if shown.follows_iterations else None,
            )

    def _restructured(self, sets: Sets) -> MixedLM:
        """The model whose random effects of a group are correlated within sets only."""
        text = None if self.written is None else self.written.part.re_term
        return self if text is None else self._made(self.formula, restructured(self.design, text, sets), self.written)

    def estimate_once(self, *, reml: bool) -> Fit:
        """A fit with the default options, as numbers; unlike `fit` it says nothing and makes no results."""
        return self._estimate(reml, "auto", None, TOLERANCE, MAX_EVALUATIONS, False, False)

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

        check_method(reml)
        return objective_at(self._equations(engine), self.crossproducts, self._theta(theta), reml=reml)

    def equations_of(self, fit: Fit) -> Equations:
        """The equations of one of its fits: of the same engine with the same options, and as many probes."""
        options = fit.plan.options
        if isinstance(options, IterativeEngine):
            n_probes = options.n_probes if fit.sampling is None else fit.sampling.n_probes
            options = options.with_probes(n_probes)
        return self._equations(options)

    def statistical_spread(self, fit: Fit) -> Spread:
        """Errors of theta and sigma of one of its fits by the sampling of the data (average information)."""
        from crosslmm.uncertainty import statistical_at

        return statistical_at(self.crossproducts, self.equations_of(fit), fit.theta, fit.sigma, reml=fit.reml)

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

        options = engine_options(engine)
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

    def __repr__(self) -> str:
        groups = ", ".join(f"{f.name}: {f.n_levels:,}" for f in self.design.layout.factors)
        return f"MixedLM({self.formula.source!r}, {self.design.n:,} rows, levels {groups})"
