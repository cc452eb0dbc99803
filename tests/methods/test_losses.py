"""The losses against lightly's, an independent implementation, and against cases computed by hand."""

import math

import pytest
import torch

from fewlabels.methods.simclr import nt_xent
from fewlabels.methods.simsiam import negative_cosine


@pytest.fixture(scope="module")
def lightly_loss():
    return pytest.importorskip("lightly.loss", reason="the oracle: pip install lightly")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("rows", "width"), [(2, 3), (16, 32), (64, 128)])
def test_negative_cosine_agrees_with_lightly(lightly_loss, seed, rows, width):
    p, z = torch.randn(2, rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    theirs = lightly_loss.NegativeCosineSimilarity(eps=1e-6)(p, z)
    assert negative_cosine(p, z).item() == pytest.approx(theirs.item(), abs=1e-6)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("rows", "width"), [(2, 3), (16, 32), (64, 128)])
def test_nt_xent_agrees_with_lightly(lightly_loss, seed, rows, width, temperature):
    z0, z1 = torch.randn(2, rows, width, generator=torch.Generator().manual_seed(seed))
    theirs = lightly_loss.NTXentLoss(temperature=temperature)(z0, z1)
    assert nt_xent(z0, z1, temperature).item() == pytest.approx(theirs.item(), abs=1e-6)


def test_nt_xent_by_hand():
    """Two orthogonal pairs, each view equal to its twin: similarities 1 to the twin, 0 to both others."""
    z = torch.eye(2)
    assert nt_xent(z, z, temperature=0.5).item() == pytest.approx(math.log(math.exp(2) + 2) - 2, abs=1e-6)


def test_no_gradient_flows_through_the_target():
    p, z = torch.randn(2, 4, 8).unbind()
    p.requires_grad_()
    z.requires_grad_()
    negative_cosine(p, z).backward()
    assert p.grad is not None
    assert p.grad.abs().sum() > 0
    assert z.grad is None


def test_negative_cosine_ends_at_minus_one():
    z = torch.randn(4, 8)
    assert negative_cosine(3 * z, z).item() == pytest.approx(-1, abs=1e-6)
    assert negative_cosine(-z, z).item() == pytest.approx(1, abs=1e-6)
