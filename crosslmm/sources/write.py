"""Frames to a Parquet file, one at a time; the file appears when it is complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pandas as pd

from crosslmm.errors import DataError


def write_batches(path: Path, frames: Iterator[pd.DataFrame]) -> None:
    """Write frames with the same columns to one file.

    Raises
    ------
    DataError
        pyarrow is not installed, or the file cannot be written.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError("writing Parquet files needs pyarrow: pip install 'crosslmm[parquet]'") from error
    try:
        handle = NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False)  # noqa: SIM115
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be written: {error.strerror}") from error
    temporary = Path(handle.name)
    try:
        with handle:
            writer: Any = None
            try:
                for frame in frames:
                    table = pyarrow.Table.from_pandas(frame, schema=writer and writer.schema, preserve_index=False)
                    writer = writer or parquet.ParquetWriter(handle, table.schema)
                    writer.write_table(table)
            finally:  # before the file is closed: a writer that is thrown away still writes
                if writer is not None:
                    writer.close()
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
