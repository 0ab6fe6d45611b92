"""Replicates made set by set, by one thread or several, with a bar; an interrupt keeps the sets that are done.

Every replicate has a seed of its own and the sets do not depend on who works on them, so neither do the results.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from numbers import Integral
from threading import Event
from typing import TypeVar

import numpy as np

from crosslmm.errors import ModelError
from crosslmm.progress import Meter

S = TypeVar("S")
Work = Callable[[list[np.random.Generator]], S]


def seeds(rng: int | np.random.Generator | None, n: int) -> list[np.random.SeedSequence]:
    """One seed for each of n replicates.

    Raises
    ------
    ModelError
        `n` is no positive number, or `rng` neither None, a seed nor a generator.
    """
    if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
        raise ModelError(f"n={n!r}: expected a number of replicates, such as 1000")
    if isinstance(rng, np.random.Generator):
        entropy: int | None = int(rng.integers(2**63))
    elif rng is None or (isinstance(rng, Integral) and not isinstance(rng, bool) and rng >= 0):
        entropy = None if rng is None else int(rng)
    else:
        raise ModelError(f"rng={rng!r}: expected None, a seed (0 or more) or a numpy.random.Generator")
    return np.random.SeedSequence(entropy).spawn(int(n))


def in_sets(
    work: Work[S], own: list[np.random.SeedSequence], per_set: int, n_jobs: int, meter: Meter, phase: str
) -> list[S]:
    """Results of all sets in their order; of those done before an interrupt.

    Raises
    ------
    ModelError
        `n_jobs` is no positive number.
    KeyboardInterrupt
        There was an interrupt before the first set was done.
    """
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, Integral) or n_jobs < 1:
        raise ModelError(f"n_jobs={n_jobs!r}: expected a number of threads, 1 or more")
    parts = [own[i : i + per_set] for i in range(0, len(own), per_set)]
    stop = Event()
    done: dict[int, S] = {}
    finished = 0

    def one(i: int) -> tuple[int, S] | None:
        return None if stop.is_set() else (i, work([np.random.default_rng(seed) for seed in parts[i]]))

    def keep(result: tuple[int, S] | None) -> None:
        nonlocal finished
        if result is not None:
            done[result[0]] = result[1]
            finished += len(parts[result[0]])
            meter.rows(phase, finished, len(own), "replicates")

    meter.rows(phase, 0, len(own), "replicates")
    try:
        if n_jobs == 1:
            for i in range(len(parts)):
                keep(one(i))
        else:
            _by_threads(one, keep, len(parts), int(n_jobs), stop)
    except KeyboardInterrupt:
        stop.set()
        if not done:
            raise
    return [done[i] for i in sorted(done)]


def _by_threads(
    one: Callable[[int], tuple[int, S] | None],
    keep: Callable[[tuple[int, S] | None], None],
    n: int,
    n_jobs: int,
    stop: Event,
) -> None:
    with ThreadPoolExecutor(n_jobs) as pool:
        waiting: set[Future[tuple[int, S] | None]] = {pool.submit(one, i) for i in range(n)}
        try:
            while waiting:
                ended, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in ended:
                    keep(future.result())
        except BaseException:
            stop.set()
            for future in waiting:
                future.cancel()
            raise
