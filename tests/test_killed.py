"""Test that a pretraining resumes exactly after SIGKILL."""

import json
import os
import random
import signal
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from fewlabels._internal.tensors import read_weights
from fewlabels.cli import app as cli
from tests.ssl.test_pretrain import newest_step, same_weights

FORKS = get_context("forkserver")
FORKS.set_forkserver_preload([__name__])


def pretraining(folder: Path, *options: str | Path | float):
    """Start ``fewlabels pretrain`` in a process that is forked after the imports, so that it starts fast."""
    words = ["fewlabels", "pretrain", *map(str, options), "--out", str(folder), "--logger", "none"]
    running = FORKS.Process(target=command_line, args=(words, folder.with_suffix(".txt")))
    running.start()
    return running


def command_line(words: list[str], output: Path) -> None:
    with output.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = words
    cli.main()


def test_pretrain_has_bit_equal_result_after_five_sigkills(fmnist, tmp_path: Path):
    images, total = tmp_path / "images.npy", 50
    np.save(images, fmnist.train.first_k(640).images)
    options = (images, "--method", "simclr", "--epochs", total // 10, "--batch-size", 64)
    options += ("--tune", "off", "--checkpoint-seconds", 0.05)
    uninterrupted = pretraining(tmp_path / "whole", *options)
    uninterrupted.join(300)
    assert uninterrupted.exitcode == 0, (tmp_path / "whole.txt").read_text()
    folder = tmp_path / "killed"
    kill_steps = sorted(random.Random(0).sample(range(1, total - 5), 5))
    for kill_step in kill_steps:
        running = pretraining(folder, *options, *(["--resume"] if folder.is_dir() else []))
        while newest_step(folder) < kill_step and running.is_alive():
            time.sleep(0.005)
        time.sleep(random.Random(kill_step).uniform(0, 0.1))
        running.kill()
        running.join()
        assert running.exitcode == -signal.SIGKILL, (tmp_path / "killed.txt").read_text()
        assert newest_step(folder) < total
    last = pretraining(folder, *options, "--resume")
    last.join(300)
    assert last.exitcode == 0, (tmp_path / "killed.txt").read_text()
    for file in ("method.safetensors", "backbone.safetensors"):
        assert same_weights(read_weights(folder / file)[0], read_weights(tmp_path / "whole" / file)[0])
    states = [json.loads((tmp_path / name / "state.json").read_text()) for name in ("whole", "killed")]
    assert states[0]["curve"] == states[1]["curve"]
    assert states[0]["guard"]["readings"] == states[1]["guard"]["readings"] != []
