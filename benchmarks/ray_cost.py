"""What a comparison pays for Ray on one machine: seconds to start and for each task, and MiB that are sent."""

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
from fewlabels.compare.cells import Bench
from fewlabels.compare.on_ray import cluster
from fewlabels.compare.plan import CompareSettings
from fewlabels.data.fashion_mnist import fashion_mnist
from fewlabels.training.callbacks import Observer

ROUNDS = 5


def main() -> None:
    """Measure all, unless it is there."""
    file = ResultFile("ray_cost", "make benchmark-speed", keys=("what",))
    if file.has(what="task"):
        return
    splits = fashion_mnist()
    about = (CompareSettings(), splits.train, splits.test, RECIPES["gray-small"], fit_views(1), Path("nowhere"))
    bench = Bench(*about, Observer, torch.device("cpu"))
    seconds: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for what, each in _round(bench).items():
            seconds.setdefault(what, []).append(each)
    mib = {"images": (splits.train.images.nbytes + splits.test.images.nbytes) / 2**20, "backbone": _backbone_mib()}
    rows: list[dict[str, Any]] = [
        {"what": what, "seconds": round(median(each), 4), "repeats": ROUNDS, "seed": 0}
        for what, each in seconds.items()
    ]
    file.replace(rows + [{"what": what, "mib": round(size, 2), "seconds": 0, "seed": 0} for what, size in mib.items()])
    print(*file.rows, sep="\n")


def _round(bench: Bench) -> dict[str, float]:
    """Seconds by what they went to."""
    spent: dict[str, float] = {}

    def timed(what: str, action: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        found = action()
        spent[what] = time.perf_counter() - began
        return found

    connection = cluster(threads=1)
    timed("start", connection.__enter__)
    sent = timed("images put", partial(ray.put, bench))
    task = ray.remote(_nothing).options(num_cpus=1)
    for what in (
        "first task",
        "task",
    ):  # the second meets the same worker, which has the images and all that it imports
        timed(what, lambda: ray.get(task.remote(sent)))
    timed("stop", partial(connection.__exit__, None, None, None))
    return spent


def _nothing(bench: Bench) -> int:
    """A cell that trains nothing."""
    return len(bench.train)


def _backbone_mib() -> float:
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "backbone.safetensors"
        save_backbone(make_backbone("article", 1), file, "article")
        return file.stat().st_size / 2**20


if __name__ == "__main__":
    main()
