"""Losses against lightly, an independent implementation, and against cases computed by hand."""

import math

import pytest
import torch
from torch.nn import functional as F

from fewlabels.ssl.methods.barlow_twins import cross_correlation, redundancy_loss
from fewlabels.ssl.methods.byol import bootstrap_loss
from fewlabels.ssl.methods.moco import batch_loss, queue_loss
from fewlabels.ssl.methods.simclr import nt_xent
from fewlabels.ssl.methods.simsiam import negative_cosine
from fewlabels.ssl.methods.vicreg import covariance, variance

SHAPES = pytest.mark.parametrize(("rows", "width"), [(2, 3), (16, 32), (64, 128)])
SEEDS = pytest.mark.parametrize("seed", range(5))


@pytest.fixture(scope="module")
def lightly_loss():
    return pytest.importorskip("lightly.loss", reason="reference implementation: pip install lightly")


def two_projections(rows: int, width: int, seed: int, dtype=torch.float32):
    """Two random projections that are neither normalised nor centred."""
    z = torch.randn(2, rows, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return (2 * z + 0.3).unbind()


@SEEDS
@SHAPES
def test_negative_cosine_agrees_with_lightly(lightly_loss, seed, rows, width):
    p, z = two_projections(rows, width, seed, torch.float64)
    theirs = lightly_loss.NegativeCosineSimilarity(eps=1e-6)(p, z)
    assert negative_cosine(p, z).item() == pytest.approx(theirs.item(), abs=1e-6)
    assert bootstrap_loss(p, z).item() == pytest.approx(2 + 2 * theirs.item(), abs=1e-6)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
@SEEDS
@SHAPES
def test_nt_xent_agrees_with_lightly(lightly_loss, seed, rows, width, temperature):
    z0, z1 = two_projections(rows, width, seed)
    theirs = lightly_loss.NTXentLoss(temperature=temperature)(z0, z1)
    assert nt_xent(z0, z1, temperature).item() == pytest.approx(theirs.item(), abs=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
@SEEDS
@SHAPES
def test_queue_loss_agrees_with_lightly(lightly_loss, seed, rows, width, temperature):
    q, k = two_projections(rows, width, seed)
    queue = F.normalize(torch.randn(50, width, generator=torch.Generator().manual_seed(seed + 100)), dim=1)
    theirs = lightly_loss.NTXentLoss(temperature=temperature, memory_bank_size=(50, width))
    theirs.memory_bank.bank = queue.clone()
    assert queue_loss(q, k, queue, temperature).item() == pytest.approx(theirs(q, k).item(), abs=1e-5)


@SEEDS
@SHAPES
def test_vicreg_agrees_with_lightly(lightly_loss, seed, rows, width):
    z0, z1 = two_projections(rows, width, seed)
    ours = 25 * F.mse_loss(z0, z1) + 25 * (variance(z0 / 4) + variance(z1 / 4)) / 2
    theirs = 25 * F.mse_loss(z0, z1) + lightly_loss.VICRegLoss(lambda_param=0, nu_param=0)(z0 / 4, z1 / 4)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    theirs = lightly_loss.VICRegLoss(lambda_param=0, mu_param=0)(z0, z1)
    assert (covariance(z0) + covariance(z1)).item() == pytest.approx(theirs.item(), rel=1e-5)


@SEEDS
@SHAPES
def test_barlow_twins_agrees_with_lightly(lightly_loss, seed, rows, width):
    z0, z1 = two_projections(rows, width, seed)
    theirs = lightly_loss.BarlowTwinsLoss(lambda_param=5e-3)(z0, z1)
    assert redundancy_loss(z0, z1, 5e-3).item() == pytest.approx(theirs.item(), rel=1e-5)


def test_nt_xent_by_hand():
    """Two orthogonal pairs of equal views: similarity 1 to the positive, 0 to both negatives."""
    z = torch.eye(2)
    assert nt_xent(z, z, temperature=0.5).item() == pytest.approx(math.log(math.exp(2) + 2) - 2, abs=1e-6)


def test_queue_loss_by_hand():
    """The query equals its key and is orthogonal to both negatives."""
    q = torch.tensor([[3.0, 0.0]])
    queue = torch.tensor([[0.0, 1.0], [0.0, -1.0]])
    expected = math.log(math.exp(2) + 2) - 2
    assert queue_loss(q, q, queue, temperature=0.5).item() == pytest.approx(expected, abs=1e-6)


def test_batch_loss_by_hand():
    """Orthogonal queries, each equal to its key; the loss has a factor of 2 tau."""
    z = 5 * torch.eye(3)
    expected = 2 * 0.2 * (math.log(math.exp(5) + 2) - 5)
    assert batch_loss(z, z, temperature=0.2).item() == pytest.approx(expected, abs=1e-6)


def test_barlow_twins_by_hand():
    """Two uncorrelated dimensions over four rows; in the second view, the second dimension has the opposite sign."""
    z0 = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    z1 = z0 * torch.tensor([1.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(
        cross_correlation(z0, z1), torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64)), rtol=1e-4, atol=1e-6
    )
    assert redundancy_loss(z0, z1, 5e-3).item() == pytest.approx(4, abs=1e-3)


def test_vicreg_terms_by_hand():
    z = torch.tensor([[1.0, 2.0], [-1.0, -2.0]])
    # Variances 2 and 8, covariance 4: c = 2 * 16 / 2. No deviation is below 1.
    assert covariance(z).item() == pytest.approx(16, abs=1e-5)
    assert variance(z).item() == 0
    assert variance(torch.ones(5, 3)).item() == pytest.approx(0.99, abs=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        negative_cosine,
        bootstrap_loss,
        lambda q, k: batch_loss(q, k, 0.2),
        lambda q, k: queue_loss(q, k, F.normalize(torch.ones(3, 8), dim=1), 0.2),
    ],
    ids=["negative cosine", "bootstrap", "batch", "queue"],
)
def test_loss_has_no_gradient_through_target(loss):
    p, z = two_projections(4, 8, 0)
    p.requires_grad_()
    z.requires_grad_()
    loss(p, z).backward()
    assert p.grad.abs().sum() > 0
    assert z.grad is None


def test_negative_cosine_of_parallel_and_opposite_vectors():
    z = torch.randn(4, 8)
    assert negative_cosine(3 * z, z).item() == pytest.approx(-1, abs=1e-6)
    assert negative_cosine(-z, z).item() == pytest.approx(1, abs=1e-6)
