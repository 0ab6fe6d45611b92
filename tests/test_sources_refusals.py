"""Rows in batches that are refused: as they are in memory, and for what only batches can be."""

import numpy as np
import pandas as pd
import pytest
from design_frames import N, small_frame
from source_cases import cut
from test_design_refusals import DATA_ERRORS, MODEL_ERRORS

import crosslmm as clm
from crosslmm.sources import model_rows


@pytest.fixture
def data():
    return small_frame()


@pytest.fixture
def stretches(monkeypatch):
    """Every frame is large."""
    monkeypatch.setattr(model_rows, "MANY_ROWS", 10)
    monkeypatch.setattr("crosslmm.sources.stream.MOST_ROWS", 17)


def without_counts(says):
    """A message whose counts and values are those of a batch."""
    for text in ("but 60", r"in \d+ rows", "in 60 rows"):
        says = says.replace(text, text.replace("60", r"\d+").replace("but ", r"but "))
    return says


@pytest.mark.parametrize(
    ("formula", "change", "options", "says"),
    [case for case in DATA_ERRORS if not any(isinstance(v, (np.ndarray, pd.Series, list)) for v in case[2].values())],
)
def test_the_data_errors_of_tables_in_memory(data, formula, change, options, says):
    source = cut(data.assign(**change), 13)
    with pytest.raises(clm.DataError, match=without_counts(says)), np.errstate(all="ignore"):
        clm.accumulate(formula, source, **options)


@pytest.mark.parametrize(("formula", "change", "options", "says"), DATA_ERRORS)
def test_the_data_errors_of_large_tables(data, stretches, formula, change, options, says):
    with pytest.raises(clm.DataError, match=without_counts(says)), np.errstate(all="ignore"):
        clm.accumulate(formula, data.assign(**change), **options)


@pytest.mark.parametrize(("formula", "change", "says"), MODEL_ERRORS)
def test_the_model_errors_of_tables_in_memory(data, formula, change, says):
    with pytest.raises(clm.ModelError, match=says):
        clm.accumulate(formula, cut(data.assign(**change), 13))


# --- what needs all rows -------------------------------------------------------------------------

ALL_ROWS = [
    ("y ~ poly(x, 2) + (1|g)", r"'poly\(x, 2\)' needs all rows at once \(its polynomials"),
    ("y ~ bs(x, df=4) + (1|g)", r"'bs\(x, df=4\)' needs all rows"),
    ("y ~ cs(x, df=4) + (1|g)", r"'cs\(x, df=4\)' needs all rows"),
    ("y ~ cr(x, df=4) + (1|g)", r"'cr\(x, df=4\)' needs all rows"),
    ("y ~ cc(x, df=4) + (1|g)", r"'cc\(x, df=4\)' needs all rows"),
    ("y ~ 1 + (scale(x, ddof=0)|g)", r"'scale\(x, ddof=0\)' needs all rows"),
    ("y ~ scale(center(x)) + (1|g)", r"'scale\(center\(x\)\)' needs all rows"),
    ("y ~ scale(x - x.mean()) + (1|g)", r"'scale\(x - x.mean\(\)\)' says something else"),
    ("y ~ scale(`x`) + (1|g)", r"'scale\(`x`\)' needs all rows"),
    ("y ~ np.exp(lag(x)) + (1|g)", r"'np.exp\(lag\(x\)\)' needs all rows"),
    ("y ~ hashed(g, levels=3) + (1|h)", r"'hashed\(g, levels=3\)' needs all rows"),
    ("y ~ I(x - x.mean()) + (1|g)", r"'I\(x - x.mean\(\)\)' says something else of a row when other rows"),
    ("y ~ x.rank() + (1|g)", r"'x.rank\(\)' says something else"),
    ("y ~ I(x.shift(1).fillna(0)) + (1|g)", r"says something else"),
    ("y ~ x.cumsum() + (1|g)", r"says something else"),
    ("y ~ np.maximum(x, np.median(x)) + (1|g)", r"says something else"),
    ("y ~ I(x - x.min()) + (1|g)", r"says something else"),
    ("I(y - np.mean(y)) ~ x + (1|g)", r"'I\(y - np.mean\(y\)\)' says something else"),
    ("y ~ C(np.sign(x)) + (1|g)", r"'C\(np.sign\(x\)\)' makes categories of values that are computed"),
    ("y ~ f.str.upper() + (1|g)", r"makes categories of values that are computed"),
    ("y ~ h + C(h) + (1|g)", r"'h' is used as a number and as categories"),
]


@pytest.mark.parametrize(("formula", "says"), ALL_ROWS)
def test_formulas_that_need_all_rows(data, formula, says):
    with pytest.raises(clm.DataError, match=says):
        clm.accumulate(formula, cut(data.assign(f=data.f.astype(str)), 13))


