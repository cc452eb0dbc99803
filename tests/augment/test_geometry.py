import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from fewlabels.augment.geometry import compose, crop, flip, rotation, scaling, shear, translation, warp

ANGLES = np.array([0, 10, -10, 33.3, 90, -135, 179, 250])
SHEARS = np.array([0, 5, -5, 20, -31.7, 45, 1, -60])
SHIFTS = np.array([0, 1, -1, 0.5, -2.25, 7, -20, 40])
FACTORS = np.array([1, 0.5, 2, 0.9, 1.1, 3, 0.33, 1.7])


@pytest.fixture(scope="module")
def images(fmnist):
    """Real images [8, 3, 28, 22] with different channels."""
    gray = fmnist.train.read(slice(8))[..., 3:25].float() / 255
    return torch.cat([gray, gray.roll(3, dims=2), gray.roll(-4, dims=3)], dim=1)


def affine(images, angle=0, right=0, down=0, scale=1, shear_x=0, shear_y=0):
    """Torchvision's affine, image by image, without ``fill``: fill=0 would weight border pixels twice."""
    columns = np.broadcast_arrays(np.zeros(len(images)), angle, right, down, scale, shear_x, shear_y)[1:]
    return torch.stack(
        [
            TF.affine(image, a, [r, d], s, [x, y], InterpolationMode.BILINEAR)
            for image, a, r, d, s, x, y in zip(images, *(c.tolist() for c in columns), strict=True)
        ]
    )


def assert_close(result, expected):
    torch.testing.assert_close(result, expected, rtol=0, atol=2e-5)


def test_rotation_equals_torchvision(images):
    result = warp(images, rotation(ANGLES))
    assert_close(result, affine(images, angle=ANGLES))
    counterclockwise = [
        TF.rotate(image, -a, InterpolationMode.BILINEAR) for image, a in zip(images, ANGLES, strict=True)
    ]
    assert_close(result, torch.stack(counterclockwise))


def test_shear_equals_torchvision(images):
    assert_close(warp(images, shear(SHEARS, SHEARS * 0)), affine(images, shear_x=SHEARS))
    assert_close(warp(images, shear(SHEARS * 0, SHEARS)), affine(images, shear_y=SHEARS))
    assert_close(warp(images, shear(SHEARS, SHEARS[::-1])), affine(images, shear_x=SHEARS, shear_y=SHEARS[::-1]))


def test_translation_equals_torchvision(images):
    assert_close(warp(images, translation(SHIFTS, SHIFTS[::-1])), affine(images, right=SHIFTS, down=SHIFTS[::-1]))


def test_scaling_equals_torchvision(images):
    assert_close(warp(images, scaling(FACTORS)), affine(images, scale=FACTORS))


def test_flip_equals_torchvision(images):
    which = np.arange(8) % 3 == 0
    expected = [TF.hflip(image) if w else image for image, w in zip(images, which, strict=True)]
    assert_close(warp(images, flip(which)), torch.stack(expected))


BOXES = np.array(
    [
        [2, 3, 20, 15],
        [0, 0, 28, 22],
        [5, 1, 21, 21],
        [8, 8, 20, 14],
        [1, 0, 27, 22],
        [3, 2, 20, 20],
        [0, 7, 24, 15],
        [4, 4, 22, 16],
    ]
)
"""Top, left, height and width of each box."""


def resized_crop(images, boxes, size):
    pairs = zip(images, boxes.tolist(), strict=True)
    return torch.stack([TF.resized_crop(image, *box, size, antialias=False) for image, box in pairs])


def test_downscaled_crop_equals_torchvision(images):
    result = warp(images, crop(*BOXES.T.astype(float), (28, 22), (20, 14)), (20, 14))
    assert result.shape == (8, 3, 20, 14)
    assert_close(result, resized_crop(images, BOXES, [20, 14]))


def test_upscaled_crop_equals_torchvision_inside_of_the_border(images):
    size = (50, 60)
    result = warp(images, crop(*BOXES.T.astype(float), (28, 22), size), size)
    expected = resized_crop(images, BOXES, list(size))
    # At the border, torchvision repeats the box's outermost pixels; here the pixels beside the box are used.
    assert_close(result[..., 2:-2, 3:-3], expected[..., 2:-2, 3:-3])


