"""Terms dropped in turn: random effects, fixed effects, and backward elimination of both.

Smaller models are fitted from the cross-products of the larger one, so no row is read again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.engine.choose import choose
from crosslmm.errors import ModelError
from crosslmm.estimate import estimate
from crosslmm.fit import Fit
from crosslmm.inference.least_squares import LeastSquares, least_squares
from crosslmm.inference.likelihood_ratio import by_ml, chi_squared_tail
from crosslmm.inference.reduce import TermColumns, fixed_only_criterion, whole_term, with_fixed, with_terms
from crosslmm.inference.terms import FormulaTerm, droppable, formula_terms

if TYPE_CHECKING:
    from crosslmm.results import MixedLMResults

INTERCEPT = "Intercept"

TOLERANCE = 1e-9
MOST_EVALUATIONS = 500
"""As for any fit."""

TESTS = ("lrt", "satterthwaite", "kenward-roger", "residual", "normal")

DISJOINT = 1e-8
"""Cross-product of two columns, in units of their lengths, below which no row has both."""


@dataclass(frozen=True)
class Reduction:
    """One step smaller in the random effects.

    Attributes
    ----------
    label : str
        ``"(1 | g)"`` where a term goes, ``"x in (1 + x | g)"`` where a part of it does.
    kept : tuple of TermColumns
        What is left; empty where nothing is.
    """

    label: str
    kept: tuple[TermColumns, ...]


def smaller_fit(fit: MixedLMResults, xp: CrossProducts, *, reml: bool) -> Fit:
    """Estimates of a smaller model from its cross-products, with the engine of `fit`."""
    return estimate(
        xp, choose(xp, fit.estimates.plan.options), reml=reml, tolerance=TOLERANCE, max_evaluations=MOST_EVALUATIONS
    )


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
        First the fit itself, then one row per reduction: npar, log_lik, aic, lrt, df, p_value. Plain chi-squared
        tests, by the method of the fit (REML or ML).
    """
    layout, estimates = fit.estimates.layout, fit.estimates
    labels, npar, criteria = ["<none>"], [estimates.n_parameters], [estimates.criterion]
    for step in reductions(fit, reduce_terms=reduce_terms):
        labels.append(step.label)
        if step.kept:
            smaller = smaller_fit(fit, _without(fit, step), reml=estimates.reml)
            npar.append(smaller.n_parameters)
            criteria.append(smaller.criterion)
        else:
            npar.append(layout.n_fixed + 1)
            criteria.append(fixed_only_criterion(fit.model.crossproducts, reml=estimates.reml))
    return _random_table(labels, np.array(npar), np.array(criteria))


def _random_table(labels: list[str], npar: FloatArray, criteria: FloatArray) -> pd.DataFrame:
    lrt = np.append(np.nan, np.maximum(criteria[1:] - criteria[0], 0.0))
    df = npar[0] - npar
    return pd.DataFrame(
        {
            "npar": npar,
            "log_lik": -0.5 * criteria,
            "aic": criteria + 2.0 * npar,
            "lrt": lrt,
            "df": pd.array([None, *df[1:]], dtype="Int64"),
            "p_value": chi_squared_tail(lrt, df.astype(float)),
        },
        index=pd.Index(labels, name="term"),
    )


def _without(fit: MixedLMResults, step: Reduction) -> CrossProducts:
    formula = formula_text(fit, [part.label for part in step.kept], fit.model.formula.fixed)
    return with_terms(fit.model.crossproducts, step.kept, formula)


def formula_text(fit: MixedLMResults, random: list[str], fixed: str) -> str:
    """Formula with other terms on its right-hand side."""
    return f"{fit.model.formula.response} ~ {' + '.join([fixed, *random])}"


def reductions(fit: MixedLMResults, *, reduce_terms: bool) -> list[Reduction]:
    """What each random-effects term can be made smaller to, as in lmerTest."""
    layout = fit.estimates.layout
    steps = []
    for i, term in enumerate(layout.terms):
        others = [whole_term(layout, j) for j in range(len(layout.terms)) if j != i]
        names = tuple(layout.factors[term.factor].columns[j] for j in term.columns)
        text = next(t.columns for t in fit.model.formula.random if t.text == term.label)
        reducible = reduce_terms and term.covariance.name == "unstructured"
        parts = droppable(formula_terms(text, names)) if reducible else ()
        if not parts:
            steps.append(Reduction(term.label, tuple(others)))
        for part in parts:
            left = _left_of(fit, i, names, text, part)
            kept = sorted([*others, *([left] if left else [])], key=lambda t: t.term)
            steps.append(Reduction(f"{part.text} in {term.label}", tuple(kept)))
    return steps


