"""Decode image files once into a cache: one file of pixels, from which later runs read rows."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fewlabels._internal.environment import available_cores
from fewlabels._internal.errors import InputError
from fewlabels._internal.files import atomic_write, translate_os_error, writable_folder, write_json
from fewlabels.data.listing import Listing
from fewlabels.data.preprocessing import (
    RANGE_SAMPLE_SIZE,
    DecodeErrors,
    ImageSpec,
    PixelRange,
    Preprocessing,
    decode_into_file,
    infer_spec,
    percentile_range,
    rescale_pixels,
)
from fewlabels.data.source import ArraySource, digest, evenly_spaced
from fewlabels.data.workers import WORKERS_FROM, workers

SPEC_SAMPLE_SIZE = 256
"""Number of images from which size, channels and pixel type are inferred, at most. Not tuned."""
CACHE_VERSION = 4
"""Version of the cache's file layout. It is part of the cache key, so a new version ignores older files."""
CHUNK = 500
"""Number of images that a process decodes at a time; after an interruption, completed chunks are reused. Not tuned."""

ProgressCallback = Callable[[int, int], None]
"""Called with the number of images done and their total."""


class DecodedImages(NamedTuple):
    """The images of a listing that could be decoded."""

    source: ArraySource
    """Images and labels; the pixels stay on disk until they are read."""
    rows: np.ndarray
    """int64 [N]: the row of the listing for each image of the source."""
    failed: dict[int, str]
    """Error message by row of the listing, for the images that could not be decoded."""
    preprocessing: Preprocessing
    """The conversion that was applied to the pixels."""
    longest_side: int
    """Longest side in pixels of the sampled image files, before they were resized."""


def decode_images(
    listing: Listing, folder: Path, side: int | None = None, on_progress: ProgressCallback | None = None
) -> DecodedImages:
    """Decode the image files of a listing, or read them from the cache if it has them.

    Args:
        listing: the image files.
        folder: the cache; its entries depend on the root folder and on the files' names, sizes and times of change.
        side: images become squares of this side in pixels. None: images keep their size if all have the same, of at
            most ``DEFAULT_MAX_SIDE`` pixels; else they become squares of their median longer side, with the same limit.
        on_progress: called after each chunk of images.

    Raises:
        InputError: if no image can be decoded, or the folder cannot be written.
        KeyboardInterrupt: after Ctrl-C; completed chunks stay in the cache.
    """
    items = [listing.item(row) for row in range(len(listing.names))]
    files = [str(listing.root.resolve()), listing.names, [_file_stamp(item) for item in items]]
    entry = folder / digest(json.dumps([CACHE_VERSION, *files, side]).encode())
    if not (entry / "form.json").is_file():
        writable_folder(entry)
        sample = [items[row] for row in evenly_spaced(items, SPEC_SAMPLE_SIZE)]
        spec, longest_side = infer_spec(sample, side)
        write_json(entry / "form.json", {"form": asdict(spec), "longest": longest_side})
    about = json.loads((entry / "form.json").read_text())
    spec = ImageSpec(**about["form"])
    errors_file = entry / "failed.json"
    if errors_file.is_file():
        errors = json.loads(errors_file.read_text())
    else:
        with translate_os_error(entry):
            errors, permanent = _decode(items, spec, entry, on_progress or (lambda done, total: None))
        if permanent:
            write_json(errors_file, errors)
    failed = {int(row): line for row, line in errors.items()}
    rows = np.setdiff1d(np.arange(len(listing.names)), np.array(sorted(failed), dtype=np.int64))
    if not len(rows):
        raise InputError(f"{listing.root / listing.names[0]}: {failed[0]}. No other image here can be read either.")
    images, pixel_range = _open_readable(entry, spec, rows)
    source = ArraySource(images, listing.labels[rows], listing.class_names, str(listing.root))
    return DecodedImages(source, rows, failed, Preprocessing(spec, pixel_range), about["longest"])


def preview_images(listing: Listing, side: int | None = None) -> DecodedImages:
    """As :func:`decode_images`, but with black pixels: for what depends on the images' number, size and labels alone.

    Raises:
        InputError: if none of the sampled images can be decoded.
    """
    items = [listing.item(row) for row in evenly_spaced(listing.names, SPEC_SAMPLE_SIZE).tolist()]
    spec, longest_side = infer_spec(items, side)
    images = np.broadcast_to(np.uint8(0), (len(listing.names), *spec.shape))
    source = ArraySource(images, listing.labels, listing.class_names, str(listing.root))
    return DecodedImages(source, np.arange(len(images)), {}, Preprocessing(spec), longest_side)


