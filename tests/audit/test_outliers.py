import numpy as np
import pytest

from fewlabels.audit.outliers import outliers
from fewlabels.data.source import ArraySource
from fewlabels.features.hog import gradient_features


def test_outliers_lists_noise_and_checkerboard_first(fmnist):
    images = fmnist.train.images[:600].copy()
    rng = np.random.default_rng(0)
    images[7] = rng.integers(0, 256, (28, 28))
    images[300] = 255 * (np.indices((28, 28)).sum(axis=0) // 4 % 2)
    source = ArraySource(images, None, ())
    found = outliers(source, gradient_features(source))
    assert {row for row, _ in found[:2]} == {7, 300}
    assert len(found) <= 12
    ratios = [ratio for _, ratio in found]
    assert ratios == sorted(ratios, reverse=True)


@pytest.mark.parametrize("number", [1, 29])
def test_outliers_returns_nothing_below_30_images(fmnist, number):
    source = fmnist.train.first_k(number)
    assert outliers(source, gradient_features(source)) == []
