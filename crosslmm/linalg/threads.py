"""Work shared among threads; the compiled kernels release the GIL."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor


def n_threads() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0))


def in_shares(bounds: Sequence[int], work: Callable[[int, int, int], None]) -> None:
    """Run ``work(share, first, last)`` for every range between neighbouring bounds, one thread each."""
    shares = list(zip(range(len(bounds) - 1), bounds[:-1], bounds[1:], strict=True))
    if len(shares) == 1:
        work(*shares[0])
        return
    with ThreadPoolExecutor(len(shares)) as pool:
        for future in [pool.submit(work, *share) for share in shares]:
            future.result()
