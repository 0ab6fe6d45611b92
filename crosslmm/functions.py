"""Functions beside the model: one that fits at once, one that stops at the cross-products."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crosslmm.crossproducts import CrossProducts
from crosslmm.design.rows import Progress
from crosslmm.engine.plan import Engine
from crosslmm.model import MixedLM
from crosslmm.options import engine_options
from crosslmm.results import MixedLMResults


def lmer(
    formula: str,
    data: Any,
    reml: bool = True,
    *,
    weights: Any = None,
    offset: Any = None,
    missing: str = "drop",
    context: Mapping[str, Any] | None = None,
    progress: bool | Progress | None = None,
    engine: str | Engine = "auto",
    start: Any = None,
    verbose: bool = False,
) -> MixedLMResults:
    """Build a model and fit it: ``MixedLM.from_formula(...).fit(...)``.

    Parameters
    ----------
    formula, data, weights, offset, missing, context, progress
        See `MixedLM.from_formula`.
    reml, engine, start, verbose
        See `MixedLM.fit`.

    Returns
    -------
    MixedLMResults

    Examples
    --------
    >>> import crosslmm as clm
    >>> fit = clm.lmer("Reaction ~ Days + (Days | Subject)", clm.datasets.load_sleepstudy())
    >>> fit.fe_params.round(3).to_dict()
    {'Intercept': 251.405, 'Days': 10.467}
    """
    engine_options(engine)
    model = MixedLM.from_formula(
        formula, data, weights=weights, offset=offset, missing=missing, context=context, progress=progress
    )
    return model.fit(reml=reml, engine=engine, start=start, verbose=verbose, progress=progress)


mixedlm = MixedLM.from_formula


def accumulate(
    formula: str,
    source: Any,
    *,
    weights: Any = None,
    offset: Any = None,
    missing: str = "drop",
    context: Mapping[str, Any] | None = None,
    progress: bool | Progress | None = None,
) -> CrossProducts:
    """All that a fit needs of the rows of a source, to be kept, sent or fitted with `MixedLM.from_crossproducts`.

    Parameters
    ----------
    formula, source, weights, offset, missing, context, progress
        See `MixedLM.from_formula`.

    Returns
    -------
    CrossProducts
    """
    model = MixedLM.from_formula(
        formula, source, weights=weights, offset=offset, missing=missing, context=context, progress=progress
    )
    return model.crossproducts
