import io

import numpy as np
import pytest
from PIL import Image

from fewlabels.audit.near_duplicates import near_duplicates, near_duplicates_within
from fewlabels.data.source import ArraySource


def recompressed(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def test_near_duplicates_finds_planted_copies_among_real_images(fmnist):
    train, test = fmnist.train.first_k(3000), fmnist.test.first_k(100)
    images = test.images.copy()
    images[3] = train.images[1234]
    images[7, 0] = recompressed(train.images[77, 0], 90)
    images[9] = np.clip(train.images[2999].astype(int) + 3, 0, 255)
    found = near_duplicates(ArraySource(images, None, test.class_names), train)
    assert {row: int(found[row]) for row in np.flatnonzero(found >= 0)} == {3: 1234, 7: 77, 9: 2999}


def test_near_duplicates_within_finds_planted_copies(fmnist):
    source = fmnist.test.first_k(1000)
    real = set(np.flatnonzero(near_duplicates_within(source) >= 0).tolist())
    images = source.images.copy()
    images[500], images[900, 0] = images[3], recompressed(images[8, 0], 90)
    found = near_duplicates_within(ArraySource(images, None, source.class_names))
    planted = set(np.flatnonzero(found >= 0).tolist()) - real
    assert planted == {3, 500, 8, 900}
    assert [int(found[row]) for row in (3, 500, 8, 900)] == [500, 3, 900, 8]


ALTERED = {
    "JPEG quality 65": lambda image: recompressed(image, 65),
    "lighter": lambda image: np.clip(image * 0.9 + 12, 0, 255).astype(np.uint8),
    "resized and back": lambda image: np.asarray(Image.fromarray(image).resize((45, 45)).resize((28, 28))),
    "shifted by a pixel": lambda image: np.pad(image, 1, mode="edge")[2:, :-2],
}


@pytest.mark.parametrize("alter", ALTERED.values(), ids=ALTERED)
def test_near_duplicates_finds_slightly_altered_copies(fmnist, alter):
    source, rows = fmnist.train.first_k(2000), np.arange(0, 2000, 50)
    altered = np.stack([alter(source.images[row, 0]) for row in rows])
    found = near_duplicates(ArraySource(altered, None, ()), source)
    assert (found == rows).mean() >= 0.95
    assert np.isin(found[found != rows], -1).all()


def test_near_duplicates_ignores_strongly_altered_copies(fmnist):
    source = fmnist.train.first_k(500)
    for images in (source.images // 2, np.roll(source.images, 3, axis=3), 255 - source.images):
        assert (near_duplicates(ArraySource(images, None, ()), source) >= 0).mean() < 0.02


@pytest.mark.parametrize("shape", [(1, 5, 4), (3, 96, 80)])
def test_near_duplicates_takes_any_size_and_number_of_channels(shape):
    rng = np.random.default_rng(0)
    others = rng.integers(0, 256, (40, *shape), dtype=np.uint8)
    images = rng.integers(0, 256, (9, *shape), dtype=np.uint8)
    images[4] = others[31]
    names = ("a",)
    found = near_duplicates(ArraySource(images, None, names), ArraySource(others, None, names))
    assert found.tolist() == [-1] * 4 + [31] + [-1] * 4


def test_near_duplicates_ignores_images_without_contrast():
    flat = ArraySource(np.full((3, 1, 8, 8), 7, np.uint8), None, ("a",))
    assert near_duplicates(flat, flat).tolist() == [-1] * 3
