import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewlabels._internal.errors import InputError
from fewlabels.data import images as module
from fewlabels.data.images import find_images, image_batches
from fewlabels.data.preprocessing import ImageSpec, Preprocessing

GRAY = Preprocessing(ImageSpec(1, 28, 28, "uint8"))


def test_image_batches_continue_after_a_broken_file(fmnist, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(module, "IMAGES_PER_BATCH", 2)
    for row in range(5):
        Image.fromarray(fmnist.train.images[row, 0]).save(tmp_path / f"{row}.png")
    (tmp_path / "1.png").write_bytes(b"")
    (tmp_path / "2.png").write_bytes((tmp_path / "0.png").read_bytes()[:60])
    (tmp_path / "3.png").write_bytes(b"<html>")
    batches = list(image_batches(tmp_path, GRAY))
    assert [batch.names for batch in batches] == [["0.png", "1.png"], ["2.png", "3.png"], ["4.png"]]
    assert [batch.read for batch in batches] == [[0], [], [0]]
    assert [sorted(batch.wrong) for batch in batches] == [[1], [0, 1], []]
    assert batches[0].wrong[1] == "an empty file"
    assert np.array_equal(batches[2].pixels[0].numpy(), fmnist.train.images[4])


def test_image_batches_rescale_files_with_the_models_pixel_range(fmnist, tmp_path: Path):
    precise = fmnist.train.images[0, 0].astype(np.uint16) * 100
    Image.fromarray(precise).save(tmp_path / "precise.png")
    preprocessing = Preprocessing(ImageSpec(1, 28, 28, "uint16"), ((0.0, 25500.0),))
    (batch,) = image_batches(tmp_path / "precise.png", preprocessing)
    assert np.array_equal(batch.pixels[0].numpy(), fmnist.train.images[0])


def test_image_batches_read_an_idx_file(fmnist):
    first = next(image_batches(fmnist.folder / "t10k-images-idx3-ubyte.gz", GRAY))
    assert np.array_equal(first.pixels.numpy(), fmnist.test.images[: module.IMAGES_PER_BATCH])
    assert first.names[:2] == ["0", "1"]


@pytest.mark.parametrize("name", ["some.npy", "some.npz"])
def test_image_batches_read_arrays(fmnist, tmp_path: Path, name, monkeypatch):
    monkeypatch.setattr(module, "IMAGES_PER_BATCH", 4)
    some = fmnist.test.images[:6]
    if name.endswith("npy"):
        np.save(tmp_path / name, some[:, 0])
    else:
        np.savez(tmp_path / name, images=some, labels=np.arange(6))
    batches = list(image_batches(tmp_path / name, GRAY))
    assert np.array_equal(np.concatenate([batch.pixels.numpy() for batch in batches]), some)
    assert [batch.names for batch in batches] == [["row 0", "row 1", "row 2", "row 3"], ["row 4", "row 5"]]


def test_image_batches_rescale_arrays_with_the_models_pixel_range(fmnist, tmp_path: Path):
    np.save(tmp_path / "precise.npy", fmnist.train.images[:2].astype(np.float64) / 255 - 1)
    (batch,) = image_batches(tmp_path / "precise.npy", Preprocessing(ImageSpec(1, 28, 28, "float32"), ((-1.0, 0.0),)))
    assert np.array_equal(batch.pixels.numpy(), fmnist.train.images[:2])


def test_image_batches_refuse_arrays_with_other_channels(tmp_path: Path):
    np.save(tmp_path / "five.npy", np.zeros((2, 5, 28, 28), np.uint8))
    with pytest.raises(InputError, match=r"five\.npy: 5 channels, the others have 1\. Save them"):
        image_batches(tmp_path / "five.npy", GRAY)


def test_image_batches_refuse_an_empty_folder_and_a_missing_path(tmp_path: Path):
    with pytest.raises(InputError, match="no image here"):
        image_batches(tmp_path, GRAY)
    with pytest.raises(InputError, match="no such file or folder"):
        image_batches(tmp_path / "none", GRAY)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"form": {"channels": 0, "height": 8, "width": 8, "dtype": "uint8"}, "stretch": null}',
        '{"form": {"channels": 1, "height": 8, "width": 8, "dtype": "object"}, "stretch": null}',
        '{"form": {"channels": 1, "height": 1000000, "width": 1000000, "dtype": "uint8"}, "stretch": null}',
        '{"form": {"channels": 2, "height": 8, "width": 8, "dtype": "uint16"}, "stretch": [[0, 1]]}',
        '{"form": {"channels": 1, "height": 8, "width": 8, "dtype": "uint16"}, "stretch": null}',
    ],
)
def test_preprocessing_from_json_refuses_damaged_text(text):
    with pytest.raises(ValueError):
        Preprocessing.from_json(text)


