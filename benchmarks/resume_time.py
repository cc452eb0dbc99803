"""Seconds until a new run and a resumed run have done their first step, and seconds per checkpoint."""

import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.harness import ResultFile
from fewlabels.augment.recipes import RECIPES
from fewlabels.data.fashion_mnist import fashion_mnist
from fewlabels.ssl.pretrain import ComputeConfig, Pretraining, PretrainSettings
from fewlabels.training.callbacks import Observer
from fewlabels.tutorial.methods import SIMSIAM

ROUNDS = 7


def main() -> None:
    """Measure the backbones that have no row yet."""
    file = ResultFile("resume_time", "make benchmark-speed", keys=("what", "backbone"))
    source = fashion_mnist().train
    for backbone in ("article", "resnet18"):
        if file.has(what="resume", backbone=backbone):
            continue
        settings = PretrainSettings("simsiam", 1, SIMSIAM, backbone=backbone, batch_size=64)
        seconds: dict[str, list[float]] = {"start": [], "checkpoint": [], "resume": []}
        for _ in range(ROUNDS):
            with tempfile.TemporaryDirectory() as name:
                for what in ("start", "resume"):
                    began = time.perf_counter()
                    run = Pretraining(
                        source, RECIPES["gray-small"], settings, Path(name), 0, Observer(""), ComputeConfig(tune=False)
                    )
                    steps = run.steps()
                    step = next(steps)
                    seconds[what].append(time.perf_counter() - began)
                    if what == "start":
                        began = time.perf_counter()
                        run.save(step)
                        seconds["checkpoint"].append(time.perf_counter() - began)
                    del steps
        for what, each in seconds.items():
            row = {"what": what, "backbone": backbone, "seconds": round(median(each), 3), "repeats": ROUNDS, "seed": 0}
            file.add(row)
            print(backbone, what, row["seconds"], "s", flush=True)


if __name__ == "__main__":
    main()
