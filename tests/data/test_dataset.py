import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewlabels._internal.errors import InputError
from fewlabels.data.dataset import opened


def pictures(fmnist, folder: Path, columns: dict[str, list[str]]) -> Path:
    """A table beside its pictures."""
    folder.mkdir()
    number = len(columns["label"])
    for row in range(number):
        Image.fromarray(fmnist.train.images[row, 0]).save(folder / f"{row}.png")
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", *columns])
        writer.writerows([f"{row}.png", *cells] for row, cells in enumerate(zip(*columns.values(), strict=True)))
    return folder / "table.csv"


def test_fashion_mnist_is_what_it_was(fmnist):
    found = opened("fashion-mnist")
    assert np.array_equal(found.train.labels, fmnist.train.labels)
    assert len(found.test) == 10_000
    assert found.preparation.form.shape == (1, 28, 28)


def test_splits_of_a_table_hold(fmnist, tmp_path: Path):
    labels = ["a", "b", "a", "b", "", "a"]
    splits = ["train", "train", "test", "", "test", "test"]
    said: list[str] = []
    table = pictures(fmnist, tmp_path / "photos", {"label": labels, "split": splits})
    found = opened(str(table), share=0.5, say=said.append)
    assert found.names == (["0.png", "1.png", "3.png"], ["2.png", "5.png"])
    assert np.array_equal(found.train.read(slice(None))[:, 0].numpy(), fmnist.train.images[[0, 1, 3], 0])
    assert found.test.labels.tolist() == [0, 0]
    assert said == ["Left out: 1 images of the test that have no label."]


def test_without_splits_nothing_is_kept_back_unless_asked_for(fmnist, tmp_path: Path):
    table = pictures(fmnist, tmp_path / "photos", {"label": ["a", "b"] * 50 + [""] * 20})
    assert opened(str(table)).test is None
    said: list[str] = []
    found = opened(str(table), share=0.2, say=said.append)
    assert (len(found.train), len(found.test)) == (100, 20)
    assert np.bincount(found.test.labels).tolist() == [10, 10]
    assert (found.train.labels == -1).sum() == 20
    assert said == ["Set aside for the test: 20 of 100 labelled images."]


def test_a_test_of_a_few_images_is_refused(fmnist, tmp_path: Path):
    table = pictures(fmnist, tmp_path / "photos", {"label": ["a", "b"] * 10})
    with pytest.raises(InputError, match="20 labelled images give a test of 4, 10 are needed"):
        opened(str(table), share=0.2)


def test_groups_are_known_to_the_folds_and_never_divided(fmnist, tmp_path: Path):
    groups = [f"patient {row // 4}" if row < 80 else "" for row in range(100)]
    table = pictures(fmnist, tmp_path / "photos", {"label": ["a", "b"] * 50, "group": groups})
    found = opened(str(table), share=0.3, say=lambda line: None)
    of = {f"{row}.png": group for row, group in enumerate(groups)}
    sides = [{of[name] for name in names} - {""} for names in found.names]
    assert sides[1]
    assert not sides[0] & sides[1]
    for row, name in enumerate(found.names[0]):
        same = [(of[other] == of[name] and of[name] != "") or other == name for other in found.names[0]]
        assert np.array_equal(found.train.groups == found.train.groups[row], same)


def test_a_broken_file_is_left_out_and_told(fmnist, tmp_path: Path):
    table = pictures(fmnist, tmp_path / "photos", {"label": ["a", "b"] * 3})
    (tmp_path / "photos" / "4.png").write_bytes(b"torn")
    said: list[str] = []
    found = opened(str(table), say=said.append)
    assert found.failed == {"4.png": "not an image"}
    assert found.names[0] == [f"{row}.png" for row in (0, 1, 2, 3, 5)]
    assert found.train.labels.tolist() == [0, 1, 0, 1, 1]
    assert said == [f"Left out: 4.png (not an image). To see all: fewlabels check {table}"]


def test_the_form_of_images_goes_with_them(fmnist, tmp_path: Path):
    table = pictures(fmnist, tmp_path / "photos", {"label": ["a", "b"] * 3})
    found = opened(str(table), size=40)
    assert found.train.shape == found.preparation.form.shape == (1, 40, 40)
    content = (tmp_path / "photos" / "2.png").read_bytes()
    assert np.array_equal(found.preparation(content), found.train.images[2])


def test_large_images_are_made_smaller_and_it_is_said(tmp_path: Path):
    said: list[str] = []
    for row, (width, height) in enumerate([(100, 80), (300, 120), (120, 100)]):
        Image.new("L", (width, height), 40 * row).save(tmp_path / f"{row}.png")
    (tmp_path / "table.csv").write_text("path,label\n0.png,a\n1.png,b\n2.png,b\n")
    for _ in range(2):  # decoded, and as it was kept
        assert opened(str(tmp_path / "table.csv"), say=said.append).train.shape == (1, 96, 96)
    assert said == ["Images of up to 300 pixels a side are brought to 96x96. --size N keeps finer detail."] * 2
    said.clear()
    assert opened(str(tmp_path / "table.csv"), size=80, say=said.append).train.shape == (1, 80, 80)
    assert said == []


def test_what_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"fashion-mist: no such file or folder\. Did you mean fashion-mnist\?"):
        opened("fashion-mist")
    np.savez(tmp_path / "x.npz", images=np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(InputError, match="Leave out --size"):
        opened(str(tmp_path / "x.npz"), size=28)
