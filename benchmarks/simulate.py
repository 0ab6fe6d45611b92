"""Simulated data sets of the sizes that real ones have; every one comes from a seed."""

from __future__ import annotations

import numpy as np
import pandas as pd


def ratings(
    rows: int, users: int, items: int, seed: int, user_spread: float = 1.1, item_spread: float = 1.4
) -> pd.DataFrame:
    """Ratings of items by users, both with heavy-tailed activity; nobody rates an item twice.

    Parameters
    ----------
    rows : int
    users, items : int
        Levels of the two factors. With log-normal activity some of the rarest may not occur.
    seed : int
    user_spread, item_spread : float
        Standard deviations of the logarithm of the activity.
    """
    rng = np.random.default_rng(seed)
    user_activity, item_activity = _shares(rng, users, user_spread), _shares(rng, items, item_spread)
    pairs = np.empty(0, dtype=np.int64)
    while pairs.size < rows:
        drawn = rng.choice(users, rows, p=user_activity) * items + rng.choice(items, rows, p=item_activity)
        pairs = pd.unique(np.concatenate([pairs, drawn]))
    user, item = np.divmod(pairs[:rows], items)
    x = rng.normal(size=rows)
    mean = 3.5 + 0.1 * x + rng.normal(0.0, 0.45, users)[user] + rng.normal(0.0, 0.6, items)[item]
    return pd.DataFrame({"y": mean + rng.normal(0.0, 0.9, rows), "x": x, "user": user, "item": item})


def pupils(rows: int, classes: int, schools: int, seed: int) -> pd.DataFrame:
    """Pupils in classes in schools: school intercepts, correlated intercepts and slopes of the classes."""
    rng = np.random.default_rng(seed)
    # Every class gets a pupil and every school a class, the rest fall at random.
    classroom = np.concatenate([np.arange(classes), rng.integers(0, classes, rows - classes)])
    school_of = np.concatenate([np.arange(schools), rng.integers(0, schools, classes - schools)])
    school = school_of[classroom]
    x = rng.normal(size=rows)
    effects = rng.multivariate_normal([0.0, 0.0], [[0.25, 0.06], [0.06, 0.09]], size=classes)[classroom]
    mean = 10.0 + 0.5 * x + rng.normal(0.0, 0.4, schools)[school] + effects[:, 0] + effects[:, 1] * x
    return pd.DataFrame({"y": mean + rng.normal(size=rows), "x": x, "classroom": classroom, "school": school})


def growth(groups: int, per_group: int, seed: int) -> pd.DataFrame:
    """A few occasions for each of many persons, with correlated intercepts and slopes."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), per_group)
    x = rng.normal(size=g.size)
    effects = rng.multivariate_normal([0.0, 0.0], [[1.0, 0.2], [0.2, 0.4]], size=groups)[g]
    mean = 1.0 + 0.5 * x + effects[:, 0] + effects[:, 1] * x
    return pd.DataFrame({"y": mean + rng.normal(size=g.size), "x": x, "g": g})


def trials(rows: int, subjects: int, items: int, raters: int, seed: int) -> pd.DataFrame:
    """Three crossed factors: correlated intercepts and slopes of the subjects, intercepts of items and of raters."""
    rng = np.random.default_rng(seed)
    subject, item, rater = (rng.integers(0, levels, rows) for levels in (subjects, items, raters))
    x = rng.normal(size=rows)
    effects = rng.multivariate_normal([0.0, 0.0], [[1.0, 0.15], [0.15, 0.25]], size=subjects)[subject]
    mean = 2.0 + 0.3 * x + effects[:, 0] + effects[:, 1] * x
    mean += rng.normal(0.0, 0.7, items)[item] + rng.normal(0.0, 0.5, raters)[rater]
    return pd.DataFrame(
        {"y": mean + rng.normal(0.0, 1.5, rows), "x": x, "subject": subject, "item": item, "rater": rater}
    )


def flights(rows: int, tails: int, airports: int, carriers: int, seed: int) -> pd.DataFrame:
    """Departures like those of New York in 2013: aircraft that belong to carriers, carriers with their own networks.

    An aircraft flies for its carrier, one departure in a hundred for another, so it is nearly nested; a carrier flies
    to some of the airports, more often to its hubs.
    """
    rng = np.random.default_rng(seed)
    fleet = rng.choice(carriers, tails, p=_shares(rng, carriers, 1.2))
    tail = rng.choice(tails, rows, p=_shares(rng, tails, 1.0))
    carrier = np.where(rng.random(rows) < 0.01, rng.integers(0, carriers, rows), fleet[tail])
    network = rng.lognormal(0.0, 1.0, airports) * rng.lognormal(0.0, 1.5, (carriers, airports))
    network *= rng.random((carriers, airports)) < 0.4
    network[np.arange(carriers), rng.integers(0, airports, carriers)] += 1.0
    reach = np.cumsum(network, axis=1) / network.sum(axis=1, keepdims=True)
    airport = np.empty(rows, dtype=np.int64)
    for number, row in enumerate(reach):
        own = np.flatnonzero(carrier == number)
        airport[own] = np.minimum(np.searchsorted(row, rng.random(own.size), side="right"), airports - 1)
    hour = rng.uniform(0.0, 1.0, rows)
    mean = 5.0 + 12.0 * hour + rng.normal(0.0, 3.0, tails)[tail]
    mean += rng.normal(0.0, 5.0, airports)[airport] + rng.normal(0.0, 4.0, carriers)[carrier]
    delay = mean + rng.normal(0.0, 30.0, rows)
    return pd.DataFrame({"delay": delay, "hour": hour, "tail": tail, "airport": airport, "carrier": carrier})


def _shares(rng: np.random.Generator, levels: int, spread: float) -> np.ndarray:
    weight = rng.lognormal(0.0, spread, levels)
    return weight / weight.sum()
