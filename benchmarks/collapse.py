"""Detection rate, named causes and false alarms of the collapse monitor, on faulty and healthy pretraining runs.

The thresholds of the monitor were set on runs with other seeds. A faulty run ends at the verdict, or after an epoch
without one. A healthy run trains for an epoch. ``knn_macro_f1`` is the score of a k-NN probe on the tutorial's 1,000
labels at the end of the run; the monitor reads no label.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import f1_score
from torch import nn
from torch.nn import functional as F

from benchmarks.harness import ResultFile
from fewlabels.augment.recipes import RECIPES, Recipe
from fewlabels.backbones.inference import outputs
from fewlabels.data.fashion_mnist import fashion_mnist
from fewlabels.data.source import ArraySource
from fewlabels.features.probes import knn_probe
from fewlabels.ssl.methods import METHODS, Method, MethodOutput
from fewlabels.ssl.methods.byol import BYOL
from fewlabels.ssl.methods.moco import MoCoV2Settings
from fewlabels.ssl.methods.simsiam import SimSiam
from fewlabels.ssl.pretrain import Collapsed, ComputeConfig, Pretraining, PretrainSettings
from fewlabels.training.callbacks import Observer
from fewlabels.tutorial.methods import SIMSIAM

SEEDS = (6, 7)
LABELS = 1000
MAX_FAULTY_STEPS = 500
"""Steps after which a faulty run ends without a verdict: with tiny batches an epoch is long. Not tuned."""


def cosine(p: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Return the mean negative cosine similarity, with a gradient to both arguments."""
    return -F.cosine_similarity(p, z, dim=1, eps=1e-6).mean()


class LeakySimSiam(SimSiam):
    """SimSiam without the stop-gradient."""

    def forward(self, x0: torch.Tensor, x1: torch.Tensor) -> MethodOutput:
        z0, z1 = self.encode(x0), self.encode(x1)
        return MethodOutput((cosine(self.predictor(z0), z1) + cosine(self.predictor(z1), z0)) / 2, z0)


class LeakyBYOL(BYOL):
    """BYOL whose targets are its own projections, with a gradient, instead of those of the momentum encoder."""

    def forward(self, x0: torch.Tensor, x1: torch.Tensor) -> MethodOutput:
        z0, z1 = self.encode(x0), self.encode(x1)
        return MethodOutput(4 + 2 * cosine(self.predictor(z0), z1) + 2 * cosine(self.predictor(z1), z0), z0)


def remove_stop_gradient(method: Method) -> None:
    """Let gradients flow into the target."""
    method.__class__ = {SimSiam: LeakySimSiam, BYOL: LeakyBYOL}[type(method)]


def remove_predictor(method: Method) -> None:
    """Replace the predictor by the identity."""
    method.predictor = nn.Identity()


def remove_momentum(method: Method) -> None:
    """Set the momentum to 0, so that the momentum encoder equals the network."""
    vars(method)["momentum"] = 0.0


@dataclass(frozen=True)
class Case:
    """A pretraining run and its planted fault."""

    name: str
    method: str
    cause: str | None = None
    """Cause that the monitor should name; None: the run is healthy."""
    plant: Callable[[Method], None] | None = None
    views: Recipe = RECIPES["gray-small"]  # type: ignore[assignment]
    source: str = "fashion-mnist"
    rate: float = 1.0
    """Factor of the method's default learning rate."""
    batch_size: int = 256
    method_settings: Any = None
    """None: the defaults of the method."""
    epochs: int = 1
    """Epochs that are trained; the learning-rate schedule is over 20."""


