"""Which columns of the data a formula uses.

Formulaic's own answer leaves out the arguments of its stateful transformations (``scale(x)``, ``bs(x)``).
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Collection, Iterator

from formulaic.parser.types import Factor
from formulaic.transforms import TRANSFORMS

from crosslmm.errors import DataError
from crosslmm.formula import MixedFormula
from crosslmm.formula.read import read

INSTEAD = {
    "offset": "; pass the column as offset='...' beside the formula",
    "weights": "; pass the column as weights='...' beside the formula",
    "factor": "; write C(...) for a category",
}
CODING = ("C", "hashed")
"""Functions of the formula language whose first argument is read as categories."""


def used_columns(formula: MixedFormula, present: Collection[str], context: Collection[str]) -> list[str]:
    """Names of the data columns that formulaic reads, in order of appearance; grouping columns are not among them.

    Parameters
    ----------
    formula : MixedFormula
    present : collection of str
        Columns of the data.
    context : collection of str
        Further names that the formula may use; columns of the data go first.

    Raises
    ------
    DataError
        The formula calls a function that nothing defines.
    """
    columns = set(present)
    names: dict[str, None] = {}
    for text in _texts(formula):
        for name, called in _names(text):
            elsewhere = name in context or name in TRANSFORMS or name in vars(builtins)
            if called and not elsewhere and name not in columns:
                hint = INSTEAD.get(name, "")
                raise DataError(
                    f"the formula calls {name!r}, which is neither a function of the formula language nor in context"
                    + hint
                )
            if not elsewhere or (name in columns and not called):
                names[name] = None
    return list(names)


def column_uses(formula: MixedFormula) -> tuple[set[str], set[str]]:
    """Names that stand in a formula by themselves, and names that it uses as categories only (``C(f)``)."""
    plain: set[str] = set()
    categories: set[str] = set()
    numbers: set[str] = set()
    for text in _texts(formula):
        for factor in _factors(text):
            if factor.eval_method is Factor.EvalMethod.LOOKUP:
                plain.add(factor.expr)
            elif factor.eval_method is Factor.EvalMethod.PYTHON:
                tree, aliases = _python_tree(factor.expr)
                coded = {id(name) for name in _coded(tree)}
                for node in ast.walk(tree):
                    if isinstance(node, ast.Name):
                        (categories if id(node) in coded else numbers).add(aliases.get(node.id, node.id))
    return plain, categories - numbers - plain


def coded_columns(formula: MixedFormula) -> set[str]:
    """Names of the columns that stand in ``C(name)`` or the like."""
    names = set()
    for text in _texts(formula):
        for factor in _factors(text):
            if factor.eval_method is Factor.EvalMethod.PYTHON:
                tree, aliases = _python_tree(factor.expr)
                names |= {aliases.get(node.id, node.id) for node in _coded(tree)}
    return names


def is_coded_column(expression: str) -> bool:
    """Whether a piece of a formula is a column by itself or ``C(column, ...)``."""
    tree, _ = _python_tree(expression)
    return isinstance(tree.body, ast.Name) or tree.body in [call for call, _ in _coded_calls(tree)]


def coded_column(expression: str) -> str | None:
    """The column that a piece of a formula is, or that it codes by ``C(column, ...)``; None for any other piece."""
    tree, aliases = _python_tree(expression)
    if isinstance(tree.body, ast.Name):
        return aliases.get(tree.body.id, tree.body.id)
    return next((aliases.get(name.id, name.id) for call, name in _coded_calls(tree) if call is tree.body), None)


def named_calls(formula: MixedFormula) -> Iterator[tuple[ast.Call, str]]:
    """Calls of a function by a bare name, and the piece of the formula that each stands in."""
    for text in _texts(formula):
        for factor in _factors(text):
            if factor.eval_method is Factor.EvalMethod.PYTHON:
                tree, _ = _python_tree(factor.expr)
                for node in ast.walk(tree):
                    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                        yield node, factor.expr


def computed_pieces(formula: MixedFormula) -> list[str]:
    """Pieces of a formula that Python computes, in order, without ``C(column)``."""
    return list(
        dict.fromkeys(
            factor.expr
            for text in _texts(formula)
            for factor in _factors(text)
            if factor.eval_method is Factor.EvalMethod.PYTHON and not is_coded_column(factor.expr)
        )
    )


def _coded_calls(tree: ast.Expression) -> Iterator[tuple[ast.Call, ast.Name]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CODING and node.args:
            first = node.args[0]
            if isinstance(first, ast.Name):
                yield node, first


def _coded(tree: ast.Expression) -> list[ast.Name]:
    return [name for _, name in _coded_calls(tree)]


def _texts(formula: MixedFormula) -> tuple[str, ...]:
    return (formula.response, formula.fixed, *(term.columns for term in formula.random))


def _factors(text: str) -> Iterator[Factor]:
    return (factor for term in read(text) for factor in term.factors)


def _names(text: str) -> Iterator[tuple[str, bool]]:
    """Names in one side of a formula, and whether each is called."""
    for factor in _factors(text):
        if factor.eval_method is Factor.EvalMethod.LOOKUP:
            yield factor.expr, False
        elif factor.eval_method is Factor.EvalMethod.PYTHON:
            tree, aliases = _python_tree(factor.expr)
            called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
            for node in ast.walk(tree):
                if isinstance(node, ast.Name):
                    yield aliases.get(node.id, node.id), id(node) in called


def _python_tree(expression: str) -> tuple[ast.Expression, dict[str, str]]:
    """An expression and the names that stand in it for back-quoted ones."""
    quoted: list[str] = []

    def placeholder(match: re.Match[str]) -> str:
        quoted.append(match[1])
        return f"_quoted_{len(quoted) - 1}"

    try:
        tree = ast.parse(re.sub("`([^`]+)`", placeholder, expression), mode="eval")
    except SyntaxError as error:
        raise DataError(f"'{expression}' in the formula is not a Python expression: {error.msg}") from error
    return tree, {f"_quoted_{i}": name for i, name in enumerate(quoted)}
