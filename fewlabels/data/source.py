"""Sources of images and labels, which are read in batches of uint8 pixels."""

import hashlib
import math
from collections.abc import Sequence, Sized
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch

from fewlabels._internal.errors import InputError
from fewlabels._internal.seeding import generator

UNLABELLED = -1
"""Label of an unlabelled image, as in ``sklearn.semi_supervised``."""
MAX_FULLY_HASHED_BYTES = 2 * 2**30
"""Size in bytes of the images up to which a fingerprint hashes all of them. See dev/decisions.md."""

Indices = torch.Tensor | np.ndarray | slice


class ImageSource(Protocol):
    """Interface of a set of images, with labels for all, some or none of them."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""

    @property
    def labels(self) -> np.ndarray:
        """int64 [N]; -1 for an image without a label."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class ``k`` is called ``class_names[k]``."""

    def __len__(self) -> int: ...

    def read(self, indices: Indices) -> torch.Tensor:
        """Return the images of these rows, uint8 [B, C, H, W]."""


def evenly_spaced(source: Sized, number: int = 64) -> np.ndarray:
    """Return ``number`` evenly spaced rows, or all rows if there are fewer; int64."""
    return np.linspace(0, len(source) - 1, min(number, len(source))).astype(np.int64)


def random_rows(rows: np.ndarray, number: int, *key: int | str) -> np.ndarray:
    """Return a random sample of the rows, in their order; all of them if there are no more.

    Unlike evenly spaced rows, a random sample is representative where classes come in a periodic order.

    Args:
        rows: int64 [N].
        number: how many.
        key: what the sample depends on.
    """
    if len(rows) <= number:
        return rows
    positions = torch.randperm(len(rows), generator=generator(*key, "sample"))[:number].numpy()
    sampled: np.ndarray = rows[np.sort(positions)]
    return sampled


