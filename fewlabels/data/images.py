"""Read the images that a finished model predicts, in batches; a file that cannot be read gives an error message."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from fewlabels._internal.errors import InputError
from fewlabels.data.arrays import ARRAY_SUFFIXES, read_arrays
from fewlabels.data.idx import read_idx
from fewlabels.data.listing import IMAGE_SUFFIXES, Listing, list_images
from fewlabels.data.preprocessing import Preprocessing, read_image
from fewlabels.data.source import ArraySource
from fewlabels.data.tables import TABLE_SUFFIXES

IMAGES_PER_BATCH = 512
"""Number of files or rows per batch. Not tuned."""


class ImageBatch(NamedTuple):
    """A batch of images, in the order of the user's files."""

    names: list[str]
    """Names of all files or rows of the batch, B of them."""
    pixels: torch.Tensor
    """uint8 [R, C, H, W]: the R images that could be read."""
    read: list[int]
    """Index among ``names`` of each image of ``pixels``."""
    wrong: dict[int, str]
    """Error message by index among ``names``, for the images that could not be read."""

    def source(self) -> ArraySource:
        """Return the images that could be read, without labels."""
        return ArraySource(self.pixels.numpy(), None, ())


@dataclass(frozen=True)
class ImageCollection:
    """The images at a path, not yet preprocessed for a model."""

    path: Path
    names: list[str]
    image: Callable[[int], np.ndarray]
    """Returns the pixels [C, H, W] of a row; raises InputError if it cannot be read."""
    listing: Listing | None
    """The files or rows, with their labels if there are any; None for a single image or an IDX file."""
    uniform: bool
    """Whether all images have the same shape and type."""

    def batches(
        self, preprocessing: Preprocessing, on_image: Callable[[np.ndarray], object] = lambda image: None
    ) -> Iterator[ImageBatch]:
        """Yield all images in batches, preprocessed like the model's training images.

        Args:
            preprocessing: the model's.
            on_image: called with the original pixels [C, H, W] of each image that can be used.

        Raises:
            InputError: if the images are uniform and the model cannot use the first one; raised by this call, before
                any batch.
        """
        if self.uniform:
            try:
                preprocessing.transform(self.image(0))
            except InputError as error:
                message = f"{self.path}: {error}. Save them like the images that the model was trained on."
                raise InputError(message) from None
        return _iterate_batches(self.names, self.image, preprocessing, on_image)


def find_images(path: Path, roots: Sequence[Path] = ()) -> ImageCollection:
    """Find the images at a path.

    Args:
        path: an image file, a folder of images, a table of them, a file of arrays, or an IDX file (gzipped or not).
        roots: more folders that may contain a table's images, besides the table's own.

    Raises:
        InputError: if there is no image at the path.
    """
    if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
        return ImageCollection(path, [path.name], lambda row: read_image(str(path)), None, uniform=False)
    if path.is_dir() or path.suffix.lower() in TABLE_SUFFIXES:
        listing = list_images(path, roots)
        return ImageCollection(path, listing.names, lambda row: read_image(listing.item(row)), listing, uniform=False)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder. Pass an image, a folder, a table or arrays.")
    if path.suffix.lower() in ARRAY_SUFFIXES:
        images, listing = read_arrays(path)
        return ImageCollection(path, listing.names, lambda row: images[row], listing, uniform=True)
    images = read_idx(path, ndim=3)[:, None]
    names = [str(row) for row in range(len(images))]
    return ImageCollection(path, names, lambda row: images[row], None, uniform=True)


def image_batches(path: Path, preprocessing: Preprocessing, roots: Sequence[Path] = ()) -> Iterator[ImageBatch]:
    """Yield the images at a path in batches: :meth:`ImageCollection.batches` of :func:`find_images`."""
    return find_images(path, roots).batches(preprocessing)


def _iterate_batches(
    names: list[str],
    image: Callable[[int], np.ndarray],
    preprocessing: Preprocessing,
    on_image: Callable[[np.ndarray], object],
) -> Iterator[ImageBatch]:
    for start in range(0, len(names), IMAGES_PER_BATCH):
        batch_names = names[start : start + IMAGES_PER_BATCH]
        pixels, read, wrong = [], [], {}
        for index in range(len(batch_names)):
            try:
                original = image(start + index)
                pixels.append(preprocessing.transform(original))
            except InputError as error:
                wrong[index] = str(error)
            else:
                read.append(index)
                on_image(original)
        stacked = np.stack(pixels) if pixels else np.empty((0, *preprocessing.form.shape), np.uint8)
        yield ImageBatch(batch_names, torch.from_numpy(stacked), read, wrong)
