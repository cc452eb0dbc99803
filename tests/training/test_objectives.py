import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch.nn import functional as F

from fewlabels.augment.cutmix import cutmix
from fewlabels.backbones.classifier import Classifier
from fewlabels.data.source import ArraySource
from fewlabels.training.objectives import (
    DistillationLoss,
    LabelLoss,
    LabelLossConfig,
    SelfTrainingLoss,
    SelfTrainingLossConfig,
)

NAMES = ("a", "b", "c")
THIRDS = np.full(3, 1 / 3)


def plain(images, key, first_row=0):
    return images.float() / 255


def brighter(images, key, first_row=0):
    return plain(images, key) * 0.5 + 0.5


@pytest.fixture
def source(fmnist) -> ArraySource:
    return ArraySource(fmnist.train.images[:40], np.arange(40) % 3, NAMES)


@pytest.fixture
def networks():
    network, average = (Classifier("article", NAMES, seed=seed) for seed in (0, 1))
    return network.eval(), average.eval()  # in evaluation mode an image's output does not depend on the others


def label_loss(source, rows=range(12), weak=plain, strong=plain, batch_size=6, smoothing=0.1) -> LabelLoss:
    rows = np.array(rows)
    return LabelLoss(source, rows, source.labels[rows], weak, strong, LabelLossConfig(batch_size, smoothing), seed=0)


def test_label_loss_by_hand(source, networks):
    loss = label_loss(source, smoothing=0.3)
    images, labels = loss.batch(5)
    assert sorted(labels.tolist()) == [0, 0, 1, 1, 2, 2]
    logs = networks[0](images).log_softmax(dim=1)
    smooth = 0.7 * F.one_hot(labels, 3) + 0.3 / 3
    torch.testing.assert_close(loss(*networks, 5), -(smooth * logs).sum(dim=1).mean())


def test_label_loss_batch_has_half_weak_and_half_strong_views(source):
    images, _ = label_loss(source, strong=brighter).batch(0)
    assert images[:3].amin() == 0  # the background stays black
    assert images[3:].amin() == 0.5


def test_label_loss_gives_every_class_weak_and_strong_views(fmnist):
    """64 classes and batches of 64: each class has one image in every batch."""
    source = ArraySource(fmnist.train.images[:64], np.arange(64), [str(cls) for cls in range(64)])
    loss = label_loss(source, range(64), strong=brighter, batch_size=64)
    strong = np.zeros(64, int)
    for step in range(40):
        images, labels = loss.batch(step)
        strong[labels[32:]] += 1
        assert images[32:].min() >= 0.5
    assert 8 < strong.min() <= strong.max() < 32


def self_training(source, prior=THIRDS, held_out=(), log_prior=None, strong=plain, smoothing=0.1, **options):
    labelled = label_loss(source, strong=strong, smoothing=smoothing)
    config, rows = SelfTrainingLossConfig(**options), np.arange(40)
    return SelfTrainingLoss(labelled, rows, np.array(held_out, np.int64), prior, config, log_prior)


def test_self_training_loss_by_hand(source, networks):
    network, average = networks
    prior = np.array([0.2, 0.3, 0.5])
    loss = self_training(
        source, prior, strong=brighter, smoothing=0.0, batch_size=20, unlabelled_weight=0.7, ema=0.0, n_sigma=2
    )
    value = loss(network, average, 3)
    rows = torch.from_numpy(loss._rows.at(3))
    others = source.read(rows)
    probabilities = softmax(average(plain(others, ())).detach().double().numpy(), axis=1)
    # Without averaging over steps, all statistics are those of this batch.
    aligned = probabilities * prior / probabilities.mean(axis=0)
    aligned /= aligned.sum(axis=1, keepdims=True)
    confidence = aligned.max(axis=1)
    gap = np.minimum(confidence - confidence.mean(), 0)
    weights = np.exp(-(gap**2) / (2 * confidence.var(ddof=1) / 4))
    assert weights.min() < 0.9 < weights.max() == 1
    mixed, partners, own_fraction = cutmix(brighter(others, ()), (0, "unlabelled", 3, "mixed"))
    logs = network(mixed).log_softmax(dim=1).detach().double().numpy()
    own = weights * -(aligned * logs).sum(axis=1)
    partner = weights[partners] * -(aligned[partners] * logs).sum(axis=1)
    by_hand = (own_fraction.numpy() * own + (1 - own_fraction.numpy()) * partner).mean()
    torch.testing.assert_close(value.item(), loss.labelled(*networks, 3).item() + 0.7 * by_hand, rtol=1e-5, atol=1e-5)
    fractions = np.bincount(aligned.argmax(axis=1), minlength=3) / 20
    np.testing.assert_allclose(loss.class_fractions, fractions, rtol=1e-6)
    assert loss.status().startswith(f"coverage {weights.mean():.0%}, classes ")


