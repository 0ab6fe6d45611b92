import gzip
import inspect
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from crosslmm import datasets
from crosslmm.datasets._read import FILES

# Rows, columns in order, numbers of levels and first levels of the factors, mean of the response.
EXPECTED = {
    "cake": (270, {"replicate": 15, "recipe": "ABC", "temperature": 6, "angle": 0, "temp": 0}, 32.122222),
    "classroom": (60, {"classroom": 3, "edu": 0, "score": 0}, 10.591264),
    "dietox": (861, {"Pig": 72, "Litter": 21, "Evit": 3, "Cu": 3, "Time": 0, "Start": 0, "Weight": 0}, 60.725769),
    "dyestuff": (30, {"Batch": "ABCDEF", "Yield": 0}, 1527.5),
    "dyestuff2": (30, {"Batch": "ABCDEF", "Yield": 0}, 5.665600),
    "insteval": (73421, {"s": 2972, "d": 1128, "service": "01", "dept": 14, "y": 0}, 3.205745),
    "machines": (54, {"Worker": "624135", "Machine": "ABC", "score": 0}, 59.65),
    "nlschools": (2287, {"lang": 0, "IQ": 0, "class": 133, "GS": 0, "SES": 0, "COMB": "01", "IQave": 0}, 40.934849),
    "orthodont": (108, {"distance": 0, "age": 0, "Subject": 27, "Sex": 2}, 24.023148),
    "pastes": (60, {"strength": 0, "batch": "ABCDEFGHIJ", "cask": "abc", "sample": 30}, 60.053333),
    "penicillin": (144, {"diameter": 0, "plate": "abcdefghijklmnopqrstuvwx", "sample": "ABCDEF"}, 22.972222),
    "scotssec": (3435, {"verbal": 0, "attain": 0, "primary": 148, "sex": "MF", "social": 0, "second": 19}, 5.678603),
    "sleepstudy": (180, {"Reaction": 0, "Days": 0, "Subject": 18}, 298.507892),
    "verbagg": (
        7584,
        {"Anger": 0, "Gender": "FM", "item": 24, "id": 316, "btype": 3, "situ": 2, "mode": 2, "yes": 0},
        0.476134,
    ),
}
RESPONSE = {
    "cake": "angle",
    "classroom": "score",
    "dietox": "Weight",
    "dyestuff": "Yield",
    "dyestuff2": "Yield",
    "insteval": "y",
    "machines": "score",
    "nlschools": "lang",
    "orthodont": "distance",
    "pastes": "strength",
    "penicillin": "diameter",
    "scotssec": "attain",
    "sleepstudy": "Reaction",
    "verbagg": "yes",
}


def load(name):
    return getattr(datasets, f"load_{name}")()


@pytest.mark.parametrize("name", EXPECTED)
def test_content(name):
    rows, columns, mean = EXPECTED[name]
    data = load(name)
    assert list(data.columns) == list(columns)
    assert len(data) == rows
    assert not data.isna().any().any()
    assert data[RESPONSE[name]].mean() == pytest.approx(mean, rel=1e-6)
    for column, levels in columns.items():
        if levels == 0:
            assert data[column].dtype in (np.float64, np.int64)
            continue
        factor = data[column]
        assert isinstance(factor.dtype, pd.CategoricalDtype)
        assert not factor.cat.ordered
        assert factor.nunique() == len(factor.cat.categories), "a level that does not occur"
        if isinstance(levels, str):
            assert "".join(factor.cat.categories) == levels
        else:
            assert len(factor.cat.categories) == levels


def test_levels_keep_the_order_of_r():
    assert list(load("insteval")["dept"].cat.categories[:4]) == ["15", "5", "10", "12"]
    assert list(load("orthodont")["Subject"].cat.categories[:3]) == ["M16", "M05", "M02"]
    assert list(load("orthodont")["Sex"].cat.categories) == ["Male", "Female"]
    assert list(load("verbagg")["btype"].cat.categories) == ["curse", "scold", "shout"]
    assert list(load("cake")["temperature"].cat.categories) == ["175", "185", "195", "205", "215", "225"]


def test_every_loader_is_listed_and_documented():
    assert datasets.__all__ == sorted(f"load_{name}" for name in EXPECTED)
    for name in EXPECTED:
        text = inspect.getdoc(getattr(datasets, f"load_{name}"))
        assert "Notes" in text
        assert f"{EXPECTED[name][0]:,} rows" in text
        for column in EXPECTED[name][1]:
            assert f"- ``{column}``: " in text


def test_files_are_the_ones_the_loaders_read():
    stems = {path.name.split(".")[0] for path in FILES.iterdir()}
    assert stems == set(EXPECTED)
    for path in FILES.glob("*.csv.gz"):
        assert path.read_bytes()[4:8] == bytes(4), "a time stamp makes the wheel differ from build to build"
        assert gzip.decompress(path.read_bytes()).endswith(b"\n")


def test_each_call_gives_a_frame_of_its_own():
    first = load("dyestuff")
    first["Yield"] = 0.0
    assert load("dyestuff")["Yield"].mean() == 1527.5


def test_the_largest_loads_fast():
    def seconds():
        start = time.perf_counter()
        load("insteval")
        return time.perf_counter() - start

    assert min(seconds() for _ in range(3)) < 0.15


def test_import_adds_nothing_to_pandas():
    code = (
        "import pandas, importlib.util, sys; before = set(sys.modules)\n"
        "from crosslmm.datasets import load_dyestuff\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new & {'numba', 'sksparse', 'matplotlib', 'pyarrow', 'polars', 'dask', 'statsmodels'}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
