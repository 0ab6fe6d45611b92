"""From formula text to a `MixedFormula`: response, fixed part, random-effects terms."""

from __future__ import annotations

import re
from dataclasses import dataclass

from formulaic.errors import FormulaicError

from crosslmm.errors import FormulaError
from crosslmm.formula.bars import RandomTerm, plain, random_terms
from crosslmm.formula.check import bad_python, check_characters, check_powers, check_subtractions, uses
from crosslmm.formula.read import read
from crosslmm.formula.scan import Piece, Scan, additive_pieces, scan

__all__ = ["Component", "GroupPart", "MixedFormula", "RandomTerm", "parse", "parse_fixed"]


@dataclass(frozen=True)
class Component:
    """One variance component of a random part that was written with `groups`.

    Attributes
    ----------
    name : str
        What it is called.
    term : str
        Text of its `RandomTerm`.
    pieces : tuple of (str, str or None)
        Factors of the formula of its one column as written, each with the data column whose levels it codes, or None
        where it is a number. Empty for a component of several columns.
    """

    name: str
    term: str
    pieces: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True)
class GroupPart:
    """A random part that was written with `groups`, `re_formula` and `vc_formula`.

    Attributes
    ----------
    column : str
        Data column of the groups.
    label : str
        What the groups are called in results.
    re_term : str or None
        Text of the term of `re_formula`; None where there are variance components only.
    components : tuple of Component
        Sorted by name.
    """

    column: str
    label: str
    re_term: str | None
    components: tuple[Component, ...]


@dataclass(frozen=True)
class MixedFormula:
    """A mixed-model formula taken apart.

    Attributes
    ----------
    source : str
        The formula as written.
    response : str
        Left-hand side.
    fixed : str
        Right-hand side without the random-effects terms, for formulaic; ``"1"`` when nothing else is left.
    random : tuple of RandomTerm
        In the order of the formula, with ``||`` and ``/`` expanded.
    groups : GroupPart or None
        How the random part was written, where that was not with bars.
    """

    source: str
    response: str
    fixed: str
    random: tuple[RandomTerm, ...]
    groups: GroupPart | None = None

    @property
    def in_bars(self) -> bool:
        """Whether `source` states the whole model; bars do not state one variance for several columns."""
        return all(term.text.startswith("(") for term in self.random)


def parse(formula: str) -> MixedFormula:
    """Read an lme4 formula.

    The random-effects terms are found by a small scanner of our own; all the rest is formulaic's, so
    its transformations, contrasts and interactions can be used in the response, in the fixed part and
    before the bar of a random-effects term.

    Parameters
    ----------
    formula : str
        ``"y ~ x + (1 + x | g)"``. ``(x | g)`` implies an intercept; ``(x || g)`` makes each term before the
        bars a term of its own, uncorrelated with the others; ``(1 | a/b)`` stands for ``(1 | b:a) + (1 | a)``.

    Raises
    ------
    FormulaError
        The formula cannot be read; the message marks the offending piece.
    """
    scanned = _scanned(formula)
    source = scanned.source
    tilde, pieces, random = _sides(scanned)
    if not random:
        raise FormulaError(
            "the formula has no random-effects term such as (1 | g); a model without one is ordinary least squares: "
            "add a term or pass groups=, or fit it with statsmodels.formula.api.ols",
            source,
            scanned.trim(tilde + 1, len(source)),
        )
    check_powers(scanned)
    _check_fixed(scanned, random)
    terms = [term for piece in random for term in random_terms(scanned, piece.start, piece.stop)]
    response = source[slice(*scanned.trim(0, tilde))]
    _check_response(scanned, response, random)
    _check_duplicates(source, scanned, tilde, terms)
    return MixedFormula(source, response, _fixed_text(source, pieces, random), tuple(terms))


def parse_fixed(formula: str) -> MixedFormula:
    """Read a formula whose random part is given beside it.

    Parameters
    ----------
    formula : str
        ``"y ~ x"``.

    Raises
    ------
    FormulaError
        The formula cannot be read, or has random-effects terms of its own.
    """
    scanned = _scanned(formula)
    source = scanned.source
    tilde, pieces, random = _sides(scanned)
    if random:
        raise FormulaError(
            "the random part is written twice, with bars and with groups=: keep the bars and leave groups= out, or the "
            "other way round",
            source,
            (random[0].start, random[0].stop),
        )
    check_powers(scanned)
    _check_fixed(scanned, [])
    return MixedFormula(source, source[slice(*scanned.trim(0, tilde))], _fixed_text(source, pieces, []), ())


def _scanned(formula: str) -> Scan:
    if not isinstance(formula, str):
        raise FormulaError(f"a formula is a string such as 'y ~ x + (1 | g)', not {type(formula).__name__}")
    scanned = scan(" ".join(formula.splitlines()))
    check_characters(scanned)
    return scanned


