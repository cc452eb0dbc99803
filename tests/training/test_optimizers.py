import math

import pytest
import torch
from torch import nn

from fewlabels.backbones.classifier import Classifier
from fewlabels.training.optimizers import LARS, Muon, hidden_and_rest, layerwise_groups, orthogonal, without_decay


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


def test_lars_does_a_plain_momentum_step_without_adapt():
    bias = nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = LARS([{"params": [bias], "adapt": False, "weight_decay": 0.0}], lr=0.5)
    bias.grad = torch.tensor([0.0, 2.0])
    optimizer.step()
    assert bias.tolist() == [3.0, 3.0]


@pytest.mark.parametrize(("weight", "gradient", "expected"), [([0.0], [2.0], [-1.0]), ([2.0], [0.0], [2.0])])
def test_lars_trust_is_1_for_zero_norms(weight, gradient, expected):
    w = nn.Parameter(torch.tensor(weight))
    optimizer = LARS([w], lr=0.5)
    w.grad = torch.tensor(gradient)
    optimizer.step()
    assert w.tolist() == expected


def test_without_decay_excludes_norms_and_biases():
    weights, others = without_decay(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    assert [tuple(p.shape) for p in weights["params"]] == [(3, 2)]
    assert len(others["params"]) == 3
    assert others["weight_decay"] == 0


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has Muon since 2.9")
@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (12, 3, 2, 2)])
def test_muon_equals_torch_on_flattened_weights(shape):
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(shape))
    theirs = nn.Parameter(ours.detach().flatten(1).clone())
    optimizer = Muon([ours], lr=0.1, momentum=0.9, weight_decay=0.2)
    reference = torch.optim.Muon([theirs], lr=0.1, momentum=0.9, weight_decay=0.2, ns_steps=3)
    for _ in range(3):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.flatten(1).clone()
        optimizer.step()
        reference.step()
    # torch computes in bfloat16.
    torch.testing.assert_close(ours.detach().flatten(1), theirs.detach(), atol=0.01, rtol=0)


def test_orthogonal_has_singular_values_near_1():
    step = orthogonal(torch.randn(8, 20, generator=torch.Generator().manual_seed(0)), iterations=5)
    values = torch.linalg.svdvals(step)
    assert 0.6 < values.min() < values.max() < 1.3


def test_muon_equals_adamw_for_groups_that_are_not_orthogonal():
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(4, 5))
    theirs = nn.Parameter(ours.detach().clone())
    optimizer = Muon([{"params": [ours], "orthogonal": False, "lr": 0.01, "weight_decay": 0.1}])
    reference = torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    for _ in range(4):
        ours.grad = torch.randn(4, 5)
        theirs.grad = ours.grad.clone()
        optimizer.step()
        reference.step()
    torch.testing.assert_close(ours, theirs)


def test_hidden_and_rest_excludes_first_and_last_layer():
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 8, 3, bias=False), nn.Flatten(), nn.Linear(8, 2)
    )
    hidden, layers, others = hidden_and_rest(network, 0.02, 0.001, 0.1)
    assert [tuple(p.shape) for p in hidden["params"]] == [(8, 4, 3, 3)]
    assert [tuple(p.shape) for p in layers["params"]] == [(4, 1, 3, 3), (2, 8)]
    assert len(others["params"]) == 4
    assert (hidden["lr"], layers["lr"], others["lr"]) == (0.02, 0.001, 0.001)
    assert "weight_decay" not in others


@pytest.mark.parametrize(("backbone", "layers"), [("article", 7), ("resnet18", 11), ("timm/vit_tiny_patch16_224", 15)])
def test_layerwise_groups_decay_learning_rates_from_head_to_first_layer(backbone, layers):
    network = Classifier(backbone, ["a", "b"])
    groups = layerwise_groups(network.backbone, network.head, lr=1.0, decay=0.5)
    assert {id(p) for group in groups for p in group["params"]} == {id(p) for p in network.parameters()}
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert rate[id(network.head.weight)] == rate[id(network.head.bias)] == 1
    lowest = 0.5 ** (layers - 1)
    assert rate[id(next(network.backbone.parameters()))] == lowest
    if backbone.startswith("timm"):
        assert rate[id(network.backbone.network.pos_embed)] == lowest  # it is in no child module
    assert len({group["lr"] for group in groups}) == layers
    decayed = {id(p): group.get("weight_decay") for group in groups for p in group["params"]}
    assert decayed[id(network.head.bias)] == 0
    assert decayed[id(network.head.weight)] is None
    torch.optim.AdamW(groups)
