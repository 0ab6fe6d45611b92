"""One tree of exceptions and one of warnings; every message says what, where and what to do."""

from __future__ import annotations

import sys
import warnings


class CrosslmmError(Exception):
    """Base class of every error that crosslmm raises on purpose."""


class FormulaError(CrosslmmError, ValueError):
    """A formula cannot be read; the message shows it with the offending piece marked.

    Parameters
    ----------
    message : str
        What is wrong and what would be right.
    source : str, optional
        The formula as the user wrote it.
    span : tuple of int, optional
        Start and end (exclusive) of the offending piece in `source`.
    """

    def __init__(self, message: str, source: str | None = None, span: tuple[int, int] | None = None):
        self.source = source
        self.span = span
        if source is not None and span is not None:
            start, stop = span
            marker = " " * start + "^" * max(stop - start, 1)
            message = f"{message}\n\n    {source}\n    {marker}"
        super().__init__(message)


class DataError(CrosslmmError, ValueError):
    """The data do not fit the formula: a missing column, a constant response, bad weights."""


class ModelError(CrosslmmError, ValueError):
    """Formula and data are readable, but the model they state cannot be estimated."""


class NumericalError(CrosslmmError, ArithmeticError):
    """A factorisation broke down; the message names the parameter values it happened at."""


class ResourceError(CrosslmmError, MemoryError):
    """The fit would need more memory than the machine has; raised before allocating."""


class CrosslmmWarning(UserWarning):
    """Base class of every warning that crosslmm issues."""


class ConvergenceWarning(CrosslmmWarning):
    """The optimiser stopped before its convergence test was met."""


class RankDeficiencyWarning(CrosslmmWarning):
    """Columns of the fixed-effects matrix are linear combinations of others and were dropped."""


class DataWarning(CrosslmmWarning):
    """The data were used in a way the user should know of."""


def warn(message: str, category: type[CrosslmmWarning]) -> None:
    """Issue a warning that points at the first line outside the package."""
    level = 2  # the caller of this function
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "crosslmm":
        frame = frame.f_back
        level += 1
    warnings.warn(message, category, stacklevel=level)
