import pickle

import numpy as np
import pandas as pd
import pytest
from design_frames import N, design_of, small_frame

from crosslmm.design import accumulate, build_design
from crosslmm.design.qr import independent_columns, triangular_factor
from crosslmm.errors import DataError, ModelError, RankDeficiencyWarning
from crosslmm.formula import parse


@pytest.fixture
def data():
    return small_frame()


def dense_z(design, f):
    """Z of one factor in standardised coordinates, columns of a level side by side."""
    Z = design.Z[f] @ design.layout.standardization.z_bases[f]
    n, k = Z.shape
    dense = np.zeros((n, design.layout.factors[f].n_levels, k))
    dense[np.arange(n), design.codes[f]] = Z
    return dense


# ---- cross-products


@pytest.mark.parametrize("weights", [None, "w"])
def test_cross_products_equal_dense_products(data, weights):
    design = design_of("y ~ x * f + (x | g) + (f || h) + (1 | g:h)", data, weights=weights, offset="x")
    sums = accumulate(design)
    s = design.layout.standardization
    w = np.ones(N) if weights is None else design.weights
    XY = np.column_stack([design.X @ s.x_basis, (design.y - design.offset - design.X @ s.origin) / s.scale])
    Z = [dense_z(design, f) for f in range(len(design.Z))]
    np.testing.assert_allclose(sums.fixed, XY.T * w @ XY, atol=1e-11)
    assert sums.sum_log_weights == pytest.approx(np.log(w).sum())
    for f, Zf in enumerate(Z):
        np.testing.assert_allclose(sums.diagonal[f], np.einsum("nla,nlb,n->abl", Zf, Zf, w), atol=1e-11)
        np.testing.assert_allclose(sums.border[f], np.einsum("nla,nj,n->alj", Zf, XY, w), atol=1e-11)
    for f, g, block in sums.pairs:
        expected = np.einsum("nia,njb,n->abij", Z[f], Z[g], w)
        dense = np.zeros_like(expected)
        dense[:, :, block.rows(), block.indices] = block.values
        np.testing.assert_allclose(dense, expected, atol=1e-11)


