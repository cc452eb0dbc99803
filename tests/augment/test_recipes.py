import random
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms import RandAugment as TorchvisionRandAugment
from torchvision.transforms import functional as TF

from fewlabels._internal.errors import InputError
from fewlabels.augment.recipes import RECIPES, RandAugment, Recipe


def ranges(low, high):
    return st.tuples(st.floats(low, high), st.floats(low, high)).map(lambda pair: (min(pair), max(pair)))


probabilities = st.floats(0, 1)
own_recipes = st.builds(
    Recipe,
    size=st.none() | st.integers(3, 40),
    crop_area=ranges(0.05, 1),
    crop_ratio=ranges(0.4, 2.5),
    flip=probabilities,
    rotate=st.floats(0, 180),
    shear=st.floats(0, 60),
    translate=probabilities,
    scale=ranges(0.3, 3),
    jitter=probabilities,
    brightness=st.floats(0, 2),
    contrast=st.floats(0, 2),
    saturation=st.just(0.0) | st.floats(0, 2),
    hue=st.just(0.0) | st.floats(0, 0.5),
    gamma=st.floats(0, 4),
    solarize=probabilities,
    grayscale=st.just(0.0) | probabilities,
    blur=probabilities,
    blur_sigma=ranges(0.1, 4),
    erase=probabilities,
    erase_area=ranges(0.01, 1),
)
randaugments = st.builds(RandAugment, num_ops=st.integers(1, 4), magnitude=st.integers(0, 30))
named_recipes = st.sampled_from(list(RECIPES.values()))
keys = st.tuples(st.integers(0, 2**31), st.sampled_from(["view", "other"]))
seeds = st.integers(0, 2**32)


