"""The plan: which engine, how the blocks are stored, what it will cost, and why. Made before any numeric work."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from pathlib import Path

import numpy as np

from crosslmm.errors import ModelError, ResourceError

RESTS = ("auto", "dense", "sparse")
FEWEST_PROBES = 4
"""With fewer, the Monte Carlo error would itself be a guess."""

ORDERINGS = ("default", "amd", "metis", "nesdis", "best", "natural")


@dataclass(frozen=True)
class DirectEngine:
    """Options of the direct engine: exact sparse or dense Cholesky factors.

    Attributes
    ----------
    rest : {"auto", "dense", "sparse"}
        How the equations are stored that remain once the largest factor has been eliminated; ``"auto"`` takes what
        the symbolic analysis predicts to be faster.
    ordering : {"default", "amd", "metis", "nesdis", "best", "natural"}
        CHOLMOD's fill-reducing ordering of a sparse rest.
    """

    rest: str = "auto"
    ordering: str = "default"

    def __post_init__(self) -> None:
        if self.rest not in RESTS:
            raise ModelError(f"DirectEngine(rest={self.rest!r}): expected one of {', '.join(map(repr, RESTS))}")
        if self.ordering not in ORDERINGS:
            raise ModelError(
                f"DirectEngine(ordering={self.ordering!r}): expected one of {', '.join(map(repr, ORDERINGS))}"
            )


@dataclass(frozen=True)
class IterativeEngine:
    """Options of the iterative engine: conjugate gradients, and traces estimated with random probes.

    Attributes
    ----------
    n_probes : int
        Probes to begin with.
    rng : int or numpy.random.Generator
        Seed of the probes; the same seed gives the same answer. A generator is asked for one.
    error : float
        Probes are added until the Monte Carlo error of each theta is below this part of its standard error.
    max_probes : int
        Probes after which the error is reported as it is.
    border : int
        Factors with up to so many random effects in all are carried exactly beside the fixed effects.
    seed : int
        What `rng` came to.
    """

    n_probes: int = 16
    rng: int | np.random.Generator = 0
    error: float = 0.01
    max_probes: int = 4096
    border: int = 64
    seed: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        least = {"n_probes": FEWEST_PROBES, "max_probes": self.n_probes, "border": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or value < bound:
                raise ModelError(f"IterativeEngine({name}={value!r}): expected a whole number, at least {bound}")
        if not (isinstance(self.error, Real) and not isinstance(self.error, bool) and float(self.error) > 0.0):
            raise ModelError(f"IterativeEngine(error={self.error!r}): expected a positive number, such as 0.01")
        if isinstance(self.rng, np.random.Generator):
            object.__setattr__(self, "seed", int(self.rng.integers(2**63)))
        elif isinstance(self.rng, Integral) and not isinstance(self.rng, bool) and self.rng >= 0:
            object.__setattr__(self, "seed", int(self.rng))
        else:
            raise ModelError(
                f"IterativeEngine(rng={self.rng!r}): expected a whole number, at least 0, or a numpy.random.Generator"
            )

    def with_probes(self, n_probes: int) -> IterativeEngine:
        """The same options, the seed included, beginning with so many probes."""
        return replace(self, n_probes=n_probes, rng=self.seed)


Engine = DirectEngine | IterativeEngine


@dataclass(frozen=True)
class Plan:
    """How a model will be, or was, computed.

    Attributes
    ----------
    engine : {"direct", "iterative"}
    eliminated : str
        Factor that is eliminated exactly, level by level.
    eliminated_levels : int
    rest : {"none", "dense", "sparse", "conjugate gradients"}
        How the equations that remain are solved.
    rest_size : int
        Their number.
    border : tuple of str
        Factors that the iterative engine carries exactly beside the fixed effects.
    nonzeros : int
        Nonzeros of the Cholesky factor with all its parts, or of the blocks that conjugate gradients pass over.
    flops : float
        Multiply-adds of one evaluation with its gradient.
    bytes : int
        Memory of the engine beyond the cross-products.
    held : int
        Memory of the cross-products.
    reason : str
        Why this engine and storage.
    blocks : tuple of (row, column, storage, nonzeros)
        The blocks of the lower triangle of the equations.
    options : DirectEngine or IterativeEngine
        The engine's options.
    """

    engine: str
    eliminated: str
    eliminated_levels: int
    rest: str
    rest_size: int
    border: tuple[str, ...]
    nonzeros: int
    flops: float
    bytes: int
    held: int
    reason: str
    blocks: tuple[tuple[str, str, str, int], ...]
    options: Engine

    def __str__(self) -> str:
        stored = "factor" if self.engine == "direct" else "pairs"
        lines = [
            f"engine        {self.engine}: {self.reason}",
            f"eliminated    {self.eliminated} ({self.eliminated_levels:,} levels)",
            f"rest          {self.rest} ({self.rest_size:,} equations)",
            *([f"border        {', '.join(self.border)}: exact, beside the fixed effects"] if self.border else []),
            f"{stored:<13} {self.nonzeros:,} nonzeros",
            f"evaluation    {self.flops:.2g} multiply-adds",
            f"memory        {self.bytes / 1e6:,.1f} MB beyond the {self.held / 1e6:,.1f} MB of the cross-products",
            "",
            "blocks of the lower triangle",
        ]
        width = max(len(row) for row, *_ in self.blocks)
        column = max(len(col) for _, col, *_ in self.blocks)
        lines += [f"  {r:<{width}}  x {c:<{column}}  {s:<14} {n:>14,}" for r, c, s, n in self.blocks]
        return "\n".join(lines)


def require_memory(n_bytes: int, what: str, instead: str = "") -> None:
    """Refuse before allocating more than the machine has.

    Parameters
    ----------
    n_bytes : int
    what : str
        Needs them, for the message.
    instead : str
        What else would do, as a sentence.

    Raises
    ------
    ResourceError
        When `n_bytes` exceeds the memory that is available now.
    """
    available = available_memory()
    if n_bytes > available:
        raise ResourceError(
            f"{what} needs {n_bytes / 1e9:,.1f} GB and {available / 1e9:,.1f} GB are available. "
            f"{instead}A machine with more memory, fewer levels in the second largest factor, or fewer random slopes "
            "would help."
        )


def available_memory() -> int:
    """Bytes that can be allocated without swapping (Linux), else the size of the memory."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
