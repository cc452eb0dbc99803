"""Images per second from raw pixels to probabilities: onnxruntime and eager torch in turn, one thread each."""

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import torch

from benchmarks.harness import ResultFile
from fewlabels.backbones.classifier import Classifier
from fewlabels.data.fashion_mnist import fashion_mnist
from fewlabels.data.preprocessing import ImageSpec, Preprocessing
from fewlabels.deploy.export import INPUT_NAME, ExportedModule, export_classifier

ROUNDS = 9
TURN_SECONDS = 0.7
"""Duration of a runtime's turn in a round. Not tuned."""
BATCHES = (1, 256)


def main() -> None:
    """Measure the settings that have no row yet."""
    file = ResultFile("export_speed", "make benchmark-speed", keys=("backbone", "batch"))
    test = fashion_mnist().test
    torch.set_num_threads(1)
    for backbone in ("article", "small"):
        if all(file.has(backbone=backbone, batch=batch) for batch in BATCHES):
            continue
        classifier = Classifier(backbone, test.class_names).eval()
        preprocessing = Preprocessing(ImageSpec(*test.shape, "uint8"))
        content, _ = export_classifier(classifier, preprocessing, "onnx")
        exported, session = ExportedModule(classifier, preprocessing).eval(), _session(content)
        for batch in BATCHES:
            began = time.perf_counter()
            images = test.read(slice(batch)).numpy()
            runtimes: dict[str, Callable[[], np.ndarray]] = {
                "eager": partial(_eager, exported, images),
                "onnxruntime": partial(_onnx, session, images),
            }
            speeds = {name: [batch * rate for rate in rates] for name, rates in _calls_per_second(runtimes).items()}
            ratios = [ours / eager for ours, eager in zip(speeds["onnxruntime"], speeds["eager"], strict=True)]
            row: dict[str, Any] = {"backbone": backbone, "batch": batch, "test_views": False, "threads": 1}
            row |= {f"{name}_images_per_second": round(median(each), 1) for name, each in speeds.items()}
            row |= {"ratio": round(median(ratios), 3), "ratios": [round(each, 3) for each in ratios]}
            row |= {"onnxruntime": onnxruntime.__version__, "repeats": ROUNDS, "seed": 0}
            file.add({**row, "seconds": round(time.perf_counter() - began, 1)})
            print(row, flush=True)


def _session(content: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@torch.inference_mode()
def _eager(exported: ExportedModule, images: np.ndarray) -> np.ndarray:
    return exported(torch.from_numpy(images)).numpy()  # type: ignore[no-any-return]


def _onnx(session: Any, images: np.ndarray) -> np.ndarray:
    return session.run(None, {INPUT_NAME: images})[0]  # type: ignore[no-any-return]


def _calls_per_second(runtimes: dict[str, Callable[[], np.ndarray]]) -> dict[str, list[float]]:
    """Return the calls per second in each round, by runtime; runtimes take turns, and a first round is a warm-up."""
    found: dict[str, list[float]] = {name: [] for name in runtimes}
    for _ in range(ROUNDS + 1):
        for name, call in runtimes.items():
            calls, began = 0, time.perf_counter()
            while (spent := time.perf_counter() - began) < TURN_SECONDS:
                call()
                calls += 1
            found[name].append(calls / spent)
    return {name: rates[1:] for name, rates in found.items()}


if __name__ == "__main__":
    main()
