"""Overhead of Ray for a comparison on one machine: seconds to start and per task, and MiB that are sent."""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import ray
import torch

from benchmarks.harness import ResultFile
from fewlabels.augment.recipes import RECIPES, fit_views
from fewlabels.backbones.architectures import make_backbone
from fewlabels.backbones.weights import save_backbone
from fewlabels.compare.cells import Experiment
from fewlabels.compare.on_ray import cluster
from fewlabels.compare.plan import CompareSettings
from fewlabels.data.fashion_mnist import fashion_mnist
from fewlabels.training.callbacks import Observer

ROUNDS = 5


def main() -> None:
    """Measure, unless there are rows."""
    file = ResultFile("ray_cost", "make benchmark-speed", keys=("what",))
    if file.has(what="task"):
        return
    splits = fashion_mnist()
    about = (CompareSettings(), splits.train, splits.test, RECIPES["gray-small"], fit_views(1), Path("nowhere"))
    experiment = Experiment(*about, Observer, torch.device("cpu"))
    seconds: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for what, each in _round(experiment).items():
            seconds.setdefault(what, []).append(each)
    mib = {"images": (splits.train.images.nbytes + splits.test.images.nbytes) / 2**20, "backbone": _backbone_mib()}
    rows: list[dict[str, Any]] = [
        {"what": what, "seconds": round(median(each), 4), "repeats": ROUNDS, "seed": 0}
        for what, each in seconds.items()
    ]
    file.replace(rows + [{"what": what, "mib": round(size, 2), "seconds": 0, "seed": 0} for what, size in mib.items()])
    print(*file.rows, sep="\n")


def _round(experiment: Experiment) -> dict[str, float]:
    """Return the seconds of each action of Ray, by name."""
    spent: dict[str, float] = {}

    def timed(what: str, action: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = action()
        spent[what] = time.perf_counter() - began
        return result

    connection = cluster(threads=1)
    timed("start", connection.__enter__)
    sent = timed("images put", partial(ray.put, experiment))
    task = ray.remote(_nothing).options(num_cpus=1)
    # The second task runs in the same worker, which has the images and its imports already.
    for what in ("first task", "task"):
        timed(what, lambda: ray.get(task.remote(sent)))
    timed("stop", partial(connection.__exit__, None, None, None))
    return spent


def _nothing(experiment: Experiment) -> int:
    """Do the work of a trial without training."""
    return len(experiment.train)


def _backbone_mib() -> float:
    """Return the size of the tutorial's backbone as a file."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "backbone.safetensors"
        save_backbone(make_backbone("article", 1), file, "article")
        return file.stat().st_size / 2**20


if __name__ == "__main__":
    main()
