"""Rows in batches, and searches, as strangers use them: large identifiers, odd starts, sources that change."""

import gc
from collections import deque

import numpy as np
import pandas as pd
import pytest
from source_cases import assert_same, cut

import crosslmm as clm

N = 240
FORMULA = "y ~ x + (1 | g) + (1 | h)"


@pytest.fixture
def data():
    rng = np.random.default_rng(5)
    g, h, x = rng.integers(0, 12, N), rng.integers(0, 9, N), rng.normal(size=N)
    y = x + rng.normal(size=12)[g] + rng.normal(size=9)[h] + rng.normal(size=N)
    return pd.DataFrame({"y": y, "x": x, "g": g, "h": h})


# --- identifiers that double precision cannot tell apart ------------------------------------------

BEYOND = {"int64": 2**53 + 1, "uint64": 2**63 + 7}


@pytest.mark.parametrize("dtype", BEYOND)
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("kind", ["parquet", "pandas", "pyarrow", "polars"])
def test_large_identifiers_stay_apart(data, dtype, missing, kind, tmp_path):
    large = pd.array([int(v) + BEYOND[dtype] for v in data.g], dtype={"int64": "Int64", "uint64": "UInt64"}[dtype])
    if missing:
        large[[3, 100]] = pd.NA
    table = data.assign(g=large)
    expected = clm.accumulate(FORMULA, data.drop(index=[3, 100]) if missing else data)
    source = cut(table, 70)
    if kind == "parquet":
        source = tmp_path / "large.parquet"
        table.to_parquet(source, row_group_size=70)
    elif kind != "pandas":
        module = pytest.importorskip(kind)
        convert = module.Table.from_pandas if kind == "pyarrow" else module.from_pandas
        source = [convert(part) for part in source]
    xp = clm.accumulate(FORMULA, source)
    factor = next(f for f in xp.layout.factors if f.name == "g")
    assert sorted(map(int, factor.levels)) == [v + BEYOND[dtype] for v in range(12)]
    assert xp.n == expected.n
    np.testing.assert_allclose(xp.fixed, expected.fixed, rtol=0, atol=1e-9)
    assert_same(xp, clm.accumulate(FORMULA, table))


def test_large_identifiers_beside_floats_are_refused(data):
    large = data.assign(g=data.g + 2**53 + 1)
    batches = [*cut(large, 60)[:3], cut(large.assign(g=large.g.astype(float)), 60)[3]]
    with pytest.raises(clm.DataError, match=r"'g' holds integers beyond 2\^53 in some batches"):
        clm.accumulate(FORMULA, batches)


# --- starts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["direct", clm.IterativeEngine(border=0)])
@pytest.mark.parametrize("size", [1e-4, 1e-8, 1e-10, 1e-12, 1e-14, 0.0])
def test_a_start_beside_the_saddle_at_zero(data, engine, size):
    model = clm.MixedLM.from_formula(FORMULA, data)
    fit, expected = (model.fit(engine=engine, start=start) for start in ([size, size], None))
    assert fit.converged
    np.testing.assert_allclose(fit.theta, expected.theta, rtol=5e-4)
    assert abs(fit.criterion - expected.criterion) < 1e-4


# --- sources that are no longer what they were ----------------------------------------------------


