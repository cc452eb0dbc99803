"""Results of ``compare`` for tests: real images, predictions of quick classifiers, and invented curves."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image
from scipy.special import softmax
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import confusion_matrix

from fewlabels.compare.plan import CompareSettings
from fewlabels.compare.verdict import verdict_sentence
from fewlabels.data.fashion_mnist import Splits
from fewlabels.metrics.paired_tests import Difference, holm, sign_flip_p, verdict

GAINS = {
    "pixels": -4.4, "supervised": 0.0, "untrained-probe": -7.2, "mocov2-probe": 0.3, "mocov2-finetune": 1.9,
    "fit": 3.1,
}  # fmt: skip
"""Mean difference of each candidate to supervised training, in points."""
PRIMARY = "mocov2-finetune"
AUDIT_LINE = "31 of 10,000 test images have a near-duplicate among the training images: a second score leaves them out."
COLUMNS = 100


def make_result(labels: tuple[int, ...] = (100, 1000), pairs: int = 10, **changed: Any) -> dict[str, Any]:
    """Content of ``result.json``; ``changed`` replaces some of its entries."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    differences: dict[tuple[str, int], Difference] = {}
    for number in labels:
        baseline = rng.normal(0.48 + 0.13 * np.log10(number), 0.006, pairs)
        for name, gain in GAINS.items():
            gains = np.zeros(pairs) if name == "supervised" else rng.normal(gain / 100, 0.0035, pairs)
            scores, std = baseline + gains, float(gains.std(ddof=1)) if pairs > 1 else 0.003
            spread = float(scores.std(ddof=1)) if pairs > 1 else None
            row = {"arm": name, "labels": number, "macro_f1": scores.tolist(), "mean": float(scores.mean())}
            rows.append({**row, "spread": spread, "mean_without_near_duplicates": float(scores.mean()) - 0.0006})
            if name != "supervised":
                mean, half = float(gains.mean()), 0.003 + 2 * std / pairs**0.5
                differences[name, number] = Difference(mean, mean - half, mean + half, sign_flip_p(gains), pairs, std)
    primary = {key: each.p for key, each in differences.items() if key[0] == PRIMARY}
    p = holm(primary) | holm({key: each.p for key, each in differences.items() if key[0] != PRIMARY})
    claims = [
        {"arm": name, "labels": number, "difference": each.mean, "low": each.low, "high": each.high, "p": each.p}
        | {"p_adjusted": p[name, number], "pairs": pairs, "verdict": verdict(each, p[name, number])}
        for (name, number), each in differences.items()
    ]
    settings = CompareSettings(labels, pairs)
    sentences = [verdict_sentence(differences[key], p[key], key[1], len(labels), settings) for key in primary]
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
        "primary": PRIMARY,
        "verdict": " ".join(sentences),
        "scores": rows,
        "differences": claims,
        "audit": {"near_duplicates": 31, "test": 10000, "line": AUDIT_LINE},
        "pretrainings": [_pretraining(pair, rng) for pair in range(pairs)],
        "probe": {"epochs": [0, 5, 10, 15, 20, 25], "values": [0.692, 0.751, 0.774, 0.786, 0.791, 0.794]},
        "measured": [
            ["mocov2", "25 epochs (time limit 281 s); Settings(temperature=0.1, queue=4096, momentum=0.99)"],
            ["pretraining views", "crop 0.3 to 1, flip, brightness 0.4, erase 0.25"],
        ],
    }  # fmt: skip
    return {**made, **changed}


