"""Data of the report's image panels: a map of the images, mistakes, label issues and near-duplicates."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix
from torch.nn import functional as F

from fewlabels._internal.umap import umap_projection
from fewlabels.audit.label_errors import LabelIssue, find_label_issues
from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.inference import outputs
from fewlabels.backbones.weights import load_backbone, load_classifier
from fewlabels.compare.cells import Experiment
from fewlabels.data.source import UNLABELLED, ArraySource, evenly_spaced
from fewlabels.fit.data import LabeledPool
from fewlabels.metrics.classification import probabilities

MAX_POINTS, MAX_LABELLED_POINTS, MAX_UNLABELLED_POINTS = 10_000, 2000, 1000
"""Images on the map: all, training images with a label, and without. Test images take the rest. By file size."""
MAX_GALLERY_IMAGES = 60
"""Images of a gallery. By file size."""
THUMBNAIL_SIDE = 32
"""Pixels of a thumbnail's longer side; larger images are reduced. By file size."""
SPRITE_COLUMNS = 100
"""Thumbnails in a row of the sprite."""
MAX_SPRITE_BYTES = 2_700_000
"""Bytes of the sprite, the image with all thumbnails. The report then has less than 5 MB."""
WEBP_QUALITIES = (90, 75, 60, 45, 30, 15)
"""Qualities that are tried in this order until the sprite is small enough."""


ImageNames = tuple[Sequence[str], Sequence[str]]
"""Names of the training images and of the test images, by row."""


def panels(experiment: Experiment, names: ImageNames) -> dict[str, Any]:
    """Data of the image panels as JSON, by the classifier of ``settings.displayed_trial``.

    It reads the test labels. :func:`~fewlabels.compare.run.compare` has to be finished before.
    """
    trial = experiment.settings.displayed_trial
    network, pool = load_classifier(experiment.displayed_network_file).to(experiment.device), experiment.pool(trial)
    test_probabilities = probabilities(outputs(network, experiment.test))
    predictions, originals = test_probabilities.argmax(axis=1), experiment.near_duplicates()
    wrong = np.flatnonzero(predictions != experiment.test.labels)
    mistakes = wrong[np.argsort(-test_probabilities[wrong].max(axis=1), kind="stable")][:MAX_GALLERY_IMAGES]
    issues = _label_issues(experiment, network, pool)
    near_duplicates = np.flatnonzero(originals >= 0)[:MAX_GALLERY_IMAGES]
    train_rows = select_rows(
        [
            originals[near_duplicates],
            pool.labelled[[issue.row for issue in issues]],
            pool.labelled[evenly_spaced(pool.labelled, MAX_LABELLED_POINTS)],
            pool.unlabelled[evenly_spaced(pool.unlabelled, MAX_UNLABELLED_POINTS)],
        ],
        MAX_POINTS,
    )
    test_groups = [near_duplicates, mistakes, wrong, np.arange(len(experiment.test))]
    test_rows = select_rows(test_groups, MAX_POINTS - len(train_rows))
    sources = [pool.source.subset(train_rows), experiment.test.subset(test_rows)]
    of_points = np.concatenate([probabilities(outputs(network, sources[0])), test_probabilities[test_rows]])
    train_points = {row: point for point, row in enumerate(train_rows.tolist())}
    test_points = {row: point for point, row in enumerate(test_rows.tolist(), len(train_rows))}
    labels = np.concatenate([source.labels for source in sources])
    return {
        "title": f"{trial.candidate.name}, {trial.labels:,} labels, pair {trial.pair + 1}",
        "points": {
            **_map_coordinates(np.concatenate([outputs(network.backbone, source) for source in sources])),
            "label": labels.tolist(),
            "prediction": of_points.argmax(axis=1).tolist(),
            "confidence": np.round(100 * of_points.max(axis=1)).astype(int).tolist(),
            "split": np.where(np.arange(len(labels)) >= len(train_rows), 2, labels == UNLABELLED).tolist(),
            "name": [f"training {names[0][row]}" for row in train_rows]
            + [f"test {names[1][row]}" for row in test_rows],
        },
        "sprite": sprite(sources),
        "confusion": confusion_matrix(
            experiment.test.labels, predictions, labels=range(test_probabilities.shape[1])
        ).tolist(),
        "shown": len(test_rows),
        "mistakes": [test_points[row] for row in mistakes.tolist()],
        "label_errors": [
            {
                "point": train_points[int(pool.labelled[issue.row])],
                "given": int(pool.labels[issue.row]),
                "suggested": issue.suggested,
                "confidence": round(100 * issue.confidence),
            }
            for issue in issues
        ],
        "near_duplicates": [[test_points[row], train_points[int(originals[row])]] for row in near_duplicates.tolist()],
    }


