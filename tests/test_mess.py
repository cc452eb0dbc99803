"""Each command takes a messy folder as it is, from the command line."""

import csv
from pathlib import Path

import pytest

from tests.data.make_mess import Planted, make_mess


@pytest.fixture(scope="module")
def planted(fmnist, tmp_path_factory) -> Planted:
    return make_mess(tmp_path_factory.mktemp("mess") / "photos", fmnist.train)


@pytest.fixture
def fewlabels(planted, run_cli, monkeypatch):
    """What the command prints, run where the folder of photos is."""
    monkeypatch.chdir(planted.folder.parent)

    def run(*words: str | Path) -> str:
        ran = run_cli(*words)
        assert ran.code == 0, ran.err
        assert "Traceback" not in ran.out + ran.err
        return ran.out

    return run


def test_fit_and_predict(planted, fewlabels, tmp_path):
    fewlabels("fit", "photos", "--budget", "5s", "--out", tmp_path)
    fewlabels("predict", tmp_path / "model.safetensors", "photos", "-o", tmp_path / "said.csv")
    with (tmp_path / "said.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(planted.labels)
    assert sum(not row["label"] for row in rows) == len(planted.corrupt)


@pytest.mark.slow
def test_compare(fewlabels, tmp_path):
    said = fewlabels("compare", "photos", "--pairs", "1", "--budget", "2m", "--out", tmp_path)
    assert "report.html" in said
    assert (tmp_path / "report.html").is_file()