def fingerprint(source: ImageSource) -> str:
    """Return number, shape and digest of the images; above 2 GiB the digest is of 1,024 evenly spaced images.

    The result is cached per source, so a source's images must not change.
    """
    if source not in _fingerprints:
        each = math.prod(source.shape)
        rows = evenly_spaced(source, len(source) if len(source) * each <= MAX_FULLY_HASHED_BYTES else 1024)
        found, batch = hashlib.blake2b(digest_size=8), max(1, 2**24 // each)
        for start in range(0, len(rows), batch):
            found.update(source.read(rows[start : start + batch]).contiguous().numpy().data)
        shape = "x".join(map(str, source.shape))
        _fingerprints[source] = f"{len(source)} images of {shape}, {found.hexdigest()}"
    return _fingerprints[source]


_fingerprints: WeakKeyDictionary[ImageSource, str] = WeakKeyDictionary()


def identity(source: "ArraySource") -> dict[str, str | None]:
    """Return digests of all that a result may depend on: images (:func:`fingerprint`), labels, class names, groups."""
    about: dict[str, str | None] = {"data": fingerprint(source), "labels": digest(source.labels.tobytes())}
    about["class_names"] = digest("\n".join(source.class_names).encode("utf-8", "surrogatepass"))
    about["groups"] = None if source.groups is None else digest(source.groups.tobytes())
    return about


def digest(content: bytes) -> str:
    """Return a hash of 16 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


class ArraySource:
    """An :class:`ImageSource` of one array; a ``numpy.memmap`` stays on disk until it is read.

    Args:
        images: uint8 [N, H, W] or [N, C, H, W].
        labels: integers [N] in -1..K-1, where K is the number of class names.
        class_names: K names.
        name: of this source in error messages.
        groups: integers [N], such as the patient of each image. A group is never divided between training and held-out
            images, neither by folds nor by a test set. None: each image is a group of its own.

    Raises:
        InputError: if images have another type or shape, or labels do not match images or class names.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | None,
        class_names: Sequence[str],
        name: str = "images",
        groups: np.ndarray | None = None,
    ) -> None:
        if images.dtype != np.uint8:
            raise InputError(f"{name}: pixels are {images.dtype}, not uint8. Convert them to 0..255 first.")
        if images.ndim == 3:
            images = images[:, None]
        if images.ndim != 4:
            raise InputError(f"{name}: shape {images.shape} is not [N, H, W] or [N, C, H, W].")
        if labels is None:
            labels = np.full(len(images), UNLABELLED)
        if len(labels) != len(images):
            raise InputError(
                f"{name}: {len(images)} images but {len(labels)} labels. Use the label file that belongs to them."
            )
        labels = np.asarray(labels).astype(np.int64)
        outside = np.flatnonzero((labels < UNLABELLED) | (labels >= len(class_names)))
        if len(outside):
            row = int(outside[0])
            raise InputError(
                f"{name}, row {row}: label {labels[row]} is not one of the classes 0..{len(class_names) - 1}. "
                "Fix the row, or write -1 for 'unlabelled'."
            )
        self.images = images
        self.labels = labels
        self.class_names = tuple(class_names)
        self.name = name
        self.groups = groups

    @property
    def shape(self) -> tuple[int, int, int]:
        _, channels, height, width = self.images.shape
        return channels, height, width

    @property
    def num_labels(self) -> int:
        """Number of labelled images."""
        return int((self.labels != UNLABELLED).sum())

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: Indices) -> torch.Tensor:
        if isinstance(indices, torch.Tensor):
            indices = indices.numpy()
        # Copied, because torch must not share memory with a read-only memory map.
        return torch.from_numpy(np.array(self.images[indices]))

    def subset(self, indices: np.ndarray | slice) -> "ArraySource":
        """Return a source of these rows, with the same classes."""
        groups = None if self.groups is None else self.groups[indices]
        return ArraySource(self.images[indices], self.labels[indices], self.class_names, self.name, groups)

    def first_k(self, k: int) -> "ArraySource":
        """Return the first ``k`` images, as the tutorial's ``FashionMNIST(first_k=1000)`` does.

        Raises:
            InputError: if there are fewer than ``k`` labels.
        """
        return self.subset(slice(self.checked(k)))

    def balanced(self, k: int, seed: int) -> "ArraySource":
        """Return ``k`` labelled images, drawn at random with equally many per class (to within one).

        Classes with too few images are drawn completely, and more images of the others are drawn instead.

        Raises:
            InputError: if there are fewer than ``k`` labels.
        """
        indices = balanced_indices(self.labels, self.checked(k), seed)
        return self.subset(indices)

    def mask_labels(self, indices: np.ndarray) -> "ArraySource":
        """Return all images, with the labels of these rows only."""
        labels = np.full(len(self), UNLABELLED)
        labels[indices] = self.labels[indices]
        return ArraySource(self.images, labels, self.class_names, self.name, self.groups)

    def checked(self, k: int) -> int:
        """Return ``k`` unchanged if there are at least ``k`` labels.

        Raises:
            InputError: if there are fewer, or ``k`` is below 1.
        """
        labelled = self.num_labels
        if not labelled:
            raise InputError(
                f"{self.name}: no image has a label. Add labels in a table's column label, or sort images into "
                "one subfolder per class; fewlabels suggest picks the images to label first."
            )
        if not 1 <= k <= labelled:
            raise InputError(f"labels {k}: {self.name} has {labelled} labelled images. Ask for 1 to {labelled}.")
        return k


def balanced_indices(labels: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Draw ``k`` labelled images with classes as equal as the data allow; return their rows, sorted.

    >>> labels = np.array([0, 0, 0, 1, 1, -1])
    >>> np.bincount(labels[balanced_indices(labels, 4, seed=0)])
    array([2, 2])
    """
    order = torch.randperm(len(labels), generator=generator(seed, "balanced")).numpy()
    order = order[labels[order] != UNLABELLED]
    # Rank of each image within its class; the lowest ranks are taken first, from all classes alike.
    rank = np.empty(len(order), dtype=np.int64)
    for cls in np.unique(labels[order]):
        of_class = labels[order] == cls
        rank[of_class] = np.arange(of_class.sum())
    return np.sort(order[np.argsort(rank, kind="stable")[:k]])
