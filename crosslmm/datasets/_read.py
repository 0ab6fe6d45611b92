"""The one reader of the bundled tables: ``files/NAME.csv.gz`` and ``files/NAME.json``.

The JSON object has one entry per column: a NumPy type, or the list of levels of a factor in order.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

FILES = Path(__file__).parent / "files"


def read_table(name: str, folder: Path = FILES) -> pd.DataFrame:
    """Read ``NAME.csv.gz`` with the column types of ``NAME.json``.

    Parameters
    ----------
    name : str
        File name without its endings.
    folder : Path, optional
        Where both files are.

    Returns
    -------
    DataFrame
        Factors are Categorical (unordered) with the levels in the order of the JSON file.
    """
    schema = json.loads((folder / f"{name}.json").read_text(encoding="utf8"))
    dtypes = {column: pd.CategoricalDtype(kind) if isinstance(kind, list) else kind for column, kind in schema.items()}
    # "NA" could be a label: only an empty field is missing.
    return pd.read_csv(folder / f"{name}.csv.gz", dtype=dtypes, keep_default_na=False, na_values=[""])
