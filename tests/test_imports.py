"""Imports run one way, the data half and the numerics half do not know each other, and the package loads lightly."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "crosslmm"
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))

WAIST = ["errors", "version", "covariance", "blas", "layout", "merge", "crossproducts"]
DATA = ["formula", "design", "sources"]
NUMERICS = [
    "boundary",
    "quadratic",
    "optimize",
    "precision",
    "linalg",
    "engine",
    "fit",
    "objective",
    "start",
    "admissible",
    "uncertainty",
    "estimate",
]
TOP = ["datasets", "report", "components", "progress", "plots", "inference", "refitting", "testing"]
TOP += ["diagnosis", "diagnosing", "effects", "predicting", "results", "options", "grouped", "model", "functions"]
TOP += ["interchange", "planning", "sklearn", "__init__", "__main__"]

# A part may import those before it, and itself.
ORDER = [*WAIST, *DATA, *NUMERICS, *TOP]

# Parts that are out of reach although they come earlier.
FORBIDDEN = {
    "formula": {"layout", "crossproducts"},
    **{part: set(DATA) for part in NUMERICS},
    "datasets": {*DATA, *NUMERICS},
    "plots": {*DATA, *NUMERICS},
    "report": {*DATA, *NUMERICS} - {"fit"},
}

# Third-party packages each part may use; the standard library is free.
THIRD_PARTY = {
    "errors": set(),
    "version": set(),
    "covariance": {"numpy"},
    "blas": {"numpy", "scipy"},
    "layout": {"numpy"},
    "merge": {"numpy", "numba"},
    "crossproducts": {"numpy", "scipy"},
    "formula": {"formulaic"},
    "design": {"numpy", "scipy", "pandas", "formulaic", "narwhals"},
    "sources": {"numpy", "pandas", "narwhals", "formulaic", "pyarrow", "dask"},
    "linalg": {"numpy", "scipy", "numba"},
    **{part: {"numpy", "scipy"} for part in NUMERICS if part != "linalg"},
    "datasets": {"pandas"},
    "report": {"numpy", "pandas", "matplotlib"},
    "components": {"numpy"},
    "progress": {"tqdm"},
    "plots": {"numpy", "scipy", "matplotlib"},
    "inference": {"numpy", "scipy", "pandas", "formulaic", "matplotlib"},
    "diagnosis": {"numpy", "scipy", "pandas", "matplotlib"},
    "diagnosing": {"pandas"},
    "refitting": {"numpy", "pandas"},
    "testing": {"numpy", "pandas"},
    "effects": {"numpy", "scipy", "pandas", "formulaic"},
    "predicting": {"numpy", "pandas"},
    "results": {"numpy", "scipy", "pandas"},
    "options": {"numpy"},
    "grouped": {"numpy", "scipy", "pandas", "formulaic"},
    "functions": set(),
    "model": {"numpy", "scipy", "pandas"},
    "interchange": set(),
    "planning": {"numpy", "scipy", "pandas"},
    "sklearn": {"numpy", "pandas", "sklearn"},
    "__init__": set(),
    "__main__": set(),
}
CHOLMOD = Path("linalg/cholmod.py")

# scipy.stats takes longer to load than all of crosslmm; scipy.special has what normal intervals need.
HEAVY = {"numba", "sksparse", "matplotlib", "pyarrow", "polars", "statsmodels", "dask", "tqdm", "sklearn"}
HEAVY |= {"scipy.stats", "scipy.optimize"}


def part_of(file: Path) -> str:
    """First folder or file name under the package: ``linalg/dense.py`` -> ``linalg``."""
    return file.parts[0].removesuffix(".py")


def for_type_checkers(node: ast.AST) -> bool:
    """Whether `node` is ``if TYPE_CHECKING:``, whose body no interpreter runs."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def statements(node: ast.AST, *, types: bool) -> Iterator[ast.AST]:
    """All nodes below `node`; without those for type checkers unless `types`."""
    for child in ast.iter_child_nodes(node):
        if types or not for_type_checkers(child):
            yield child
            yield from statements(child, types=types)


def imported_modules(file: Path, *, types: bool = True) -> Iterator[str]:
    """Dotted names that `file` imports, at its top or inside its functions."""
    package = ["crosslmm", *file.parts[:-1]]
    for node in statements(ast.parse((PACKAGE / file).read_text(encoding="utf-8")), types=types):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module == "crosslmm":
                yield from (f"crosslmm.{alias.name}" for alias in node.names)
            else:
                yield module


def imported_parts(file: Path, *, types: bool) -> set[str]:
    """Parts of the package that `file` imports; names imported from ``crosslmm`` itself count as ``__init__``."""
    modules = (name.split(".") for name in imported_modules(file, types=types))
    second = {module[1] if len(module) > 1 else "__init__" for module in modules if module[0] == "crosslmm"}
    return {name if name in ORDER else "__init__" for name in second}


def third_party(file: Path) -> set[str]:
    roots = {name.split(".")[0] for name in imported_modules(file)}
    return roots - set(sys.stdlib_module_names) - {"crosslmm"}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_run_one_way(file: Path) -> None:
    part = part_of(file)
    assert part in ORDER, f"{part} is new: give it its place in ORDER and its packages in THIRD_PARTY"
    after = imported_parts(file, types=False) - set(ORDER[: ORDER.index(part) + 1])
    assert not after, f"{file} imports {sorted(after)}, which come after it"
    crossed = imported_parts(file, types=True) & FORBIDDEN.get(part, set())
    assert not crossed, f"{file} imports {sorted(crossed)}: the halves meet only in layout and crossproducts"


@pytest.mark.parametrize("file", FILES, ids=str)
def test_third_party_packages_stay_where_they_belong(file: Path) -> None:
    allowed = THIRD_PARTY[part_of(file)] | ({"sksparse"} if file == CHOLMOD else set())
    assert third_party(file) <= allowed, f"{file} may import only {sorted(allowed)}"


def loaded_by(statement: str) -> set[str]:
    """Names of the modules in a fresh interpreter after `statement`."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout))


def test_import_is_light() -> None:
    # pandas loads pyarrow by itself where it is installed: only what crosslmm adds is its own doing.
    added = loaded_by("import crosslmm") - loaded_by("import pandas, scipy.sparse, formulaic")
    assert not added & HEAVY, "import them where they are used"
