import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import functional as TF

from fewlabels.augment import photometric

FACTORS = torch.tensor([1, 0, 0.3, 0.6, 0.999, 1.4, 2, 5])


@pytest.fixture(scope="module")
def gray(fmnist):
    """Real images, uint8 [8, 1, 28, 22]."""
    return fmnist.train.read(slice(8))[..., 3:25]


@pytest.fixture(scope="module")
def rgb(gray):
    """The same images in colour, uint8 [8, 3, 28, 22]."""
    return torch.cat([gray, gray.roll(3, dims=2), gray.roll(-4, dims=3)], dim=1)


@pytest.fixture(params=["gray", "rgb"])
def images(request):
    return request.getfixturevalue(request.param).float() / 255


def each(operation, images, *parameters):
    """Torchvision's operation, image by image."""
    columns = (p.tolist() for p in parameters)
    return torch.stack([operation(image, *values) for image, *values in zip(images, *columns, strict=True)])


def assert_close(result, expected, atol=1e-5):
    torch.testing.assert_close(result, expected, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("ours", "theirs", "parameter"),
    [
        (photometric.brightness, TF.adjust_brightness, FACTORS),
        (photometric.contrast, TF.adjust_contrast, FACTORS),
        (photometric.sharpness, TF.adjust_sharpness, FACTORS),
        (photometric.gamma, TF.adjust_gamma, torch.tensor([1, 0.2, 0.5, 0.9, 1.1, 1.5, 2, 5])),
        (photometric.solarize, TF.solarize, torch.tensor([0, 0.1, 0.25, 0.5, 102 / 255, 0.9, 254 / 255, 1])),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_operation_equals_torchvision(images, ours, theirs, parameter):
    before = images.clone()
    assert_close(ours(images, parameter), each(theirs, images, parameter))
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("ours", "theirs", "parameter"),
    [
        (photometric.saturation, TF.adjust_saturation, FACTORS),
        (photometric.hue, TF.adjust_hue, torch.tensor([0, 0.05, -0.05, 0.1, -0.2, 1 / 3, 0.5, -0.5])),
    ],
    ids=["saturation", "hue"],
)
def test_saturation_and_hue_equal_torchvision(rgb, ours, theirs, parameter):
    images = rgb.float() / 255
    assert_close(ours(images, parameter), each(theirs, images, parameter))


def test_grayscale_equals_torchvision_for_selected_images(rgb):
    images = rgb.float() / 255
    which = torch.arange(8) % 3 == 0
    result = photometric.grayscale(images, which)
    assert_close(result[which], each(lambda image: TF.rgb_to_grayscale(image, 3), images[which]))
    assert torch.equal(result[~which], images[~which])


def test_hue_shift_by_a_third_turns_red_into_green_into_blue_into_red():
    red, green, blue = torch.eye(3)[..., None, None]
    images = torch.stack([red, green, blue])
    assert_close(photometric.hue(images, torch.full((3,), 1 / 3)), torch.stack([green, blue, red]))


def test_autocontrast_equals_torchvision(images):
    dim = images * 0.5 + 0.2
    dim[0] = 0.4  # constant
    assert_close(photometric.autocontrast(dim), each(TF.autocontrast, dim))
    assert torch.equal(photometric.autocontrast(dim)[0], dim[0])


def test_posterize_equals_torchvision_for_every_value_and_bits():
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(8, 3, 1, 1)
    bits = torch.arange(1, 9)
    expected = each(TF.posterize, values, bits).float() / 255
    assert torch.equal(photometric.posterize(values.float() / 255, bits.float()), expected)


def test_equalize_equals_torchvision(gray, rgb):
    for images in (gray, rgb):
        assert torch.equal(photometric.equalize(images.float() / 255), TF.equalize(images).float() / 255)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 2**32),
    st.tuples(st.integers(1, 3), st.sampled_from([1, 3]), st.integers(1, 40), st.integers(1, 40)),
    st.integers(0, 255),
    st.integers(0, 255),
)
def test_equalize_posterize_and_autocontrast_equal_torchvision_on_random_images(seed, shape, one, other):
    low, high = min(one, other), max(one, other)
    images = torch.from_numpy(np.random.default_rng(seed).integers(low, high, shape, np.uint8, endpoint=True))
    view = images.float() / 255
    assert torch.equal(photometric.equalize(view), TF.equalize(images).float() / 255)
    assert torch.equal(
        photometric.posterize(view, torch.full((len(view),), 3.0)), TF.posterize(images, 3).float() / 255
    )
    assert_close(photometric.autocontrast(view), each(TF.autocontrast, view))


