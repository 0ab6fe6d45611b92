"""Results on disk, with or without the rows."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from crosslmm.errors import DataError, ModelError
from crosslmm.results import MixedLMResults
from crosslmm.sources import WithoutRows

if TYPE_CHECKING:
    from crosslmm.grouped.results import GroupedResults


class Keeping:
    """Methods that keep results; they stay as they are."""

    def save(self, fname: str | Path, remove_data: bool = False) -> None:
        """Write the results to a file with pickle.

        Parameters
        ----------
        fname : str or Path
        remove_data : bool
            Leave out the rows.
        """
        Path(fname).write_bytes(pickle.dumps(self.remove_data() if remove_data else _fit(self)))

    @classmethod
    def load(cls, fname: str | Path) -> MixedLMResults:
        """Read results that `save` wrote; a pickle runs code, so only from a file that you trust.

        Parameters
        ----------
        fname : str or Path

        Raises
        ------
        DataError
            The file holds something else.
        """
        loaded = pickle.loads(Path(fname).read_bytes())
        if not isinstance(loaded, MixedLMResults):
            raise DataError(f"{str(fname)!r} holds no results of crosslmm but {type(loaded).__name__}")
        return loaded

    def remove_data(self) -> GroupedResults:
        """The results without the rows; these results stay as they are."""
        fit = _fit(self)
        rows = WithoutRows(fit.model.crossproducts)
        return replace(fit, model=fit.model._made(fit.model.formula, rows, fit.model.written))

    def initialize(self, model: Any, params: Any, **kwargs: Any) -> None:
        """Refused: results are values, and are not filled in later."""
        raise ModelError("results are values and cannot be initialized; fit the model")


def _fit(results: Keeping) -> GroupedResults:
    return cast("GroupedResults", results)
