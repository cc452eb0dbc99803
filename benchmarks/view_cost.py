"""Milliseconds per view of a batch, by recipe: fewlabels, torchvision's v2, kornia; and of one training step."""

import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import Tensor

from benchmarks.harness import ResultFile
from benchmarks.pretrain_speed import bare_step
from benchmarks.rivals import kornia_views, torchvision_views
from fewlabels.augment.recipes import RECIPES
from fewlabels.data.fashion_mnist import fashion_mnist
from fewlabels.ssl.pretrain import PretrainSettings
from fewlabels.tutorial.methods import SIMSIAM

ROUNDS = 7


def main() -> None:
    """Measure the recipes that have no row yet."""
    file = ResultFile("view_cost", "make benchmark-speed", keys=("recipe", "library"))
    gray = fashion_mnist().train.read(slice(256))
    rgb = _noise(256, 32)
    shapes = {"gray-small": gray, "rgb-small": rgb, "randaugment": rgb, "imagenet": _noise(32, 224)}
    for recipe, images in shapes.items():
        if file.has(recipe=recipe, library="ours"):
            continue
        size = (images.shape[2], images.shape[3])
        calls: dict[str, Callable[[], object]] = {
            "ours": partial(_own_view, recipe, images),
            "torchvision": partial(torchvision_views(recipe, size), images),
            "kornia": partial(kornia_views(recipe, size), images),
        }
        if images is gray:
            run = bare_step(
                PretrainSettings("simsiam", 1, SIMSIAM, batch_size=256), (1, 28, 28), compiled=True, channels_last=False
            )
            calls["one compiled step of the article's network"] = partial(run, 1)
        cost = _milliseconds(calls)
        for name, each in cost.items():
            row = {"recipe": recipe, "library": name, "batch": len(images), "shape": list(images.shape[1:])}
            figures = {"milliseconds": round(median(each), 2), "repeats": ROUNDS}
            file.add({**row, **figures, "seed": 0, "seconds": round(sum(each) / 1000, 2)})
            print(row["recipe"], name, figures["milliseconds"], "ms", flush=True)
        if images is gray:
            step = 2 * median(cost["ours"]) + median(cost["one compiled step of the article's network"])
            print(
                f"{recipe}: two views are {200 * median(cost['ours']) / step:.1f}% of the step with them (at most 10)"
            )


def _own_view(recipe: str, images: Tensor) -> Tensor:
    return RECIPES[recipe](images, (0, "cost", time.perf_counter_ns()))


def _noise(batch: int, size: int) -> Tensor:
    return torch.randint(0, 256, (batch, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def _milliseconds(calls: dict[str, Callable[[], object]], repeats: int = 3) -> dict[str, list[float]]:
    """Return milliseconds per call in each round, by name; functions take turns, each with one call to warm up."""
    cost: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            call()
            began = time.perf_counter()
            for _ in range(repeats):
                call()
            cost[name].append((time.perf_counter() - began) * 1000 / repeats)
    return cost


if __name__ == "__main__":
    main()
