"""From a data frame and a formula to the rows of a model and their cross-products."""

from crosslmm.design.accumulate import accumulate
from crosslmm.design.build import build_design
from crosslmm.design.rows import Design

__all__ = ["Design", "accumulate", "build_design"]
