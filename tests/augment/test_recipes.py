import random
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms import RandAugment as TheirRandAugment
from torchvision.transforms import functional as TF

from fewlabels._internal.errors import InputError
from fewlabels.augment.recipes import RECIPES, RandAugment, Recipe


def ranges(low, high):
    return st.tuples(st.floats(low, high), st.floats(low, high)).map(lambda pair: (min(pair), max(pair)))


shares = st.floats(0, 1)
own_recipes = st.builds(
    Recipe,
    size=st.none() | st.integers(3, 40),
    crop_area=ranges(0.05, 1),
    crop_ratio=ranges(0.4, 2.5),
    flip=shares,
    rotate=st.floats(0, 180),
    shear=st.floats(0, 60),
    translate=shares,
    scale=ranges(0.3, 3),
    jitter=shares,
    brightness=st.floats(0, 2),
    contrast=st.floats(0, 2),
    saturation=st.just(0.0) | st.floats(0, 2),
    hue=st.just(0.0) | st.floats(0, 0.5),
    gamma=st.floats(0, 4),
    solarize=shares,
    grayscale=st.just(0.0) | shares,
    blur=shares,
    blur_sigma=ranges(0.1, 4),
    erase=shares,
    erase_area=ranges(0.01, 1),
)
randaugments = st.builds(RandAugment, num_ops=st.integers(1, 4), magnitude=st.integers(0, 30))
named_recipes = st.sampled_from(list(RECIPES.values()))
keys = st.tuples(st.integers(0, 2**31), st.sampled_from(["view", "other"]))
seeds = st.integers(0, 2**32)