def _decode(
    items: Sequence[str | bytes], spec: ImageSpec, entry: Path, on_progress: ProgressCallback
) -> tuple[DecodeErrors, bool]:
    """Decode the chunks that the cache lacks; return errors by row, and whether all of them are permanent."""
    total, chunks = len(items), entry / "chunks"
    starts = [start for start in range(0, total, CHUNK) if not (chunks / f"{start}.json").is_file()]
    with (entry / "images.bin").open("ab") as file:
        file.truncate(total * spec.nbytes)
    done = total - sum(min(CHUNK, total - start) for start in starts)
    jobs = [(start, items[start : start + CHUNK]) for start in starts]
    temporary: dict[int, DecodeErrors] = {}
    for start, number, errors, permanent in _completed_chunks(entry / "images.bin", spec, jobs):
        if permanent:
            write_json(chunks / f"{start}.json", errors)
        else:
            temporary[start] = errors
        done += number
        on_progress(done, total)
    by_chunk = {
        start: temporary[start] if start in temporary else json.loads((chunks / f"{start}.json").read_text())
        for start in range(0, total, CHUNK)
    }
    by_row = {str(start + int(index)): line for start, errors in by_chunk.items() for index, line in errors.items()}
    return by_row, not temporary


def _open_readable(entry: Path, spec: ImageSpec, rows: np.ndarray) -> tuple[np.ndarray, PixelRange | None]:
    """Return a memory map uint8 [N, C, H, W] of the readable images, and the range that was rescaled to 0..255."""
    stored = np.memmap(entry / "images.bin", spec.dtype, "r").reshape(-1, *spec.shape)
    if spec.dtype == "uint8" and len(rows) == len(stored):
        return stored, None
    file = entry / f"usable-{digest(rows.tobytes())}.bin"
    pixel_range = None if spec.dtype == "uint8" else _pixel_range(entry, stored, rows)
    if not file.is_file():
        with atomic_write(file) as temporary, temporary.open("wb") as out:
            for start in range(0, len(rows), CHUNK):
                images = stored[rows[start : start + CHUNK]]
                out.write((images if pixel_range is None else rescale_pixels(images, pixel_range)).tobytes())
    return np.memmap(file, np.uint8, "r").reshape(-1, *spec.shape), pixel_range


def _pixel_range(entry: Path, stored: np.ndarray, rows: np.ndarray) -> PixelRange:
    file = entry / "stretch.json"
    if not file.is_file():
        write_json(file, percentile_range(stored[rows[evenly_spaced(rows, RANGE_SAMPLE_SIZE)]]))
    return tuple((low, high) for low, high in json.loads(file.read_text()))


def _completed_chunks(
    file: Path, spec: ImageSpec, jobs: Sequence[tuple[int, Sequence[str | bytes]]]
) -> Iterator[tuple[int, int, DecodeErrors, bool]]:
    """Decode chunks, and yield for each its first row, its size, its errors by index, and whether they are permanent.

    Args:
        file: receives the pixels.
        spec: of the pixels.
        jobs: first row and image files of each chunk.
    """
    left = dict(jobs)
    if sum(map(len, left.values())) >= WORKERS_FROM and available_cores() > 1:
        # The pool breaks in a script without ``if __name__ == "__main__"``; then this process decodes all that is left.
        with suppress(BrokenProcessPool), workers() as pool:
            running: dict[Future[tuple[DecodeErrors, bool]], int] = {
                pool.submit(decode_into_file, file, spec, start, items): start for start, items in jobs
            }
            for future in as_completed(running):
                found, start = future.result(), running[future]  # if this raises, the chunk stays in ``left``
                yield start, len(left.pop(start)), *found
    for start, items in left.items():
        yield start, len(items), *decode_into_file(file, spec, start, items)


def _file_stamp(item: str | bytes) -> tuple[int, int] | str:
    """Return size in bytes and time of change in ns of a file, (0, 0) if it is missing, or a digest of its content."""
    if isinstance(item, bytes):
        return digest(item)
    try:
        found = os.stat(item)
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns
