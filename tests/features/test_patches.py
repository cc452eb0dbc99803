import numpy as np
import pytest
import torch

from fewlabels.data.source import ArraySource
from fewlabels.features import patches
from fewlabels.features.extractor import Features
from fewlabels.features.hog import gradient_features
from fewlabels.features.kernel_ridge import fit_kernel_ridge
from fewlabels.features.patches import CONTRAST_OFFSET, MIN_SIMILARITY, NUM_FEATURES, NUM_PATCHES, PATCH_SIZE, Patches


def images(*shape: int) -> ArraySource:
    pixels = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    return ArraySource(pixels, None, ("a", "b"))


def by_hand(found: Patches, image: np.ndarray) -> np.ndarray:
    """Features of an image [C, H, W] in [0, 1], one position at a time in float64."""
    mean, whiten, filters = (part.double().numpy() for part in (found.mean, found.whiten, found.filters))
    padded = np.pad(image, ((0, 0), (PATCH_SIZE // 2,) * 2, (PATCH_SIZE // 2,) * 2))
    positions = [side - PATCH_SIZE + 1 for side in padded.shape[1:]]
    similarity = np.empty((NUM_PATCHES, *positions))
    for top, left in np.ndindex(*positions):
        patch = padded[:, top : top + PATCH_SIZE, left : left + PATCH_SIZE].ravel()
        white = ((patch - patch.mean()) / np.sqrt(patch.var() + CONTRAST_OFFSET) - mean) @ whiten
        similarity[:, top, left] = np.maximum(filters @ white / np.linalg.norm(white) - MIN_SIMILARITY, 0)
    cells = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(similarity), patches.CELLS_PER_SIDE)
    cells = cells.numpy().ravel()
    return np.sqrt(cells) / np.linalg.norm(np.sqrt(cells))


@pytest.mark.parametrize("shape", [(4, 3, 20, 12), (4, 1, 9, 9)])
def test_patch_features_by_hand(shape):
    source = images(*shape)
    found = Patches.of(source)
    expected = [by_hand(found, image / 255) for image in source.images.astype(float)]
    np.testing.assert_allclose(found.features(source), expected, atol=1e-4)


def test_patches_are_whitened_and_have_length_1(fmnist):
    found = Patches.of(fmnist.train.first_k(500))
    assert found.filters.shape == (NUM_PATCHES, PATCH_SIZE**2)
    torch.testing.assert_close(found.filters.norm(dim=1), torch.ones(NUM_PATCHES))
    assert torch.equal(found.filters, Patches.of(fmnist.train.first_k(500)).filters)
    # Whitening, without the offset, must invert the covariance of patches at all positions.
    images = fmnist.train.read(slice(500)).float() / 255
    every = torch.nn.functional.unfold(images, PATCH_SIZE, padding=PATCH_SIZE // 2).transpose(1, 2).flatten(0, 1)
    every = every[every.std(dim=1) > patches.MAX_PLAIN_STD]
    every = every - every.mean(dim=1, keepdim=True)
    every = every / (every.square().mean(dim=1, keepdim=True) + CONTRAST_OFFSET).sqrt()
    variances = torch.linalg.inv(found.whiten @ found.whiten) - patches.WHITENING_OFFSET * torch.eye(PATCH_SIZE**2)
    torch.testing.assert_close(variances, torch.cov(every.T), atol=0.03, rtol=0.1)


def test_patch_features_do_not_depend_on_the_rest_of_the_batch(fmnist, monkeypatch):
    source = fmnist.train.first_k(60)
    found = Patches.of(source)
    together = found.features(source)
    monkeypatch.setattr(patches, "VALUES_PER_READ", 7 * 28 * 28)
    np.testing.assert_allclose(found.features(source), together, atol=1e-4)
    np.testing.assert_allclose(found.features(source.subset(slice(7, 8)))[0], together[7], atol=1e-4)


def test_patch_features_downscale_large_images():
    large = images(3, 3, 90, 70)
    downscaled = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(large.images).float(), 32)
    small = ArraySource(downscaled.round().byte().numpy(), None, ("a", "b"))
    found = Patches.of(large)
    np.testing.assert_allclose(found.features(large), found.features(small), atol=0.03)


@pytest.mark.parametrize("value", [0, 255])
def test_patch_features_of_blank_images_are_finite(value):
    blank = ArraySource(np.full((3, 28, 28), value, np.uint8), None, ("a", "b"))
    features = Patches.of(blank).features(blank)
    assert features.shape == (3, NUM_FEATURES)
    assert np.isfinite(features).all()


def test_kernel_ridge_is_more_accurate_with_patch_features(fmnist):
    source = fmnist.train.first_k(4000)
    accuracy, with_patches = [], Features(source, graph=False)
    for features in (gradient_features(source), with_patches.of(np.arange(4000))):
        ridge = fit_kernel_ridge(features[:1000], source.labels[:1000], 10)
        accuracy.append((ridge.scores(features[1000:]).argmax(axis=1) == source.labels[1000:]).mean())
    assert accuracy[1] > accuracy[0] + 0.003
