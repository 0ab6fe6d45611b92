"""Which columns of the data a formula uses.

Formulaic's own answer leaves out the arguments of its stateful transformations (``scale(x)``, ``bs(x)``).
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Collection, Iterator

from formulaic import Formula
from formulaic.parser.types import Factor
from formulaic.transforms import TRANSFORMS

from crosslmm.errors import DataError
from crosslmm.formula import MixedFormula


def used_columns(formula: MixedFormula, present: Collection[str], context: Collection[str]) -> list[str]:
    """Names of the data columns that a formula uses, in order of appearance.

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
    for text in (formula.response, formula.fixed, *(term.columns for term in formula.random)):
        for name, called in _names(text):
            elsewhere = name in context or name in TRANSFORMS or name in vars(builtins)
            if called and not elsewhere and name not in columns:
                raise DataError(
                    f"the formula calls {name!r}, which is neither a function of the formula language nor in context"
                )
            if not elsewhere or (name in columns and not called):
                names[name] = None
    names.update(dict.fromkeys(name for term in formula.random for name in term.grouping))
    return list(names)


def _names(text: str) -> Iterator[tuple[str, bool]]:
    """Names in one side of a formula, and whether each is called."""
    for term in Formula(text):
        for factor in term.factors:
            if factor.eval_method is Factor.EvalMethod.LOOKUP:
                yield factor.expr, False
            elif factor.eval_method is Factor.EvalMethod.PYTHON:
                yield from _python_names(factor.expr)


def _python_names(expression: str) -> list[tuple[str, bool]]:
    quoted: list[str] = []

    def placeholder(match: re.Match[str]) -> str:
        quoted.append(match[1])
        return f"_quoted_{len(quoted) - 1}"

    try:
        tree = ast.parse(re.sub("`([^`]+)`", placeholder, expression), mode="eval")
    except SyntaxError as error:
        raise DataError(f"'{expression}' in the formula is not a Python expression: {error.msg}") from error
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    names = [(node.id, id(node) in called) for node in ast.walk(tree) if isinstance(node, ast.Name)]
    aliases = {f"_quoted_{i}": name for i, name in enumerate(quoted)}
    return [(aliases.get(name, name), flag) for name, flag in names]
