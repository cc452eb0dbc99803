"""Files and folders that appear whole under their final name, or not at all."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fewlabels._internal.errors import InputError

MARK = ".fewlabels"
"""A file in every folder of results."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Inside the block, what the system says of a full disk or a forbidden place is said to the user of ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            line = "no room left on the disk. Free some space or choose another place."
        else:
            line = f"cannot be written ({error.strerror or error}). Make it writable or choose another place."
        raise InputError(f"{path}: {line}") from None


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename what was written there when the block ends well.

    What stood under ``path`` stays until then, and stays if the block fails. Works for a file or a folder.

    Raises:
        InputError: if the place cannot be written or the disk is full.
    """
    if not path.name:
        raise InputError(f"{path}: a folder, not the name of a file. Give the file a name.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if temporary.is_dir() and path.is_dir():
                shutil.rmtree(path)  # a folder cannot be renamed over a full one
            os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        elif temporary.exists():
            temporary.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole."""
    with written_whole(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole, indented by one space a level."""
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())


def writable_folder(path: Path) -> Path:
    """Make the folder, and prove before any work is done that a file can be written there."""
    write_bytes(path / MARK, b"fewlabels\n")
    return path
