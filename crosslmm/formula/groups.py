"""Statsmodels' way to write a random part: ``groups``, ``re_formula``, ``vc_formula``, to the same `RandomTerm`s.

`re_formula` is one unstructured term on the groups. Each entry of `vc_formula` is one variance for independent columns
within the groups. Statsmodels makes a matrix of these columns for every group; here the levels of a category within
the groups are a factor of their own with one column, so that nothing of the size of a group is ever formed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from formulaic.parser.types import Factor, Term

from crosslmm.errors import FormulaError
from crosslmm.formula.bars import RandomTerm, column_terms, columns_text, term_text
from crosslmm.formula.check import check_characters, check_powers, uses
from crosslmm.formula.mixed import Component, GroupPart, MixedFormula
from crosslmm.formula.read import read
from crosslmm.formula.scan import scan

WITHIN_GROUPS = frozenset({"bs", "cc", "center", "contr", "cr", "cs", "hashed", "lag", "poly", "scale", "standardize"})
"""Transformations whose values depend on the other rows, which statsmodels evaluates in every group by itself."""


@dataclass(frozen=True)
class GroupFacts:
    """What must be known of the data to read a variance component.

    Attributes
    ----------
    column : str
        Data column of the groups.
    label : str
        What they are called in results.
    several : bool
        Whether there are several groups; one alone nests nothing.
    categorical : callable
        Whether a data column holds categories.
    """

    column: str
    label: str
    several: bool
    categorical: Callable[[str], bool]


def formula_texts(re_formula: str | None, vc_formula: Mapping[str, str] | None) -> tuple[str | None, dict[str, str]]:
    """Right-hand sides without their ``~``: of the random effects, and of the components by name, sorted.

    Raises
    ------
    FormulaError
        One of them is no text, or holds what formulaic would misread.
    """
    if vc_formula is not None and not isinstance(vc_formula, Mapping):
        kind = type(vc_formula).__name__
        raise FormulaError(f"vc_formula is a dict of names and formulas such as {{'class': '0 + C(room)'}}, not {kind}")
    re_text = None if re_formula is None else _right_side(re_formula, "re_formula")
    entries = {} if vc_formula is None else {str(name): text for name, text in vc_formula.items()}
    return re_text, {name: _right_side(entries[name], f"vc_formula[{name!r}]") for name in sorted(entries)}


def _right_side(formula: str, what: str) -> str:
    if not isinstance(formula, str):
        raise FormulaError(f"{what} is a formula such as '~ 1 + x', not {type(formula).__name__}")
    scanned = scan(" ".join(formula.splitlines()))
    check_characters(scanned)
    check_powers(scanned)
    bars = [i for i, char in enumerate(scanned.source) if char == "|" and not scanned.opaque[i]]
    if bars:
        raise FormulaError(f"{what} names columns only: the groups are given with groups=", formula, (bars[0],) * 2)
    text = scanned.source.strip().removeprefix("~").strip()
    if not text:
        raise FormulaError(f"{what} is empty; write '1' for a random intercept")
    return text


def with_groups(
    formula: MixedFormula, facts: GroupFacts, re_text: str | None, vc_texts: Mapping[str, str]
) -> MixedFormula:
    """The formula with the random part of statsmodels' arguments.

    Without any of them, every group has a random intercept; with components only, it has none (as statsmodels).

    Raises
    ------
    FormulaError
        A formula cannot be read, uses the response, or depends on the rows of a group in a way that is not supported.
    """
    terms: list[RandomTerm] = []
    re_term = None
    if re_text is not None or not vc_texts:
        columns = columns_text(column_terms(re_text or "1"))
        re_term = _term(columns, (facts.column,), "unstructured")
        terms.append(re_term)
    components = []
    for name, text in vc_texts.items():
        term, pieces = _component(name, text, facts)
        terms.append(term)
        components.append(Component(name, term.text, pieces))
    _check_response(formula, terms)
    _check_duplicates(terms)
    part = GroupPart(facts.column, facts.label, None if re_term is None else re_term.text, tuple(components))
    return replace(formula, source=with_bars(formula.source, terms), random=tuple(terms), groups=part)


def with_bars(source: str, terms: Sequence[RandomTerm]) -> str:
    """The formula with its random part in bars, as far as bars can state it."""
    return " + ".join([source, *(term.text for term in terms)])


def _term(columns: str, grouping: tuple[str, ...], covariance: str, name: str = "") -> RandomTerm:
    """A term; with a name its text is one of its own, because bars do not state one variance for several columns."""
    label = ":".join(grouping)
    text = f"({columns} | {label})"
    return RandomTerm(columns, grouping, label, covariance, f"{name}: {text}" if name else text)


def _component(name: str, text: str, facts: GroupFacts) -> tuple[RandomTerm, tuple[tuple[str, str | None], ...]]:
    """The term of one variance component, and the pieces that its columns are labelled by."""
    what = f"vc_formula[{name!r}]"
    terms = column_terms(text)
    parsed = {term: list(read(f"0 + {term}"))[-1] if term != "1" else None for term in terms}
    factors = [factor for term in parsed.values() if term is not None for factor in term.factors]
    for factor in factors:
        _check_rowwise(factor, what, text)
    single = parsed[terms[0]] if len(terms) == 1 else None
    if terms == ["1"]:
        return _term("1", (facts.column,), "identity"), (("Intercept", None),)
    if single is not None:
        found = _nested(single, facts)
        if found is not None:
            computed = any(
                column is None and factor.eval_method is Factor.EvalMethod.PYTHON
                for factor, (_, column) in zip(single.factors, found, strict=True)
            )
            return _term(*_varying(single, found, facts), "identity", name if computed else ""), found
    categories = [f.expr for f in factors if f.expr.startswith("C(") or _category(f, facts) is not None]
    if categories and facts.several:
        raise FormulaError(
            f"{what} mixes the category {categories[0]} with other columns, which gives each group columns of its own; "
            f"write '0 + {categories[0]}' for the levels of a category, and one entry of vc_formula for each variance",
            text,
            (0, len(text)),
        )
    return _term(columns_text(terms), (facts.column,), "identity", name), ()


def _nested(term: Term, facts: GroupFacts) -> tuple[tuple[str, str | None], ...] | None:
    """Pieces of a product of categories and numbers; None where a piece is coded in a way of its own."""
    pieces: list[tuple[str, str | None]] = []
    for factor in term.factors:
        if factor.expr.startswith("C(") and _category(factor, facts) is None:
            return None
        pieces.append((factor.expr, _category(factor, facts)))
    return tuple(pieces)


def _varying(term: Term, pieces: tuple[tuple[str, str | None], ...], facts: GroupFacts) -> tuple[str, tuple[str, ...]]:
    """Column and grouping of such a product."""
    categories = tuple(dict.fromkeys(column for _, column in pieces if column is not None))
    numbers = [factor for factor, (_, column) in zip(term.factors, pieces, strict=True) if column is None]
    columns = f"0 + {term_text(Term(numbers))}" if numbers else "1"
    nesting = (facts.column,) if facts.several or not categories else ()
    return columns, (*nesting, *(name for name in categories if name != facts.column))


def _category(factor: Factor, facts: GroupFacts) -> str | None:
    """The data column that a factor codes level by level, or None where it is a number."""
    if factor.eval_method is Factor.EvalMethod.LOOKUP:
        return factor.expr if facts.categorical(factor.expr) else None
    inner = factor.expr.removeprefix("C(").removesuffix(")").strip()
    if factor.expr == f"C({inner})" or factor.expr.replace(" ", "") == f"C({inner})":
        name = inner.strip("`")
        return name if inner == f"`{name}`" or inner.isidentifier() else None
    return None


def _check_rowwise(factor: Factor, what: str, text: str) -> None:
    if factor.eval_method is not Factor.EvalMethod.PYTHON:
        return
    called = factor.expr.partition("(")[0].strip()
    if called in WITHIN_GROUPS:
        raise FormulaError(
            f"{what} calls {called}(), whose values depend on the other rows of a group; make it a column of the data "
            "first",
            text,
            (0, len(text)),
        )


def _check_duplicates(terms: list[RandomTerm]) -> None:
    texts = [term.text for term in terms]
    twice = next((text for i, text in enumerate(texts) if text in texts[:i]), None)
    if twice is not None:
        raise FormulaError(
            f"re_formula and vc_formula state {twice} twice; these two variances cannot be told apart: leave one out"
        )


def _check_response(formula: MixedFormula, terms: list[RandomTerm]) -> None:
    name = formula.response.strip("`")
    for term in terms:
        if name in term.grouping or uses(list(read(term.columns)), name):
            raise FormulaError(f"the response {name!r} cannot stand in the random part {term.text}")
