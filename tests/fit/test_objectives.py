import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch.nn import functional as F

from fewlabels.augment.cutmix import cutmix
from fewlabels.backbones.classifier import Classifier
from fewlabels.data.source import ArraySource
from fewlabels.fit.objectives import Distillation, Labels, LabelSettings, SelfTraining, SelfTrainingSettings
from fewlabels.fit.pool import Pool

NAMES = ("a", "b", "c")


def plain(images, key, first_row=0):
    return images.float() / 255


def brighter(images, key, first_row=0):
    return plain(images, key) * 0.5 + 0.5


@pytest.fixture
def pool(fmnist) -> Pool:
    labels = np.full(40, -1)
    labels[:12] = np.arange(12) % 3
    return Pool.of(ArraySource(fmnist.train.images[:40], labels, NAMES))


@pytest.fixture
def networks():
    student, teacher = (Classifier("article", NAMES, seed=seed) for seed in (0, 1))
    return student.eval(), teacher.eval()  # in evaluation mode an image's output does not depend on the others


def test_labels_by_hand(pool, networks):
    objective = Labels(pool, plain, plain, LabelSettings(6, smoothing=0.3), seed=0)
    images, labels = objective.batch(5)
    assert sorted(labels.tolist()) == [0, 0, 1, 1, 2, 2]
    logits = networks[0](images).log_softmax(dim=1)
    smooth = 0.7 * F.one_hot(labels, 3) + 0.3 / 3
    by_hand = -(smooth * logits).sum(dim=1).mean()
    torch.testing.assert_close(objective(*networks, 5), by_hand)


def test_no_number_of_classes_has_some_always_weak(fmnist):
    """64 classes and batches of 64: each class has one place in every batch."""
    names = [str(cls) for cls in range(64)]
    pool = Pool.of(ArraySource(fmnist.train.images[:64], np.arange(64), names))
    objective = Labels(pool, plain, brighter, LabelSettings(), seed=0)
    strong = np.zeros(64, int)
    for step in range(40):
        images, labels = objective.batch(step)
        strong[labels[32:]] += 1
        assert images[32:].min() >= 0.5
    assert 8 < strong.min() <= strong.max() < 32


def test_each_class_as_often_as_it_has_labels_if_not_balanced(fmnist):
    labels = np.array([0] * 9 + [1] * 3)
    pool = Pool.of(ArraySource(fmnist.train.images[:12], labels, NAMES))
    objective = Labels(pool, plain, plain, LabelSettings(12, balanced=False), seed=0)
    assert objective.batch(0)[1].sum() == 3


