"""What each image file is before it is brought to one form; nothing here imports torch, for the sake of workers."""

import hashlib
import io
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from fewlabels._internal.errors import InputError
from fewlabels.data.decode import FORMATS, TIFF, decoded
from fewlabels.data.form import content_of


class Facts(NamedTuple):
    """Of one image."""

    format: str
    """As Pillow calls it, such as ``PNG``."""
    channels: int
    height: int
    width: int
    bits: int
    """Of a channel: 8, 16, or 32 for floats."""
    digest: str
    """Of the pixels, upright: images of one digest are the same, whatever their format."""
    constant: bool
    """Whether all pixels are alike."""


def facts_of(items: Sequence[str | bytes]) -> list[Facts | str]:
    """Of image files, or what is wrong with them.

    Args:
        items: paths, or contents of files.
    """
    return [_of_item(item) for item in items]


def facts_of_array(image: np.ndarray, kind: str) -> Facts:
    """Of the pixels [C, H, W] of an image in this format."""
    same = image
    if len(image) == 3 and (image[0] == image[1]).all() and (image[0] == image[2]).all():
        same = image[:1]  # gray that was saved in colours
    if same.dtype == np.uint16 and not (same % 257).any():
        same = (same // 257).astype(np.uint8)
    content = f"{same.shape} {same.dtype} ".encode() + np.ascontiguousarray(same).tobytes()
    seen = hashlib.blake2b(content, digest_size=16).hexdigest()
    constant = bool((image == image[:, :1, :1]).all())
    channels, height, width = image.shape
    return Facts(kind, channels, height, width, 8 * image.dtype.itemsize, seen, constant)


def _of_item(item: str | bytes) -> Facts | str:
    try:
        content = content_of(item)
        return facts_of_array(decoded(content), _format(content))
    except InputError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _format(content: bytes) -> str:
    if content[:4] in TIFF:
        return "TIFF"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return image.format or "unknown"
