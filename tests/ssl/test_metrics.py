"""Label-free metrics against lightly, SciPy and cases computed by hand."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from lightly.utils.debug import std_of_l2_normalized

from fewlabels.ssl.metrics import (
    alignment,
    alpha_req,
    dead_fraction,
    lidar,
    normalized_std,
    rankme,
    retrieval_accuracy,
    uniformity,
)


def random_normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_normalized_std_equals_lightly_times_root_of_width():
    z = random_normal(64, 16) + 1
    assert normalized_std(z) == pytest.approx(float(std_of_l2_normalized(z)) * 4, rel=1e-6)
    assert normalized_std(random_normal(4096, 16)) == pytest.approx(1, abs=0.02)
    assert normalized_std(torch.ones(8, 16)) == 0


def test_rankme_by_hand():
    assert rankme(torch.eye(5)) == pytest.approx(5, rel=1e-4)
    assert rankme(torch.ones(7, 5)) == pytest.approx(1, rel=1e-4)
    # Singular values 3 and 1 are 3/4 and 1/4 of their sum.
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert rankme(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(math.exp(entropy), rel=1e-4)


@pytest.mark.parametrize("shape", [(40, 12), (12, 40)])
def test_rankme_equals_numpy_singular_values(shape):
    h = random_normal(*shape)
    values = np.linalg.svd(h.numpy(), compute_uv=False)
    p = values / values.sum() + 1e-7
    assert rankme(h) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-3)


def test_alignment_and_uniformity_by_hand():
    z0 = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    z1 = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    assert alignment(z0, z1) == pytest.approx((0 + 4) / 2)
    assert uniformity(z0) == pytest.approx(-2 * 2)  # one pair, squared distance 2
    assert uniformity(torch.ones(4, 2)) == pytest.approx(0)


def test_dead_fraction_counts_constant_features():
    h = random_normal(100, 8)
    h[:, :2] = 3.0
    assert dead_fraction(h) == pytest.approx(0.25)
    assert dead_fraction(torch.ones(10, 4)) == 1


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_alpha_req_recovers_exponent_of_power_law(alpha):
    left = torch.linalg.qr(torch.cat([torch.ones(200, 1), random_normal(200, 30)], dim=1).double())[0][:, 1:]  # centred
    right = torch.linalg.qr(random_normal(30, 30).double())[0]
    sizes = torch.arange(1, 31).double() ** (-alpha / 2)
    assert alpha_req(left * sizes @ right) == pytest.approx(alpha, rel=1e-6)


def test_lidar_equals_scipy_discriminant():
    centres = random_normal(50, 1, 6) * torch.tensor([5.0, 5.0, 5.0, 0.1, 0.1, 0.1])
    views = centres + random_normal(50, 4, 6, seed=1)
    means = views.mean(dim=1).double().numpy()
    within = (views.double().numpy() - means[:, None]).reshape(-1, 6)
    within = within.T @ within / (50 * 3) + 1e-4 * np.eye(6)
    values = scipy.linalg.eigh(np.cov(means.T), within, eigvals_only=True)
    p = values / values.sum() + 1e-7
    assert lidar(views) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-6)
    assert 3 < lidar(views) < 4.5  # three directions distinguish the images


def test_retrieval_accuracy_counts_images_nearest_to_their_other_view():
    h = torch.eye(4)
    assert retrieval_accuracy(h, h) == 1
    assert retrieval_accuracy(h, h[[1, 0, 2, 3]]) == 0.5