@pytest.mark.filterwarnings("ignore::crosslmm.RankDeficiencyWarning")
@pytest.mark.parametrize("formula", ["y ~ poly(x, 2) + (1|g)", "y ~ x.rank() + (1|g)", "y ~ h + C(h) + (1|g)"])
def test_large_tables_are_then_read_at_once(data, stretches, formula):
    model = clm.MixedLM.from_formula(formula, data)
    assert not model.design.streamed
    assert model.design.X.shape[0] == N


def test_what_other_rows_change_in_one_batch_only(data):
    """The rows looked at first show nothing; the batch does."""
    data = pd.concat([data] * 100, ignore_index=True)
    odd = {"odd": lambda x: x + 1.0 * (x == 99.0).any()}
    clm.accumulate("y ~ odd(x) + (1|g)", cut(data, 3000), context=odd)
    data.loc[4001, "x"] = 99.0
    with pytest.raises(clm.DataError, match=r"batch 1: 'odd\(x\)' says something else"):
        clm.accumulate("y ~ odd(x) + (1|g)", cut(data, 3000), context=odd)


def test_a_function_of_the_context_hides_that_of_the_language(data):
    context = {"scale": lambda x: x / 10.0}
    xp = clm.accumulate("y ~ scale(x) + (1|g)", cut(data, 13), context=context)
    assert xp.layout.fixed == ("Intercept", "scale(x)")


# --- batches that do not fit together ------------------------------------------------------------


def with_one(parts, i, **change):
    parts[i] = parts[i].assign(**change)
    return parts


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x": "text"}, "the column 'x' holds numbers in batch 0, but text in batch 2"),
        ({"x": True}, "the column 'x' holds numbers in batch 0, but truth values in batch 2"),
        ({"h": "seven"}, "the column 'h' holds numbers in batch 0, but text in batch 2"),
        ({"g": 5}, "the column 'g' holds text in batch 0, but numbers in batch 2"),
        ({"x": pd.Timestamp("2020")}, "batch 2: column 'x' holds dates"),
        ({"f": 3.0}, "the column 'f' holds categories in batch 0, but numbers in batch 2"),
        ({"x": np.inf}, "batch 2: the fixed part has .* 'x' in 13 rows"),
        ({"w": -1.0}, "batch 2: weights must be finite and greater than 0, but 13 are not"),
    ],
)
def test_a_batch_that_differs(data, change, says):
    with pytest.raises(clm.DataError, match=says):
        clm.accumulate("y ~ x + f + (1|g) + (1|h)", with_one(cut(data, 13), 2, **change), weights="w")


def test_a_batch_that_lacks_a_column(data):
    parts = cut(data, 13)
    parts[3] = parts[3].rename(columns={"x": "X"})
    with pytest.raises(clm.DataError, match=r"batch 3: the data have no column 'x'; did you mean 'X'\?"):
        clm.accumulate("y ~ x + (1|g)", parts)


def test_values_missing_in_one_batch_when_they_must_not_be(data):
    with pytest.raises(clm.DataError, match=r"batch 1: values are missing in columns \(rows\): 'x' \(13\)"):
        clm.accumulate("y ~ x + (1|g)", with_one(cut(data, 13), 1, x=np.nan), missing="raise")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ([], "the list of tables or files is empty"),
        ([1, 2], "not builtins.int"),
        (["/no/such/file.parquet"], "no file or directory '/no/such/file.parquet'"),
        ("/no/such/file.parquet", "no file or directory"),
        ("ratings.csv", r"only Parquet files .* lambda: pandas.read_csv\('ratings.csv', chunksize=100_000\)"),
        (iter([]), "pass a function that returns a new one each time"),
        ((part for part in [small_frame()]), "an iterator or generator can be read once only"),
        (lambda: iter([]), "the source has no batches"),
        (lambda: None, "the source cannot be read: TypeError"),
        (lambda: iter([3]), "not builtins.int"),
        (lambda: iter([small_frame(), None]), "batch 1: data must be .* not builtins.NoneType"),
        ([small_frame().iloc[:0]], "the data have no rows|every row misses"),
        (object(), "not builtins.object"),
    ],
    ids=str,
)
def test_sources_that_are_refused(source, says):
    with pytest.raises(clm.DataError, match=says):
        clm.accumulate("y ~ x + (1|g)", source)


def test_a_callable_that_fails_on_the_way(data):
    def batches():
        yield from cut(data, 13)[:2]
        raise OSError("the disk is gone")

    with pytest.raises(clm.DataError, match="batch 2 cannot be read: OSError: the disk is gone"):
        clm.accumulate("y ~ x + (1|g)", batches)


