"""Read format, size, bit depth and pixel digest of image files.

Worker processes import this module, so it does not import torch.
"""

import hashlib
import io
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from fewlabels._internal.errors import InputError
from fewlabels.data.decode import PILLOW_FORMATS, TIFF_SIGNATURES, decode_image
from fewlabels.data.preprocessing import read_content


class Facts(NamedTuple):
    """Properties of one image, before preprocessing."""

    format: str
    """Name of the file format in Pillow, such as ``PNG``."""
    channels: int
    height: int
    width: int
    bits: int
    """Bits per channel: 8, 16, or 32 for floats."""
    digest: str
    """Digest of the pixels after EXIF rotation. Images with equal pixels have equal digests, whatever their format."""
    constant: bool
    """Whether all pixels are equal."""


def facts_of(items: Sequence[str | bytes]) -> list[Facts | str]:
    """Return the properties of each image file, or an error message if it cannot be read.

    Args:
        items: paths, or contents of files.
    """
    return [_item_facts(item) for item in items]


def facts_of_array(image: np.ndarray, kind: str) -> Facts:
    """Return the properties of an image from its pixels.

    Args:
        image: uint8, uint16 or float32 [C, H, W].
        kind: name of the file format.
    """
    reduced = image
    if len(image) == 3 and (image[0] == image[1]).all() and (image[0] == image[2]).all():
        reduced = image[:1]  # gray that was saved as RGB
    if reduced.dtype == np.uint16 and not (reduced % 257).any():  # 8 bits that were saved as 16
        reduced = (reduced // 257).astype(np.uint8)
    content = f"{reduced.shape} {reduced.dtype} ".encode() + np.ascontiguousarray(reduced).tobytes()
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    constant = bool((image == image[:, :1, :1]).all())
    channels, height, width = image.shape
    return Facts(kind, channels, height, width, 8 * image.dtype.itemsize, digest, constant)


def _item_facts(item: str | bytes) -> Facts | str:
    try:
        content = read_content(item)
        return facts_of_array(decode_image(content), _format(content))
    except InputError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _format(content: bytes) -> str:
    if content[:4] in TIFF_SIGNATURES:
        return "TIFF"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(content), formats=PILLOW_FORMATS) as image:
            return image.format or "unknown"
