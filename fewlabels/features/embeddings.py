"""Embeddings of images by a backbone, and nearest neighbours by cosine similarity."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from fewlabels._internal.errors import InputError
from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.inference import outputs
from fewlabels.data.images import ImageBatch, image_batches
from fewlabels.data.preprocessing import Preprocessing

EXACT_UP_TO = 100_000
"""Images up to which all pairs are compared; with more, an HNSW graph finds nearly all neighbours."""
HNSW_LINKS = 32
"""Links per image in the HNSW graph; faiss calls it M. Not tuned."""
HNSW_SEARCH_WIDTH = 64
"""Candidates during a search of the HNSW graph; faiss calls it efSearch. Not tuned."""
SIMILARITIES_PER_BLOCK = 2**24
"""Similarities that are computed at a time; limits memory."""


class Embeddings(NamedTuple):
    """Embeddings of the images of a path."""

    names: list[str]
    """Names of the images that could be read."""
    vectors: np.ndarray
    """float32 [N, F], in the order of ``names``."""
    problems: dict[str, str]
    """Why other images could not be read, by name."""


def embed_batch(model: Classifier, images: ImageBatch) -> np.ndarray:
    """Compute features of the images of a batch that could be read: float32 [B, F]."""
    if not images.read:
        return np.empty((0, model.backbone.num_features), np.float32)
    return outputs(model.backbone, images.source())


def embed_images(model: Classifier, path: Path, preprocessing: Preprocessing, roots: Sequence[Path] = ()) -> Embeddings:
    """Compute embeddings of all images of a path.

    Args:
        model: the classifier whose backbone is used.
        path: an image, a folder, a table or an array file.
        preprocessing: of the model.
        roots: folders, beside the table's own, that a table's paths may lie in.

    Raises:
        InputError: if there is no image.
    """
    names, parts, problems = [], [], {}
    for batch in image_batches(path, preprocessing, roots):
        names += [batch.names[index] for index in batch.read]
        parts.append(embed_batch(model, batch))
        problems.update({batch.names[index]: line for index, line in batch.wrong.items()})
    return Embeddings(names, np.concatenate(parts), problems)


class Neighbours(NamedTuple):
    """Nearest neighbours of each query, the nearest first."""

    rows: np.ndarray
    """int64 [Q, K], rows of the neighbours; -1 if the search found fewer than K."""
    similarity: np.ndarray
    """float32 [Q, K], cosine similarity in [-1, 1]."""


def nearest(queries: np.ndarray, vectors: np.ndarray, number: int) -> Neighbours:
    """Find the vectors with the largest cosine similarity to each query by comparing all pairs.

    Args:
        queries: float32 [Q, F].
        vectors: float32 [N, F].
        number: K; if N is smaller, all vectors are returned.
    """
    targets = torch.from_numpy(_unit_vectors(vectors)).T
    blocks = torch.from_numpy(_unit_vectors(queries)).split(max(1, SIMILARITIES_PER_BLOCK // len(vectors)))
    found = [torch.topk(block @ targets, min(number, len(vectors))) for block in blocks]
    similarity, rows = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
    return Neighbours(rows, similarity)


def neighbours(vectors: np.ndarray, number: int) -> Neighbours:
    """Find the nearest other vectors of each vector, by cosine similarity.

    For more than ``EXACT_UP_TO`` vectors, the search is approximate: an HNSW graph (Malkov & Yashunin 2018) of faiss.

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

        units = _unit_vectors(vectors)
        index = faiss.IndexHNSWFlat(vectors.shape[1], HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efSearch = HNSW_SEARCH_WIDTH
        index.add(units)
        similarity, rows = index.search(units, number + 1)
    others = rows != np.arange(len(rows))[:, None]
    others &= others.cumsum(axis=1) <= number  # with equal vectors, the first neighbour need not be the vector itself
    return Neighbours(rows[others].reshape(-1, number).astype(np.int64), similarity[others].reshape(-1, number))


def refuse_without_faiss(number: int) -> None:
    """Refuse a number of images that needs faiss if faiss is not installed.

    Raises:
        InputError: naming the package to install.
    """
    if number > EXACT_UP_TO and find_spec("faiss") is None:
        line = f"{number:,} images: to compare more than {EXACT_UP_TO:,}, faiss is needed."
        raise InputError(f"{line} Run: pip install 'fewlabels[search]'")


def _unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Each row of [N, F] divided by its length; rows of zeros do not change."""
    units: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return units
