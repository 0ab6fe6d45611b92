"""Fits from text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crosslmm.effects.saving import from_dict
from crosslmm.errors import DataError, ModelError
from crosslmm.model import MixedLM
from crosslmm.results import MixedLMResults


def load_fit(saved: Any, *, context: Mapping[str, Any] | None = None) -> MixedLMResults:
    """A fit from what `MixedLMResults.to_dict` gave; it has the estimates and the random effects, and predicts.

    Parameters
    ----------
    saved : dict, str or Path
        The dictionary, its JSON text, or the path of a file that holds it.
    context : mapping, optional
        Names that the formula uses beside the columns of the data; text cannot hold functions.

    Returns
    -------
    MixedLMResults
        Without rows: what needs the data is refused.

    Raises
    ------
    ModelError
        It is no fit, is damaged, or was written by a version with another format.
    DataError
        The file cannot be read.

    Examples
    --------
    >>> import json
    >>> import crosslmm as clm
    >>> fit = clm.lmer("Yield ~ 1 + (1 | Batch)", clm.datasets.load_dyestuff())
    >>> text = json.dumps(fit.to_dict())
    >>> bool((clm.load_fit(text).fe_params == fit.fe_params).all())
    True
    """
    formula, rows, fit = from_dict(_parsed(saved), context)
    return MixedLMResults(MixedLM._made(formula, rows), fit)


def _parsed(saved: Any) -> Any:
    if isinstance(saved, Mapping):
        return saved
    if isinstance(saved, Path) or (isinstance(saved, str) and not saved.lstrip().startswith("{")):
        try:
            saved = Path(saved).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{str(saved)!r} cannot be read: {error}") from error
    if not isinstance(saved, (str, bytes)):
        raise ModelError(f"a fit comes as a dict, JSON text or a path, not {type(saved).__name__}")
    try:
        return json.loads(saved)
    except ValueError as error:
        raise ModelError(f"this is no JSON text: {error}") from error
