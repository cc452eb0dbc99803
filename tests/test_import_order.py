"""Import layers: a module may import from its own package and from packages below it in ``LAYERS``."""

import ast
from collections.abc import Iterable
from pathlib import Path

import pytest

from fewlabels._internal.environment import LAYERS

PACKAGE = Path(__file__).parent.parent / "fewlabels"
DEPTH = {package: depth for depth, package in enumerate(LAYERS)}
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
def test_package_imports_only_lower_layers(path):
    package = path.relative_to(PACKAGE).with_suffix("").parts[0]
    for module in imported_modules(path):
        if module.startswith("fewlabels."):
            other = package_of(module)
            assert other == package or DEPTH[other] > DEPTH[package], f"{path.name} imports {module}"


def test_ssl_methods_do_not_import_data_or_augment():
    for path in (PACKAGE / "ssl" / "methods").glob("*.py"):
        imported = {package_of(module) for module in imported_modules(path) if module.startswith("fewlabels.")}
        assert not imported & {"data", "augment"}


def test_report_does_not_import_torch():
    helpers = [PACKAGE / "_internal" / "files.py", PACKAGE / "_internal" / "errors.py"]
    for path in [*(PACKAGE / "report").glob("*.py"), *helpers]:
        assert not {module.split(".")[0] for module in imported_modules(path)} & {"torch", "torchvision", "safetensors"}
        imported = {package_of(module) for module in imported_modules(path) if module.startswith("fewlabels.")}
        assert imported <= {"report", "_internal"}


def test_torchvision_is_imported_at_module_level_only_in_tutorial_views():
    """It takes as long to import as torch, and most commands do not need it."""
    module_level = {path: imported_by(ast.parse(path.read_text()).body) for path in FILES}
    of_torchvision = [path for path, names in module_level.items() if any(of.startswith("torchvision") for of in names)]
    assert of_torchvision == [PACKAGE / "tutorial" / "views.py"]  # the tutorial always needs it