def test_self_training_by_hand(pool, networks):
    student, teacher = networks
    labels = Labels(pool, plain, brighter, LabelSettings(6, smoothing=0.0), seed=0)
    prior = np.array([0.2, 0.3, 0.5])
    settings = SelfTrainingSettings(batch_size=20, weight=0.7, memory=0.0, sigmas=2)
    objective = SelfTraining(labels, prior, settings)
    loss = objective(student, teacher, 3)
    rows = torch.from_numpy(objective._rows.at(3))
    others = pool.source.read(rows)
    probabilities = softmax(teacher(plain(others, ())).detach().double().numpy(), axis=1)
    # With no memory, all running figures are those of this batch.
    aligned = probabilities * prior / probabilities.mean(axis=0)
    aligned /= aligned.sum(axis=1, keepdims=True)
    confidence = aligned.max(axis=1)
    gap = np.minimum(confidence - confidence.mean(), 0)
    weights = np.exp(-(gap**2) / (2 * confidence.var(ddof=1) / 4))
    assert weights.min() < 0.9 < weights.max() == 1
    mixed, partners, kept = cutmix(brighter(others, ()), (0, "unlabelled", 3, "mixed"))
    logs = student(mixed).log_softmax(dim=1).detach().double().numpy()
    of_own = weights * -(aligned * logs).sum(axis=1)
    of_partner = weights[partners] * -(aligned[partners] * logs).sum(axis=1)
    by_hand = (kept.numpy() * of_own + (1 - kept.numpy()) * of_partner).mean()
    torch.testing.assert_close(loss.item(), labels(*networks, 3).item() + 0.7 * by_hand, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(objective.named, np.bincount(aligned.argmax(axis=1), minlength=3) / 20, rtol=1e-6)
    assert objective.told().startswith(f"covers {weights.mean():.0%}, classes ")


def test_half_of_a_batch_is_weak_and_half_strong(pool):
    objective = Labels(pool, plain, brighter, LabelSettings(6), seed=0)
    images, _ = objective.batch(0)
    assert images[:3].amin() == 0  # the background stays black
    assert images[3:].amin() == 0.5


def test_hints_are_added_to_the_teachers_logits(pool, networks):
    """Where the teacher knows nothing, the targets are the hints."""
    student, teacher = networks
    torch.nn.init.zeros_(teacher.head.weight)
    torch.nn.init.zeros_(teacher.head.bias)
    hints = np.log(np.random.default_rng(0).dirichlet(np.ones(3), 40))
    settings = SelfTrainingSettings(batch_size=20, weight=1.0, align=False, memory=0.0, sigmas=1e-3)
    objective = SelfTraining(Labels(pool, plain, plain, LabelSettings(6), seed=0), np.full(3, 1 / 3), settings, hints)
    loss = objective(student, teacher, 1)
    rows = objective._rows.at(1)
    mixed, partners, kept = cutmix(plain(pool.source.read(torch.from_numpy(rows)), ()), (0, "unlabelled", 1, "mixed"))
    logs, told = student(mixed).log_softmax(dim=1).detach().numpy(), np.exp(np.maximum(hints[rows], np.log(1e-4)))
    told = kept[:, None].numpy() * told + (1 - kept[:, None].numpy()) * told[partners]
    by_hand = -(told * logs).sum(axis=1).mean()
    assert loss.item() - objective.labels(*networks, 1).item() == pytest.approx(by_hand, rel=1e-3)


def test_the_teachers_predictions_teach_the_teacher_nothing(pool, networks):
    student, teacher = networks
    labels = Labels(pool, plain, plain, LabelSettings(6), seed=0)
    SelfTraining(labels, np.full(3, 1 / 3), SelfTrainingSettings(8))(student, teacher, 0).backward()
    assert all(weight.grad is None for weight in teacher.parameters())
    assert all(weight.grad is not None for weight in student.parameters())


def test_alignment_draws_the_shares_to_the_prior(pool):
    prior = np.array([0.1, 0.3, 0.6])
    settings = SelfTrainingSettings(memory=0.9)
    objective = SelfTraining(Labels(pool, plain, plain, LabelSettings(6), 0), prior, settings)
    generator = torch.Generator().manual_seed(0)
    shares = [objective.targets(torch.randn(400, 3, generator=generator) * 0.3)[0].mean(dim=0) for _ in range(100)][-1]
    torch.testing.assert_close(shares, torch.tensor(prior).float(), atol=0.03, rtol=0)


def test_distillation_by_hand(pool, networks):
    student, _ = networks
    rows = pool.unlabelled
    targets = np.random.default_rng(0).dirichlet(np.ones(3), len(rows))
    objective = Distillation(pool.source, brighter, rows, targets, batch_size=10, seed=0)
    loss = objective(*networks, 2)
    places = objective._places.at(2)
    logs = student(brighter(pool.source.read(rows[places]), ())).log_softmax(dim=1).detach().numpy()
    by_hand = -(targets[places] * logs).sum(axis=1).mean()
    torch.testing.assert_close(loss.item(), by_hand, rtol=1e-5, atol=1e-5)


def test_a_late_drop_is_told(pool):
    """A teacher that was right of all labels held out, and then of none."""
    held = pool.without(np.arange(6))
    labels = Labels(held, plain, plain, LabelSettings(6), 0)
    objective = SelfTraining(labels, np.full(3, 1 / 3), SelfTrainingSettings(8))
    truth = F.one_hot(torch.from_numpy(held.source.labels[held.held]), 3).float()

    def teacher(images):
        assert len(images) == 6
        return truth

    objective._look(teacher)
    assert objective.warning() == ""
    assert objective.told().endswith(", 100.0% right")
    truth = truth.roll(1, dims=1)
    objective._look(teacher)
    assert objective.warning().startswith("0.0% of the labels held out are right at the end, 100.0% were before")


def test_few_images_that_teach_are_told(pool):
    labels = Labels(pool, plain, plain, LabelSettings(6), 0)
    objective = SelfTraining(labels, np.full(3, 1 / 3), SelfTrainingSettings(8))
    objective.coverage.fill_(0.05)
    assert objective.warning() == "only 5% of the images without a label were sure enough to learn from"
    assert "right" not in objective.told()