def test_sums_over_slices_add_up(data):
    design = design_of("y ~ x + (x | g) + (1 | h)", data, weights="w")
    whole = accumulate(design)
    parts = accumulate(design, slice(0, 7)) + accumulate(design, slice(7, 7)) + accumulate(design, slice(7, None))
    assert parts.n == whole.n == N
    assert parts.sum_log_weights == pytest.approx(whole.sum_log_weights)
    np.testing.assert_allclose(parts.fixed, whole.fixed, atol=1e-12)
    for a, b in zip(parts.diagonal + parts.border, whole.diagonal + whole.border, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    for (_, _, a), (_, _, b) in zip(parts.pairs, whole.pairs, strict=True):
        np.testing.assert_array_equal(a.indptr, b.indptr)
        np.testing.assert_array_equal(a.indices, b.indices)
        np.testing.assert_allclose(a.values, b.values, atol=1e-12)


# ---- standardisation


def test_standardised_columns_are_orthogonal_with_mean_square_one(data):
    design = design_of("y ~ x * f + (x + w | g) + (0 + x || h)", data)
    s = design.layout.standardization
    X = design.X @ s.x_basis
    np.testing.assert_allclose(X.T @ X / N, np.eye(X.shape[1]), atol=1e-12)
    Z = design.Z[0] @ s.z_bases[0]
    np.testing.assert_allclose(Z.T @ Z / N, np.eye(3), atol=1e-12)
    y = (design.y - design.X @ s.origin) / s.scale
    np.testing.assert_allclose(X.T @ y, 0.0, atol=1e-11)
    assert y @ y / N == pytest.approx(1.0)
    assert np.all(np.tril(s.x_basis, -1) == 0.0)


def test_shifted_and_scaled_data_give_the_same_cross_products(data):
    formula = parse("y ~ x + (x | g)")
    plain = accumulate(build_design(formula, data))
    moved = accumulate(build_design(formula, data.assign(y=data.y + 1e6, x=1e6 + data.x)))
    scaled = accumulate(build_design(formula, data.assign(y=1e6 * data.y, x=1e-6 * data.x)))
    for other, tolerance in ((moved, 1e-7), (scaled, 1e-12)):
        np.testing.assert_allclose(other.fixed, plain.fixed, atol=tolerance)
        np.testing.assert_allclose(other.diagonal[0], plain.diagonal[0], atol=tolerance)
        np.testing.assert_allclose(other.border[0], plain.border[0], atol=tolerance)


def test_zero_random_column_is_refused(data):
    with pytest.raises(ModelError, match=r"'none' of the random-effects term .* is 0 in every row"):
        design_of("y ~ x + (1 + x + none | g)", data.assign(none=0.0))


@pytest.mark.parametrize("n", [10, 1500, 9001])
def test_triangular_factor_by_blocks(n):
    A = np.random.default_rng(1).normal(size=(n, 4))
    R = triangular_factor(A)
    assert R.shape == (4, 4)
    np.testing.assert_allclose(R.T @ R, A.T @ A, rtol=1e-12, atol=1e-10)


def test_independent_columns_keep_the_earlier_ones():
    a, b = np.random.default_rng(2).normal(size=(2, 30))
    A = np.column_stack([a, 0 * a, 2 * a, b, a - b + 1e-10 * a**2, a + 1e-5 * b**2])
    np.testing.assert_array_equal(independent_columns(triangular_factor(A)), [0, 3, 5])


def test_terms_without_a_common_column_may_divide_the_rows_alike(data):
    layout = design_of("y ~ (1 | g) + (0 + x | q)", data.assign(q="level " + data.g)).layout
    assert [factor.name for factor in layout.factors] == ["g", "q"]


def test_factors_of_equally_many_levels_are_two(data):
    q = [*data.g[:-1], "a" if data.g.iloc[-1] != "a" else "b"]
    assert len(design_of("y ~ (1 | g) + (1 | q)", data.assign(q=q)).layout.factors) == 2


# ---- numbers


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "int64", "float16", "float32", "UInt8", "Int64"])
def test_numbers_of_any_dtype_are_used_in_double_precision(data, dtype):
    formula = parse("y ~ a*b + I(a**2) + x/a + a:a + (1 + a:b | g)")
    rng = np.random.default_rng(3)
    high = 2**40 if dtype in ("int64", "Int64") else 120
    numbers = data.assign(a=rng.integers(1, high, N), b=rng.integers(1, high, N), y=rng.integers(-9, 9, N) + 100)
    small = numbers.astype({"a": dtype, "b": dtype, "y": dtype})
    expected = build_design(formula, numbers.astype({"a": float, "b": float, "y": float}), offset=np.full(N, 300.0))
    design = build_design(formula, small, offset=np.full(N, 300))
    np.testing.assert_array_equal(design.X, expected.X)
    np.testing.assert_array_equal(design.Z[0], expected.Z[0])
    np.testing.assert_array_equal(design.y, expected.y)


def test_response_computed_from_small_integers(data):
    design = design_of("I(h * 100) ~ x + (1 | g)", data.assign(h=data.h.astype("int8")))
    np.testing.assert_array_equal(design.y, 100.0 * data.h)


def test_small_integers_of_polars():
    polars = pytest.importorskip("polars")
    a, g = np.arange(24) % 8 * 30, np.arange(24) % 3
    table = polars.DataFrame({"y": np.arange(24.0) ** 0.5, "a": a, "g": g}, schema_overrides={"a": polars.UInt8})
    np.testing.assert_array_equal(design_of("y ~ I(a**2) + (1 | g)", table).X[:, 1], a**2)


