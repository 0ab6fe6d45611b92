"""Simulated ratings of films by users, of any size, in little memory.

    python -m benchmarks.ratings [--size 25M] [--shape movielens] [--seed 1] [--out FILE] [--order random]

prints the shape of the data beside that of MovieLens 25M, and writes them as Parquet if a file is named. No pair of
user and film occurs twice, and every user and every film occurs. A seed gives the same rows whatever the size of the
chunks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.shapes import SHAPES, Shape

ORDERS = ("users", "random")  # of the rows in a file: as they are made, or all mixed
FORMULA = "rating ~ x + (1 | user) + (1 | film)"
BLOCK_ROWS = 1_000_000  # rows drawn at once, at least: whole users, as many as it takes
CHEAP = 2  # a round of drawing costs as much as so many exponential variables for each pair found
SLOW = 0.1  # share of the missing films that a round must find to be followed by another


@dataclass(frozen=True)
class Size:
    """Numbers of rows and levels."""

    rows: int
    users: int
    films: int


SIZES = {
    "10k": Size(10_000, 200, 300),  # for a try
    "100k": Size(100_004, 671, 9_066),  # MovieLens latest-small of 2016
    "1M": Size(1_000_000, 6_040, 3_706),
    "10M": Size(10_000_000, 69_878, 10_677),
    "25M": Size(25_000_000, 162_541, 59_047),
    "100M": Size(100_000_000, 480_000, 17_770),
}


@dataclass(frozen=True)
class Truth:
    """Parameters that the data are made with: coefficients, and standard deviations of effects and residuals."""

    intercept: float = 3.5
    slope: float = 0.1
    user: float = 0.45
    film: float = 0.6
    residual: float = 0.9


TRUTH = Truth()


@dataclass(frozen=True)
class Population:
    """All that the blocks of rows share.

    Attributes
    ----------
    shape : Shape
    offsets : ndarray, shape (users + 1,)
        Rows before each user.
    given : ndarray, shape (films,)
        A pair for each film that occurs in any case, as ``user * films + film``, sorted.
    user_effect, film_effect : ndarray, shape (users,), (films,)
    """

    shape: Shape
    offsets: np.ndarray
    given: np.ndarray
    user_effect: np.ndarray
    film_effect: np.ndarray


def ratings(
    rows: int, users: int, films: int, seed: int, shape: str = "lognormal", chunk_rows: int = BLOCK_ROWS
) -> Iterator[pd.DataFrame]:
    """Chunks of ratings, users in ascending order from chunk to chunk, the rows of about a million mixed.

    Parameters
    ----------
    rows, users, films : int
    seed : int
    shape : {"lognormal", "movielens"}
        See `benchmarks.shapes`.
    chunk_rows : int
        Rows of every chunk but the last.

    Yields
    ------
    DataFrame
        Columns user and film (int32), x and rating (float64).
    """
    held: list[pd.DataFrame] = []
    for block in blocks(rows, users, films, seed, shape):
        held.append(block)
        while (ready := sum(len(frame) for frame in held)) >= chunk_rows:
            joined = pd.concat(held, ignore_index=True)
            yield joined.iloc[:chunk_rows]
            held = [joined.iloc[chunk_rows:]] if ready > chunk_rows else []
    if held:
        yield pd.concat(held, ignore_index=True)


def blocks(rows: int, users: int, films: int, seed: int, shape: str) -> Iterator[pd.DataFrame]:
    """Blocks of whole users, of about `BLOCK_ROWS` rows; every block has its own stream of random numbers."""
    whole, *parts = np.random.SeedSequence(seed).spawn(1 + -(-rows // BLOCK_ROWS))
    rng = np.random.default_rng(whole)
    common = population(SHAPES[shape](rows, users, films, rng), rng)
    cumulative = np.cumsum(common.shape.weights, axis=1)
    cumulative /= cumulative[:, -1:]
    edges = np.searchsorted(common.offsets, np.minimum(np.arange(len(parts) + 1) * BLOCK_ROWS, rows))
    for part, first, last in zip(parts, edges[:-1], edges[1:], strict=True):
        yield _block(common, cumulative, int(first), int(last), np.random.default_rng(part))


def population(shape: Shape, rng: np.random.Generator) -> Population:
    """Effects, and for every film a user who rates it."""
    (users,), films = shape.activity.shape, shape.weights.shape[1]
    offsets = np.concatenate([[0], np.cumsum(shape.activity)])
    # Different rows: no user gets more films than the activity allows.
    row = rng.choice(int(offsets[-1]), films, replace=False)
    user = np.searchsorted(offsets, row, side="right") - 1
    return Population(
        shape=shape,
        offsets=offsets,
        given=np.sort(user * films + rng.permutation(films)),
        user_effect=rng.normal(0.0, TRUTH.user, users),
        film_effect=rng.normal(0.0, TRUTH.film, films),
    )


def _block(common: Population, cumulative: np.ndarray, first: int, last: int, rng: np.random.Generator) -> pd.DataFrame:
    """Rows of the users from `first` to before `last`, in random order."""
    films = cumulative.shape[1]
    low, high = np.searchsorted(common.given, [first * films, last * films])
    pairs = _draw(common.shape, cumulative, first, last, common.given[low:high] - first * films, rng)
    rng.shuffle(pairs)
    user, film = np.divmod(pairs, films)
    user += first
    x = rng.standard_normal(pairs.size)
    rating = TRUTH.intercept + TRUTH.slope * x + TRUTH.residual * rng.standard_normal(pairs.size)
    rating += common.user_effect[user] + common.film_effect[film]
    columns = {"user": user.astype(np.int32), "film": film.astype(np.int32), "x": x, "rating": rating}
    return pd.DataFrame(columns)


def _draw(
    shape: Shape, cumulative: np.ndarray, first: int, last: int, given: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Different films for every user, as ``(user - first) * films + film``; shape (rows,).

    Films are drawn one after the other by their weights, and again when the user has them. Where that would take long,
    for the few who rate a large part of all films, the same distribution is drawn at once: the smallest of exponential
    variables with the weights as rates (Efraimidis, Spirakis 2006, Inf. Process. Lett. 97).
    """
    films = cumulative.shape[1]
    activity, group = shape.activity[first:last], shape.group[first:last]
    by_group = np.argsort(group, kind="stable")
    pairs, missing = given, np.inf
    while True:
        short = activity - np.bincount(pairs // films, minlength=activity.size)
        waiting = np.flatnonzero(short)
        if waiting.size * films <= CHEAP * pairs.size or short.sum() > (1.0 - SLOW) * missing:
            break
        missing = short.sum()
        fresh = _one_each(short[by_group], by_group, group[by_group], cumulative, rng)
        pairs = _distinct(np.concatenate([pairs, fresh]))
    pieces = [pairs]
    for user in waiting:
        low, high = np.searchsorted(pairs, [user * films, (user + 1) * films])
        clock = rng.standard_exponential(films) / shape.weights[group[user]]
        clock[pairs[low:high] - user * films] = np.inf
        pieces.append(user * films + np.argpartition(clock, short[user] - 1)[: short[user]])
    return np.concatenate(pieces)


def _one_each(
    counts: np.ndarray, users: np.ndarray, group: np.ndarray, cumulative: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """`counts` films for each of `users`, who stand in the order of their groups; a film may come twice."""
    films = cumulative.shape[1]
    ends = np.concatenate([[0], np.cumsum(counts)])
    edges = np.searchsorted(group, np.arange(cumulative.shape[0] + 1))
    uniform = rng.random(ends[-1])
    pairs = np.repeat(users, counts) * films
    for row, low, high in zip(cumulative, ends[edges[:-1]], ends[edges[1:]], strict=True):
        pairs[low:high] += np.searchsorted(row, uniform[low:high], side="right")
    return pairs


def _distinct(values: np.ndarray) -> np.ndarray:
    values.sort()
    return values[np.concatenate([[True], values[1:] != values[:-1]])]


def frame(size: Size, seed: int, shape: str = "lognormal") -> pd.DataFrame:
    """All rows of a size at once."""
    return pd.concat(list(ratings(size.rows, size.users, size.films, seed, shape)), ignore_index=True)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ratings", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="25M")
    parser.add_argument("--shape", choices=SHAPES, default="movielens")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="Parquet file to write")
    parser.add_argument("--order", choices=ORDERS, default="users", help="of the rows in the file")
    return parser.parse_args(arguments)


def main() -> None:
    from benchmarks import rating_files, rating_summary

    options = parse_arguments()
    size = SIZES[options.size]
    tally = rating_summary.Tally(size.users, size.films)
    start = time.perf_counter()
    chunks = ratings(size.rows, size.users, size.films, options.seed, options.shape)
    counted = (tally.add(chunk) for chunk in chunks)
    if options.out:
        rating_files.write(options.out, counted, size.rows, options.order, options.seed)
    else:
        for _ in counted:
            pass
    seconds = time.perf_counter() - start
    print(f"{options.shape}, seed {options.seed}: {size.rows:,} rows in {seconds:.1f} s\n")
    print(rating_summary.compare(tally))


if __name__ == "__main__":
    main()
