"""What formulaic would accept, misread or choke on, refused with the offending piece marked."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from formulaic.errors import FormulaicError
from formulaic.parser.algos.tokenize import tokenize
from formulaic.parser.types import Factor, Term, Token

from crosslmm.errors import FormulaError
from crosslmm.formula.read import read
from crosslmm.formula.scan import Scan, additive_pieces, scan

STRAY = {
    "#": "a formula has no comments",
    ";": "';' has no meaning in a formula",
    ",": "',' has no meaning outside the arguments of a call; terms are joined by '+'",
}
LARGEST_EXPANSION = 10_000
"""Products that formulaic may form for a power: it multiplies a sum of m terms out to m**k products."""


def check_characters(scanned: Scan) -> None:
    """Refuse comments, semicolons, commas and ``...`` outside quotes and calls."""
    for i, char in enumerate(scanned.source):
        if scanned.opaque[i]:
            continue
        if char in STRAY:
            raise FormulaError(STRAY[char], scanned.source, (i, i + 1))
        if scanned.source.startswith("...", i):
            raise FormulaError(
                "'...' for further columns is not supported; name the columns", scanned.source, (i, i + 3)
            )


def check_powers(scanned: Scan) -> None:
    """Refuse powers of sums that formulaic could not multiply out in reasonable time."""
    source = scanned.source
    for match in re.finditer(r"(?:\*\*|\^)\s*(\d+)", source):
        if scanned.opaque[match.start()]:
            continue
        start = _base(scanned, match.start())
        base = source[start : match.start()]
        try:
            n_terms = len(list(read(f"0 + {base}"))) if base.strip() else 0
        except (FormulaicError, SyntaxError):
            continue  # reported when the whole formula is read
        power = int(match[1])
        if n_terms > 1 and n_terms ** min(power, LARGEST_EXPANSION) > LARGEST_EXPANSION:
            message = (
                f"a power of {power} of {n_terms} terms is too large to multiply out; a sum of m terms needs no power "
                "above m: (a + b)**2 holds a, b and a:b"
            )
            raise FormulaError(message, source, (start, match.end()))


def _base(scanned: Scan, stop: int) -> int:
    """Start of the parenthesised sum that ends before `stop`, or `stop` where none does."""
    end = scanned.trim(0, stop)[1]
    if scanned.source[end - 1 : end] != ")":
        return stop
    depth = scanned.depth[end - 1]
    return max((i for i in range(end - 1) if scanned.source[i] == "(" and scanned.depth[i] == depth), default=stop)


def check_subtractions(source: str, start: int, stop: int, marked: str) -> None:
    """Refuse a subtracted term that is not there, which formulaic would pass over; `marked` is shown for `source`."""
    pieces = additive_pieces(scan(source[start:stop]), 0, stop - start)
    before = "1"
    for piece in pieces:
        text = source[start + piece.start : start + piece.stop]
        if piece.sign == "-" and text not in ("0", "1") and not _terms(text) & _terms(before):
            message = (
                f"there is no term {text} from which '- {text}' could take away; '-' removes terms, "
                f"and the negative of a column is I(-{text})"
            )
            raise FormulaError(message, marked, (start + piece.sign_at, start + piece.stop))
        before += f" {piece.sign or '+'} {text}"


def _terms(text: str) -> set[frozenset[str]]:
    return {frozenset(factor.expr for factor in term.factors) for term in read(f"0 + {text}")}


def uses(terms: Sequence[Term], name: str) -> bool:
    """Whether a column occurs in terms."""
    word = re.compile(rf"(?<![\w.]){re.escape(name)}(?!\w)")
    return any(
        factor.expr == name
        if factor.eval_method is Factor.EvalMethod.LOOKUP
        else factor.eval_method is Factor.EvalMethod.PYTHON and word.search(factor.expr) is not None
        for term in terms
        for factor in term.factors
    )


def bad_python(text: str) -> tuple[str, tuple[int, int]] | None:
    """What is wrong with the first piece of Python in a formula that cannot be read, and where it stands."""
    try:
        tokens = list(tokenize(text))
    except FormulaicError:
        return None
    for token in tokens:
        if token.kind is not Token.Kind.PYTHON or token.source_start is None or token.source_end is None:
            continue
        try:
            ast.parse(re.sub("`[^`]+`", "q", token.token).strip("{} "), mode="eval")
        except SyntaxError:
            closed = text[token.source_end + 1 : token.source_end + 2] == "}"
            span = (token.source_start, token.source_end + 1 + closed)
            return f"'{text[slice(*span)]}' is not a Python expression", span
    return None
