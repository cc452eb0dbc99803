"""Images that a user hands over for a finished model: batch by batch, each file that cannot be read with a word."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from fewlabels._internal.errors import InputError
from fewlabels.data.arrays import ARRAYS, arrays_read
from fewlabels.data.form import Preparation, image_of
from fewlabels.data.idx import read_idx
from fewlabels.data.listing import SUFFIXES, Listing, listed
from fewlabels.data.source import ArraySource
from fewlabels.data.tables import TABLES

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


@dataclass(frozen=True)
class Found:
    """What stands at a path, none of it prepared for a model."""

    path: Path
    names: list[str]
    image: Callable[[int], np.ndarray]
    """The pixels [C, H, W] of one; raises InputError if it cannot be read."""
    listing: Listing | None
    """With labels, if there are; None: a single image, or an IDX file."""
    alike: bool
    """Whether all have one shape and type."""

    def batches(
        self, preparation: Preparation, seen: Callable[[np.ndarray], object] = lambda image: None
    ) -> Iterator[Images]:
        """All images, treated as those were that the model has learned from.

        Args:
            preparation: the model's.
            seen: is given the pixels [C, H, W] of each that can be read, before anything is done with them.

        Raises:
            InputError: if the model takes none like these, before the first batch is given.
        """
        if self.alike:
            try:
                preparation.of_array(self.image(0))
            except InputError as error:
                said = f"{self.path}: {error}. Save them as those were that the model has learned from."
                raise InputError(said) from None
        return _prepared(self.names, self.image, preparation, seen)


def found_images(path: Path) -> Found:
    """An image file, a folder of images, a table of them, a file of arrays, or an IDX file (gzipped or not).

    Raises:
        InputError: if nothing there is an image.
    """
    if path.suffix.lower() in SUFFIXES and path.is_file():
        return Found(path, [path.name], lambda row: image_of(str(path)), None, alike=False)
    if path.is_dir() or path.suffix.lower() in TABLES:
        listing = listed(path)
        return Found(path, listing.names, lambda row: image_of(listing.item(row)), listing, alike=False)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder. Pass an image, a folder, a table or arrays.")
    if path.suffix.lower() in ARRAYS:
        images, listing = arrays_read(path)
        return Found(path, listing.names, lambda row: images[row], listing, alike=True)
    images = read_idx(path, ndim=3)[:, None]
    return Found(path, [str(row) for row in range(len(images))], lambda row: images[row], None, alike=True)


def image_batches(path: Path, preparation: Preparation) -> Iterator[Images]:
    """As :meth:`Found.batches` of :func:`found_images`."""
    return found_images(path).batches(preparation)


def _prepared(
    names: list[str],
    image: Callable[[int], np.ndarray],
    preparation: Preparation,
    seen: Callable[[np.ndarray], object],
) -> Iterator[Images]:
    for start in range(0, len(names), BATCH):
        some = names[start : start + BATCH]
        pixels, read, wrong = [], [], {}
        for place in range(len(some)):
            try:
                original = image(start + place)
                pixels.append(preparation.of_array(original))
            except InputError as error:
                wrong[place] = str(error)
            else:
                read.append(place)
                seen(original)
        whole = np.stack(pixels) if pixels else np.empty((0, *preparation.form.shape), np.uint8)
        yield Images(some, torch.from_numpy(whole), read, wrong)
