"""Data and models that are refused, each with a message that says what is wrong."""

import numpy as np
import pandas as pd
import pytest
from design_frames import N, design_of, small_frame

from crosslmm.errors import DataError, ModelError


@pytest.fixture
def data():
    return small_frame()


DATA_ERRORS = [
    ("y ~ X2 + (1|g)", {}, {}, "no column 'X2'"),
    ("y ~ x + (1|G)", {}, {}, "did you mean 'g'"),
    ("y ~ nosuch(x) + (1|g)", {}, {}, "calls 'nosuch'"),
    ("y ~ I(x @ 'a') + (1|g)", {}, {}, "cannot be evaluated"),
    ("f ~ x + (1|g)", {}, {}, "categorical"),
    ("y + x ~ 1 + (1|g)", {}, {}, "one numeric column"),
    ("y ~ x + (1|g)", {"y": 3.0}, {}, "is 3 in all 60 rows"),
    ("np.log(y) ~ x + (1|g)", {}, {}, r"not finite numbers: 'np.log\(y\)' in \d+ rows"),
    ("y ~ x + (1|g)", {"x": np.inf}, {}, "the fixed part .* 'x' in 60 rows"),
    ("y ~ 1 + (x|g)", {"x": np.inf}, {}, r"the random part '1 \+ x'"),
    ("y ~ x + (1|g)", {"x": np.nan}, {}, r"every row misses a value; .* 'x' \(60\)"),
    ("y ~ x + (1|g)", {"x": np.where(np.arange(N) < 2, np.nan, 1.0)}, {"missing": "raise"}, r"'x' \(2\)"),
    ("y ~ x + (1|g)", {}, {"missing": "ignore"}, "'drop' or 'raise'"),
    ("y ~ x + (1|g)", {}, {"weights": np.zeros(N)}, "greater than 0, but 60"),
    ("y ~ x + (1|g)", {}, {"weights": [1.0, 2.0]}, "one number for each of the 60 rows"),
    ("y ~ x + (1|g)", {}, {"weights": "g"}, "weights must be numbers"),
    ("y ~ x + (1|g)", {}, {"weights": "nosuch"}, "no column 'nosuch'"),
    ("y ~ x + (1|g)", {}, {"weights": pd.Series(np.ones(N), index=range(1, N + 1))}, "index of weights"),
    ("y ~ x + (1|g)", {}, {"offset": np.full(N, np.inf)}, "offset"),
    ("y ~ x + (1|q)", {"q": np.where(np.arange(N) < 9, np.inf, 1.0)}, {}, "'q' has infinite values"),
    ("y ~ x + (1|q)", {"q": [[1], [2]] * 30}, {}, r"'q' holds values that cannot be levels \(list\)"),
    ("y ~ x + (1|q)", {"q": [{1: 2}] * N}, {}, r"\(dict\)"),
    ("y ~ x + C(f, 5) + (1|g)", {}, {}, r"'C\(f, 5\)' cannot be evaluated"),
    ("y ~ x + (q(x)|g)", {}, {"context": {"q": lambda v: {}["a"]}}, r"'q\(x\)' cannot be evaluated"),
    ("y ~ x + (1|g)", {}, {"context": 5}, "context must be a dict"),
    ("y ~ x + offset(w) + (1|g)", {}, {}, "offset='...'"),
    ("y ~ x + factor(f) + (1|g)", {}, {}, r"write C\(...\)"),
    ("y ~ x + (1|g)", {"x": pd.date_range("2020", periods=N)}, {}, "'x' holds dates; convert it to numbers"),
    ("y ~ 1 + (x|g)", {"x": pd.date_range("2020", periods=N, tz="UTC")}, {}, "'x' holds dates"),
    ("y ~ x + (1|g)", {"x": pd.to_timedelta(np.arange(N), "D")}, {}, "'x' holds lengths of time"),
    ("y ~ x + (1|g)", {"x": pd.period_range("2020", periods=N)}, {}, "'x' holds periods"),
    ("y ~ x + (1|g)", {"x": np.arange(N) + 1j}, {}, "'x' holds complex numbers"),
    ("y ~ x + (1|g)", {"x": pd.Series([1, "a", 2.5] * 20)}, {}, "'x' holds numbers mixed with text"),
    ("x ~ y + (1|g)", {"x": pd.date_range("2020", periods=N)}, {}, "'x' holds dates"),
    ("q ~ x + (1|g)", {"q": [True, False] * 30}, {}, "boolean"),
    ("q ~ x + (1|g)", {"q": pd.array([True, None] + [False] * 58, dtype="boolean")}, {}, "boolean"),
    ("I(y > 0) ~ x + (1|g)", {}, {}, r"'I\(y > 0\)' is boolean"),
    ("y ~ x + (1|g)", {"y": lambda d: 1e200 * d.y}, {}, "'y', whose squares .* rescale 'y'"),
    ("y ~ x + (1|g)", {"x": lambda d: 1e-200 * d.x}, {}, "rescale 'x'"),
    ("y ~ 1 + (x|g)", {"x": lambda d: 1e-200 * d.x}, {}, "rescale 'x'"),
    ("y ~ x + (1|g)", {}, {"weights": np.full(N, 1e200)}, "weights run from 1e.200 .* rescale"),
    ("y ~ x + (1|g)", {}, {"offset": np.full(N, 1e-200)}, "rescale 'offset'"),
    ("y ~ Intercept + (1|g)", {"Intercept": lambda d: d.x}, {}, "two columns named 'Intercept'; rename"),
    ("y ~ 1 + (Intercept|g)", {"Intercept": lambda d: d.x}, {}, "two columns named 'Intercept'; rename"),
    ("y ~ (1|a:b)", {"a": ["p:q", "p"] * 30, "b": ["r", "q:r", "s"] * 20}, {}, "have the label 'p:q:r'.* rename"),
]


