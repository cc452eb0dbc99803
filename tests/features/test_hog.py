import numpy as np
import pytest
import torch

from fewlabels.data.source import ArraySource
from fewlabels.features.hog import ORIENTATIONS, gradient_features, num_features, orientation_votes


@pytest.mark.parametrize("angle", [0, 20, 30, 90, 170])
def test_orientation_votes_of_a_slope_go_to_the_two_nearest_directions(angle):
    """A slope of 0.01 per pixel: the vote is shared by the two nearest of the nine directions."""
    radians = np.deg2rad(angle)
    down, right = np.mgrid[:9, :9]
    image = torch.from_numpy(0.5 + 0.01 * (right * np.cos(radians) + down * np.sin(radians)))[None, None].float()
    votes = orientation_votes(image)[0, :, 4, 4]
    expected = np.zeros(ORIENTATIONS)
    position = angle / 180 * ORIENTATIONS
    low = int(position)
    expected[low % ORIENTATIONS] = 1 - (position - low)
    expected[(low + 1) % ORIENTATIONS] += position - low
    np.testing.assert_allclose(votes, 0.02 * expected, atol=1e-5)


def test_orientation_votes_are_those_of_the_channel_with_the_largest_gradient():
    images = torch.zeros(1, 2, 5, 5)
    images[0, 0] = torch.arange(5) * 0.1
    images[0, 1] = torch.arange(5)[:, None] * 0.2
    votes = orientation_votes(images)[0, :, 2, 2]
    assert votes.sum() == pytest.approx(0.4)
    assert votes[0] == 0


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 20, 33), (4, 100, 64)])
def test_gradient_features_have_length_1_and_depend_on_the_image_alone(shape):
    images = np.random.default_rng(0).integers(0, 256, (5, *shape), dtype=np.uint8)
    images[4] = 7  # a constant image
    features = gradient_features(ArraySource(images, None, ("a", "b")))
    assert features.dtype == np.float32
    assert features.shape == (5, num_features(shape[0]))
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    alone = gradient_features(ArraySource(images[2:3], None, ("a", "b")))
    np.testing.assert_allclose(features[2:3], alone, atol=1e-6)
