"""What ``compare`` leaves, without any training: real images, real predictions of quick classifiers, made-up curves."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import confusion_matrix

from fewlabels.compare.plan import CompareSettings
from fewlabels.compare.verdict import sentence
from fewlabels.data.fashion_mnist import Splits
from fewlabels.metrics.paired_tests import Difference, holm, sign_flip_p, verdict

AHEAD = {
    "pixels": -4.4, "supervised": 0.0, "untrained-probe": -7.2, "mocov2-probe": 0.3, "mocov2-finetune": 1.9,
    "fit": 3.1,
}  # fmt: skip
"""Points by which each arm is better than supervised training."""
ASKED = "mocov2-finetune"
COLUMNS = 100


def make_result(labels: tuple[int, ...] = (100, 1000), pairs: int = 10, **changed: Any) -> dict[str, Any]:
    """``result.json``; ``changed`` replaces some of its entries."""
    rng = np.random.default_rng(0)
    arms: list[dict[str, Any]] = []
    found: dict[tuple[str, int], Difference] = {}
    for number in labels:
        baseline = rng.normal(0.48 + 0.13 * np.log10(number), 0.006, pairs)
        for arm, ahead in AHEAD.items():
            own = np.zeros(pairs) if arm == "supervised" else rng.normal(ahead / 100, 0.0035, pairs)
            scores, apart = baseline + own, float(own.std(ddof=1)) if pairs > 1 else 0.003
            spread = float(scores.std(ddof=1)) if pairs > 1 else None
            row = {"arm": arm, "labels": number, "macro_f1": scores.tolist(), "mean": float(scores.mean())}
            arms.append({**row, "spread": spread, "mean_without_twins": float(scores.mean()) - 0.0006})
            if arm != "supervised":
                middle, half = float(own.mean()), 0.003 + 2 * apart / pairs**0.5
                found[arm, number] = Difference(middle, middle - half, middle + half, sign_flip_p(own), pairs, apart)
    asked = {key: of.p for key, of in found.items() if key[0] == ASKED}
    p = holm(asked) | holm({key: of.p for key, of in found.items() if key[0] != ASKED})
    differences = [
        {"arm": arm, "labels": number, "difference": of.mean, "low": of.low, "high": of.high, "p": of.p}
        | {"p_adjusted": p[arm, number], "pairs": pairs, "verdict": verdict(of, p[arm, number])}
        for (arm, number), of in found.items()
    ]
    planned = CompareSettings(labels, pairs)
    sentences = [sentence(found[key], p[key], key[1], len(labels), planned) for key in asked]
    made = {
        "name": "compare",
        "command": f"fewlabels compare fashion-mnist --labels {','.join(map(str, labels))} --pairs {pairs}",
        "date": "2026-11-26",
        "versions": {"python": "3.11.2", "torch": "2.9.1", "fewlabels": "0.1"},
        "machine": {"cpu": "Intel(R) Xeon(R) Processor @ 2.10GHz", "cores": 2, "memory_gib": 23.5},
        "settings": {
            "labels": list(labels), "pairs": pairs, "budget": 3600.0, "methods": ["mocov2"], "backbone": "article",
            "weights": None,
        },
        "seconds": 3311.0,
        "class_names": [],
        "images": {"train": 60000, "test": 10000, "shape": [1, 28, 28], "data": "60000 images of 1x28x28, 833526b8"},
        "asked": ASKED,
        "verdict": " ".join(sentences),
        "arms": arms,
        "differences": differences,
        "audit": {
            "twins": 31, "test": 10000,
            "line": "31 of 10,000 test images have a twin among the training images: a second score leaves them out.",
        },
        "pretrainings": [_pretraining(pair, rng) for pair in range(pairs)],
        "probe": {"epochs": [0, 5, 10, 15, 20, 25], "values": [0.692, 0.751, 0.774, 0.786, 0.791, 0.794]},
        "measured": [
            ["mocov2", "25 epochs (planned: 281 s); Settings(temperature=0.1, queue=4096, momentum=0.99)"],
            ["views of pretraining", "crop 0.3 to 1, flip, brightness 0.4, erase 0.25"],
        ],
    }  # fmt: skip
    return {**made, **changed}


def _pretraining(pair: int, rng: np.random.Generator) -> dict[str, Any]:
    steps = np.arange(0, 5900, 50)
    loss = 4.1 + 3.8 * np.exp(-steps / 900) + rng.normal(0, 0.06, len(steps)) + 0.05 * pair
    watched = steps[::4]
    rank = 9 + 60 * (1 - np.exp(-watched / 1500)) + rng.normal(0, 0.8, len(watched)) + pair
    even = -0.4 - 2.9 * (1 - np.exp(-watched / 700)) + rng.normal(0, 0.03, len(watched))
    curves = (("loss", steps, loss), ("rankme", watched, rank), ("uniformity", watched, even))
    drawn = {name: {"steps": x.tolist(), "values": y.round(4).tolist()} for name, x, y in curves}
    about = {"name": f"mocov2, pair {pair + 1}", "method": "mocov2", "pair": pair, "epochs": 25, "seconds": 281.0}
    return {**about, **drawn, "verdicts": []}


def make_panels(fmnist: Splits, count: int) -> dict[str, Any]:
    """``panels.json`` of the first images: four fifths of the points are test images."""
    number = count - count // 5
    few = count // 10
    images = np.concatenate([fmnist.train.images[: count - number], fmnist.test.images[:number]])[:, 0]
    truth = np.concatenate([fmnist.train.labels[: count - number], fmnist.test.labels[:number]])
    pixels = images.reshape(count, -1) / 255
    learner = RidgeClassifier(30.0).fit(pixels[:few], truth[:few])
    scores = 6 * learner.decision_function(pixels)
    sure = np.exp(scores - scores.max(axis=1, keepdims=True))
    sure /= sure.sum(axis=1, keepdims=True)
    named, confidence = learner.classes_[sure.argmax(axis=1)], np.rint(100 * sure.max(axis=1)).astype(int)
    split = np.where(np.arange(count) >= count - number, 2, np.arange(count) >= few)
    places = PCA(3, random_state=0).fit_transform(pixels)
    places = np.clip((places / np.abs(places).max()).astype(float), -1, 1)
    test, of_all = split == 2, learner.predict(fmnist.test.images.reshape(len(fmnist.test), -1) / 255)
    wrong = np.flatnonzero(test & (named != truth))
    doubts = np.flatnonzero((split == 1) & (named != truth))
    doubts = doubts[np.argsort(-confidence[doubts], kind="stable")][:30]
    return {
        "title": "mocov2-finetune, 1,000 labels, pair 1",
        "points": {
            "x": places[:, 0].tolist(), "y": places[:, 1].tolist(),
            "x3": places[:, 0].tolist(), "y3": places[:, 1].tolist(), "z3": places[:, 2].tolist(),
            "label": np.where(split == 1, -1, truth).tolist(), "prediction": named.tolist(),
            "confidence": confidence.tolist(), "split": split.tolist(),
            "name": [f"{'test' if test[i] else 'training'} {i - (count - number) * test[i]}" for i in range(count)],
        },
        "sprite": make_sprite(images),
        "confusion": confusion_matrix(fmnist.test.labels, of_all, labels=range(10)).tolist(),
        "shown": number,
        "mistakes": wrong[np.argsort(-confidence[wrong], kind="stable")][:60].tolist(),
        "label_errors": [
            {"point": int(i), "given": int(truth[i]), "suggested": int(named[i]), "confidence": int(confidence[i])}
            for i in doubts
        ],
        "twins": [[count - 1 - i, i] for i in range(6)],
    }  # fmt: skip


def make_sprite(images: np.ndarray) -> dict[str, Any]:
    """Of uint8 [N, H, W] or [N, H, W, 3]."""
    count, height, width = images.shape[:3]
    rows = -(-count // COLUMNS)
    grid = np.zeros((rows * COLUMNS, *images.shape[1:]), np.uint8)
    grid[:count] = images
    sheet = grid.reshape(rows, COLUMNS, height, width, -1).swapaxes(1, 2).reshape(rows * height, COLUMNS * width, -1)
    buffer = io.BytesIO()
    Image.fromarray(sheet.squeeze()).save(buffer, "webp", quality=75)
    webp = base64.b64encode(buffer.getvalue()).decode()
    return {"webp": webp, "side_x": width, "side_y": height, "columns": COLUMNS}
