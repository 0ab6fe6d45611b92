"""Plain statements on what a reader of the numbers must know: singular fits, dropped columns, no convergence."""

from __future__ import annotations

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.fit import Fit, Sampling
from crosslmm.layout import Term

NEGLIGIBLE = 1e-4
"""A standard deviation (column of mean square 1) below this part of sigma is reported as 0; as in `Fit.singular`."""

PERFECT = 1e-6
"""A correlation this close to 1 or -1 is reported as that."""


def statements(fit: Fit) -> list[str]:
    """What must be said beside the tables."""
    said = []
    if not fit.converged:
        said.append(
            f"NOT CONVERGED: {fit.message}. These are not the estimates. fit.optimization shows the search; try "
            "model.fit(start=...) with another theta, a larger max_evaluations, or a simpler random part."
        )
    if fit.singular:
        said.append("Singular fit: " + "; ".join(singular_components(fit)) + ".")
    if fit.sampling is not None:
        said.append(_sampled(fit.sampling))
    if fit.layout.dropped:
        names = ", ".join(fit.layout.dropped)
        said.append(
            "Dropped from the fixed effects, as linear combinations of earlier columns (or factors of one level): "
            f"{names}."
        )
    return said


def _sampled(sampling: Sampling) -> str:
    """How exact what was sampled is."""
    text = (
        f"Sampled with {sampling.n_probes} probes: the Monte Carlo error of theta is at most "
        f"{100.0 * sampling.ratio:.2g}% of its standard error, that of the fixed effects "
        f"{100.0 * sampling.fixed_ratio:.1g}%; that of the log-likelihood is printed below it."
    )
    if sampling.ratio > sampling.asked:
        text += f" {100.0 * sampling.asked:.2g}% was asked for: raise max_probes of IterativeEngine or its error."
    return text


def singular_components(fit: Fit) -> list[str]:
    """Which component of which term has no variance of its own."""
    standard = fit.layout.to_standard(fit.theta)
    found = []
    for term in fit.layout.terms:
        diagonals = standard[term.theta_slice][term.covariance.on_diagonal]
        if np.any(diagonals < NEGLIGIBLE * fit.unit):
            found += _of_term(fit, term)
    return found or ["the covariance of the random effects has less than full rank"]


def _of_term(fit: Fit, term: Term) -> list[str]:
    index = np.ix_(term.columns, term.columns)
    columns = [fit.layout.factors[term.factor].columns[j] for j in term.columns]
    cov = fit.covariances[term.factor][index]
    sd = np.sqrt(np.diag(cov))
    zero = sd * _root_mean_squares(fit, term) < NEGLIGIBLE * fit.unit * fit.sigma
    found = [
        f"the standard deviation of {name} for {term.group} is estimated as 0"
        for name, flag in zip(columns, zero, strict=True)
        if flag
    ]
    rest = np.flatnonzero(~zero)
    if term.covariance.name != "unstructured" or rest.size < 2:
        return found
    corr = cov[np.ix_(rest, rest)] / np.outer(sd[rest], sd[rest])
    pairs = [(i, j) for j in range(rest.size) for i in range(j + 1, rest.size) if 1.0 - abs(corr[i, j]) < PERFECT]
    found += [
        f"the correlation of {columns[rest[j]]} and {columns[rest[i]]} for {term.group} is estimated as "
        + ("1" if corr[i, j] > 0 else "-1")
        for i, j in pairs
    ]
    rank = int(np.linalg.matrix_rank(corr, tol=PERFECT, hermitian=True))
    if rank < rest.size and not pairs:
        names = ", ".join(columns[i] for i in rest)
        found.append(f"the covariance matrix of {names} for {term.group} has rank {rank} instead of {rest.size}")
    return found or [f"the covariance of the random effects for {term.group} is nearly singular"]


def _root_mean_squares(fit: Fit, term: Term) -> FloatArray:
    """Of the term's columns over the rows, from the basis in which they are orthogonal with mean square 1; (k,)."""
    basis = fit.layout.standardization.z_bases[term.factor][np.ix_(term.columns, term.columns)]
    return np.linalg.norm(np.linalg.inv(basis), axis=0)
