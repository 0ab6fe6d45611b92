"""A scanner that knows brackets and quotes, and nothing else of the formula language."""

from __future__ import annotations

from dataclasses import dataclass

from crosslmm.errors import FormulaError

CLOSING = {"(": ")", "[": "]", "{": "}"}
QUOTES = "'\"`"


@dataclass(frozen=True)
class Scan:
    """Where each character of a formula stands.

    Attributes
    ----------
    source : str
        The formula.
    depth : tuple of int
        Number of brackets open around each character; a bracket itself counts as outside.
    opaque : tuple of bool
        Whether the character belongs to a quoted piece, or to the arguments of a call, an index or
        braces: there ``|``, ``+`` and ``~`` are not operators of the formula.
    """

    source: str
    depth: tuple[int, ...]
    opaque: tuple[bool, ...]

    def find(self, characters: str, start: int, stop: int, depth: int) -> list[int]:
        """Positions in [start, stop) of operators among `characters` at a depth."""
        return [
            i
            for i in range(start, stop)
            if self.source[i] in characters and self.depth[i] == depth and not self.opaque[i]
        ]

    def trim(self, start: int, stop: int) -> tuple[int, int]:
        """The span without surrounding white space."""
        text = self.source[start:stop]
        left = len(text) - len(text.lstrip())
        return (start + left, start + left + len(text.strip())) if text.strip() else (start, start)


@dataclass(frozen=True)
class Piece:
    """One additive piece of the right-hand side; ``sign`` is ``""`` (first), ``"+"`` or ``"-"``; spans are trimmed."""

    sign: str
    sign_at: int
    start: int
    stop: int


def scan(source: str) -> Scan:
    """Find depth and opaqueness of every character.

    Raises
    ------
    FormulaError
        A bracket or quote is not closed, or closes nothing; back-quotes are empty.
    """
    depth, opaque = [], []
    open_brackets: list[tuple[int, str, bool]] = []
    quote = ""
    quoted_from = 0
    for i, char in enumerate(source):
        inside = bool(open_brackets) and open_brackets[-1][2]
        if quote:
            depth.append(len(open_brackets))
            opaque.append(True)
            if char == quote == "`" and i == quoted_from + 1:
                raise FormulaError("nothing stands between these back-quotes", source, (quoted_from, i + 1))
            quote = "" if char == quote else quote
            continue
        if char in QUOTES:
            quote, quoted_from = char, i
        if char in CLOSING.values():
            if not open_brackets or open_brackets[-1][1] != char:
                raise FormulaError(f"'{char}' closes nothing that is open; check the brackets", source, (i, i + 1))
            open_brackets.pop()
            inside = bool(open_brackets) and open_brackets[-1][2]
        depth.append(len(open_brackets))
        opaque.append(inside or char in QUOTES)
        if char in CLOSING:
            call = char != "(" or (i > 0 and (source[i - 1].isalnum() or source[i - 1] in "_.)]`"))
            open_brackets.append((i, CLOSING[char], inside or call))
    if quote:
        raise FormulaError(f"the quote {quote} is not closed", source, (quoted_from, quoted_from + 1))
    if open_brackets:
        i = open_brackets[-1][0]
        raise FormulaError(f"'{source[i]}' is not closed; check the brackets", source, (i, i + 1))
    return Scan(source, tuple(depth), tuple(opaque))


def additive_pieces(scanned: Scan, start: int, stop: int) -> list[Piece]:
    """Split [start, stop) at the ``+`` and ``-`` outside all brackets."""
    pieces = []
    sign, sign_at, begin = "", start, start
    for i in [*scanned.find("+-", start, stop, 0), stop]:
        pieces.append(Piece(sign, sign_at, *scanned.trim(begin, i)))
        if i < stop:
            sign, sign_at, begin = scanned.source[i], i, i + 1
    for piece, following in zip(pieces, [*pieces[1:], None], strict=True):
        if piece.start == piece.stop and piece.sign and (following is None or piece.sign == "-"):
            span = (piece.sign_at, piece.sign_at + 1)
            raise FormulaError(f"nothing follows this '{piece.sign}'", scanned.source, span)
    return [piece for piece in pieces if piece.start < piece.stop]
