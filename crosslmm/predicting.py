"""What a fit offers for new rows, new responses and its random effects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from crosslmm.design.rows import Progress
from crosslmm.progress import meter

if TYPE_CHECKING:
    from crosslmm.effects.covariance import Joint
    from crosslmm.effects.predicted import Predictor
    from crosslmm.effects.ranef import RandomEffects
    from crosslmm.results import MixedLMResults


class Predicting:
    """Methods of `MixedLMResults` that predict, simulate, fit again and show the random effects."""

    # --- predictions -----------------------------------------------------------------------------

    def predict(
        self,
        data: Any = None,
        *,
        random_effects: bool | str | Sequence[str] = True,
        new_levels: str = "error",
        interval: str | None = None,
        level: float = 0.95,
        offset: Any = None,
        weights: Any = None,
        rng: int | np.random.Generator | None = None,
        progress: bool | Progress | None = None,
    ) -> Any:
        """Predictions of new rows, or of the rows of the model.

        Parameters
        ----------
        data : table or source, optional
            Any table or source that a model can be made from; no response is needed. None: the rows of the model.
        random_effects : bool, str or list of str
            True: fixed effects plus all random effects. False: fixed effects alone. Else the names of factors
            (``"s"``) or terms (``"(1 | s)"``) that are used. Grouping columns of the others need not be there.
        new_levels : {"error", "population", "sample"}
            What to do with levels that the fit has not seen: refuse them, leave their random effects at 0, or draw them
            from their distribution (a level has one draw).
        interval : {"confidence", "prediction"}, optional
            For ``x' beta + z' b``, or for a new response: the residual is then added, and the random effects that are
            left at 0 (new levels, terms that are left out) count with their variance.
        level : float
            Of the interval, by the normal distribution.
        offset, weights : str or array, optional
            Known part of the response, and prior weights of new responses; by default the columns that the model was
            made with.
        rng : int or numpy.random.Generator, optional
            For ``new_levels="sample"``.
        progress : bool or callable, optional
            As in `MixedLM.from_formula`; for sources.

        Returns
        -------
        Series or DataFrame
            A Series; with `interval` a frame with columns fit, se, lower and upper. Rows and index are those of the
            data (numbers of rows for a source); rows that miss a value have missing predictions.

        Raises
        ------
        DataError
            The data do not serve the model, or hold new levels or categories.
        ModelError
            An argument is not what it may be.

        Notes
        -----
        Standard errors come from the joint covariance of the fixed effects and the conditional modes. The uncertainty
        of the covariance parameters is left out, as in lme4.

        Examples
        --------
        >>> import crosslmm as clm
        >>> fit = clm.lmer("Reaction ~ Days + (Days | Subject)", clm.datasets.load_sleepstudy())
        >>> new = {"Days": [10, 10], "Subject": ["308", "999"]}
        >>> fit.predict(new, new_levels="population").round(2).tolist()
        [450.33, 356.08]
        """
        from crosslmm.effects.predicted import joined

        with meter(progress) as shown:
            parts = list(
                self._predicted(data, random_effects, new_levels, interval, level, offset, weights, rng, shown.rows)
            )
        return joined(parts)

    def predict_batches(
        self,
        data: Any,
        *,
        random_effects: bool | str | Sequence[str] = True,
        new_levels: str = "error",
        interval: str | None = None,
        level: float = 0.95,
        offset: str | None = None,
        weights: str | None = None,
        rng: int | np.random.Generator | None = None,
        progress: Progress | None = None,
    ) -> Iterator[Any]:
        """`predict` batch by batch, for sources with more rows than memory.

        Parameters
        ----------
        data, random_effects, new_levels, interval, level, offset, weights, rng
            See `predict`.
        progress : callable, optional
            Called with the name of the phase, the rows done and the rows in all (None where nobody knows).

        Yields
        ------
        Series or DataFrame
            As `predict` returns, for the rows of a batch.
        """
        yield from self._predicted(data, random_effects, new_levels, interval, level, offset, weights, rng, progress)

    def write_predictions(self, path: str | Path, data: Any, **options: Any) -> None:
        """Write predictions of a table or source to a Parquet file, batch by batch.

        The file has the column row (label of the row) and those of `predict`, and appears when it is complete.

        Parameters
        ----------
        path : str or Path
            Replaced if it exists.
        data : table or source
        **options
            Those of `predict_batches`.

        Raises
        ------
        DataError
            pyarrow is not installed, or the file cannot be written.
        """
        from crosslmm.sources.write import write_batches

        batches = self.predict_batches(data, **options)
        frames = (part.to_frame() if isinstance(part, pd.Series) else part for part in batches)
        write_batches(Path(path), (frame.reset_index(names="row") for frame in frames))

    def _predicted(
        self,
        data: Any,
        random_effects: bool | str | Sequence[str],
        new_levels: str,
        interval: str | None,
        level: float,
        offset: Any,
        weights: Any,
        rng: Any,
        progress: Progress | None,
    ) -> Iterator[Any]:
        from crosslmm.effects.newrows import Beside
        from crosslmm.effects.numbers import generator
        from crosslmm.effects.predicted import Predictor, rows_of
        from crosslmm.effects.prediction import PREDICTION, Wanted
        from crosslmm.effects.selection import choose

        fit = _results(self)
        wanted = Wanted.of(new_levels, interval, level)
        chosen = choose(fit.estimates.layout, random_effects)
        predictor: Predictor = Predictor.of(fit.estimates, wanted, chosen, lambda: self._joint, generator(rng))
        whole = interval == PREDICTION
        batches = rows_of(
            fit.model, chosen, data, Beside(offset, weights), whole=whole, new_levels=new_levels, progress=progress
        )
        for rows in batches:
            yield predictor.predict(rows)

    # --- random effects --------------------------------------------------------------------------

    def ranef(
        self, *, cov: bool = False, full: bool = False, levels: Mapping[str, Any] | None = None
    ) -> dict[str, pd.DataFrame] | dict[str, RandomEffects]:
        """Conditional modes of the random effects, with their conditional covariances if asked for.

        Parameters
        ----------
        cov : bool
            Whether to add the covariances given the data, theta and the fixed effects (lme4's ``condVar``).
        full : bool
            Add the uncertainty of the fixed effects to these covariances.
        levels : mapping of factor to labels, optional
            The levels wanted; all levels of all factors by default. The iterative engine computes covariances of given
            levels exactly, and estimates those of all of them with random probes and says the error.

        Returns
        -------
        dict
            By factor: levels x columns, or with ``cov=True`` `RandomEffects` of modes, standard deviations, covariances
            and their Monte Carlo errors.
        """
        from crosslmm.effects.ranef import random_effects

        fit = _results(self)
        return random_effects(fit.estimates, (lambda: self._joint) if cov else None, full=full, levels=levels)

    @cached_property
    def random_effects_cov(self) -> Any:
        """Conditional covariances by factor: frames with a row for each level and column, and a column for each column.

        ``fit.random_effects_cov["s"].loc["308"]`` is the matrix of one level.
        """
        found = cast("dict[str, RandomEffects]", self.ranef(cov=True))
        return {name: effects.cov for name, effects in found.items()}

    def ranef_frame(self, *, full: bool = False, levels: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Random effects as one long frame.

        Parameters
        ----------
        full, levels
            See `ranef`.

        Returns
        -------
        DataFrame
            Columns factor, level, term, mode and sd (conditional standard deviation).
        """
        from crosslmm.effects.ranef import long_frame

        return long_frame(cast("dict[str, RandomEffects]", self.ranef(cov=True, full=full, levels=levels)))

    def coef(self) -> dict[str, pd.DataFrame]:
        """Fixed effects plus random effects by factor: levels x the union of their columns (lme4's ``coef``)."""
        from crosslmm.effects.ranef import coefficients

        return coefficients(_results(self).estimates)

    def vcov(self, *, full: bool = False) -> pd.DataFrame:
        """Covariance of the fixed effects, or the joint one with the random effects.

        Parameters
        ----------
        full : bool
            Of the errors of all fixed effects and conditional modes: a matrix of p + q rows, labelled by factor,
            level and column (the first two are empty for fixed effects).

        Raises
        ------
        ResourceError
            The joint matrix does not fit into memory.
        """
        from crosslmm.effects.conditional import joint_matrix

        estimates = _results(self).estimates
        names = pd.Index(estimates.layout.fixed)
        return joint_matrix(self._joint) if full else pd.DataFrame(estimates.beta_cov, index=names, columns=names)

    @cached_property
    def _joint(self) -> Joint:
        from crosslmm.effects.covariance import joint_covariance

        fit = _results(self)
        estimates = fit.estimates
        return joint_covariance(fit.model.crossproducts, fit.model.equations_of(estimates), estimates)

    # --- new responses ---------------------------------------------------------------------------

    def simulate(
        self,
        n: int = 1,
        *,
        rng: int | np.random.Generator | None = None,
        random_effects: str = "new",
        data: Any = None,
        new_levels: str = "error",
        offset: Any = None,
        weights: Any = None,
    ) -> pd.DataFrame:
        """Responses drawn from the fitted model.

        Parameters
        ----------
        n : int
            Number of responses.
        rng : int or numpy.random.Generator, optional
        random_effects : {"new", "fitted"}
            Draw new random effects for each response, or use the conditional modes.
        data : table or source, optional
            Rows to simulate; those of the model by default.
        new_levels : {"error", "population", "sample"}
            For ``random_effects="fitted"``: what to do with levels that the fit has not seen, as in `predict`. New
            random effects are drawn for any level.
        offset, weights
            See `predict`.

        Returns
        -------
        DataFrame, shape (rows, n)
            Columns sim_1, sim_2, ...; rows that miss a value have missing responses.
        """
        from crosslmm.effects.newrows import Beside
        from crosslmm.effects.simulate import simulate_fit

        return simulate_fit(_results(self), n, rng, random_effects, data, new_levels, Beside(offset, weights))

    def refit(self, y: Any, *, start: Any = "fit") -> MixedLMResults:
        """Fit the same model to another response, by the same method and engine.

        Parameters
        ----------
        y : array or Series, shape (nobs,)
            One number for each row used; a Series is matched by its index.
        start : "fit", None or array
            Theta to start from: that of this fit (unless it is on the boundary), the default, or one of yours.

        Raises
        ------
        ModelError
            The rows are not in memory.
        DataError
            `y` does not fit the rows, or is not finite.
        """
        from crosslmm.effects.again import refit

        return refit(_results(self), y, start)

    def update(
        self,
        formula: str | None = None,
        data: Any = None,
        *,
        reml: bool | None = None,
        weights: Any = None,
        offset: Any = None,
        missing: str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> MixedLMResults:
        """Fit a changed model.

        Parameters
        ----------
        formula : str, optional
            A formula in which ``.`` stands for the old response (left of ``~``) or all old terms (right of it):
            ``"~ . - x + z"``, ``"log(y) ~ ."``, ``"~ . - (1 | s)"``. A left side that is left out is the old one.
        data : table or source, optional
            The data of the model by default, which it knows by reference: as they are now.
        reml, weights, offset, missing, context
            The old ones by default.

        Raises
        ------
        ModelError
            The data are needed and not known any more.
        FormulaError
            The formula cannot be read, or takes away what is not there.
        """
        from crosslmm.effects.again import update

        return update(_results(self), formula, data, reml, weights, offset, missing, context)

    # --- interchange -----------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The fit as numbers and text that JSON can hold: estimates, names and the encoding of new rows, but no data.

        Read it with `crosslmm.load_fit`: what comes back has the estimates and the random effects, and predicts.

        Raises
        ------
        ModelError
            Something in the encoding cannot be written as numbers and text.

        Examples
        --------
        >>> import crosslmm as clm
        >>> fit = clm.lmer("Reaction ~ Days + (Days | Subject)", clm.datasets.load_sleepstudy())
        >>> again = clm.load_fit(fit.to_dict())
        >>> again.predict({"Days": [10], "Subject": ["308"]}).round(2).tolist()
        [450.33]
        """
        from crosslmm.effects.saving import to_dict

        return to_dict(_results(self))


def _results(fit: Predicting) -> MixedLMResults:
    return cast("MixedLMResults", fit)
