"""Test that commands work on a folder with faulty files, from the command line."""

import csv
from pathlib import Path

import pytest

from tests.data.make_mess import Planted, make_mess


@pytest.fixture(scope="module")
def planted(fmnist, tmp_path_factory) -> Planted:
    return make_mess(tmp_path_factory.mktemp("mess") / "photos", fmnist.train)


@pytest.fixture
def fewlabels(planted, run_cli, monkeypatch):
    """Run a command in the parent folder of the photos, and return its output."""
    monkeypatch.chdir(planted.folder.parent)

    def run(*words: str | Path) -> str:
        ran = run_cli(*words)
        assert ran.code == 0, ran.err
        assert "Traceback" not in ran.out + ran.err
        return ran.out

    return run


def test_fit_and_predict_work_on_a_folder_with_faults(planted, fewlabels, tmp_path):
    fewlabels("fit", "photos", "--budget", "5s", "--out", tmp_path)
    fewlabels("predict", tmp_path / "model.safetensors", "photos", "-o", tmp_path / "predicted.csv")
    with (tmp_path / "predicted.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(planted.labels)
    assert sum(not row["label"] for row in rows) == len(planted.corrupt)


@pytest.mark.slow
def test_compare_works_on_a_folder_with_faults(fewlabels, tmp_path):
    printed = fewlabels("compare", "photos", "--pairs", "1", "--budget", "2m", "--out", tmp_path)
    assert "report.html" in printed
    assert (tmp_path / "report.html").is_file()
