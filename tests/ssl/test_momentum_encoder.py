"""Momentum encoders and the queue of MoCo v2."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fewlabels.ssl.methods.moco import MoCoV2Settings
from fewlabels.ssl.momentum_encoder import MomentumEncoder
from fewlabels.ssl.pretrain import build_method
from fewlabels.ssl.settings import PretrainSettings


def two_views(n: int = 8, seed: int = 0):
    return torch.rand(2, n, 1, 28, 28, generator=torch.Generator().manual_seed(seed)).unbind()


def test_update_moves_copy_by_momentum():
    original = nn.Linear(1, 1)
    nn.init.constant_(original.weight, 1.0)
    encoder = MomentumEncoder(original)
    nn.init.constant_(original.weight, 2.0)
    encoder.update(original, 0.75)
    assert encoder.copy.weight.item() == pytest.approx(0.75 * 1 + 0.25 * 2)
    encoder.update(original, 0.0)
    assert encoder.copy.weight.item() == 2
    assert not encoder.copy.weight.requires_grad


@pytest.mark.parametrize(("name", "attribute"), [("byol", "target"), ("mocov2", "keys"), ("mocov3", "keys")])
def test_momentum_encoder_starts_as_backbone_and_follows_it(name, attribute):
    method = build_method(PretrainSettings(name, 1), 1, 0)
    encoder = getattr(method, attribute).copy[0]
    trained = method.backbone
    assert torch.equal(encoder[0].weight, trained[0].weight)
    before = encoder[0].weight.clone()
    with torch.no_grad():
        trained[0].weight.add_(1.0)
    method.after_step(0.0)
    torch.testing.assert_close(encoder[0].weight, before + 0.01)
    method(*two_views()).loss.backward()
    assert all(p.grad is None for p in encoder.parameters())


def test_queue_overwrites_oldest_keys():
    method = build_method(PretrainSettings("mocov2", 1, MoCoV2Settings(queue=256)), 1, 0)
    first = method.queue.clone()
    keys = []
    for seed in range(3):
        x0, x1 = two_views(112, seed)
        with torch.no_grad():
            method(x0, x1)
            stored = method.queue[(method.place - 1) % 256]
        keys.append(stored.clone())
    assert method.place.item() == 3 * 112 - 256
    assert torch.equal(method.queue[3 * 112 - 256 - 1], keys[2])
    assert torch.equal(method.queue[111], keys[0])  # not yet overwritten
    assert not torch.equal(method.queue[0], first[0])
    torch.testing.assert_close(method.queue.norm(dim=1), torch.ones(256))


def test_queue_does_not_change_in_evaluation_mode():
    method = build_method(PretrainSettings("mocov2", 1), 1, 0).eval()
    before = method.queue.clone()
    method(*two_views())
    assert torch.equal(method.queue, before)


def test_mocov2_loss_uses_queue_without_keys_of_the_batch():
    """The keys of a batch enter the queue after its loss."""
    method = build_method(PretrainSettings("mocov2", 1), 1, 0)
    x0, x1 = two_views()
    queue = method.queue.clone()
    loss = method(x0, x1).loss
    q, k = method.projector(method.backbone(x0)), method.keys.copy(x1)
    q, k = F.normalize(q, dim=1), F.normalize(k, dim=1)
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / 0.2
    assert loss.item() == pytest.approx(F.cross_entropy(logits, torch.zeros(8, dtype=torch.long)).item(), abs=1e-5)
