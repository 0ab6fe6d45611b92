"""Terms dropped in turn: random effects, fixed effects, and backward elimination of both.

Smaller models are fitted from the cross-products of the larger one, so no row is read again.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crosslmm.crossproducts import CrossProducts
from crosslmm.engine.choose import choose
from crosslmm.errors import ConvergenceWarning, ModelError, warn
from crosslmm.estimate import estimate
from crosslmm.fit import Fit
from crosslmm.inference.least_squares import LeastSquares, least_squares
from crosslmm.inference.likelihood_ratio import by_ml, chi_squared_tail, criterion_error, is_worse
from crosslmm.inference.reduce import fixed_only_criterion, with_fixed, with_terms
from crosslmm.inference.reductions import Reduction, reductions
from crosslmm.inference.terms import FormulaTerm, droppable, formula_terms

if TYPE_CHECKING:
    from crosslmm.results import MixedLMResults

TOLERANCE = 1e-9
MOST_EVALUATIONS = 500
"""As for any fit."""

TESTS = ("lrt", "satterthwaite", "kenward-roger", "residual", "normal")


@dataclass(frozen=True)
class Row:
    """A model in a table of likelihood ratios.

    Attributes
    ----------
    label : str
    npar : int
        Its parameters.
    criterion : float
    error : float
        Monte Carlo standard error of the criterion; 0 where it is exact.
    """

    label: str
    npar: int
    criterion: float
    error: float


def smaller_fit(fit: MixedLMResults, xp: CrossProducts, *, reml: bool) -> Fit:
    """Estimates of a smaller model from its cross-products, with the engine of `fit`."""
    found = estimate(
        xp, choose(xp, fit.estimates.plan.options), reml=reml, tolerance=TOLERANCE, max_evaluations=MOST_EVALUATIONS
    )
    if not found.converged:
        warn(f"the search for {xp.layout.formula!r} has not converged: {found.message}", ConvergenceWarning)
    return found


def refitted(fit: MixedLMResults, xp: CrossProducts, *, reml: bool) -> MixedLMResults:
    """A smaller model fitted from its cross-products, with the engine of `fit`."""
    return type(fit.model).from_crossproducts(xp).fit(reml=reml, engine=fit.estimates.plan.options)


def ranova(fit: MixedLMResults, *, reduce_terms: bool = True) -> pd.DataFrame:
    """Likelihood-ratio tests of the random-effects terms, each dropped or made smaller in turn.

    Parameters
    ----------
    reduce_terms : bool
        Whether a term of several columns loses one of its parts (``(1 + x | g)`` becomes ``(1 | g)``), as in
        lmerTest, and is not dropped at once.

    Returns
    -------
    DataFrame
        First the fit itself, then one row per reduction: npar, log_lik, aic, lrt, df, p_value, and lrt_mc_error where
        the engine sampled. Plain chi-squared tests, by the method of the fit (REML or ML). lrt and p_value are nan in
        the first row, and where the smaller model fits better: the search for the larger one ended early, which is
        warned of.
    """
    if not isinstance(reduce_terms, bool):
        raise ModelError(f"reduce_terms={reduce_terms!r}: expected True or False")
    layout, estimates = fit.estimates.layout, fit.estimates
    rows = [_fitted("<none>", estimates)]
    for step in reductions(fit, reduce_terms=reduce_terms):
        if step.kept:
            rows.append(_fitted(step.label, smaller_fit(fit, _without(fit, step), reml=estimates.reml)))
        else:
            criterion = fixed_only_criterion(fit.model.crossproducts, reml=estimates.reml)
            rows.append(Row(step.label, layout.n_fixed + 1, criterion, 0.0))
    return _ratio_table(rows)


def _fitted(label: str, fit: Fit) -> Row:
    return Row(label, fit.n_parameters, fit.criterion, criterion_error(fit))


def _ratio_table(rows: list[Row]) -> pd.DataFrame:
    """Likelihood-ratio tests of smaller models against the first one."""
    whole = rows[0]
    lrt = np.array([np.nan, *(_checked_ratio(whole, row) for row in rows[1:])])
    npar, criteria = np.array([row.npar for row in rows]), np.array([row.criterion for row in rows])
    df = npar[0] - npar
    table = pd.DataFrame(
        {
            "npar": npar,
            "log_lik": -0.5 * criteria,
            "aic": criteria + 2.0 * npar,
            "lrt": lrt,
            "df": pd.array([None, *df[1:]], dtype="Int64"),
            "p_value": chi_squared_tail(lrt, df.astype(float)),
        },
        index=pd.Index([row.label for row in rows], name="term"),
    )
    if not any(row.error for row in rows):
        return table
    return table.assign(lrt_mc_error=[np.nan, *(float(np.hypot(whole.error, row.error)) for row in rows[1:])])


def _checked_ratio(whole: Row, row: Row) -> float:
    drop = row.criterion - whole.criterion
    if is_worse(drop, whole.error, row.error):
        warn(
            f"without {row.label!r} the deviance is lower, by {-drop:.4g}: the search for the larger model ended early "
            "(see fit.optimization), and the term is not tested",
            ConvergenceWarning,
        )
        return np.nan
    return max(drop, 0.0)


def _without(fit: MixedLMResults, step: Reduction) -> CrossProducts:
    formula = formula_text(fit, [part.label for part in step.kept], fit.model.formula.fixed)
    return with_terms(fit.model.crossproducts, step.kept, formula)


def formula_text(fit: MixedLMResults, random: list[str], fixed: str) -> str:
    """Formula with other terms on its right-hand side."""
    return f"{fit.model.formula.response} ~ {' + '.join([fixed, *random])}"


def drop1(fit: MixedLMResults, *, test: str = "lrt") -> pd.DataFrame:
    """Tests of the fixed-effects terms, each dropped in turn; terms that are part of an interaction stay.

    Parameters
    ----------
    test : {"lrt", "satterthwaite", "kenward-roger", "residual", "normal"}
        Likelihood ratio, by ML in any case; or the F test (`fit.test`) with these denominator degrees of freedom of
        the hypothesis that the coefficients of the term are 0.

    Returns
    -------
    DataFrame
        By term. ``"lrt"``: npar, aic, lrt, df, p_value (and lrt_mc_error, see `ranova`), with the whole model in the
        first row. F tests: num_df, den_df, f_value, p_value.
    """
    _check_test(test)
    terms = formula_terms(fit.model.formula.fixed, fit.estimates.layout.fixed)
    candidates = droppable(terms)
    if not candidates:
        raise ModelError(f"no fixed-effects term of {fit.formula!r} can be dropped")
    if test == TESTS[0]:
        return _drop1_by_likelihood(fit, terms, candidates)
    return _drop1_by_f(fit, candidates, test)


def _drop1_by_likelihood(
    fit: MixedLMResults, terms: tuple[FormulaTerm, ...], candidates: tuple[FormulaTerm, ...]
) -> pd.DataFrame:
    smaller = [smaller_fit(fit, _without_fixed(fit, terms, term), reml=False) for term in candidates]
    rows = [_fitted(term.text, part) for term, part in zip(candidates, smaller, strict=True)]
    return _ratio_table([_fitted("<none>", by_ml(fit).estimates), *rows]).drop(columns="log_lik")


def _without_fixed(fit: MixedLMResults, terms: tuple[FormulaTerm, ...], dropped: FormulaTerm) -> CrossProducts:
    random = [term.label for term in fit.estimates.layout.terms]
    formula = formula_text(fit, random, _fixed_text(terms, dropped))
    return with_fixed(fit.model.crossproducts, _columns_without(fit.estimates.layout.n_fixed, dropped), formula)


def _fixed_text(terms: tuple[FormulaTerm, ...], dropped: FormulaTerm) -> str:
    """The fixed part without a term."""
    texts = [t.text for t in terms if t is not dropped]
    return " + ".join(texts if "1" in texts else ["0", *texts])


def _columns_without(p: int, dropped: FormulaTerm) -> list[int]:
    return [j for j in range(p) if j not in dropped.columns]


def _drop1_by_f(fit: MixedLMResults, candidates: tuple[FormulaTerm, ...], ddf: str) -> pd.DataFrame:
    rows = []
    for term in candidates:
        L = np.eye(fit.estimates.layout.n_fixed)[list(term.columns)]
        result = fit.test(L, ddf=ddf)
        rows.append((result.num_df, result.den_df, result.f_value, result.p_value))
    return _f_table(candidates, rows)


def _f_table(candidates: tuple[FormulaTerm, ...], rows: list[tuple[int, float, float, float]]) -> pd.DataFrame:
    columns = ["num_df", "den_df", "f_value", "p_value"]
    return pd.DataFrame(rows, columns=columns, index=pd.Index([t.text for t in candidates], name="term"))


@dataclass(frozen=True, repr=False)
class Elimination:
    """Backward elimination.

    Attributes
    ----------
    random, fixed : DataFrame
        The tests of what was dropped, in the order in which it was, then of what was left, with a column ``eliminated``
        (0 where a term stayed).
    fit : MixedLMResults or LeastSquares
        The last model, fitted from cross-products: it has no rows. Fit its formula to the data for fitted values.
        Where the last random-effects term went, it is by least squares.
    """

    random: pd.DataFrame
    fixed: pd.DataFrame
    fit: MixedLMResults | LeastSquares

    @property
    def formula(self) -> str:
        """Formula of the last model, its random-effects terms spelled out."""
        if isinstance(self.fit, LeastSquares):
            return self.fit.formula
        labels = [term.label for term in self.fit.estimates.layout.terms]
        return formula_text(self.fit, labels, self.fit.model.formula.fixed)

    @property
    def notes(self) -> tuple[str, ...]:
        """What must be said beside the tables."""
        if not isinstance(self.fit, LeastSquares):
            return ()
        return (
            "No random-effects term is left: the fixed effects are those of least squares, with "
            f"{self.fit.df_resid:,} residual degrees of freedom.",
        )

    def __repr__(self) -> str:
        parts = ["Backward elimination of random effects", self.random.to_string(), ""]
        fixed = "nothing to eliminate" if self.fixed.empty else self.fixed.to_string()
        parts += ["Backward elimination of fixed effects", fixed, ""]
        return "\n".join([*parts, f"Model found: {self.formula}", *self.notes])


def step(
    fit: MixedLMResults, *, alpha_random: float = 0.1, alpha_fixed: float = 0.05, test: str = "lrt"
) -> Elimination:
    """Backward elimination: random-effects terms by `ranova`, then fixed-effects terms by `drop1`.

    In each round the term with the largest p-value goes, if that is above the limit. Where the last random-effects term
    goes, what is left is least squares, as in lmerTest: fixed effects are then tested by the likelihood ratio of linear
    models (``test="lrt"``) or by F with the residual degrees of freedom (infinite for ``"normal"``).

    Raises
    ------
    ModelError
        A limit is no probability, the test is unknown, or a variance component has several columns.
    """
    for name, alpha in (("alpha_random", alpha_random), ("alpha_fixed", alpha_fixed)):
        if isinstance(alpha, bool) or not isinstance(alpha, Real) or not 0.0 <= alpha <= 1.0:
            raise ModelError(f"{name}={alpha!r}: expected a probability, such as 0.05")
    _check_test(test)
    if any(term.covariance.name != "unstructured" for term in fit.estimates.layout.terms):
        raise ModelError(
            "step() states the models it finds with bars, which have no form for a variance component of several "
            "columns: use ranova() and drop1()"
        )
    current, random = _eliminate_random(fit, alpha_random)
    if current is None:
        found, fixed = _eliminate_by_least_squares(fit, alpha_fixed, test)
        return Elimination(random, fixed, found)
    current, fixed = _eliminate_fixed(current, alpha_fixed, test)
    return Elimination(random, fixed, current)


def _eliminate_random(fit: MixedLMResults, alpha: float) -> tuple[MixedLMResults | None, pd.DataFrame]:
    """The model with the random effects that are left, None where there are none, and the tests."""
    dropped: list[pd.DataFrame] = []
    while True:
        table = ranova(fit)
        steps = reductions(fit, reduce_terms=True)
        worst = _to_drop(table.iloc[1:], alpha)
        if worst is None:
            return fit, _history(dropped, table.iloc[1:])
        dropped.append(table.iloc[[worst + 1]])
        if not steps[worst].kept:
            return None, _history(dropped, None)
        fit = refitted(fit, _without(fit, steps[worst]), reml=fit.estimates.reml)


def _eliminate_fixed(fit: MixedLMResults, alpha: float, test: str) -> tuple[MixedLMResults, pd.DataFrame]:
    dropped: list[pd.DataFrame] = []
    while True:
        terms = formula_terms(fit.model.formula.fixed, fit.estimates.layout.fixed)
        candidates = droppable(terms)
        if not candidates:
            return fit, _history(dropped, None)
        table = drop1(fit, test=test).loc[[t.text for t in candidates]]
        worst = _to_drop(table, alpha)
        if worst is None:
            return fit, _history(dropped, table)
        dropped.append(table.iloc[[worst]])
        fit = refitted(fit, _without_fixed(fit, terms, candidates[worst]), reml=fit.estimates.reml)


def _eliminate_by_least_squares(fit: MixedLMResults, alpha: float, test: str) -> tuple[LeastSquares, pd.DataFrame]:
    """The same for the fixed part of a fit whose random effects are left out."""
    dropped: list[pd.DataFrame] = []
    xp, text = fit.model.crossproducts, fit.model.formula.fixed
    while True:
        model = least_squares(xp, formula_text(fit, [], text))
        terms = formula_terms(text, model.names)
        candidates = droppable(terms)
        if not candidates:
            return model, _history(dropped, None)
        table = _drop1_by_least_squares(xp, model, candidates, test)
        worst = _to_drop(table, alpha)
        if worst is None:
            return model, _history(dropped, table)
        dropped.append(table.iloc[[worst]])
        text = _fixed_text(terms, candidates[worst])
        keep = _columns_without(len(model.names), candidates[worst])
        xp = with_fixed(xp, keep, formula_text(fit, [], text))


def _drop1_by_least_squares(
    xp: CrossProducts, model: LeastSquares, candidates: tuple[FormulaTerm, ...], test: str
) -> pd.DataFrame:
    if test != TESTS[0]:
        df = np.inf if test == "normal" else model.df_resid
        return _f_table(candidates, [model.f_test(term.columns, df=df) for term in candidates])
    smaller = [with_fixed(xp, _columns_without(len(model.names), term), model.formula) for term in candidates]
    rows = [
        Row(term.text, part.layout.n_fixed + 1, fixed_only_criterion(part, reml=False), 0.0)
        for term, part in zip(candidates, smaller, strict=True)
    ]
    return (
        _ratio_table([Row("<none>", model.n_parameters, model.deviance, 0.0), *rows]).iloc[1:].drop(columns="log_lik")
    )


def _to_drop(table: pd.DataFrame, alpha: float) -> int | None:
    """Row with the largest p-value; None where it is not above the limit. Terms that were not tested stay."""
    p_values = table["p_value"].fillna(-1.0).to_numpy(float)
    worst = int(np.argmax(p_values))
    return worst if p_values[worst] > alpha else None


def _check_test(test: str) -> None:
    if test not in TESTS:
        raise ModelError(f"test={test!r}: expected one of {', '.join(map(repr, TESTS))}")


def _history(dropped: list[pd.DataFrame], left: pd.DataFrame | None) -> pd.DataFrame:
    parts = [table.assign(eliminated=i) for i, table in enumerate(dropped, start=1)]
    if left is not None:
        parts.append(left.assign(eliminated=0))
    return pd.concat(parts) if parts else pd.DataFrame(columns=["eliminated"])
