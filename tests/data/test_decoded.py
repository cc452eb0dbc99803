import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewlabels._internal.errors import InputError
from fewlabels.data import decoded as module
from fewlabels.data.decoded import decoded_images
from fewlabels.data.form import Form, formed, write_formed
from fewlabels.data.listing import listed


def written(fmnist, folder: Path, number: int = 60) -> Path:
    for row in range(number):
        file = folder / str(fmnist.train.labels[row]) / f"{row:04}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(fmnist.train.images[row, 0]).save(file)
    return folder


def row_of(name: str) -> int:
    return int(Path(name).stem)


def test_pixels_and_labels_are_those_of_the_files(fmnist, tmp_path: Path):
    listing = listed(written(fmnist, tmp_path / "photos"))
    found = decoded_images(listing, tmp_path / "cache")
    rows = [row_of(name) for name in listing.names]
    assert np.array_equal(found.source.read(slice(None)).numpy(), fmnist.train.images[rows])
    assert [int(found.source.class_names[cls]) for cls in found.source.labels] == fmnist.train.labels[rows].tolist()
    assert found.failed == {}
    assert found.preparation.stretch is None


def test_broken_files_are_told_and_left_out(fmnist, tmp_path: Path):
    photos = written(fmnist, tmp_path / "photos")
    listing = listed(photos)
    torn, empty = Path(listing.item(3)), Path(listing.item(7))
    torn.write_bytes(torn.read_bytes()[:80])
    empty.write_bytes(b"")
    found = decoded_images(listing, tmp_path / "cache")
    assert found.failed == {3: found.failed[3], 7: "an empty file"}
    assert len(found.source) == 58
    rows = [row_of(listing.names[row]) for row in found.rows]
    assert np.array_equal(found.source.read(np.arange(58)).numpy(), fmnist.train.images[rows])


def test_what_could_not_be_read_is_tried_again(fmnist, tmp_path: Path, monkeypatch):
    listing = listed(written(fmnist, tmp_path / "photos"))
    locked = listing.item(5)

    def content(item):
        if item == locked:
            raise PermissionError(13, "Permission denied")
        return Path(item).read_bytes()

    monkeypatch.setattr("fewlabels.data.form.content_of", content)
    found = decoded_images(listing, tmp_path / "cache")
    assert found.failed == {5: "cannot be read (Permission denied)"}
    locked = None
    found = decoded_images(listing, tmp_path / "cache")
    assert found.failed == {}
    rows = [row_of(name) for name in listing.names]
    assert np.array_equal(found.source.read(slice(None)).numpy(), fmnist.train.images[rows])


def test_large_images_are_not_gathered_in_memory(tmp_path: Path):
    form = Form(3, 1200, 1200, "uint8")
    (tmp_path / "images.bin").write_bytes(b"")
    failed, for_good = write_formed(tmp_path / "images.bin", form, 0, [b""] * 500)  # 2 GiB
    assert (len(failed), for_good) == (500, True)


def test_a_full_disk_is_told_in_one_line(fmnist, tmp_path: Path, monkeypatch):
    listing = listed(written(fmnist, tmp_path / "photos"))

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_formed", full)
    with pytest.raises(InputError, match=r"no room left on the disk\. Free some space"):
        decoded_images(listing, tmp_path / "cache")


def test_what_is_decoded_is_not_decoded_again(fmnist, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 16)
    listing = listed(written(fmnist, tmp_path / "photos"))
    told: list[int] = []

    def stops(done: int, of: int) -> None:
        told.append(done)
        if len(told) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decoded_images(listing, tmp_path / "cache", told=stops)
    goes_on: list[int] = []
    first = decoded_images(listing, tmp_path / "cache", told=lambda done, of: goes_on.append(done))
    assert (told, goes_on) == ([16, 32], [48, 60])

    def decodes(*args):
        raise AssertionError("decoded again")

    monkeypatch.setattr(module, "write_formed", decodes)
    again = decoded_images(listing, tmp_path / "cache")
    assert np.array_equal(again.source.images, first.source.images)


def test_a_changed_file_is_seen(fmnist, tmp_path: Path):
    photos = written(fmnist, tmp_path / "photos")
    first = decoded_images(listed(photos), tmp_path / "cache")
    listing = listed(photos)
    Image.fromarray(255 - fmnist.train.images[0, 0]).save(listing.item(5))
    again = decoded_images(listing, tmp_path / "cache")
    assert not np.array_equal(first.source.images[5], again.source.images[5])


