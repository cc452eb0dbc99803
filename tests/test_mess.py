"""Each command takes a messy folder as it is, from the command line."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.make_mess import Planted, make_mess


@pytest.fixture(scope="module")
def planted(fmnist, tmp_path_factory) -> Planted:
    return make_mess(tmp_path_factory.mktemp("mess") / "photos", fmnist.train)


def fewlabels(planted: Planted, *words: str) -> str:
    """What the command prints, run where the folder of photos is."""
    home = planted.folder.parent
    env = {**os.environ, "XDG_CACHE_HOME": str(home / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "fewlabels.cli", *words]
    ran = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stdout + ran.stderr
    return ran.stdout


def test_fit_and_predict(planted, tmp_path):
    fewlabels(planted, "fit", "photos", "--budget", "10s", "--out", str(tmp_path))
    fewlabels(planted, "predict", str(tmp_path / "model.safetensors"), "photos", "-o", str(tmp_path / "said.csv"))
    with (tmp_path / "said.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(planted.labels)
    assert sum(not row["label"] for row in rows) == len(planted.corrupt)


@pytest.mark.slow
def test_compare(planted, tmp_path):
    words = ("--pairs", "1", "--budget", "2m", "--out", str(tmp_path))
    said = fewlabels(planted, "compare", "photos", *words)
    assert "report.html" in said
    assert (Path(tmp_path) / "report.html").is_file()
