"""Images and labels as whole uint8 batches."""

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
"""The label of an image that has none: scikit-learn's convention."""
FINGERPRINTED = 2 * 2**30
"""Bytes up to which all images make a fingerprint."""

Indices = torch.Tensor | np.ndarray | slice


class ImageSource(Protocol):
    """What the rest of the package asks of a set of images."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""

    @property
    def labels(self) -> np.ndarray:
        """int64 [N]; -1 where an image has no label."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class ``k`` is called ``class_names[k]``."""

    def __len__(self) -> int: ...

    def read(self, indices: Indices) -> torch.Tensor:
        """The images at these positions, uint8 [B, C, H, W]."""


def evenly_spaced(source: Sized, number: int = 64) -> np.ndarray:
    """Positions of so many images, or of all where there are fewer; int64."""
    return np.linspace(0, len(source) - 1, min(number, len(source))).astype(np.int64)


def fingerprint(source: ImageSource) -> str:
    """Number, shape and a digest of all images, or of evenly spaced ones where they are more than 2 GiB.

    It is taken once: a source's images are not to change.
    """
    if source not in _fingerprints:
        each = math.prod(source.shape)
        rows = evenly_spaced(source, len(source) if len(source) * each <= FINGERPRINTED else 1024)
        found, batch = hashlib.blake2b(digest_size=8), max(1, 2**24 // each)
        for start in range(0, len(rows), batch):
            found.update(source.read(rows[start : start + batch]).contiguous().numpy().data)
        shape = "x".join(map(str, source.shape))
        _fingerprints[source] = f"{len(source)} images of {shape}, {found.hexdigest()}"
    return _fingerprints[source]


_fingerprints: WeakKeyDictionary[ImageSource, str] = WeakKeyDictionary()


def identity(source: "ArraySource") -> dict[str, str | None]:
    """All of a source that a result may depend on: images as by :func:`fingerprint`, labels, class names, groups."""
    about: dict[str, str | None] = {"data": fingerprint(source), "labels": digest(source.labels.tobytes())}
    about["class_names"] = digest("\n".join(source.class_names).encode("utf-8", "surrogatepass"))
    about["groups"] = None if source.groups is None else digest(source.groups.tobytes())
    return about


def digest(content: bytes) -> str:
    """16 hexadecimal digits that tell contents apart."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


class ArraySource:
    """An :class:`ImageSource` over one array; a ``numpy.memmap`` stays on disk until it is read.

    Args:
        images: uint8 [N, H, W] or [N, C, H, W].
        labels: integers [N] in -1..K-1, where K is the number of class names.
        class_names: K names.
        name: what error messages call this source.
        groups: integers [N]; images of one number, such as those of one patient, are never divided between labels that
            are learned from and labels that judge, on folds or in a test. None: each is its own.

    Raises:
        InputError: if types, lengths or labels do not fit together.
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
        """Images that have one."""
        return int((self.labels != UNLABELLED).sum())

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: Indices) -> torch.Tensor:
        if isinstance(indices, torch.Tensor):
            indices = indices.numpy()
        # A copy, since torch must not share memory with a read-only map.
        return torch.from_numpy(np.array(self.images[indices]))

    def subset(self, indices: np.ndarray | slice) -> "ArraySource":
        """The same classes, only these images."""
        groups = None if self.groups is None else self.groups[indices]
        return ArraySource(self.images[indices], self.labels[indices], self.class_names, self.name, groups)

    def first_k(self, k: int) -> "ArraySource":
        """The first ``k`` images: the tutorial's ``FashionMNIST(first_k=1000)``."""
        return self.subset(slice(self.checked(k)))

    def balanced(self, k: int, seed: int) -> "ArraySource":
        """``k`` labelled images drawn at random, each class as often as any other (to within one).

        Classes with too few images give all they have, and the others make up for them.
        """
        indices = balanced_indices(self.labels, self.checked(k), seed)
        return self.subset(indices)

    def hiding_all_but(self, indices: np.ndarray) -> "ArraySource":
        """All images, with the labels of these alone."""
        labels = np.full(len(self), UNLABELLED)
        labels[indices] = self.labels[indices]
        return ArraySource(self.images, labels, self.class_names, self.name, self.groups)

    def checked(self, k: int) -> int:
        """``k``, if there are so many labels.

        Raises:
            InputError: if not.
        """
        labelled = self.num_labels
        if not labelled:
            raise InputError(
                f"{self.name}: no image has a label. Name some in a table's column label, or sort them into "
                "subfolders by class; fewlabels suggest says which to label first."
            )
        if not 1 <= k <= labelled:
            raise InputError(f"labels {k}: {self.name} has {labelled} labelled images. Ask for 1 to {labelled}.")
        return k


def balanced_indices(labels: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Sorted positions of ``k`` labelled images, classes as equal as the data allows; by seed.

    >>> labels = np.array([0, 0, 0, 1, 1, -1])
    >>> np.bincount(labels[balanced_indices(labels, 4, seed=0)])
    array([2, 2])
    """
    order = torch.randperm(len(labels), generator=generator(seed, "balanced")).numpy()
    order = order[labels[order] != UNLABELLED]
    # The n-th image of its class in this order: taking low n first deals the classes out in turn.
    turn = np.empty(len(order), dtype=np.int64)
    for cls in np.unique(labels[order]):
        of_class = labels[order] == cls
        turn[of_class] = np.arange(of_class.sum())
    return np.sort(order[np.argsort(turn, kind="stable")[:k]])
