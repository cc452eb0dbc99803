"""The collapse monitor must detect each planted fault and its cause, and must not change the network."""

import math

import pytest
import torch
from torch import nn

from benchmarks.collapse import remove_momentum, remove_predictor, remove_stop_gradient
from fewlabels.augment.recipes import RECIPES, Recipe
from fewlabels.ssl.collapse import MAX_HISTORY, CollapseMonitor
from fewlabels.ssl.pretrain import PretrainSettings, build_method


@pytest.fixture(scope="module")
def images(fmnist) -> torch.Tensor:
    return fmnist.train.read(slice(128))


def monitor_of(images, recipe=RECIPES["gray-small"], batch_size=256) -> CollapseMonitor:
    return CollapseMonitor(images, lambda x, view: recipe(x, (0, "guard", view)), batch_size, lr=0.5)


def make_method(method: str):
    return build_method(PretrainSettings(method, 1), 1, 0).train()


@pytest.fixture(scope="module")
def warm(images):
    """SimSiam with batch-norm statistics of the images."""
    method = make_method("simsiam")
    for norm in (module for module in method.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)):
        norm.momentum = None  # a cumulative mean over batches
    view = RECIPES["gray-small"](images, (0, "warm"))
    method(view, view)
    return method


def with_projections(warm, transform):
    """A copy of the network that transforms its projections."""

    class Transformed(nn.Module):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return transform(z)

    method = make_method("simsiam")
    method.load_state_dict(warm.state_dict())
    method.projector.append(Transformed())
    return method


def test_check_of_healthy_network_gives_no_verdict(images, warm):
    monitor = monitor_of(images)
    assert monitor.check_before_training(warm) is None
    assert monitor.check(warm, 150, [1.0]) is None
    assert monitor.check(warm, 200, [1.0]) is None
    assert monitor.history[-1].rank > 20
    assert not monitor.pending


def test_check_before_training_reports_duplicate_and_nearly_constant_images(images, warm):
    found = monitor_of(images[torch.arange(128) % 4]).check_before_training(warm)
    assert (found.kind, found.cause) == ("images too much alike", "images")
    assert "3% of 128 images are distinct" in found.line
    gray = (100 + torch.arange(128 * 784).reshape(128, 1, 28, 28) % 2).byte()
    assert monitor_of(gray).check_before_training(warm).cause == "images"


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(brightness=0.02), Recipe(rotate=1)], ids=str)
def test_check_before_training_reports_weak_views(recipe, images, warm):
    found = monitor_of(images, recipe).check_before_training(warm)
    assert (found.kind, found.cause) == ("views too weak", "views")


@pytest.mark.parametrize("name", ["gray-small", "randaugment"])
def test_check_before_training_accepts_named_recipes(name, images, warm):
    assert monitor_of(images, RECIPES[name]).check_before_training(warm) is None


def test_check_before_training_reports_batches_too_small_for_batch_norm(images, warm):
    assert monitor_of(images, batch_size=2).check_before_training(warm).cause == "batch"
    assert monitor_of(images, batch_size=32).check_before_training(warm) is None


KINDS = {
    "complete collapse": lambda z: z * 1e-6 + 1,
    "dimensional collapse": lambda z: z[:, :2] @ z[:2, :2].T @ z[:2] + 0.01 * z,
    "divergence": lambda z: z * torch.nan,
}


@pytest.mark.parametrize("kind", KINDS)
def test_check_reports_each_kind_of_collapse(kind, images, warm):
    method, monitor = with_projections(warm, KINDS[kind]), monitor_of(images)
    assert monitor.check_before_training(method) is None
    first = monitor.check(method, 100, [1.0])
    found = monitor.check(method, 150, [1.0])
    assert (first is None) == (kind != "divergence")  # one check may be noise
    assert found.kind == kind
    assert found.cause == "learning rate"
    assert "--lr 0.05" in found.line
    assert found.is_fatal == (kind == "divergence")


def test_check_reports_dead_units(images, warm):
    method, monitor = with_projections(warm, lambda z: z), monitor_of(images)
    monitor.check_before_training(method)
    with torch.no_grad():
        method.backbone[6].weight[:40] = 0  # of the 128 filters of the last convolution
    monitor.check(method, 100, [1.0])
    found = monitor.check(method, 150, [1.0])
    assert found.kind == "dead units"
    assert "dead features 31%" in found.line


def test_check_reports_divergence_of_weights_and_of_loss(images, warm):
    method, monitor = with_projections(warm, lambda z: z), monitor_of(images)
    monitor.check_before_training(method)
    with torch.no_grad():
        for weight in method.backbone.parameters():
            weight *= 5
    assert monitor.check(method, 50, [1.0]).kind == "divergence"
    assert monitor.check(method, 60, [1.0]) is None  # no check is due
    found = monitor.check(method, 61, [math.inf])
    assert found.kind == "divergence"
    assert found.is_fatal


def test_check_reports_no_collapse_before_min_steps(images, warm):
    method, monitor = with_projections(warm, KINDS["complete collapse"]), monitor_of(images)
    monitor.check_before_training(method)
    assert monitor.check(method, 50, [1.0]) is None
    assert not monitor.pending


def frozen_predictor(method):
    method.predictor.requires_grad_(False)


@pytest.mark.parametrize(
    ("name", "plant", "cause"),
    [
        ("simsiam", remove_stop_gradient, "stop-gradient"),
        ("byol", remove_stop_gradient, "stop-gradient"),
        ("simsiam", remove_predictor, "predictor"),
        ("byol", frozen_predictor, "predictor"),
        ("byol", remove_momentum, "momentum"),
        ("mocov2", remove_momentum, "momentum"),
        *((name, lambda method: None, "learning rate") for name in ("simsiam", "byol", "mocov3", "simclr", "vicreg")),
    ],
)
def test_check_finds_planted_cause(name, plant, cause, images):
    method, monitor = make_method(name), monitor_of(images)
    plant(method)
    monitor.check_before_training(method)
    with torch.no_grad():
        method.projector[-1 if name not in ("simsiam", "mocov3") else -2].weight.zero_()
    monitor.check(method, 100, [1.0])
    found = monitor.check(method, 150, [1.0])
    assert found.kind == "complete collapse"
    assert found.cause == cause


def test_check_leaves_network_and_random_state_unchanged(images):
    method = make_method("mocov3")
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    state = torch.random.get_rng_state()
    monitor = monitor_of(images, batch_size=2)
    monitor.check_before_training(method)
    for step in (100, 150):
        monitor.check(method, step, [1.0])
    assert method.training
    assert all(parameter.grad is None for parameter in method.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in method.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())


def test_monitor_resumes_from_saved_state(images, warm):
    method, first, second = with_projections(warm, KINDS["complete collapse"]), monitor_of(images), monitor_of(images)
    first.check_before_training(method)
    first.check(method, 100, [1.0])
    first.check(method, 120, [3.0])
    second.restore(first.state())
    assert first.check(method, 150, [5.0]) == second.check(method, 150, [5.0])
    assert first.state() == second.state()
    assert first.history[-1].loss == 4.0


def test_history_is_thinned_beyond_its_maximum(images, warm):
    monitor = monitor_of(images)
    monitor.check_before_training(warm)
    monitor.check(warm, 50, [1.0])
    monitor.history *= MAX_HISTORY
    monitor.check(warm, 100, [1.0])
    assert len(monitor.history) == MAX_HISTORY // 2 + 1