def test_integers_as_categories_keep_their_labels(data):
    data = data.assign(h=data.h.astype("int8"))
    assert design_of("y ~ C(h) + (1 | g)", data).fixed_names == ("Intercept", "C(h)[T.2]", "C(h)[T.3]")
    design = design_of("y ~ h + (1 | h)", data)
    assert list(design.layout.factors[0].levels) == [1, 2, 3] and design.X.dtype == np.float64


@pytest.mark.parametrize("what", ["weights", "offset"])
@pytest.mark.parametrize(
    "values",
    [
        pd.date_range("2020", periods=N),
        pd.Series(pd.date_range("2020", periods=N)),
        pd.to_timedelta(np.arange(N), "D"),
        ["1", "2"] * 30,
        pd.Series(["1", "2"] * 30),
        pd.Categorical([10, 20] * 30),
        np.ones(N, bool),
        pd.array([True] * N, dtype="boolean"),
        [True] * N,
        [None, True] * 30,
        np.ones(N) + 1j,
        [1.0, "a"] * 30,
        (i for i in range(N)),
    ],
    ids=lambda values: type(values).__name__,
)
def test_weights_and_offset_are_plain_numbers(data, what, values):
    with pytest.raises(DataError, match=f"{what} must be numbers"):
        design_of("y ~ x + (1 | g)", data, **{what: values})
    if not hasattr(values, "__next__"):
        with pytest.raises(DataError, match=f"{what} must be numbers"):
            design_of("y ~ x + (1 | g)", data.assign(q=values), **{what: "q"})


def test_masked_weights_are_missing(data):
    weights = np.ma.array(np.full(N, 2.0), mask=np.arange(N) < 7)
    design = design_of("y ~ x + (1 | g)", data, weights=weights)
    assert design.n_dropped == 7
    assert weights.data[0] == 2.0
    assert design_of("y ~ x + (1 | g)", data, weights=[None, 2] * 30).n == 30


@pytest.mark.parametrize("shift", [1e10, 1e11, 1e12])
def test_a_response_far_from_zero(data, shift):
    formula = parse("y ~ x + (1 | g)")
    scale = build_design(formula, data).layout.standardization.scale
    moved = build_design(formula, data.assign(y=data.y + shift)).layout.standardization.scale
    assert moved == pytest.approx(scale, rel=1e-15 * shift)
    moved = build_design(parse("y ~ 0 + f + x + (1 | g)"), data.assign(y=data.y + shift))
    assert moved.layout.standardization.scale == pytest.approx(scale, rel=0.1)


# ---- fixed effects


def test_covariates_far_from_zero_are_kept(data):
    for formula in ("y ~ x + (1 | g)", "y ~ 1 + (x | g)"):
        near, far = design_of(formula, data), design_of(formula, data.assign(x=data.x + 1e9))
        assert far.fixed_names == near.fixed_names and far.dropped_names == ()
        np.testing.assert_allclose(accumulate(far).border[0], accumulate(near).border[0], atol=1e-5)


def test_covariates_that_hardly_vary(data):
    with pytest.warns(RankDeficiencyWarning, match="'x': hardly varies .* subtract its mean"):
        design_of("y ~ x + (1 | g)", data.assign(x=data.x + 1e13))
    with pytest.warns(RankDeficiencyWarning, match="earlier ones: 'twice'$"):
        design_of("y ~ x + twice + (1 | g)", data.assign(x=data.x + 1e9, twice=2 * (data.x + 1e9)))
    with pytest.warns(RankDeficiencyWarning, match="earlier ones: 'x'$"):
        design_of("y ~ x + (1 | g)", data.assign(x=0.1))


def test_a_factor_of_one_level_is_named(data):
    with pytest.warns(RankDeficiencyWarning, match="'f', 'f:x' of the fixed part"):
        design = design_of("y ~ f*x + (1 | g)", data.assign(f="a"))
    assert design.fixed_names == ("Intercept", "x") and design.dropped_names == ("f", "f:x")


