"""Imports inside the package run downwards, from the command line to the flat model files, and never in a circle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import fclm_hf


PACKAGE = Path(fclm_hf.__file__).parent
# each folder may import from its own level and from those before it; "" are the flat files, which Hub exports carry
LEVELS = [
    {"utils", "checkpoints"},
    {""},
    {"auto", "metrics", "onnx"},
    {"data", "exporters", "hub"},
    {"training.objective", "evaluation", "bulk"},
    {"training"},
    {"app", "reproduction"},
    {"cli", "__main__"},
]
MODULES = {
    path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", "."): path
    for path in PACKAGE.rglob("*.py")
    if path != PACKAGE / "__init__.py"
}


def find_level(module: str) -> int:
    """Return the number of the level that `module` belongs to."""
    parts = module.removesuffix(".__init__").split(".")
    names = [".".join(parts[:count]) for count in range(len(parts), 0, -1)] + [""]
    return next(number for name in names for number, level in enumerate(LEVELS) if name in level)


def find_imports(module: str) -> Iterator[str]:
    """Yield the modules of the package that `module` imports, also inside functions."""
    path = MODULES[module]
    folder = path.parent.relative_to(PACKAGE).parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = (*folder[: len(folder) - node.level + 1], *(node.module or "").split("."))
        for alias in node.names:
            name = ".".join(part for part in (*base, alias.name) if part)
            parent = ".".join(part for part in base if part)
            yield next(each for each in (name, parent, f"{parent}.__init__".strip("."), "") if each in {*MODULES, ""})


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_run_downwards(module: str) -> None:
    for imported in find_imports(module):
        assert imported, f"{module} imports from the package root"
        assert find_level(imported) <= find_level(module), f"{module} imports {imported}, which lies above it"


def test_no_circle() -> None:
    graph = {module: set(find_imports(module)) - {module, ""} for module in MODULES}
    while leaves := [module for module, imported in graph.items() if not imported]:
        for leaf in leaves:
            del graph[leaf]
        for imported in graph.values():
            imported.difference_update(leaves)
    assert not graph, f"these modules import each other: {sorted(graph)}"
