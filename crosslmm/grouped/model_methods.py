"""What statsmodels' model offers beside `fit`: the likelihood at any parameters, penalised fits, its data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from crosslmm.covariance import FloatArray
from crosslmm.design.rows import Design
from crosslmm.errors import ModelError
from crosslmm.grouped.parameters import Point, Space
from crosslmm.grouped.written import Written

if TYPE_CHECKING:
    from crosslmm.engine.plan import Engine
    from crosslmm.grouped.likelihood import Likelihood
    from crosslmm.grouped.regularized import RegularizedResults
    from crosslmm.model import MixedLM


class ModelMethods:
    """Methods of a model that was written with groups; refused for bars, whose likelihood is `MixedLM.objective`."""

    def loglike(self, params: Any, profile_fe: bool = True, *, reml: bool = True) -> float:
        """Log-likelihood at given covariance parameters over the residual variance, which is profiled out.

        Parameters
        ----------
        params : MixedLMParams or array
            A packed vector holds covariance parameters only, unless fixed effects precede them.
        profile_fe : bool
            Take the best fixed effects, not those of `params`.
        reml : bool
            The restricted likelihood. (In statsmodels it is that of the last fit; here a fit changes nothing.)
        """
        likelihood = self._likelihood(reml)
        return -0.5 * likelihood.at(self._at(likelihood, params, profile_fe), profile=profile_fe).criterion

    def score(self, params: Any, profile_fe: bool = True, *, reml: bool = True) -> FloatArray:
        """Gradient of `loglike`, by the Cholesky factor and the roots of the components if `use_sqrt`.

        Parameters
        ----------
        params, profile_fe, reml
            See `loglike`.

        Returns
        -------
        ndarray
            Without `profile_fe`, the derivatives by the fixed effects come first.
        """
        from crosslmm.grouped.likelihood import by_roots

        likelihood = self._likelihood(reml)
        point = self._at(likelihood, params, profile_fe)
        fixed, own = likelihood.score(likelihood.at(point, profile=profile_fe))
        own = by_roots(likelihood.space, point, own) if likelihood.space.use_sqrt else own
        return own if profile_fe else np.concatenate([fixed, own])

    def hessian(self, params: Any, *, reml: bool = True) -> tuple[FloatArray, bool]:
        """Second derivatives of `loglike` by fixed effects, `cov_re` (not its root) and components.

        Parameters
        ----------
        params : MixedLMParams or array
            With fixed effects.
        reml : bool

        Returns
        -------
        hessian : ndarray, shape (k, k)
        singular : bool
            Whether `params` is on the boundary, where derivatives are one-sided.
        """
        from crosslmm.grouped.likelihood import covariance_hessian, cross_hessian, raw_beta

        likelihood = self._likelihood(reml)
        space = likelihood.space
        point = space.point(params, has_fe=True if np.ndim(params) else None)
        if point.fe_params is None:
            point = Point(raw_beta(likelihood.xp, likelihood.at(point, profile=True)), point.cov_re, point.vcomp)
        fixed, cross = cross_hessian(likelihood, point)
        own = covariance_hessian(likelihood, point, profile=False)
        values = np.linalg.eigvalsh(point.cov_re) if space.k_re else np.ones(1)
        singular = bool(values[0] <= 1e-10 * max(values[-1], 1e-300) or np.any(point.vcomp <= 0.0))
        return np.block([[fixed, cross.T], [cross, own]]), singular

    def get_fe_params(self, cov_re: Any, vcomp: Any, tol: float = 1e-10) -> tuple[FloatArray, bool]:
        """Best fixed effects at given covariances over the residual variance; and whether these are singular.

        Parameters
        ----------
        cov_re : array, shape (k_re, k_re)
        vcomp : array, shape (k_vc,)
        tol : float
            Variance below which they count as singular.
        """
        from crosslmm.grouped.likelihood import raw_beta

        likelihood = self._likelihood(True)
        point = Point(
            None,
            np.atleast_2d(np.asarray(cov_re, float)).reshape((likelihood.space.k_re,) * 2),
            np.asarray(vcomp, float),
        )
        values = [*np.linalg.eigvalsh(point.cov_re), *point.vcomp]
        return raw_beta(likelihood.xp, likelihood.at(point, profile=True)), bool(min(values, default=1.0) < tol)

    def get_scale(self, fe_params: Any, cov_re: Any, vcomp: Any, *, reml: bool = True) -> float:
        """Residual variance at given fixed effects and covariances over the residual variance.

        Parameters
        ----------
        fe_params : array, shape (k_fe,)
        cov_re : array, shape (k_re, k_re)
        vcomp : array, shape (k_vc,)
        reml : bool
        """
        from crosslmm.grouped.likelihood import raw_scale

        likelihood = self._likelihood(reml)
        shape = (likelihood.space.k_re,) * 2
        point = Point(np.asarray(fe_params, float), np.asarray(cov_re, float).reshape(shape), np.asarray(vcomp, float))
        return raw_scale(likelihood.xp, likelihood.at(point, profile=False))

    def predict(self, params: Any, exog: Any = None) -> FloatArray:
        """``X beta`` at given parameters.

        Parameters
        ----------
        params : MixedLMParams or array
            A vector begins with the fixed effects.
        exog : array, optional
            Columns of the fixed effects; by default those of the model.
        """
        model = _model(self)
        p = model.design.layout.n_fixed
        beta = np.asarray(params if np.ndim(params) else params.fe_params, dtype=float)[:p]
        return np.asarray((self.exog if exog is None else np.asarray(exog, dtype=float)) @ beta)

    def fit_regularized(
        self,
        start_params: Any = None,
        method: str = "l1",
        alpha: Any = 0,
        ceps: float = 1e-4,
        ptol: float = 1e-6,
        maxit: int = 200,
        **fit_kwargs: Any,
    ) -> RegularizedResults:
        """Fit, then penalise the absolute values of the fixed effects (the lasso) at the covariances found.

        Parameters
        ----------
        start_params : array, optional
            Fixed effects to start from; by default the estimates.
        method : {"l1"}
        alpha : float or array, shape (k_fe,)
            Weight of the penalty.
        ceps : float
            Fixed effects smaller than this are taken as 0.
        ptol : float
            Largest change of a fixed effect at which to stop.
        maxit : int
            Rounds at most.
        **fit_kwargs
            For `fit`.

        Raises
        ------
        ModelError
            Another penalty is asked for.
        """
        from crosslmm.grouped.regularized import Descent, regularized

        if not isinstance(method, str) or method.lower() != "l1":
            name = method if isinstance(method, str) else type(method).__name__
            raise ModelError(f"the penalty {name!r} is not supported; 'l1', the lasso on fixed effects, is")
        _written(self)
        return regularized(cast(Any, _model(self).fit(**fit_kwargs)), alpha, Descent(ceps, ptol, maxit), start_params)

    # --- data ------------------------------------------------------------------------------------

    @property
    def endog(self) -> FloatArray:
        """Response of the rows used; shape (n,)."""
        return self._rows.y

    @property
    def exog(self) -> FloatArray:
        """Columns of the fixed effects; shape (n, p)."""
        return self._rows.X

    @property
    def endog_names(self) -> str:
        """Name of the response."""
        return _model(self).formula.response.strip("`")

    @property
    def exog_names(self) -> list[str]:
        """Names of the fixed effects."""
        return list(_model(self).design.layout.fixed)

    @property
    def groups(self) -> np.ndarray:
        """Label of the group of every row used; shape (n,)."""
        groups = _written(self).groups
        return np.asarray(groups.labels[groups.codes])

    @property
    def group_labels(self) -> list[Any]:
        """Labels of the groups, sorted."""
        return list(_written(self).groups.labels.tolist())

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return len(_written(self).groups.labels)

    @property
    def nobs(self) -> int:
        """Rows used."""
        return _model(self).design.n

    @property
    def k_fe(self) -> int:
        """Number of fixed effects."""
        return _model(self).design.layout.n_fixed

    @property
    def k_re(self) -> int:
        """Number of random effects of a group."""
        return self._space.k_re

    @property
    def k_re2(self) -> int:
        """Number of their variances and covariances."""
        return self._space.k_re2

    @property
    def k_vc(self) -> int:
        """Number of variance components."""
        return self._space.k_vc

    @property
    def use_sqrt(self) -> bool:
        """Whether packed parameters hold roots."""
        return _written(self).use_sqrt

    @property
    def _rows(self) -> Design:
        design = _model(self).design
        if not isinstance(design, Design):
            raise ModelError("the rows of this model are not in memory")
        return design

    @property
    def _space(self) -> Space:
        return Space.of(_written(self), _model(self).design.layout)

    def _likelihood(self, reml: bool, engine: str | Engine = "auto") -> Likelihood:
        from crosslmm.grouped.likelihood import Likelihood

        model = _model(self)
        return Likelihood(model.crossproducts, model._equations(engine), self._space, bool(reml))

    def _at(self, likelihood: Likelihood, params: Any, profile_fe: bool) -> Point:
        point = likelihood.space.point(params)
        if not profile_fe and point.fe_params is None:
            return Point(np.zeros(likelihood.space.k_fe), point.cov_re, point.vcomp)
        return point


def _model(methods: ModelMethods) -> MixedLM:
    return cast("MixedLM", methods)


def _written(methods: ModelMethods) -> Written:
    found = _model(methods).written
    if found is None:
        raise ModelError("this belongs to a model with groups=; for bars see MixedLM.objective and its results")
    return found
