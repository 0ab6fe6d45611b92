"""crosslmm: linear mixed models with crossed random effects."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from crosslmm import datasets
from crosslmm.engine.plan import DirectEngine, IterativeEngine, Plan
from crosslmm.errors import (
    ConvergenceWarning,
    CrosslmmError,
    CrosslmmWarning,
    DataError,
    DataWarning,
    FormulaError,
    ModelError,
    NumericalError,
    RankDeficiencyWarning,
    ResourceError,
)
from crosslmm.functions import accumulate, lmer, mixedlm
from crosslmm.grouped.components import VCSpec
from crosslmm.grouped.parameters import MixedLMParams
from crosslmm.model import MixedLM
from crosslmm.results import MixedLMResults
from crosslmm.version import VERSION

if TYPE_CHECKING:
    from crosslmm.inference.likelihood_ratio import compare
    from crosslmm.interchange import load_fit
    from crosslmm.planning import Power, power, simulate

__version__ = VERSION

__all__ = [
    "ConvergenceWarning",
    "CrosslmmError",
    "CrosslmmWarning",
    "DataError",
    "DataWarning",
    "DirectEngine",
    "FormulaError",
    "IterativeEngine",
    "MixedLM",
    "MixedLMParams",
    "MixedLMResults",
    "ModelError",
    "NumericalError",
    "Plan",
    "Power",
    "RankDeficiencyWarning",
    "ResourceError",
    "VCSpec",
    "accumulate",
    "compare",
    "datasets",
    "lmer",
    "load_fit",
    "mixedlm",
    "power",
    "simulate",
]


LATER = {
    "Power": "planning",
    "compare": "inference.likelihood_ratio",
    "load_fit": "interchange",
    "power": "planning",
    "simulate": "planning",
}
"""Public names whose modules are loaded when they are asked for: an import should not wait for them."""


def __getattr__(name: str) -> Any:
    """The names of `LATER`, and `crosslmm.sklearn`, which loads scikit-learn."""
    if name == "sklearn":
        return import_module("crosslmm.sklearn")
    if name not in LATER:
        raise AttributeError(f"module 'crosslmm' has no attribute {name!r}")
    return getattr(import_module(f"crosslmm.{LATER[name]}"), name)


def __dir__() -> list[str]:
    """All public names."""
    return sorted({*globals(), *LATER, "sklearn"})