def test_redundant_fixed_columns_are_dropped_and_named(data):
    with pytest.warns(RankDeficiencyWarning, match="'twice'"):
        design = design_of("y ~ x + twice + f + (1 | g)", data.assign(twice=2 * data.x))
    assert design.fixed_names == ("Intercept", "x", "f[T.p]") and design.X.shape == (N, 3)
    assert design.dropped_names == design.layout.dropped == ("twice",)
    remade = design.fixed_spec.get_model_matrix(data.assign(twice=2 * data.x, f=data.f.astype(str)))
    np.testing.assert_array_equal(remade[:, design.fixed_kept], design.X)


def test_no_fixed_effects(data):
    design = design_of("y ~ 0 + (1 | g)", data)
    assert design.X.shape == (N, 0)
    assert design.layout.standardization.scale == pytest.approx(np.sqrt(np.mean(data.y**2)))
    assert accumulate(design).fixed[0, 0] == pytest.approx(N)


def test_transformations_and_context(data):
    design = design_of(
        "np.exp(y) ~ scale(w) + bs(x, df=4) + square(`h`) + (1 | g)", data, context={"square": np.square}
    )
    np.testing.assert_allclose(design.y, np.exp(data.y))
    np.testing.assert_allclose(design.X[:, design.fixed_names.index("square(`h`)")], data.h**2)
    assert design.X.shape == (N, 7)


# ---- grouping


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        (["b", "a", "b", "c"], ["a", "b", "c"]),
        ([10, 2, 10, 1], [1, 2, 10]),
        ([2.0, 1.0, 2.0, 10.0], [1, 2, 10]),
        ([0.5, 1.5, 0.5, 2.0], [0.5, 1.5, 2.0]),
        ([True, False, True, True], [False, True]),
        ([2**60, -5, 2**60, 7], [-5, 7, 2**60]),
        (pd.Categorical(list("bacb"), categories=list("zcba")), ["c", "b", "a"]),
        (pd.array([3, 1, 3, 2], dtype="Int64"), [1, 2, 3]),
        (pd.array(["b", "a", "b", "b"], dtype="string"), ["a", "b"]),
        (pd.array([True, False, True, True], dtype="boolean"), [False, True]),
        (pd.Series([1, 10, 2, 2], dtype=object), [1, 2, 10]),
        (pd.to_datetime(["2020-02-01", "2020-01-01"] * 2), [pd.Timestamp("2020-01-01"), pd.Timestamp("2020-02-01")]),
        (pd.Series(["a", 1, "a", 1], dtype=object), [1, "a"]),
    ],
)
def test_levels_of_any_dtype(values, levels):
    values = pd.Series(values).repeat(3).reset_index(drop=True)
    design = design_of("y ~ 1 + (1 | g)", pd.DataFrame({"y": np.arange(12.0), "g": values}))
    assert list(design.layout.factors[0].levels) == levels
    assert design.codes[0].dtype == np.int32
    assert [levels[code] for code in design.codes[0]] == list(values)


def test_interactions_keep_the_combinations_that_occur():
    frame = pd.DataFrame({"y": np.arange(8.0), "a": list("qqppqqpp"), "b": [10, 2] * 4, "c": list("xxxxyyxx")})
    design = design_of("y ~ 1 + (1 | a/b/c)", frame)
    names = {factor.name: list(factor.levels) for factor in design.layout.factors}
    assert list(names) == ["c:(b:a)", "b:a", "a"]
    assert names["c:(b:a)"] == ["x:2:p", "x:2:q", "x:10:p", "x:10:q", "y:2:q", "y:10:q"]
    assert names["b:a"] == ["2:p", "2:q", "10:p", "10:q"]
    labels = design.layout.factors[0].levels[design.codes[0]]
    assert list(labels) == [f"{c}:{b}:{a}" for a, b, c in zip(frame.a, frame.b, frame.c, strict=True)]


# ---- order of terms (lme4)


