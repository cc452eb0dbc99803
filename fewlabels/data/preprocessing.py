"""Convert images of any size and pixel type to one shape and to uint8.

This module does not import torch, so that worker processes start fast.
"""

import json
import os
import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fewlabels._internal.errors import InputError, TransientError
from fewlabels.data.decode import MAX_CHANNELS, MAX_PIXELS, decode_image

DEFAULT_MAX_SIDE = 96
"""Largest side in pixels of converted images, unless the caller gives a size. Not tuned."""

MAX_FILE_BYTES = 256 * 2**20
"""Size in bytes above which an image file is refused: a safety limit, not tuned."""
MAX_BUFFER_BYTES = 16 * 2**20
"""Size in bytes of the largest write buffer for decoded images. Not tuned."""

DecodeErrors = dict[str, str]
"""Error message by image index; the index is text, as JSON keys are."""

PixelRange = tuple[tuple[float, float], ...]
"""For each channel, the pixel values that become 0 and 255."""

RANGE_PERCENTILES = (0.1, 99.9)
"""Percentiles of 16-bit and float pixels that become 0 and 255. Not tuned."""
RANGE_SAMPLE_SIZE = 2000
"""Number of images from which these percentiles are computed, at most. Not tuned."""
MAX_BRIGHTNESS_RATIO = 4
"""Largest ratio of an image's brightest pixel to the upper end of the model's pixel range, if their types differ.

Not tuned; dev/decisions.md says why such images are refused.
"""
MAX_12_BIT_VALUE = 4095
"""Largest value of a 12-bit pixel. 16-bit images that do not exceed it would become black if reduced to 8 bits."""

PIXEL_TYPES = ("float32", "uint16", "uint8")
"""Supported pixel types, the most precise first."""


@dataclass(frozen=True)
class ImageSpec:
    """Number of channels, size and pixel type that every image is converted to."""

    channels: int
    height: int
    width: int
    dtype: str
    """uint8, uint16 or float32."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    @property
    def nbytes(self) -> int:
        """Size of one image in bytes."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Preprocessing:
    """Conversion of an image file to the pixels that a network takes; saved with a model and reused for prediction."""

    form: ImageSpec
    """Shape and pixel type before rescaling to uint8."""
    pixel_range: PixelRange | None = None
    """Range of the values that are rescaled to 0..255; None: pixels are uint8 and stay unchanged."""

    def __call__(self, content: bytes) -> np.ndarray:
        """Decode the content of an image file and convert it to uint8 [C, H, W].

        Raises:
            InputError: with the reason; the message does not name the file.
        """
        return self.transform(decode_image(content))

    def transform(self, image: np.ndarray) -> np.ndarray:
        """Convert the pixels [C', H', W'] of an image to uint8 [C, H, W].

        Raises:
            InputError: if the channels cannot be converted (only gray and colour can), or the pixels have another
                range than those of the model.
        """
        as_floats = self.form.dtype == "float32" and image.dtype.kind in "bui"
        converted = convert_image(image.astype(np.float32) if as_floats else image, self.form)
        if self.pixel_range is None:
            return converted
        brightest = max(0.0, *(high for _, high in self.pixel_range))
        of_another_type = image.dtype.name in PIXEL_TYPES[1:] and image.dtype.name != self.form.dtype
        if of_another_type and converted.max() > MAX_BRIGHTNESS_RATIO * brightest:
            raise InputError(
                f"{image.dtype} pixels of up to {converted.max():g} as {self.form.dtype}; the pixels of the model's "
                f"images end at {brightest:g}"
            )
        return rescale_pixels(converted, self.pixel_range)

    def as_json(self) -> str:
        """Return the preprocessing as one line of JSON."""
        return json.dumps({"form": asdict(self.form), "stretch": self.pixel_range})

    @classmethod
    def from_json(cls, text: str) -> "Preprocessing":
        """Read what :meth:`as_json` has written.

        Raises:
            ValueError: if the text is something else.
        """
        try:
            about = json.loads(text)
            spec = ImageSpec(**about["form"])
            pixel_range = about["stretch"] and tuple((float(low), float(high)) for low, high in about["stretch"])
        except (KeyError, TypeError) as error:
            raise ValueError(str(error)) from None
        sides = (spec.channels, spec.height, spec.width)
        valid = all(type(side) is int and side >= 1 for side in sides) and spec.dtype in PIXEL_TYPES
        if not valid or spec.channels > MAX_CHANNELS or np.prod(sides, dtype=float) > MAX_PIXELS:
            raise ValueError("not a valid image size or pixel type")
        if (len(pixel_range) if pixel_range else spec.channels) != spec.channels or (
            spec.dtype != "uint8" and not pixel_range
        ):
            raise ValueError("the pixel range does not match the channels or the pixel type")
        return cls(spec, pixel_range or None)


