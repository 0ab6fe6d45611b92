"""Rows that come in batches give what they give at once, however they come."""

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from source_cases import CASES, MIXED, SMALL, assert_same, close, cut, mixed_frame

import crosslmm as clm
from crosslmm.crossproducts import CrossProducts
from crosslmm.sources import model_rows

pytestmark = pytest.mark.filterwarnings("ignore::crosslmm.RankDeficiencyWarning")


def in_memory(name):
    case = CASES[name]
    return clm.accumulate(case.formula, case.data, **case.options)


def in_batches(name, source):
    case = CASES[name]
    return clm.accumulate(case.formula, source, **case.options)


# --- however they come ---------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 7, 100, 10_000])
@pytest.mark.parametrize("name", SMALL)
def test_batches_of_any_size(name, rows):
    case = CASES[name]
    assert_same(in_batches(name, cut(case.data, rows)), in_memory(name), case.tolerance)


def test_many_rows_and_pairs():
    assert_same(in_batches("insteval", cut(CASES["insteval"].data, 9_999)), in_memory("insteval"), 1e-11)


@pytest.mark.parametrize("name", SMALL)
def test_a_large_frame_is_read_in_stretches(name, monkeypatch):
    expected = in_memory(name)
    monkeypatch.setattr(model_rows, "MANY_ROWS", 10)
    monkeypatch.setattr("crosslmm.sources.stream.MOST_ROWS", 37)
    case = CASES[name]
    model = clm.MixedLM.from_formula(case.formula, case.data, **case.options)
    assert model.design.streamed
    assert_same(model.crossproducts, expected, case.tolerance)


@pytest.mark.parametrize("name", ["mixed", "nested", "sleepstudy"])
def test_the_order_of_rows_does_not_matter(name):
    case = CASES[name]
    shuffled = case.data.sample(frac=1.0, random_state=3)
    assert_same(in_batches(name, cut(shuffled, 50)), in_memory(name), 1e-11)


def test_rows_sorted_by_level():
    """Every level, and every category, in one batch only."""
    case = CASES["mixed"]
    for by in (["t", "g"], ["f", "h"], ["g", "k"]):
        assert_same(in_batches("mixed", cut(case.data.sort_values(by), 20)), in_memory("mixed"), 1e-11)


def test_empty_batches_and_batches_without_a_complete_row():
    case = CASES["mixed"]
    nothing = case.data.iloc[:0]
    lost = case.data.iloc[:4].assign(x=np.nan)
    source = [nothing, *cut(case.data, 90), nothing, lost]
    xp = in_batches("mixed", source)
    expected = clm.accumulate(case.formula, pd.concat([case.data, lost]), **case.options)
    assert xp.n_dropped == in_memory("mixed").n_dropped + 4
    assert_same(xp, expected, 1e-11)


def test_a_callable_is_called_for_every_pass():
    case, calls = CASES["mixed"], []

    def batches():
        calls.append(None)
        yield from cut(case.data, 64)

    assert_same(in_batches("mixed", batches), in_memory("mixed"), 1e-11)
    assert len(calls) == 3  # names of columns, levels, sums


@pytest.mark.parametrize("kind", ["dict", "polars", "pyarrow"])
def test_batches_of_other_tables(kind):
    case = CASES["sleepstudy"]
    if kind == "dict":
        parts = [dict(part.items()) for part in cut(case.data, 50)]
    elif kind == "polars":
        polars = pytest.importorskip("polars")
        parts = [polars.DataFrame(part.to_dict("list")) for part in cut(case.data.astype({"Subject": str}), 50)]
    else:
        pyarrow = pytest.importorskip("pyarrow")
        parts = [pyarrow.table(part.to_dict("list")) for part in cut(case.data.astype({"Subject": str}), 50)]
    close(in_batches("sleepstudy", parts).fixed, in_memory("sleepstudy").fixed, 1e-12)


def test_twice_is_the_same_to_the_last_bit():
    one, other = in_batches("mixed", cut(CASES["mixed"].data, 30)), in_batches("mixed", cut(CASES["mixed"].data, 30))
    assert one.layout.same(other.layout)
    np.testing.assert_array_equal(one.fixed, other.fixed)
    np.testing.assert_array_equal(one.border[0], other.border[0])