FAULTY = (
    *(Case("no stop-gradient", method, "stop-gradient", remove_stop_gradient) for method in ("simsiam", "byol")),
    *(Case("no predictor", method, "predictor", remove_predictor) for method in ("simsiam", "byol")),
    *(
        Case("learning rate x30", method, "learning rate", rate=30)
        for method in ("simsiam", "byol", "vicreg", "barlow-twins", "mocov3")
    ),
    Case("weak views", "simclr", "views", views=Recipe(brightness=0.02)),
    Case("weak views", "simsiam", "views", views=Recipe(rotate=1, gamma=0.05)),
    *(Case("batch of 2", method, "batch", batch_size=2) for method in ("simsiam", "vicreg")),
    Case("nearly constant images", "simclr", "images", source="constant"),
    Case("four images, over and over", "vicreg", "images", source="four"),
    Case("momentum 0", "mocov2", "momentum", remove_momentum),
    Case(
        "momentum 0, queue of 8,192", "mocov2", "momentum", remove_momentum, method_settings=MoCoV2Settings(queue=8192)
    ),
)
HEALTHY = (
    *(Case("as it comes", method) for method in METHODS),
    Case("batch of 64", "vicreg", batch_size=64),
    Case("batch of 32", "barlow-twins", batch_size=32),
    Case("RandAugment", "simclr", views=RECIPES["randaugment"]),  # type: ignore[arg-type]
    Case("RandAugment", "byol", views=RECIPES["randaugment"]),  # type: ignore[arg-type]
    Case("the tutorial's settings", "simsiam", method_settings=SIMSIAM),
    Case("learning rate x1/3", "vicreg", rate=1 / 3),
    Case("learning rate x1/10", "mocov2", rate=0.1),
    # No collapse: with a short queue, features and projections are as good as with momentum.
    Case("momentum 0, queue of 1,024", "mocov2", plant=remove_momentum, method_settings=MoCoV2Settings(queue=1024)),
    *(Case("digits, 8x8 made 28x28", method, source="digits", batch_size=128, epochs=15) for method in METHODS),
)


def sources() -> dict[str, ArraySource]:
    """Return the image sources by name."""
    real = fashion_mnist().train
    drawn = np.random.default_rng(0)
    noise = (100 + drawn.integers(0, 2, real.images.shape)).astype(np.uint8)
    small = torch.from_numpy(load_digits().images)[:, None] * (255 / 16)
    digits = F.interpolate(small, (28, 28), mode="bilinear").round().byte().numpy()
    return {
        "fashion-mnist": real,
        "constant": ArraySource(noise, None, ()),
        "four": ArraySource(real.images[drawn.integers(0, 4, len(real))], None, ()),
        "digits": ArraySource(digits, None, ()),
    }


def run_case(case: Case, seed: int, source: ArraySource, labelled: ArraySource, test: ArraySource) -> dict[str, Any]:
    """Run a case and return its row."""
    settings = PretrainSettings(case.method, 20, case.method_settings, batch_size=case.batch_size)
    settings = replace(settings, lr=case.rate * settings.of_method.optimizer.lr)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        compute = ComputeConfig(tune=False, checkpoint_seconds=3600)
        run = Pretraining(source, case.views, settings, Path(name), seed, Observer(case.method), compute)
        if case.plant is not None:
            case.plant(run.method)
        steps = case.epochs * run.per_epoch
        if case.cause:
            steps = min(steps, MAX_FAULTY_STEPS)
        verdict, step = None, 0
        try:
            for step in run.steps():
                if step == steps:
                    break
        except Collapsed as stop:
            verdict = stop.verdict
            step = verdict.step
    row: dict[str, Any] = {"case": case.name, "method": case.method, "seed": seed, "collapsed": case.cause is not None}
    row |= {"found": verdict is not None, "epoch_found": None, "cause_planted": case.cause, "cause_named": None}
    row["steps"] = step
    if verdict is not None:
        row |= {"epoch_found": round(step / run.per_epoch, 3), "cause_named": verdict.cause}
        row |= {"kind": verdict.kind, "line": verdict.line}
    if case.source == "fashion-mnist" and step:
        probe = knn_probe(outputs(run.method.backbone, labelled), labelled.labels)
        predicted = probe.estimator.predict(outputs(run.method.backbone, test))
        row["knn_macro_f1"] = round(f1_score(test.labels, predicted, average="macro"), 4)
    if run.monitor.history:
        row["reading"] = {name: round(value, 3) for name, value in run.monitor.latest_metrics().items()}
    return {**row, "seconds": round(time.perf_counter() - began, 1)}


def main() -> None:
    """Measure the cases that have no row yet."""
    file = ResultFile("collapse", "python -m benchmarks.collapse", keys=("case", "method", "seed"))
    by_name = sources()
    labelled = by_name["fashion-mnist"].first_k(LABELS)
    # The k-NN probe is scored on training images that it was not fitted to.
    unseen = by_name["fashion-mnist"].subset(slice(LABELS, 3 * LABELS))
    for seed in SEEDS:
        for case in (*FAULTY, *HEALTHY):
            if file.has(case=case.name, method=case.method, seed=seed):
                continue
            row = run_case(case, seed, by_name[case.source], labelled, unseen)
            file.add(row)
            print(json.dumps(row), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
