"""Fixtures of a small comparison: real images, and time limits in which networks train for a few steps."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fewlabels._internal.files import write_json
from fewlabels.augment.recipes import RECIPES, fit_views
from fewlabels.compare import cells
from fewlabels.compare.cells import Experiment
from fewlabels.compare.plan import CompareSettings
from fewlabels.fit.schedule import CostModel
from fewlabels.training.callbacks import Observer
from fewlabels.training.run_folder import execution_file
from fewlabels.training.tuning import StepExecution

SETTINGS = CompareSettings(labels=(30,), pairs=2, budget=600.0, methods=("simclr",))


@pytest.fixture
def experiment(fmnist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Experiment]:
    """A comparison of 256 training images on a machine so slow that trainings have few steps, with one thread each."""
    replace_measurements(monkeypatch)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    train, test = fmnist.train.first_k(256), fmnist.test.first_k(80)
    yield Experiment(SETTINGS, train, test, RECIPES["gray-small"], fit_views(1), tmp_path / "compare", Observer)
    torch.set_num_threads(before)


def with_one_pair(experiment: Experiment) -> Experiment:
    """The experiment with one pair, whose trainings have the same time limits."""
    settings = replace(experiment.settings, pairs=1, budget=experiment.settings.budget / experiment.settings.pairs)
    return replace(experiment, settings=settings)


def replace_measurements(monkeypatch: pytest.MonkeyPatch, epochs: int = 1) -> None:
    """Replace the functions that measure this machine. The experiment itself writes their results to its folder.

    Args:
        monkeypatch: pytest's fixture.
        epochs: of each pretraining.
    """

    class TimedPretraining:
        """Stands in for a pretraining that is run to measure its speed."""

        def __init__(self, source: Any, views: Any, settings: Any, folder: Path, *others: Any) -> None:
            self.folder = folder

        def epochs_in(self, seconds: float) -> int:
            write_json(execution_file(self.folder), asdict(StepExecution(1)))
            return epochs

    monkeypatch.setattr(cells, "Pretraining", TimedPretraining)
    monkeypatch.setattr(cells, "measured_costs", lambda *args: slow_costs())


def slow_costs() -> CostModel:
    """Costs by which fine-tuning has two steps, and self-training and distillation have too little time."""
    limit = SETTINGS.seconds("finetune")
    return CostModel(
        clock=True,
        supervised_step=limit / 2.1,
        self_training_step=limit,
        student_image=limit,
        step=limit,
        predict_image=0.0,
        teacher_predict_image=0.0,
        feature_image=0.0,
        kernel_value=0.0,
        neighbour_value=0.0,
        smoothed_image=0.0,
    )
