"""Scores of a pretrained network that need no label; of each, more is better."""

import copy

import numpy as np
import torch
from sklearn.linear_model import RidgeClassifier
from torch import Tensor

from fewlabels.data.source import ImageSource, evenly_spaced
from fewlabels.engine.pairs import Views
from fewlabels.methods import Method
from fewlabels.quality import alignment, alpha_req, lidar, rankme, retrieval, uniformity

IMAGES = 1024
VIEWS = 4
BATCH = 256


def label_free_scores(method: Method, source: ImageSource, views: Views, seed: int) -> dict[str, float]:
    """Every score by its name; the network is left as it was.

    ``features`` are the backbone's, ``projections`` what the loss compares. RankMe's authors say that it may compare
    runs of one method only.

    Args:
        method: backbone and projector.
        source: what it was trained on.
        views: what it was trained with.
        seed: of the views that are scored.
    """
    encoder = copy.deepcopy(method).eval()
    images = source.read(evenly_spaced(source, IMAGES))
    h, z = (torch.stack(each, dim=1) for each in zip(*(_encoded(encoder, x) for x in _views(images, views, seed)), strict=True))
    return {
        "RankMe, features": rankme(h[:, 0]),
        "RankMe, projections": rankme(z[:, 0]),
        "alpha-ReQ, features": -abs(alpha_req(h[:, 0]) - 1),
        "LiDAR, features": lidar(h),
        "LiDAR, projections": lidar(z),
        "alignment, features": -alignment(h[:, 0], h[:, 1]),
        "uniformity, features": -uniformity(h[:, 0]),
        "retrieval, features": retrieval(h[:, 0], h[:, 1]),
        "retrieval, projections": retrieval(z[:, 0], z[:, 1]),
        "rotation probe, features": _rotation_probe(encoder, images),
    }


def _views(images: Tensor, views: Views, seed: int) -> list[Tensor]:
    return [views(images, (seed, "score", number)) for number in range(VIEWS)]


@torch.no_grad()
def _encoded(method: Method, x: Tensor) -> tuple[Tensor, Tensor]:
    """Features [N, F] and projections [N, D] on the CPU."""
    like = next(method.backbone.parameters())
    h = torch.cat([method.backbone(part.to(like)) for part in x.split(BATCH)])
    z = torch.cat([method.projector(part) for part in h.split(BATCH)])
    return h.float().cpu(), z.float().cpu()


def _rotation_probe(method: Method, images: Tensor) -> float:
    """Accuracy of a linear classifier that tells by how much an image was turned (Reed et al. 2021, section 3).

    By quarter turns, or by half turns where images are not square; a quarter of the images is held out.
    """
    turns = (0, 1, 2, 3) if images.shape[2] == images.shape[3] else (0, 2)
    held_out = np.arange(len(images)) % 4 == 0
    features = [_encoded(method, torch.rot90(images, turn, (2, 3)) / 255)[0].numpy() for turn in turns]
    scale = np.concatenate(features).std(axis=0) + 1e-6
    learned, asked = (np.concatenate([each[rows] / scale for each in features]) for rows in (~held_out, held_out))
    answers = [np.repeat(turns, rows.sum()) for rows in (~held_out, held_out)]
    return float(RidgeClassifier(alpha=100.0).fit(learned, answers[0]).score(asked, answers[1]))
