"""Images per second of one SimSiam step: ours, the tutorial's, lightly's, and the floor under all of them.

All are measured in one process, round after round, each other arm right after a turn of ours; the figure is the median.
Ratios mean something only within one run, so that a run replaces the rows of the one before; a ratio is the median over
rounds of a turn of ours and the turn beside it, since the machine's speed drifts.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console

from benchmarks.harness import RESULTS, ResultFile
from benchmarks.ratios import article_rows, ratios
from benchmarks.rivals import Run, article, lightly, timed
from fewlabels._internal.files import write_bytes
from fewlabels.augment.recipes import RECIPES
from fewlabels.data.fashion_mnist import fashion_mnist
from fewlabels.data.source import ArraySource, ImageSource
from fewlabels.ssl.pretrain import Engine, Pretraining, PretrainSettings, build_method
from fewlabels.training.callbacks import Observer
from fewlabels.tutorial.methods import SIMSIAM

COMMAND = "make benchmark-speed"
THREADS = torch.get_num_threads()
RIVALS = ("article", "lightly")


def ours(source: ImageSource, views: str, settings: PretrainSettings, folder: Path, say: Observer) -> Run:
    """The loop itself, with its trial, its checkpoints and its loss curve."""
    run = Pretraining(source, RECIPES[views], settings, folder, 0, say, Engine())
    steps = run.steps()
    next(steps)
    inner = timed(lambda: next(steps))

    def with_its_threads(count: int) -> float:
        torch.set_num_threads(run.choice.threads)
        return inner(count)

    return with_its_threads


def floor(settings: PretrainSettings, shape: tuple[int, int, int], compiled: bool, channels_last: bool) -> Run:
    """Forward, backward and update on two batches of views that are always the same."""
    network = build_method(settings, shape[0], 0).train()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network.to(memory_format=layout)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-5)
    x0, x1 = (torch.rand(settings.batch_size or 256, *shape).contiguous(memory_format=layout) for _ in range(2))
    model = torch.compile(network) if compiled else network

    def step() -> None:
        model(x0, x1).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return timed(step)


def in_turn(arms: dict[str, Run], ours: str, rounds: int, steps: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds of our arm and of each other one right after it, round after round: A B A B.

    The rivals, which are far slower, take part in every third round.
    """
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in arms if name != ours}
    for number in range(rounds):
        for name, each in seconds.items():
            if not name.startswith(RIVALS) or number % 3 == 0:
                each.append((_turn(arms[ours], steps), _turn(arms[name], steps)))
    return seconds


def _turn(run: Run, steps: int, warmup: int = 2) -> float:
    torch.set_num_threads(THREADS)
    run(warmup)
    return run(steps)


def article_arms(folder: Path, console: Console) -> dict[str, Callable[[], Run]]:
    """The arms with the tutorial's network."""
    source = fashion_mnist().train
    settings = PretrainSettings("simsiam", 100, SIMSIAM, batch_size=256)
    return {
        "ours": lambda: ours(source, "gray-small", settings, folder / "article", Observer("ours", None, console)),
        "article": lambda: article(source, 256),
        "floor-eager": lambda: floor(settings, source.shape, False, False),
        "floor-eager-channels-last": lambda: floor(settings, source.shape, False, True),
        "floor-compiled": lambda: floor(settings, source.shape, True, False),
        "floor-compiled-channels-last": lambda: floor(settings, source.shape, True, True),
        "lightly-workers-0": lambda: lightly(source, 256, 0),
        "lightly-workers-2": lambda: lightly(source, 256, 2),
    }


def resnet_arms(folder: Path, console: Console) -> dict[str, Callable[[], Run]]:
    """ResNet-18 on images of CIFAR-10's shape, two recipes."""
    images = np.random.default_rng(0).integers(0, 256, (12_800, 3, 32, 32), dtype=np.uint8)
    source = ArraySource(images, None, ())
    settings = PretrainSettings("simsiam", 100, SIMSIAM, backbone="resnet18", batch_size=64)

    def with_views(views: str) -> Callable[[], Run]:
        def make() -> Run:
            # What was chosen for the first recipe holds for the second.
            for chosen in folder.glob("resnet18-*/engine.json"):
                write_bytes(folder / f"resnet18-{views}" / chosen.name, chosen.read_bytes())
            return ours(source, views, settings, folder / f"resnet18-{views}", Observer(views, None, console))

        return make

    return {
        "ours, rgb-small": with_views("rgb-small"),
        "ours, randaugment": with_views("randaugment"),
        "floor-eager": lambda: floor(settings, source.shape, False, False),
        "floor-eager-channels-last": lambda: floor(settings, source.shape, False, True),
    }


def measured(
    arms: dict[str, Callable[[], Run]], backbone: str, batch: int, rounds: int, steps: int
) -> list[dict[str, Any]]:
    """A row an arm, the first of which is ours; of lightly's two only the faster is called ``lightly``."""
    ready = {}
    for name, make in arms.items():
        print(f"{backbone}: preparing {name}", flush=True)
        ready[name] = make()
        torch.set_num_threads(THREADS)
        ready[name](2)
    ours = next(iter(arms))
    print(f"{backbone}: {rounds} rounds", flush=True)
    began = time.perf_counter()
    seconds = in_turn(ready, ours, rounds, steps)
    print(f"{backbone}: measured in {time.perf_counter() - began:.0f} s", flush=True)
    images = batch * steps
    beside = {name: [round(images / mine, 1) for mine, _ in each] for name, each in seconds.items()}
    rates = {name: [round(images / theirs, 1) for _, theirs in each] for name, each in seconds.items()}
    rows = [_row(ours, [rate for each in beside.values() for rate in each], backbone, batch, images)]
    rows += [{**_row(name, rates[name], backbone, batch, images), "ours_beside": beside[name]} for name in rates]
    workers = [row for row in rows if row["what"].startswith("lightly-")]
    if workers:
        rows.append({**max(workers, key=lambda row: float(row["images_per_second"])), "what": "lightly"})
    return rows


def _row(name: str, rates: list[float], backbone: str, batch: int, images: int) -> dict[str, Any]:
    return {
        "what": name,
        "backbone": backbone,
        "batch": batch,
        "images_per_second": round(median(rates), 1),
        "repeats": len(rates),
        "rounds": rates,
        "seed": 0,
        "seconds": round(sum(images / rate for rate in rates), 1),
    }


def main() -> None:
    """Measure, write, and print the three ratios."""
    file = ResultFile("pretrain_speed", COMMAND, keys=("what", "backbone", "batch"))
    with tempfile.TemporaryDirectory() as folder:
        console = Console()
        file.replace(measured(article_arms(Path(folder), console), "article", 256, rounds=30, steps=8))
        if not file.has(what="floor-eager", backbone="resnet18", batch=64):
            file.replace(measured(resnet_arms(Path(folder), console), "resnet18", 64, rounds=3, steps=3))
    print(ratios(article_rows(file.rows)))


if __name__ == "__main__":
    print(f"{RESULTS / 'pretrain_speed.json'}")
    main()