def noise(seed, *shape, kind="noise"):
    """Random images, images of two extreme values, or white images."""
    values = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    return torch.from_numpy({"noise": values, "extreme": (values // 128) * 255, "white": values * 0 + 255}[kind])


@st.composite
def image_batches(draw, rgb=False):
    """Images, uint8 [B, C, H, W], rarely square."""
    shape = draw(st.integers(1, 6)), 3 if rgb else draw(st.sampled_from([1, 3, 5]))
    sides = draw(st.integers(3, 34)), draw(st.integers(3, 34))
    return noise(draw(seeds), *shape, *sides, kind=draw(st.sampled_from(["noise", "extreme", "white"])))


@st.composite
def cases(draw, recipes):
    """A recipe and images with the right number of channels."""
    recipe = draw(recipes)
    return recipe, draw(image_batches(getattr(recipe, "needs_rgb", False)))


def is_exact_in_any_batch(recipe):
    """True if views of this recipe are bit for bit the same in any batch."""
    return isinstance(recipe, Recipe)


@settings(max_examples=60, deadline=None)
@given(cases(named_recipes | own_recipes | randaugments), keys)
def test_views_are_deterministic_images_in_0_to_1(case, key):
    recipe, images = case
    before, state = images.clone(), (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())
    views = recipe(images, key)
    assert views.dtype == torch.float32
    size = getattr(recipe, "size", None)
    assert views.shape == (*images.shape[:2], *((size, size) if size else images.shape[2:]))
    assert views.isfinite().all()
    assert views.min() >= 0 and views.max() <= 1 + 1e-6  # blur: see test_photometric
    assert torch.equal(images, before)
    assert torch.equal(state[0], torch.get_rng_state())
    assert state[1:] == (np.random.get_state()[1].tolist(), random.getstate())
    assert torch.equal(views, recipe(images, key))


@settings(max_examples=25, deadline=None)
@given(image_batches(), keys)
def test_default_recipe_leaves_images_unchanged(images, key):
    assert torch.equal(Recipe()(images, key), images.float() / 255)


def test_jitter_0_leaves_colours_unchanged():
    images = noise(0, 8, 3, 9, 12)
    recipe = Recipe(jitter=0, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.5, gamma=1)
    torch.testing.assert_close(recipe(images, (0,)), images.float() / 255, rtol=0, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(named_recipes, seeds, st.lists(keys, min_size=2, max_size=2, unique=True))
def test_views_depend_on_the_key(recipe, seed, two_keys):
    images = noise(seed, 4, 3, 16, 20)
    first, second = (recipe(images, key) for key in two_keys)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", RECIPES)
def test_copies_of_an_image_have_different_views(name):
    views = RECIPES[name](noise(0, 1, 3, 16, 20).repeat(64, 1, 1, 1), (0,))
    # RandAugment may draw the same two operations more than once.
    assert len(views.flatten(1).unique(dim=0)) >= (64 if isinstance(RECIPES[name], Recipe) else 40)


@settings(max_examples=40, deadline=None)
@given(cases(named_recipes.filter(is_exact_in_any_batch) | own_recipes), keys, st.data())
def test_recipe_views_do_not_depend_on_the_rest_of_the_batch(case, key, data):
    recipe, images = case
    views = recipe(images, key)
    first = data.draw(st.integers(0, len(images) - 1))
    assert torch.equal(recipe(images[first:], key, first_row=first), views[first:])
    others = 255 - images
    others[first] = images[first]
    assert torch.equal(recipe(others, key)[first], views[first])


@pytest.mark.parametrize("kind", ["noise", "white"])
def test_randaugment_views_do_not_depend_on_the_rest_of_the_batch(kind):
    images = noise(0, 64, 3, 20, 30, kind=kind)
    alone = [RandAugment()(images[row : row + 1], (0,), first_row=row) for row in range(64)]
    assert torch.equal(RandAugment()(images, (0,)), torch.cat(alone))


def test_randaugment_thresholds_do_not_depend_on_the_rest_of_the_batch():
    images = noise(0, 64, 1, 20, 30, kind="extreme") // 255 * 51 + 204  # magnitude 6 solarizes from 204 on
    recipe = RandAugment(num_ops=1, magnitude=6)
    alone = [recipe(images[row : row + 1], (0,), first_row=row) for row in range(64)]
    torch.testing.assert_close(recipe(images, (0,)), torch.cat(alone), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "recipe",
    [Recipe(saturation=0.1), Recipe(hue=0.1), Recipe(grayscale=0.1), RECIPES["rgb-small"], RECIPES["imagenet"]],
    ids=str,
)
@pytest.mark.parametrize("channels", [1, 5])
def test_recipe_that_changes_colours_refuses_other_than_three_channels(recipe, channels):
    with pytest.raises(InputError, match=f"3 channels; the images have {channels}. Choose gray-small or randaugment"):
        recipe(noise(0, 2, channels, 8, 8), (0,))


def test_recipe_str_shows_settings_that_are_not_default():
    assert str(Recipe()) == "Recipe()"
    assert str(Recipe(flip=0.5, crop_area=(0.4, 1.0))) == "Recipe(crop_area=(0.4, 1.0), flip=0.5)"
    assert str(RandAugment()) == "RandAugment(num_ops=2, magnitude=9)"


@settings(max_examples=25, deadline=None)
@given(own_recipes | named_recipes)
def test_recipe_str_evaluates_to_the_recipe(recipe):
    assert eval(str(recipe)) == recipe


def test_flip_mirrors_the_image():
    images = noise(0, 32, 3, 9, 12)
    plain = images.float() / 255
    torch.testing.assert_close(Recipe(flip=1)(images, (0,)), plain.flip(3), rtol=0, atol=1e-5)


SAMPLES = 4000


def assert_uniform(values, low, high):
    """Kolmogorov-Smirnov test; for 4,000 values, a distance of 0.03 has a p-value of 0.001."""
    quantiles = (np.sort(np.asarray(values, float)) - low) / (high - low)
    assert quantiles[0] >= -1e-3 and quantiles[-1] <= 1 + 1e-3
    assert abs(quantiles - (np.arange(len(quantiles)) + 0.5) / len(quantiles)).max() < 0.03


def assert_fraction(which, expected):
    """The fraction of true values is within four standard deviations of the expected one."""
    assert abs(float(np.mean(np.asarray(which))) - expected) < 4 * (expected * (1 - expected) / len(which)) ** 0.5


def matrices_of_views(recipe, height=24, width=16):
    """Matrix and centre of each view, in coordinates of the image.

    The pixel values of the image are their own coordinates, so that the four central pixels of a view give its matrix.
    The matrix [B, (x, y), (x, y)] is the step in the image for one pixel to the right and down in the view. The centre
    is [B, (x, y)].
    """
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    coordinates = (torch.stack([x, y]) * 8).byte()[None].expand(SAMPLES, 2, height, width)
    middle = recipe(coordinates, (0,))[..., height // 2 - 1 : height // 2 + 1, width // 2 - 1 : width // 2 + 1]
    middle = middle.double().numpy() * 255 / 8
    right, down = np.diff(middle, axis=3).mean((2, 3)), np.diff(middle, axis=2).mean((2, 3))
    return np.stack([right, down], axis=2), middle.mean((2, 3)) + 0.5


def test_flip_has_its_probability():
    matrix, _ = matrices_of_views(Recipe(flip=0.5))
    assert_fraction(matrix[:, 0, 0] < 0, 0.5)


def test_rotation_is_uniform_in_both_directions():
    matrix, _ = matrices_of_views(Recipe(rotate=30))
    assert_uniform(np.rad2deg(np.arctan2(matrix[:, 0, 1], matrix[:, 0, 0])), -30, 30)


def test_shears_are_uniform_and_independent():
    matrix, _ = matrices_of_views(Recipe(shear=20))
    x, y = np.rad2deg(np.arctan(matrix[:, 0, 1])), np.rad2deg(np.arctan(matrix[:, 1, 0]))
    assert_uniform(x, -20, 20)
    assert_uniform(y, -20, 20)
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.06


def test_shifts_are_uniform_fractions_of_width_and_height():
    _, centre = matrices_of_views(Recipe(translate=0.2))
    x, y = centre.T
    assert_uniform(x, 8 - 0.2 * 16, 8 + 0.2 * 16)
    assert_uniform(y, 12 - 0.2 * 24, 12 + 0.2 * 24)
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.06


def test_scale_is_uniform():
    matrix, _ = matrices_of_views(Recipe(scale=(0.5, 2)))
    assert_uniform(1 / matrix[:, 0, 0], 0.5, 2)
    np.testing.assert_allclose(matrix[:, 0, 0], matrix[:, 1, 1], rtol=1e-3)


def test_crops_have_the_aspect_ratio_of_the_image_and_a_uniform_area():
    matrix, centre = matrices_of_views(Recipe(crop_area=(0.1, 1)))
    width, height = matrix[:, 0, 0], matrix[:, 1, 1]
    assert_uniform(width * height, 0.1, 1)
    np.testing.assert_allclose(width, height, rtol=2e-3)
    small = width < 0.98  # a larger crop has hardly more than one position
    assert_uniform((centre[:, 0] / 16 - width / 2)[small] / (1 - width[small]), 0, 1)
    assert_uniform((centre[:, 1] / 24 - height / 2)[small] / (1 - height[small]), 0, 1)


def test_crops_of_any_ratio_lie_inside_of_the_image():
    matrix, centre = matrices_of_views(Recipe(crop_area=(0.4, 1), crop_ratio=(3 / 4, 4 / 3)))
    size = np.stack([matrix[:, 0, 0], matrix[:, 1, 1]], axis=1)
    assert (centre / [16, 24] - size / 2).min() > -1e-4
    assert (centre / [16, 24] + size / 2).max() < 1 + 1e-4
    assert 0.4 - 1e-3 < size.prod(axis=1).min() < 0.42
    assert 0.98 < size.prod(axis=1).max() < 1 + 1e-3
    assert 3 / 4 - 1e-3 < (size[:, 0] / size[:, 1]).min() < 0.77
    assert 1.3 < (size[:, 0] / size[:, 1]).max() < 4 / 3 + 1e-3


def test_ratio_of_small_crops_is_log_uniform():
    matrix, _ = matrices_of_views(Recipe(crop_area=(0.4, 0.4), crop_ratio=(1 / 2, 2)))
    assert_uniform(np.log(matrix[:, 0, 0] / matrix[:, 1, 1]), -np.log(2), np.log(2))


RED = torch.tensor([150, 90, 90], dtype=torch.uint8)[:, None, None]


def pixel_views(recipe):
    """Colours [B, C] of the central pixel in views of a red image."""
    return recipe(RED.expand(SAMPLES, 3, 3, 3), (0,))[..., 1, 1].double().numpy()


def test_brightness_is_uniform_about_1():
    assert_uniform(pixel_views(Recipe(brightness=0.4))[:, 0] * 255 / 150, 0.6, 1.4)


def test_contrast_is_uniform_about_1():
    images = torch.tensor([100, 140], dtype=torch.uint8).expand(SAMPLES, 1, 4, 2)
    views = Recipe(contrast=0.4)(images, (0,))
    assert_uniform((views[:, 0, 0, 1] - views[:, 0, 0, 0]) * 255 / 40, 0.6, 1.4)


def test_saturation_is_uniform_about_1():
    views = pixel_views(Recipe(saturation=0.4))
    assert_uniform((views[:, 0] - views[:, 1]) * 255 / 60, 0.6, 1.4)


def test_hue_is_uniform_about_0():
    views = pixel_views(Recipe(hue=0.1))
    assert_uniform((views[:, 1] - views[:, 2]) * 255 / 60 / 6, -0.1, 0.1)


def test_gamma_is_log_uniform_about_1():
    exponents = np.log(pixel_views(Recipe(gamma=0.5))[:, 0]) / np.log(150 / 255)
    assert_uniform(np.log(exponents), -np.log(1.5), np.log(1.5))


def test_jitter_has_its_probability():
    views = pixel_views(Recipe(jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, gamma=0.2))
    assert_fraction(abs(views * 255 - [150, 90, 90]).max(axis=1) > 1e-3, 0.8)


def test_factors_are_not_negative():
    views = pixel_views(Recipe(brightness=2))
    assert_fraction(views[:, 0] == 0, 0.25)


def test_grayscale_and_solarize_have_their_probabilities():
    assert_fraction(np.ptp(pixel_views(Recipe(grayscale=0.2)), axis=1) < 1e-6, 0.2)
    assert_fraction(pixel_views(Recipe(solarize=1 / 3))[:, 0] < 0.5, 1 / 3)


def test_blur_has_its_probability_and_a_uniform_sigma():
    spot = torch.zeros(SAMPLES, 1, 9, 9, dtype=torch.uint8)
    spot[..., 4, 4] = 255
    views = Recipe(blur=1 / 3, blur_sigma=(0.5, 2))(spot, (0,)).double()
    blurred = views[:, 0, 4, 4] < 1
    assert_fraction(blurred, 1 / 3)
    neighbour_ratio = views[blurred, 0, 4, 3] / views[blurred, 0, 4, 4]
    assert_uniform((-0.5 / neighbour_ratio.log()).sqrt(), 0.5, 2)


def test_blur_kernel_is_a_tenth_of_the_view_and_odd():
    for size, half in ((9, 1), (32, 1), (50, 2), (60, 3), (224, 11)):
        spot = torch.zeros(1, 1, size, size, dtype=torch.uint8)
        spot[..., size // 2, size // 2] = 255
        view = Recipe(blur=1, blur_sigma=(50, 50))(spot, (0,))
        assert int((view > 0).sum()) == (2 * half + 1) ** 2, size


def test_erase_has_its_probability_and_area():
    white = torch.full((1000, 1, 60, 40), 255, dtype=torch.uint8)
    holes = (Recipe(erase=0.5, erase_area=(0.05, 0.2))(white, (0,)) == 0)[:, 0].numpy()
    heights, widths = holes.any(axis=2).sum(axis=1), holes.any(axis=1).sum(axis=1)
    assert (holes.sum(axis=(1, 2)) == heights * widths).all()  # each is a box
    erased = heights > 0
    assert_fraction(erased, 0.5)
    areas = (heights * widths)[erased] / (60 * 40)
    assert 0.04 < areas.min() < 0.06 < 0.19 < areas.max() < 0.22
    at_the_top, at_the_left = holes[:, 0].any(axis=1).sum(), holes[:, :, 0].any(axis=1).sum()
    assert at_the_top > 5 and at_the_left > 5
    assert holes[:, -1].any(axis=1).sum() > 5 and holes[:, :, -1].any(axis=1).sum() > 5


def test_other_operations_do_not_change_the_random_numbers_of_an_operation():
    white = torch.full((200, 1, 24, 16), 255, dtype=torch.uint8)
    alone = Recipe(erase=0.5)(white, (0,)) == 0
    assert torch.equal(alone, Recipe(erase=0.5, brightness=0.4, gamma=0.3)(white, (0,)) == 0)
    matrix, _ = matrices_of_views(Recipe(rotate=30))
    with_more, _ = matrices_of_views(Recipe(rotate=30, translate=0.1, jitter=0.5))
    np.testing.assert_allclose(matrix, with_more, atol=1e-4)


IMAGE = noise(0, 1, 3, 18, 18) // 8 * 7 + 20
"""Values of 20 to 237, which autocontrast changes, and more than 255 pixels, which equalize needs."""


def torchvision_views(image, magnitude):
    """Views [B, C, H, W] of torchvision's RandAugment by operation, for both signs if there are two.

    Two differences are intended: shears are about the centre, and shifts are not rounded to whole pixels.
    """
    height, width = image.shape[2:]
    space = TorchvisionRandAugment(2, magnitude)._augmentation_space(31, (height, width))
    plain = image.float() / 255

    def affine(x=0.0, y=0.0, shear_x=0.0, shear_y=0.0):
        degrees = np.rad2deg(np.arctan([shear_x, shear_y])).tolist()
        return TF.affine(plain, 0.0, [x, y], 1.0, degrees, InterpolationMode.BILINEAR)

    operations = {
        "Identity": lambda m: plain,
        "ShearX": lambda m: affine(shear_x=m),
        "ShearY": lambda m: affine(shear_y=m),
        "TranslateX": lambda m: affine(x=m),
        "TranslateY": lambda m: affine(y=m),
        "Rotate": lambda m: TF.rotate(plain, m, InterpolationMode.BILINEAR),
        "Brightness": lambda m: TF.adjust_brightness(plain, 1 + m),
        "Color": lambda m: TF.adjust_saturation(plain, 1 + m),
        "Contrast": lambda m: TF.adjust_contrast(plain, 1 + m),
        "Sharpness": lambda m: TF.adjust_sharpness(plain, 1 + m),
        "Posterize": lambda m: TF.posterize(image, int(m)).float() / 255,
        "Solarize": lambda m: TF.solarize(image, m).float() / 255,
        "AutoContrast": lambda m: TF.autocontrast(plain),
        "Equalize": lambda m: TF.equalize(image).float() / 255,
    }
    assert list(operations) == list(space)
    views = {}
    for name, (magnitudes, signed) in space.items():
        m = float(magnitudes[magnitude]) if magnitudes.ndim else 0.0
        views[name] = torch.cat([operations[name](sign * m) for sign in ((1, -1) if signed else (1,))])
    return views


def views_one_by_one(recipe, image, count):
    """Views of single images, since rounding in a batch may depend on the other images."""
    return torch.cat([recipe(image, (0,), first_row=row) for row in range(count)])


def matches(views, expected):
    """True where a view equals an expected one: bool [B, E]."""
    return torch.isclose(views[:, None], expected[None], rtol=0, atol=2e-5).flatten(2).all(dim=2)


@cache
def found(magnitude):
    """By operation, true where one of 560 views equals torchvision's, for each sign: bool [560, 1 or 2]."""
    views = views_one_by_one(RandAugment(1, magnitude), IMAGE, 560)
    return {name: matches(views, expected) for name, expected in torchvision_views(IMAGE, magnitude).items()}


def test_randaugment_applies_one_torchvision_operation():
    assert (sum(which.sum(dim=1) for which in found(30).values()) == 1).all()


@pytest.mark.parametrize("name", torchvision_views(IMAGE, 9))
@pytest.mark.parametrize("magnitude", [9, 30])
def test_randaugment_draws_operations_with_equal_probability(magnitude, name):
    which = found(magnitude)[name]
    assert 20 <= which.sum() <= 62  # 40 are expected, within four standard deviations
    assert (which.sum(dim=0) >= which.sum() / 4).all()  # both signs


def test_randaugment_shifts_down_by_a_fraction_of_the_height():
    image = noise(0, 1, 3, 12, 24)
    views = views_one_by_one(RandAugment(1, 9), image, 200)
    assert matches(views, torchvision_views(image, 9)["TranslateY"]).any()


def test_randaugment_of_magnitude_0_applies_only_autocontrast_and_equalize():
    views = views_one_by_one(RandAugment(1, 0), IMAGE, 560)
    unchanged = matches(views, IMAGE.float() / 255)[:, 0]
    assert_fraction(unchanged, 12 / 14)
    expected = torchvision_views(IMAGE, 0)
    assert matches(views[~unchanged], torch.cat([expected["AutoContrast"], expected["Equalize"]])).any(dim=1).all()


def test_randaugment_applies_geometry_by_one_interpolation():
    """A shift or rotation followed by its opposite loses nothing."""
    views = views_one_by_one(RandAugment(2, 9), IMAGE, 2000)
    unchanged = matches(views, IMAGE.float() / 255)[:, 0]
    assert_fraction(unchanged, 1 / 14**2 + 5 / 14**2 / 2)  # twice the identity, or one of five and its opposite


def test_randaugment_applies_operations_in_the_order_drawn():
    """Solarizing after a change of brightness differs from the reverse order; both orders occur."""
    plain = IMAGE.float() / 255
    brighter = [lambda v, s=s: TF.adjust_brightness(v, 1 + s * 0.45) for s in (1, -1)]
    both = torch.cat([TF.solarize(b(plain), 0.5) for b in brighter] + [b(TF.solarize(plain, 0.5)) for b in brighter])
    assert matches(views_one_by_one(RandAugment(2, 15), IMAGE, 2000), both).any(dim=0).all()