def test_preprocessing_from_json_restores_as_json():
    preprocessing = Preprocessing(ImageSpec(2, 8, 9, "float32"), ((0.0, 1.5), (-1.0, 3.0)))
    assert Preprocessing.from_json(preprocessing.as_json()) == preprocessing
    assert Preprocessing.from_json(GRAY.as_json()) == GRAY


def test_image_batches_refuse_pipes_and_large_files(tmp_path: Path, monkeypatch):
    (tmp_path / "large.png").write_bytes(bytes(2000))
    (tmp_path / "table.csv").write_text("path\npipe.png\nlarge.png\n")
    os.mkfifo(tmp_path / "pipe.png")
    monkeypatch.setattr("fewlabels.data.preprocessing.MAX_FILE_BYTES", 1000)
    (batch,) = image_batches(tmp_path / "table.csv", GRAY)
    assert batch.wrong == {0: "not a file", 1: "0 MiB, more than 0"}
    assert [name for images in image_batches(tmp_path, GRAY) for name in images.names] == ["large.png"]


@pytest.mark.parametrize(
    ("dtype", "brightest", "image", "message"),
    [
        (
            "float32",
            1.0,
            np.full((1, 8, 8), 200, np.uint8),
            "uint8 pixels of up to 200 as float32; the pixels of the model's images end at 1",
        ),
        ("float32", 1.0, np.full((1, 8, 8), 200, np.uint16), "end at 1"),
        ("uint16", 4000.0, np.full((1, 8, 8), 200, np.uint8), "end at 4000"),
        ("uint8", None, np.full((1, 8, 8), 4000, np.uint16), "16 bits that end at 4,000"),
        ("float32", 255.0, np.full((1, 8, 8), 200, np.uint8), None),
        ("float32", 4000.0, np.full((1, 8, 8), 4095, np.uint16), None),
        ("uint16", 60000.0, np.full((1, 8, 8), 200, np.uint8), None),
        ("uint8", None, np.full((1, 8, 8), 51400, np.uint16), None),
        ("uint8", None, np.zeros((1, 8, 8), np.uint16), None),
        ("float32", 1.0, np.full((1, 8, 8), 9.0, np.float32), None),
    ],
)
def test_preprocessing_transform_refuses_pixels_of_another_range(dtype, brightest, image, message):
    preprocessing = Preprocessing(ImageSpec(1, 8, 8, dtype), None if brightest is None else ((0.0, brightest),))
    if message is None:
        expected = round(255 * min(1.0, image[0, 0, 0] / (brightest or 65535) * (257 if dtype == "uint16" else 1)))
        assert (preprocessing.transform(image) == expected).all()
    else:
        with pytest.raises(InputError, match=message):
            preprocessing.transform(image)


def test_batches_leave_out_an_image_of_another_range_in_an_array(tmp_path: Path):
    images = np.zeros((3, 8, 8), np.uint8)
    images[1] = 200
    np.save(tmp_path / "some.npy", images)
    usable: list[np.ndarray] = []
    preprocessing = Preprocessing(ImageSpec(1, 8, 8, "float32"), ((0.0, 1.0),))
    (batch,) = find_images(tmp_path / "some.npy").batches(preprocessing, usable.append)
    assert (batch.read, list(batch.wrong)) == ([0, 2], [1])
    assert [image.max() for image in usable] == [0, 0]
