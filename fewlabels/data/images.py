"""Images that a user hands over for prediction: IDX files, single images, folders of images."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from fewlabels.data.idx import read_idx
from fewlabels.data.listing import SUFFIXES
from fewlabels.data.source import ArraySource
from fewlabels.errors import InputError

MODES = {1: "L", 3: "RGB"}


def read_images(path: Path, channels: int, size: int | None) -> tuple[list[str], ArraySource]:
    """Names and unlabelled images for a network that takes [channels, size, size].

    Args:
        path: an IDX file (gzipped or not), an image file, or a folder of image files.
        channels: 1 for gray, 3 for RGB; pictures are converted.
        size: height and width in pixels, None for any; pictures of another size, or of several, are refused.

    Raises:
        InputError: naming the first file that cannot be used.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder. Pass an IDX file, an image or a folder of images.")
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        if not files:
            raise InputError(f"{path}: no image here (looked for {', '.join(sorted(SUFFIXES))}).")
    elif path.suffix.lower() in SUFFIXES:
        files = [path]
    else:
        images = read_idx(path, ndim=3)
        if channels != 1 or (size and images.shape[1:] != (size, size)):
            raise InputError(f"{path}: images of {images.shape[1:]}, the model takes {(channels, size, size)}.")
        return [str(row) for row in range(len(images))], ArraySource(images, None, (), name=str(path))
    if channels not in MODES:
        raise InputError(f"{path}: pictures have 1 or 3 channels, the model takes {channels}.")
    wanted = (size, size) if size else _size(files[0])
    array = np.stack([_decode(file, channels, wanted) for file in files])
    return [file.name for file in files], ArraySource(array, None, (), name=str(path))


def _size(file: Path) -> tuple[int, int]:
    """Width and height."""
    with _opened(file) as image:
        return image.size


def _decode(file: Path, channels: int, size: tuple[int, int]) -> np.ndarray:
    with _opened(file) as image:
        if image.size != size:
            raise InputError(
                f"{file}: {image.size[0]}x{image.size[1]} pixels, not {size[0]}x{size[1]} as the model or the "
                "other pictures. Resize it first."
            )
        pixels = np.asarray(image.convert(MODES[channels]))
    return pixels.reshape(size[1], size[0], channels).transpose(2, 0, 1)


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(file) as image:
            yield image
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError):
        raise InputError(f"{file}: not a readable image. Remove it or save it again as PNG.") from None
