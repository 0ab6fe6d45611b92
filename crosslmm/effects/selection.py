"""Which random effects a prediction uses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from crosslmm.errors import ModelError
from crosslmm.layout import Layout, Term


@dataclass(frozen=True)
class Chosen:
    """Terms of the random effects that are used.

    Attributes
    ----------
    terms : tuple of int
        Their positions in the layout.
    """

    terms: tuple[int, ...]

    def uses(self, layout: Layout, factor: int) -> bool:
        """Whether a term on a factor is used."""
        return any(layout.terms[t].factor == factor for t in self.terms)


def choose(layout: Layout, random_effects: Any) -> Chosen:
    """Read an argument ``random_effects``.

    Parameters
    ----------
    layout : Layout
    random_effects : bool, str or list of str
        All or none, or the names of factors (``"s"``), of groups of terms (``"s.1"``) or terms (``"(1 | s)"``).

    Raises
    ------
    ModelError
        A name is that of no term.
    """
    if isinstance(random_effects, bool):
        return Chosen(tuple(range(len(layout.terms))) if random_effects else ())
    names = [random_effects] if isinstance(random_effects, str) else random_effects
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ModelError(f"random_effects={random_effects!r}: expected True, False, a name or a list of names")
    found: set[int] = set()
    for name in names:
        own = {t for t, term in enumerate(layout.terms) if _plain(name) in _names(layout, term)}
        if not own:
            known = ", ".join(dict.fromkeys(repr(name) for t in layout.terms for name in (t.group, t.label)))
            raise ModelError(f"no random-effects term is called {name!r}; there are {known}")
        found |= own
    return Chosen(tuple(sorted(found)))


def _names(layout: Layout, term: Term) -> set[str]:
    label = _plain(term.label)
    without = re.sub(r"\((?:1\+)(?=[^|])", "(", label)
    return {_plain(layout.factors[term.factor].name), _plain(term.group), label, without}


def _plain(text: str) -> str:
    return re.sub(r"\s+", "", text)
