"""What a fit offers by fitting again: likelihood-ratio tests of its terms, profiles, the bootstrap."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pandas as pd

if TYPE_CHECKING:
    from crosslmm.inference.drop import Elimination
    from crosslmm.results import MixedLMResults


class Refitting:
    """Methods of `MixedLMResults` that fit the model, or smaller ones, again; the fit itself stays as it is."""

    def ranova(self, *, reduce_terms: bool = True) -> pd.DataFrame:
        """Likelihood-ratio tests of the random-effects terms; see `crosslmm.inference.drop.ranova`."""
        from crosslmm.inference.drop import ranova

        return ranova(_results(self), reduce_terms=reduce_terms)

    def drop1(self, *, test: str = "lrt") -> pd.DataFrame:
        """Tests of the fixed-effects terms, each dropped in turn; see `crosslmm.inference.drop.drop1`."""
        from crosslmm.inference.drop import drop1

        return drop1(_results(self), test=test)

    def step(self, *, alpha_random: float = 0.1, alpha_fixed: float = 0.05, test: str = "lrt") -> Elimination:
        """Backward elimination of random, then fixed terms; see `crosslmm.inference.drop.step`."""
        from crosslmm.inference.drop import step

        return step(_results(self), alpha_random=alpha_random, alpha_fixed=alpha_fixed, test=test)


def _results(fit: Refitting) -> MixedLMResults:
    return cast("MixedLMResults", fit)
