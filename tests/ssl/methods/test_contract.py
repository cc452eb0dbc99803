"""Requirements of the training loop that every registered method must meet."""

import pytest
import torch
from torch.nn import functional as F

from fewlabels.backbones.architectures import ArticleBackbone
from fewlabels.ssl.methods import METHODS
from fewlabels.ssl.methods.simsiam import SimSiam
from fewlabels.ssl.pretrain import PretrainSettings, build_method
from fewlabels.tutorial.methods import SIMSIAM


def two_views(n: int = 8):
    return torch.rand(2, n, 1, 28, 28, generator=torch.Generator().manual_seed(0)).unbind()


@pytest.mark.parametrize("name", sorted(METHODS))
def test_loss_is_finite_and_has_gradients_for_all_backbone_weights(name):
    method = build_method(PretrainSettings(name, epochs=1), channels=1, seed=0)
    output = method(*two_views())
    assert output.loss.ndim == 0
    assert output.projection.shape[0] == 8
    output.loss.backward()
    for parameter in method.backbone.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    assert method.backbone[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", sorted(METHODS))
def test_param_groups_contain_each_parameter_once(name):
    method = build_method(PretrainSettings(name, epochs=1), channels=1, seed=0)
    grouped = [id(p) for group in method.param_groups() for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in method.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_loss_falls_on_a_repeated_batch(name):
    method = build_method(PretrainSettings(name, epochs=1), channels=1, seed=0)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3)
    losses = []
    for _ in range(15):
        loss = method(*two_views(16)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05


@pytest.mark.parametrize("name", sorted(METHODS))
def test_build_method_initial_weights_depend_on_seed(name):
    settings = PretrainSettings(name, epochs=1)
    first, again, other = (build_method(settings, 1, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_simsiam_loss_equals_tutorial_code():
    """The tutorial's loss, written from its text, on the same weights: two forward passes, one loss."""
    method = SimSiam(ArticleBackbone(), 2048, SIMSIAM)
    x0, x1 = two_views()
    ours = method(x0, x1).loss
    again = SimSiam(ArticleBackbone(), 2048, SIMSIAM)
    again.load_state_dict(method.state_dict())
    proj0, proj1 = again.backbone(x0), again.backbone(x1)
    pred0, pred1 = again.predictor(proj0), again.predictor(proj1)
    theirs = -(
        F.cosine_similarity(pred0, proj1, dim=1).mean() / 2 + F.cosine_similarity(pred1, proj0, dim=1).mean() / 2
    )
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    shapes = [tuple(layer.weight.shape) for layer in method.predictor if hasattr(layer, "weight")]
    assert shapes == [(64, 2048), (64,), (2048, 64)]
