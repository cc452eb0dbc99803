"""Imports point down the list of packages: a file may import from its own package or from those below it."""

import ast
from collections.abc import Iterable
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "fewlabels"
PACKAGES = (
    "cli",
    "report",
    "compare",
    "tutorial",
    "sklearn",
    "active",
    "audit",
    "deploy",
    "fit",
    "ssl",
    "features",
    "backbones",
    "training",
    "augment",
    "metrics",
    "data",
    "_internal",
)
"""From top to bottom, as the design has them."""
DEPTH = {package: depth for depth, package in enumerate(PACKAGES)}
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def imported_modules(path: Path) -> set[str]:
    return imported_by(ast.walk(ast.parse(path.read_text())))


def imported_by(nodes: Iterable[ast.AST]) -> set[str]:
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def package_of(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    package = path.relative_to(PACKAGE).with_suffix("").parts[0]
    for module in imported_modules(path):
        if module.startswith("fewlabels."):
            other = package_of(module)
            assert other == package or DEPTH[other] > DEPTH[package], f"{path.name} imports {module}"


def test_methods_get_tensors_never_data_or_views():
    for path in (PACKAGE / "ssl" / "methods").glob("*.py"):
        imported = {package_of(module) for module in imported_modules(path) if module.startswith("fewlabels.")}
        assert not imported & {"data", "augment"}


def test_report_imports_no_torch():
    below = [PACKAGE / "_internal" / "files.py", PACKAGE / "_internal" / "errors.py"]
    for path in [*(PACKAGE / "report").glob("*.py"), *below]:
        assert not {module.split(".")[0] for module in imported_modules(path)} & {"torch", "torchvision", "safetensors"}
        imported = {package_of(module) for module in imported_modules(path) if module.startswith("fewlabels.")}
        assert imported <= {"report", "_internal"}


def test_torchvision_is_imported_only_where_it_is_needed():
    """It takes as long to import as torch, and most commands do without."""
    at_once = {path: imported_by(ast.parse(path.read_text()).body) for path in FILES}
    of_torchvision = [path for path, names in at_once.items() if any(of.startswith("torchvision") for of in names)]
    assert of_torchvision == [PACKAGE / "tutorial" / "views.py"]  # the tutorial always needs it
