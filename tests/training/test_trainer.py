import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fewlabels.training import trainer as module
from fewlabels.training.callbacks import Observer
from fewlabels.training.trainer import Loop, LoopSettings, Objective


class Distance(Objective):
    """To a number that it counts up itself: what it remembers decides the loss."""

    images_a_step = 1
    count: torch.Tensor

    def __init__(self, stops_at: int = -1) -> None:
        super().__init__()
        self.stops_at = stops_at
        self.register_buffer("count", torch.tensor(0.0))

    def forward(self, student, teacher, step):
        if step == self.stops_at:
            os.kill(os.getpid(), signal.SIGINT)
        self.count += 1
        assert student.training
        assert not teacher.training
        return (student(torch.ones(4, 2)) - self.count).square().mean() + torch.rand(()) * student[0].weight.sum()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 1))


def loop(stops_at: int = -1, **settings) -> Loop:
    return Loop(network(), Distance(stops_at), LoopSettings(**settings), steps=12, seed=3)


def same(a: nn.Module, b: nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


def test_stopped_and_started_again_gives_the_same_network(tmp_path: Path):
    whole = loop().run(Observer("whole"))
    assert not whole.training
    with pytest.raises(KeyboardInterrupt):
        loop(stops_at=6).run(Observer("parts"), tmp_path / "run")
    assert (tmp_path / "run" / "step-7").is_dir()
    watched = Observer("parts")
    assert same(whole, loop().run(watched, tmp_path / "run"))
    assert len(watched.curve.values) == 12


def test_the_result_is_the_running_average():
    run = loop(ema=0.5)
    seen = []
    for step in range(3):
        run.step(step)
        seen.append(run.network[0].weight.detach().clone())
    # The first is taken as it is; then the new share is 1 - 2/11 and 1/2 at least.
    expected = seen[0]
    for number, weight in enumerate(seen[1:], start=1):
        kept = min(0.5, (1 + number) / (10 + number))
        expected = kept * expected + (1 - kept) * weight
    torch.testing.assert_close(run.average.module[0].weight, expected)


def test_timing_teaches_nothing():
    run = loop()
    assert run.seconds_a_step() > 0
    assert same(run.network, network())
    assert run.objective.count == 0
    assert same(run.run(Observer("timed")), loop().run(Observer("not timed")))


def test_what_is_told_stands_on_the_bar():
    class Telling(Distance):
        def told(self) -> str:
            return f"at {int(self.count)}"

    told = []

    class Watching(Observer):
        def step(self, step, loss, told_now=""):
            told.append(told_now)
            super().step(step, loss, told_now)

    Loop(network(), Telling(), LoopSettings(), 3, 0).run(Watching("test"))
    assert told == ["at 1", "at 2", "at 3"]


@pytest.mark.parametrize(("times", "steps"), [(1.0, 40), (1.25, 32), (100.0, 20), (0.5, 80), (0.01, 100)])
def test_steps_are_planned_anew_by_what_they_take(monkeypatch, times, steps):
    """Forty were planned for forty seconds; each takes so many times one."""
    now = [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0], monotonic=lambda: now[0]))

    class Taking(Distance):
        def forward(self, student, teacher, step):
            now[0] += times
            return super().forward(student, teacher, step)

    run = Loop(network(), Taking(), LoopSettings(), 100, 0)
    run.steps, run.until = 40, 40.0
    run.run(Observer("test"))
    assert (run.steps, int(run.objective.count)) == (steps, steps)


def test_a_killed_training_goes_on_with_the_steps_that_were_last_planned(tmp_path: Path):
    run = loop()
    run.steps = 7
    for step in range(5):
        run.step(step)
    run._save(tmp_path, 5, Observer("killed"))
    again = loop()
    assert again.steps != 7
    again.run(Observer("again"), tmp_path)
    assert (again.steps, int(again.objective.count)) == (7, 7)
