"""The table of problems: a model, its data, and what is timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from benchmarks import ratings, simulate


@dataclass(frozen=True)
class RandomTerm:
    """One random-effects term, ``(columns | group)``."""

    columns: str
    group: str


@dataclass(frozen=True)
class Problem:
    """One row of the benchmark.

    Attributes
    ----------
    name : str
    about : str
        What it is, for the table.
    response, fixed : str
        Both sides of the fixed part of the formula.
    random : tuple of RandomTerm
    factors : tuple of str
        Categorical columns; every library gets them as its own type for categories.
    covariates : tuple of str
        The other columns of the right-hand side.
    data : callable
        Makes the data frame (in the process that runs the benchmarks, outside all measurements).
    reml : bool
    refit : bool
        Time a fit of a model that is built and was fitted before, in place of model building and fit.
    """

    name: str
    about: str
    response: str
    fixed: str
    random: tuple[RandomTerm, ...]
    factors: tuple[str, ...]
    data: Callable[[], pd.DataFrame]
    covariates: tuple[str, ...] = ()
    reml: bool = False
    refit: bool = False

    @property
    def formula(self) -> str:
        """The model in lme4's notation."""
        return " + ".join([f"{self.response} ~ {self.fixed}", *(f"({t.columns} | {t.group})" for t in self.random)])

    @property
    def columns(self) -> list[str]:
        """Columns of the data that the model uses."""
        return [self.response, *self.covariates, *self.factors]

    @property
    def groups(self) -> tuple[str, ...]:
        """Grouping columns, each once."""
        return tuple(dict.fromkeys(term.group for term in self.random))

    @property
    def has_slopes(self) -> bool:
        """Whether a term has more than an intercept."""
        return any(term.columns != "1" for term in self.random)


def _load(name: str) -> Callable[[], pd.DataFrame]:
    def load() -> pd.DataFrame:
        from crosslmm import datasets  # other libraries may be measured in an environment without crosslmm

        return getattr(datasets, f"load_{name}")()

    return load


def _intercepts(*groups: str) -> tuple[RandomTerm, ...]:
    return tuple(RandomTerm("1", group) for group in groups)


_SLEEP = {"response": "Reaction", "fixed": "1 + Days", "random": (RandomTerm("1 + Days", "Subject"),)}
_INSTEVAL = {"response": "y", "factors": ("s", "d", "dept", "service"), "data": _load("insteval")}

PROBLEMS: dict[str, Problem] = {
    problem.name: problem
    for problem in (
        Problem(
            name="sleepstudy",
            about="180 rows, 18 subjects, intercepts and slopes, REML",
            factors=("Subject",),
            covariates=("Days",),
            data=_load("sleepstudy"),
            reml=True,
            **_SLEEP,
        ),
        Problem(
            name="sleepstudy_refit",
            # ML: after refit() of a REML fit, lme4 1.1-31 minimises another criterion (nu = n - 1 in place of n - p).
            about="the same by ML, model built before: one more fit",
            factors=("Subject",),
            covariates=("Days",),
            data=_load("sleepstudy"),
            refit=True,
            **_SLEEP,
        ),
        Problem(
            name="penicillin",
            about="144 rows, 24 plates x 6 samples",
            response="diameter",
            fixed="1",
            random=_intercepts("plate", "sample"),
            factors=("plate", "sample"),
            data=_load("penicillin"),
        ),
        Problem(
            name="insteval_3",
            about="73,421 ratings, 2,972 students x 1,128 lecturers x 14 departments",
            fixed="1 + service",
            random=_intercepts("s", "d", "dept"),
            **_INSTEVAL,
        ),
        Problem(
            name="insteval_slopes",
            about="the same with slopes of students and lecturers",
            fixed="1 + service",
            random=(RandomTerm("1 + service", "s"), RandomTerm("1 + service", "d"), RandomTerm("1", "dept")),
            **_INSTEVAL,
        ),
        Problem(
            name="insteval_interaction",
            about="the same, departments and their interaction with service as 28 fixed effects",
            fixed="1 + service * dept",
            random=_intercepts("s", "d"),
            **_INSTEVAL,
        ),
        Problem(
            name="ratings_1m",
            about="1,000,209 simulated ratings, 6,040 users x 3,706 items, log-normal activity",
            response="y",
            fixed="1 + x",
            random=_intercepts("user", "item"),
            factors=("user", "item"),
            covariates=("x",),
            data=lambda: simulate.ratings(1_000_209, users=6_040, items=3_706, seed=20_030),
        ),
        Problem(
            name="ratings_1m_movielens",
            about="1,000,000 simulated ratings, 6,040 users x 3,706 films, spread as in MovieLens 25M",
            response="rating",
            fixed="1 + x",
            random=_intercepts("user", "film"),
            factors=("user", "film"),
            covariates=("x",),
            data=lambda: ratings.frame(ratings.SIZES["1M"], seed=20_033, shape="movielens"),
        ),
        Problem(
            name="trials",
            about="200,000 simulated trials, 2,000 subjects x 400 items x 60 raters, slopes of subjects",
            response="y",
            fixed="1 + x",
            random=(RandomTerm("1 + x", "subject"), *_intercepts("item", "rater")),
            factors=("subject", "item", "rater"),
            covariates=("x",),
            data=lambda: simulate.trials(200_000, subjects=2_000, items=400, raters=60, seed=20_034),
        ),
        Problem(
            name="flights",
            about="300,000 simulated departures, 4,000 aircraft x 100 airports x 16 carriers, aircraft nearly nested",
            response="delay",
            fixed="1 + hour",
            random=_intercepts("tail", "airport", "carrier"),
            factors=("tail", "airport", "carrier"),
            covariates=("hour",),
            data=lambda: simulate.flights(300_000, tails=4_000, airports=100, carriers=16, seed=20_035),
        ),
        Problem(
            name="nested_1m",
            about="1,000,000 simulated pupils in 50,000 classes in 5,000 schools, slopes of classes",
            response="y",
            fixed="1 + x",
            random=(RandomTerm("1", "school"), RandomTerm("1 + x", "classroom")),
            factors=("school", "classroom"),
            covariates=("x",),
            data=lambda: simulate.pupils(1_000_000, classes=50_000, schools=5_000, seed=20_031),
        ),
        Problem(
            name="groups_500k",
            about="500,000 simulated rows in 125,000 groups of 4, intercepts and slopes",
            response="y",
            fixed="1 + x",
            random=(RandomTerm("1 + x", "g"),),
            factors=("g",),
            covariates=("x",),
            data=lambda: simulate.growth(groups=125_000, per_group=4, seed=20_032),
        ),
    )
}
