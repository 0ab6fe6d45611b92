"""The parameters that a user thinks in: standard deviations, correlations, sigma, fixed effects; with their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.errors import ModelError
from crosslmm.layout import Layout

SD, CORRELATION, SIGMA, FIXED = "sd", "cor", "sigma", "fixed"


@dataclass(frozen=True)
class Parameter:
    """One parameter.

    Attributes
    ----------
    name : str
        ``"sd_Days|Subject"``, ``"cor_Days.Intercept|Subject"``, ``"sigma"``, or the name of a fixed effect.
    kind : str
        ``"sd"``, ``"cor"``, ``"sigma"`` or ``"fixed"``.
    term : int
        Position of its random-effects term; -1 where it has none.
    columns : tuple of int
        Positions among the columns of its factor: one of a standard deviation, two of a correlation. Of a fixed effect
        its position among them.
    """

    name: str
    kind: str
    term: int
    columns: tuple[int, ...]


def parameters(layout: Layout) -> tuple[Parameter, ...]:
    """All parameters: of each term its standard deviations and correlations in lme4's order, sigma, fixed effects.

    A term of one variance for all its columns has one standard deviation.
    """
    found: list[Parameter] = []
    for t, term in enumerate(layout.terms):
        factor = layout.factors[term.factor]
        names = factor.columns
        columns = term.columns[:1] if term.covariance.name == "identity" else term.columns
        for a, j in enumerate(columns):
            found.append(Parameter(f"sd_{names[j]}|{factor.name}", SD, t, (j,)))
            if term.covariance.name == "unstructured":
                found += [
                    Parameter(f"cor_{names[i]}.{names[j]}|{factor.name}", CORRELATION, t, (j, i))
                    for i in term.columns[a + 1 :]
                ]
    found.append(Parameter("sigma", SIGMA, -1, ()))
    found += [Parameter(name, FIXED, -1, (j,)) for j, name in enumerate(layout.fixed)]
    return tuple(found)


def chosen(layout: Layout, which: str | Sequence[str]) -> tuple[Parameter, ...]:
    """Parameters by name, or ``"all"``, ``"fixed"``, ``"random"`` (standard deviations, correlations and sigma).

    Raises
    ------
    ModelError
        A name is none of these.
    """
    known = parameters(layout)
    groups = {
        "all": known,
        "fixed": tuple(p for p in known if p.kind == FIXED),
        "random": tuple(p for p in known if p.kind != FIXED),
    }
    if isinstance(which, str) and which in groups:
        return groups[which]
    by_name = {p.name: p for p in known}
    names: list[str] = list(which) if isinstance(which, Iterable) and not isinstance(which, str) else [which]
    for name in names:
        if name not in by_name:
            raise ModelError(f"which={name!r}: expected 'all', 'fixed', 'random' or names among {', '.join(by_name)}")
    return tuple(by_name[name] for name in names)


def parameter_values(layout: Layout, theta: FloatArray, sigma: FloatArray, beta: FloatArray) -> FloatArray:
    """Values of all parameters for many estimates at once.

    Parameters
    ----------
    theta : ndarray, shape (r, m)
        Units of the data.
    sigma : ndarray, shape (r,)
    beta : ndarray, shape (r, p)

    Returns
    -------
    ndarray, shape (r, number of parameters)
        Correlations are nan where a standard deviation is 0.
    """
    covariances = [_covariances(layout, t, theta) for t in range(len(layout.terms))]
    columns = []
    for parameter in parameters(layout):
        if parameter.kind == FIXED:
            columns.append(beta[:, parameter.columns[0]])
        elif parameter.kind == SIGMA:
            columns.append(sigma)
        else:
            C = covariances[parameter.term]
            own = [layout.terms[parameter.term].columns.index(j) for j in parameter.columns]
            sd = np.sqrt(C[:, own, own])
            if parameter.kind == SD:
                columns.append(sigma * sd[:, 0])
                continue
            both = sd[:, 0] * sd[:, 1]
            correlation = np.divide(C[:, own[0], own[1]], both, out=np.full(both.size, np.nan), where=both > 0.0)
            columns.append(np.clip(correlation, -1.0, 1.0))
    return np.column_stack(columns)


def _covariances(layout: Layout, index: int, theta: FloatArray) -> FloatArray:
    """``T T'`` of one term; shape (r, k, k)."""
    term = layout.terms[index]
    cov = term.covariance
    T = np.zeros((len(theta), cov.size, cov.size))
    T[:, cov.rows, cov.cols] = theta[:, term.theta_slice][:, cov.params]
    return np.einsum("rij,rkj->rik", T, T)