def test_crop_at_its_own_size_equals_slicing(images):
    boxes = [np.full(8, side, float) for side in (5, 2, 20, 15)]
    assert_close(warp(images, crop(*boxes, (28, 22), (20, 15)), (20, 15)), images[..., 5:25, 2:17])


def test_crop_between_pixels_interpolates(images):
    boxes = [np.full(8, side, float) for side in (0, 2.5, 28, 10)]
    between = (images[..., 2:12] + images[..., 3:13]) / 2
    assert_close(warp(images, crop(*boxes, (28, 22), (28, 10)), (28, 10)), between)


def test_composed_operations_equal_torchvision(images):
    matrix = compose(
        shear(SHEARS / 3, SHEARS[::-1] / 4), scaling(FACTORS), rotation(ANGLES), translation(SHIFTS / 4, SHIFTS / 5)
    )
    expected = affine(images, ANGLES, SHIFTS / 4, SHIFTS / 5, FACTORS, SHEARS / 3, SHEARS[::-1] / 4)
    assert_close(warp(images, matrix), expected)


def test_compose_applies_operations_in_order(images):
    boxes = [np.full(8, side, float) for side in (5, 2, 20, 15)]
    cut, mirror = crop(*boxes, (28, 22), (20, 15)), flip(np.ones(8, bool))
    assert_close(warp(images, compose(mirror, cut), (20, 15)), images.flip(3)[..., 5:25, 2:17])
    assert_close(warp(images, compose(cut, mirror), (20, 15)), images[..., 5:25, 2:17].flip(3))


def test_composed_translations_lose_no_pixels(images):
    away = np.full(8, 30.0)
    assert_close(warp(images, compose(translation(away, away), translation(-away, -away))), images)


SMALL_IMAGE = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])[None, None]


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (rotation(np.array([90.0])), [[7, 4, 1], [8, 5, 2], [9, 6, 3]]),
        (rotation(np.array([-90.0])), [[3, 6, 9], [2, 5, 8], [1, 4, 7]]),
        (translation(np.array([1.0]), np.array([0.0])), [[0, 1, 2], [0, 4, 5], [0, 7, 8]]),
        (translation(np.array([0.0]), np.array([1.0])), [[0, 0, 0], [1, 2, 3], [4, 5, 6]]),
        (translation(np.array([-1.0]), np.array([-2.0])), [[8, 9, 0], [0, 0, 0], [0, 0, 0]]),
        (flip(np.array([True])), [[3, 2, 1], [6, 5, 4], [9, 8, 7]]),
        (flip(np.array([False])), [[1, 2, 3], [4, 5, 6], [7, 8, 9]]),
        (shear(np.array([45.0]), np.array([0.0])), [[0, 1, 2], [4, 5, 6], [8, 9, 0]]),
        (scaling(np.array([2.0])), [[3, 3.5, 4], [4.5, 5, 5.5], [6, 6.5, 7]]),
    ],
    ids=[
        "clockwise",
        "anticlockwise",
        "right",
        "down",
        "left and up",
        "flip",
        "no flip",
        "the top goes right",
        "twice as large",
    ],
)
def test_warp_by_hand(matrix, expected):
    assert_close(warp(SMALL_IMAGE, matrix), torch.tensor([[expected]], dtype=torch.float32))


def test_rotation_by_90_degrees_of_a_rectangular_image():
    wide = torch.arange(6.0).view(1, 1, 2, 3)
    assert_close(warp(wide, rotation(np.array([90.0])), (3, 2)), torch.rot90(wide, -1, (2, 3)))


MOVES = {
    "clockwise": (rotation(np.array([90.0])), lambda image: torch.rot90(image, -1, (2, 3))),
    "anticlockwise": (rotation(np.array([-90.0])), lambda image: torch.rot90(image, 1, (2, 3))),
    "flip": (flip(np.array([True])), lambda image: image.flip(3)),
}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(sorted(MOVES)), min_size=1, max_size=8), st.integers(1, 9))
def test_composed_rotations_and_flips_equal_single_operations(names, size):
    image = torch.linspace(0, 1, size * size).view(1, 1, size, size)
    expected = image
    for name in names:
        expected = MOVES[name][1](expected)
    assert_close(warp(image, compose(*(MOVES[name][0] for name in names))), expected)


def test_warp_does_not_change_its_input(images):
    before = images.clone()
    warp(images, rotation(ANGLES))
    assert torch.equal(images, before)
