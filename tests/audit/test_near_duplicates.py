import io

import numpy as np
import pytest
from PIL import Image

from fewlabels.audit.near_duplicates import twins, twins_within
from fewlabels.data.source import ArraySource


def recompressed(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def test_copies_are_found_among_real_images(fmnist):
    train, test = fmnist.train.first_k(3000), fmnist.test.first_k(100)
    images = test.images.copy()
    images[3] = train.images[1234]
    images[7, 0] = recompressed(train.images[77, 0], 90)
    images[9] = np.clip(train.images[2999].astype(int) + 3, 0, 255)
    found = twins(ArraySource(images, None, test.class_names), train)
    assert {row: int(found[row]) for row in np.flatnonzero(found >= 0)} == {3: 1234, 7: 77, 9: 2999}


def test_copies_are_found_within_real_images(fmnist):
    some = fmnist.test.first_k(1000)
    already = set(np.flatnonzero(twins_within(some) >= 0).tolist())
    images = some.images.copy()
    images[500], images[900, 0] = images[3], recompressed(images[8, 0], 90)
    found = twins_within(ArraySource(images, None, some.class_names))
    new = set(np.flatnonzero(found >= 0).tolist()) - already
    assert new == {3, 500, 8, 900}
    assert [int(found[row]) for row in (3, 500, 8, 900)] == [500, 3, 900, 8]


ALTERED = {
    "less quality": lambda image: recompressed(image, 65),
    "lighter": lambda image: np.clip(image * 0.9 + 12, 0, 255).astype(np.uint8),
    "larger and back": lambda image: np.asarray(Image.fromarray(image).resize((45, 45)).resize((28, 28))),
    "shifted": lambda image: np.pad(image, 1, mode="edge")[2:, :-2],
}


@pytest.mark.parametrize("alter", ALTERED.values(), ids=ALTERED)
def test_a_slightly_altered_copy_is_a_twin(fmnist, alter):
    some, rows = fmnist.train.first_k(2000), np.arange(0, 2000, 50)
    altered = np.stack([alter(some.images[row, 0]) for row in rows])
    found = twins(ArraySource(altered, None, ()), some)
    assert (found == rows).mean() >= 0.95
    assert np.isin(found[found != rows], -1).all()


def test_what_is_much_changed_is_another_image(fmnist):
    some = fmnist.train.first_k(500)
    for images in (some.images // 2, np.roll(some.images, 3, axis=3), 255 - some.images):
        assert (twins(ArraySource(images, None, ()), some) >= 0).mean() < 0.02


@pytest.mark.parametrize("shape", [(1, 5, 4), (3, 96, 80)])
def test_any_size_and_number_of_channels(shape):
    rng = np.random.default_rng(0)
    others = rng.integers(0, 256, (40, *shape), dtype=np.uint8)
    images = rng.integers(0, 256, (9, *shape), dtype=np.uint8)
    images[4] = others[31]
    names = ("a",)
    found = twins(ArraySource(images, None, names), ArraySource(others, None, names))
    assert found.tolist() == [-1] * 4 + [31] + [-1] * 4


def test_an_image_without_contrast_is_nobodys_twin():
    flat = ArraySource(np.full((3, 1, 8, 8), 7, np.uint8), None, ("a",))
    assert twins(flat, flat).tolist() == [-1] * 3
