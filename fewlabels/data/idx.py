"""Read the IDX format of MNIST and its successors, plain or gzipped."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from fewlabels._internal.errors import InputError
from fewlabels.data.source import ArraySource

_UINT8 = 0x08
"""IDX's code for the type unsigned byte."""


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """Read a uint8 IDX file of ``ndim`` dimensions; gzip is recognised by its first bytes.

    The format: two zero bytes, a type byte, the number of dimensions, then each size as a
    big-endian int32, then the values (http://yann.lecun.com/exdb/mnist/, "the IDX file format").

    Raises:
        InputError: if the file is missing, truncated, not IDX, or of another type or dimension.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file. Check the folder, or set FEWLABELS_DATA to the one that has it."
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Check the path and its permissions.") from None
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise InputError(f"{path}: the gzip file is truncated or damaged. Delete it and fetch it again.") from None
    header = 4 + 4 * ndim
    if len(raw) < header or raw[:2] != b"\0\0":
        raise InputError(f"{path}: not an IDX file (wrong magic number {raw[:4].hex() or 'of an empty file'}).")
    if raw[2] != _UINT8 or raw[3] != ndim:
        raise InputError(
            f"{path}: wrong magic number {raw[:4].hex()}, expected 000008{ndim:02x} "
            f"({ndim}-dimensional bytes). Are images and labels swapped?"
        )
    shape = tuple(int(size) for size in np.frombuffer(raw, ">i4", count=ndim, offset=4))
    values = np.frombuffer(raw, np.uint8, offset=header)
    if min(shape) < 1 or values.size != np.prod(shape, dtype=np.int64):
        raise InputError(f"{path}: the header promises {shape}, the file holds {values.size} bytes. Fetch it again.")
    return values.reshape(shape)


def idx_source(images: Path, labels: Path, class_names: tuple[str, ...]) -> ArraySource:
    """Read images and labels from a pair of IDX files."""
    return ArraySource(read_idx(images, ndim=3), read_idx(labels, ndim=1), class_names, name=str(images))
