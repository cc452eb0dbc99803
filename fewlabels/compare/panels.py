"""What the report shows behind the figures: points with their images, mistakes, doubtful labels, twins."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from fewlabels._internal.umap import umap_projection
from fewlabels.audit.label_errors import Doubt, doubtful
from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.inference import outputs
from fewlabels.backbones.weights import load_backbone, load_classifier
from fewlabels.compare.cells import Bench
from fewlabels.data.source import UNLABELLED, ArraySource, evenly_spaced
from fewlabels.fit.estimate import confusion_of
from fewlabels.fit.pool import Pool
from fewlabels.metrics.classification import probabilities

POINTS, LABELLED, UNLABELLED_SHOWN = 10_000, 2000, 1000
"""At most; what they leave is for test images."""
GALLERY = 60
"""Images of a gallery, at most."""
SIDE = 32
"""Pixels of a thumbnail, at most."""
COLUMNS = 100
SPRITE_BYTES = 2_700_000
"""Of the picture with all thumbnails, so that the report stays below 5 MB."""
QUALITIES = (90, 75, 60, 45, 30, 15)


Names = tuple[Sequence[str], Sequence[str]]
"""What the images of training and test are called."""


def panels(bench: Bench, names: Names) -> dict[str, Any]:
    """For JSON, of the classifier of ``bench.settings.shown``; it is called when test labels have been read."""
    cell = bench.settings.shown
    network, pool = load_classifier(bench.network_file).to(bench.device), bench.pool(cell)
    tested, copies = probabilities(outputs(network, bench.test)), bench.twins()
    named = tested.argmax(axis=1)
    wrong = np.flatnonzero(named != bench.test.labels)
    mistakes = wrong[np.argsort(-tested[wrong].max(axis=1), kind="stable")][:GALLERY]
    doubts, twins = _doubts(bench, network, pool), np.flatnonzero(copies >= 0)[:GALLERY]
    rows = [pool.labelled[evenly_spaced(pool.labelled, LABELLED)]]
    rows += [pool.unlabelled[evenly_spaced(pool.unlabelled, UNLABELLED_SHOWN)]]
    train_rows = chosen([copies[twins], pool.labelled[[doubt.place for doubt in doubts]], *rows], POINTS)
    test_rows = chosen([twins, mistakes, wrong, np.arange(len(bench.test))], POINTS - len(train_rows))
    sources = [pool.source.subset(train_rows), bench.test.subset(test_rows)]
    said = np.concatenate([probabilities(outputs(network, sources[0])), tested[test_rows]])
    of_train = {row: point for point, row in enumerate(train_rows.tolist())}
    of_test = {row: len(train_rows) + place for place, row in enumerate(test_rows.tolist())}
    labels = np.concatenate([source.labels for source in sources])
    return {
        "title": f"{cell.arm.name}, {cell.labels:,} labels, pair {cell.pair + 1}",
        "points": {
            **_places(np.concatenate([outputs(network.backbone, source) for source in sources])),
            "label": labels.tolist(),
            "prediction": said.argmax(axis=1).tolist(),
            "confidence": np.round(100 * said.max(axis=1)).astype(int).tolist(),
            "split": np.where(np.arange(len(labels)) >= len(train_rows), 2, labels == UNLABELLED).tolist(),
            "name": [f"training {names[0][row]}" for row in train_rows]
            + [f"test {names[1][row]}" for row in test_rows],
        },
        "sprite": sprite(sources),
        "confusion": confusion_of(bench.test.labels, named, tested.shape[1]).tolist(),
        "shown": len(test_rows),
        "mistakes": [of_test[row] for row in mistakes.tolist()],
        "label_errors": [
            {
                "point": of_train[int(pool.labelled[doubt.place])],
                "given": int(pool.labels[doubt.place]),
                "suggested": doubt.suggested,
                "confidence": round(100 * doubt.confidence),
            }
            for doubt in doubts
        ],
        "twins": [[of_test[row], of_train[int(copies[row])]] for row in twins.tolist()],
    }


def chosen(groups: Sequence[np.ndarray], at_most: int) -> np.ndarray:
    """Rows of the first groups first, each once, sorted; of a group that is too large, evenly spaced ones.

    >>> chosen([np.array([5, 2]), np.arange(10)], 4)
    array([0, 2, 5, 9])
    """
    rows = np.empty(0, np.int64)
    for group in groups:
        new = np.setdiff1d(group, rows)
        rows = np.union1d(rows, new[evenly_spaced(new, at_most - len(rows))]).astype(np.int64)
    return rows


def sprite(sources: Sequence[ArraySource]) -> dict[str, Any]:
    """One picture with a thumbnail of every image, in rows of ``COLUMNS``; three channels are colours, else gray."""
    images = torch.cat([source.read(slice(None)) for source in sources])
    scale = min(1.0, SIDE / max(images.shape[2:]))
    height, width = (max(1, round(side * scale)) for side in images.shape[2:])
    if scale < 1:
        images = F.adaptive_avg_pool2d(images.float(), (height, width)).round().byte()
    tiles = (images if images.shape[1] == 3 else images[:, :1]).permute(0, 2, 3, 1).numpy()
    rows = -(-len(tiles) // COLUMNS)
    grid = np.zeros((rows * COLUMNS, *tiles.shape[1:]), np.uint8)
    grid[: len(tiles)] = tiles
    mosaic = grid.reshape(rows, COLUMNS, height, width, -1).swapaxes(1, 2).reshape(rows * height, COLUMNS * width, -1)
    picture = Image.fromarray(mosaic if mosaic.shape[2] == 3 else mosaic[..., 0])
    for quality in QUALITIES:
        buffer = io.BytesIO()
        picture.save(buffer, "webp", quality=quality)
        if buffer.tell() <= SPRITE_BYTES:
            break
    webp = base64.b64encode(buffer.getvalue()).decode()
    return {"webp": webp, "side_x": width, "side_y": height, "columns": COLUMNS}


def _doubts(bench: Bench, network: Classifier, pool: Pool) -> list[Doubt]:
    """By features of the pretrained backbone, which has seen no label."""
    frozen = Classifier(network.backbone_name, network.class_names, pool.source.shape[0])
    load_backbone(frozen, bench.weights(bench.settings.methods[0], bench.settings.shown.pair))
    features = outputs(frozen.backbone, pool.source.subset(pool.labelled))
    return doubtful(features, pool.labels, groups=pool.groups)[:GALLERY]


def _places(features: np.ndarray) -> dict[str, list[float]]:
    """UMAP in two and in three dimensions, within -1..1."""
    axes: dict[str, list[float]] = {}
    for names in (("x", "y"), ("x3", "y3", "z3")):
        places = umap_projection(features, components=len(names))
        places = places - (places.max(axis=0) + places.min(axis=0)) / 2
        places = np.round(places / np.abs(places).max(), 4)
        axes |= {name: of_axis.tolist() for name, of_axis in zip(names, places.astype(float).T, strict=True)}
    return axes
