"""The plan: which engine, how the blocks are stored, what it will cost, and why. Made before any numeric work."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from crosslmm.errors import ModelError, ResourceError

RESTS = ("auto", "dense", "sparse")
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
class Plan:
    """How a model will be, or was, computed.

    Attributes
    ----------
    engine : str
        ``"direct"``.
    eliminated : str
        Factor that is eliminated exactly, level by level.
    eliminated_levels : int
    rest : {"none", "dense", "sparse"}
        Storage of the equations that remain.
    rest_size : int
        Their number.
    factor_nonzeros : int
        Nonzeros of the Cholesky factor, all parts.
    flops : float
        Multiply-adds of one evaluation with its gradient.
    bytes : int
        Memory of the engine beyond the data.
    reason : str
        Why this engine and storage.
    blocks : tuple of (row, column, storage, nonzeros)
        The blocks of the lower triangle of the equations.
    """

    engine: str
    eliminated: str
    eliminated_levels: int
    rest: str
    rest_size: int
    factor_nonzeros: int
    flops: float
    bytes: int
    reason: str
    blocks: tuple[tuple[str, str, str, int], ...]

    def __str__(self) -> str:
        lines = [
            f"engine        {self.engine}: {self.reason}",
            f"eliminated    {self.eliminated} ({self.eliminated_levels:,} levels)",
            f"rest          {self.rest} ({self.rest_size:,} equations)",
            f"factor        {self.factor_nonzeros:,} nonzeros",
            f"evaluation    {self.flops:.2g} multiply-adds",
            f"memory        {self.bytes / 1e6:,.1f} MB beyond the data",
            "",
            "blocks of the lower triangle",
        ]
        width = max(len(row) for row, *_ in self.blocks)
        column = max(len(col) for _, col, *_ in self.blocks)
        lines += [f"  {r:<{width}}  x {c:<{column}}  {s:<14} {n:>14,}" for r, c, s, n in self.blocks]
        return "\n".join(lines)


def require_memory(n_bytes: int, what: str) -> None:
    """Refuse before allocating more than the machine has.

    Raises
    ------
    ResourceError
        When `n_bytes` exceeds the memory that is available now.
    """
    available = available_memory()
    if n_bytes > available:
        raise ResourceError(
            f"{what} needs {n_bytes / 1e9:,.1f} GB and {available / 1e9:,.1f} GB are available. "
            "A machine with more memory, fewer levels in the second largest factor, or fewer random slopes would help."
        )


def available_memory() -> int:
    """Bytes that can be allocated without swapping (Linux), else the size of the memory."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
