"""Imports point one way: a file may import from its own room or from those listed before it."""

import ast
from collections.abc import Iterable
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "fewlabels"
ROOMS = (
    ("errors",),
    ("seeding", "records", "files", "parallel"),
    ("data", "views", "observe", "optimizers", "quality", "evidence"),
    ("models", "projection", "monitor"),
    ("methods",),
    ("engine",),
    ("pretrain", "evaluate", "presets", "scores"),
    ("fit", "embedding", "suggest"),
    ("article", "check", "choose", "compare", "estimator", "export", "report", "serve"),
    ("commands",),
    ("cli",),
)
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
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


def room_of(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    room = path.relative_to(PACKAGE).with_suffix("").parts[0]
    for module in imported_modules(path):
        if module.startswith("fewlabels."):
            other = room_of(module)
            assert other == room or LEVEL[other] < LEVEL[room], f"{path.name} imports {module}"


def test_methods_get_tensors_never_data_or_views():
    for path in (PACKAGE / "methods").glob("*.py"):
        assert not {room_of(m) for m in imported_modules(path) if m.startswith("fewlabels.")} & {"data", "views"}


def test_the_report_needs_no_torch():
    for path in [*(PACKAGE / "report").glob("*.py"), PACKAGE / "files.py", PACKAGE / "errors.py"]:
        assert not {m.split(".")[0] for m in imported_modules(path)} & {"torch", "torchvision", "safetensors"}
        assert not {m for m in imported_modules(path) if m.startswith(("fewlabels.article", "fewlabels.models"))}


def test_torchvision_is_imported_where_it_is_needed():
    """It takes as long to import as torch, and most commands do without."""
    at_once = {path: imported_by(ast.parse(path.read_text()).body) for path in FILES}
    of_torchvision = [path for path, names in at_once.items() if any(of.startswith("torchvision") for of in names)]
    assert of_torchvision == [PACKAGE / "article" / "views.py"]  # the tutorial always needs it
