import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewlabels._internal.errors import InputError
from fewlabels.data.dataset import open_dataset


def pictures(fmnist, folder: Path, columns: dict[str, list[str]]) -> Path:
    """Write images and, in the same folder, a table of them with these columns."""
    folder.mkdir()
    number = len(columns["label"])
    for row in range(number):
        Image.fromarray(fmnist.train.images[row, 0]).save(folder / f"{row}.png")
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", *columns])
        writer.writerows([f"{row}.png", *cells] for row, cells in enumerate(zip(*columns.values(), strict=True)))
    return folder / "table.csv"


def test_open_dataset_loads_fashion_mnist_by_name(fmnist):
    found = open_dataset("fashion-mnist")
    assert np.array_equal(found.train.labels, fmnist.train.labels)
    assert len(found.test) == 10_000
    assert found.preprocessing.form.shape == (1, 28, 28)


def test_open_dataset_uses_the_splits_of_a_table(fmnist, tmp_path: Path):
    labels = ["a", "b", "a", "b", "", "a"]
    splits = ["train", "train", "test", "", "test", "test"]
    messages: list[str] = []
    table = pictures(fmnist, tmp_path / "photos", {"label": labels, "split": splits})
    found = open_dataset(str(table), test_fraction=0.5, say=messages.append)
    assert found.names == (["0.png", "1.png", "3.png"], ["2.png", "5.png"])
    assert np.array_equal(found.train.read(slice(None))[:, 0].numpy(), fmnist.train.images[[0, 1, 3], 0])
    assert found.test.labels.tolist() == [0, 0]
    assert messages == ["Left out: 1 test images without a label."]


def test_open_dataset_without_splits_draws_a_test_set_only_if_given_a_fraction(fmnist, tmp_path: Path):
    table = pictures(fmnist, tmp_path / "photos", {"label": ["a", "b"] * 50 + [""] * 20})
    assert open_dataset(str(table)).test is None
    messages: list[str] = []
    found = open_dataset(str(table), test_fraction=0.2, say=messages.append)
    assert (len(found.train), len(found.test)) == (100, 20)
    assert np.bincount(found.test.labels).tolist() == [10, 10]
    assert (found.train.labels == -1).sum() == 20
    assert messages == ["Set aside for the test: 20 of 100 labelled images."]


def test_open_dataset_refuses_a_small_test_set(fmnist, tmp_path: Path):
    table = pictures(fmnist, tmp_path / "photos", {"label": ["a", "b"] * 10})
    with pytest.raises(InputError, match="20 labelled images give a test set of 4; 10 are needed"):
        open_dataset(str(table), test_fraction=0.2)


def test_open_dataset_keeps_groups_and_never_divides_them(fmnist, tmp_path: Path):
    groups = [f"patient {row // 4}" if row < 80 else "" for row in range(100)]
    table = pictures(fmnist, tmp_path / "photos", {"label": ["a", "b"] * 50, "group": groups})
    found = open_dataset(str(table), test_fraction=0.3, say=lambda line: None)
    group_of = {f"{row}.png": group for row, group in enumerate(groups)}
    train_groups, test_groups = ({group_of[name] for name in names} - {""} for names in found.names)
    assert test_groups
    assert not train_groups & test_groups
    for row, name in enumerate(found.names[0]):
        same = [
            (group_of[other] == group_of[name] and group_of[name] != "") or other == name for other in found.names[0]
        ]
        assert np.array_equal(found.train.groups == found.train.groups[row], same)


def test_open_dataset_leaves_out_a_broken_file_and_reports_it(fmnist, tmp_path: Path):
    table = pictures(fmnist, tmp_path / "photos", {"label": ["a", "b"] * 3})
    (tmp_path / "photos" / "4.png").write_bytes(b"damaged")
    messages: list[str] = []
    found = open_dataset(str(table), say=messages.append)
    assert found.failed == {"4.png": "not an image"}
    assert found.names[0] == [f"{row}.png" for row in (0, 1, 2, 3, 5)]
    assert found.train.labels.tolist() == [0, 1, 0, 1, 1]
    assert messages == [f"Left out: 4.png (not an image). To see all: fewlabels check {table}"]


def test_open_dataset_preprocessing_reproduces_its_pixels(fmnist, tmp_path: Path):
    table = pictures(fmnist, tmp_path / "photos", {"label": ["a", "b"] * 3})
    found = open_dataset(str(table), size=40)
    assert found.train.shape == found.preprocessing.form.shape == (1, 40, 40)
    content = (tmp_path / "photos" / "2.png").read_bytes()
    assert np.array_equal(found.preprocessing(content), found.train.images[2])


def test_open_dataset_resizes_large_images_and_reports_it(tmp_path: Path):
    messages: list[str] = []
    for row, (width, height) in enumerate([(100, 80), (300, 120), (120, 100)]):
        Image.new("L", (width, height), 40 * row).save(tmp_path / f"{row}.png")
    (tmp_path / "table.csv").write_text("path,label\n0.png,a\n1.png,b\n2.png,b\n")
    for _ in range(2):  # decoded, then read from the cache
        assert open_dataset(str(tmp_path / "table.csv"), say=messages.append).train.shape == (1, 96, 96)
    assert messages == ["Images of up to 300 pixels a side are resized to 96x96. --size N keeps more detail."] * 2
    messages.clear()
    assert open_dataset(str(tmp_path / "table.csv"), size=80, say=messages.append).train.shape == (1, 80, 80)
    assert messages == []


def test_open_dataset_refuses_missing_files_and_a_size_for_arrays(tmp_path: Path):
    with pytest.raises(InputError, match=r"fashion-mist: no such file or folder\. Did you mean fashion-mnist\?"):
        open_dataset("fashion-mist")
    np.savez(tmp_path / "x.npz", images=np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(InputError, match="Leave out --size"):
        open_dataset(str(tmp_path / "x.npz"), size=28)
