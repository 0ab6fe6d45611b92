"""A formula from an old one and a change of it, as R's update: ``.`` stands for what was there."""

from __future__ import annotations

import re
from dataclasses import dataclass

from crosslmm.errors import FormulaError
from crosslmm.formula import MixedFormula, parse
from crosslmm.formula.scan import Scan, additive_pieces, scan


@dataclass(frozen=True)
class Signed:
    """One additive piece of a right-hand side."""

    sign: str
    text: str

    @property
    def plain(self) -> str:
        """The piece without white space; ``(x | g)`` and ``(1 + x | g)`` are the same."""
        text = re.sub(r"\s+", "", self.text)
        return re.sub(r"^\(1\+(?=[^|]+\|)", "(", text)


def updated_formula(old: MixedFormula, change: str) -> str:
    """The text of the changed formula.

    Parameters
    ----------
    old : MixedFormula
    change : str
        ``"~ . - x"``, ``"log(y) ~ ."``, or a whole formula.

    Raises
    ------
    FormulaError
        The change cannot be read, or takes away what is not there.
    """
    if not isinstance(change, str):
        raise FormulaError(f"the formula must be text, not {type(change).__name__}", str(change), (0, 1))
    scanned = scan(change)
    tilde = scanned.find("~", 0, len(change), 0)
    if len(tilde) != 1:
        raise FormulaError("a change of a formula has one '~', as in '~ . - x'", change, (0, len(change)))
    response = change[: tilde[0]].strip()
    response = old.response if response in ("", ".") else _with_dot(response, old.response)
    pieces: list[Signed] = []
    for piece in _pieces(scanned, tilde[0] + 1):
        if piece.text == "." and piece.sign != "-":
            pieces += _old_pieces(old)
        elif piece.sign == "-" and any(own.plain == piece.plain and own.sign != "-" for own in pieces):
            pieces = [own for own in pieces if own.plain != piece.plain or own.sign == "-"]
        elif piece.sign == "-" and "|" in piece.text:
            pieces = _without_bar(pieces, piece, change)
        else:
            pieces.append(piece)
    text = " ".join(f"{piece.sign or '+'} {piece.text}" for piece in pieces)
    text = f"{response} ~ {text.removeprefix('+ ') if text.startswith('+ ') else '1 ' + text}"
    return re.sub(r"~ 1 \+ (?=\()", "~ 1 + ", text).strip() if pieces else f"{response} ~ 1"


def _with_dot(response: str, old: str) -> str:
    return re.sub(r"(?<![\w.])\.(?![\w.])", old, response)


def _pieces(scanned: Scan, start: int) -> list[Signed]:
    return [
        Signed(piece.sign, scanned.source[piece.start : piece.stop])
        for piece in additive_pieces(scanned, start, len(scanned.source))
    ]


def _old_pieces(old: MixedFormula) -> list[Signed]:
    scanned = scan(old.source)
    tilde = scanned.find("~", 0, len(old.source), 0)[0]
    return _pieces(scanned, tilde + 1)


def _without_bar(pieces: list[Signed], gone: Signed, change: str) -> list[Signed]:
    """Take one term out of a piece that stands for several, such as ``(1 | a/b)``."""
    wanted = {term.text for term in parse(f"y ~ {gone.text}").random}
    result, found = [], set()
    for piece in pieces:
        own = parse(f"y ~ {piece.text}").random if "|" in piece.text and piece.sign != "-" else ()
        if not {term.text for term in own} & wanted:
            result.append(piece)
            continue
        found |= {term.text for term in own} & wanted
        result += [Signed("+", term.text) for term in own if term.text not in wanted]
    if found != wanted:
        at = max(change.find(gone.text), 0)
        raise FormulaError(
            f"there is no random-effects term {gone.text} to take away", change, (at, at + len(gone.text))
        )
    return result
