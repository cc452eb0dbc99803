import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewlabels._internal.errors import InputError
from fewlabels.data import decoded as module
from fewlabels.data.decoded import decode_images
from fewlabels.data.listing import list_images
from fewlabels.data.preprocessing import ImageSpec, convert_image, decode_into_file


def written(fmnist, folder: Path, number: int = 60) -> Path:
    for row in range(number):
        file = folder / str(fmnist.train.labels[row]) / f"{row:04}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(fmnist.train.images[row, 0]).save(file)
    return folder


def row_of(name: str) -> int:
    return int(Path(name).stem)


def test_decode_images_returns_pixels_and_labels_of_the_files(fmnist, tmp_path: Path):
    listing = list_images(written(fmnist, tmp_path / "photos"))
    found = decode_images(listing, tmp_path / "cache")
    rows = [row_of(name) for name in listing.names]
    assert np.array_equal(found.source.read(slice(None)).numpy(), fmnist.train.images[rows])
    assert [int(found.source.class_names[cls]) for cls in found.source.labels] == fmnist.train.labels[rows].tolist()
    assert found.failed == {}
    assert found.preprocessing.pixel_range is None


def test_decode_images_leaves_out_broken_files_with_the_reason(fmnist, tmp_path: Path):
    photos = written(fmnist, tmp_path / "photos")
    listing = list_images(photos)
    truncated, empty = Path(listing.item(3)), Path(listing.item(7))
    truncated.write_bytes(truncated.read_bytes()[:80])
    empty.write_bytes(b"")
    found = decode_images(listing, tmp_path / "cache")
    assert found.failed == {3: found.failed[3], 7: "an empty file"}
    assert len(found.source) == 58
    rows = [row_of(listing.names[row]) for row in found.rows]
    assert np.array_equal(found.source.read(np.arange(58)).numpy(), fmnist.train.images[rows])


def test_decode_images_retries_files_that_could_not_be_read(fmnist, tmp_path: Path, monkeypatch):
    listing = list_images(written(fmnist, tmp_path / "photos"))
    locked = listing.item(5)

    def content(item):
        if item == locked:
            raise PermissionError(13, "Permission denied")
        return Path(item).read_bytes()

    monkeypatch.setattr("fewlabels.data.preprocessing.read_content", content)
    found = decode_images(listing, tmp_path / "cache")
    assert found.failed == {5: "cannot be read (Permission denied)"}
    locked = None
    found = decode_images(listing, tmp_path / "cache")
    assert found.failed == {}
    rows = [row_of(name) for name in listing.names]
    assert np.array_equal(found.source.read(slice(None)).numpy(), fmnist.train.images[rows])


def test_decode_into_file_limits_its_buffer_for_large_images(tmp_path: Path):
    spec = ImageSpec(3, 1200, 1200, "uint8")
    (tmp_path / "images.bin").write_bytes(b"")
    errors, permanent = decode_into_file(tmp_path / "images.bin", spec, 0, [b""] * 500)  # 2 GiB
    assert (len(errors), permanent) == (500, True)


def test_decode_images_reports_a_full_disk(fmnist, tmp_path: Path, monkeypatch):
    listing = list_images(written(fmnist, tmp_path / "photos"))

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "decode_into_file", full)
    with pytest.raises(InputError, match=r"no room left on the disk\. Free some space"):
        decode_images(listing, tmp_path / "cache")


def test_decode_images_resumes_after_interrupt_and_then_reads_the_cache(fmnist, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 16)
    listing = list_images(written(fmnist, tmp_path / "photos"))
    first_progress: list[int] = []

    def stops(done: int, total: int) -> None:
        first_progress.append(done)
        if len(first_progress) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode_images(listing, tmp_path / "cache", on_progress=stops)
    later_progress: list[int] = []
    first = decode_images(listing, tmp_path / "cache", on_progress=lambda done, total: later_progress.append(done))
    assert (first_progress, later_progress) == ([16, 32], [48, 60])

    def decodes(*args):
        raise AssertionError("decoded again")

    monkeypatch.setattr(module, "decode_into_file", decodes)
    again = decode_images(listing, tmp_path / "cache")
    assert np.array_equal(again.source.images, first.source.images)


def test_decode_images_decodes_a_changed_file_again(fmnist, tmp_path: Path):
    photos = written(fmnist, tmp_path / "photos")
    first = decode_images(list_images(photos), tmp_path / "cache")
    listing = list_images(photos)
    Image.fromarray(255 - fmnist.train.images[0, 0]).save(listing.item(5))
    again = decode_images(listing, tmp_path / "cache")
    assert not np.array_equal(first.source.images[5], again.source.images[5])


