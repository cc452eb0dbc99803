"""Atomic writing of files and folders: they appear complete under their final name or not at all."""

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
"""Name of a file that marks each folder of results."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def translate_os_error(path: Path) -> Iterator[None]:
    """Inside the block, turn an OSError into an :class:`InputError` about ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            line = "no room left on the disk. Free some space or choose another folder."
        else:
            line = f"cannot be written ({error.strerror or error}). Make it writable or choose another folder."
        raise InputError(f"{path}: {line}") from None


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path for a file or folder; rename it to ``path`` if the block succeeds.

    Until then, and if the block fails, existing content of ``path`` does not change.

    Raises:
        InputError: if the path cannot be written or the disk is full.
    """
    if not path.name:
        raise InputError(f"{path}: a folder, not the name of a file. Give the file a name.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with translate_os_error(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if temporary.is_dir() and path.is_dir():
                shutil.rmtree(path)  # a folder cannot replace one with files
            os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        elif temporary.exists():
            temporary.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically, with an indent of one space."""
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())


def writable_folder(path: Path) -> Path:
    """Create a folder, and check that a file can be written there; returns the folder."""
    write_bytes(path / MARK, b"fewlabels\n")
    return path