def test_log_prior_is_added_to_the_average_networks_logits(source, networks):
    """Where the average network's logits are 0, the targets are the prior probabilities of each image."""
    network, average = networks
    torch.nn.init.zeros_(average.head.weight)
    torch.nn.init.zeros_(average.head.bias)
    log_prior = np.log(np.random.default_rng(0).dirichlet(np.ones(3), 40))
    loss = self_training(source, log_prior=log_prior, batch_size=20, unlabelled_weight=1.0, ema=1 - 1e-12, n_sigma=1e-3)
    value = loss(network, average, 1)
    rows = loss._rows.at(1)
    mixed, partners, own_fraction = cutmix(
        plain(source.read(torch.from_numpy(rows)), ()), (0, "unlabelled", 1, "mixed")
    )
    logs, targets = (
        network(mixed).log_softmax(dim=1).detach().numpy(),
        np.exp(np.maximum(log_prior[rows], np.log(1e-4))),
    )
    targets = own_fraction[:, None].numpy() * targets + (1 - own_fraction[:, None].numpy()) * targets[partners]
    by_hand = -(targets * logs).sum(axis=1).mean()
    assert value.item() - loss.labelled(*networks, 1).item() == pytest.approx(by_hand, rel=1e-3)


def test_no_gradient_flows_through_the_average_network(source, networks):
    network, average = networks
    self_training(source, batch_size=8)(network, average, 0).backward()
    assert all(weight.grad is None for weight in average.parameters())
    assert all(weight.grad is not None for weight in network.parameters())


def test_alignment_moves_mean_target_to_the_prior(source):
    prior = np.array([0.1, 0.3, 0.6])
    loss = self_training(source, prior, ema=0.9)
    generator = torch.Generator().manual_seed(0)
    means = [loss.targets(torch.randn(400, 3, generator=generator) * 0.3)[0].mean(dim=0) for _ in range(100)]
    torch.testing.assert_close(means[-1], torch.tensor(prior).float(), atol=0.03, rtol=0)


def test_late_drop_of_held_out_accuracy_is_reported(source, networks):
    """The average network first predicts all held-out labels correctly, then none."""
    network, _ = networks
    loss = self_training(source, held_out=range(12, 18), batch_size=8, eval_interval=1)
    truth = F.one_hot(torch.from_numpy(source.labels[12:18]), 3).float()
    shift = 0

    def average(images):
        return truth.roll(shift, dims=1) if len(images) == 6 else torch.zeros(len(images), 3)

    loss(network, average, 0)
    assert loss.warning() == ""
    assert loss.status().endswith("held-out accuracy 100.0%")
    shift = 1
    loss(network, average, 1)
    assert loss.warning().startswith("held-out accuracy fell from 100.0% to 0.0% during training")


def test_low_coverage_is_reported(source):
    loss = self_training(source, batch_size=8)
    loss.coverage.fill_(0.05)
    assert loss.warning() == "only 5% of the unlabelled images were predicted with enough confidence"
    assert "accuracy" not in loss.status()


def test_distillation_loss_by_hand(source, networks):
    network, _ = networks
    rows = np.arange(12, 40)
    targets = np.random.default_rng(0).dirichlet(np.ones(3), len(rows))
    loss = DistillationLoss(source, brighter, rows, targets, batch_size=10, seed=0)
    value = loss(*networks, 2)
    positions = loss._positions.at(2)
    logs = network(brighter(source.read(rows[positions]), ())).log_softmax(dim=1).detach().numpy()
    by_hand = -(targets[positions] * logs).sum(axis=1).mean()
    torch.testing.assert_close(value.item(), by_hand, rtol=1e-5, atol=1e-5)
