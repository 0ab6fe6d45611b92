"""Rows that come in batches: from files, functions and clusters to the cross-products of a model."""

from crosslmm.sources.model_rows import read_model
from crosslmm.sources.without import WithoutRows

__all__ = ["WithoutRows", "read_model"]