def select_rows(groups: Sequence[np.ndarray], at_most: int) -> np.ndarray:
    """Distinct rows of several groups, sorted. Earlier groups come first; a group that is too large is thinned evenly.

    >>> select_rows([np.array([5, 2]), np.arange(10)], 4)
    array([0, 2, 5, 9])
    """
    rows = np.empty(0, np.int64)
    for group in groups:
        new = np.setdiff1d(group, rows)
        rows = np.union1d(rows, new[evenly_spaced(new, at_most - len(rows))]).astype(np.int64)
    return rows


def sprite(sources: Sequence[ArraySource]) -> dict[str, Any]:
    """One WebP image with the thumbnails of all images, in rows of ``SPRITE_COLUMNS``, as JSON.

    Images with three channels are in colour. Of all others only the first channel is shown, in gray.
    """
    images = torch.cat([source.read(slice(None)) for source in sources])
    scale = min(1.0, THUMBNAIL_SIDE / max(images.shape[2:]))
    height, width = (max(1, round(side * scale)) for side in images.shape[2:])
    if scale < 1:
        images = F.adaptive_avg_pool2d(images.float(), (height, width)).round().byte()
    tiles = (images if images.shape[1] == 3 else images[:, :1]).permute(0, 2, 3, 1).numpy()
    rows = -(-len(tiles) // SPRITE_COLUMNS)
    grid = np.zeros((rows * SPRITE_COLUMNS, *tiles.shape[1:]), np.uint8)
    grid[: len(tiles)] = tiles
    mosaic = grid.reshape(rows, SPRITE_COLUMNS, height, width, -1).swapaxes(1, 2)
    mosaic = mosaic.reshape(rows * height, SPRITE_COLUMNS * width, -1)
    picture = Image.fromarray(mosaic if mosaic.shape[2] == 3 else mosaic[..., 0])
    for quality in WEBP_QUALITIES:
        buffer = io.BytesIO()
        picture.save(buffer, "webp", quality=quality)
        if buffer.tell() <= MAX_SPRITE_BYTES:
            break
    webp = base64.b64encode(buffer.getvalue()).decode()
    return {"webp": webp, "side_x": width, "side_y": height, "columns": SPRITE_COLUMNS}


def _label_issues(experiment: Experiment, network: Classifier, pool: LabeledPool) -> list[LabelIssue]:
    """Likely wrong labels, by features of the pretrained backbone, which was trained without labels."""
    settings = experiment.settings
    frozen = Classifier(network.backbone_name, network.class_names, pool.source.shape[0])
    load_backbone(frozen, experiment.initial_weights(settings.methods[0], settings.displayed_trial.pair))
    features = outputs(frozen.backbone, pool.source.subset(pool.labelled))
    return find_label_issues(features, pool.labels, groups=pool.groups)[:MAX_GALLERY_IMAGES]


def _map_coordinates(features: np.ndarray) -> dict[str, list[float]]:
    """UMAP coordinates of features [N, F] in two and in three dimensions, scaled to -1..1."""
    coordinates: dict[str, list[float]] = {}
    for axes in (("x", "y"), ("x3", "y3", "z3")):
        projected = umap_projection(features, components=len(axes))
        projected = projected - (projected.max(axis=0) + projected.min(axis=0)) / 2
        projected = np.round(projected / np.abs(projected).max(), 4)
        coordinates |= {axis: values.tolist() for axis, values in zip(axes, projected.astype(float).T, strict=True)}
    return coordinates
