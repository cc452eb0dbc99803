"""What each logger really wrote, read back."""

import sys
import time
from pathlib import Path

import pytest

from fewlabels._internal.errors import InputError
from fewlabels.training.callbacks import MAX_CURVE_POINTS, Curve, Observer, make_logger


def log_three(name: str, folder: Path) -> None:
    logger = make_logger(name, folder, {"epochs": 1})
    observer = Observer("arm", logger)
    with observer.watch(total_steps=3, images_per_step=1):
        for step, loss in enumerate([3.0, 2.0, 1.0], start=1):
            observer.step(step, loss)
    logger.close()


def test_tensorboard(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log_three("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("arm/loss")
    assert [(event.step, event.value) for event in events] == [(1, 3.0), (2, 2.0), (3, 1.0)]


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wandb", reason="pip install 'fewlabels[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    log_three("wandb", tmp_path)
    (kept,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    # wandb writes from a process of its own, which may lag behind finish().
    deadline = time.monotonic() + 30
    while b"arm/loss" not in (content := kept.read_bytes()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert b"arm/loss" in content
    assert b"epochs" in content


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mlflow = pytest.importorskip("mlflow", reason="pip install 'fewlabels[mlflow]'")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    log_three("mlflow", tmp_path)
    (run,) = mlflow.search_runs(experiment_names=["fewlabels"], output_format="list")
    assert run.data.params == {"epochs": "1"}
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "arm/loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 3.0), (2, 2.0), (3, 1.0)]


def test_none_writes_nothing(tmp_path: Path):
    log_three("none", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"pip install 'fewlabels\[wandb\]'"):
        make_logger("wandb", tmp_path, {})


def test_a_long_curve_is_thinned_to_means():
    curve = Curve(window=2)
    for step, value in enumerate([1.0, 3.0, 5.0, 7.0, 9.0], start=1):
        curve.add(step, value)
    assert curve.steps == [2, 4]
    assert curve.values == [2.0, 6.0]


def test_no_run_keeps_more_points_than_a_picture_can_show(tmp_path: Path):
    observer = Observer("long")
    with observer.watch(total_steps=1234, images_per_step=1):
        for step in range(1, 1235):
            observer.step(step, 1.0)
    assert 400 < len(observer.curve.values) <= MAX_CURVE_POINTS
