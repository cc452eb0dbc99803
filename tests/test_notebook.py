"""The notebook that repeats the tutorial has at most 40 lines of code, and runs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent.parent / "examples" / "article.ipynb"


def test_notebook_has_at_most_40_lines_of_code():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    lines = [line for cell in cells if cell.cell_type == "code" for line in cell.source.splitlines()]
    assert len([line for line in lines if line.strip()]) <= 40


def test_notebook_runs_with_few_images(fmnist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FEWLABELS_NOTEBOOK_IMAGES", "100")
    monkeypatch.setenv("PLOTLY_RENDERER", "json")
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # compiling UMAP takes longer than running it on a hundred images
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(
        output.text for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == "stream"
    )
    assert "100 labels, 2 epochs: macro-F1" in printed
    assert "macro avg" in printed