def test_decode_images_in_workers_equals_one_process(fmnist, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 16)
    listing = list_images(written(fmnist, tmp_path / "photos"))
    serial = decode_images(listing, tmp_path / "one")
    monkeypatch.setattr(module, "WORKERS_FROM", 0)
    monkeypatch.setattr(module, "available_cores", lambda: 2)
    parallel = decode_images(listing, tmp_path / "two")
    assert np.array_equal(serial.source.images, parallel.source.images)


def test_decode_images_rescales_sixteen_bits_and_returns_the_range(fmnist, tmp_path: Path):
    (tmp_path / "photos").mkdir()
    for row in range(20):
        precise = fmnist.train.images[row, 0].astype(np.uint16) * 10 + 1000
        Image.fromarray(precise).save(tmp_path / "photos" / f"{row:04}.png")
    found = decode_images(list_images(tmp_path / "photos"), tmp_path / "cache")
    ((low, high),) = found.preprocessing.pixel_range
    assert low == 1000
    assert 3400 < high <= 3550
    expected = np.clip((fmnist.train.images[:20].astype(float) * 10 + 1000 - low) / (high - low), 0, 1) * 255
    assert np.abs(found.source.images - expected).max() <= 0.5 + 1e-3


def test_decode_images_resizes_mixed_sizes_to_one_square(fmnist, tmp_path: Path):
    (tmp_path / "photos").mkdir()
    for row, size in enumerate([(200, 100), (100, 200), (150, 150)]):
        Image.fromarray(fmnist.train.images[row, 0]).resize(size).save(tmp_path / "photos" / f"{row}.png")
    listing = list_images(tmp_path / "photos")
    assert decode_images(listing, tmp_path / "cache").source.shape == (1, 96, 96)
    assert decode_images(listing, tmp_path / "cache", side=28).source.shape == (1, 28, 28)


def test_convert_image_keeps_the_aspect_ratio_and_pads_with_the_border():
    image = np.full((1, 10, 20), 50, np.uint8)
    image[0, 4:6, 8:12] = 250
    found = convert_image(image, ImageSpec(1, 40, 40, "uint8"))
    assert (found[0, :10] == 50).all()
    assert (found[0, 30:] == 50).all()
    bright = np.argwhere(found[0] > 200)
    assert np.ptp(bright[:, 0]) + 1 == 4
    assert np.ptp(bright[:, 1]) + 1 == 8


@pytest.mark.parametrize(("channels", "wanted"), [(1, 3), (3, 1)])
def test_convert_image_converts_between_gray_and_colour(channels, wanted):
    image = np.full((channels, 8, 8), 90, np.uint8)
    assert (convert_image(image, ImageSpec(wanted, 8, 8, "uint8")) == 90).all()


def test_convert_image_refuses_other_channels():
    with pytest.raises(InputError, match="5 channels, the others have 3"):
        convert_image(np.zeros((5, 8, 8), np.uint8), ImageSpec(3, 8, 8, "uint8"))


def test_decode_images_refuses_a_folder_without_readable_images(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"a\.png: not an image\. No other sampled image"):
        decode_images(list_images(tmp_path), tmp_path / "cache")


SCRIPT = """
import multiprocessing, sys
from pathlib import Path

def decode():
    from fewlabels.data import decoded
    from fewlabels.data.listing import list_images

    decoded.WORKERS_FROM, decoded.CHUNK = 0, 16
    decoded.available_cores = lambda: 2
    found = decoded.decode_images(list_images(Path(sys.argv[1])), Path(sys.argv[2]))
    print(len(found.source), int(found.source.images.astype(int).sum()))

"""


@pytest.mark.parametrize(
    ("method", "start"), [("spawn", "if __name__ == '__main__':\n    decode()"), ("forkserver", "decode()")]
)
def test_decode_images_works_in_scripts_with_and_without_main_guard(fmnist, tmp_path: Path, method, start):
    photos = written(fmnist, tmp_path / "photos")
    script = tmp_path / "script.py"
    script.write_text(f"{SCRIPT}\nmultiprocessing.set_start_method({method!r}, force=True)\n{start}\n")
    command = [sys.executable, str(script), str(photos), str(tmp_path / "cache")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["60", str(int(fmnist.train.images[:60].astype(int).sum()))]


def test_decode_images_distinguishes_folders_with_equal_file_stamps(fmnist, tmp_path: Path):
    """Two plates unpacked from an archive have the same names, sizes and times."""
    for plate, pixels in (("a", fmnist.train.images[0, 0]), ("b", 255 - fmnist.train.images[0, 0])):
        (tmp_path / plate).mkdir()
        Image.fromarray(pixels).save(tmp_path / plate / "0.bmp")
        os.utime(tmp_path / plate / "0.bmp", (0, 0))
    first, second = (decode_images(list_images(tmp_path / plate), tmp_path / "cache") for plate in "ab")
    assert np.array_equal(first.source.images, 255 - second.source.images)
