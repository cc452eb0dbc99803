"""Checkpoints: folders that appear whole, carry checksums, and of which the last three are kept."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from fewlabels._internal.errors import InputError
from fewlabels._internal.files import write_bytes, written_whole

KEPT = 3
_CHECKSUMS = "checksums.json"


def write_checkpoint(folder: Path, step: int, files: Mapping[str, bytes], also_kept: int | None = None) -> Path:
    """Write ``folder/step-N`` whole, with the SHA-256 of each file, then delete all but the last three.

    The one of step ``also_kept`` is not deleted either.

    Raises:
        InputError: if there is no room; the checkpoints that are there stay.
    """
    place = folder / f"step-{step}"
    with written_whole(place) as temporary:
        temporary.mkdir()
        for name, content in files.items():
            write_bytes(temporary / name, content)
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        write_bytes(temporary / _CHECKSUMS, json.dumps(sums, indent=1).encode())
    for old in _by_age(folder)[:-KEPT]:
        if _step(old) != also_kept:
            shutil.rmtree(old, ignore_errors=True)
    return place


def discard_after(folder: Path, step: int) -> None:
    """Delete the checkpoints of later steps, but for the oldest if there is no other."""
    for place in _by_age(folder)[1:]:
        if _step(place) > step:
            shutil.rmtree(place, ignore_errors=True)


def discard_all(folder: Path) -> None:
    """Delete the folder of checkpoints."""
    shutil.rmtree(folder, ignore_errors=True)


def newest_checkpoint(folder: Path, say: Callable[[str], None]) -> tuple[int, dict[str, bytes]] | None:
    """Step and files of the newest checkpoint that is whole, or None if there never was one.

    A damaged one is renamed to ``damaged-step-N``, with a line that says so, and the one before it is taken.

    Raises:
        InputError: if all are damaged.
    """
    for leftover in folder.glob(".step-*.tmp"):  # of a process that was killed in mid-write
        shutil.rmtree(leftover, ignore_errors=True)
    found = _by_age(folder)
    for place in reversed(found):
        files, fault = _read(place)
        if fault is None:
            return _step(place), files
        aside = place.with_name(f"damaged-{place.name}")
        if aside.exists():
            shutil.rmtree(aside)
        place.rename(aside)
        say(f"{place}: {fault}; set aside as {aside.name}, the checkpoint before it is used")
    if found or any(folder.glob("damaged-step-*")):
        raise InputError(f"{folder}: every checkpoint is damaged. Start anew in another folder with --out.")
    return None


def _read(place: Path) -> tuple[dict[str, bytes], str | None]:
    """The files of a checkpoint, and what is wrong with it if anything is."""
    try:
        sums = json.loads((place / _CHECKSUMS).read_bytes())
        files = {file.name: file.read_bytes() for file in place.iterdir() if file.name != _CHECKSUMS}
    except (OSError, ValueError):
        return {}, "torn"
    if not files or not isinstance(sums, dict) or sums.keys() != files.keys():
        return {}, "torn"
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != sums[name]:
            return {}, f"{name} is not what was written (checksum)"
    return files, None


def _step(place: Path) -> int:
    return int(place.name.removeprefix("step-"))


def _by_age(folder: Path) -> list[Path]:
    return sorted((place for place in folder.glob("step-*") if place.name.removeprefix("step-").isdecimal()), key=_step)