# --- Parquet -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_parquet_files(name, tmp_path):
    pytest.importorskip("pyarrow")
    case, expected = CASES[name], in_memory(name)
    whole = tmp_path / "whole.parquet"
    case.data.to_parquet(whole, row_group_size=13)
    assert_same(in_batches(name, whole), expected, case.tolerance)
    assert_same(in_batches(name, str(whole)), expected, case.tolerance)
    folder = tmp_path / "folder" / "deeper"
    folder.mkdir(parents=True)
    for i, part in enumerate(cut(case.data, 50)):
        part.to_parquet(folder / f"part-{i}.parquet", row_group_size=20)
    (folder / "notes.txt").write_text("not a table")
    assert_same(in_batches(name, folder.parent), expected, case.tolerance)
    files = sorted(folder.glob("*.parquet"), reverse=True)
    assert_same(in_batches(name, files), expected, max(case.tolerance, 1e-11))


def test_large_row_groups_are_cut(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    CASES["mixed"].data.to_parquet(tmp_path / "one.parquet")
    monkeypatch.setattr("crosslmm.sources.stream.MOST_ROWS", 37)
    assert_same(in_batches("mixed", tmp_path / "one.parquet"), in_memory("mixed"), 1e-11)


# --- dask ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_dask_threads(name):
    dask = pytest.importorskip("dask")
    frames = pytest.importorskip("dask.dataframe")
    case = CASES[name]
    with dask.config.set(scheduler="threads"):
        xp = in_batches(name, frames.from_pandas(case.data, npartitions=5, sort=False))
    assert_same(xp, in_memory(name), max(case.tolerance, 1e-11))


def test_dask_partitions_without_rows():
    dask = pytest.importorskip("dask")
    frames = pytest.importorskip("dask.dataframe")
    case = CASES["mixed"]
    data = case.data.reset_index(drop=True)
    source = frames.from_pandas(data, npartitions=6).map_partitions(lambda part: part[part.index < 120])
    with dask.config.set(scheduler="threads"):
        fit = clm.lmer(case.formula, source, **case.options)
        expected = clm.lmer(case.formula, data[:120], **case.options)
        assert_same(fit.model.crossproducts, expected.model.crossproducts, 1e-11)
        pd.testing.assert_series_equal(fit.fittedvalues, expected.fittedvalues, check_index_type=False)


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    local = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
    )
    with local, distributed.Client(local) as client:
        yield client


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_dask_cluster_of_processes(name, cluster):
    frames = pytest.importorskip("dask.dataframe")
    case = CASES[name]
    xp = in_batches(name, frames.from_pandas(case.data, npartitions=7, sort=False))
    assert_same(xp, in_memory(name), max(case.tolerance, 1e-11))


@pytest.mark.slow
def test_errors_come_back_from_the_workers(cluster):
    frames = pytest.importorskip("dask.dataframe")
    data = CASES["sleepstudy"].data.copy()
    data.loc[170, "Days"] = np.inf
    with pytest.raises(clm.DataError, match=r"partition 4: the fixed part has .* 'Days' in 1 row[.]"):
        clm.accumulate("Reaction ~ Days + (1 | Subject)", frames.from_pandas(data, npartitions=5, sort=False))


# --- levels and categories -----------------------------------------------------------------------


def fitted_levels(parts, formula="y ~ x + f + (1 | g)"):
    layout = clm.accumulate(formula, parts).layout
    return layout.fixed, list(layout.factors[0].levels)


@pytest.mark.parametrize(
    "kinds",
    [
        {"f": "category"},
        {"f": str},
        {"f": "category", "g": "category"},
        {"g": "Int64"},
        {"g": float},
        {"g": "uint64"},
        {"g": str},
        {"g": "datetime64[s]"},
    ],
    ids=str,
)
def test_kinds_of_levels(kinds):
    """The same levels, in the same order and of the same type, as from all rows at once."""
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"f": rng.choice(list("cab"), 90), "g": rng.integers(0, 10, 90), "x": rng.normal(size=90)})
    data["y"] = data.x + rng.normal(size=90)
    data = data.astype(kinds)
    assert_same(
        clm.accumulate("y ~ x + f + (1 | g)", cut(data, 17)), clm.accumulate("y ~ x + f + (1 | g)", data), 1e-11
    )


def test_categories_keep_their_order_where_all_batches_agree():
    data = mixed_frame().dropna()
    ordered = data.assign(g=pd.Categorical(data.g, categories=sorted(set(data.g), reverse=True)))
    fixed, levels = fitted_levels(cut(ordered, 40))
    assert levels == sorted(set(data.g), reverse=True)
    assert fixed == ("Intercept", "x", "f[T.p]", "f[T.q]")  # r comes first among its categories, "none" is not used


