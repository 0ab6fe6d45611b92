"""Random numbers, and the numbers that users give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.errors import ModelError


def generator(rng: Any) -> np.random.Generator:
    """A generator from a seed, a generator or None.

    Raises
    ------
    ModelError
        It is none of these.
    """
    seed = isinstance(rng, Integral) and not isinstance(rng, bool) and int(rng) >= 0
    if not (rng is None or isinstance(rng, np.random.Generator) or seed):
        raise ModelError(f"rng={rng!r}: expected a whole number, at least 0, a numpy.random.Generator or None")
    return np.random.default_rng(rng)


def count(n: Any, what: str) -> int:
    """A whole number, at least 1.

    Raises
    ------
    ModelError
        It is none.
    """
    if not isinstance(n, Integral) or isinstance(n, bool) or int(n) < 1:
        raise ModelError(f"{what}={n!r}: expected a whole number, at least 1")
    return int(n)


def named_values(values: Any, names: Sequence[str], what: str) -> FloatArray:
    """Finite numbers in the order of `names`, from an array or from a mapping with just these names.

    Raises
    ------
    ModelError
        There are too many or too few, or they are no finite numbers.
    """
    listed = ", ".join(names)
    if isinstance(values, Mapping) or hasattr(values, "to_dict"):
        given = dict(values) if isinstance(values, Mapping) else values.to_dict()
        missing = [name for name in names if name not in given]
        extra = [name for name in given if name not in names]
        if missing or extra:
            wrong = [
                f"{label} {', '.join(map(str, found))}"
                for label, found in (("no", missing), ("unknown", extra))
                if found
            ]
            raise ModelError(f"{what} must hold one number for each of {listed}; {'; '.join(wrong)}")
        values = [given[name] for name in names]
    try:
        array = np.asarray(values, dtype=np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise ModelError(f"{what} must be numbers ({listed}), not {values!r}") from error
    if array.size != len(names):
        raise ModelError(f"{what} has {array.size} numbers, expected {len(names)}: {listed}")
    if not np.isfinite(array).all():
        raise ModelError(f"{what} holds values that are not finite")
    return array