@pytest.mark.parametrize(("formula", "change", "options", "says"), DATA_ERRORS)
def test_data_errors(data, formula, change, options, says):
    with pytest.raises(DataError, match=says), np.errstate(all="ignore"):
        design_of(formula, data.assign(**change), **options)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ([1, 2], "not builtins.list"),
        (pd.DataFrame({"y": [], "g": []}), "no rows"),
        ({"y": [1.0, 2.0], "g": ["a"]}, "one length"),
        (pd.DataFrame([[1.0, "a", "b"]], columns=["y", "g", "g"]), "2 columns named 'g'"),
        (pd.DataFrame([[1.0, "a"]], columns=pd.MultiIndex.from_tuples([("a", "y"), ("a", "g")])), "MultiIndex"),
        (pd.DataFrame([[1.0, "a"]]), r"called 0, 1\); name them"),
        (pd.DataFrame(), "no columns"),
    ],
)
def test_tables_that_are_refused(table, says):
    with pytest.raises(DataError, match=says):
        design_of("y ~ 1 + (1 | g)", table)


MODEL_ERRORS = [
    ("y ~ x + (1|q)", {"q": "same"}, "'q' has one level"),
    ("y ~ x + (1|q)", {"q": np.arange(N)}, "has 60 levels, but there are only 60 rows"),
    ("y ~ x + (x|q)", {"q": np.arange(N) // 2}, "30 levels times 2 columns = 60 random effects"),
    ("y ~ C(q) + (1|g)", {"q": np.arange(N)}, "60 independent columns"),
    ("y ~ copy + (1|g)", {"copy": lambda d: 2 * d.y + 1}, "fit the response 'y' perfectly"),
    ("y ~ copy + (1|g)", {"copy": lambda d: d.y + 1e6}, "fit the response 'y' perfectly"),
    ("y ~ 0 + copy + (1|g)", {"y": lambda d: d.y + 1e6, "copy": lambda d: 2 * d.y}, "perfectly"),
    ("y ~ x + (1|g)", {"y": lambda d: d.y + 1e15}, r"'y' varies by 0.9.* steps of 0.12 .* Subtract"),
    ("y ~ (f|g)", {"f": "a"}, "'f' of .* has one level only"),
    ("y ~ (q|g)", {"q": 1.0}, r"\(1 \+ q \| g\), 'q' depends linearly"),
    ("y ~ (x + q|g)", {"q": lambda d: 2 * d.x}, "'q' depends linearly"),
    ("y ~ (1|g) + (0 + q|g)", {"q": 3.0}, "'Intercept' and 'q', which are proportional: two of their variances"),
    ("y ~ (x|g) + (1|g)", {}, "share the column 'Intercept': two of their"),
    ("y ~ (q + x||g)", {"q": lambda d: -2 * d.x}, r"\(0 \+ q \| g\) and \(0 \+ x \| g\) share"),
    ("y ~ (1|g) + (1|q)", {"q": lambda d: "level " + d.g}, "'g' and 'q' divide the rows in the same way"),
    ("y ~ (1|g/q)", {"q": lambda d: d.g.map({"a": 2, "b": 1}).fillna(0)}, "'q:g' and 'g' divide"),
    ("y ~ (x||g) + (1|`g.1`)", {"g.1": lambda d: d.h}, "'g.1' has the name that further terms on 'g'"),
    ("y ~ (1|Residual)", {"Residual": lambda d: d.g}, "cannot be named 'Residual'"),
    ("y ~ (1|g:h) + (0 + x|`g:h`)", {"g:h": lambda d: d.h}, "two grouping factors are labelled 'g:h'"),
]


@pytest.mark.parametrize(("formula", "change", "says"), MODEL_ERRORS)
def test_model_errors(data, formula, change, says):
    with pytest.raises(ModelError, match=says):
        design_of(formula, data.assign(**change))
