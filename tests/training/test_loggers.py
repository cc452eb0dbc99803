"""Loggers and loss curves: files are read back with each logger's own reader."""

import sys
import time
from pathlib import Path

import pytest

from fewlabels._internal.errors import InputError
from fewlabels.training.callbacks import MAX_CURVE_POINTS, Curve, Observer, make_logger


def log_three(name: str, folder: Path) -> None:
    logger = make_logger(name, folder, {"epochs": 1})
    observer = Observer("training", logger)
    with observer.watch(total_steps=3, images_per_step=1):
        for step, loss in enumerate([3.0, 2.0, 1.0], start=1):
            observer.step(step, loss)
    logger.close()


def test_tensorboard_logger_writes_losses(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log_three("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("training/loss")
    assert [(event.step, event.value) for event in events] == [(1, 3.0), (2, 2.0), (3, 1.0)]


def test_wandb_logger_writes_losses_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wandb", reason="pip install 'fewlabels[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    log_three("wandb", tmp_path)
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    # wandb writes in another process, which may still write after finish().
    deadline = time.monotonic() + 30
    while b"training/loss" not in (content := file.read_bytes()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert b"training/loss" in content
    assert b"epochs" in content


def test_mlflow_logger_writes_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mlflow = pytest.importorskip("mlflow", reason="pip install 'fewlabels[mlflow]'")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    log_three("mlflow", tmp_path)
    (run,) = mlflow.search_runs(experiment_names=["fewlabels"], output_format="list")
    assert run.data.params == {"epochs": "1"}
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "training/loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 3.0), (2, 2.0), (3, 1.0)]


def test_logger_none_writes_nothing(tmp_path: Path):
    log_three("none", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_make_logger_names_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"pip install 'fewlabels\[wandb\]'"):
        make_logger("wandb", tmp_path, {})


def test_curve_points_are_means_over_windows():
    curve = Curve(window=2)
    for step, value in enumerate([1.0, 3.0, 5.0, 7.0, 9.0], start=1):
        curve.add(step, value)
    assert curve.steps == [2, 4]
    assert curve.values == [2.0, 6.0]


def test_curve_has_at_most_max_curve_points(tmp_path: Path):
    observer = Observer("long")
    with observer.watch(total_steps=1234, images_per_step=1):
        for step in range(1, 1235):
            observer.step(step, 1.0)
    assert 400 < len(observer.curve.values) <= MAX_CURVE_POINTS