def _left_of(
    fit: MixedLMResults, index: int, names: tuple[str, ...], text: str, part: FormulaTerm
) -> TermColumns | None:
    """What is left of a term without one of its parts; None where nothing is.

    Where its only part is a factor without an intercept, ``(0 + f | g)``, the intercept is left, the sum of the
    indicators, unless another term of the same groups has it.
    """
    layout = fit.estimates.layout
    term = layout.terms[index]
    stays = [j for j in range(len(names)) if j not in part.columns]
    if stays:
        texts = [t.text for t in formula_terms(text, names) if t.text != part.text]
        sides = texts if "1" in texts else ["0", *texts]
        left = tuple(names[j] for j in stays)
        return TermColumns(index, left, np.eye(len(names))[:, stays], _label(sides, term.label))
    elsewhere = any(
        layout.factors[t.factor].columns[j] == INTERCEPT
        for t in layout.terms
        if t.factor == term.factor
        for j in t.columns
    )
    if elsewhere or not _indicators(fit.model.crossproducts, index, names):
        return None
    return TermColumns(index, (INTERCEPT,), np.ones((len(names), 1)), _label(["1"], term.label))


def _label(sides: list[str], label: str) -> str:
    return f"({' + '.join(sides)} |{label.split('|', 1)[1]}"


def _indicators(xp: CrossProducts, index: int, names: tuple[str, ...]) -> bool:
    """Whether the columns of a term are the indicators of all levels of a factor: no row has two of them."""
    term = xp.layout.terms[index]
    if not all(name.endswith("]") and "[T." not in name for name in names):
        return False
    U = np.linalg.inv(xp.layout.standardization.z_bases[term.factor])
    gram = U.T @ xp.diagonal[term.factor].sum(axis=2) @ U
    gram = gram[np.ix_(term.columns, term.columns)]
    unit = np.sqrt(np.diag(gram))
    return bool(np.abs(gram / np.outer(unit, unit) - np.eye(unit.size)).max() < DISJOINT)


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
        By term. ``"lrt"``: npar, aic, lrt, df, p_value, with the whole model in the first row. F tests: num_df,
        den_df, f_value, p_value.
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
    whole = by_ml(fit).estimates
    npar, criteria = [whole.n_parameters], [whole.criterion]
    for term in candidates:
        smaller = smaller_fit(fit, _without_fixed(fit, terms, term), reml=False)
        npar.append(smaller.n_parameters)
        criteria.append(smaller.criterion)
    return _fixed_table(candidates, npar, criteria)


def _fixed_table(candidates: tuple[FormulaTerm, ...], npar: list[int], criteria: list[float]) -> pd.DataFrame:
    table = _random_table(["<none>", *(t.text for t in candidates)], np.array(npar), np.array(criteria))
    return table[["npar", "aic", "lrt", "df", "p_value"]]


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
            "No random-effects term is left: the fixed effects were tested by least squares, "
            f"with {self.fit.df_resid:,} residual degrees of freedom in the last model.",
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
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0.0 <= alpha <= 1.0:
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
        worst = int(np.argmax(table["p_value"].to_numpy(float)[1:]))
        if not table["p_value"].iloc[worst + 1] > alpha:
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
    criteria = [fixed_only_criterion(part, reml=False) for part in smaller]
    npar = [part.layout.n_fixed + 1 for part in smaller]
    table = _fixed_table(candidates, [model.n_parameters, *npar], [model.deviance, *criteria])
    return table.loc[[t.text for t in candidates]]


def _to_drop(table: pd.DataFrame, alpha: float) -> int | None:
    """Row with the largest p-value; None where it is not above the limit."""
    worst = int(np.argmax(table["p_value"].to_numpy(float)))
    return worst if table["p_value"].iloc[worst] > alpha else None


def _check_test(test: str) -> None:
    if test not in TESTS:
        raise ModelError(f"test={test!r}: expected one of {', '.join(map(repr, TESTS))}")


def _history(dropped: list[pd.DataFrame], left: pd.DataFrame | None) -> pd.DataFrame:
    parts = [table.assign(eliminated=i) for i, table in enumerate(dropped, start=1)]
    if left is not None:
        parts.append(left.assign(eliminated=0))
    return pd.concat(parts) if parts else pd.DataFrame(columns=["eliminated"])