@pytest.mark.parametrize("change", [{"g": "new"}, {"h": 99}, {"f": None}])
def test_a_source_that_changes_between_the_passes(data, change):
    calls = []

    def batches():
        calls.append(None)
        return iter(with_one(cut(data, 13), 1, **(change if len(calls) == 3 else {})))

    with pytest.raises(clm.DataError, match=r"was not there in the first pass|rows must be the same each time"):
        clm.accumulate("y ~ x + f + (1|g) + (1|h)", batches)


@pytest.mark.parametrize("what", ["weights", "offset"])
def test_arrays_beside_batches(data, what):
    with pytest.raises(clm.DataError, match=f"{what} must be the name of a column when rows come in batches"):
        clm.accumulate("y ~ x + (1|g)", cut(data, 13), **{what: np.ones(N)})


@pytest.mark.parametrize("xp", [None, 3, "y ~ x"])
def test_what_is_no_cross_products(xp):
    with pytest.raises(clm.ModelError, match=r"crosslmm.accumulate\(formula, source\)"):
        clm.MixedLM.from_crossproducts(xp)


def test_dask_frames_without_a_column(data):
    frames = pytest.importorskip("dask.dataframe")
    with pytest.raises(clm.DataError, match="no column 'X2'"):
        clm.accumulate("y ~ X2 + (1|g)", frames.from_pandas(data, npartitions=2))


def test_a_dask_graph_that_fails(data):
    dask, frames = pytest.importorskip("dask"), pytest.importorskip("dask.dataframe")

    def broken(part):
        if len(part) and part.h.iloc[0] >= 0:
            raise OSError("the disk is gone")
        return part

    source = frames.from_pandas(data, npartitions=3).map_partitions(broken, meta=data.iloc[:0])
    with dask.config.set(scheduler="threads"), pytest.raises(clm.DataError, match="OSError: the disk is gone"):
        clm.accumulate("y ~ x + (1|g)", source)


# --- files ---------------------------------------------------------------------------------------


@pytest.fixture
def files(data, tmp_path):
    pytest.importorskip("pyarrow")
    for i, part in enumerate(cut(data, 20)):
        part.to_parquet(tmp_path / f"{i}.parquet", row_group_size=6)
    return tmp_path


def test_a_file_that_is_none(files):
    (files / "1.parquet").write_bytes(b"no table")
    with pytest.raises(clm.DataError, match=r"1.parquet cannot be read: ArrowInvalid"):
        clm.accumulate("y ~ x + (1|g)", files)


def test_a_file_that_is_broken_inside(files):
    content = bytearray((files / "2.parquet").read_bytes())
    middle = len(content) // 4
    content[middle : middle + 200] = b"\0" * 200
    (files / "2.parquet").write_bytes(bytes(content))
    with pytest.raises(clm.DataError, match=r"2.parquet"):
        clm.accumulate("y ~ x + f + (1|g) + (1|h)", files)


def test_a_file_without_a_column(files, data):
    data.drop(columns="x").to_parquet(files / "1.parquet")
    with pytest.raises(clm.DataError, match=r"1.parquet: the data have no column 'x'"):
        clm.accumulate("y ~ x + (1|g)", files)


def test_a_file_with_another_type(files, data):
    data.assign(h="a").to_parquet(files / "1.parquet")
    with pytest.raises(clm.DataError, match=r"'h' holds numbers in .*0.parquet, row group 0, but text in .*1.parquet"):
        clm.accumulate("y ~ x + (1|h)", files)


def test_an_infinite_value_is_found_in_its_row_group(files, data):
    data.assign(x=np.where(np.arange(N) == 20, np.inf, data.x)).to_parquet(files / "1.parquet", row_group_size=10)
    with pytest.raises(clm.DataError, match=r"1.parquet, row group 2"):
        clm.accumulate("y ~ x + (1|g)", files)


def test_a_directory_without_files(tmp_path):
    pytest.importorskip("pyarrow")
    with pytest.raises(clm.DataError, match="holds no file that ends in"):
        clm.accumulate("y ~ x + (1|g)", tmp_path)


def test_fitted_values_that_cannot_be_written(data, tmp_path):
    pytest.importorskip("pyarrow")
    fit = clm.lmer("y ~ x + (1|g)", cut(data, 13))
    with pytest.raises(clm.DataError, match="cannot be written"):
        fit.write_fitted(tmp_path / "no" / "such.parquet")
    bare = clm.MixedLM.from_crossproducts(fit.model.crossproducts).fit()
    (tmp_path / "old.parquet").write_text("kept")
    with pytest.raises(clm.ModelError, match="has no rows"):
        bare.write_fitted(tmp_path / "old.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["old.parquet"]
    assert (tmp_path / "old.parquet").read_text() == "kept"
