"""A run that is killed at any moment."""

import json
import random
import signal
import time
from pathlib import Path

import numpy as np

from fewlabels.models.weights import read_weights
from tests.test_pretrain import newest_step, same
from tests.test_processes import start


def test_resume_exact(fmnist, tmp_path: Path):
    """SIGKILL at five random moments changes no bit of the result."""
    images, total = tmp_path / "images.npy", 50
    np.save(images, fmnist.train.first_k(640).images)
    options = (images, "--method", "simclr", "--epochs", total // 10, "--batch-size", "64")
    options += ("--tune", "off", "--checkpoint-seconds", "0.05")
    undisturbed = start(tmp_path / "whole", *options)
    assert undisturbed.wait(300) == 0, undisturbed.stderr.read()
    folder = tmp_path / "killed"
    moments = sorted(random.Random(0).sample(range(1, total - 5), 5))
    kills = 0
    for moment in moments:
        running = start(folder, *options, *(["--resume"] if folder.is_dir() else []))
        while newest_step(folder) < moment and running.poll() is None:
            time.sleep(0.005)
        time.sleep(random.Random(moment).uniform(0, 0.1))
        running.kill()
        kills += running.wait() == -signal.SIGKILL
        running.communicate()
        assert newest_step(folder) < total
    assert kills == 5
    last = start(folder, *options, "--resume")
    assert last.wait(300) == 0, last.stderr.read()
    for file in ("method.safetensors", "backbone.safetensors"):
        assert same(read_weights(folder / file)[0], read_weights(tmp_path / "whole" / file)[0])
    states = [json.loads((tmp_path / name / "state.json").read_text()) for name in ("whole", "killed")]
    assert states[0]["curve"] == states[1]["curve"]
    assert states[0]["guard"]["readings"] == states[1]["guard"]["readings"] != []