def test_categories_are_sorted_where_batches_differ():
    """What pandas.concat makes of them."""
    data = mixed_frame().dropna()
    parts = [part.assign(f=part.f.astype(str).astype("category"), g=part.g.astype("category")) for part in cut(data, 9)]
    fixed, levels = fitted_levels(parts)
    expected = clm.MixedLM.from_formula("y ~ x + f + (1 | g)", pd.concat(parts)).design.layout
    assert (fixed, levels) == (expected.fixed, list(expected.factors[0].levels))
    assert fixed == ("Intercept", "x", "f[T.q]", "f[T.r]")


def test_text_in_some_batches_and_categories_in_others():
    data = mixed_frame().dropna()
    parts = [part.astype({"g": "category" if i % 2 else str}) for i, part in enumerate(cut(data, 30))]
    assert fitted_levels(parts)[1] == sorted(set(data.g))


def test_integers_that_are_missing_in_one_batch():
    """pandas holds them as floats there."""
    data = mixed_frame().dropna()
    parts = cut(data, 50)
    parts[1] = parts[1].assign(h=parts[1].h.astype(float).where(parts[1].index % 5 > 0))
    xp = clm.accumulate("y ~ x + (1 | h)", parts)
    assert_same(xp, clm.accumulate("y ~ x + (1 | h)", pd.concat(parts)), 1e-11)
    assert {type(level) for level in xp.layout.factors[0].levels} == {int}


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32"])
def test_small_integers(dtype):
    """Whose range is beyond the type."""
    low, high = (-100, 120) if dtype.startswith("i") else (5, 250)
    rng = np.random.default_rng(6)
    data = pd.DataFrame({"g": rng.integers(low, high, 900).astype(dtype), "x": rng.normal(size=900)})
    data["y"] = data.x + rng.normal(size=900)
    assert_same(clm.accumulate("y ~ x + (1 | g)", cut(data, 400)), clm.accumulate("y ~ x + (1 | g)", data), 1e-11)


def test_integers_far_apart():
    data = mixed_frame().dropna()
    data["far"] = data.h.to_numpy() * 10**15
    assert_same(clm.accumulate("y ~ x + (1 | far)", cut(data, 50)), clm.accumulate("y ~ x + (1 | far)", data), 1e-11)


# --- fits, fitted values, what is kept -----------------------------------------------------------


