"""Checkpoints: folders with checksums that are written atomically; only the last three are kept."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from fewlabels._internal.errors import InputError
from fewlabels._internal.files import atomic_write, write_bytes

MAX_CHECKPOINTS = 3
"""Newest checkpoints that are not deleted."""
_CHECKSUMS = "checksums.json"


def write_checkpoint(folder: Path, step: int, files: Mapping[str, bytes], keep_step: int | None = None) -> Path:
    """Write ``folder/step-N`` atomically with the SHA-256 of each file; returns its path.

    All but the last three checkpoints and the one of step ``keep_step`` are deleted.

    Raises:
        InputError: if the disk is full; earlier checkpoints stay.
    """
    checkpoint = folder / f"step-{step}"
    with atomic_write(checkpoint) as temporary:
        temporary.mkdir()
        for name, content in files.items():
            write_bytes(temporary / name, content)
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        write_bytes(temporary / _CHECKSUMS, json.dumps(sums, indent=1).encode())
    for old in _by_age(folder)[:-MAX_CHECKPOINTS]:
        if _step(old) != keep_step:
            shutil.rmtree(old, ignore_errors=True)
    return checkpoint


def discard_after(folder: Path, step: int) -> None:
    """Delete the checkpoints of later steps; the oldest checkpoint always stays."""
    for checkpoint in _by_age(folder)[1:]:
        if _step(checkpoint) > step:
            shutil.rmtree(checkpoint, ignore_errors=True)


def discard_all(folder: Path) -> None:
    """Delete a folder of checkpoints."""
    shutil.rmtree(folder, ignore_errors=True)


def newest_checkpoint(folder: Path, say: Callable[[str], None]) -> tuple[int, dict[str, bytes]] | None:
    """Step and files of the newest valid checkpoint; None if the folder has never had one.

    A damaged checkpoint is renamed to ``damaged-step-N``, ``say`` gets a message, and the one before it is read.

    Raises:
        InputError: if all checkpoints are damaged.
    """
    for leftover in folder.glob(".step-*.tmp"):  # of a process that was killed while it wrote
        shutil.rmtree(leftover, ignore_errors=True)
    found = _by_age(folder)
    for checkpoint in reversed(found):
        files, fault = _read(checkpoint)
        if fault is None:
            return _step(checkpoint), files
        renamed = checkpoint.with_name(f"damaged-{checkpoint.name}")
        if renamed.exists():
            shutil.rmtree(renamed)
        checkpoint.rename(renamed)
        say(f"{checkpoint}: {fault}; renamed to {renamed.name}, using the checkpoint before it")
    if found or any(folder.glob("damaged-step-*")):
        raise InputError(f"{folder}: every checkpoint is damaged. Start anew in another folder with --out.")
    return None


def _read(checkpoint: Path) -> tuple[dict[str, bytes], str | None]:
    """The files of a checkpoint, and its fault; None if it is valid."""
    try:
        sums = json.loads((checkpoint / _CHECKSUMS).read_bytes())
        files = {file.name: file.read_bytes() for file in checkpoint.iterdir() if file.name != _CHECKSUMS}
    except (OSError, ValueError):
        return {}, "incomplete"
    if not files or not isinstance(sums, dict) or sums.keys() != files.keys():
        return {}, "incomplete"
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != sums[name]:
            return {}, f"{name} does not match its checksum"
    return files, None


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def _by_age(folder: Path) -> list[Path]:
    names = folder.glob("step-*")
    return sorted((path for path in names if path.name.removeprefix("step-").isdecimal()), key=_step)
