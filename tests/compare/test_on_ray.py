"""The miniature comparison on a Ray cluster of two workers, some of which are killed."""

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
from fewlabels.compare.cells import Bench
from fewlabels.compare.plan import Arm, Cell
from fewlabels.compare.run import compare
from fewlabels.fit.arms import SelfTrain
from fewlabels.training.callbacks import Observer
from fewlabels.training.pairs import Views
from tests.compare.conftest import of_one_pair, slow

ray = pytest.importorskip("ray", reason="pip install 'fewlabels[ray]'")
from fewlabels.compare import on_ray  # noqa: E402
from fewlabels.compare.on_ray import over_ray  # noqa: E402

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two workers."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    eager = {"worker_niceness": 0}  # beside other tests they would starve
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, _system_config=eager)
    yield
    ray.shutdown()


@dataclass(frozen=True)
class Fatal:
    """Views during which the process ends that first makes them, unless it is the test's; named as the views are."""

    views: Views
    folder: Path
    end: int | None
    """A signal; None: an error of the user's."""
    spared: int = field(default_factory=os.getpid)

    def __call__(self, images: Tensor, key: tuple[int | str, ...], first_row: int = 0) -> Tensor:
        tried = self.folder / "tried"
        if os.getpid() != self.spared and not tried.is_file():
            tried.touch()
            if self.end is None:
                raise InputError("views: not today.")
            os.kill(os.getpid(), self.end)
        return self.views(images, key, first_row)

    def __str__(self) -> str:
        return str(self.views)


def said_by(bench: Bench) -> tuple[Bench, io.StringIO]:
    """The same bench, and what it says."""
    screen = io.StringIO()
    return replace(bench, observer=lambda name: Observer(name, console=Console(file=screen, width=200))), screen


def kept(folder: Path) -> dict[str, list[Any]]:
    """What there is of cells and pretrainings, by path."""
    found: dict[str, list[Any]] = {
        str(file.relative_to(folder)): np.load(file).tolist() for file in folder.glob("cells/*.npy")
    }
    for file in [*folder.glob("cells/*.safetensors"), *folder.glob("pretrained/*/backbone.safetensors")]:
        weights, about = read_weights(file)
        found[str(file.relative_to(folder))] = [about, {name: of.tolist() for name, of in weights.items()}]
    return found


def unclocked(result: dict[str, Any]) -> dict[str, Any]:
    """A result without the seconds that pretrainings took."""
    return {**result, "pretrainings": [{**row, "seconds": None} for row in result["pretrainings"]]}


def test_a_cluster_that_is_not_there_is_told(bench, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(InputError, match=r"RAY_ADDRESS 127.0.0.1:1: no Ray cluster answers"):
        over_ray(bench, [Cell(Arm("pixels"), 30, 0)])


def test_nothing_is_other_than_on_one_machine_though_a_worker_is_killed(bench, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(SelfTrain, "fewest", 150)  # the test's own change does not reach the workers
    bench = of_one_pair(bench)
    elsewhere, screen = said_by(replace(bench, folder=tmp_path / "ray"))
    elsewhere = replace(elsewhere, pretrain_views=Fatal(bench.pretrain_views, tmp_path, signal.SIGKILL))
    slow(elsewhere)
    with_ray = compare(elsewhere, over_ray)
    assert (tmp_path / "tried").is_file()
    lines = screen.getvalue().splitlines()
    assert "Ray: 2 at a time" in lines
    cells = list(bench.settings.cells())
    assert sorted(line.partition(": ")[2] for line in lines if " of 6: " in line) == sorted(c.words(1) for c in cells)
    assert unclocked(with_ray) == unclocked(compare(bench))
    assert kept(elsewhere.folder) == kept(bench.folder)
    assert len(kept(bench.folder)) == 6 + 1 + 2  # cells, a pretraining, the classifier that is shown, twins

    def sends(*args):
        raise AssertionError("sent out again")

    monkeypatch.setattr(ray, "put", sends)
    assert compare(elsewhere, over_ray) == with_ray


def test_a_worker_that_is_asked_to_leave_is_replaced(bench, cluster, tmp_path):
    cells = [Cell(Arm("supervised"), 30, 0), Cell(Arm("probe", "simclr"), 30, 0)]
    slow(bench, epochs=3)
    leaving = replace(
        bench, folder=tmp_path / "ray", pretrain_views=Fatal(bench.pretrain_views, tmp_path, signal.SIGTERM)
    )
    slow(leaving, epochs=3)
    found = over_ray(leaving, cells)
    assert (tmp_path / "tried").is_file()
    for cell in cells:
        assert np.array_equal(found[cell], bench.predictions(cell))
    assert kept(leaving.folder) == kept(bench.folder)


def test_workers_with_another_source_are_refused(bench, cluster, monkeypatch):
    monkeypatch.setitem(on_ray.SOFTWARE, "the source of fewlabels", "another")
    with pytest.raises(InputError, match=r"worker .*: the source of fewlabels \w+, not another\. Install the same"):
        over_ray(bench, [Cell(Arm("pixels"), 30, 0)])


@pytest.mark.parametrize(
    ("end", "said"),
    [(None, "^views: not today.$"), (signal.SIGKILL, "its worker died 1 times .* What is done is saved")],
)
def test_what_no_retry_helps_is_one_line(end, said, bench, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray, "RETRIES", 0)
    fatal = replace(bench, pretrain_views=Fatal(bench.pretrain_views, tmp_path, end))
    with pytest.raises(InputError, match=said):
        over_ray(fatal, [Cell(Arm("probe", "simclr"), 30, 0)])
