from functools import partial, partialmethod
from typing import Any

import pytest

from fewlabels.backbones.architectures import BACKBONES, SmallBackbone
from fewlabels.data.source import fingerprint
from fewlabels.features.extractor import Features
from fewlabels.fit import arms
from fewlabels.fit.objectives import SelfTrainingSettings
from tests.fit.small_fits import STEPS

MADE: dict[str, Any] = {}
"""Features by the fingerprint of the images: many fits here are of the same few."""
make = Features._fitted.func


def made_once(features: Features) -> Any:
    if features._embed is not None:
        return make(features)
    images = fingerprint(features._source)
    if images not in MADE:
        MADE[images] = make(features)
    return MADE[images]


@pytest.fixture
def narrow(monkeypatch):
    """Small batches, and a narrow teacher."""
    monkeypatch.setattr(Features, "_fitted", property(made_once))
    monkeypatch.setitem(BACKBONES, "small", partial(SmallBackbone, widths=(12, 24, 32)))
    few = SelfTrainingSettings(batch_size=64)
    monkeypatch.setattr(arms.SelfTrain, "__init__", partialmethod(arms.SelfTrain.__init__, others=few))
    monkeypatch.setattr(arms.Student, "__init__", partialmethod(arms.Student.__init__, batch_size=64))


@pytest.fixture
def short(narrow, monkeypatch):
    """Trainings of a few steps, however fast the machine is: no time passes."""
    monkeypatch.setattr("time.perf_counter", lambda: 0.0)
    monkeypatch.setattr("time.monotonic", lambda: 0.0)
    monkeypatch.setattr("fewlabels.fit.plan.features_paces", lambda source: {"features": 0.0, "kernel": 0.0})
    monkeypatch.setattr("fewlabels.fit.stages.Stages._steps", lambda self, arm, *args: STEPS[arm])
    monkeypatch.setattr(arms.SelfTrain, "fewest", 1)
    monkeypatch.setattr(arms.Student, "fewest", 1)


@pytest.fixture
def shortest(short, monkeypatch):
    """Of very few steps, where nothing has to be learned."""
    for arm in STEPS:
        monkeypatch.setitem(STEPS, arm, 2)
