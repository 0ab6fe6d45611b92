"""Numbers as text."""

from __future__ import annotations

import math

LARGEST_FIXED = 1e9
"""Numbers from here on are written with an exponent, unless more of their digits count."""

MOST_DIGITS = 15
"""Digits of a number in fixed notation; float64 holds no more."""

MOST_DECIMALS = 8
"""Numbers that would need more decimals are written with an exponent."""


def decimals_for(value: float, digits: int) -> int:
    """Decimals that show `digits` significant digits of a value."""
    return max(digits - 1 - math.floor(math.log10(abs(value))), 0)


def with_decimals(value: float, decimals: int, exponent: int | None = None) -> str:
    """Fixed notation without a negative zero, or an exponent where that would be unreadable.

    Parameters
    ----------
    value : float
    decimals : int
    exponent : int, optional
        Power of ten of the last digit that counts; by default that of the last decimal.
    """
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    first = math.floor(math.log10(abs(value))) if value else 0
    if first + 1 + decimals > MOST_DIGITS or decimals > MOST_DECIMALS:
        digits = first + 1 - (-decimals if exponent is None else exponent)
        return f"{value:.{min(max(digits, 4), MOST_DIGITS + 1)}g}"
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0.0 else text


def significant(value: float, digits: int = 5) -> str:
    """A number with so many significant digits; exactly 0 is ``"0"``."""
    if value == 0.0:
        return "0"
    if not math.isfinite(value):
        return with_decimals(value, 0)
    if abs(value) >= LARGEST_FIXED or decimals_for(value, digits) > MOST_DECIMALS:
        return f"{value:.4g}"
    return with_decimals(value, decimals_for(value, digits))


def error(value: float) -> str:
    """A standard error; ``"-"`` where there is none."""
    if math.isnan(value):
        return "-"
    small = 0.0 < abs(value) < 10.0**-MOST_DECIMALS
    return f"{value:.2g}" if small else significant(value, 2)


def like_error(value: float, error: float, digits: int = 4) -> str:
    """A number with the decimals that show `digits` significant digits of its standard error."""
    if not (math.isfinite(error) and error > 0.0):
        return significant(value)
    exponent = math.floor(math.log10(error)) - digits + 1
    return with_decimals(value, max(-exponent, 0), exponent)


def ratio(value: float) -> str:
    """A z statistic."""
    return with_decimals(value, 2) if abs(value) < 1e5 else f"{value:.3g}"


def probability(value: float) -> str:
    """A p-value."""
    if math.isnan(value):
        return "nan"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def correlation(value: float) -> str:
    """A correlation; ``"-"`` where there is none because a standard deviation is 0."""
    return "-" if math.isnan(value) else with_decimals(value, 3)


def duration(seconds: float) -> str:
    """A length of time."""
    if seconds < 0.1:
        return f"{1e3 * seconds:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 100.0 else f"{seconds:.0f} s"


def align_points(texts: list[str]) -> list[str]:
    """Texts padded to one width with their decimal points below each other."""
    split = [text.partition(".") for text in texts]
    before = max((len(head) for head, _, _ in split), default=0)
    after = max((len(point + tail) for _, point, tail in split), default=0)
    return [head.rjust(before) + (point + tail).ljust(after) for head, point, tail in split]