@pytest.mark.parametrize("name", ["sleepstudy", "penicillin", "mixed", "far"])
def test_fits_and_fitted_values(name):
    case = CASES[name]
    at_once = clm.lmer(case.formula, case.data, **case.options)
    fit = clm.lmer(case.formula, cut(case.data.reset_index(drop=True), 33), **case.options)
    np.testing.assert_allclose(fit.theta, at_once.theta, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(fit.fe_params, at_once.fe_params, rtol=1e-8)
    pd.testing.assert_series_equal(fit.fittedvalues, at_once.fittedvalues, rtol=1e-9, check_index_type=False)
    np.testing.assert_allclose(fit.resid, at_once.resid, atol=1e-6)
    batches = list(fit.fitted_batches())
    assert len(batches) == -(-len(case.data) // 33)
    whole = pd.concat(batches)
    np.testing.assert_array_equal(whole["fitted"], fit.fittedvalues)
    np.testing.assert_array_equal(whole["resid"], fit.resid)
    assert fit.n_dropped == at_once.n_dropped
    assert "fit.fitted_batches()" in str(fit.summary()) and "Median" not in str(fit.summary())


def test_fitted_values_of_a_large_frame_keep_its_index(monkeypatch):
    case = CASES["mixed"]
    data = case.data.set_axis([f"row {i}" for i in range(len(case.data))])
    expected = clm.lmer(case.formula, data, **case.options).fittedvalues
    monkeypatch.setattr(model_rows, "MANY_ROWS", 10)
    monkeypatch.setattr("crosslmm.sources.stream.MOST_ROWS", 37)
    pd.testing.assert_series_equal(clm.lmer(case.formula, data, **case.options).fittedvalues, expected, rtol=1e-9)


def test_written_fitted_values(tmp_path):
    pytest.importorskip("pyarrow")
    case = CASES["mixed"]
    fit = clm.lmer(case.formula, cut(case.data, 33), **case.options)
    fit.write_fitted(tmp_path / "fitted.parquet")
    written = pd.read_parquet(tmp_path / "fitted.parquet")
    np.testing.assert_array_equal(written["fitted"], fit.fittedvalues)
    np.testing.assert_array_equal(written["resid"], fit.resid)
    np.testing.assert_array_equal(written["row"], fit.fittedvalues.index)
    assert [path.name for path in tmp_path.iterdir()] == ["fitted.parquet"]


def test_cross_products_without_rows():
    case = CASES["mixed"]
    xp = pickle.loads(pickle.dumps(clm.accumulate(case.formula, cut(case.data, 50), **case.options)))
    assert isinstance(xp, CrossProducts)
    model = clm.MixedLM.from_crossproducts(xp)
    fit, expected = model.fit(), clm.lmer(case.formula, case.data, **case.options)
    np.testing.assert_allclose(fit.theta, expected.theta, rtol=0, atol=1e-8)
    assert (fit.formula, fit.n_dropped, fit.nobs) == (MIXED, expected.n_dropped, expected.nobs)
    assert "prior weights" in str(fit) and "offset" in str(fit)
    for ask in (lambda: fit.fittedvalues, lambda: fit.resid, lambda: list(fit.fitted_batches())):
        with pytest.raises(clm.ModelError, match="has no rows"):
            ask()


def test_models_of_sources_can_be_pickled():
    model = clm.MixedLM.from_formula("Reaction ~ Days + (1 | Subject)", cut(CASES["sleepstudy"].data, 50))
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.fit().fittedvalues, model.fit().fittedvalues)


def test_arrays_of_weights_with_a_large_frame(monkeypatch):
    data = CASES["sleepstudy"].data
    weights = np.linspace(1.0, 2.0, len(data))
    weights[7] = np.nan
    expected = clm.accumulate("Reaction ~ Days + (1 | Subject)", data, weights=weights, offset=data["off"])
    monkeypatch.setattr(model_rows, "MANY_ROWS", 10)
    monkeypatch.setattr("crosslmm.sources.stream.MOST_ROWS", 50)
    before = list(data.columns)
    xp = clm.accumulate("Reaction ~ Days + (1 | Subject)", data, weights=weights, offset=data["off"])
    assert_same(xp, expected, 1e-11)
    assert list(data.columns) == before


# --- progress, interruption ----------------------------------------------------------------------


def test_progress_is_told():
    told = []
    case = CASES["sleepstudy"]
    fit = clm.lmer(case.formula, cut(case.data, 50), progress=lambda *args: told.append(args))
    phases = list(dict.fromkeys(phase for phase, _, _ in told))
    assert phases == ["learning levels", "summing"]
    assert [done for phase, done, _ in told if phase == "learning levels"] == [0, 50, 100, 150, 180]
    assert told[-1] == ("summing", 180, None)
    told.clear()
    list(fit.fitted_batches(progress=lambda *args: told.append(args)))
    assert told[-1] == ("predicting", 180, None)


def test_progress_knows_the_rows_of_files(tmp_path):
    pytest.importorskip("pyarrow")
    told = []
    case = CASES["sleepstudy"]
    case.data.to_parquet(tmp_path / "a.parquet", row_group_size=100)
    clm.accumulate(case.formula, tmp_path, progress=lambda *args: told.append(args))
    assert told[-1] == ("summing", 180, 180)


def test_an_interrupted_pass_leaves_nothing_behind():
    case, stop = CASES["mixed"], []

    def batches():
        for i, part in enumerate(cut(case.data, 60)):
            if stop and i == 2:
                raise KeyboardInterrupt
            yield part

    expected = in_batches("mixed", batches)
    stop.append(True)
    with pytest.raises(KeyboardInterrupt):
        in_batches("mixed", batches)
    stop.clear()
    np.testing.assert_array_equal(in_batches("mixed", batches).fixed, expected.fixed)


def test_warnings_name_dropped_columns():
    case = CASES["deficient"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clm.accumulate(case.formula, cut(case.data, 31))
    (warning,) = [w for w in caught if issubclass(w.category, clm.RankDeficiencyWarning)]
    assert "'twice'" in str(warning.message)
    assert warning.filename == __file__


# --- memory --------------------------------------------------------------------------------------

MANY = """
import resource, sys
import numpy as np, pandas as pd
import crosslmm as clm

def batch(i, n=250_000):
    rng = np.random.default_rng(i)
    a, b, x = rng.integers(0, 3000, n), rng.integers(0, 500, n), rng.normal(size=n)
    return pd.DataFrame({"a": a, "b": b, "x": x, "y": x + a / 3000 + b / 500 + rng.normal(size=n)})

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def run(batches):
    xp = clm.accumulate("y ~ x + (1 | a) + (1 | b)", lambda: map(batch, range(batches)))
    assert xp.n == 250_000 * batches

run(8)
before = peak()
run(48)
print(peak() - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_rows():
    """Twelve million rows of 384 MB need no more than two million did, but for what the allocator keeps."""
    run = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 100.0
