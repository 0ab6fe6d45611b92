"""One random-effects term in bars: ``(x | g)``, ``(x || g)``, ``(1 | a/b)``, ``(1 | a:b)``.

The expansions are lme4's (Bates, Maechler, Bolker, Walker 2015, J. Stat. Softw. 67(1), table 2).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from formulaic import SimpleFormula
from formulaic.errors import FormulaicError
from formulaic.parser.types import Factor, Term

from crosslmm.errors import FormulaError
from crosslmm.formula.check import bad_python, check_subtractions
from crosslmm.formula.read import read
from crosslmm.formula.scan import Scan

NAME = re.compile(
    r"\s*(?:(?:factor|C)\s*\(\s*(?P<inner>`[^`]+`|[^\W\d][\w.]*)\s*\)|(?P<plain>`[^`]+`|[^\W\d][\w.]*))\s*"
)
EXAMPLES = "write (1 | g), (1 | a:b) for combinations of levels or (1 | a/b) for b nested in a"


@dataclass(frozen=True)
class RandomTerm:
    """One random-effects term: columns that vary by the levels of a grouping factor.

    Attributes
    ----------
    columns : str
        Right-hand side for formulaic with its intercept spelled out, ``"1 + Days"`` or ``"0 + Days"``.
    grouping : tuple of str
        Names of the data columns whose combinations are the levels, in the order of the label.
    group : str
        lme4's label of the factor: ``"Subject"``, ``"b:a"``, ``"c:(b:a)"``.
    covariance : str
        ``"unstructured"``, ``"diagonal"`` or ``"identity"``.
    text : str
        The term as text, ``"(1 + Days | Subject)"``.
    """

    columns: str
    grouping: tuple[str, ...]
    group: str
    covariance: str
    text: str


@dataclass(frozen=True)
class Grouping:
    """Names of the grouping columns and the factor's label."""

    names: tuple[str, ...]
    label: str


def random_terms(scanned: Scan, start: int, stop: int) -> list[RandomTerm]:
    """Expand the parenthesised term that spans [start, stop) into lme4's simple terms, in lme4's order."""
    source = scanned.source
    bars = scanned.find("|", start + 1, stop - 1, scanned.depth[start] + 1)
    double = len(bars) == 2 and bars[1] == bars[0] + 1
    if len(bars) > 1 and not double:
        raise FormulaError("a random-effects term has one '|' or one '||'", source, (start, stop))
    left = scanned.trim(start + 1, bars[0])
    right = scanned.trim(bars[-1] + 1, stop - 1)
    if left[0] == left[1]:
        message = (
            "nothing stands before the bar: write (1 | g) for a random intercept, (1 + x | g) for intercept and slope"
        )
        raise FormulaError(message, source, (start, stop))
    if right[0] == right[1]:
        raise FormulaError(f"no grouping factor stands after the bar: {EXAMPLES}", source, (start, stop))
    columns = _columns(source, left)
    sides = ["1" if text == "1" else f"0 + {text}" for text in columns] if double else [columns_text(columns)]
    groupings = _groupings(source, right)
    return [
        RandomTerm(side, grouping.names, grouping.label, "unstructured", f"({side} | {grouping.label})")
        for side in sides
        for grouping in groupings
    ]


def _columns(source: str, span: tuple[int, int]) -> list[str]:
    """Formulaic terms of the left side of a bar as texts; the intercept, implied unless removed, is ``"1"``."""
    text = source[slice(*span)]
    try:
        parsed = read(text)
    except SyntaxError as error:
        message, place = bad_python(text) or (plain(error), (0, len(text)))
        raise FormulaError(
            f"the columns of this random-effects term cannot be read: {message}",
            source,
            (span[0] + place[0], span[0] + place[1]),
        ) from error
    except FormulaicError as error:
        raise FormulaError(
            f"the columns of this random-effects term cannot be read: {plain(error)}", source, span
        ) from error
    terms = list(parsed) if isinstance(parsed, SimpleFormula) else []
    if not terms:
        raise FormulaError("this random-effects term has no columns: write (1 | g) for an intercept", source, span)
    check_subtractions(source, *span, source)
    return [term_text(term) for term in terms]


def column_terms(text: str) -> list[str]:
    """Terms of the columns of a random part as texts; the intercept, implied unless removed, is ``"1"``.

    Raises
    ------
    FormulaError
        The text cannot be read, or names no columns.
    """
    return _columns(text, (0, len(text)))


def columns_text(columns: list[str]) -> str:
    """Right-hand side for formulaic of such terms, with its intercept spelled out."""
    return " + ".join(columns if "1" in columns else ["0", *columns])


def term_text(term: Term) -> str:
    """The term as formula text; names that are not identifiers are back-quoted."""
    return ":".join(_factor_text(factor) for factor in term.factors)


def _factor_text(factor: Factor) -> str:
    bare = factor.eval_method is not Factor.EvalMethod.LOOKUP or factor.expr.isidentifier()
    return factor.expr if bare else f"`{factor.expr}`"


def plain(error: Exception) -> str:
    """Message of a formulaic error without its terminal colours; first line."""
    if "`.` operator" in str(error):
        return "'.' for all other columns is not supported; name the columns"
    text = re.sub(r"[\u29db\u29da]|\x1b\[[0-9;]*m", "", str(error))
    return (text.strip().splitlines() or [type(error).__name__])[0]


def _groupings(source: str, span: tuple[int, int]) -> list[Grouping]:
    """Expand ``a/b/c`` to ``c:(b:a)``, ``b:a``, ``a``."""
    nested: list[Grouping] = []
    for names in _nesting(source, span):
        if nested:
            outer = nested[0]
            label = f"({outer.label})" if len(outer.names) > 1 else outer.label
            grouping = Grouping(names + outer.names, ":".join(names) + ":" + label)
        else:
            grouping = Grouping(names, ":".join(names))
        if len(set(grouping.names)) < len(grouping.names):
            raise FormulaError("a grouping factor names a column twice", source, span)
        nested.insert(0, grouping)
    return nested


def _nesting(source: str, span: tuple[int, int]) -> list[tuple[str, ...]]:
    """Read names joined by ``:`` (bound tighter) and ``/``; one tuple of names per level of nesting."""
    position, stop = span
    levels: list[list[str]] = [[]]
    while True:
        match = NAME.match(source, position, stop)
        if match is None:
            at = position if position < stop else position - 1
            raise FormulaError(
                f"a grouping factor is a column name, or names joined by ':' or '/': {EXAMPLES}",
                source,
                (at, max(stop, at + 1)),
            )
        levels[-1].append((match["inner"] or match["plain"]).strip("`"))
        position = match.end()
        if position == stop:
            return [tuple(names) for names in levels]
        if source[position] == "/":
            levels.append([])
        elif source[position] != ":":
            message = f"a grouping factor is a column name, or names joined by ':' or '/': {EXAMPLES}"
            raise FormulaError(message, source, (position, stop))
        position += 1
