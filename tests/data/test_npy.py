from pathlib import Path

import numpy as np
import pytest
import torch

from fewlabels._internal.errors import InputError
from fewlabels.data.npy import NpySource
from fewlabels.data.source import ArraySource, fingerprint


@pytest.mark.parametrize("shape", [(10, 4, 5), (10, 3, 4, 5)])
def test_npy_source_equals_array_source(shape, tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.save(tmp_path / "a.npy", images)
    source, memory = NpySource(tmp_path / "a.npy"), ArraySource(images, None, ())
    assert source.shape == memory.shape
    assert len(source) == 10
    assert (source.labels == -1).all()
    for indices in (slice(2, 5), torch.tensor([7, 0, 7]), np.array([3])):
        assert torch.equal(source.read(indices), memory.read(indices))
    assert fingerprint(source) == fingerprint(memory)


def test_npy_source_read_refuses_a_file_truncated_while_in_use(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.zeros((30, 4, 5), np.uint8))
    source = NpySource(tmp_path / "a.npy")
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-1])
    assert len(source.read(slice(29))) == 29
    with pytest.raises(InputError, match="ends before row 29"):
        source.read(np.array([0, 29]))


@pytest.mark.parametrize("row", [-1, 10])
def test_npy_source_read_refuses_rows_out_of_range(row, tmp_path: Path):
    np.save(tmp_path / "a.npy", np.zeros((10, 4, 5), np.uint8))
    with pytest.raises(IndexError, match=r"rows .* of 10"):
        NpySource(tmp_path / "a.npy").read(np.array([row]))


def test_fingerprint_changes_with_one_pixel(tmp_path: Path):
    images = np.zeros((10, 4, 5), dtype=np.uint8)
    before = fingerprint(ArraySource(images, None, ()))
    images[3, 1, 1] = 1
    assert fingerprint(ArraySource(images, None, ())) != before


def save(array: np.ndarray):
    return lambda path: np.save(path, array)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b"\x93NUMPY damaged"), "not a whole .npy file"),
        (lambda path: path.write_bytes(b""), "not a whole .npy file"),
        (save(np.zeros((3, 4, 5), np.float32)), "pixels are float32, not uint8"),
        (save(np.zeros((3, 4), np.uint8)), r"shape \(3, 4\) is not"),
        (save(np.zeros((9, 32, 32, 3), np.uint8)), "channels last"),
        (save(np.asfortranarray(np.zeros((3, 4, 5), np.uint8))), "Fortran order"),
        (save(np.array([object()])), "not a whole .npy file"),
    ],
)
def test_npy_source_refuses_other_files_types_and_shapes(write, message, tmp_path: Path):
    write(tmp_path / "a.npy")
    with pytest.raises(InputError, match=message):
        NpySource(tmp_path / "a.npy")


def test_npy_source_with_a_damaged_header_raises_input_error_or_reads(tmp_path: Path):
    np.save(tmp_path / "whole.npy", np.zeros((30, 4, 5), np.uint8))
    content = (tmp_path / "whole.npy").read_bytes()
    refused = 0
    for position in range(128):
        for byte in (0, ord("("), ord("9"), ord(" "), 255):
            (tmp_path / "a.npy").write_bytes(content[:position] + bytes([byte]) + content[position + 1 :])
            try:
                NpySource(tmp_path / "a.npy").read(slice(2))
            except InputError:
                refused += 1
    assert refused > 200


def test_npy_source_refuses_a_truncated_file(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.zeros((30, 4, 5), np.uint8))
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content[:-1])
    with pytest.raises(InputError, match=r"not a whole .npy file"):
        NpySource(tmp_path / "a.npy")
