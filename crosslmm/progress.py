"""What long work says: a bar per phase on a terminal with tqdm, and records of the logger ``crosslmm``."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from crosslmm.errors import ModelError
from crosslmm.fit import Iteration

logger = logging.getLogger("crosslmm")

DELAY = 1.0
"""Seconds that a phase must last before it shows anything."""

Rows = Callable[[str, int, int | None], None]


class Meter:
    """The phases of one piece of work; lives for one call.

    Parameters
    ----------
    forward : callable, optional
        Is told the phase, the rows done and the rows in all, in place of the bar.
    bars : bool
        Whether bars may be shown.
    """

    def __init__(self, forward: Rows | None, bars: bool):
        self.forward = forward
        self.bars = bars
        self.phase = ""
        self.done = 0
        self.unit = "rows"
        self.began = time.perf_counter()
        self.bar: Any = None
        self.criterion: float | None = None

    @property
    def follows_iterations(self) -> bool:
        """Whether anybody would see an iteration."""
        return self.bars or logger.isEnabledFor(logging.INFO)

    def rows(self, phase: str, done: int, total: int | None, unit: str = "rows") -> None:
        """Rows (or other units) done in a phase, and how many in all where that is known."""
        if self.forward is not None:
            self.forward(phase, done, total)
            return
        self._enter(phase)
        self.done, self.unit = done, unit
        if self._visible(total, unit):
            self.bar.update(done - self.bar.n)

    def iteration(self, iteration: Iteration) -> None:
        """One evaluation of the criterion."""
        self._enter("fitting")
        change = 0.0 if self.criterion is None else iteration.criterion - self.criterion
        solver = f", {iteration.cg_steps} conjugate gradient steps" if iteration.cg_steps else ""
        text = f"{iteration.step}, criterion {iteration.criterion:.10g} ({change:+.2g}){solver}"
        logger.info("fitting: %s, %.2f s", text, iteration.seconds)
        if iteration.accepted:
            self.criterion = iteration.criterion
        if self._visible(None, "evaluations"):
            self.bar.set_postfix_str(text)
            self.bar.update(1)

    def close(self) -> None:
        """End the last phase."""
        if self.done:
            logger.info("%s: %s %s, %.2f s", self.phase, f"{self.done:,}", self.unit, time.perf_counter() - self.began)
            self.done = 0
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _enter(self, phase: str) -> None:
        if phase != self.phase:
            self.close()
            self.phase, self.began = phase, time.perf_counter()

    def _visible(self, total: int | None, unit: str) -> bool:
        """Whether a bar is shown, made when the phase has lasted long enough."""
        if self.bar is None and self.bars and time.perf_counter() - self.began > DELAY:
            from tqdm import tqdm

            self.bar = tqdm(total=total, desc=self.phase, unit=f" {unit}", unit_scale=True, leave=False)
        return self.bar is not None


@contextmanager
def meter(progress: bool | Rows | None) -> Iterator[Meter]:
    """Progress of one piece of work.

    Parameters
    ----------
    progress : bool, callable or None
        None shows bars where standard error is a terminal and tqdm is installed; True shows them wherever tqdm is;
        False never. A callable is told the phase, the rows done and the rows in all (or None) while rows are read.

    Raises
    ------
    ModelError
        `progress` is something else, or True without tqdm.
    """
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise ModelError(f"progress={progress!r}: expected None, True, False or a callable")
    if progress is True and not _has_tqdm():
        raise ModelError("progress=True needs tqdm: pip install tqdm (or leave progress out)")
    bars = progress is True or (progress is None and sys.stderr.isatty() and _has_tqdm())
    shown = Meter(progress if callable(progress) else None, bars)
    try:
        yield shown
    finally:
        shown.close()


def _has_tqdm() -> bool:
    from importlib.util import find_spec

    return find_spec("tqdm") is not None
