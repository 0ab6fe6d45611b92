"""The first pass: rows, levels, kinds of columns and a sample of the rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from crosslmm.design.complete import complete_part
from crosslmm.design.covariates import covariates
from crosslmm.design.fixed import materialize
from crosslmm.design.frame import read_columns, settle
from crosslmm.design.variables import coded_columns, column_uses, used_columns
from crosslmm.formula import MixedFormula
from crosslmm.sources.columns import ColumnFacts, add_facts, facts_of
from crosslmm.sources.moments import Moments, moments
from crosslmm.sources.protocol import Batch, batch_errors
from crosslmm.sources.scalings import scaled_calls

MOST_SAMPLED = 8192
"""Rows of the sample at most; half of them are left when there are more."""

SAMPLED_PER_BATCH = 1024
"""Rows that one batch gives to the sample."""


@dataclass(frozen=True)
class Needs:
    """What a model reads of a source.

    Attributes
    ----------
    covariates : tuple of str
        Columns that formulaic reads.
    plain, categories : frozenset of str
        Those that stand in the formula by themselves, and those used as categories only.
    coded : frozenset of str
        Those that stand in ``C(name)``, perhaps among other places.
    groupings : tuple of tuple of str
        Columns of every grouping factor.
    weights, offset : str or None
    missing : {"drop", "raise"}
    scaled : dict of str to str
        Calls of ``scale`` and the like, and what they scale.
    context : mapping
        Further names that the formula uses.
    """

    covariates: tuple[str, ...]
    plain: frozenset[str]
    categories: frozenset[str]
    coded: frozenset[str]
    groupings: tuple[tuple[str, ...], ...]
    weights: str | None
    offset: str | None
    missing: str
    scaled: Mapping[str, str]
    context: Mapping[str, Any]

    @property
    def columns(self) -> list[str]:
        """All columns, once each."""
        extra = [name for name in (self.weights, self.offset) if name is not None]
        return list(dict.fromkeys([*self.covariates, *self.level_columns, *extra]))

    @property
    def level_columns(self) -> list[str]:
        """Columns of the grouping factors."""
        return list(dict.fromkeys(name for names in self.groupings for name in names))


def needs_of(
    formula: MixedFormula,
    present: list[str],
    context: Mapping[str, Any],
    weights: str | None,
    offset: str | None,
    missing: str,
) -> Needs:
    """What a formula reads of a source with columns `present`."""
    plain, categories = column_uses(formula)
    return Needs(
        covariates=tuple(used_columns(formula, present, context)),
        plain=frozenset(plain),
        categories=frozenset(categories),
        coded=frozenset(coded_columns(formula)),
        groupings=tuple(dict.fromkeys(term.grouping for term in formula.random)),
        weights=weights,
        offset=offset,
        missing=missing,
        scaled=scaled_calls(formula, context),
        context=context,
    )


@dataclass(frozen=True)
class Learned:
    """What the first pass knows of some batches.

    Attributes
    ----------
    n, n_dropped : int
        Complete rows, and others.
    missing : dict of str to int
        Columns that miss values, and in how many rows.
    columns : dict of str to ColumnFacts
        Covariates and grouping columns.
    combinations : dict of tuple to tuple of DataFrame
        Distinct combinations of the columns of factors of several; one can be in several pieces.
    scalings : dict of str to Moments
        Moments of what each call scales; nothing where no row is complete.
    sample : DataFrame
        Some of the complete rows, spread evenly.
    """

    n: int
    n_dropped: int
    missing: dict[str, int]
    columns: dict[str, ColumnFacts]
    combinations: dict[tuple[str, ...], tuple[pd.DataFrame, ...]]
    scalings: dict[str, Moments]
    sample: pd.DataFrame


@dataclass(frozen=True)
class Learn:
    """Learns one batch."""

    needs: Needs

    def __call__(self, batch: Batch) -> Learned:
        """What a batch holds."""
        needs = self.needs
        with batch_errors(batch.name):
            frame = read_columns(batch.table, needs.columns)
            rows = complete_part(frame, needs.weights, needs.offset, needs.missing)
            frame = rows.frame
            levels = {*needs.level_columns, *needs.categories}
            names = dict.fromkeys([*needs.covariates, *needs.level_columns])
            columns = {
                name: facts_of(
                    frame[name], batch.name, levels=name in levels, text=name in needs.plain or name in needs.coded
                )
                for name in names
            }
            sample = _spread(frame, SAMPLED_PER_BATCH)
            covariates(settle(sample[list(needs.covariates)]), needs.plain, needs.categories)
            crossed = [names for names in needs.groupings if len(names) > 1]
            combinations: dict[tuple[str, ...], tuple[pd.DataFrame, ...]] = {
                names: (_combinations(frame[list(names)]),) for names in crossed
            }
        return Learned(
            len(frame), rows.n_dropped, dict(rows.missing), columns, combinations, self._scalings(frame), sample
        )

    def _scalings(self, frame: pd.DataFrame) -> dict[str, Moments]:
        """Moments of what is scaled, over the rows of a batch."""
        needs = self.needs
        if not needs.scaled or len(frame) == 0:
            return {}
        used = covariates(settle(frame[list(needs.covariates)]), needs.plain, needs.categories)
        with np.errstate(all="ignore"):
            return {
                call: moments(np.asarray(materialize(f"0 + I({argument})", used, needs.context), dtype=np.float64))
                for call, argument in needs.scaled.items()
            }


def add_learned(a: Learned, b: Learned) -> Learned:
    """What is known of the batches of both."""
    missing = {name: a.missing.get(name, 0) + b.missing.get(name, 0) for name in {**a.missing, **b.missing}}
    return Learned(
        n=a.n + b.n,
        n_dropped=a.n_dropped + b.n_dropped,
        missing=missing,
        columns={name: add_facts(name, a.columns[name], b.columns[name]) for name in a.columns},
        combinations={names: _merged((*a.combinations[names], *b.combinations[names])) for names in a.combinations},
        scalings={call: _sum(a.scalings.get(call), b.scalings.get(call)) for call in {**a.scalings, **b.scalings}},
        sample=_both(a.sample, b.sample),
    )


def _sum(a: Moments | None, b: Moments | None) -> Moments:
    """Moments of the rows of both; one of them has rows."""
    if a is None or b is None:
        return cast(Moments, a if b is None else b)
    return a + b


def _spread(frame: pd.DataFrame, most: int) -> pd.DataFrame:
    n = len(frame)
    if n <= most:
        return frame
    return frame.iloc[np.linspace(0, n - 1, most).astype(np.intp)]


def _both(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    if a.empty or b.empty:
        return b if a.empty else a
    both = pd.concat([a, b], ignore_index=True)
    return both if len(both) <= MOST_SAMPLED else both.iloc[::2]


def _combinations(frame: pd.DataFrame) -> pd.DataFrame:
    """Distinct rows, with categories as their values."""
    rows = frame.drop_duplicates(ignore_index=True)
    plain = {
        name: rows[name].astype(object) if isinstance(rows[name].dtype, pd.CategoricalDtype) else rows[name]
        for name in rows.columns
    }
    return pd.DataFrame(plain)


def _merged(pieces: tuple[pd.DataFrame, ...]) -> tuple[pd.DataFrame, ...]:
    """As `columns.merged`."""
    kept: list[pd.DataFrame] = []
    for piece in pieces:
        while kept and len(kept[-1]) <= 2 * len(piece):
            piece = pd.concat([kept.pop(), piece], ignore_index=True).drop_duplicates(ignore_index=True)
        kept.append(piece)
    return tuple(kept)
