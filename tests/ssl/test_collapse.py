"""The guard: each fault is planted, and must be found and named; and looking changes nothing."""

import math

import pytest
import torch
from torch import nn

from benchmarks.collapse import leak, no_momentum, no_predictor
from fewlabels.augment.recipes import RECIPES, Recipe
from fewlabels.ssl.collapse import KEPT_READINGS, Guard
from fewlabels.ssl.pretrain import PretrainSettings, build_method


@pytest.fixture(scope="module")
def images(fmnist) -> torch.Tensor:
    return fmnist.train.read(slice(128))


def guard_of(images, recipe=RECIPES["gray-small"], batch_size=256) -> Guard:
    return Guard(images, lambda x, view: recipe(x, (0, "guard", view)), batch_size, lr=0.5)


def built(method: str):
    return build_method(PretrainSettings(method, 1), 1, 0).train()


@pytest.fixture(scope="module")
def warm(images):
    """SimSiam whose running statistics are those of the images."""
    method = built("simsiam")
    for norm in (module for module in method.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)):
        norm.momentum = None  # the plain mean of what it sees
    view = RECIPES["gray-small"](images, (0, "warm"))
    method(view, view)
    return method


def projecting(warm, make):
    """A copy of the network whose projections are made over."""

    class Made(nn.Module):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return make(z)

    method = built("simsiam")
    method.load_state_dict(warm.state_dict())
    method.projector.append(Made())
    return method


def test_a_healthy_start_gives_no_verdict(images, warm):
    guard = guard_of(images)
    assert guard.before(warm) is None
    assert guard.look(warm, 150, [1.0]) is None
    assert guard.look(warm, 200, [1.0]) is None
    assert guard.readings[-1].rank > 20
    assert not guard.suspected


def test_duplicate_and_nearly_constant_images(images, warm):
    found = guard_of(images[torch.arange(128) % 4]).before(warm)
    assert (found.kind, found.cause) == ("images too much alike", "images")
    assert "3% of 128 images are distinct" in found.line
    gray = (100 + torch.arange(128 * 784).reshape(128, 1, 28, 28) % 2).byte()
    assert guard_of(gray).before(warm).cause == "images"


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(brightness=0.02), Recipe(rotate=1)], ids=str)
def test_weak_views(recipe, images, warm):
    found = guard_of(images, recipe).before(warm)
    assert (found.kind, found.cause) == ("views too weak", "views")


@pytest.mark.parametrize("name", ["gray-small", "randaugment"])
def test_named_recipes_are_strong_enough(name, images, warm):
    assert guard_of(images, RECIPES[name]).before(warm) is None


def test_batches_too_small_for_batch_norm(images, warm):
    assert guard_of(images, batch_size=2).before(warm).cause == "batch"
    assert guard_of(images, batch_size=32).before(warm) is None


KINDS = {
    "complete collapse": lambda z: z * 1e-6 + 1,
    "dimensional collapse": lambda z: z[:, :2] @ z[:2, :2].T @ z[:2] + 0.01 * z,
    "divergence": lambda z: z * torch.nan,
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_collapse(kind, images, warm):
    method, guard = projecting(warm, KINDS[kind]), guard_of(images)
    assert guard.before(method) is None
    first = guard.look(method, 100, [1.0])
    found = guard.look(method, 150, [1.0])
    assert (first is None) == (kind != "divergence")  # one bad look may be noise
    assert found.kind == kind
    assert found.cause == "learning rate"
    assert "--lr 0.05" in found.line
    assert found.lost == (kind == "divergence")


def test_dead_units(images, warm):
    method, guard = projecting(warm, lambda z: z), guard_of(images)
    guard.before(method)
    with torch.no_grad():
        method.backbone[6].weight[:40] = 0  # of the last convolution's 128 filters
    guard.look(method, 100, [1.0])
    found = guard.look(method, 150, [1.0])
    assert found.kind == "dead units"
    assert "dead features 31%" in found.line


def test_weights_that_grow_at_once_and_a_loss_that_is_not_finite(images, warm):
    method, guard = projecting(warm, lambda z: z), guard_of(images)
    guard.before(method)
    with torch.no_grad():
        for weight in method.backbone.parameters():
            weight *= 5
    assert guard.look(method, 50, [1.0]).kind == "divergence"
    assert guard.look(method, 60, [1.0]) is None  # no time to look
    found = guard.look(method, 61, [math.inf])
    assert found.kind == "divergence"
    assert found.lost


def test_nothing_else_is_judged_in_the_first_steps(images, warm):
    method, guard = projecting(warm, KINDS["complete collapse"]), guard_of(images)
    guard.before(method)
    assert guard.look(method, 50, [1.0]) is None
    assert not guard.suspected


def frozen_predictor(method):
    method.predictor.requires_grad_(False)


@pytest.mark.parametrize(
    ("name", "plant", "cause"),
    [
        ("simsiam", leak, "stop-gradient"),
        ("byol", leak, "stop-gradient"),
        ("simsiam", no_predictor, "predictor"),
        ("byol", frozen_predictor, "predictor"),
        ("byol", no_momentum, "momentum"),
        ("mocov2", no_momentum, "momentum"),
        *((name, lambda method: None, "learning rate") for name in ("simsiam", "byol", "mocov3", "simclr", "vicreg")),
    ],
)
def test_the_planted_cause_is_named(name, plant, cause, images):
    method, guard = built(name), guard_of(images)
    plant(method)
    guard.before(method)
    with torch.no_grad():
        method.projector[-1 if name not in ("simsiam", "mocov3") else -2].weight.zero_()
    guard.look(method, 100, [1.0])
    found = guard.look(method, 150, [1.0])
    assert found.kind == "complete collapse"
    assert found.cause == cause


def test_looking_changes_nothing(images):
    method = built("mocov3")
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    state = torch.random.get_rng_state()
    guard = guard_of(images, batch_size=2)
    guard.before(method)
    for step in (100, 150):
        guard.look(method, step, [1.0])
    assert method.training
    assert all(parameter.grad is None for parameter in method.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in method.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_guard_goes_on_where_it_was(images, warm):
    method, first, second = projecting(warm, KINDS["complete collapse"]), guard_of(images), guard_of(images)
    first.before(method)
    first.look(method, 100, [1.0])
    first.look(method, 120, [3.0])
    second.restore(first.state())
    assert first.look(method, 150, [5.0]) == second.look(method, 150, [5.0])
    assert first.state() == second.state()
    assert first.readings[-1].loss == 4.0


def test_readings_are_thinned(images, warm):
    guard = guard_of(images)
    guard.before(warm)
    guard.look(warm, 50, [1.0])
    guard.readings *= KEPT_READINGS
    guard.look(warm, 100, [1.0])
    assert len(guard.readings) == KEPT_READINGS // 2 + 1
