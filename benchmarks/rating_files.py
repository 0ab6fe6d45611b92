"""Ratings as Parquet files with row groups of about a million, written in little memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.ratings import BLOCK_ROWS, SIZES, ratings

RECORD = np.dtype([("user", np.int32), ("film", np.int32), ("x", np.float64), ("rating", np.float64)])


def write(path: Path, chunks: Iterable[pd.DataFrame], rows: int, order: str, seed: int) -> None:
    """Write chunks as one Parquet file; a file that is there is complete.

    Parameters
    ----------
    path : Path
    chunks : iterable of DataFrame
        With the columns of `benchmarks.ratings.ratings`.
    rows : int
        Of all chunks together.
    order : {"users", "random"}
        As the chunks come, or all rows mixed.
    seed : int
        Of the random order.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    parts = max(rows // BLOCK_ROWS, 1)
    schema = pa.schema([(name, pa.from_numpy_dtype(RECORD[name])) for name in RECORD.names])
    with pq.ParquetWriter(unfinished, schema, compression="snappy") as writer:
        for chunk in mixed(chunks, parts, seed) if order == "random" else chunks:
            table = pa.Table.from_pandas(chunk, schema=schema, preserve_index=False)
            writer.write_table(table, row_group_size=2 * BLOCK_ROWS)
    unfinished.replace(path)


def mixed(chunks: Iterable[pd.DataFrame], parts: int, seed: int) -> Iterator[pd.DataFrame]:
    """All rows in random order and `parts` chunks, each of which is collected in a file: the memory of a few chunks."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        for file in _deal(chunks, [Path(folder) / f"{part}" for part in range(parts)], rng):
            rows = np.fromfile(file, dtype=RECORD)
            file.unlink()
            rng.shuffle(order := np.arange(rows.size))
            yield pd.DataFrame({name: rows[name][order] for name in RECORD.names})


def _deal(chunks: Iterable[pd.DataFrame], files: Sequence[Path], rng: np.random.Generator) -> Sequence[Path]:
    """Append every row to a random one of `files`."""
    with ExitStack() as stack:
        handles = [stack.enter_context(file.open("wb")) for file in files]
        for chunk in chunks:
            rows = np.empty(len(chunk), dtype=RECORD)
            for name in RECORD.names:
                rows[name] = chunk[name]
            part = rng.integers(0, len(files), rows.size, dtype=np.uint16)
            rows = rows[np.argsort(part, kind="stable")]
            ends = np.cumsum(np.bincount(part, minlength=len(files)))
            for handle, low, high in zip(handles, [0, *ends[:-1]], ends, strict=True):
                rows[low:high].tofile(handle)
    return files


def cached(folder: Path, size: str, shape: str, order: str, seed: int) -> Path:
    """Parquet file of a size, made when it is not in `folder`."""
    path = folder / f"ratings-{size}-{shape}-{order}-{seed}.parquet"
    if not path.exists():
        wanted = SIZES[size]
        write(path, ratings(wanted.rows, wanted.users, wanted.films, seed, shape), wanted.rows, order, seed)
    return path
