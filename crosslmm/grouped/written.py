"""What a model that was written with groups knows beside its formula and its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crosslmm.design.groups import Groups
from crosslmm.errors import ModelError
from crosslmm.formula import GroupPart, MixedFormula
from crosslmm.layout import Layout, Term


@dataclass(frozen=True)
class Written:
    """How a model was written.

    Attributes
    ----------
    part : GroupPart
    groups : Groups
    re_names : tuple of str
        Names of the random effects of a group.
    re_full : tuple of str
        Names of their variances and covariances.
    labelled : bool
        Whether results are pandas objects; numpy arrays where the model was given as arrays.
    use_sqrt : bool
        Whether packed parameters hold Cholesky factors.
    context : mapping
        Further names that the formula uses.
    exog : tuple of str or None
        Columns that stand for `exog`; None for a model from a formula.
    columns : mapping of str to tuple of str
        Names of the columns of the components that are no factors, by the text of the term.
    """

    part: GroupPart
    groups: Groups
    re_names: tuple[str, ...]
    re_full: tuple[str, ...]
    labelled: bool
    use_sqrt: bool
    context: Mapping[str, Any]
    exog: tuple[str, ...] | None
    columns: Mapping[str, tuple[str, ...]]

    @property
    def vc_names(self) -> tuple[str, ...]:
        """Names of the variance components."""
        return tuple(component.name for component in self.part.components)

    @property
    def covariance_names(self) -> tuple[str, ...]:
        """Names of all covariance parameters."""
        return (*self.re_full, *(f"{name} Var" for name in self.vc_names))

    def re_terms(self, layout: Layout) -> tuple[Term, ...]:
        """Terms of the random effects of a group: one, none, or one for every set that is correlated."""
        text = self.part.re_term
        return () if text is None else tuple(term for term in layout.terms if term.label.startswith(text))

    def vc_terms(self, layout: Layout) -> tuple[Term, ...]:
        """Terms of the variance components."""
        return tuple(find_term(layout, component.term) for component in self.part.components)


def find_term(layout: Layout, text: str) -> Term:
    """The term of a layout that was written so."""
    return next(term for term in layout.terms if term.label == text)


def lower_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the lower triangle of a covariance, row by row."""
    return tuple(
        f"{names[j]} x {names[i]} Cov" if i != j else f"{names[i]} Var" for i in range(len(names)) for j in range(i + 1)
    )


def written(
    formula: MixedFormula,
    layout: Layout,
    groups: Groups,
    *,
    use_sqrt: bool = True,
    context: Mapping[str, Any] | None = None,
) -> Written:
    """How a model from a formula was written."""
    part = formula.groups
    if part is None:
        raise ModelError("the random part of this formula was written with bars")
    term = None if part.re_term is None else find_term(layout, part.re_term)
    columns = () if term is None else tuple(layout.factors[term.factor].columns[j] for j in term.columns)
    names = tuple(name.replace("Intercept", part.label) for name in columns)
    return Written(
        part=part,
        groups=groups,
        re_names=names,
        re_full=lower_names(names),
        labelled=True,
        use_sqrt=use_sqrt,
        context=context or {},
        exog=None,
        columns={},
    )
