"""Label-free scores of a pretrained network; a higher score is better."""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.linear_model import RidgeClassifier
from torch import Tensor
from torch.nn import functional as F

from fewlabels.data.source import ImageSource, evenly_spaced
from fewlabels.ssl.methods import Method
from fewlabels.ssl.metrics import (
    alignment,
    alpha_req,
    features_and_projections,
    lidar,
    rankme,
    retrieval_accuracy,
    uniformity,
)
from fewlabels.training.pairs import Views

SCORE_IMAGES = 1024
"""Images that a score is computed on. Not tuned."""
SCORE_VIEWS = 4
"""Views of each image. Not tuned."""
SCORE_BATCH_SIZE = 256
"""Images per forward pass; limits memory."""

SCORES: dict[str, Callable[[Tensor, Tensor], float]] = {
    "RankMe, features": lambda h, z: rankme(h[:, 0]),
    "RankMe, projections": lambda h, z: rankme(z[:, 0]),
    "alpha-ReQ, features": lambda h, z: -abs(alpha_req(h[:, 0]) - 1),
    "LiDAR, features": lambda h, z: lidar(h),
    "LiDAR, projections": lambda h, z: lidar(z),
    "alignment, features": lambda h, z: -alignment(h[:, 0], h[:, 1]),
    "uniformity, features": lambda h, z: -uniformity(h[:, 0]),
    "uniformity, projections": lambda h, z: -uniformity(z[:, 0]),
    "retrieval, features": lambda h, z: retrieval_accuracy(h[:, 0], h[:, 1]),
    "retrieval, projections": lambda h, z: retrieval_accuracy(z[:, 0], z[:, 1]),
}
"""Scores by name: functions of features h [N, SCORE_VIEWS, F] and projections z [N, SCORE_VIEWS, D].

The authors of RankMe use it to compare runs of one method only.
"""
ROTATION = "rotation probe, features"
"""Name of the score of :func:`_rotation_probe`."""


def label_free_scores(
    method: Method, source: ImageSource, views: Views, seed: int, names: tuple[str, ...] = (*SCORES, ROTATION)
) -> dict[str, float]:
    """Compute scores of a network, by name; the network is not changed.

    Args:
        method: a pretrained method with backbone and projector.
        source: its training images.
        views: its training views.
        seed: of the views for the scores.
        names: keys of ``SCORES``, or ``ROTATION``.
    """
    images = source.read(evenly_spaced(source, SCORE_IMAGES))
    by_view = [
        features_and_projections(method, views(images, (seed, "score", number)), SCORE_BATCH_SIZE)
        for number in range(SCORE_VIEWS)
    ]
    h, z = (torch.stack(each, dim=1) for each in zip(*by_view, strict=True))
    return {name: _rotation_probe(method, images) if name == ROTATION else SCORES[name](h, z) for name in names}


def _rotation_probe(method: Method, images: Tensor) -> float:
    """Held-out accuracy of a linear classifier of image rotations (Reed et al. 2021, section 3).

    Rotations are multiples of 90 degrees, or of 180 degrees for images that are not square. A quarter of the images is
    held out. Images are resized if the backbone has a fixed size.
    """
    turns = (0, 1, 2, 3) if images.shape[2] == images.shape[3] else (0, 2)
    held_out = np.arange(len(images)) % 4 == 0
    images, size = images / 255, getattr(method.backbone, "image_size", None)
    if size is not None:
        images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
    features = [
        features_and_projections(method, torch.rot90(images, turn, (2, 3)), SCORE_BATCH_SIZE)[0].numpy()
        for turn in turns
    ]
    scale = np.concatenate(features).std(axis=0) + 1e-6
    train, test = (np.concatenate([each[rows] / scale for each in features]) for rows in (~held_out, held_out))
    train_turns, test_turns = (np.repeat(turns, rows.sum()) for rows in (~held_out, held_out))
    return float(RidgeClassifier(alpha=100.0).fit(train, train_turns).score(test, test_turns))
