"""Cost of the collapse monitor: duration of a check, and of the training steps between two checks, in turn."""

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import ResultFile
from fewlabels.augment.recipes import RECIPES
from fewlabels.data.fashion_mnist import fashion_mnist
from fewlabels.ssl.collapse import CHECK_INTERVAL
from fewlabels.ssl.pretrain import ComputeConfig, Pretraining, PretrainSettings
from fewlabels.training.callbacks import Observer
from fewlabels.training.precision import fastest_precision

ROUNDS = 9


def main() -> None:
    """Measure the methods that have no row yet."""
    file = ResultFile("guard_cost", "make benchmark-speed", keys=("method",))
    source = fashion_mnist().train
    precision = fastest_precision("cpu")  # as in the command
    for method in ("simsiam", "simclr", "mocov2"):
        if file.has(method=method):
            continue
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as name:
            settings = PretrainSettings(method, 20, precision=precision)
            run = Pretraining(source, RECIPES["gray-small"], settings, Path(name), 0, Observer(""), ComputeConfig())
            run.prepare(run._choose_execution())
            run.monitor.check_before_training(run.method)
            pairs = run.feed(0, run.total_steps)
            checks, steps = [], []
            for turn in range(ROUNDS):
                start = time.perf_counter()
                for step in range(turn * CHECK_INTERVAL, (turn + 1) * CHECK_INTERVAL):
                    loss = run.train_step(step, pairs).item()
                middle = time.perf_counter()
                run.monitor.check(run.method, (turn + 1) * CHECK_INTERVAL, [loss])
                steps.append(middle - start)
                checks.append(time.perf_counter() - middle)
        fraction = median(check / (check + step) for check, step in zip(checks[1:], steps[1:], strict=True))
        row: dict[str, Any] = {"method": method, "precision": precision, "backbone": "article", "batch": 256}
        row["share"] = round(fraction, 4)
        row |= {"milliseconds_a_look": round(1000 * median(checks[1:]), 1), "repeats": ROUNDS - 1, "seed": 0}
        row |= {"milliseconds_a_step": round(1000 * median(steps[1:]) / CHECK_INTERVAL, 1)}
        file.add({**row, "seconds": round(time.perf_counter() - began, 1)})
        print(row, flush=True)


if __name__ == "__main__":
    main()
