"""The small comparison on a Ray cluster of two workers, some of which are killed."""

import io
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from torch import Tensor

from fewlabels._internal.errors import InputError
from fewlabels._internal.tensors import read_weights
from fewlabels.compare.cells import Experiment
from fewlabels.compare.plan import Candidate, Trial
from fewlabels.compare.run import compare
from fewlabels.training.callbacks import Observer
from fewlabels.training.pairs import Views
from tests.compare.conftest import replace_measurements, with_one_pair

ray = pytest.importorskip("ray", reason="pip install 'fewlabels[ray]'")
from fewlabels.compare import on_ray  # noqa: E402
from fewlabels.compare.on_ray import run_on_ray  # noqa: E402

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray cluster with two workers."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    config = {"worker_niceness": 0}  # workers with a lower priority than other tests would be too slow
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, _system_config=config)
    yield
    ray.shutdown()


@dataclass(frozen=True)
class FailingViews:
    """Views that fail in the first worker process that calls them. Their name is that of the wrapped views."""

    views: Views
    folder: Path
    signal: int | None
    """Signal that the process receives; None: the views raise an InputError instead."""
    test_process: int = field(default_factory=os.getpid)
    """Process in which the views do not fail."""

    def __call__(self, images: Tensor, key: tuple[int | str, ...], first_row: int = 0) -> Tensor:
        failed = self.folder / "failed"
        if os.getpid() != self.test_process and not failed.is_file():
            failed.touch()
            if self.signal is None:
                raise InputError("views: cannot be computed.")
            os.kill(os.getpid(), self.signal)
        return self.views(images, key, first_row)

    def __str__(self) -> str:
        return str(self.views)


def with_console(experiment: Experiment) -> tuple[Experiment, io.StringIO]:
    """The same experiment, and the text that it prints."""
    screen = io.StringIO()
    return replace(experiment, observer=lambda name: Observer(name, console=Console(file=screen, width=200))), screen


def saved_results(folder: Path) -> dict[str, Any]:
    """Predictions, weights and other results of trials and pretrainings in a folder, by path."""
    results: dict[str, Any] = {
        str(file.relative_to(folder)): np.load(file).tolist() for file in folder.glob("trials/*.npy")
    }
    for file in [*folder.glob("trials/*.safetensors"), *folder.glob("pretrained/*/backbone.safetensors")]:
        weights, metadata = read_weights(file)
        results[str(file.relative_to(folder))] = [metadata, {name: each.tolist() for name, each in weights.items()}]
    return results


def without_durations(result: dict[str, Any]) -> dict[str, Any]:
    """A result without the seconds of its pretrainings."""
    return {**result, "pretrainings": [{**row, "seconds": None} for row in result["pretrainings"]]}


def test_run_on_ray_refuses_a_cluster_that_does_not_respond(experiment, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(InputError, match=r"RAY_ADDRESS 127.0.0.1:1: no Ray cluster answers"):
        run_on_ray(experiment, [Trial(Candidate("pixels"), 30, 0)])


def test_compare_on_ray_with_a_killed_worker_equals_compare_on_one_machine(experiment, cluster, tmp_path, monkeypatch):
    local = with_one_pair(experiment)
    remote, screen = with_console(replace(local, folder=tmp_path / "ray"))
    remote = replace(remote, pretrain_views=FailingViews(local.pretrain_views, tmp_path, signal.SIGKILL))
    result = compare(remote, run_on_ray)
    assert (tmp_path / "failed").is_file()
    lines = screen.getvalue().splitlines()
    assert "Ray: 2 at a time" in lines
    expected = sorted(trial.describe(1) for trial in local.settings.trials())
    assert sorted(line.partition(": ")[2] for line in lines if " of 6: " in line) == expected
    assert without_durations(result) == without_durations(compare(local))
    assert saved_results(remote.folder) == saved_results(local.folder)
    # Six trials, one pretraining, the displayed classifier and the near-duplicates.
    assert len(saved_results(local.folder)) == 6 + 1 + 1 + 1

    def fail(*args):
        raise AssertionError("a finished trial is submitted again")

    monkeypatch.setattr(ray, "put", fail)
    assert compare(remote, run_on_ray) == result


def test_run_on_ray_retries_the_task_of_a_worker_that_receives_sigterm(experiment, cluster, tmp_path, monkeypatch):
    trials = [Trial(Candidate("supervised"), 30, 0), Trial(Candidate("probe", "simclr"), 30, 0)]
    replace_measurements(monkeypatch, epochs=3)
    views = FailingViews(experiment.pretrain_views, tmp_path, signal.SIGTERM)
    remote = replace(experiment, folder=tmp_path / "ray", pretrain_views=views)
    predictions = run_on_ray(remote, trials)
    assert (tmp_path / "failed").is_file()
    for trial in trials:
        assert np.array_equal(predictions[trial], experiment.predictions(trial))
    assert saved_results(remote.folder) == saved_results(experiment.folder)


def test_run_on_ray_refuses_workers_with_another_source(experiment, cluster, monkeypatch):
    monkeypatch.setitem(on_ray.SOFTWARE, "the source of fewlabels", "another")
    with pytest.raises(InputError, match=r"worker .*: the source of fewlabels \w+, not another\. Install the same"):
        run_on_ray(experiment, [Trial(Candidate("pixels"), 30, 0)])


@pytest.mark.parametrize(
    ("signal_number", "message"),
    [
        (None, "^views: cannot be computed.$"),
        (signal.SIGKILL, "its worker died 1 times .* Finished trials are saved"),
    ],
)
def test_run_on_ray_raises_one_line_if_every_retry_fails(
    signal_number, message, experiment, cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr(on_ray, "MAX_RETRIES", 0)
    failing = replace(experiment, pretrain_views=FailingViews(experiment.pretrain_views, tmp_path, signal_number))
    with pytest.raises(InputError, match=message):
        run_on_ray(failing, [Trial(Candidate("probe", "simclr"), 30, 0)])
