"""One image file, of whatever kind, as an array; nothing here imports torch, so that worker processes start fast."""

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

from fewlabels._internal.errors import InputError, PassingError

LARGEST = 50_000_000
"""Pixels of one image, over all its channels; a larger one is refused before it is decoded."""
MOST_CHANNELS = 32
COLOURS = {"P", "PA", "LA", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "RGBX", "RGBa", "La"}
"""Pillow's modes that are brought to RGB or gray."""
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP")
"""Of Pillow; it knows others, and would have programs run for some of them."""
TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
UNPACKERS: dict[int, Callable[[], Any]] = {
    **dict.fromkeys((8, 32946, 50013), zlib.decompressobj),
    34925: lzma.LZMADecompressor,
}
"""By TIFF's number of a compression that may pack a thousandfold."""
UNSUSPICIOUS = 10_000
"""Bytes of a strip that cannot fill the memory."""


def decoded(content: bytes) -> np.ndarray:
    """uint8, uint16 or float32 [C, H, W]: upright, transparency on white, palettes and print colours as RGB.

    Args:
        content: of a file that Pillow or tifffile knows; pages or planes of a TIFF of several are channels.

    Raises:
        InputError: saying what is wrong, without a name.
    """
    if not content:
        raise InputError("an empty file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metadata that nobody needs
        try:
            array = _of_tiff(content) if content[:4] in TIFF else _of_picture(content)
        except InputError:
            raise
        except UnidentifiedImageError:
            raise InputError("not an image") from None
        except Image.DecompressionBombError:  # Pillow looks before we do
            raise InputError(f"more than {LARGEST:,} pixels") from None
        except MemoryError:
            raise PassingError("too little memory for it") from None
        except Exception as error:  # decoders fail in as many ways as there are broken files
            raise InputError(f"a damaged image ({type(error).__name__})") from None
    if array.dtype == np.float32 and not np.isfinite(array).all():
        raise InputError("pixels that are not finite")
    return np.ascontiguousarray(array)


def _of_picture(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        _refuse_size(image.width, image.height, len(image.getbands()))
        upright = ImageOps.exif_transpose(image)
        if upright.mode in COLOURS or "transparency" in upright.info:
            upright = _without_alpha(upright)
        elif upright.mode == "1":
            upright = upright.convert("L")
        array = np.asarray(upright)
    return _as_channels(array if array.ndim == 2 else array.transpose(2, 0, 1))


def _without_alpha(image: Image.Image) -> Image.Image:
    """RGB, or gray if there was no colour to begin with; what is transparent is white."""
    gray = image.mode in ("LA", "La", "L")
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV", "RGBX"):
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    flat = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    flat.alpha_composite(rgba)
    return flat.convert("L" if gray else "RGB")


def _of_tiff(content: bytes) -> np.ndarray:
    """Pillow knows colours and compressions, tifffile planes and precise pixels."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong with a file is said by who asks for it
    # Of an image in several files each is one: tifffile would take what the others hold for black.
    with tifffile.TiffFile(io.BytesIO(content), _multifile=False) as file:
        series = file.series[0]
        pixels = int(np.prod(series.shape))
        if pixels > LARGEST:
            raise InputError(f"{pixels:,} pixels, more than {LARGEST:,}")
        in_colours = series.keyframe.photometric.name in ("PALETTE", "SEPARATED", "YCBCR", "CIELAB")
        if in_colours or (series.axes in ("YX", "YXS") and series.dtype == np.uint8):
            return _of_picture(content)
        _refuse_bomb(content, series)
        try:
            array = np.moveaxis(series.asarray(), -1, 0) if series.axes.endswith("S") else series.asarray()
        except Exception:  # a compression that needs more than tifffile itself
            array = _pages(content)
    return _as_channels(array)


def _refuse_bomb(content: bytes, series: Any) -> None:
    """Refuse strips and tiles that unpack to more than they should have: tifffile would unpack them whole."""
    about = series.keyframe
    if about.compression not in UNPACKERS:
        return
    most = min(int(np.prod(about.chunks)), LARGEST) * about.dtype.itemsize
    for page in filter(None, series.pages):
        for start, size in zip(page.dataoffsets, page.databytecounts, strict=True):
            packed = memoryview(content)[start : start + size]
            if size > UNSUSPICIOUS and len(UNPACKERS[about.compression]().decompress(packed, most + 1)) > most:
                raise InputError("more pixels than it says")


def _pages(content: bytes) -> np.ndarray:
    pages, pixels = [], 0
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        for page in islice(ImageSequence.Iterator(image), MOST_CHANNELS + 1):
            pixels += page.width * page.height * len(page.getbands())
            if pixels > LARGEST:
                raise InputError(f"more than {LARGEST:,} pixels")
            pages.append(np.asarray(page))  # at once: the iterator gives the same image again
    return pages[0].transpose(2, 0, 1) if len(pages) == 1 and pages[0].ndim == 3 else np.stack(pages)


def _as_channels(array: np.ndarray) -> np.ndarray:
    """[C, H, W] of one of the three types, of [H, W] or [C, H, W]."""
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or not 1 <= len(array) <= MOST_CHANNELS or min(array.shape) < 1:
        raise InputError(f"shape {array.shape}, not height, width and 1 to {MOST_CHANNELS} channels")
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
    if width * height * channels > LARGEST:
        raise InputError(f"{width}x{height} pixels, more than {LARGEST:,}")
