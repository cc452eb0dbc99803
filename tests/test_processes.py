"""Two processes that compute as one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from fewlabels.data.npy import NpySource
from fewlabels.models.weights import read_weights
from fewlabels.pretrain import PretrainSettings
from tests.test_pretrain import newest_step, run, same


def start(folder: Path, *options: str | Path) -> subprocess.Popen[str]:
    """``fewlabels pretrain`` in a process of its own."""
    command = [sys.executable, "-m", "fewlabels.cli", "pretrain", *options, "--out", folder, "--logger", "none"]
    return subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


# In single precision their steps blow up the last digit of a sum, as they do between 1 and 2 threads.
# SimCLR gathers embeddings as well, and its projector has batch norms, as SimSiam's has.
DDP = {name: PretrainSettings(name, 1, batch_size=64, precision="64-true") for name in ("simclr",)}


def two_processes(method: str, images: Path, folder: Path, *more: str | float) -> subprocess.Popen[str]:
    given = ("--method", method, "--epochs", 1, "--batch-size", 64, "--precision", "64-true")
    given += ("--checkpoint-seconds", "0.1")
    return start(folder, images, *given, "--processes", 2, *more)


@pytest.fixture(scope="module")
def few_images(fmnist, tmp_path_factory) -> Path:
    """22 steps of 64."""
    path = tmp_path_factory.mktemp("images") / "few.npy"
    np.save(path, fmnist.train.first_k(22 * 64).images)
    return path


@pytest.fixture(scope="module")
def ddp_run(few_images: Path, tmp_path_factory) -> Callable[[str], Path]:
    """The folder of an undisturbed run with two processes."""

    @cache
    def made(method: str) -> Path:
        folder = tmp_path_factory.mktemp("ddp") / method
        out, err = (ran := two_processes(method, few_images, folder)).communicate(timeout=300)
        assert ran.returncode == 0, err
        assert out.count("Backbone: ") == 1  # one process speaks
        return folder

    return made


@pytest.mark.parametrize("method", DDP)
def test_ddp_gives_the_losses_of_one_process(method, few_images: Path, ddp_run, tmp_path: Path):
    _, observer = run(NpySource(few_images), tmp_path, DDP[method])
    one = observer.curve.values[:20]
    two = json.loads((ddp_run(method) / "state.json").read_text())["curve"]["values"][:20]
    assert len(one) == len(two) == 20
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) < 1e-4
    assert max(one) - min(one) > 1e-2  # they moved


def test_ddp_stops_together_and_goes_on(few_images: Path, ddp_run, tmp_path: Path):
    folder = tmp_path / "run"
    running = two_processes("simclr", few_images, folder)
    while newest_step(folder) < 2 and running.poll() is None:
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)  # to the first alone; the second hears of it
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert err.count("Go on with: fewlabels pretrain ") == 1
    assert "Traceback" not in err
    assert newest_step(folder) == int(err.split("after step ")[1].split()[0])
    last = two_processes("simclr", few_images, folder, "--resume")
    assert last.wait(120) == 0, last.stderr.read()
    assert same(*(read_weights(path / "method.safetensors")[0] for path in (folder, ddp_run("simclr"))))


def test_ddp_a_process_that_fails_alone_is_heard(fmnist, tmp_path: Path):
    path = tmp_path / "images.npy"
    np.save(path, fmnist.train.first_k(2560).images)
    options = ("--epochs", 500, "--batch-size", 128, "--processes", 2, "--checkpoint-seconds", "0.1")
    running = start(tmp_path / "run", path, *options)
    while newest_step(tmp_path / "run") < 2 and running.poll() is None:
        time.sleep(0.05)
    os.truncate(path, path.stat().st_size - 784)  # one row, which one of them reads
    _, err = running.communicate(timeout=120)
    assert running.returncode != 0
    assert "ends before row 2559" in err
    assert "Traceback" not in err