def percentile_range(images: np.ndarray) -> PixelRange:
    """Return the range between two percentiles of each channel, from pixels [N, C, H, W]."""
    ends = np.percentile(images, RANGE_PERCENTILES, axis=(0, 2, 3)).T.tolist()
    return tuple((low, high) for low, high in ends)


def rescale_pixels(images: np.ndarray, pixel_range: PixelRange) -> np.ndarray:
    """Rescale pixels [..., C, H, W] linearly to uint8: each channel's range becomes 0..255, other values are clipped.

    >>> rescale_pixels(np.array([[[[0, 300, 600]]]], np.uint16), ((100.0, 500.0),)).ravel()
    array([  0, 128, 255], dtype=uint8)
    """
    low, high = (np.array(end, np.float32)[:, None, None] for end in zip(*pixel_range, strict=True))
    fraction = np.clip((images - low) / np.maximum(high - low, 1e-12), 0, 1)
    pixels: np.ndarray = np.rint(255 * fraction).astype(np.uint8)
    return pixels


def read_content(item: str | bytes) -> bytes:
    """Return the content of an image file, given its path; content that is given already is returned unchanged.

    Raises:
        InputError: if the path is not a regular file, or the file is too large for an image.
        OSError: if the file cannot be read.
    """
    if isinstance(item, bytes):
        return item
    about = os.stat(item)
    if not stat.S_ISREG(about.st_mode):  # reading a pipe would block
        raise InputError("not a file")
    if about.st_size > MAX_FILE_BYTES:
        raise InputError(f"{about.st_size / 2**20:,.0f} MiB, more than {MAX_FILE_BYTES / 2**20:.0f}")
    with open(item, "rb") as file:
        return file.read(MAX_FILE_BYTES)


def read_image(item: str | bytes) -> np.ndarray:
    """Decode an image file, given its path or content, as :func:`~fewlabels.data.decode.decode_image` does.

    Raises:
        InputError: with the reason; the message does not name the file.
    """
    try:
        return decode_image(read_content(item))
    except FileNotFoundError as error:  # not a TransientError: a file that appears later has another stamp
        raise InputError(f"cannot be read ({error.strerror})") from None
    except OSError as error:
        raise TransientError(f"cannot be read ({error.strerror})") from None


def infer_spec(items: Sequence[str | bytes], side: int | None) -> tuple[ImageSpec, int]:
    """Choose channels, size and pixel type that suit these images; also return their longest side in pixels.

    The pixel type is the most precise integer type among the images, or float32 if most images have floats.

    Raises:
        InputError: if no image can be decoded.
    """
    shapes: list[tuple[int, ...]] = []
    dtypes: list[str] = []
    first_error = ""
    for index, item in enumerate(items):
        try:
            image = decode_image(read_content(item))
        except (InputError, OSError) as error:
            first_error = first_error or f"{item if isinstance(item, str) else f'image {index}'}: {error}"
            continue
        shapes.append(image.shape)
        dtypes.append(image.dtype.name)
    if not shapes:
        raise InputError(f"{first_error}. No other sampled image can be read either.")
    channels, count = np.unique([shape[0] for shape in shapes], return_counts=True)
    # A mixture of gray and colour becomes colour. Any other mixture becomes its most frequent number of channels.
    usual = 3 if set(channels.tolist()) == {1, 3} else int(channels[count.argmax()])
    # The scale of integer pixels among floats is unknown, so the majority decides between floats and integers.
    floats = 2 * dtypes.count("float32") > len(dtypes)
    dtype = "float32" if floats else next(name for name in PIXEL_TYPES[1:] if name in dtypes)
    heights, widths = ({shape[axis] for shape in shapes} for axis in (1, 2))
    longest = max(*heights, *widths)
    if len(heights) == len(widths) == 1 and side is None and longest <= DEFAULT_MAX_SIDE:
        return ImageSpec(usual, heights.pop(), widths.pop(), dtype), longest
    longer = int(np.median([max(shape[1:]) for shape in shapes]))
    square = side or min(longer, DEFAULT_MAX_SIDE)
    return ImageSpec(usual, square, square, dtype), longest


def convert_image(image: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """Convert an image [C', H', W'] to the channels, size and pixel type of ``spec``: [C, H, W].

    The aspect ratio is kept. The image is centred; the rest is filled with the median of the image's border.

    Raises:
        InputError: if the channels cannot be converted (only gray and colour can), or the pixel type cannot.
    """
    channels = len(image)
    if channels != spec.channels:
        if (channels, spec.channels) == (1, 3):
            image = np.repeat(image, 3, axis=0)
        elif (channels, spec.channels) == (3, 1):
            weights = np.array([0.299, 0.587, 0.114], np.float32)
            image = np.tensordot(weights, image.astype(np.float32), 1)[None].round().astype(image.dtype)
        else:
            raise InputError(f"{channels} channels, the others have {spec.channels}")
    image = _convert_dtype(image, spec.dtype)
    if image.shape == spec.shape:
        return image
    scale = min(spec.height / image.shape[1], spec.width / image.shape[2])
    height, width = (max(1, round(side * scale)) for side in image.shape[1:])
    scaled = np.stack([_resize(plane, width, height) for plane in image])
    if scaled.shape == spec.shape:
        return scaled
    border = np.concatenate([scaled[:, 0], scaled[:, -1], scaled[:, :, 0], scaled[:, :, -1]], axis=1)
    padded = np.broadcast_to(np.median(border, axis=1)[:, None, None], spec.shape).astype(spec.dtype)
    top, left = (spec.height - height) // 2, (spec.width - width) // 2
    padded[:, top : top + height, left : left + width] = scaled
    return padded


def _convert_dtype(image: np.ndarray, dtype: str) -> np.ndarray:
    if image.dtype.name == dtype:
        return image
    if image.dtype == np.uint8 and dtype == "uint16":
        return image.astype(np.uint16) * 257
    if image.dtype == np.uint16 and dtype == "uint8":
        if 0 < image.max() <= MAX_12_BIT_VALUE:
            raise InputError(f"pixels of 16 bits that end at {image.max():,}, the others have 8 bits")
        return (image // 257).astype(np.uint8)
    if image.dtype.kind == "f" and dtype == "float32":
        return image.astype(np.float32)
    raise InputError(f"pixels of {image.dtype}, the others have {dtype}")


def _resize(plane: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize one channel [H, W] with Pillow's box filter; uint16 and float32 are computed in float32."""
    if plane.dtype == np.uint8:
        return np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BOX))
    scaled = Image.fromarray(plane.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    return np.rint(np.asarray(scaled)).astype(plane.dtype) if plane.dtype == np.uint16 else np.asarray(scaled)


def decode_into_file(
    file: Path, spec: ImageSpec, start: int, items: Sequence[str | bytes]
) -> tuple[DecodeErrors, bool]:
    """Decode and convert images, and write them into rows ``start``, ``start + 1``, ... of a file of raw pixels.

    Returns:
        Error messages by index among ``items``, and whether all of these errors are permanent.
    """
    errors: DecodeErrors = {}
    permanent = True
    with file.open("r+b", buffering=min(spec.nbytes * len(items), MAX_BUFFER_BYTES)) as out:
        out.seek(start * spec.nbytes)
        for index, item in enumerate(items):
            try:
                image = convert_image(read_image(item), spec)
            except InputError as error:
                errors[str(index)] = str(error)
                permanent &= not isinstance(error, TransientError)
            else:
                out.write(image.tobytes())
                continue
            out.seek(spec.nbytes, os.SEEK_CUR)
    return errors, permanent
