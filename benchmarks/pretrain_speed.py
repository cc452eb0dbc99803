"""Images per second of SimSiam training: fewlabels, the tutorial's script, lightly, and the bare training step.

All pipelines are timed in one process, in rounds. In a round, each of the others is timed right after fewlabels. The
speed is the median over rounds. A ratio is the median over rounds of two successive timings, because the machine's
speed drifts. Ratios are comparable within one run only, so a run replaces the rows of the run before.
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
from fewlabels.ssl.pretrain import ComputeConfig, Pretraining, PretrainSettings, build_method
from fewlabels.training.callbacks import Observer
from fewlabels.tutorial.methods import SIMSIAM

COMMAND = "make benchmark-speed"
THREADS = torch.get_num_threads()
SLOW_PIPELINES = ("article", "lightly")
"""Prefixes of pipelines that are timed in every third round only, because they are far slower."""


def fewlabels_loop(
    source: ImageSource, views: str, settings: PretrainSettings, folder: Path, observer: Observer
) -> Run:
    """Return the training loop of ``fewlabels pretrain``, after its tuning, with checkpoints and loss curve."""
    run = Pretraining(source, RECIPES[views], settings, folder, 0, observer, ComputeConfig())
    steps = run.steps()
    next(steps)
    timed_steps = timed(lambda: next(steps))

    def run_steps(count: int) -> float:
        torch.set_num_threads(run.execution.threads)
        return timed_steps(count)

    return run_steps


def bare_step(settings: PretrainSettings, shape: tuple[int, int, int], compiled: bool, channels_last: bool) -> Run:
    """Return a loop of forward pass, backward pass and update on two constant batches of views.

    No pipeline with the same computation can be faster.
    """
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


def time_in_turn(runs: dict[str, Run], ours: str, rounds: int, steps: int) -> dict[str, list[tuple[float, float]]]:
    """Return for each pipeline but ours, and for each round, the seconds of ours and of that pipeline right after it.

    ``SLOW_PIPELINES`` are timed in every third round.
    """
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs if name != ours}
    for number in range(rounds):
        for name, each in seconds.items():
            if not name.startswith(SLOW_PIPELINES) or number % 3 == 0:
                each.append((_seconds(runs[ours], steps), _seconds(runs[name], steps)))
    return seconds


def _seconds(run: Run, steps: int, warmup: int = 2) -> float:
    torch.set_num_threads(THREADS)
    run(warmup)
    return run(steps)


def article_pipelines(folder: Path, console: Console) -> dict[str, Callable[[], Run]]:
    """Return functions that make the pipelines with the tutorial's network, by name; ours is the first."""
    source = fashion_mnist().train
    settings = PretrainSettings("simsiam", 100, SIMSIAM, batch_size=256)
    return {
        "ours": lambda: fewlabels_loop(
            source, "gray-small", settings, folder / "article", Observer("ours", None, console)
        ),
        "article": lambda: article(source, 256),
        "floor-eager": lambda: bare_step(settings, source.shape, False, False),
        "floor-eager-channels-last": lambda: bare_step(settings, source.shape, False, True),
        "floor-compiled": lambda: bare_step(settings, source.shape, True, False),
        "floor-compiled-channels-last": lambda: bare_step(settings, source.shape, True, True),
        "lightly-workers-0": lambda: lightly(source, 256, 0),
        "lightly-workers-2": lambda: lightly(source, 256, 2),
    }


def resnet_pipelines(folder: Path, console: Console) -> dict[str, Callable[[], Run]]:
    """Return functions that make the pipelines with ResNet-18 on 32x32 RGB images, by name; ours is the first."""
    images = np.random.default_rng(0).integers(0, 256, (12_800, 3, 32, 32), dtype=np.uint8)
    source = ArraySource(images, None, ())
    settings = PretrainSettings("simsiam", 100, SIMSIAM, backbone="resnet18", batch_size=64)

    def with_views(views: str) -> Callable[[], Run]:
        def make() -> Run:
            # The second recipe uses the execution that was chosen for the first one.
            for execution in folder.glob("resnet18-*/engine.json"):
                write_bytes(folder / f"resnet18-{views}" / execution.name, execution.read_bytes())
            return fewlabels_loop(source, views, settings, folder / f"resnet18-{views}", Observer(views, None, console))

        return make

    return {
        "ours, rgb-small": with_views("rgb-small"),
        "ours, randaugment": with_views("randaugment"),
        "floor-eager": lambda: bare_step(settings, source.shape, False, False),
        "floor-eager-channels-last": lambda: bare_step(settings, source.shape, False, True),
    }


def measure(
    pipelines: dict[str, Callable[[], Run]], backbone: str, batch: int, rounds: int, steps: int
) -> list[dict[str, Any]]:
    """Time pipelines, of which the first is ours, and return their rows; ``lightly`` is the faster one of lightly's."""
    ready = {}
    for name, make in pipelines.items():
        print(f"{backbone}: preparing {name}", flush=True)
        ready[name] = make()
        torch.set_num_threads(THREADS)
        ready[name](2)
    ours = next(iter(pipelines))
    print(f"{backbone}: {rounds} rounds", flush=True)
    began = time.perf_counter()
    seconds = time_in_turn(ready, ours, rounds, steps)
    print(f"{backbone}: measured in {time.perf_counter() - began:.0f} s", flush=True)
    images = batch * steps
    our_rates = {name: [round(images / mine, 1) for mine, _ in each] for name, each in seconds.items()}
    rates = {name: [round(images / theirs, 1) for _, theirs in each] for name, each in seconds.items()}
    rows = [_row(ours, [rate for each in our_rates.values() for rate in each], backbone, batch, images)]
    rows += [{**_row(name, rates[name], backbone, batch, images), "ours_beside": our_rates[name]} for name in rates]
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
    """Measure, write the rows, and print three ratios."""
    file = ResultFile("pretrain_speed", COMMAND, keys=("what", "backbone", "batch"))
    with tempfile.TemporaryDirectory() as folder:
        console = Console()
        file.replace(measure(article_pipelines(Path(folder), console), "article", 256, rounds=30, steps=8))
        if not file.has(what="floor-eager", backbone="resnet18", batch=64):
            file.replace(measure(resnet_pipelines(Path(folder), console), "resnet18", 64, rounds=3, steps=3))
    print(ratios(article_rows(file.rows)))


if __name__ == "__main__":
    print(f"{RESULTS / 'pretrain_speed.json'}")
    main()
