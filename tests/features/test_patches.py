import numpy as np
import pytest
import torch

from fewlabels.data.source import ArraySource
from fewlabels.features import patches
from fewlabels.features.extractor import Features
from fewlabels.features.hog import gradient_features
from fewlabels.features.patches import ALIKE, CONTRAST, NUM_FEATURES, NUMBER, PATCH, Patches
from fewlabels.fit.kernel import kernel_ridge


def images(*shape: int) -> ArraySource:
    pixels = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    return ArraySource(pixels, None, ("a", "b"))


def by_hand(found: Patches, image: np.ndarray) -> np.ndarray:
    """One patch at a time, float64; ``image`` [C, H, W] in [0, 1]."""
    mean, whiten, shown = (part.double().numpy() for part in (found.mean, found.whiten, found.shown))
    padded = np.pad(image, ((0, 0), (PATCH // 2,) * 2, (PATCH // 2,) * 2))
    places = [side - PATCH + 1 for side in padded.shape[1:]]
    alike = np.empty((NUMBER, *places))
    for top, left in np.ndindex(*places):
        patch = padded[:, top : top + PATCH, left : left + PATCH].ravel()
        white = ((patch - patch.mean()) / np.sqrt(patch.var() + CONTRAST) - mean) @ whiten
        alike[:, top, left] = np.maximum(shown @ white / np.linalg.norm(white) - ALIKE, 0)
    cells = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(alike), patches.GRID).numpy().ravel()
    return np.sqrt(cells) / np.linalg.norm(np.sqrt(cells))


@pytest.mark.parametrize("shape", [(4, 3, 20, 12), (4, 1, 9, 9)])
def test_features_are_what_each_patch_gives_by_hand(shape):
    source = images(*shape)
    found = Patches.of(source)
    expected = [by_hand(found, image / 255) for image in source.images.astype(float)]
    np.testing.assert_allclose(found.features(source), expected, atol=1e-4)


def test_patches_are_whitened_and_of_length_one(fmnist):
    found = Patches.of(fmnist.train.first_k(500))
    assert found.shown.shape == (NUMBER, PATCH**2)
    torch.testing.assert_close(found.shown.norm(dim=1), torch.ones(NUMBER))
    assert torch.equal(found.shown, Patches.of(fmnist.train.first_k(500)).shown)
    # Without what was added, the directions that were brought to 1 have the variance of patches of all places.
    images = fmnist.train.read(slice(500)).float() / 255
    every = torch.nn.functional.unfold(images, PATCH, padding=PATCH // 2).transpose(1, 2).flatten(0, 1)
    every = every[every.std(dim=1) > patches.PLAIN]
    every = every - every.mean(dim=1, keepdim=True)
    every = every / (every.square().mean(dim=1, keepdim=True) + CONTRAST).sqrt()
    variances = torch.linalg.inv(found.whiten @ found.whiten) - patches.WHITE * torch.eye(PATCH**2)
    torch.testing.assert_close(variances, torch.cov(every.T), atol=0.03, rtol=0.1)


def test_an_image_is_described_alike_in_any_company(fmnist, monkeypatch):
    source = fmnist.train.first_k(60)
    found = Patches.of(source)
    together = found.features(source)
    monkeypatch.setattr(patches, "READ_AT_ONCE", 7 * 28 * 28)
    np.testing.assert_allclose(found.features(source), together, atol=1e-4)
    np.testing.assert_allclose(found.features(source.subset(slice(7, 8)))[0], together[7], atol=1e-4)


def test_large_images_are_shrunk():
    large = images(3, 3, 90, 70)
    shrunk = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(large.images).float(), 32)
    small = ArraySource(shrunk.round().byte().numpy(), None, ("a", "b"))
    found = Patches.of(large)
    np.testing.assert_allclose(found.features(large), found.features(small), atol=0.03)


@pytest.mark.parametrize("value", [0, 255])
def test_blank_images_have_features_without_nan(value):
    blank = ArraySource(np.full((3, 28, 28), value, np.uint8), None, ("a", "b"))
    features = Patches.of(blank).features(blank)
    assert features.shape == (3, NUM_FEATURES)
    assert np.isfinite(features).all()


def test_kernel_ridge_names_more_with_them(fmnist):
    source = fmnist.train.first_k(4000)
    right, known = [], Features(source, None)
    known.by_neighbours = False
    for features in (gradient_features(source), known.of(np.arange(4000))):
        ridge = kernel_ridge(features[:1000], source.labels[:1000], 10)
        right.append((ridge.scores(features[1000:]).argmax(axis=1) == source.labels[1000:]).mean())
    assert right[1] > right[0] + 0.003
