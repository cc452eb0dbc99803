"""Images of files, decoded once into one file of numbers that every later start reads."""

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

from fewlabels._internal.environment import usable_cores
from fewlabels._internal.errors import InputError
from fewlabels._internal.files import explained, writable_folder, write_json, written_whole
from fewlabels.data.form import (
    STRETCHED_BY,
    Failed,
    Form,
    Preparation,
    Stretch,
    form_of,
    stretch_of,
    stretched,
    write_formed,
)
from fewlabels.data.listing import Listing
from fewlabels.data.source import ArraySource, digest, evenly_spaced
from fewlabels.data.workers import WORKERS_FROM, workers

LOOKED_AT = 256
"""Images that tell what the others are like."""
LAYOUT = 4
"""Of what is kept; another is kept beside it."""
CHUNK = 500
"""Images that a process decodes at a time; what is whole is not decoded again."""

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
    preparation: Preparation
    """What was done with their pixels."""
    longest: int
    """Pixels of the longest side of those looked at, as they lie on disk."""


def decoded_images(listing: Listing, folder: Path, side: int | None = None, told: Told | None = None) -> Decoded:
    """Decode what has not been, and read all of it from then on.

    Args:
        listing: the images.
        folder: where decoded images are kept, by folder, files, their sizes and times of change.
        side: pixels of the longer side; None: that of the images where they are all alike and small, else ``SIDE``.
        told: progress.

    Raises:
        InputError: if no image can be decoded, or the folder cannot be written.
        KeyboardInterrupt: after Ctrl-C; what is decoded is kept.
    """
    items = [listing.item(row) for row in range(len(listing.names))]
    files = [str(listing.root.resolve()), listing.names, [_stamp(item) for item in items]]
    place = folder / digest(json.dumps([LAYOUT, *files, side]).encode())
    if not (place / "form.json").is_file():
        writable_folder(place)
        looked_at = [items[row] for row in evenly_spaced(items, LOOKED_AT)]
        form, longest = form_of(looked_at, side)
        write_json(place / "form.json", {"form": asdict(form), "longest": longest})
    looks = json.loads((place / "form.json").read_text())
    form = Form(**looks["form"])
    noted = place / "failed.json"
    if noted.is_file():
        wrong = json.loads(noted.read_text())
    else:
        with explained(place):
            wrong, for_good = _decode(items, form, place, told or (lambda done, of: None))
        if for_good:
            write_json(noted, wrong)
    failed = {int(row): line for row, line in wrong.items()}
    rows = np.setdiff1d(np.arange(len(listing.names)), np.array(sorted(failed), dtype=np.int64))
    if not len(rows):
        raise InputError(f"{listing.root / listing.names[0]}: {failed[0]}; nor can another image here be read.")
    images, stretch = _usable(place, form, rows)
    source = ArraySource(images, listing.labels[rows], listing.class_names, str(listing.root))
    return Decoded(source, rows, failed, Preparation(form, stretch), looks["longest"])


def _decode(items: Sequence[str | bytes], form: Form, place: Path, told: Told) -> tuple[Failed, bool]:
    """Decode the chunks that are not there yet; gives what is wrong, by row, and whether that is for good."""
    total, notes = len(items), place / "chunks"
    starts = [start for start in range(0, total, CHUNK) if not (notes / f"{start}.json").is_file()]
    with (place / "images.bin").open("ab") as file:
        file.truncate(total * form.bytes)
    done = total - sum(min(CHUNK, total - start) for start in starts)
    jobs = [(start, items[start : start + CHUNK]) for start in starts]
    passing: dict[int, Failed] = {}
    for start, number, failed, for_good in _done(place / "images.bin", form, jobs):
        if for_good:
            write_json(notes / f"{start}.json", failed)
        else:
            passing[start] = failed
        done += number
        told(done, total)
    by_chunk = {
        start: passing[start] if start in passing else json.loads((notes / f"{start}.json").read_text())
        for start in range(0, total, CHUNK)
    }
    return {str(start + int(at)): line for start, of in by_chunk.items() for at, line in of.items()}, not passing


def _usable(place: Path, form: Form, rows: np.ndarray) -> tuple[np.ndarray, Stretch | None]:
    """uint8 [N, C, H, W] over a file, without what could not be decoded, and how it was stretched."""
    stored = np.memmap(place / "images.bin", form.dtype, "r").reshape(-1, *form.shape)
    if form.dtype == "uint8" and len(rows) == len(stored):
        return stored, None
    file = place / f"usable-{digest(rows.tobytes())}.bin"
    stretch = None if form.dtype == "uint8" else _stretch(place, stored, rows)
    if not file.is_file():
        with written_whole(file) as temporary, temporary.open("wb") as out:
            for start in range(0, len(rows), CHUNK):
                images = stored[rows[start : start + CHUNK]]
                out.write((images if stretch is None else stretched(images, stretch)).tobytes())
    return np.memmap(file, np.uint8, "r").reshape(-1, *form.shape), stretch


def _stretch(place: Path, stored: np.ndarray, rows: np.ndarray) -> Stretch:
    file = place / "stretch.json"
    if not file.is_file():
        write_json(file, stretch_of(stored[rows[evenly_spaced(rows, STRETCHED_BY)]]))
    return tuple((low, high) for low, high in json.loads(file.read_text()))


def _done(
    file: Path, form: Form, jobs: Sequence[tuple[int, Sequence[str | bytes]]]
) -> Iterator[tuple[int, int, Failed, bool]]:
    """First row, number, what is wrong by place and whether that is for good, of each job when it is done."""
    left = dict(jobs)
    if sum(map(len, left.values())) >= WORKERS_FROM and usable_cores() > 1:
        # A script that does not ask for its __name__ cannot be started again by a worker.
        with suppress(BrokenProcessPool), workers() as pool:
            running: dict[Future[tuple[Failed, bool]], int] = {
                pool.submit(write_formed, file, form, start, items): start for start, items in jobs
            }
            for future in as_completed(running):
                found, start = future.result(), running[future]  # a job that fails stays among those left
                yield start, len(left.pop(start)), *found
    for start, items in left.items():
        yield start, len(items), *write_formed(file, form, start, items)


def _stamp(item: str | bytes) -> tuple[int, int] | str:
    """Size and time of change: of another content, another stamp."""
    if isinstance(item, bytes):
        return digest(item)
    try:
        found = os.stat(item)
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns
