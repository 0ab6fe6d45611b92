"""What a fit offers by fitting again: likelihood-ratio tests of its terms, profiles, the bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from crosslmm.errors import ModelError

if TYPE_CHECKING:
    from crosslmm.inference.bootstrap import Bootstrap
    from crosslmm.inference.bootstrap_test import BootstrapTest
    from crosslmm.inference.drop import Elimination
    from crosslmm.inference.profile import Profile
    from crosslmm.progress import Rows
    from crosslmm.results import MixedLMResults


WALD, PROFILE, BOOTSTRAP = "wald", "profile", "bootstrap"


class Refitting:
    """Methods of `MixedLMResults` that fit the model, or smaller ones, again; the fit itself stays as it is."""

    def conf_int(
        self,
        alpha: float = 0.05,
        *,
        method: str = WALD,
        which: str | Sequence[str] | None = None,
        n: int = 1000,
        rng: int | np.random.Generator | None = None,
        kind: str = "percentile",
        n_jobs: int = 1,
        progress: bool | Rows | None = None,
    ) -> pd.DataFrame:
        """Confidence intervals.

        Parameters
        ----------
        alpha : float
            One minus the level, between 0 and 1.
        method : {"wald", "profile", "bootstrap"}
            From standard errors (normal; those of standard deviations on the log scale, of correlations on that of
            atanh), by profiling the ML deviance, or by a parametric bootstrap.
        which : {"fixed", "random", "all"}, or names
            Which parameters; by default the fixed effects for ``"wald"`` and all for the others. Names are as
            ``sd_Days|Subject``, ``cor_Days.Intercept|Subject``, ``sigma`` and those of the fixed effects.
        n, rng, kind, n_jobs
            See `bootstrap` and `Bootstrap.conf_int`; for ``method="bootstrap"`` only.
        progress : bool or callable, optional
            As for `MixedLM.from_formula`; for ``"profile"`` and ``"bootstrap"``.

        Returns
        -------
        DataFrame
            Columns 0 (lower) and 1 (upper), as in statsmodels. Profiles of a sampled deviance have their Monte Carlo
            errors beside them; see `Profile.conf_int`.
        """
        from crosslmm.inference.intervals import check_alpha

        alpha = check_alpha(alpha)
        fit = _results(self)
        if method == PROFILE:
            from crosslmm.inference.profile import profile

            wanted = "all" if which is None else which
            return profile(fit, wanted, alpha=alpha, progress=progress).conf_int(alpha)
        if method == BOOTSTRAP:
            from crosslmm.inference.bootstrap import bootstrap

            replicates = bootstrap(fit, n, rng=rng, n_jobs=n_jobs, progress=progress)
            table = replicates.conf_int(alpha, kind=kind, which="all" if which is None else which)
            return table[["lower", "upper"]].set_axis([0, 1], axis=1).rename_axis(None)
        if method != WALD:
            raise ModelError(f"method={method!r}: expected 'wald', 'profile' or 'bootstrap'")
        from crosslmm.inference.parameters import chosen
        from crosslmm.inference.wald import wald_intervals

        return wald_intervals(fit, chosen(fit.estimates.layout, "fixed" if which is None else which), alpha)

    def profile(
        self, which: str | Sequence[str] = "all", *, alpha: float = 0.05, progress: bool | Rows | None = None
    ) -> Profile:
        """Profiles of the ML deviance; see `crosslmm.inference.profile.profile`."""
        from crosslmm.inference.profile import profile

        return profile(_results(self), which, alpha=alpha, progress=progress)

    def bootstrap(
        self,
        n: int = 1000,
        *,
        rng: int | np.random.Generator | None = None,
        n_jobs: int = 1,
        kind: str = "parametric",
        by: str | None = None,
        statistic: Callable[[Any], Any] | None = None,
        progress: bool | Rows | None = None,
    ) -> Bootstrap:
        """Refits to responses drawn from the fit, or to groups of the data; see `inference.bootstrap.bootstrap`."""
        from crosslmm.inference.bootstrap import bootstrap

        fit = _results(self)
        return bootstrap(fit, n, rng=rng, n_jobs=n_jobs, kind=kind, by=by, statistic=statistic, progress=progress)

    def bootstrap_test(
        self,
        smaller: MixedLMResults,
        n: int = 1000,
        *,
        rng: int | np.random.Generator | None = None,
        n_jobs: int = 1,
        progress: bool | Rows | None = None,
    ) -> BootstrapTest:
        """Likelihood-ratio test of a smaller fit by simulation; see `inference.bootstrap_test.bootstrap_test`."""
        from crosslmm.inference.bootstrap_test import bootstrap_test

        return bootstrap_test(_results(self), smaller, n, rng=rng, n_jobs=n_jobs, progress=progress)

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
