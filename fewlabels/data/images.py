"""Images that a user hands over for a finished model: batch by batch, each file that cannot be read with a word."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from fewlabels.data.arrays import ARRAYS, arrays_read
from fewlabels.data.form import Preparation, image_of
from fewlabels.data.idx import read_idx
from fewlabels.data.listing import SUFFIXES, Listing, listed
from fewlabels.data.source import ArraySource
from fewlabels.data.tables import TABLES
from fewlabels.errors import InputError

BATCH = 512


class Images(NamedTuple):
    """Some images, in the order of the user's files."""

    names: list[str]
    pixels: torch.Tensor
    """uint8 [B, C, H, W], of those that could be read."""
    read: list[int]
    """Their places among the names."""
    wrong: dict[int, str]
    """What is wrong with the others, by place."""

    def source(self) -> ArraySource:
        """Those that could be read."""
        return ArraySource(self.pixels.numpy(), None, ())


def image_batches(path: Path, preparation: Preparation) -> Iterator[Images]:
    """All images, treated as those were that the model has learned from.

    Args:
        path: an image file, a folder of images, a table of them, a file of arrays, or an IDX file (gzipped or not).
        preparation: the model's.

    Raises:
        InputError: if nothing there is an image, before the first batch is given.
    """
    if path.suffix.lower() in SUFFIXES and path.is_file():
        return _of_items([path.name], [str(path)], preparation)
    if path.is_dir() or path.suffix.lower() in TABLES:
        listing = listed(path)
        return _of_items(listing.names, _items(listing), preparation)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder. Pass an image, a folder, a table or arrays.")
    if path.suffix.lower() in ARRAYS:
        images, listing = arrays_read(path)
        names = listing.names
    else:
        images = read_idx(path, ndim=3)[:, None]
        names = [str(row) for row in range(len(images))]
    try:
        preparation.of_array(images[0])  # as all of them are
    except InputError as error:
        raise InputError(f"{path}: {error}. Save them as those were that the model has learned from.") from None
    return _of_array(images, names, preparation)


def _items(listing: Listing) -> list[str | bytes]:
    return [listing.item(row) for row in range(len(listing.names))]


def _of_items(names: list[str], items: list[str | bytes], preparation: Preparation) -> Iterator[Images]:
    for start in range(0, len(items), BATCH):
        pixels, read, wrong = [], [], {}
        for place, item in enumerate(items[start : start + BATCH]):
            try:
                pixels.append(preparation.of_array(image_of(item)))
            except InputError as error:
                wrong[place] = str(error)
            else:
                read.append(place)
        yield Images(names[start : start + BATCH], _stacked(pixels, preparation), read, wrong)


def _of_array(images: np.ndarray, names: list[str], preparation: Preparation) -> Iterator[Images]:
    for start in range(0, len(images), BATCH):
        pixels = [preparation.of_array(image) for image in images[start : start + BATCH]]
        some = names[start : start + BATCH]
        yield Images(some, _stacked(pixels, preparation), list(range(len(some))), {})


def _stacked(pixels: list[np.ndarray], preparation: Preparation) -> torch.Tensor:
    return torch.from_numpy(np.stack(pixels) if pixels else np.empty((0, *preparation.form.shape), np.uint8))
