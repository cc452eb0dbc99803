"""What the student is told."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fewlabels.augment.recipes import fit_views
from fewlabels.backbones.classifier import Classifier
from fewlabels.data.source import ArraySource
from fewlabels.fit.arms import Lab, Student
from fewlabels.fit.pool import Pool

LAB = Lab(SimpleNamespace(), *fit_views(1), 0, torch.device("cpu"), "32-true")


@pytest.fixture
def pool(fmnist) -> Pool:
    labels = np.full(50, -1)
    labels[[3, 7]] = 1, 0
    return Pool.of(ArraySource(fmnist.train.images[:50], labels, ("a", "b")))


def test_labels_stand_among_the_targets(pool):
    told = np.tile([0.3, 0.7], (len(pool.unlabelled), 1))
    objective = Student(LAB, "article", pool.unlabelled, told, smoothing=0.2).loop(pool, "any").objective
    targets = dict(zip(objective.rows.tolist(), objective._targets.tolist(), strict=True))
    assert len(targets) == 50
    np.testing.assert_allclose(targets[3], [0.1, 0.9], rtol=1e-6)
    np.testing.assert_allclose(targets[7], [0.9, 0.1], rtol=1e-6)
    np.testing.assert_allclose(targets[8], [0.3, 0.7], rtol=1e-6)


def test_it_goes_on_from_the_teacher_with_its_backbone(pool):
    teacher = Classifier("article", ("a", "b"), seed=5)
    told = np.tile([0.3, 0.7], (len(pool.unlabelled), 1))
    loop = Student(LAB, "article", pool.unlabelled, told, teacher).loop(pool, "any")
    for network in (loop.network, loop.average.module):
        torch.testing.assert_close(network.state_dict(), teacher.state_dict())
    assert loop.network is not teacher