@pytest.mark.parametrize("kernel_size", [3, 5, 23])
def test_blur_equals_torchvision(images, kernel_size):
    sigma = torch.tensor([0.1, 0.2, 0.5, 0.8, 1, 1.5, 2, 10])
    expected = each(lambda image, s: TF.gaussian_blur(image, kernel_size, s), images, sigma)
    assert_close(photometric.blur(images, sigma, kernel_size), expected)


def test_erase_equals_torchvision(images):
    boxes = torch.tensor(
        [
            [0, 0, 28, 22],
            [3, 4, 5, 6],
            [0, 0, 0, 0],
            [5, 5, 0, 9],
            [27, 21, 1, 1],
            [0, 10, 28, 2],
            [9, 0, 3, 22],
            [20, 15, 8, 7],
        ]
    )
    expected = each(lambda image, *box: TF.erase(image, *box, torch.zeros(1)), images + 0.1, *boxes.T)
    assert torch.equal(photometric.erase(images + 0.1, *boxes.T), expected)


NEUTRAL = {
    "brightness": lambda images, ones: photometric.brightness(images, ones),
    "contrast": lambda images, ones: photometric.contrast(images, ones),
    "saturation": lambda images, ones: photometric.saturation(images, ones),
    "sharpness": lambda images, ones: photometric.sharpness(images, ones),
    "gamma": lambda images, ones: photometric.gamma(images, ones),
    "solarize": lambda images, ones: photometric.solarize(images, 2 * ones),
    "posterize": lambda images, ones: photometric.posterize(images, 8 * ones),
    "grayscale": lambda images, ones: photometric.grayscale(images, ones == 0),
    "blur": lambda images, ones: photometric.blur(images, 0.04 * ones, 5),
    "erase": lambda images, ones: photometric.erase(images, ones, ones, 0 * ones, 9 * ones),
}


@pytest.mark.parametrize("name", NEUTRAL)
def test_neutral_parameter_leaves_images_unchanged(rgb, name):
    images = rgb.float() / 255
    assert torch.equal(NEUTRAL[name](images, torch.ones(8)), images)


def test_gray_of_five_channels_is_their_mean():
    images = torch.rand(2, 5, 6, 7, generator=torch.Generator().manual_seed(0))
    flat = images.mean(dim=(1, 2, 3), keepdim=True).expand_as(images)
    assert_close(photometric.contrast(images, torch.zeros(2)), flat)
    gray = images.mean(dim=1, keepdim=True).expand_as(images)
    assert_close(photometric.saturation(images, torch.zeros(2)), gray)


@pytest.mark.parametrize("height", [1, 2])
def test_sharpness_leaves_images_of_border_pixels_unchanged(height):
    images = torch.rand(2, 1, height, 6, generator=torch.Generator().manual_seed(0))
    factor = torch.tensor([0.1, 1.9])
    assert_close(photometric.sharpness(images, factor), each(TF.adjust_sharpness, images, factor))


def test_blur_stays_within_0_and_1():
    sigma = torch.linspace(0.1, 3, 64)
    assert photometric.blur(torch.ones(64, 1, 12, 12), sigma, 5).max() <= 1
