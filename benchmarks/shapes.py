"""Who rates how much, and what: two shapes of rating data.

`lognormal` has heavy-tailed activity of users and popularity of films, independent of each other, so that everything is
well connected. `movielens` has the marginals of MovieLens 25M, and users who prefer films of their own taste and time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

USER_SPREAD = 1.1  # standard deviations of the logarithm of the activity in the shape `lognormal`
FILM_SPREAD = 1.4
MOST_FILMS = 32_202 / 59_047  # share of the films that the most active user of MovieLens 25M rates

FEWEST_RATINGS = 20  # of a user in MovieLens
MOVIELENS_USER_SPREAD = 1.4
TOP_FILM = 81_491 / 162_541  # share of its users who rate the film that most rate
# Ratings of the film at a share of all films, from the one with most down, in MovieLens 25M.
FILM_CURVE = ((0.01, 14_000.0), (0.0643, 1_000.0), (0.175, 100.0), (0.25, 36.0), (0.5, 6.5), (0.75, 2.0), (1.0, 1.0))

TASTES, ERAS = 8, 8
OWN_TASTE = 6.0  # how many times rather a user takes a niche film of the own taste
ERA_DISTANCE = 2.0  # eras after which interest in a niche film has fallen by a factor of e
REMAINDER = 0.02  # expected further ratings of a film that has one rating: a weight that is not 0
CLASSES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)  # quantiles of the activity, for `_calibrate`
FILM_CLASSES = 24
SWEEPS = 40


@dataclass(frozen=True)
class Shape:
    """Activity and taste.

    Attributes
    ----------
    activity : ndarray of int64, shape (users,)
        Films that each user rates; the sum is the number of rows.
    group : ndarray of int64, shape (users,)
        Row of `weights` that a user draws films by.
    weights : ndarray, shape (groups, films)
        Relative, all positive.
    """

    activity: np.ndarray
    group: np.ndarray
    weights: np.ndarray


def lognormal(rows: int, users: int, films: int, rng: np.random.Generator) -> Shape:
    """Log-normal activity and popularity, independent."""
    activity = _to_total(rng.lognormal(0.0, USER_SPREAD, users), rows, 1, int(MOST_FILMS * films), rng)
    weights = rng.lognormal(0.0, FILM_SPREAD, (1, films))
    return Shape(activity, np.zeros(users, dtype=np.int64), weights)


def movielens(rows: int, users: int, films: int, rng: np.random.Generator) -> Shape:
    """Marginals of MovieLens 25M, scaled to the numbers asked for, with clusters of taste and time."""
    relative = rng.lognormal(0.0, MOVIELENS_USER_SPREAD, users)
    relative[relative.argmax()] = np.inf  # one user has all that is allowed
    activity = _to_total(relative, rows, FEWEST_RATINGS, int(MOST_FILMS * films), rng)
    popularity = rng.permutation(_popularity(rows, users, films))
    niche = 1.0 - np.sqrt(popularity / popularity.max())
    kind = rng.integers(0, TASTES * ERAS, films)
    further = np.maximum(popularity - 1.0, REMAINDER)
    base = _calibrate(activity, further, niche, kind)
    group = rng.integers(0, TASTES * ERAS, users)
    return Shape(activity, group, base * np.exp(_preference()[:, kind] * niche))


SHAPES: dict[str, Callable[[int, int, int, np.random.Generator], Shape]] = {
    "lognormal": lognormal,
    "movielens": movielens,
}


def _to_total(relative: np.ndarray, total: int, low: int, high: int, rng: np.random.Generator) -> np.ndarray:
    """Whole numbers between `low` and `high` that add up to `total`: `low` and a part in proportion to `relative`."""
    if not low * relative.size <= total <= high * relative.size:
        raise ValueError(f"{total:,} ratings of {relative.size:,} users: each has {low:,} to {high:,}")

    def sizes(scale: float) -> np.ndarray:
        return np.minimum(low + scale * relative, high)

    scale = _bisect(lambda s: float(sizes(s).sum()) - total, 0.0, (high - low) / float(relative.min()))
    counts = np.floor(sizes(scale)).astype(np.int64)
    while (short := total - int(counts.sum())) > 0:
        room = np.flatnonzero(counts < high)
        counts[rng.choice(room, min(short, room.size), replace=False)] += 1
    return counts


def _popularity(rows: int, users: int, films: int) -> np.ndarray:
    """Ratings of each film, most first: the curve of MovieLens 25M with another mean and another number of users."""
    most = TOP_FILM * users
    share = np.log(np.arange(1, films + 1) / films)
    at = np.log([1.0 / films, *(at for at, _ in FILM_CURVE)])

    def curve(shift: float) -> np.ndarray:
        knots = [min(max(np.log(count) + shift, 0.0), np.log(most)) for _, count in FILM_CURVE]
        return np.exp(np.interp(share, at, [np.log(most), *knots]))

    return curve(_bisect(lambda shift: float(curve(shift).sum()) - rows, -np.log(rows), np.log(rows)))


def _preference() -> np.ndarray:
    """Logarithm of the preference of a kind of user for a kind of niche film; shape (kinds, kinds)."""
    taste, era = np.divmod(np.arange(TASTES * ERAS), ERAS)
    own = np.log(OWN_TASTE) * (taste[:, None] == taste)
    return own - np.abs(era[:, None] - era) / ERA_DISTANCE


def _calibrate(activity: np.ndarray, further: np.ndarray, niche: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Weights with which films reach `further` ratings although nobody rates a film twice; shape (films,).

    A user who draws until so many different films are found has film f with probability 1 - exp(-a w_f), a belonging to
    the user. Fitted by turns to the activity of classes of users and to the popularity of classes of films.
    """
    order = np.sort(activity)
    parts = [part for part in np.split(order, (np.array(CLASSES[1:-1]) * order.size).astype(int)) if part.size]
    kinds = TASTES * ERAS
    wanted = np.tile([part.mean() for part in parts], kinds)
    members = np.tile([part.size / kinds for part in parts], kinds)
    of_user = np.repeat(np.arange(kinds), len(parts))

    edges = np.geomspace(further.min(), further.max(), FILM_CLASSES + 1)[1:-1]
    cell = kind * FILM_CLASSES + np.searchsorted(edges, further)
    used, cell, films = np.unique(cell, return_inverse=True, return_counts=True)
    target, niche_of = (np.bincount(cell, weights=values) / films for values in (further, niche))
    pull = np.exp(_preference()[np.ix_(of_user, used // FILM_CLASSES)] * niche_of)

    weight = target / (target @ films)
    appetite = wanted.copy()
    for _ in range(SWEEPS):
        rated = -np.expm1(-appetite[:, None] * weight * pull)
        appetite *= wanted / (rated @ films)
        rated = -np.expm1(-appetite[:, None] * weight * pull)
        weight *= target / (members @ rated)
    return weight[cell] * further / target[cell]


def _bisect(function: Callable[[float], float], low: float, high: float) -> float:
    """Where an increasing function passes 0, from below."""
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if function(middle) <= 0.0 else (low, middle)
    return low