def _sides(scanned: Scan) -> tuple[int, list[Piece], list[Piece]]:
    """Where the tilde stands, the pieces after it, and those of them that are random-effects terms."""
    source = scanned.source
    tilde = _tilde(scanned)
    _check_bars(scanned, tilde)
    pieces = additive_pieces(scanned, tilde + 1, len(source))
    if not pieces:
        raise FormulaError("nothing stands after '~'; write y ~ 1 + (1 | g)", source, (tilde, tilde + 1))
    return tilde, pieces, [piece for piece in pieces if _is_random(scanned, piece)]


def _fixed_text(source: str, pieces: list[Piece], random: list[Piece]) -> str:
    fixed = [piece for piece in pieces if piece not in random]
    text = " ".join(f"{piece.sign} {source[piece.start : piece.stop]}" for piece in fixed).removeprefix("+").strip()
    return text or "1"


def _tilde(scanned: Scan) -> int:
    source = scanned.source
    tildes = scanned.find("~", 0, len(source), 0)
    if not tildes:
        raise FormulaError("the formula has no '~'; write response ~ fixed part + (1 | g)", source, (0, len(source)))
    if len(tildes) > 1:
        raise FormulaError("the formula has more than one '~'", source, (tildes[1], tildes[1] + 1))
    if not source[: tildes[0]].strip():
        raise FormulaError("the formula has no response; name it before the '~'", source, (tildes[0], tildes[0] + 1))
    return tildes[0]


def _check_bars(scanned: Scan, tilde: int) -> None:
    """Every bar that is not Python's stands right of the tilde and inside exactly one pair of parentheses."""
    source = scanned.source
    for i, char in enumerate(source):
        if char != "|" or scanned.opaque[i]:
            continue
        if i < tilde:
            raise FormulaError("a random-effects term cannot stand in the response", source, (i, i + 1))
        if scanned.depth[i] == 0:
            message = "a '|' outside parentheses (a formula of several parts) has no meaning here: write (1 | g)"
            raise FormulaError(message, source, (i, i + 1))
        if scanned.depth[i] > 1:
            message = "a random-effects term is added on its own, in one pair of parentheses: ... + (1 | g)"
            raise FormulaError(message, source, (i, i + 1))


def _is_random(scanned: Scan, piece: Piece) -> bool:
    """Whether the piece is a random-effects term; refuses pieces that hold one among other things."""
    source = scanned.source
    if not scanned.find("|", piece.start, piece.stop, 1):
        return False
    span = (piece.start, piece.stop)
    parentheses = scanned.find("()", piece.start, piece.stop, 0)
    if parentheses != [piece.start, piece.stop - 1]:
        message = "a random-effects term can only be added, not multiplied, crossed or raised: ... + (1 | g)"
        raise FormulaError(message, source, span)
    if piece.sign == "-":
        raise FormulaError(
            "a random-effects term cannot be subtracted; leave it out", source, (piece.sign_at, piece.stop)
        )
    return True


def _check_fixed(scanned: Scan, random: list[Piece]) -> None:
    """Let formulaic read the formula with the random-effects terms replaced by an intercept of equal width."""
    characters = list(scanned.source)
    for piece in random:
        characters[piece.start : piece.stop] = " " * (piece.stop - piece.start)
        characters[piece.start] = "1"
    text = "".join(characters)
    try:
        read(text)
    except SyntaxError as error:
        message, span = bad_python(text) or (plain(error), (0, len(text)))
        raise FormulaError(f"the formula cannot be read: {message}", scanned.source, span) from error
    except FormulaicError as error:
        # Formulaic marks the offending token between these two characters, in the text it was given.
        marked = re.search(r"^(.*?)\u29db\x1b\[[0-9;]*m(.*?)\x1b\[0m\u29da", str(error), re.MULTILINE)
        span = (len(marked[1]), len(marked[1]) + len(marked[2])) if marked else (0, len(text))
        raise FormulaError(f"the formula cannot be read: {plain(error)}", scanned.source, span) from error
    check_subtractions(text, scanned.find("~", 0, len(text), 0)[0] + 1, len(text), scanned.source)


def _check_response(scanned: Scan, response: str, random: list[Piece]) -> None:
    """Refuse a random-effects term of the response itself."""
    name = response.strip("`")
    for piece in random:
        for term in random_terms(scanned, piece.start, piece.stop):
            if name in term.grouping or uses(list(read(term.columns)), name):
                message = f"the response {name!r} cannot stand in a random-effects term"
                raise FormulaError(message, scanned.source, (piece.start, piece.stop))


def _check_duplicates(source: str, scanned: Scan, tilde: int, terms: list[RandomTerm]) -> None:
    texts = [term.text for term in terms]
    for i, text in enumerate(texts):
        if text in texts[:i]:
            span = scanned.trim(tilde + 1, len(source))
            raise FormulaError(
                f"the random-effects term {text} occurs twice; its two variances cannot be told apart", source, span
            )
