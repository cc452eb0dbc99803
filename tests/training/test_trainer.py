import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fewlabels.training import trainer as module
from fewlabels.training.callbacks import Observer
from fewlabels.training.objectives import Objective
from fewlabels.training.trainer import NetworkTrainer, OptimizerConfig, running_average

STEPS = 12


class Distance(Objective):
    """To a number that it counts up itself: what it remembers decides the loss."""

    images_per_step = 1
    count: torch.Tensor

    def __init__(self, stops_at: int = -1) -> None:
        super().__init__()
        self.stops_at = stops_at
        self.register_buffer("count", torch.tensor(0.0))

    def forward(self, network, average, step):
        if step == self.stops_at:
            os.kill(os.getpid(), signal.SIGINT)
        self.count += 1
        assert network.training
        assert not average.training
        return (network(torch.ones(4, 2)) - self.count).square().mean() + torch.rand(()) * network[0].weight.sum()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 1))


def trainer(
    folder: Path | None = None, objective: Objective | None = None, steps: int = STEPS, observer=None, **options
) -> NetworkTrainer:
    config = OptimizerConfig(**{name: options.pop(name) for name in list(options) if name in ("ema", "lr", "muon_lr")})
    observer = observer or Observer("test")
    return NetworkTrainer(network(), objective or Distance(), config, steps, 3, observer, folder, **options)


def same(a: nn.Module, b: nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("muon_lr", [0.0, 0.02])
def test_stopped_training_resumes_bit_for_bit(muon_lr, tmp_path: Path):
    whole = trainer(muon_lr=muon_lr).run()
    assert not whole.training
    with pytest.raises(KeyboardInterrupt, match="step 7 of 12"):
        trainer(tmp_path / "run", Distance(stops_at=6), muon_lr=muon_lr).run()
    assert (tmp_path / "run" / "step-7").is_dir()
    observer = Observer("parts")
    assert same(whole, trainer(tmp_path / "run", observer=observer, muon_lr=muon_lr).run())
    assert len(observer.curve.values) == STEPS


def test_result_is_the_running_average():
    run = trainer(ema=0.5)
    weights = []
    for step in range(3):
        run.update(step)
        weights.append(run.network[0].weight.detach().clone())
    # The first is copied; then the average keeps 2/11, 3/12, ... and 1/2 at most.
    expected = weights[0]
    for number, weight in enumerate(weights[1:], start=1):
        decay = min(0.5, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(run.average.module[0].weight, expected)


def test_running_average_copies_integer_buffers():
    original = nn.BatchNorm1d(2)
    average = running_average(original, 0.9)
    original(torch.randn(4, 2))
    average.update_parameters(original)
    assert average.module.num_batches_tracked == 1


def test_seconds_per_step_leaves_the_training_unchanged():
    run = trainer()
    assert run.seconds_per_step() > 0
    assert same(run.network, network())
    assert run.objective.count == 0
    assert same(run.run(), trainer().run())


def test_status_of_the_objective_reaches_the_observer():
    class Counting(Distance):
        def status(self) -> str:
            return f"at {int(self.count)}"

    shown = []

    class Watching(Observer):
        def step(self, step, loss, status=""):
            shown.append(status)
            super().step(step, loss, status)

    trainer(objective=Counting(), steps=3, observer=Watching("test")).run()
    assert shown == ["at 1", "at 2", "at 3"]


@pytest.mark.parametrize(("seconds_per_step", "steps"), [(1.0, 40), (1.25, 32), (2.0, 20), (0.5, 80), (0.01, 100)])
def test_steps_follow_the_clock_where_there_is_a_time(monkeypatch, seconds_per_step, steps):
    """Forty were planned for forty seconds, and a hundred are allowed."""
    now = [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0], monotonic=lambda: now[0]))

    class Taking(Distance):
        def forward(self, network, average, step):
            now[0] += seconds_per_step
            return super().forward(network, average, step)

    run = trainer(objective=Taking(), steps=40, seconds=40.0, max_steps=100)
    run.run()
    assert (run.total_steps, int(run.objective.count)) == (steps, steps)


def test_killed_training_resumes_with_the_steps_that_were_planned_last(tmp_path: Path):
    run = trainer(tmp_path)
    run.total_steps = 7
    for step in range(5):
        run.update(step)
    run.save(5)
    again = trainer(tmp_path)
    assert again.total_steps != 7
    again.run()
    assert (again.total_steps, int(again.objective.count)) == (7, 7)


def test_without_a_folder_no_checkpoint_is_written(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer().run()
    assert list(tmp_path.iterdir()) == []
