"""Pretraining in two processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fewlabels._internal.tensors import read_weights
from fewlabels.data.npy import NpySource
from fewlabels.ssl.pretrain import PretrainSettings
from tests.ssl.test_pretrain import newest_step, run


def start(folder: Path, *options: str | Path) -> subprocess.Popen[str]:
    """Start ``fewlabels pretrain`` as a separate process."""
    command = [sys.executable, "-m", "fewlabels.cli.app", "pretrain", *options, "--out", folder, "--logger", "none"]
    return subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_two_processes_stop_together_resume_and_equal_one_process(fmnist, tmp_path: Path):
    """SimCLR gathers projections, and its projector has batch norms.

    In single precision, training would amplify rounding errors, as between one thread and two.
    """
    images, folder = tmp_path / "few.npy", tmp_path / "run"
    np.save(images, fmnist.train.first_k(22 * 64).images)
    two = (images, "--method", "simclr", "--epochs", "1", "--batch-size", "64", "--precision", "64-true")
    two += ("--checkpoint-seconds", "0.1", "--processes", "2")
    running = start(folder, *two)
    while newest_step(folder) < 2 and running.poll() is None:
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)  # to the first process only
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert err.count("Resume with: fewlabels pretrain ") == 1
    assert "Traceback" not in err
    assert 2 <= newest_step(folder) == int(err.split("after step ")[1].split()[0]) < 22
    out, err = (last := start(folder, *two, "--resume")).communicate(timeout=300)
    assert last.returncode == 0, err
    assert out.count("Backbone: ") == 1  # only one process prints
    settings = PretrainSettings("simclr", 1, batch_size=64, precision="64-true")
    alone, observer = run(NpySource(images), tmp_path / "one", settings)
    of_one, of_two = observer.curve.values, json.loads((folder / "state.json").read_text())["curve"]["values"]
    assert len(of_one) == len(of_two) == 22
    assert max(abs(a - b) for a, b in zip(of_one, of_two, strict=True)) < 1e-6  # a repeated step would differ more
    assert max(of_one) - min(of_one) > 1e-2  # the loss changed
    together = read_weights(folder / "method.safetensors")[0]
    assert together.keys() == alone.keys()
    for name, weight in alone.items():
        torch.testing.assert_close(together[name], weight, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_error_of_one_process_stops_all_with_a_message(fmnist, tmp_path: Path):
    path = tmp_path / "images.npy"
    np.save(path, fmnist.train.first_k(2560).images)
    options = ("--epochs", 500, "--batch-size", 128, "--processes", 2, "--checkpoint-seconds", "0.1")
    running = start(tmp_path / "run", path, *options)
    while newest_step(tmp_path / "run") < 2 and running.poll() is None:
        time.sleep(0.05)
    os.truncate(path, path.stat().st_size - 784)  # removes one row, which one of the processes reads
    _, err = running.communicate(timeout=120)
    assert running.returncode != 0
    assert "ends before row 2559" in err
    assert "Traceback" not in err
