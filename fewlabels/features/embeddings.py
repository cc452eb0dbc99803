"""What a backbone makes of images, a vector each, and whose vectors are near one another."""

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from fewlabels._internal.errors import InputError
from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.inference import outputs
from fewlabels.data.form import Preparation
from fewlabels.data.images import Images, image_batches

EXACT_UP_TO = 100_000
"""Images that are all compared with all; of more, neighbours are found along a graph, which misses a few."""
LINKS = 32
"""Of an image in the graph."""
LOOKED_AT = 64
"""Images of the graph that are held for nearest while it is searched."""
BLOCK = 2**24
"""Similarities that are computed at a time."""


class Embedded(NamedTuple):
    """What a backbone makes of the images of a path."""

    names: list[str]
    """Of those that could be read."""
    vectors: np.ndarray
    """float32 [N, F], one for each name."""
    problems: dict[str, str]
    """What is wrong with the others, by name."""


def embedded_batch(model: Classifier, images: Images) -> np.ndarray:
    """The backbone's features of the images of a batch that could be read: float32 [B, F]."""
    if not images.read:
        return np.empty((0, model.backbone.num_features), np.float32)
    return outputs(model.backbone, images.source())


def embedded(model: Classifier, path: Path, preparation: Preparation) -> Embedded:
    """All images of a path.

    Args:
        model: whose backbone.
        path: an image, a folder, a table or arrays.
        preparation: the model's.

    Raises:
        InputError: if nothing there is an image.
    """
    names, parts, problems = [], [], {}
    for batch in image_batches(path, preparation):
        names += [batch.names[place] for place in batch.read]
        parts.append(embedded_batch(model, batch))
        problems.update({batch.names[place]: line for place, line in batch.wrong.items()})
    return Embedded(names, np.concatenate(parts), problems)


class Neighbours(NamedTuple):
    """The nearest first."""

    rows: np.ndarray
    """int64 [Q, K]; -1 where none was found."""
    similarity: np.ndarray
    """float32 [Q, K]: the cosine, in -1..1."""


def nearest(queries: np.ndarray, vectors: np.ndarray, number: int) -> Neighbours:
    """Of each query the vectors with the largest cosine, all compared.

    Args:
        queries: float32 [Q, F].
        vectors: float32 [N, F].
        number: K; of fewer vectors all are given.
    """
    theirs = torch.from_numpy(_directions(vectors)).T
    ours = torch.from_numpy(_directions(queries))
    found = [torch.topk(part @ theirs, min(number, len(vectors))) for part in ours.split(max(1, BLOCK // len(vectors)))]
    similarity, rows = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
    return Neighbours(rows, similarity)


def neighbours(vectors: np.ndarray, number: int) -> Neighbours:
    """Of each vector the nearest others, by cosine.

    Of more than ``EXACT_UP_TO``, along a graph of small worlds (Malkov & Yashunin 2018), by faiss.

    Args:
        vectors: float32 [N, F].
        number: K, below N.

    Raises:
        InputError: if faiss is needed and not installed.
    """
    if len(vectors) <= EXACT_UP_TO:
        rows, similarity = nearest(vectors, vectors, number + 1)
    else:
        refuse_without_faiss(len(vectors))
        import faiss

        directions = _directions(vectors)
        index = faiss.IndexHNSWFlat(vectors.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efSearch = LOOKED_AT
        index.add(directions)
        similarity, rows = index.search(directions, number + 1)
    others = rows != np.arange(len(rows))[:, None]
    others &= others.cumsum(axis=1) <= number  # among equals it is not always itself that comes first
    return Neighbours(rows[others].reshape(-1, number).astype(np.int64), similarity[others].reshape(-1, number))


def refuse_without_faiss(number: int) -> None:
    """To be asked before the work begins.

    Raises:
        InputError: if so many images need faiss, and it is not installed.
    """
    if number > EXACT_UP_TO and find_spec("faiss") is None:
        line = f"{number:,} images: to compare more than {EXACT_UP_TO:,}, faiss is needed."
        raise InputError(f"{line} Run: pip install 'fewlabels[search]'")


def _directions(vectors: np.ndarray) -> np.ndarray:
    """Of length 1; zeros stay."""
    directions: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return directions
