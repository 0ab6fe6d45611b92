"""What a model was built from, kept for what is asked of it later: the table itself is neither copied nor pickled."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False, repr=False)
class Given:
    """Arguments that a design was built from.

    Attributes
    ----------
    data : table or None
        As it was given, by reference; None once the design has been pickled.
    weights, offset : str, array or None
    missing : {"drop", "raise"}
    context : mapping
        Further names that the formula uses.
    """

    data: Any
    weights: Any
    offset: Any
    missing: str
    context: Mapping[str, Any]

    def column(self, what: str) -> str | None:
        """Name of the column of ``"weights"`` or ``"offset"``; None where they are no column."""
        value = self.weights if what == "weights" else self.offset
        return value if isinstance(value, str) else None

    def __reduce__(self) -> tuple[Any, ...]:
        # functions of the user that cannot be pickled must not keep a model from being sent elsewhere
        kept = {name: value for name, value in self.context.items() if _can_be_pickled(value)}
        return Given, (None, self.column("weights"), self.column("offset"), self.missing, kept)


def _can_be_pickled(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # objects of the user can fail in any way
        return False
    return True
