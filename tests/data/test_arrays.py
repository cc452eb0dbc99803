from pathlib import Path

import numpy as np
import pytest

from fewlabels._internal.errors import InputError
from fewlabels.data.arrays import load_arrays, read_arrays


def saved(file: Path, **arrays) -> Path:
    if file.suffix == ".npz":
        np.savez(file, **arrays)
        return file
    h5py = pytest.importorskip("h5py")
    with h5py.File(file, "w") as opened:
        for name, array in arrays.items():
            opened[name] = array.astype("S") if array.dtype.kind == "U" else array
    return file


@pytest.mark.parametrize("name", ["images.npz", "images.h5"])
def test_load_arrays_returns_saved_images_labels_and_class_names(fmnist, tmp_path: Path, name):
    some = fmnist.train.first_k(30)
    labels = some.labels.copy()
    labels[3] = -1
    class_names = np.array(some.class_names)
    file = saved(tmp_path / name, images=some.images, labels=labels, class_names=class_names)
    images, listing, preprocessing = load_arrays(file)
    assert np.array_equal(images, some.images)
    assert listing.labels[3] == -1
    found = [listing.class_names[label] for label in np.delete(listing.labels, 3)]
    assert found == [class_names[label] for label in np.delete(labels, 3)]
    assert preprocessing.pixel_range is None


def test_load_arrays_reads_medmnist_names_and_splits(fmnist, tmp_path: Path):
    colour = fmnist.train.images[:12, 0, :, :, None].repeat(3, 3)
    parts = {"train_images": colour[:6], "val_images": colour[6:8], "test_images": colour[8:]}
    labels = fmnist.train.labels[:12, None]
    parts |= {"train_labels": labels[:6], "val_labels": labels[6:8], "test_labels": labels[8:]}
    images, listing, _ = load_arrays(saved(tmp_path / "med.npz", **parts))
    assert np.array_equal(images, colour.transpose(0, 3, 1, 2))
    assert listing.splits == ["train"] * 8 + ["test"] * 4
    assert [int(listing.class_names[label]) for label in listing.labels] == labels[:, 0].tolist()


def test_load_arrays_rescales_float_pixels_and_returns_the_range(fmnist, tmp_path: Path):
    precise = fmnist.train.images[:50].astype(np.float64) / 100 - 1
    images, _, preprocessing = load_arrays(saved(tmp_path / "precise.npz", images=precise))
    ((low, high),) = preprocessing.pixel_range
    assert low == pytest.approx(-1)
    assert 1.4 < high <= 1.55
    assert np.abs(images - np.clip((precise - low) / (high - low), 0, 1) * 255).max() <= 0.5 + 1e-3
    assert np.array_equal(preprocessing.transform(precise[0].astype(np.float32)), images[0])


GRAY = np.zeros((4, 8, 8), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": GRAY}, "no array 'images'; found pictures"),
        ({"images": GRAY, "labels": np.arange(3)}, "labels: 3 labels for 4 images"),
        ({"images": GRAY, "labels": np.array([0.5, 1, 1, 1])}, "labels of float64, not integers or text"),
        ({"images": GRAY, "labels": np.array([0, 1, 2, 1]), "class_names": np.array(["a", "b"])}, "row 2: label 2 is"),
        ({"images": GRAY, "groups": np.arange(5)}, "4 images but 5 groups"),
        ({"images": GRAY[:, 0]}, r"images: uint8 \(4, 8\), not numbers"),
        ({"images": np.zeros((2, 40, 8, 8), np.uint8)}, "40 channels, more than 32"),
        ({"images": np.array([GRAY[0] * 1.0, GRAY[0] + np.nan])}, "row 1: pixels that are not finite"),
        ({"images": np.array(["a", "b"])}, "not numbers"),
        ({"train_images": GRAY, "test_images": GRAY[:, :4]}, "differ in shape or type"),
    ],
)
def test_load_arrays_refuses_missing_or_mismatched_arrays(tmp_path: Path, arrays, message):
    with pytest.raises(InputError, match=message):
        load_arrays(saved(tmp_path / "bad.npz", **arrays))


def test_load_arrays_refuses_a_size(tmp_path: Path):
    with pytest.raises(InputError, match=r"own size\. Leave out --size"):
        load_arrays(saved(tmp_path / "fine.npz", images=GRAY), size=16)


def test_load_arrays_does_not_unpickle(tmp_path: Path):
    np.savez(tmp_path / "pickled.npz", images=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match=r"not a whole \.npz file of numbers"):
        load_arrays(tmp_path / "pickled.npz")


def test_load_arrays_npy_images_are_unlabelled(fmnist, tmp_path: Path):
    np.save(tmp_path / "alone.npy", fmnist.train.images[:5, 0])
    images, listing, _ = load_arrays(tmp_path / "alone.npy")
    assert np.array_equal(images, fmnist.train.images[:5])
    assert listing.labels.tolist() == [-1] * 5


def test_load_arrays_ignores_other_hdf5_datasets(fmnist, tmp_path: Path):
    h5py = pytest.importorskip("h5py")
    file = saved(tmp_path / "images.h5", images=fmnist.train.images[:5])
    with h5py.File(file, "a") as opened:
        opened["note"] = "of the second microscope"
    assert len(load_arrays(file)[0]) == 5


@pytest.mark.parametrize("name", ["damaged.npz", "damaged.npy", "damaged.h5"])
def test_load_arrays_refuses_damaged_files(tmp_path: Path, name):
    if name.endswith("h5"):
        pytest.importorskip("h5py")
    (tmp_path / name).write_bytes(b"PK\3\4 damaged")
    with pytest.raises(InputError, match="not a whole"):
        load_arrays(tmp_path / name)


@pytest.mark.parametrize("channels", [2, 3, 5])
def test_read_arrays_moves_last_channels_first(tmp_path: Path, channels):
    images = np.arange(2 * 32 * 32 * channels, dtype=np.uint16).reshape(2, 32, 32, channels)
    found, _ = read_arrays(saved(tmp_path / "last.npz", images=images))
    assert np.array_equal(found, images.transpose(0, 3, 1, 2))
