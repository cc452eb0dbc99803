"""Images of any size, brought to one form; nothing here imports torch, so that worker processes start fast."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fewlabels.data.decode import decoded
from fewlabels.errors import InputError

SIDE = 96
"""Pixels of the longer side, at most, unless it is said."""

Failed = dict[str, str]
"""What is wrong with images, by their place."""


@dataclass(frozen=True)
class Form:
    """What every image is brought to."""

    channels: int
    height: int
    width: int
    dtype: str
    """uint8, uint16 or float32: as precise as the most precise of those looked at."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    @property
    def bytes(self) -> int:
        """Of one image."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


def form_of(paths: Sequence[Path], side: int | None) -> Form:
    """What suits these images: as many channels, as large and as precise as they need.

    Raises:
        InputError: if none of them can be decoded.
    """
    shapes: list[tuple[int, ...]] = []
    dtypes = set()
    wrong = ""
    for path in paths:
        try:
            image = decoded(path.read_bytes())
        except (InputError, OSError) as error:
            wrong = wrong or f"{path}: {error}"
            continue
        shapes.append(image.shape)
        dtypes.add(image.dtype.name)
    if not shapes:
        raise InputError(f"{wrong}; nor can another of the images looked at be read.")
    channels, count = np.unique([shape[0] for shape in shapes], return_counts=True)
    # Gray among colour becomes colour; of anything else the commonest.
    usual = 3 if set(channels.tolist()) == {1, 3} else int(channels[count.argmax()])
    dtype = next(name for name in ("float32", "uint16", "uint8") if name in dtypes)
    heights, widths = ({shape[axis] for shape in shapes} for axis in (1, 2))
    if len(heights) == len(widths) == 1 and side is None and max(*heights, *widths) <= SIDE:
        return Form(usual, heights.pop(), widths.pop(), dtype)
    longer = int(np.median([max(shape[1:]) for shape in shapes]))
    square = side or min(longer, SIDE)
    return Form(usual, square, square, dtype)


def formed(image: np.ndarray, form: Form) -> np.ndarray:
    """An image [C', H', W'] in a form: scaled to fit, in the middle of its border's median, with its channels.

    Raises:
        InputError: if it has other channels than gray or colour can be made of.
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
        return (image // 257).astype(np.uint8)
    if dtype == "float32":
        return image.astype(np.float32)
    raise InputError(f"pixels of {image.dtype}, the others have {dtype}")


def _scaled(plane: np.ndarray, width: int, height: int) -> np.ndarray:
    """Box filtered when made smaller; in single precision where there are more than 8 bits."""
    if plane.dtype == np.uint8:
        return np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BOX))
    scaled = Image.fromarray(plane.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    return np.rint(np.asarray(scaled)).astype(plane.dtype) if plane.dtype == np.uint16 else np.asarray(scaled)


def write_formed(file: Path, form: Form, start: int, paths: Sequence[str]) -> Failed:
    """Decode images into their places of the file; gives what is wrong, by place."""
    failed: Failed = {}
    with file.open("r+b", buffering=form.bytes * len(paths)) as out:
        out.seek(start * form.bytes)
        for place, path in enumerate(paths):
            try:
                image = formed(decoded(Path(path).read_bytes()), form)
            except InputError as error:
                failed[str(place)] = str(error)
            except OSError as error:
                failed[str(place)] = f"cannot be read ({error.strerror})"
            else:
                out.write(image.tobytes())
                continue
            out.seek(form.bytes, os.SEEK_CUR)
    return failed
