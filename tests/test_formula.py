import pytest

from crosslmm.errors import FormulaError
from crosslmm.formula import parse


def terms(formula):
    return [term.text for term in parse(formula).random]


@pytest.mark.parametrize(
    ("formula", "response", "fixed", "random"),
    [
        ("y ~ x + (1 | g)", "y", "x", ["(1 | g)"]),
        ("y ~ (1 | g)", "y", "1", ["(1 | g)"]),
        ("y ~ (1 | g) + x", "y", "x", ["(1 | g)"]),
        ("y~0+(1|g)", "y", "0", ["(1 | g)"]),
        ("y ~ x + (1 | g) - 1", "y", "x - 1", ["(1 | g)"]),
        ("y ~\n x\n + (1 | g)", "y", "x", ["(1 | g)"]),
        ("np.log(y) ~ C(f, contr.sum)*poly(x, 2) + (1|g)", "np.log(y)", "C(f, contr.sum)*poly(x, 2)", ["(1 | g)"]),
        ("y ~ (a + b)**2 + I(c | d) + (1|g)", "y", "(a + b)**2 + I(c | d)", ["(1 | g)"]),
        ("y ~ `a + (b | c)` + (1|`g h`)", "y", "`a + (b | c)`", ["(1 | g h)"]),
        ("y ~ a*b - a:b + C(f, levels=['#;']) + (1|g)", "y", "a*b - a:b + C(f, levels=['#;'])", ["(1 | g)"]),
        ("y ~ x + (x | g) + (1 | h)", "y", "x", ["(1 + x | g)", "(1 | h)"]),
    ],
)
def test_parts(formula, response, fixed, random):
    parsed = parse(formula)
    assert (parsed.response, parsed.fixed, [term.text for term in parsed.random]) == (response, fixed, random)


@pytest.mark.parametrize(
    ("bars", "expected"),
    [
        ("(x | g)", ["(1 + x | g)"]),
        ("(0 + x | g)", ["(0 + x | g)"]),
        ("(x - 1 | g)", ["(0 + x | g)"]),
        ("(x * z | g)", ["(1 + x + z + x:z | g)"]),
        ("(np.log(x) + `a b` | g)", ["(1 + np.log(x) + `a b` | g)"]),
        ("(1 || g)", ["(1 | g)"]),
        ("(x || g)", ["(1 | g)", "(0 + x | g)"]),
        ("(0 + x || g)", ["(0 + x | g)"]),
        ("(x * f || g)", ["(1 | g)", "(0 + x | g)", "(0 + f | g)", "(0 + x:f | g)"]),
        ("(1 | a:b)", ["(1 | a:b)"]),
        ("(1 | a/b)", ["(1 | b:a)", "(1 | a)"]),
        ("(1 | a/b/c)", ["(1 | c:(b:a))", "(1 | b:a)", "(1 | a)"]),
        ("(1 | a:b/c)", ["(1 | c:(a:b))", "(1 | a:b)"]),
        ("(x || a/b)", ["(1 | b:a)", "(1 | a)", "(0 + x | b:a)", "(0 + x | a)"]),
        ("(1 | factor(a) / C(b))", ["(1 | b:a)", "(1 | a)"]),
    ],
)
def test_bars_expand_as_in_lme4(bars, expected):
    assert terms(f"y ~ x + {bars}") == expected


def test_grouping_names_follow_the_label():
    assert [term.grouping for term in parse("y ~ (1 | a/b/`c d`)").random] == [("c d", "b", "a"), ("b", "a"), ("a",)]


@pytest.mark.parametrize(
    ("formula", "piece", "says"),
    [
        ("y ~ x", "x", "ordinary least squares"),
        ("y ~ f(x | g)", "f(x | g)", "statsmodels"),
        ("~ x + (1|g)", "~", "no response"),
        ("x + (1|g)", "x + (1|g)", "no '~'"),
        ("y ~ x ~ z + (1|g)", "~", "more than one"),
        ("y ~ ", "~", "nothing stands after"),
        ("(1|g) ~ x", "|", "response"),
        ("y ~ x | g", "|", "outside parentheses"),
        ("y ~ x * (1|g)", "x * (1|g)", "only be added"),
        ("y ~ (1|g)^2", "(1|g)^2", "only be added"),
        ("y ~ x (1|g)", "x (1|g)", "only be added"),
        ("y ~ x - (1|g)", "- (1|g)", "subtracted"),
        ("y ~ ((1|g))", "|", "one pair of parentheses"),
        ("y ~ x + (1|g", "(", "not closed"),
        ("y ~ x + 1|g)", ")", "closes nothing"),
        ("y ~ (1|`g)", "`", "not closed"),
        ("y ~ x + (1|g) +", "+", "nothing follows"),
        ("y ~ (1|a|b)", "(1|a|b)", "one '|'"),
        ("y ~ (1|)", "(1|)", "no grouping factor"),
        ("y ~ (|g)", "(|g)", "before the bar"),
        ("y ~ (0|g)", "0", "no columns"),
        ("y ~ (1|3)", "3", "column name"),
        ("y ~ (1|a + b)", "+ b", "column name"),
        ("y ~ (1|f(g))", "(g)", "column name"),
        ("y ~ (1|a:a)", "a:a", "twice"),
        ("y ~ (1|g) + (1|g)", "(1|g) + (1|g)", "occurs twice"),
        ("y ~ x $ z + (1|g)", "$", "Unknown operator"),
        ("y ~ (1 $ 2|g)", "1 $ 2", "Unknown operator"),
        ("y ~ . + (1|g)", "y ~ . + (1|g)", "name the columns"),
        ("y ~ ... + (1|g)", "...", "name the columns"),
        ("y ~ x + (1|g) # c", "#", "no comments"),
        ("y ~ x; (1|g)", ";", "no meaning"),
        ("y ~ x, z + (1|g)", ",", "joined by"),
        ("y ~ I(x+) + (1|g)", "I(x+)", "not a Python expression"),
        ("y ~ {x+} + (1|g)", "{x+}", "not a Python expression"),
        ("y ~ (I(x+)|g)", "I(x+)", "not a Python expression"),
        ("y ~ `` + (1|g)", "``", "back-quotes"),
        ("y ~ -x + (1|g)", "-x", r"no term x .* I\(-x\)"),
        ("y ~ (1|g) + z - x", "- x", "no term x"),
        ("y ~ (z - x|g)", "- x", "no term x"),
        ("y ~ x + (y|g)", "(y|g)", "response"),
        ("y ~ x + (I(y**2)|g)", "(I(y**2)|g)", "response"),
        ("y ~ x + (1|y)", "(1|y)", "response"),
        ("y ~ (x + z)**99 + (1|g)", "(x + z)**99", "too large"),
        ("y ~ ((a + b + c)^3)^9 + (1|g)", "((a + b + c)^3)^9", "power of 9 of 7 terms"),
        ("y ~ ((x + z)**99|g)", "(x + z)**99", "too large"),
    ],
)
def test_errors_mark_the_offending_piece(formula, piece, says):
    with pytest.raises(FormulaError, match=says.replace("|", r"\|")) as caught:
        parse(formula)
    start, stop = caught.value.span
    assert formula[start:stop] == piece
    assert str(caught.value).endswith("    " + " " * start + "^" * len(piece))


def test_formula_must_be_text():
    with pytest.raises(FormulaError, match="not int"):
        parse(3)
