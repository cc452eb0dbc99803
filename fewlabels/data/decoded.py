"""Images of files, decoded once into one file of numbers that every later start reads."""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fewlabels.data.form import Failed, Form, form_of, write_formed
from fewlabels.data.listing import Listing
from fewlabels.data.source import ArraySource, digest, evenly_spaced
from fewlabels.errors import InputError
from fewlabels.files import writable_folder, write_json, written_whole
from fewlabels.records import usable_cores

LOOKED_AT = 256
"""Images that tell what the others are like."""
CHUNK = 500
"""Images that a process decodes at a time; what is whole is not decoded again."""
STRETCHED = (0.1, 99.9)
"""Percentiles that 16-bit and float pixels are stretched between."""
STRETCHED_BY = 2000
"""Images that these are taken of."""
WORKERS_FROM = 2000
"""Images from which several processes are worth their start."""

Told = Callable[[int, int], None]
"""Progress: images done, of how many."""


class Decoded(NamedTuple):
    """The images of a listing that could be decoded."""

    source: ArraySource
    """Over a file, of which no more is in memory than is read."""
    rows: np.ndarray
    """int64 [N]: rows of the listing that its images are."""
    failed: dict[int, str]
    """What is wrong with the others, by row of the listing."""
    stretch: list[tuple[float, float]] | None
    """Per channel, what became 0 and what became 255; None: pixels are as they were."""


def decoded_images(listing: Listing, folder: Path, side: int | None = None, told: Told | None = None) -> Decoded:
    """Decode what has not been, and read all of it from then on.

    Args:
        listing: the images.
        folder: where decoded images are kept, by files, their sizes and times of change.
        side: pixels of the longer side; None: that of the images where they are all alike and small, else ``SIDE``.
        told: progress.

    Raises:
        InputError: if no image can be decoded, or the folder cannot be written.
        KeyboardInterrupt: after Ctrl-C; what is decoded is kept.
    """
    stamps = [_stamp(listing.path(row)) for row in range(len(listing.names))]
    place = folder / digest(json.dumps([listing.names, stamps, side]).encode())
    if not (place / "form.json").is_file():
        writable_folder(place)
        looked_at = [listing.path(row) for row in evenly_spaced(listing.names, LOOKED_AT)]
        write_json(place / "form.json", asdict(form_of(looked_at, side)))
    form = Form(**json.loads((place / "form.json").read_text()))
    if not (place / "failed.json").is_file():
        write_json(place / "failed.json", _decode(listing, form, place, told or (lambda done, of: None)))
    failed = {int(row): line for row, line in json.loads((place / "failed.json").read_text()).items()}
    rows = np.setdiff1d(np.arange(len(listing.names)), np.array(sorted(failed), dtype=np.int64))
    if not len(rows):
        raise InputError(f"{listing.path(0)}: {failed[0]}; nor can another image here be read.")
    images, stretch = _usable(place, form, rows)
    source = ArraySource(images, listing.labels[rows], listing.class_names, str(listing.root))
    return Decoded(source, rows, failed, stretch)


def _decode(listing: Listing, form: Form, place: Path, told: Told) -> Failed:
    """Decode the chunks that are not there yet; gives what is wrong, by row."""
    total, notes = len(listing.names), place / "chunks"
    starts = [start for start in range(0, total, CHUNK) if not (notes / f"{start}.json").is_file()]
    with (place / "images.bin").open("ab") as file:
        file.truncate(total * form.bytes)
    done = total - sum(min(CHUNK, total - start) for start in starts)
    paths = [str(listing.path(row)) for row in range(total)]
    jobs = [(start, paths[start : start + CHUNK]) for start in starts]
    for start, number, failed in _done(place / "images.bin", form, jobs):
        write_json(notes / f"{start}.json", failed)
        done += number
        told(done, total)
    return {
        str(start + int(at)): line
        for start in range(0, total, CHUNK)
        for at, line in json.loads((notes / f"{start}.json").read_text()).items()
    }


def _usable(place: Path, form: Form, rows: np.ndarray) -> tuple[np.ndarray, list[tuple[float, float]] | None]:
    """uint8 [N, C, H, W] over a file, without what could not be decoded, and how it was stretched."""
    stored = np.memmap(place / "images.bin", form.dtype, "r").reshape(-1, *form.shape)
    if form.dtype == "uint8" and len(rows) == len(stored):
        return stored, None
    file = place / "usable.bin"
    stretch = None if form.dtype == "uint8" else _stretch(place, stored, rows)
    if not file.is_file():
        with written_whole(file) as temporary, temporary.open("wb") as out:
            for start in range(0, len(rows), CHUNK):
                images = stored[rows[start : start + CHUNK]]
                out.write((images if stretch is None else stretched(images, stretch)).tobytes())
    return np.memmap(file, np.uint8, "r").reshape(-1, *form.shape), stretch


def _stretch(place: Path, stored: np.ndarray, rows: np.ndarray) -> list[tuple[float, float]]:
    file = place / "stretch.json"
    if not file.is_file():
        some = stored[rows[evenly_spaced(rows, STRETCHED_BY)]]
        write_json(file, np.percentile(some, STRETCHED, axis=(0, 2, 3)).T.tolist())
    return [(low, high) for low, high in json.loads(file.read_text())]


def stretched(images: np.ndarray, stretch: list[tuple[float, float]]) -> np.ndarray:
    """Pixels [..., C, H, W] as uint8, each channel from its low end to its high end.

    >>> stretched(np.array([[[[0, 300, 600]]]], np.uint16), [(100.0, 500.0)]).ravel()
    array([  0, 128, 255], dtype=uint8)
    """
    low, high = (np.array(end, np.float32)[:, None, None] for end in zip(*stretch, strict=True))
    share = np.clip((images - low) / np.maximum(high - low, 1e-12), 0, 1)
    pixels: np.ndarray = np.rint(255 * share).astype(np.uint8)
    return pixels


def _done(file: Path, form: Form, jobs: Sequence[tuple[int, list[str]]]) -> Iterator[tuple[int, int, Failed]]:
    """First row, number and what is wrong by place, of each job when it is done."""
    if sum(len(paths) for _, paths in jobs) < WORKERS_FROM or usable_cores() == 1:
        for start, paths in jobs:
            yield start, len(paths), write_formed(file, form, start, paths)
        return
    with _workers() as pool:
        running: dict[Future[Failed], tuple[int, int]] = {
            pool.submit(write_formed, file, form, start, paths): (start, len(paths)) for start, paths in jobs
        }
        for future in as_completed(running):
            start, number = running[future]
            yield start, number, future.result()


@contextmanager
def _workers() -> Iterator[ProcessPoolExecutor]:
    # Spawned, as on Windows and macOS: a forked process would inherit torch's threads half alive.
    pool = ProcessPoolExecutor(usable_cores(), mp_context=get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _stamp(file: Path) -> tuple[int, int]:
    """Size and time of change: of another content, another stamp."""
    try:
        found = file.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns
