"""Images of any size, brought to one form; nothing here imports torch, so that worker processes start fast."""

import json
import os
import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fewlabels._internal.errors import InputError, PassingError
from fewlabels.data.decode import LARGEST, MOST_CHANNELS, decoded

SIDE = 96
"""Pixels of the longer side, at most, unless it is said."""

LARGEST_FILE = 256 * 2**20
"""Bytes."""
BUFFERED = 16 * 2**20
"""Bytes that are written together, at most."""

Failed = dict[str, str]
"""What is wrong with images, by their place."""

Stretch = tuple[tuple[float, float], ...]
"""For each channel, what becomes 0 and what becomes 255."""

STRETCHED = (0.1, 99.9)
"""Percentiles that 16-bit and float pixels are stretched between."""
STRETCHED_BY = 2000
"""Images that these are taken of, at most."""
BEYOND = 4
"""Times the brightest of the model's pixels that those of another type may have."""
FEWER_BITS = 4095
"""Pixels of 16 bits that get no further are of 12 bits, and would be black as the high bytes of 16."""

PRECISIONS = ("float32", "uint16", "uint8")
"""The most precise first."""


@dataclass(frozen=True)
class Form:
    """What every image is brought to."""

    channels: int
    height: int
    width: int
    dtype: str
    """uint8 or uint16, as precise as the most precise of those looked at; float32 where most of them are."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    @property
    def bytes(self) -> int:
        """Of one image."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Preparation:
    """What makes a file's pixels what a network takes; a model keeps it, so that later images are treated alike."""

    form: Form
    stretch: Stretch | None = None
    """None: pixels are as they were, of 8 bits."""

    def __call__(self, content: bytes) -> np.ndarray:
        """uint8 [C, H, W] of an image file's content.

        Raises:
            InputError: saying what is wrong with it, without a name.
        """
        return self.of_array(decoded(content))

    def of_array(self, image: np.ndarray) -> np.ndarray:
        """uint8 [C, H, W] of the pixels [C', H', W'] of an image.

        Raises:
            InputError: if it has other channels than gray or colour can be made of, or pixels of another range.
        """
        as_floats = self.form.dtype == "float32" and image.dtype.kind in "bui"
        whole = formed(image.astype(np.float32) if as_floats else image, self.form)
        if self.stretch is None:
            return whole
        brightest = max(0.0, *(high for _, high in self.stretch))
        of_another_type = image.dtype.name in PRECISIONS[1:] and image.dtype.name != self.form.dtype
        if of_another_type and whole.max() > BEYOND * brightest:
            raise InputError(
                f"pixels of {image.dtype}, up to {whole.max():g} as {self.form.dtype}; those of the model's images end "
                f"at {brightest:g}"
            )
        return stretched(whole, self.stretch)

    def as_json(self) -> str:
        """One line."""
        return json.dumps({"form": asdict(self.form), "stretch": self.stretch})

    @classmethod
    def of_json(cls, text: str) -> "Preparation":
        """What :meth:`as_json` wrote.

        Raises:
            ValueError: if it is something else.
        """
        try:
            about = json.loads(text)
            form = Form(**about["form"])
            stretch = about["stretch"] and tuple((float(low), float(high)) for low, high in about["stretch"])
        except (KeyError, TypeError) as error:
            raise ValueError(str(error)) from None
        sides = (form.channels, form.height, form.width)
        sound = all(type(side) is int and side >= 1 for side in sides) and form.dtype in PRECISIONS
        if not sound or form.channels > MOST_CHANNELS or np.prod(sides, dtype=float) > LARGEST:
            raise ValueError("no form of an image")
        if (len(stretch) if stretch else form.channels) != form.channels or (form.dtype != "uint8" and not stretch):
            raise ValueError("a stretch of other channels")
        return cls(form, stretch or None)


def stretch_of(images: np.ndarray) -> Stretch:
    """What suits these pixels [N, C, H, W]."""
    ends = np.percentile(images, STRETCHED, axis=(0, 2, 3)).T.tolist()
    return tuple((low, high) for low, high in ends)


def stretched(images: np.ndarray, stretch: Stretch) -> np.ndarray:
    """Pixels [..., C, H, W] as uint8, each channel from its low end to its high end.

    >>> stretched(np.array([[[[0, 300, 600]]]], np.uint16), ((100.0, 500.0),)).ravel()
    array([  0, 128, 255], dtype=uint8)
    """
    low, high = (np.array(end, np.float32)[:, None, None] for end in zip(*stretch, strict=True))
    share = np.clip((images - low) / np.maximum(high - low, 1e-12), 0, 1)
    pixels: np.ndarray = np.rint(255 * share).astype(np.uint8)
    return pixels


def content_of(item: str | bytes) -> bytes:
    """Of an image's file: the item itself, or what stands under its path.

    Raises:
        InputError: if that is no file, or a larger one than any image needs.
        OSError: if it cannot be read.
    """
    if isinstance(item, bytes):
        return item
    about = os.stat(item)
    if not stat.S_ISREG(about.st_mode):  # a pipe would be waited for
        raise InputError("not a file")
    if about.st_size > LARGEST_FILE:
        raise InputError(f"{about.st_size / 2**20:,.0f} MiB, more than {LARGEST_FILE / 2**20:.0f}")
    with open(item, "rb") as file:
        return file.read(LARGEST_FILE)


def image_of(item: str | bytes) -> np.ndarray:
    """The pixels of an image's file, as :func:`~fewlabels.data.decode.decoded` gives them.

    Raises:
        InputError: saying what is wrong with it, without a name.
    """
    try:
        return decoded(content_of(item))
    except FileNotFoundError as error:  # when it is there, its stamp is another
        raise InputError(f"cannot be read ({error.strerror})") from None
    except OSError as error:
        raise PassingError(f"cannot be read ({error.strerror})") from None


def form_of(items: Sequence[str | bytes], side: int | None) -> tuple[Form, int]:
    """What suits these images: as many channels, as large and as precise as they need; and their longest side.

    Raises:
        InputError: if none of them can be decoded.
    """
    shapes: list[tuple[int, ...]] = []
    dtypes: list[str] = []
    wrong = ""
    for place, item in enumerate(items):
        try:
            image = decoded(content_of(item))
        except (InputError, OSError) as error:
            wrong = wrong or f"{item if isinstance(item, str) else f'image {place}'}: {error}"
            continue
        shapes.append(image.shape)
        dtypes.append(image.dtype.name)
    if not shapes:
        raise InputError(f"{wrong}; nor can another of the images looked at be read.")
    channels, count = np.unique([shape[0] for shape in shapes], return_counts=True)
    # Gray among colour becomes colour; of anything else the commonest.
    usual = 3 if set(channels.tolist()) == {1, 3} else int(channels[count.argmax()])
    # Of floats nobody knows what integers among them are worth; of integers the most precise.
    floats = 2 * dtypes.count("float32") > len(dtypes)
    dtype = "float32" if floats else next(name for name in PRECISIONS[1:] if name in dtypes)
    heights, widths = ({shape[axis] for shape in shapes} for axis in (1, 2))
    longest = max(*heights, *widths)
    if len(heights) == len(widths) == 1 and side is None and longest <= SIDE:
        return Form(usual, heights.pop(), widths.pop(), dtype), longest
    longer = int(np.median([max(shape[1:]) for shape in shapes]))
    square = side or min(longer, SIDE)
    return Form(usual, square, square, dtype), longest


def formed(image: np.ndarray, form: Form) -> np.ndarray:
    """An image [C', H', W'] in a form: scaled to fit, in the middle of its border's median, with its channels.

    Raises:
        InputError: if it has other channels than gray or colour can be made of, or pixels of another range.
    """
    channels = len(image)
    if channels != form.channels:
        if (channels, form.channels) == (1, 3):
            image = np.repeat(image, 3, axis=0)
        elif (channels, form.channels) == (3, 1):
            weights = np.array([0.299, 0.587, 0.114], np.float32)
            image = np.tensordot(weights, image.astype(np.float32), 1)[None].round().astype(image.dtype)
        else:
            raise InputError(f"{channels} channels, the others have {form.channels}")
    image = _precise(image, form.dtype)
    if image.shape == form.shape:
        return image
    scale = min(form.height / image.shape[1], form.width / image.shape[2])
    height, width = (max(1, round(side * scale)) for side in image.shape[1:])
    scaled = np.stack([_scaled(plane, width, height) for plane in image])
    if scaled.shape == form.shape:
        return scaled
    border = np.concatenate([scaled[:, 0], scaled[:, -1], scaled[:, :, 0], scaled[:, :, -1]], axis=1)
    whole = np.broadcast_to(np.median(border, axis=1)[:, None, None], form.shape).astype(form.dtype)
    top, left = (form.height - height) // 2, (form.width - width) // 2
    whole[:, top : top + height, left : left + width] = scaled
    return whole


def _precise(image: np.ndarray, dtype: str) -> np.ndarray:
    if image.dtype.name == dtype:
        return image
    if image.dtype == np.uint8 and dtype == "uint16":
        return image.astype(np.uint16) * 257
    if image.dtype == np.uint16 and dtype == "uint8":
        if 0 < image.max() <= FEWER_BITS:
            raise InputError(f"pixels of 16 bits that end at {image.max():,}, the others have 8 bits")
        return (image // 257).astype(np.uint8)
    if image.dtype.kind == "f" and dtype == "float32":
        return image.astype(np.float32)
    raise InputError(f"pixels of {image.dtype}, the others have {dtype}")


def _scaled(plane: np.ndarray, width: int, height: int) -> np.ndarray:
    """Box filtered when made smaller; in single precision where there are more than 8 bits."""
    if plane.dtype == np.uint8:
        return np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BOX))
    scaled = Image.fromarray(plane.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    return np.rint(np.asarray(scaled)).astype(plane.dtype) if plane.dtype == np.uint16 else np.asarray(scaled)


def write_formed(file: Path, form: Form, start: int, items: Sequence[str | bytes]) -> tuple[Failed, bool]:
    """Decode images into their places of the file; gives what is wrong, by place, and whether that is for good."""
    failed: Failed = {}
    for_good = True
    with file.open("r+b", buffering=min(form.bytes * len(items), BUFFERED)) as out:
        out.seek(start * form.bytes)
        for place, item in enumerate(items):
            try:
                image = formed(image_of(item), form)
            except InputError as error:
                failed[str(place)] = str(error)
                for_good &= not isinstance(error, PassingError)
            else:
                out.write(image.tobytes())
                continue
            out.seek(form.bytes, os.SEEK_CUR)
    return failed, for_good