@pytest.mark.parametrize(
    ("formula", "groups"),
    [
        ("y ~ (1 | g) + (1 | h)", ["g", "h"]),
        ("y ~ (1 | h) + (1 | g)", ["g", "h"]),
        ("y ~ (x || g)", ["g", "g.1"]),
        ("y ~ (1 | h/f)", ["f:h", "h"]),
        ("y ~ (1 | h) + (x || g)", ["g", "g.1", "h"]),
    ],
)
def test_term_order_and_groups(data, formula, groups):
    assert [term.group for term in design_of(formula, data).layout.terms] == groups


def test_ties_are_reversed_when_terms_are_sorted(data):
    layout = design_of("y ~ x + (1 | h) + (x || g)", data).layout
    assert [term.label for term in layout.terms] == ["(0 + x | g)", "(1 | g)", "(1 | h)"]
    assert layout.theta_names == ("g.x", "g.1.Intercept", "h.Intercept")
    assert layout.factors[0].columns == ("x", "Intercept")
    assert [term.columns for term in layout.terms] == [(0,), (1,), (0,)]


def test_categorical_variable_within_double_bars_keeps_a_block(data):
    layout = design_of("y ~ x + (x + f || g)", data).layout
    assert layout.factors[0].columns == ("Intercept", "x", "f[q]", "f[p]")
    assert [term.covariance.n_theta for term in layout.terms] == [1, 1, 3]


# ---- tables of other kinds


def test_tables_of_any_kind_agree(data):
    polars, pyarrow = pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    data = data.assign(k=data.h.astype("Int64"))
    data.loc[3, "k"] = pd.NA
    data.loc[4, "g"] = None
    formula = parse("y ~ x + f + k + (f | g) + (1 | k)")
    expected = build_design(formula, data)
    enum = polars.from_pandas(data.assign(f=data.f.astype(str), g=data.g.astype("category")))
    enum = enum.with_columns(polars.col("f").cast(polars.Enum(["q", "none", "p"])))
    for table in (enum, pyarrow.Table.from_pandas(data), {name: data[name].array for name in data}):
        design = build_design(formula, table)
        assert design.n_dropped == expected.n_dropped == 2
        np.testing.assert_array_equal(design.X, expected.X)
        assert design.fixed_names == expected.fixed_names
        for f, factor in enumerate(expected.layout.factors):
            assert list(design.layout.factors[f].levels) == list(factor.levels)
            np.testing.assert_array_equal(design.codes[f], expected.codes[f])
            np.testing.assert_array_equal(design.Z[f], expected.Z[f])


def test_input_is_not_modified_and_rows_keep_their_labels(data):
    data = data.set_index(pd.Index([f"row{i}" for i in range(N)]))
    data.loc["row5", "x"] = np.nan
    before = data.copy(deep=True)
    design = design_of("y ~ x + f + (x | g)", data, weights="w")
    design.y[:] = design.X[:] = design.weights[:] = 0.0
    pd.testing.assert_frame_equal(data, before)
    assert list(design.row_labels) == [label for label in data.index if label != "row5"]


def test_design_can_be_pickled(data):
    design = design_of("y ~ poly(x, 2) + f + (x | g)", data)
    again = pickle.loads(pickle.dumps(design))
    data = data.assign(f=data.f.astype(str))
    np.testing.assert_allclose(again.fixed_spec.get_model_matrix(data), design.X)
    np.testing.assert_allclose(again.random_specs[0].get_model_matrix(data), design.Z[0])


# ---- missing values, weights, offset


def test_rows_with_missing_values_are_dropped(data):
    data.loc[[3, 4], "x"] = np.nan
    data.loc[5, "g"] = None
    weights = np.ones(N)
    weights[0] = np.nan
    data["unused"] = np.nan
    design = design_of("y ~ x + (1 | g)", data, weights=weights, offset=pd.Series(np.arange(N)))
    assert (design.n, design.n_dropped) == (N - 4, 4)
    assert design.offset[:3].tolist() == [1.0, 2.0, 6.0]
