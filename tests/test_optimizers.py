import math

import pytest
import torch
from torch import nn

from fewlabels.optimizers import LARS, without_decay


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
