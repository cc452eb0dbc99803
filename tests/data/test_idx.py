import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from fewlabels._internal.errors import InputError
from fewlabels.data.idx import idx_source, read_idx


def idx_bytes(array: np.ndarray, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
def test_read_idx_returns_the_array(tmp_path: Path, pack):
    path = tmp_path / "images"
    path.write_bytes(pack(idx_bytes(IMAGES)))
    assert np.array_equal(read_idx(path, ndim=3), IMAGES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "wrong magic number 89504e47"),
        (idx_bytes(IMAGES, kind=0x0D), "wrong magic number"),
        (idx_bytes(np.zeros(5, np.uint8)) + bytes(20), "swapped"),
        (idx_bytes(IMAGES)[:-1], "holds 23 bytes"),
        (idx_bytes(IMAGES) + b"x", "holds 25 bytes"),
        (gzip.compress(idx_bytes(IMAGES), mtime=0)[:-9], "truncated"),  # a fixed time: the content is in the test's id
        (b"\0\0\x08\x03" + struct.pack(">3i", -1, 3, 4), "promises"),
        (b"\0\0\x08\x03" + struct.pack(">3i", 2**31 - 1, 2**31 - 1, 2**31 - 1), "promises"),
    ],
)
def test_read_idx_refuses_damaged_files(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_idx(path, ndim=3)
    assert str(path) in str(error.value)


def test_idx_source_refuses_different_numbers_of_images_and_labels(tmp_path: Path):
    (tmp_path / "images").write_bytes(idx_bytes(IMAGES))
    (tmp_path / "labels").write_bytes(idx_bytes(np.zeros(3, np.uint8)))
    with pytest.raises(InputError, match="2 images but 3 labels"):
        idx_source(tmp_path / "images", tmp_path / "labels", ("a",))
