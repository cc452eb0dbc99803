"""Images that a user hands over for prediction: IDX files, single images, folders of images."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from fewlabels.data.idx import read_idx
from fewlabels.data.source import ArraySource
from fewlabels.errors import InputError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
MODES = {1: "L", 3: "RGB"}


def read_images(path: Path, channels: int, size: int) -> tuple[list[str], ArraySource]:
    """Names and unlabelled images for a network that takes [channels, size, size].

    Args:
        path: an IDX file (gzipped or not), an image file, or a folder of image files.
        channels: 1 for gray, 3 for RGB; pictures are converted.
        size: height and width in pixels; pictures of another size are refused.

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
        if channels != 1 or images.shape[1:] != (size, size):
            raise InputError(f"{path}: images of {images.shape[1:]}, the model takes {(channels, size, size)}.")
        return [str(row) for row in range(len(images))], ArraySource(images, None, (), name=str(path))
    array = np.stack([_decode(file, channels, size) for file in files])
    return [file.name for file in files], ArraySource(array, None, (), name=str(path))


def _decode(file: Path, channels: int, size: int) -> np.ndarray:
    try:
        with Image.open(file) as image:
            if image.size != (size, size):
                width, height = image.size
                raise InputError(f"{file}: {width}x{height} pixels, the model takes {size}x{size}. Resize it first.")
            pixels = np.asarray(image.convert(MODES[channels]))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError):
        raise InputError(f"{file}: not a readable image. Remove it or save it again as PNG.") from None
    return pixels.reshape(size, size, channels).transpose(2, 0, 1)
