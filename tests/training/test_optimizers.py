import math

import pytest
import torch
from torch import nn

from fewlabels.training.optimizers import LARS, Muon, hidden_and_rest, orthogonal, without_decay


def test_two_lars_steps_by_hand():
    """w = (3, 4), g = (0, 2): |w| = 5, |g| = 2; lr 0.5, momentum 0.9, decay 0.1, eta 0.01."""
    w = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    optimizer = LARS([w], lr=0.5, momentum=0.9, weight_decay=0.1, eta=0.01)
    w.grad = torch.tensor([0.0, 2.0], dtype=torch.float64)
    optimizer.step()
    # trust = 0.01 * 5 / (2 + 0.1 * 5) = 0.02; v = 0.5 * 0.02 * (0.3, 2.4) = (0.003, 0.024)
    assert w.tolist() == pytest.approx([2.997, 3.976], abs=1e-12)
    optimizer.step()
    norm = math.hypot(2.997, 3.976)
    rate = 0.5 * 0.01 * norm / (2 + 0.1 * norm)
    v = (0.9 * 0.003 + rate * 0.2997, 0.9 * 0.024 + rate * 2.3976)
    assert w.tolist() == pytest.approx([2.997 - v[0], 3.976 - v[1]], abs=1e-12)


def test_biases_get_a_plain_momentum_step():
    bias = nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = LARS([{"params": [bias], "adapt": False, "weight_decay": 0.0}], lr=0.5)
    bias.grad = torch.tensor([0.0, 2.0])
    optimizer.step()
    assert bias.tolist() == [3.0, 3.0]


@pytest.mark.parametrize(("weight", "gradient", "moved"), [([0.0], [2.0], [-1.0]), ([2.0], [0.0], [2.0])])
def test_zero_norms_do_not_divide(weight, gradient, moved):
    w = nn.Parameter(torch.tensor(weight))
    optimizer = LARS([w], lr=0.5)
    w.grad = torch.tensor(gradient)
    optimizer.step()
    assert w.tolist() == moved


def test_batch_norm_and_biases_are_left_out_of_decay():
    weights, others = without_decay(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    assert [tuple(p.shape) for p in weights["params"]] == [(3, 2)]
    assert len(others["params"]) == 3
    assert others["weight_decay"] == 0


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has Muon since 2.9")
@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (12, 3, 2, 2)])
def test_muon_is_torchs_on_matrices(shape):
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(shape))
    theirs = nn.Parameter(ours.detach().flatten(1).clone())
    optimizer = Muon([ours], lr=0.1, momentum=0.9, weight_decay=0.2)
    oracle = torch.optim.Muon([theirs], lr=0.1, momentum=0.9, weight_decay=0.2, ns_steps=3)
    for _ in range(3):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.flatten(1).clone()
        optimizer.step()
        oracle.step()
    # torch's is computed in bfloat16.
    torch.testing.assert_close(ours.detach().flatten(1), theirs.detach(), atol=0.01, rtol=0)


def test_a_step_is_about_orthogonal():
    turned = orthogonal(torch.randn(8, 20, generator=torch.Generator().manual_seed(0)), rounds=5)
    values = torch.linalg.svdvals(turned)
    assert 0.6 < values.min() < values.max() < 1.3


def test_the_rest_is_adams():
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(4, 5))
    theirs = nn.Parameter(ours.detach().clone())
    optimizer = Muon([{"params": [ours], "orthogonal": False, "lr": 0.01, "weight_decay": 0.1}])
    oracle = torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    for _ in range(4):
        ours.grad = torch.randn(4, 5)
        theirs.grad = ours.grad.clone()
        optimizer.step()
        oracle.step()
    torch.testing.assert_close(ours, theirs)


def test_first_and_last_layer_are_not_hidden():
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 8, 3, bias=False), nn.Flatten(), nn.Linear(8, 2)
    )
    hidden, layers, others = hidden_and_rest(network, 0.02, 0.001, 0.1)
    assert [tuple(p.shape) for p in hidden["params"]] == [(8, 4, 3, 3)]
    assert [tuple(p.shape) for p in layers["params"]] == [(4, 1, 3, 3), (2, 8)]
    assert len(others["params"]) == 4
    assert (hidden["lr"], layers["lr"], others["lr"]) == (0.02, 0.001, 0.001)
    assert "weight_decay" not in others
