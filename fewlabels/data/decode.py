"""Decode one image file of any supported format to an array.

This module does not import torch, so that worker processes start fast.
"""

import io
import logging
import lzma
import warnings
import zlib
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

from fewlabels._internal.errors import InputError, TransientError

MAX_PIXELS = 50_000_000
"""Largest number of pixels of an image, summed over channels. Larger images are refused before decoding."""
MAX_CHANNELS = 32
"""Largest number of channels of an image. Not tuned."""
COLOUR_MODES = {"P", "PA", "LA", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "RGBX", "RGBa", "La"}
"""Pillow's image modes that are converted to RGB or gray."""
PILLOW_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP")
"""Formats that Pillow may decode. It knows others, and runs external programs for some of them."""
TIFF_SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
"""First four bytes of TIFF and BigTIFF files."""
DECOMPRESSORS: dict[int, Callable[[], Any]] = {
    **dict.fromkeys((8, 32946, 50013), zlib.decompressobj),
    34925: lzma.LZMADecompressor,
}
"""Decompressors by TIFF compression number, for compressions that can expand data a thousandfold."""
MAX_UNCHECKED_BYTES = 10_000
"""Compressed size in bytes up to which a TIFF strip or tile is not tested: too small to fill the memory."""


def decode_image(content: bytes) -> np.ndarray:
    """Decode the content of an image file to uint8, uint16 or float32 [C, H, W].

    EXIF orientation is applied, transparent pixels become white, palettes and CMYK become RGB.

    Args:
        content: of a file that Pillow or tifffile can read; the pages or planes of a TIFF become channels.

    Raises:
        InputError: with the reason; the message does not name the file.
    """
    if not content:
        raise InputError("an empty file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow and tifffile warn about metadata that is not used here
        try:
            array = _decode_tiff(content) if content[:4] in TIFF_SIGNATURES else _decode_with_pillow(content)
        except InputError:
            raise
        except UnidentifiedImageError:
            raise InputError("not an image") from None
        except Image.DecompressionBombError:  # Pillow has a limit of its own
            raise InputError(f"more than {MAX_PIXELS:,} pixels") from None
        except MemoryError:
            raise TransientError("too little memory for it") from None
        except Exception as error:  # a broken file can make a decoder raise any exception
            raise InputError(f"a damaged image ({type(error).__name__})") from None
    if array.dtype == np.float32 and not np.isfinite(array).all():
        raise InputError("pixels that are not finite")
    return np.ascontiguousarray(array)


def _decode_with_pillow(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content), formats=PILLOW_FORMATS) as image:
        _refuse_size(image.width, image.height, len(image.getbands()))
        upright = ImageOps.exif_transpose(image)
        if upright.mode in COLOUR_MODES or "transparency" in upright.info:
            upright = _without_alpha(upright)
        elif upright.mode == "1":
            upright = upright.convert("L")
        array = np.asarray(upright)
    return _as_channels(array if array.ndim == 2 else array.transpose(2, 0, 1))


def _without_alpha(image: Image.Image) -> Image.Image:
    """Convert an image to RGB, or to gray if it is gray; transparent pixels become white."""
    gray = image.mode in ("LA", "La", "L")
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV", "RGBX"):
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    flat = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    flat.alpha_composite(rgba)
    return flat.convert("L" if gray else "RGB")


def _decode_tiff(content: bytes) -> np.ndarray:
    """Decode a TIFF: colour images with Pillow, planes and pixels of more than 8 bits with tifffile."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # errors are raised as InputError instead
    # An OME-TIFF image may span several files. Read this file alone: tifffile would fill the others' planes with black.
    with tifffile.TiffFile(io.BytesIO(content), _multifile=False) as file:
        series = file.series[0]
        pixels = int(np.prod(series.shape))
        if pixels > MAX_PIXELS:
            raise InputError(f"{pixels:,} pixels, more than {MAX_PIXELS:,}")
        in_colours = series.keyframe.photometric.name in ("PALETTE", "SEPARATED", "YCBCR", "CIELAB")
        if in_colours or (series.axes in ("YX", "YXS") and series.dtype == np.uint8):
            return _decode_with_pillow(content)
        _refuse_bomb(content, series)
        try:
            array = np.moveaxis(series.asarray(), -1, 0) if series.axes.endswith("S") else series.asarray()
        except Exception:  # a compression for which tifffile needs another package
            array = _read_pages(content)
    return _as_channels(array)


def _refuse_bomb(content: bytes, series: Any) -> None:
    """Refuse a TIFF if a strip or tile decompresses to more bytes than its pixels have; tifffile has no such limit."""
    about = series.keyframe
    if about.compression not in DECOMPRESSORS:
        return
    most = min(int(np.prod(about.chunks)), MAX_PIXELS) * about.dtype.itemsize
    for page in filter(None, series.pages):
        for start, size in zip(page.dataoffsets, page.databytecounts, strict=True):
            packed = memoryview(content)[start : start + size]
            if size > MAX_UNCHECKED_BYTES and (
                len(DECOMPRESSORS[about.compression]().decompress(packed, most + 1)) > most
            ):
                raise InputError("more pixels than its header says")


def _read_pages(content: bytes) -> np.ndarray:
    pages, pixels = [], 0
    with Image.open(io.BytesIO(content), formats=PILLOW_FORMATS) as image:
        for page in islice(ImageSequence.Iterator(image), MAX_CHANNELS + 1):
            pixels += page.width * page.height * len(page.getbands())
            if pixels > MAX_PIXELS:
                raise InputError(f"more than {MAX_PIXELS:,} pixels")
            pages.append(np.asarray(page))  # copy now: the iterator reuses one image object
    return pages[0].transpose(2, 0, 1) if len(pages) == 1 and pages[0].ndim == 3 else np.stack(pages)


def _as_channels(array: np.ndarray) -> np.ndarray:
    """Return [H, W] or [C, H, W] as uint8, uint16 or float32 [C, H, W]."""
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or not 1 <= len(array) <= MAX_CHANNELS or min(array.shape) < 1:
        raise InputError(f"shape {array.shape}, not height, width and 1 to {MAX_CHANNELS} channels")
    _refuse_size(array.shape[2], array.shape[1], len(array))
    if array.dtype == np.uint8 or array.dtype == np.uint16:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if np.issubdtype(array.dtype, np.floating):
        return array.astype(np.float32)
    if np.issubdtype(array.dtype, np.integer) and array.min() >= 0 and array.max() <= 65535:
        return array.astype(np.uint16)
    raise InputError(f"pixels of {array.dtype} beyond 0..65535")


def _refuse_size(width: int, height: int, channels: int) -> None:
    if width * height * channels > MAX_PIXELS:
        raise InputError(f"{width}x{height} pixels, more than {MAX_PIXELS:,}")
