"""What the guard's looks cost of a run: seconds of a look beside those of the steps between two looks, in turn."""

import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.harness import ResultFile
from fewlabels.augment.recipes import RECIPES
from fewlabels.data.fashion_mnist import fashion_mnist
from fewlabels.ssl.collapse import LOOK_EVERY
from fewlabels.ssl.pretrain import Engine, Pretraining, PretrainSettings
from fewlabels.training.callbacks import Observer
from fewlabels.training.precision import fastest_precision

ROUNDS = 9


def main() -> None:
    """Measure what has no row yet."""
    file = ResultFile("guard_cost", "make benchmark-speed", keys=("method",))
    source = fashion_mnist().train
    precision = fastest_precision("cpu")  # the command's own
    for method in ("simsiam", "simclr", "mocov2"):
        if file.has(method=method):
            continue
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as name:
            settings = PretrainSettings(method, 20, precision=precision)
            run = Pretraining(source, RECIPES["gray-small"], settings, Path(name), 0, Observer(""), Engine())
            run.prepare(run._choice())
            run.guard.before(run.method)
            pairs = run.feed(0, run.total)
            looks, steps = [], []
            for turn in range(ROUNDS):
                start = time.perf_counter()
                for step in range(turn * LOOK_EVERY, (turn + 1) * LOOK_EVERY):
                    loss = run.train_step(step, pairs).item()
                middle = time.perf_counter()
                run.guard.look(run.method, (turn + 1) * LOOK_EVERY, [loss])
                steps.append(middle - start)
                looks.append(time.perf_counter() - middle)
        share = median(look / (look + step) for look, step in zip(looks[1:], steps[1:], strict=True))
        row = {"method": method, "precision": precision, "backbone": "article", "batch": 256, "share": round(share, 4)}
        row |= {"milliseconds_a_look": round(1000 * median(looks[1:]), 1), "repeats": ROUNDS - 1, "seed": 0}
        row |= {"milliseconds_a_step": round(1000 * median(steps[1:]) / LOOK_EVERY, 1)}
        file.add({**row, "seconds": round(time.perf_counter() - began, 1)})
        print(row, flush=True)


if __name__ == "__main__":
    main()
