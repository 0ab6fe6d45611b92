"""Responses drawn from a model, row by row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from crosslmm.blas import times
from crosslmm.covariance import FloatArray
from crosslmm.effects.newrows import NewRows
from crosslmm.engine.plan import require_memory
from crosslmm.errors import ModelError
from crosslmm.fit import Fit
from crosslmm.layout import Layout

NEW, FITTED = "new", "fitted"


@dataclass(frozen=True)
class Truth:
    """What responses are drawn from, units of the data.

    Attributes
    ----------
    layout : Layout
    beta : ndarray, shape (p,)
    templates : tuple of ndarray, each (k, k)
    sigma : float
    """

    layout: Layout
    beta: FloatArray
    templates: tuple[FloatArray, ...]
    sigma: float

    @classmethod
    def of(cls, fit: Fit) -> Truth:
        """The estimates of a fit."""
        return cls(fit.layout, fit.beta, fit.templates, fit.sigma)


@dataclass(frozen=True)
class Effects:
    """Random effects of the levels of every factor: those of known levels, and others drawn when they are met.

    Attributes
    ----------
    truth : Truth
    rng : numpy.random.Generator
    n : int
        Draws of each.
    known : tuple of ndarray, each (L, k, n)
    drawn : dict
        Effects (k, n) by factor and label; filled as labels are met, so that batches agree on them.
    """

    truth: Truth
    rng: np.random.Generator
    n: int
    known: tuple[FloatArray, ...]
    drawn: dict[tuple[int, Any], FloatArray] = field(default_factory=dict)

    @classmethod
    def fresh(cls, truth: Truth, n: int, rng: np.random.Generator) -> Effects:
        """New effects for all levels, n times."""
        shapes = [(factor.n_levels, factor.size) for factor in truth.layout.factors]
        known = tuple(_draw(truth, f, shape[0], n, rng) for f, shape in enumerate(shapes))
        return cls(truth, rng, n, known)

    @classmethod
    def fitted(cls, fit: Fit, n: int, rng: np.random.Generator) -> Effects:
        """The conditional modes, the same n times."""
        known = tuple(np.broadcast_to(b[:, :, None], (*b.shape, n)) for b in fit.modes)
        return cls(Truth.of(fit), rng, n, known)

    def of(self, factor: int, rows: NewRows) -> FloatArray:
        """Effects of all levels that occur in some rows, known ones first; shape (L', k, n)."""
        labels = rows.new[factor].tolist()
        if not labels:
            return self.known[factor]
        for label in labels:
            if (factor, label) not in self.drawn:
                self.drawn[factor, label] = _draw(self.truth, factor, 1, self.n, self.rng)[0]
        return np.concatenate([self.known[factor], np.stack([self.drawn[factor, label] for label in labels])])


def _draw(truth: Truth, factor: int, levels: int, n: int, rng: np.random.Generator) -> FloatArray:
    T = truth.templates[factor]
    return truth.sigma * np.einsum("ij,ljn->lin", T, rng.standard_normal((levels, T.shape[0], n)))


def responses(truth: Truth, effects: Effects, rows: NewRows, rng: np.random.Generator) -> FloatArray:
    """Draws for some rows; shape (m, n)."""
    values = times(rows.X, truth.beta[:, None])
    if rows.offset is not None:
        values = values + rows.offset[:, None]
    noise = rng.standard_normal((rows.X.shape[0], effects.n)) * truth.sigma
    values = values + (noise if rows.weights is None else noise / np.sqrt(rows.weights)[:, None])
    for f, (Z, codes) in enumerate(zip(rows.Z, rows.codes, strict=True)):
        b = effects.of(f, rows)
        for j in range(Z.shape[1]):
            values += Z[:, j, None] * b[codes, j]
    return values


def simulated(truth: Truth, effects: Effects, batches: Iterable[NewRows], n_rows: int | None) -> pd.DataFrame:
    """Draws for all rows, one column for each; nan in rows that miss a value."""
    if n_rows is not None:
        require_memory(2 * 8 * n_rows * effects.n, f"simulating {effects.n} responses of {n_rows:,} rows")
    parts = []
    for rows in batches:
        values = np.full((rows.complete.size, effects.n), np.nan)
        values[rows.complete] = responses(truth, effects, rows, effects.rng)
        parts.append(pd.DataFrame(values, index=rows.index, columns=[f"sim_{i + 1}" for i in range(effects.n)]))
    return parts[0] if len(parts) == 1 else pd.concat(parts)


def check_effects(random_effects: Any) -> str:
    """Refuse what is neither ``"new"`` nor ``"fitted"``."""
    if random_effects not in (NEW, FITTED):
        raise ModelError(f"random_effects={random_effects!r}: expected 'new' or 'fitted'")
    return str(random_effects)