def noise(seed, *shape, kind="noise"):
    """Random images, those of two extreme values, or all white."""
    values = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    return torch.from_numpy({"noise": values, "extreme": (values // 128) * 255, "white": values * 0 + 255}[kind])


@st.composite
def image_batches(draw, rgb=False):
    """Uint8 [B, C, H, W], seldom square."""
    shape = draw(st.integers(1, 6)), 3 if rgb else draw(st.sampled_from([1, 3, 5]))
    sides = draw(st.integers(3, 34)), draw(st.integers(3, 34))
    return noise(draw(seeds), *shape, *sides, kind=draw(st.sampled_from(["noise", "extreme", "white"])))


@st.composite
def cases(draw, recipes):
    """A recipe and images that it takes."""
    recipe = draw(recipes)
    return recipe, draw(image_batches(getattr(recipe, "needs_rgb", False)))


def same_draws(recipe):
    """Whether a view of this recipe is the same to the last bit in any batch."""
    return isinstance(recipe, Recipe)


@settings(max_examples=60, deadline=None)
@given(cases(named_recipes | own_recipes | randaugments), keys)
def test_views_are_images(case, key):
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
def test_a_recipe_with_everything_off_changes_no_bit(images, key):
    assert torch.equal(Recipe()(images, key), images.float() / 255)


def test_images_that_are_not_jittered_keep_their_colours():
    images = noise(0, 8, 3, 9, 12)
    recipe = Recipe(jitter=0, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.5, gamma=1)
    torch.testing.assert_close(recipe(images, (0,)), images.float() / 255, rtol=0, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(named_recipes, seeds, st.lists(keys, min_size=2, max_size=2, unique=True))
def test_another_key_makes_other_views(recipe, seed, two_keys):
    images = noise(seed, 4, 3, 16, 20)
    first, second = (recipe(images, key) for key in two_keys)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", RECIPES)
def test_copies_of_one_image_get_views_of_their_own(name):
    views = RECIPES[name](noise(0, 1, 3, 16, 20).repeat(64, 1, 1, 1), (0,))
    # RandAugment may draw the same two of few operations again.
    assert len(views.flatten(1).unique(dim=0)) >= (64 if isinstance(RECIPES[name], Recipe) else 40)


@settings(max_examples=40, deadline=None)
@given(cases(named_recipes.filter(same_draws) | own_recipes), keys, st.data())
def test_neighbours_and_the_split_of_the_batch_change_no_bit(case, key, data):
    recipe, images = case
    views = recipe(images, key)
    first = data.draw(st.integers(0, len(images) - 1))
    assert torch.equal(recipe(images[first:], key, first_row=first), views[first:])
    others = 255 - images
    others[first] = images[first]
    assert torch.equal(recipe(others, key)[first], views[first])


@pytest.mark.parametrize("kind", ["noise", "white"])
def test_neighbours_change_no_bit_of_randaugment(kind):
    images = noise(0, 64, 3, 20, 30, kind=kind)
    alone = [RandAugment()(images[row : row + 1], (0,), first_row=row) for row in range(64)]
    assert torch.equal(RandAugment()(images, (0,)), torch.cat(alone))


def test_neighbours_do_not_tip_randaugments_thresholds():
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
def test_a_recipe_that_changes_colours_needs_three_channels(recipe, channels):
    with pytest.raises(InputError, match=f"3 channels; the images have {channels}. Choose gray-small or randaugment"):
        recipe(noise(0, 2, channels, 8, 8), (0,))


def test_a_recipe_prints_what_is_not_default():
    assert str(Recipe()) == "Recipe()"
    assert str(Recipe(flip=0.5, crop_area=(0.4, 1.0))) == "Recipe(crop_area=(0.4, 1.0), flip=0.5)"
    assert str(RandAugment()) == "RandAugment(num_ops=2, magnitude=9)"


@settings(max_examples=25, deadline=None)
@given(own_recipes | named_recipes)
def test_what_a_recipe_prints_makes_it_again(recipe):
    assert eval(str(recipe)) == recipe


def test_flip_mirrors_the_image_exactly():
    images = noise(0, 32, 3, 9, 12)
    plain = images.float() / 255
    torch.testing.assert_close(Recipe(flip=1)(images, (0,)), plain.flip(3), rtol=0, atol=1e-5)


MANY = 4000


def assert_uniform(values, low, high):
    """Kolmogorov and Smirnov's distance; 0.03 is the level of a thousandth for 4,000 values."""
    share = (np.sort(np.asarray(values, float)) - low) / (high - low)
    assert share[0] >= -1e-3 and share[-1] <= 1 + 1e-3
    assert abs(share - (np.arange(len(share)) + 0.5) / len(share)).max() < 0.03


def assert_share(which, share):
    """Within four standard deviations."""
    assert abs(float(np.mean(np.asarray(which))) - share) < 4 * (share * (1 - share) / len(which)) ** 0.5


def placed(recipe, height=24, width=16):
    """Where the middle of each view comes from, and how it lies there.

    The pixels of the image tell their own place, so that the four in the middle of a view tell its matrix: how far
    one goes in the input, [B, (x, y), (x, y)], for a pixel to the right and down; and the middle's place, [B, (x, y)].
    """
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = (torch.stack([x, y]) * 8).byte()[None].expand(MANY, 2, height, width)
    middle = recipe(places, (0,))[..., height // 2 - 1 : height // 2 + 1, width // 2 - 1 : width // 2 + 1]
    middle = middle.double().numpy() * 255 / 8
    right, down = np.diff(middle, axis=3).mean((2, 3)), np.diff(middle, axis=2).mean((2, 3))
    return np.stack([right, down], axis=2), middle.mean((2, 3)) + 0.5


def test_half_of_the_images_are_flipped():
    matrix, _ = placed(Recipe(flip=0.5))
    assert_share(matrix[:, 0, 0] < 0, 0.5)


def test_rotation_is_uniform_either_way():
    matrix, _ = placed(Recipe(rotate=30))
    assert_uniform(np.rad2deg(np.arctan2(matrix[:, 0, 1], matrix[:, 0, 0])), -30, 30)


def test_shears_are_uniform_either_way_and_independent():
    matrix, _ = placed(Recipe(shear=20))
    x, y = np.rad2deg(np.arctan(matrix[:, 0, 1])), np.rad2deg(np.arctan(matrix[:, 1, 0]))
    assert_uniform(x, -20, 20)
    assert_uniform(y, -20, 20)
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.06


def test_shifts_are_uniform_shares_of_width_and_height():
    _, place = placed(Recipe(translate=0.2))
    x, y = place.T
    assert_uniform(x, 8 - 0.2 * 16, 8 + 0.2 * 16)
    assert_uniform(y, 12 - 0.2 * 24, 12 + 0.2 * 24)
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.06


def test_scale_is_uniform():
    matrix, _ = placed(Recipe(scale=(0.5, 2)))
    assert_uniform(1 / matrix[:, 0, 0], 0.5, 2)
    np.testing.assert_allclose(matrix[:, 0, 0], matrix[:, 1, 1], rtol=1e-3)


def test_crops_keep_the_images_shape_and_a_uniform_area():
    matrix, place = placed(Recipe(crop_area=(0.1, 1)))
    width, height = matrix[:, 0, 0], matrix[:, 1, 1]
    assert_uniform(width * height, 0.1, 1)
    np.testing.assert_allclose(width, height, rtol=2e-3)
    wiggles = width < 0.98  # room enough to tell the place by
    assert_uniform((place[:, 0] / 16 - width / 2)[wiggles] / (1 - width[wiggles]), 0, 1)
    assert_uniform((place[:, 1] / 24 - height / 2)[wiggles] / (1 - height[wiggles]), 0, 1)


def test_crops_of_any_ratio_lie_in_the_image():
    matrix, place = placed(Recipe(crop_area=(0.4, 1), crop_ratio=(3 / 4, 4 / 3)))
    share = np.stack([matrix[:, 0, 0], matrix[:, 1, 1]], axis=1)
    assert (place / [16, 24] - share / 2).min() > -1e-4
    assert (place / [16, 24] + share / 2).max() < 1 + 1e-4
    assert 0.4 - 1e-3 < share.prod(axis=1).min() < 0.42
    assert 0.98 < share.prod(axis=1).max() < 1 + 1e-3
    assert 3 / 4 - 1e-3 < (share[:, 0] / share[:, 1]).min() < 0.77
    assert 1.3 < (share[:, 0] / share[:, 1]).max() < 4 / 3 + 1e-3


def test_the_ratio_of_small_crops_is_log_uniform():
    matrix, _ = placed(Recipe(crop_area=(0.4, 0.4), crop_ratio=(1 / 2, 2)))
    assert_uniform(np.log(matrix[:, 0, 0] / matrix[:, 1, 1]), -np.log(2), np.log(2))


RED = torch.tensor([150, 90, 90], dtype=torch.uint8)[:, None, None]


def of_colour(recipe):
    """Views [B, C] of one pixel's colour."""
    return recipe(RED.expand(MANY, 3, 3, 3), (0,))[..., 1, 1].double().numpy()


def test_brightness_is_uniform_about_1():
    assert_uniform(of_colour(Recipe(brightness=0.4))[:, 0] * 255 / 150, 0.6, 1.4)


def test_contrast_is_uniform_about_1():
    images = torch.tensor([100, 140], dtype=torch.uint8).expand(MANY, 1, 4, 2)
    views = Recipe(contrast=0.4)(images, (0,))
    assert_uniform((views[:, 0, 0, 1] - views[:, 0, 0, 0]) * 255 / 40, 0.6, 1.4)


def test_saturation_is_uniform_about_1():
    views = of_colour(Recipe(saturation=0.4))
    assert_uniform((views[:, 0] - views[:, 1]) * 255 / 60, 0.6, 1.4)


def test_hue_is_uniform_about_0():
    views = of_colour(Recipe(hue=0.1))
    assert_uniform((views[:, 1] - views[:, 2]) * 255 / 60 / 6, -0.1, 0.1)


def test_gamma_is_log_uniform_about_1():
    exponents = np.log(of_colour(Recipe(gamma=0.5))[:, 0]) / np.log(150 / 255)
    assert_uniform(np.log(exponents), -np.log(1.5), np.log(1.5))


def test_the_colours_of_four_in_five_are_jittered_all_at_once():
    views = of_colour(Recipe(jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, gamma=0.2))
    assert_share(abs(views * 255 - [150, 90, 90]).max(axis=1) > 1e-3, 0.8)


def test_a_factor_is_never_negative():
    views = of_colour(Recipe(brightness=2))
    assert_share(views[:, 0] == 0, 0.25)


def test_a_fifth_is_gray_and_a_third_solarized():
    assert_share(np.ptp(of_colour(Recipe(grayscale=0.2)), axis=1) < 1e-6, 0.2)
    assert_share(of_colour(Recipe(solarize=1 / 3))[:, 0] < 0.5, 1 / 3)


def test_a_third_is_blurred_by_a_uniform_sigma():
    spot = torch.zeros(MANY, 1, 9, 9, dtype=torch.uint8)
    spot[..., 4, 4] = 255
    views = Recipe(blur=1 / 3, blur_sigma=(0.5, 2))(spot, (0,)).double()
    blurred = views[:, 0, 4, 4] < 1
    assert_share(blurred, 1 / 3)
    beside = views[blurred, 0, 4, 3] / views[blurred, 0, 4, 4]
    assert_uniform((-0.5 / beside.log()).sqrt(), 0.5, 2)


def test_the_blurs_kernel_is_a_tenth_of_the_view_and_odd():
    for size, reach in ((9, 1), (32, 1), (50, 2), (60, 3), (224, 11)):
        spot = torch.zeros(1, 1, size, size, dtype=torch.uint8)
        spot[..., size // 2, size // 2] = 255
        view = Recipe(blur=1, blur_sigma=(50, 50))(spot, (0,))
        assert int((view > 0).sum()) == (2 * reach + 1) ** 2, size


def test_half_of_the_images_lose_a_box_of_the_area_asked():
    white = torch.full((1000, 1, 60, 40), 255, dtype=torch.uint8)
    holes = (Recipe(erase=0.5, erase_area=(0.05, 0.2))(white, (0,)) == 0)[:, 0].numpy()
    heights, widths = holes.any(axis=2).sum(axis=1), holes.any(axis=1).sum(axis=1)
    assert (holes.sum(axis=(1, 2)) == heights * widths).all()  # each is a box
    erased = heights > 0
    assert_share(erased, 0.5)
    areas = (heights * widths)[erased] / (60 * 40)
    assert 0.04 < areas.min() < 0.06 < 0.19 < areas.max() < 0.22
    at_the_top, at_the_left = holes[:, 0].any(axis=1).sum(), holes[:, :, 0].any(axis=1).sum()
    assert at_the_top > 5 and at_the_left > 5
    assert holes[:, -1].any(axis=1).sum() > 5 and holes[:, :, -1].any(axis=1).sum() > 5


def test_what_is_switched_on_changes_no_other_draw():
    white = torch.full((200, 1, 24, 16), 255, dtype=torch.uint8)
    alone = Recipe(erase=0.5)(white, (0,)) == 0
    assert torch.equal(alone, Recipe(erase=0.5, brightness=0.4, gamma=0.3)(white, (0,)) == 0)
    matrix, _ = placed(Recipe(rotate=30))
    with_more, _ = placed(Recipe(rotate=30, translate=0.1, jitter=0.5))
    np.testing.assert_allclose(matrix, with_more, atol=1e-4)


IMAGE = noise(0, 1, 3, 18, 18) // 8 * 7 + 20
"""From 20 to 237, so that autocontrast shows, and of more than 255 pixels, so that equalize does."""


def torchvisions(image, magnitude):
    """By operation, torchvision's views [B, C, H, W] by RandAugment's operations, for either sign where there are two.

    Two differences are meant: shears go about the centre, and shifts are not cut to whole pixels.
    """
    height, width = image.shape[2:]
    space = TheirRandAugment(2, magnitude)._augmentation_space(31, (height, width))
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
    """Of each row alone: the rows of a batch are not quite independent (see above)."""
    return torch.cat([recipe(image, (0,), first_row=row) for row in range(count)])


def matches(views, expected):
    """Whether each view is each of these: bool [B, E]."""
    return torch.isclose(views[:, None], expected[None], rtol=0, atol=2e-5).flatten(2).all(dim=2)


@cache
def found(magnitude):
    """By operation, whether each of 560 views is torchvision's of it, for either sign: bool [560, 1 or 2]."""
    views = views_one_by_one(RandAugment(1, magnitude), IMAGE, 560)
    return {name: matches(views, expected) for name, expected in torchvisions(IMAGE, magnitude).items()}


def test_randaugment_draws_one_of_torchvisions_operations_at_a_time():
    assert (sum(which.sum(dim=1) for which in found(30).values()) == 1).all()


@pytest.mark.parametrize("name", torchvisions(IMAGE, 9))
@pytest.mark.parametrize("magnitude", [9, 30])
def test_randaugment_draws_torchvisions_operation_as_often_as_any(magnitude, name):
    which = found(magnitude)[name]
    assert 20 <= which.sum() <= 62  # 40 are expected; four standard deviations
    assert (which.sum(dim=0) >= which.sum() / 4).all()  # either sign


def test_randaugment_shifts_down_by_a_share_of_the_height():
    image = noise(0, 1, 3, 12, 24)
    views = views_one_by_one(RandAugment(1, 9), image, 200)
    assert matches(views, torchvisions(image, 9)["TranslateY"]).any()


def test_randaugment_of_magnitude_0_leaves_all_but_two_operations_out():
    views = views_one_by_one(RandAugment(1, 0), IMAGE, 560)
    unchanged = matches(views, IMAGE.float() / 255)[:, 0]
    assert_share(unchanged, 12 / 14)
    expected = torchvisions(IMAGE, 0)
    assert matches(views[~unchanged], torch.cat([expected["AutoContrast"], expected["Equalize"]])).any(dim=1).all()


def test_randaugment_composes_geometry_by_one_interpolation():
    """A shift or a turn and its opposite lose nothing."""
    views = views_one_by_one(RandAugment(2, 9), IMAGE, 2000)
    unchanged = matches(views, IMAGE.float() / 255)[:, 0]
    assert_share(unchanged, 1 / 14**2 + 5 / 14**2 / 2)  # twice the identity, or one of five and its opposite


def test_randaugment_takes_its_operations_in_the_order_drawn():
    """Solarizing what was darkened is not darkening what was solarized: both orders are found."""
    plain = IMAGE.float() / 255
    brighter = [lambda v, s=s: TF.adjust_brightness(v, 1 + s * 0.45) for s in (1, -1)]
    both = torch.cat([TF.solarize(b(plain), 0.5) for b in brighter] + [b(TF.solarize(plain, 0.5)) for b in brighter])
    assert matches(views_one_by_one(RandAugment(2, 15), IMAGE, 2000), both).any(dim=0).all()