def test_several_processes_give_the_same(fmnist, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 16)
    listing = listed(written(fmnist, tmp_path / "photos"))
    alone = decoded_images(listing, tmp_path / "one")
    monkeypatch.setattr(module, "WORKERS_FROM", 0)
    monkeypatch.setattr(module, "usable_cores", lambda: 2)
    together = decoded_images(listing, tmp_path / "two")
    assert np.array_equal(alone.source.images, together.source.images)


def test_sixteen_bits_are_stretched_and_this_is_told(fmnist, tmp_path: Path):
    (tmp_path / "photos").mkdir()
    for row in range(20):
        precise = fmnist.train.images[row, 0].astype(np.uint16) * 10 + 1000
        Image.fromarray(precise).save(tmp_path / "photos" / f"{row:04}.png")
    found = decoded_images(listed(tmp_path / "photos"), tmp_path / "cache")
    ((low, high),) = found.preparation.stretch
    assert low == 1000
    assert 3400 < high <= 3550
    expected = np.clip((fmnist.train.images[:20].astype(float) * 10 + 1000 - low) / (high - low), 0, 1) * 255
    assert np.abs(found.source.images - expected).max() <= 0.5 + 1e-3


def test_many_sizes_become_one(fmnist, tmp_path: Path):
    (tmp_path / "photos").mkdir()
    for row, size in enumerate([(200, 100), (100, 200), (150, 150)]):
        Image.fromarray(fmnist.train.images[row, 0]).resize(size).save(tmp_path / "photos" / f"{row}.png")
    listing = listed(tmp_path / "photos")
    assert decoded_images(listing, tmp_path / "cache").source.shape == (1, 96, 96)
    assert decoded_images(listing, tmp_path / "cache", side=28).source.shape == (1, 28, 28)


def test_nothing_is_cut_off_or_pulled_out_of_shape():
    image = np.full((1, 10, 20), 50, np.uint8)
    image[0, 4:6, 8:12] = 250
    found = formed(image, Form(1, 40, 40, "uint8"))
    assert (found[0, :10] == 50).all()
    assert (found[0, 30:] == 50).all()
    bright = np.argwhere(found[0] > 200)
    assert np.ptp(bright[:, 0]) + 1 == 4
    assert np.ptp(bright[:, 1]) + 1 == 8


@pytest.mark.parametrize(("channels", "wanted"), [(1, 3), (3, 1)])
def test_gray_and_colour_meet(channels, wanted):
    image = np.full((channels, 8, 8), 90, np.uint8)
    assert (formed(image, Form(wanted, 8, 8, "uint8")) == 90).all()


def test_other_channels_are_refused():
    with pytest.raises(InputError, match="5 channels, the others have 3"):
        formed(np.zeros((5, 8, 8), np.uint8), Form(3, 8, 8, "uint8"))


def test_where_nothing_can_be_read_this_is_told(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"a\.png: not an image; nor can another"):
        decoded_images(listed(tmp_path), tmp_path / "cache")


SCRIPT = """
import multiprocessing, sys
from pathlib import Path

def decode():
    from fewlabels.data import decoded
    from fewlabels.data.listing import listed

    decoded.WORKERS_FROM, decoded.CHUNK = 0, 16
    decoded.usable_cores = lambda: 2
    found = decoded.decoded_images(listed(Path(sys.argv[1])), Path(sys.argv[2]))
    print(len(found.source), int(found.source.images.astype(int).sum()))

"""


@pytest.mark.parametrize(
    ("method", "start"), [("spawn", "if __name__ == '__main__':\n    decode()"), ("forkserver", "decode()")]
)
def test_scripts_of_users_may_decode(fmnist, tmp_path: Path, method, start):
    photos = written(fmnist, tmp_path / "photos")
    script = tmp_path / "script.py"
    script.write_text(f"{SCRIPT}\nmultiprocessing.set_start_method({method!r}, force=True)\n{start}\n")
    command = [sys.executable, str(script), str(photos), str(tmp_path / "cache")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["60", str(int(fmnist.train.images[:60].astype(int).sum()))]


def test_a_folder_like_another_is_not_taken_for_it(fmnist, tmp_path: Path):
    """Two plates, unpacked from an archive: names, sizes and times are the same."""
    for plate, pixels in (("a", fmnist.train.images[0, 0]), ("b", 255 - fmnist.train.images[0, 0])):
        (tmp_path / plate).mkdir()
        Image.fromarray(pixels).save(tmp_path / plate / "0.bmp")
        os.utime(tmp_path / plate / "0.bmp", (0, 0))
    first, second = (decoded_images(listed(tmp_path / plate), tmp_path / "cache") for plate in "ab")
    assert np.array_equal(first.source.images, 255 - second.source.images)
