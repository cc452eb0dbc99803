"""Scores of a pretrained network that need no label; of each, more is better."""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.linear_model import RidgeClassifier
from torch import Tensor
from torch.nn import functional as F

from fewlabels.data.source import ImageSource, evenly_spaced
from fewlabels.ssl.methods import Method
from fewlabels.ssl.metrics import alignment, alpha_req, encoded, lidar, rankme, retrieval, uniformity
from fewlabels.training.pairs import Views

IMAGES = 1024
VIEWS = 4
BATCH = 256

SCORES: dict[str, Callable[[Tensor, Tensor], float]] = {
    "RankMe, features": lambda h, z: rankme(h[:, 0]),
    "RankMe, projections": lambda h, z: rankme(z[:, 0]),
    "alpha-ReQ, features": lambda h, z: -abs(alpha_req(h[:, 0]) - 1),
    "LiDAR, features": lambda h, z: lidar(h),
    "LiDAR, projections": lambda h, z: lidar(z),
    "alignment, features": lambda h, z: -alignment(h[:, 0], h[:, 1]),
    "uniformity, features": lambda h, z: -uniformity(h[:, 0]),
    "uniformity, projections": lambda h, z: -uniformity(z[:, 0]),
    "retrieval, features": lambda h, z: retrieval(h[:, 0], h[:, 1]),
    "retrieval, projections": lambda h, z: retrieval(z[:, 0], z[:, 1]),
}
"""By name: of features h [N, VIEWS, F], the backbone's, and projections z [N, VIEWS, D], which the loss compares.

RankMe's authors say that it may compare runs of one method only.
"""
ROTATION = "rotation probe, features"


def label_free_scores(
    method: Method, source: ImageSource, views: Views, seed: int, names: tuple[str, ...] = (*SCORES, ROTATION)
) -> dict[str, float]:
    """Scores by their names; the network is left as it was.

    Args:
        method: backbone and projector.
        source: what it was trained on.
        views: what it was trained with.
        seed: of the views that are scored.
        names: which scores.
    """
    images = source.read(evenly_spaced(source, IMAGES))
    by_view = [encoded(method, views(images, (seed, "score", number)), BATCH) for number in range(VIEWS)]
    h, z = (torch.stack(each, dim=1) for each in zip(*by_view, strict=True))
    return {name: _rotation_probe(method, images) if name == ROTATION else SCORES[name](h, z) for name in names}


def _rotation_probe(method: Method, images: Tensor) -> float:
    """Accuracy of a linear classifier that tells by how much an image was turned (Reed et al. 2021, section 3).

    By quarter turns, or by half turns where images are not square; a quarter of the images is held out. A backbone of
    a fixed size has them resized.
    """
    turns = (0, 1, 2, 3) if images.shape[2] == images.shape[3] else (0, 2)
    held_out = np.arange(len(images)) % 4 == 0
    images, wanted = images / 255, getattr(method.backbone, "image_size", None)
    if wanted is not None:
        images = F.interpolate(images, (wanted, wanted), mode="bilinear", antialias=True)
    features = [encoded(method, torch.rot90(images, turn, (2, 3)), BATCH)[0].numpy() for turn in turns]
    scale = np.concatenate(features).std(axis=0) + 1e-6
    learned, asked = (np.concatenate([each[rows] / scale for each in features]) for rows in (~held_out, held_out))
    answers = [np.repeat(turns, rows.sum()) for rows in (~held_out, held_out)]
    return float(RidgeClassifier(alpha=100.0).fit(learned, answers[0]).score(asked, answers[1]))