def _pretraining(pair: int, rng: np.random.Generator) -> dict[str, Any]:
    steps = np.arange(0, 5900, 50)
    loss = 4.1 + 3.8 * np.exp(-steps / 900) + rng.normal(0, 0.06, len(steps)) + 0.05 * pair
    checked = steps[::4]
    rank = 9 + 60 * (1 - np.exp(-checked / 1500)) + rng.normal(0, 0.8, len(checked)) + pair
    uniformity = -0.4 - 2.9 * (1 - np.exp(-checked / 700)) + rng.normal(0, 0.03, len(checked))
    triples = (("loss", steps, loss), ("rankme", checked, rank), ("uniformity", checked, uniformity))
    curves = {name: {"steps": x.tolist(), "values": y.round(4).tolist()} for name, x, y in triples}
    about = {"name": f"mocov2, pair {pair + 1}", "method": "mocov2", "pair": pair, "epochs": 25, "seconds": 281.0}
    return {**about, **curves, "verdicts": []}


def make_panels(fmnist: Splits, count: int) -> dict[str, Any]:
    """Content of ``panels.json`` for the first images: four fifths of the points are test images."""
    num_test = count - count // 5
    num_labelled = count // 10
    images = np.concatenate([fmnist.train.images[: count - num_test], fmnist.test.images[:num_test]])[:, 0]
    truth = np.concatenate([fmnist.train.labels[: count - num_test], fmnist.test.labels[:num_test]])
    pixels = images.reshape(count, -1) / 255
    classifier = RidgeClassifier(30.0).fit(pixels[:num_labelled], truth[:num_labelled])
    probabilities = softmax(6 * classifier.decision_function(pixels), axis=1)
    predicted = classifier.classes_[probabilities.argmax(axis=1)]
    confidence = np.rint(100 * probabilities.max(axis=1)).astype(int)
    split = np.where(np.arange(count) >= count - num_test, 2, np.arange(count) >= num_labelled)
    points = PCA(3, random_state=0).fit_transform(pixels)
    points = np.clip((points / np.abs(points).max()).astype(float), -1, 1)
    test, of_all = split == 2, classifier.predict(fmnist.test.images.reshape(len(fmnist.test), -1) / 255)
    wrong = np.flatnonzero(test & (predicted != truth))
    issues = np.flatnonzero((split == 1) & (predicted != truth))
    issues = issues[np.argsort(-confidence[issues], kind="stable")][:30]
    return {
        "title": "mocov2-finetune, 1,000 labels, pair 1",
        "points": {
            "x": points[:, 0].tolist(), "y": points[:, 1].tolist(),
            "x3": points[:, 0].tolist(), "y3": points[:, 1].tolist(), "z3": points[:, 2].tolist(),
            "label": np.where(split == 1, -1, truth).tolist(), "prediction": predicted.tolist(),
            "confidence": confidence.tolist(), "split": split.tolist(),
            "name": [f"{'test' if test[i] else 'training'} {i - (count - num_test) * test[i]}" for i in range(count)],
        },
        "sprite": make_sprite(images),
        "confusion": confusion_matrix(fmnist.test.labels, of_all, labels=range(10)).tolist(),
        "shown": num_test,
        "mistakes": wrong[np.argsort(-confidence[wrong], kind="stable")][:60].tolist(),
        "label_errors": [
            {"point": int(i), "given": int(truth[i]), "suggested": int(predicted[i]), "confidence": int(confidence[i])}
            for i in issues
        ],
        "near_duplicates": [[count - 1 - i, i] for i in range(6)],
    }  # fmt: skip


def make_sprite(images: np.ndarray) -> dict[str, Any]:
    """The sprite of images uint8 [N, H, W] or [N, H, W, 3]."""
    count, height, width = images.shape[:3]
    rows = -(-count // COLUMNS)
    grid = np.zeros((rows * COLUMNS, *images.shape[1:]), np.uint8)
    grid[:count] = images
    sheet = grid.reshape(rows, COLUMNS, height, width, -1).swapaxes(1, 2).reshape(rows * height, COLUMNS * width, -1)
    buffer = io.BytesIO()
    Image.fromarray(sheet.squeeze()).save(buffer, "webp", quality=75)
    webp = base64.b64encode(buffer.getvalue()).decode()
    return {"webp": webp, "side_x": width, "side_y": height, "columns": COLUMNS}
