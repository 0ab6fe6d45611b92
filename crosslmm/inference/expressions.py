"""Linear hypotheses as text: ``"x1 = x2"``, ``"2 * recipe[T.B] - recipe[T.C] = 1"``.

Names of coefficients hold almost any character (``np.log(x)``, ``a[T.1]:b[T.x, y]``), so at every place the longest
name that fits is read first; what is left are numbers, signs and brackets.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.errors import ModelError

NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
WORD = re.compile(r"[^\s+\-*/=(),]+")


MOST_LISTED = 12
"""Names that a message lists at most."""


@dataclass(frozen=True)
class Linear:
    """``coefficients' beta + constant``."""

    coefficients: FloatArray
    constant: float

    @property
    def is_number(self) -> bool:
        """Whether no coefficient is named."""
        return not self.coefficients.any()


@dataclass(frozen=True)
class Token:
    """A piece of a hypothesis: kind ``"name"``, ``"number"`` or the sign itself."""

    kind: str
    text: str
    start: int


def listed(names: Sequence[str]) -> str:
    """Names for a message, the first ones of many."""
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(names[:MOST_LISTED]) + more


def read_hypotheses(text: str, names: tuple[str, ...]) -> list[tuple[str, FloatArray, float]]:
    """Label, coefficients (p,) and value of every equation in a text; without ``=`` a row is set to 0.

    Parameters
    ----------
    text : str
        Equations, separated by commas.
    names : tuple of str
        Names of the coefficients.

    Raises
    ------
    ModelError
        The text cannot be read; it is shown with the place marked.
    """
    tokens = _tokens(text, names)
    rows, start = [], 0
    for i in [k for k, token in enumerate(tokens) if token.kind == ","] + [len(tokens)]:
        part = tokens[start:i]
        if not part:
            raise _error(text, tokens[i].start if i < len(tokens) else len(text), "a hypothesis is missing here")
        last = part[-1]
        label = text[part[0].start : last.start + len(last.text)]
        row, value = _Reader(text, names, part).equation()
        rows.append((label, row, value))
        start = i + 1
    return rows


def _tokens(text: str, names: tuple[str, ...]) -> list[Token]:
    by_length = sorted(names, key=len, reverse=True)
    tokens, at = [], 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        token = _token(text, at, by_length)
        tokens.append(token)
        at += len(token.text)
    return tokens


def _token(text: str, at: int, by_length: list[str]) -> Token:
    for name in by_length:
        if text.startswith(name, at) and not _goes_on(text, at + len(name), name):
            return Token("name", name, at)
    number = NUMBER.match(text, at)
    if number:
        if not math.isfinite(float(number.group())):
            raise _error(text, at, "this number is too large", len(number.group()))
        return Token("number", number.group(), at)
    if text.startswith("==", at):
        return Token("=", "==", at)
    if text[at] in "<>":
        raise _error(text, at, "a hypothesis is an equation, with '='; it is tested against both sides")
    if text[at] in "+-*/=(),":
        return Token(text[at], text[at], at)
    word = WORD.match(text, at)
    piece = word.group() if word else text[at]
    known = listed(by_length[::-1])
    raise _error(text, at, f"{piece!r} is no coefficient of this fit. Its coefficients are: {known}", len(piece))


def _goes_on(text: str, end: int, name: str) -> bool:
    """Whether a longer word stands here: ``x`` is not read in ``x1``, nor ``a`` in ``a[T.2]`` or ``a:b``."""
    if end >= len(text):
        return False
    following = text[end]
    if name[-1].isalnum() or name[-1] == "_":
        return following.isalnum() or following in "_[.(:"
    return following in ":["


class _Reader:
    """Recursive descent over the tokens of one equation."""

    def __init__(self, text: str, names: tuple[str, ...], tokens: list[Token]):
        self.text, self.names, self.tokens, self.at = text, names, tokens, 0

    def equation(self) -> tuple[FloatArray, float]:
        left = self._sum()
        right = Linear(np.zeros(len(self.names)), 0.0)
        if self._take("="):
            right = self._sum()
        if self.at < len(self.tokens):
            token = self.tokens[self.at]
            reason = "one equation has one '='; separate hypotheses by commas or give a list"
            raise self._error(reason if token.kind == "=" else "an operator such as + is missing here")
        row = left.coefficients - right.coefficients
        if not row.any():
            raise _error(self.text, self.tokens[0].start, "no coefficient is left in this hypothesis")
        return row, right.constant - left.constant

    def _sum(self) -> Linear:
        total = self._product()
        while self.at < len(self.tokens) and self.tokens[self.at].kind in "+-":
            sign = 1.0 if self.tokens[self.at].kind == "+" else -1.0
            self.at += 1
            part = self._product()
            total = Linear(total.coefficients + sign * part.coefficients, total.constant + sign * part.constant)
        return total

    def _product(self) -> Linear:
        total = self._factor()
        while self.at < len(self.tokens) and self.tokens[self.at].kind in "*/":
            kind = self.tokens[self.at].kind
            self.at += 1
            part = self._factor()
            if kind == "/":
                if not part.is_number or part.constant == 0.0:
                    raise self._error("a hypothesis is divided by numbers other than 0 only", back=1)
                part = Linear(part.coefficients, 1.0 / part.constant)
            if not (total.is_number or part.is_number):
                raise self._error("the product of two coefficients is not linear", back=1)
            number, other = (total, part) if total.is_number else (part, total)
            total = Linear(number.constant * other.coefficients, number.constant * other.constant)
        return total

    def _factor(self) -> Linear:
        if self._take("-"):
            inner = self._factor()
            return Linear(-inner.coefficients, -inner.constant)
        if self._take("+"):
            return self._factor()
        if self._take("("):
            inner = self._sum()
            if not self._take(")"):
                raise self._error("a closing bracket is missing")
            return inner
        if self.at < len(self.tokens):
            token = self.tokens[self.at]
            zero = np.zeros(len(self.names))
            if token.kind == "number":
                self.at += 1
                return Linear(zero, float(token.text))
            if token.kind == "name":
                self.at += 1
                zero[self.names.index(token.text)] = 1.0
                return Linear(zero, 0.0)
        raise self._error("a coefficient or a number is missing here")

    def _take(self, kind: str) -> bool:
        found = self.at < len(self.tokens) and self.tokens[self.at].kind == kind
        self.at += found
        return found

    def _error(self, reason: str, back: int = 0) -> ModelError:
        at = self.at - back
        end = self.tokens[-1].start + len(self.tokens[-1].text)
        return _error(self.text, self.tokens[at].start if at < len(self.tokens) else end, reason)


def _error(text: str, start: int, reason: str, width: int = 1) -> ModelError:
    return ModelError(f"this hypothesis cannot be read: {reason}\n\n    {text}\n    {' ' * start}{'^' * width}")
