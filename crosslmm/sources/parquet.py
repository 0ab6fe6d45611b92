"""Parquet files as a source, through pyarrow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from crosslmm.design.frame import check_names
from crosslmm.errors import DataError
from crosslmm.sources.local import Local, numbered
from crosslmm.sources.protocol import Batch, batch_errors, reading

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

SUFFIXES = (".parquet", ".parq", ".pq")
TEXT_FILES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")


@dataclass(frozen=True)
class Parquet(Local):
    """Parquet files, read row group by row group."""

    files: tuple[Path, ...]

    def columns(self) -> list[str]:
        """Names of the columns of the first file."""
        with reading(str(self.files[0])), _open(self.files[0]) as file:
            return list(file.schema_arrow.names)

    def n_rows(self) -> int:
        """Rows of all files, from their footers."""
        total = 0
        for path in self.files:
            with reading(str(path)), _open(path) as file:
                total += file.metadata.num_rows
        return total

    def reads(self, path: Path) -> bool:
        """Whether a file is one of those that are read."""
        return path.resolve() in {file.resolve() for file in self.files}

    def batches(self, columns: list[str], rows: int) -> Iterator[Batch]:
        """Row groups, or stretches of them."""
        start = 0
        for path in self.files:
            with reading(str(path)):
                file = _open(path)
            with file:
                with batch_errors(str(path)):
                    check_names(columns, list(file.schema_arrow.names))
                if file.metadata.num_rows == 0:
                    yield Batch(str(path), _empty(file, columns))
                for group in range(file.num_row_groups):
                    for batch in _row_group(file, f"{path}, row group {group}", group, columns, rows):
                        yield Batch(batch.name, numbered(batch.table, start))
                        start += len(batch.table)


def _open(path: Path) -> ParquetFile:
    from pyarrow import parquet

    return parquet.ParquetFile(path)


def _row_group(file: ParquetFile, name: str, group: int, columns: list[str], rows: int) -> Iterator[Batch]:
    import pyarrow

    with reading(name):
        iterator = file.iter_batches(batch_size=rows, row_groups=[group], columns=columns, use_threads=True)
    while True:
        with reading(name):
            part = next(iterator, None)
            if part is None:
                return
            frame = _to_pandas(pyarrow.Table.from_batches([part]))[columns]
        yield Batch(name, frame)


def _to_pandas(table: Any) -> pd.DataFrame:
    """A pyarrow table as a frame in which 64-bit integers beside missing values stay integers.

    As floats, those beyond 2**53 would become equal to their neighbours, and levels would be merged.
    """
    import pyarrow

    nullable = {pyarrow.int64(): pd.Int64Dtype(), pyarrow.uint64(): pd.UInt64Dtype()}
    needed = any(column.null_count > 0 for column in table.columns if column.type in nullable)
    return table.to_pandas(ignore_metadata=True, types_mapper=nullable.get if needed else None)


def _empty(file: ParquetFile, columns: list[str]) -> pd.DataFrame:
    return file.schema_arrow.empty_table().to_pandas(ignore_metadata=True)[columns]


def parquet_files(paths: Iterable[str | Path]) -> Parquet:
    """Parquet files and the files of directories, these in the order of their names.

    Raises
    ------
    DataError
        A path does not exist, a directory holds no Parquet file, or pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise DataError("reading Parquet files needs pyarrow: pip install 'crosslmm[parquet]'") from error
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if _is_parquet(file))
            if not found:
                raise DataError(f"the directory {str(path)!r} holds no file that ends in {', '.join(SUFFIXES)}")
            files += found
        elif path.name.lower().endswith(TEXT_FILES):
            raise DataError(
                f"{str(path)!r} is a text file, and only Parquet files are read by their paths; pass a function that "
                f"reads it in batches, such as lambda: pandas.read_csv({str(path)!r}, chunksize=100_000)"
            )
        elif path.is_file():
            files.append(path)
        else:
            raise DataError(f"there is no file or directory {str(path)!r}{_advice(str(path))}")
    if not files:
        raise DataError("the list of Parquet files is empty")
    return Parquet(tuple(files))


def _is_parquet(file: Path) -> bool:
    """Whether a file of a directory is read: hidden ones are not."""
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()


def _advice(path: str) -> str:
    """What else would do in place of a path that is none."""
    if ":/" in path:
        return "; read remote files with dask: dask.dataframe.read_parquet(address)"
    if "*" in path or "?" in path:
        return "; pass the list of paths that a pattern gives: sorted(glob.glob(pattern))"
    return ""
