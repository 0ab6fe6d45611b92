"""A dask DataFrame as a source: each partition is reduced where it lives, results are added as a tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from crosslmm.design.frame import check_names
from crosslmm.errors import CrosslmmError, DataError
from crosslmm.sources.local import fold, numbered, sliced
from crosslmm.sources.protocol import Add, Batch, Make, reading

T = TypeVar("T")


@dataclass(frozen=True)
class Partitions:
    """The partitions of a dask DataFrame."""

    frame: Any

    def columns(self) -> list[str]:
        """Names of the columns."""
        return [name for name in self.frame.columns if isinstance(name, str)]

    def reads(self, path: Path) -> bool:
        """Unknown: partitions come from anywhere."""
        return False

    def n_rows(self) -> None:
        """Unknown: partitions are not computed to be counted."""
        return None

    def _parts(self, columns: list[str]) -> list[Any]:
        """Partitions of some columns, to be computed."""
        check_names(columns, self.columns())
        return list(self.frame[columns].to_delayed())

    def batches(self, columns: list[str], rows: int) -> Iterator[Batch]:
        """Partitions, computed one after the other."""
        start = 0
        for i, part in enumerate(self._parts(columns)):
            name = f"partition {i}"
            with reading(name):
                table = numbered(part.compute()[columns], start)
            yield from sliced(Batch(name, table), rows)
            start += len(table)

    def reduce(
        self,
        columns: list[str],
        rows: int,
        make: Make[T],
        add: Add[T],
        watch: Callable[[int], None],
        *,
        together: bool,
    ) -> T:
        """Sum over partitions by dask's scheduler, in the order of a balanced tree."""
        from dask.delayed import delayed

        work: Any = Reduction(rows, make, add)
        client = _client(self.frame)
        # a schema of many levels goes to every worker once, not into the graph
        work = delayed(work, pure=False) if client is None else client.scatter(work, broadcast=True, hash=False)
        one = delayed(_reduced, pure=False)
        level = [one(work, f"partition {i}", part) for i, part in enumerate(self._parts(columns))]
        if not level:
            raise DataError("the dask DataFrame has no partitions")
        added = delayed(add)
        while len(level) > 1:
            pairs = [added(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
            level = pairs + level[2 * len(pairs) :]
        try:
            return level[0].compute()
        except (CrosslmmError, MemoryError):
            raise
        except Exception as error:  # the graph that makes the partitions is the user's
            first = (str(error).splitlines() or [""])[0]
            where = self._failing(columns)
            raise DataError(f"{where} cannot be computed: {type(error).__name__}: {first}") from error

    def _failing(self, columns: list[str]) -> str:
        """Name of the first partition that cannot be computed by itself."""
        for i, part in enumerate(self._parts(columns)):
            try:
                part.compute()
            except Exception:  # as above
                return f"partition {i} of the dask DataFrame"
        return "the dask DataFrame"


@dataclass(frozen=True)
class Reduction(Generic[T]):
    """What is done to a partition."""

    rows: int
    make: Make[T]
    add: Add[T]

    def __call__(self, name: str, table: Any) -> T:
        """Reduce one partition, in stretches of rows."""
        return fold(sliced(Batch(name, table), self.rows), self.make, self.add, _silent)


def _reduced(work: Reduction[T], name: str, table: Any) -> T:
    return work(name, table)


def _client(frame: Any) -> Any:
    """The client of the cluster that would compute a frame; None where none would."""
    from dask.base import get_scheduler

    owner = getattr(get_scheduler(collections=[frame]), "__self__", None)
    return owner if type(owner).__module__.partition(".")[0] == "distributed" else None


def _silent(rows: int) -> None:
    """Nobody watches a worker."""
