"""The likelihood with one variance over the residual variance held at a value, maximised over everything else.

The column whose variance is held is put first in its set, where that variance is the square of one element of the
Cholesky factor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crosslmm.covariance import FloatArray, lower_factor
from crosslmm.errors import ModelError
from crosslmm.grouped.likelihood import Likelihood, raw_scale
from crosslmm.grouped.parameters import Point, root_of
from crosslmm.objective import Directions, Evaluation, differentiate, evaluate
from crosslmm.optimize import minimize
from crosslmm.quadratic import Problem

if TYPE_CHECKING:
    from crosslmm.grouped.results import GroupedResults

TOLERANCE = 1e-9
"""Decrease of the criterion still to come at which to stop."""

EVALUATIONS = 200

LEAST_START = 1e-2
"""Elements start no closer to 0 than this part of their natural scale, since 0 is a stationary point."""

Side = tuple[int, float]


def profile_re(fit: GroupedResults, which: int | str, vtype: str, below: Side, above: Side) -> FloatArray:
    """Variances and log-likelihoods; see `GroupedResults.profile_re`.

    Raises
    ------
    ModelError
        There is no such variance, or a point would be negative.
    """
    if vtype not in ("re", "vc"):
        raise ModelError(f"vtype={vtype!r}: expected 're' (a random effect) or 'vc' (a variance component)")
    position = _position(fit, which, vtype)
    variance = float(np.diag(fit._point.cov_re)[position]) if vtype == "re" else float(fit._point.vcomp[position])
    low, high = variance - below[1] / fit.scale, variance + above[1] / fit.scale
    if low <= 0.0:
        raise ModelError(
            f"dist_low={below[1]} reaches below a variance of {variance * fit.scale:.4g}; take a smaller distance"
        )
    values = np.append(np.linspace(low, variance, below[0] + 1), np.linspace(variance, high, above[0] + 1)[1:])
    likelihood = fit.model._likelihood(fit.reml, fit.estimates.plan.options)
    family = _family(likelihood, fit._point, position, vtype)
    found = [_maximum(likelihood, family, float(value)) for value in values]
    return np.array(
        [(value * raw_scale(likelihood.xp, at), -0.5 * at.criterion) for value, at in zip(values, found, strict=True)]
    )


def _position(fit: GroupedResults, which: int | str, vtype: str) -> int:
    names = list(fit._written.re_names if vtype == "re" else fit._written.vc_names)
    if isinstance(which, str) and which in names:
        return names.index(which)
    if vtype == "re" and isinstance(which, (int, np.integer)) and 0 <= which < len(names):
        return int(which)
    kind = "random effects" if vtype == "re" else "variance components"
    raise ModelError(f"re_ix={which!r}: the {kind} are {', '.join(map(repr, names)) or 'none'}")


@dataclass(frozen=True)
class Family:
    """Templates that are linear in the parameters that are left.

    Attributes
    ----------
    held : tuple of ndarray
        Derivative of the templates (standardised coordinates) by the element that is held, per factor.
    factor : ndarray of intp, shape (m,)
    basis : tuple of ndarray, each (k, k)
        Derivatives by the others.
    column : ndarray of intp, shape (m,)
        Column of the templates that each belongs to.
    on_diagonal : ndarray of bool, shape (m,)
    start, scale : ndarray, each (m,)
    """

    held: tuple[FloatArray, ...]
    factor: NDArray[np.intp]
    basis: tuple[FloatArray, ...]
    column: NDArray[np.intp]
    on_diagonal: NDArray[np.bool_]
    start: FloatArray
    scale: FloatArray

    def templates(self, root: float, theta: FloatArray) -> tuple[FloatArray, ...]:
        """At a value of the element that is held and of the others."""
        result = [root * E for E in self.held]
        for f, E, value in zip(self.factor, self.basis, theta, strict=True):
            result[f] = result[f] + value * E
        return tuple(result)


def _family(likelihood: Likelihood, point: Point, position: int, vtype: str) -> Family:
    space = likelihood.space
    bases = likelihood.xp.layout.standardization.z_bases
    inverse = [np.asarray(np.linalg.inv(U), float) for U in bases]
    scales = [_natural(D, back) for D, back in zip(likelihood.xp.diagonal, inverse, strict=True)]
    held = [np.zeros_like(U) for U in bases]
    factor, basis, column, diagonal, start, scale = [], [], [], [], [], []
    n_columns = 0

    def put(f: int, E: FloatArray, own: int, on_diagonal: bool, value: float, size: float) -> None:
        factor.append(f)
        basis.append(inverse[f] @ E)
        column.append(own)
        diagonal.append(on_diagonal)
        start.append(value if abs(value) > LEAST_START * size else LEAST_START * size)
        scale.append(size)

    target = space.re_columns[position] if vtype == "re" else None
    for term in space.re:
        order = sorted(term.columns, key=lambda j: j != target)
        index = [space.re_columns.index(j) for j in order]
        L = lower_factor(root_of(point.cov_re[np.ix_(index, index)]))
        for b in range(len(order)):
            for a in range(b, len(order)):
                E = np.zeros_like(bases[term.factor])
                E[order[a], order[b]] = 1.0
                if a == b and order[a] == target:
                    held[term.factor] = inverse[term.factor] @ E
                else:
                    put(term.factor, E, n_columns, a == b, float(L[a, b]), float(scales[term.factor][order[a]]))
            n_columns += 1
    for i, term in enumerate(space.vcs):
        E = np.zeros_like(bases[term.factor])
        E[term.columns, term.columns] = 1.0
        if vtype == "vc" and i == position:
            held[term.factor] = inverse[term.factor] @ E
        else:
            size = float(scales[term.factor][list(term.columns)].mean())
            put(term.factor, E, n_columns, True, float(np.sqrt(point.vcomp[i])), size)
        n_columns += 1
    return Family(
        tuple(held),
        np.array(factor, dtype=np.intp),
        tuple(basis),
        np.array(column, dtype=np.intp),
        np.array(diagonal, dtype=bool),
        np.array(start),
        np.array(scale),
    )


def _natural(D: FloatArray, back: FloatArray) -> FloatArray:
    """Natural scale of the columns of a factor, units of the data; shape (k,)."""
    mean = np.diag(back.T @ D.mean(axis=2) @ back)
    return 1.0 / np.sqrt(np.where(mean > 0.0, mean, 1.0))


def _maximum(likelihood: Likelihood, family: Family, variance: float) -> Evaluation:
    root = float(np.sqrt(variance))

    def value(theta: FloatArray) -> Evaluation:
        templates = family.templates(root, theta)
        return evaluate(likelihood.equations, likelihood.xp, templates, reml=likelihood.reml)

    if not family.start.size:
        return value(family.start)
    directions = Directions(family.factor, family.basis)
    problem: Problem[Evaluation] = Problem(
        value=value,
        slopes=lambda at: differentiate(at, directions),
        on_diagonal=family.on_diagonal,
        column=family.column,
        collapse=lambda theta, index: np.where(family.column == family.column[index], 0.0, theta),
        reduce=lambda theta: None,
        leave=lambda theta, slopes: None,
        scale=family.scale,
    )
    return minimize(problem, family.start, tolerance=TOLERANCE, max_evaluations=EVALUATIONS).value
