"""crosslmm: linear mixed models with crossed random effects."""

from typing import Any

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
from crosslmm.inference.likelihood_ratio import compare
from crosslmm.interchange import load_fit
from crosslmm.model import MixedLM
from crosslmm.planning import Power, power, simulate
from crosslmm.results import MixedLMResults
from crosslmm.version import VERSION

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


def __getattr__(name: str) -> Any:
    """`crosslmm.sklearn`, which loads scikit-learn when it is asked for."""
    if name != "sklearn":
        raise AttributeError(f"module 'crosslmm' has no attribute {name!r}")
    import importlib

    return importlib.import_module("crosslmm.sklearn")