@pytest.mark.parametrize(("factor", "says"), [(0.5, "120 complete rows in place of the 240"), (2, "more than the 240")])
def test_a_source_that_changed_after_the_fit(data, factor, says, tmp_path):
    path = tmp_path / "rows.parquet"
    data.to_parquet(path, row_group_size=50)
    fit = clm.lmer(FORMULA, path)
    (data.iloc[: N // 2] if factor < 1 else pd.concat([data, data])).to_parquet(path, row_group_size=50)
    for what in ("fittedvalues", "resid"):
        with pytest.raises(clm.DataError, match=says):
            getattr(fit, what)
    with pytest.raises(clm.DataError, match=says):
        fit.write_fitted(tmp_path / "fitted.parquet")
    assert [file.name for file in tmp_path.iterdir()] == ["rows.parquet"]


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupted_file_leaves_nothing_behind(data, tmp_path):
    fit = clm.lmer(FORMULA, cut(data, 50))

    def stop(phase, done, total):
        if done > 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit.write_fitted(tmp_path / "fitted.parquet", progress=stop)
    gc.collect()
    assert not list(tmp_path.iterdir())


# --- messages -------------------------------------------------------------------------------------


def test_the_same_iterator_each_time(data):
    iterator = (part for part in cut(data, 50))
    with pytest.raises(clm.DataError, match="a function must return a new iterator each time"):
        clm.lmer(FORMULA, lambda: iterator)


@pytest.mark.parametrize("made", ["ratings.parquet", "a frame", "a dict"])
def test_a_function_that_returns_one_table(data, made):
    result = {"a frame": data, "a dict": data.to_dict("list")}.get(made, made)
    with pytest.raises(clm.DataError, match=r"the function returned a (str|DataFrame|dict), and must return"):
        clm.lmer(FORMULA, lambda: result)


def test_the_first_batch_is_named(data):
    with pytest.raises(clm.DataError, match="batch 0: data must be a pandas, polars or pyarrow table"):
        clm.lmer(FORMULA, [[1, 2], data])


def test_sources_without_rows(data, tmp_path):
    empty = data.iloc[:0]
    empty.to_parquet(tmp_path / "empty.parquet")
    for source in (tmp_path / "empty.parquet", [empty, empty], lambda: [empty]):
        with pytest.raises(clm.DataError, match="the data have no rows"):
            clm.lmer(FORMULA, source)


@pytest.mark.parametrize("nested", [lambda v: {"a": v}, lambda v: [v]])
def test_nested_columns_of_other_tables(data, nested):
    polars = pytest.importorskip("polars")
    table = polars.from_pandas(data).with_columns(g=polars.Series([nested(int(v)) for v in data.g]))
    for source in (table, [table[:100], table[100:]]):
        with pytest.raises(clm.DataError, match="'g' holds values that cannot be levels"):
            clm.lmer(FORMULA, source)


# --- files and collections -----------------------------------------------------------------------


def test_the_rows_are_not_overwritten_by_their_fitted_values(tmp_path):
    path = tmp_path / "rows.parquet"
    frame = clm.datasets.load_sleepstudy()
    frame.to_parquet(path)
    fit = clm.lmer("Reaction ~ Days + (1 | Subject)", path)
    before = path.read_bytes()
    with pytest.raises(clm.DataError, match="write the fitted values to another file"):
        fit.write_fitted(tmp_path / ".." / tmp_path.name / "rows.parquet")
    assert path.read_bytes() == before
    fit.write_fitted(tmp_path / "fitted.parquet")
    assert len(pd.read_parquet(tmp_path / "fitted.parquet")) == len(frame)


def test_any_collection_of_tables():
    frame = clm.datasets.load_sleepstudy()
    whole = clm.lmer("Reaction ~ Days + (1 | Subject)", frame)
    parts = deque([frame[:50], frame[50:]])
    assert clm.lmer("Reaction ~ Days + (1 | Subject)", parts).theta.iloc[0] == pytest.approx(whole.theta.iloc[0])


@pytest.mark.parametrize("data", [np.zeros((3, 2)), pd.Series([1.0, 2.0]), 3])
def test_what_is_neither_a_table_nor_a_collection(data):
    with pytest.raises(clm.DataError, match="data must be"):
        clm.lmer("y ~ 1 + (1 | g)", data)


@pytest.mark.parametrize(
    "path, advice", [("s3://bucket/a.parquet", "read remote files with dask"), ("data/*.parquet", "glob")]
)
def test_paths_that_are_none(path, advice):
    with pytest.raises(clm.DataError, match=advice):
        clm.lmer("y ~ 1 + (1 | g)", path)


def test_hidden_files_of_a_directory_are_not_read(tmp_path):
    frame = clm.datasets.load_sleepstudy()
    frame.to_parquet(tmp_path / "A.PARQUET")
    (tmp_path / "._A.parquet").write_bytes(b"not a table")
    assert clm.lmer("Reaction ~ Days + (1 | Subject)", tmp_path).nobs == len(frame)


def test_a_partition_that_lacks_a_column_is_named():
    dd = pytest.importorskip("dask.dataframe")
    frame = clm.datasets.load_sleepstudy()

    def part(i):
        return frame.drop(columns="Days") if i == 2 else frame

    broken = dd.from_map(part, range(4), meta=frame.iloc[:0], enforce_metadata=False)
    with pytest.raises(clm.DataError, match=r"partition 2.*Days"):
        clm.lmer("Reaction ~ Days + (1 | Subject)", broken)
