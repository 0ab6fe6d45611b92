"""The least deviance with a parameter at its limit: a correlation of 1 or -1, or a random effect left out.

A random effect is left out of the cross-products, and the smaller model is fitted. Where its deviance is sampled, it is
read off the equations of the whole model, with templates whose rows are 0 for what is left out: there the same probes
say it that speak of the rest of the curve.
"""

from __future__ import annotations

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import CrossProducts
from crosslmm.engine.choose import choose
from crosslmm.engine.plan import Engine, IterativeEngine
from crosslmm.engine.protocol import Equations, Templates
from crosslmm.inference.constrained import Constrained, ModelAt
from crosslmm.inference.parameters import CORRELATION, Parameter
from crosslmm.inference.reduce import TermColumns, whole_term, with_terms
from crosslmm.layout import Layout
from crosslmm.objective import Evaluation, criterion_problem, evaluate
from crosslmm.optimize import minimize
from crosslmm.start import natural_scale, starting_theta


def at_limit(
    model: ModelAt, parameter: Parameter, held: Constrained, limit: float, *, tolerance: float, max_evaluations: int
) -> Evaluation:
    """The ML deviance with the parameter at `limit`, minimised over all others.

    Parameters
    ----------
    model : ModelAt
    parameter : Parameter
        A standard deviation or a correlation.
    held : Constrained
        The same, as it is held inside its limits.
    limit : float
    tolerance, max_evaluations
        See `crosslmm.optimize.minimize`.
    """
    if parameter.kind == CORRELATION:
        found = minimize(held.problem(limit), held.start, tolerance=tolerance, max_evaluations=max_evaluations)
        value: Evaluation = found.value
        return value
    layout = model.xp.layout
    kept = _kept(layout, parameter)
    templates = tuple(np.zeros((f.size, f.size)) for f in layout.factors)
    if kept:
        smaller = with_terms(model.xp, kept, layout.formula)
        problem = criterion_problem(
            choose(smaller, _engine(model.equations)), smaller, natural_scale(smaller), reml=False
        )
        start = starting_theta(smaller, reml=False)
        found = minimize(problem, start, tolerance=tolerance, max_evaluations=max_evaluations)
        if not model.equations.n_probes:
            return found.value
        templates = _whole_templates(layout, kept, smaller, found.theta)
    return evaluate(model.equations, model.xp, templates, reml=False)


def _engine(equations: Equations) -> Engine:
    """The engine of these equations, with as many probes."""
    options = equations.plan.options
    if isinstance(options, IterativeEngine) and equations.n_probes:
        return options.with_probes(equations.n_probes)
    return options


def _kept(layout: Layout, parameter: Parameter) -> list[TermColumns]:
    """The terms without the random effect whose standard deviation is 0."""
    parts = [whole_term(layout, t) for t in range(len(layout.terms))]
    own, term = parts[parameter.term], layout.terms[parameter.term]
    stays = [i for i, j in enumerate(term.columns) if j not in parameter.columns]
    if term.covariance.name == "identity":
        stays = []
    smaller = TermColumns(own.term, tuple(own.names[i] for i in stays), np.eye(len(term.columns))[:, stays], own.label)
    kept = [p for p in parts if p is not own] + ([smaller] if stays else [])
    return sorted(kept, key=lambda p: p.term)


def _whole_templates(layout: Layout, kept: list[TermColumns], smaller: CrossProducts, theta: FloatArray) -> Templates:
    """Templates of the whole model from theta of the smaller one, both in standardised coordinates of their own."""
    raw = smaller.layout.templates(smaller.layout.to_raw(theta))
    whole = [np.zeros((f.size, f.size)) for f in layout.factors]
    for part, term in zip(kept, smaller.layout.terms, strict=True):
        own = layout.terms[part.term]
        columns = np.array(own.columns)[np.argmax(part.combination, axis=0)]
        whole[own.factor][np.ix_(columns, columns)] = raw[term.factor][np.ix_(term.columns, term.columns)]
    return tuple(np.asarray(np.linalg.solve(U, T)) for U, T in zip(layout.standardization.z_bases, whole, strict=True))
