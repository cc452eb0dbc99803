import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fewlabels._internal.errors import InputError
from fewlabels._internal.tensors import read_weights
from fewlabels.augment.recipes import RECIPES
from fewlabels.backbones.weights import save_backbone
from fewlabels.data.source import ArraySource
from fewlabels.ssl.methods import METHODS
from fewlabels.ssl.methods.simsiam import SimSiamSettings
from fewlabels.ssl.pretrain import Collapsed, ComputeConfig, Pretraining, PretrainSettings, build_method, pretrain
from fewlabels.training.callbacks import Observer
from fewlabels.training.optimizers import OptimizerSettings
from fewlabels.training.precision import has_bfloat16
from fewlabels.training.run_folder import epoch_folder
from fewlabels.training.tuning import StepExecution
from fewlabels.tutorial.views import randaugment

SLOW = SimSiamSettings(optimizer=OptimizerSettings("sgd", lr=0.01))
SMALL = PretrainSettings("simsiam", 2, SLOW, batch_size=64, lr=0.01)
GRAY = RECIPES["gray-small"]
NO_TUNING = ComputeConfig(tune=False)


def run(source, folder: Path, settings=SMALL, seed: int = 0, views=GRAY, compute=NO_TUNING):
    observer = Observer(settings.method)
    pretrain(source, views, settings, folder, seed, observer, compute)
    return read_weights(folder / "method.safetensors")[0], observer


def same_weights(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def newest_step(folder: Path) -> int:
    return max((int(p.name[5:]) for p in (folder / "checkpoints").glob("step-*")), default=0)


class StopsAt:
    """Views that send SIGINT once, while a step is prepared."""

    def __init__(self, step: int, views=GRAY) -> None:
        self.step, self.views = step, views

    def __call__(self, images, key, first_row=0):
        if key[-1] == self.step:
            self.step = -1
            os.kill(os.getpid(), signal.SIGINT)
        return self.views(images, key, first_row)

    def __str__(self) -> str:
        return str(self.views)


@pytest.fixture(scope="module")
def source(fmnist) -> ArraySource:
    return fmnist.train.first_k(150)


def write_execution(folder: Path, **execution) -> None:
    """Set the step execution of the run in a folder."""
    folder.mkdir()
    (folder / "engine.json").write_text(json.dumps({"threads": 2, **execution}))


@pytest.mark.parametrize(
    "execution",
    [
        pytest.param({"prefetch": True, "channels_last": True}, id="prefetched, channels last"),
        pytest.param({"compile": True}, id="compiled", marks=pytest.mark.slow),
        pytest.param({"threads": 1}, id="one thread"),
    ],
)
def test_resumed_run_has_same_weights_with_each_step_execution(execution, source, tmp_path: Path):
    precision = "bf16-mixed" if has_bfloat16("cpu") else "32-true"
    settings = PretrainSettings("simclr", 2, batch_size=64, accumulate=2, precision=precision)
    for name in ("whole", "parts"):
        write_execution(tmp_path / name, **execution)
    whole, _ = run(source, tmp_path / "whole", settings)
    with pytest.raises(KeyboardInterrupt, match="of 4"):
        run(source, tmp_path / "parts", settings, views=StopsAt(2))
    parts, _ = run(source, tmp_path / "parts", settings)
    assert same_weights(whole, parts)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_resumed_run_has_same_weights_with_each_method(method, source, tmp_path: Path):
    settings = PretrainSettings(method, 3, batch_size=64, ema=0.9, warmup_epochs=1)
    whole, watched = run(source, tmp_path / "whole", settings)
    with pytest.raises(KeyboardInterrupt, match="step 4 of 6"):
        run(source, tmp_path / "parts", settings, views=StopsAt(3))
    parts, resumed = run(source, tmp_path / "parts", settings)
    assert same_weights(whole, parts)
    for folder in ("whole", "parts"):
        assert len(list((tmp_path / folder / "checkpoints").iterdir())) <= 3
    assert resumed.curve == watched.curve
    ema = [read_weights(tmp_path / folder / "backbone.safetensors")[0] for folder in ("whole", "parts")]
    assert same_weights(*ema)


def test_damaged_checkpoint_is_skipped_with_a_message(source, tmp_path: Path, capsys):
    from rich.console import Console

    compute = ComputeConfig(tune=False, checkpoint_seconds=0)
    whole, _ = run(source, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "run", views=StopsAt(2), compute=compute)
    weights = tmp_path / "run" / "checkpoints" / "step-3" / "method.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    observer = Observer("simsiam", None, Console(width=300))
    pretrain(source, GRAY, SMALL, tmp_path / "run", 0, observer, compute)
    assert "step-3: method.safetensors does not match its checksum" in capsys.readouterr().out
    assert same_weights(whole, read_weights(tmp_path / "run" / "method.safetensors")[0])


def test_resume_with_other_settings_is_refused(source, tmp_path: Path):
    run(source, tmp_path)
    with pytest.raises(InputError, match="a run with seed 0, not 1"):
        run(source, tmp_path, seed=1)
    with pytest.raises(InputError, match=r"a run with epochs 2, not 3"):
        run(source, tmp_path, replace(SMALL, epochs=3))


def test_weights_depend_on_seed_and_not_on_global_random_state(source, tmp_path: Path):
    torch.manual_seed(1)
    first, _ = run(source, tmp_path / "first")
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    again, _ = run(source, tmp_path / "again")
    assert torch.equal(before, torch.random.get_rng_state())
    other, _ = run(source, tmp_path / "other", seed=1)
    assert same_weights(first, again)
    assert not same_weights(first, other)


def test_pretrain_never_reads_labels(source, tmp_path: Path):
    unlabelled = ArraySource(source.images, None, source.class_names)
    assert same_weights(run(source, tmp_path / "a")[0], run(unlabelled, tmp_path / "b")[0])


def test_prefetching_does_not_change_weights(source, tmp_path: Path):
    plain, _ = run(source, tmp_path / "plain")
    (tmp_path / "ahead").mkdir()
    execution = {"threads": torch.get_num_threads(), "channels_last": False, "prefetch": True, "compile": False}
    (tmp_path / "ahead" / "engine.json").write_text(json.dumps(execution))
    assert same_weights(plain, run(source, tmp_path / "ahead")[0])


def test_prepare_discards_gradients_of_an_interrupted_trial(source, tmp_path: Path):
    prepared = Pretraining(source, GRAY, SMALL, tmp_path, 0, Observer("simsiam"), NO_TUNING)
    prepared.method(*next(prepared.pairs.from_step(0, 1, torch.contiguous_format))).loss.backward()
    prepared.prepare(StepExecution(torch.get_num_threads()))
    assert all(p.grad is None for p in prepared.method.parameters())


def test_saved_seconds_equal_those_of_the_observer(source, tmp_path: Path):
    _, observer = run(source, tmp_path)
    assert json.loads((tmp_path / "state.json").read_text())["seconds"] == observer.seconds


def test_damaged_engine_file_is_refused(source, tmp_path: Path):
    (tmp_path / "engine.json").write_text('{"threads": 1, "colour": "red"}')
    with pytest.raises(InputError, match=r"engine.json: damaged"):
        run(source, tmp_path)


def test_tuning_leaves_weights_unchanged(source, tmp_path: Path):
    settings = replace(SMALL, epochs=1000)
    prepared = Pretraining(source, GRAY, settings, tmp_path, 0, Observer("simsiam"), ComputeConfig(tune=False))
    initial = {name: tensor.clone() for name, tensor in prepared.method.state_dict().items()}
    prepared._tune(StepExecution(torch.get_num_threads()))
    assert same_weights(initial, prepared.method.state_dict())


def test_gradient_accumulation_equals_step_on_whole_batch(source, tmp_path: Path):
    """In evaluation mode there are no batch statistics; SimSiam's loss is a mean over images."""

    def step(parts: int) -> dict[str, torch.Tensor]:
        settings = replace(SMALL, epochs=1, accumulate=parts, schedule="constant", batch_size=150)
        prepared = Pretraining(source, GRAY, settings, tmp_path, 0, Observer("simsiam"), ComputeConfig(tune=False))
        prepared.method.eval()
        prepared.prepare(StepExecution(torch.get_num_threads()))
        prepared.method.eval()
        prepared.train_step(0, prepared.feed(0, 1))
        return prepared.method.state_dict()

    whole, parts = step(1), step(3)
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name], rtol=1e-4, atol=1e-6)


def test_ema_equals_running_average_by_hand(source, tmp_path: Path):
    settings = replace(SMALL, epochs=1, ema=0.5)
    prepared = Pretraining(source, GRAY, settings, tmp_path, 0, Observer("simsiam"), ComputeConfig(tune=False))
    prepared.prepare(StepExecution(torch.get_num_threads()))
    pairs, seen = prepared.feed(0, 2), []
    for step in range(2):
        prepared.train_step(step, pairs)
        seen.append(next(prepared.method.backbone.parameters()).detach().clone())
    average = next(prepared.ema.module.parameters())
    decay = min(0.5, (1 + 1) / (10 + 1))  # it starts after the first step, with a small decay
    torch.testing.assert_close(average, decay * seen[0] + (1 - decay) * seen[1])


def test_bfloat16_weights_are_close_to_single_precision(source, tmp_path: Path):
    if not has_bfloat16("cpu"):
        with pytest.raises(InputError, match="no bfloat16"):
            run(source, tmp_path, replace(SMALL, precision="bf16-mixed"))
        return
    single, _ = run(source, tmp_path / "single")
    half, _ = run(source, tmp_path / "half", replace(SMALL, precision="bf16-mixed"))
    assert not same_weights(single, half)
    assert all(tensor.dtype != torch.bfloat16 for tensor in half.values())
    name = "backbone.0.weight"
    torch.testing.assert_close(single[name], half[name], rtol=0.05, atol=0.01)


def test_pretrain_resnet18_on_colour_images(fmnist, tmp_path: Path):
    rgb = np.repeat(fmnist.train.first_k(16).images, 3, axis=1)
    settings = PretrainSettings("simclr", 1, backbone="resnet18", batch_size=8)
    _, observer = run(ArraySource(rgb, None, ()), tmp_path, settings, views=RECIPES["rgb-small"])
    assert len(observer.curve.values) == 2
    weights = read_weights(tmp_path / "backbone.safetensors")[0]
    assert weights["network.conv1.weight"].shape == (64, 3, 3, 3)


def test_keep_epochs_saves_weights_of_a_shorter_run(source, tmp_path: Path):
    settings = PretrainSettings("simsiam", 3, batch_size=64, schedule="constant", keep_epochs=(1, 3))
    run(source, tmp_path / "long", settings)
    run(source, tmp_path / "short", replace(settings, epochs=1, keep_epochs=(1,)))
    saved = [read_weights(epoch_folder(tmp_path / name, 1) / "method.safetensors")[0] for name in ("long", "short")]
    assert same_weights(*saved)
    assert not epoch_folder(tmp_path / "long", 2).exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "simsim"}, "simsiam"),
        ({"backbone": "resnet19"}, "resnet18"),
        ({"batch_size": 100, "accumulate": 3}, "cannot be cut into 3 equal parts"),
        ({"batch_size": 1}, "batch_size 1: must be 2 or more"),
        ({"lr": -1.0}, "lr -1.0: must be above 0"),
        ({"ema": 1.0}, "ema 1.0: must be"),
        ({"warmup_epochs": 5}, "warmup_epochs 5: must be"),
        ({"accumulate": 301, "batch_size": 602}, "needs at least 602"),
        ({"accumulate": 2, "drop_last": False}, "drop_last False: an incomplete batch cannot be cut into 2"),
    ],
)
def test_invalid_settings_are_refused(settings, message, source, tmp_path: Path):
    with pytest.raises(InputError, match=message):
        run(source, tmp_path, replace(SMALL, **settings))


def test_views_of_a_size_that_the_backbone_does_not_take_are_refused(source, tmp_path: Path):
    with pytest.raises(InputError, match="views of 224x224 pixels: backbone article takes 28x28"):
        run(source, tmp_path, views=replace(GRAY, size=224))


@pytest.mark.parametrize("on_collapse", ["stop", "warn", "restart"])
def test_loss_that_is_not_finite_stops_the_run(on_collapse, source, tmp_path: Path):
    def broken(images, key, first_row=0):
        return randaugment(images, key) * (torch.nan if "view" in key else 1)

    compute = replace(NO_TUNING, on_collapse=on_collapse)
    with pytest.raises(Collapsed, match=r"simsiam: divergence at step 1: loss nan, .* --lr 0.001\.$") as stop:
        run(source, tmp_path, views=broken, compute=compute)
    assert stop.value.verdict.is_fatal
    assert newest_step(tmp_path) == 0
    assert (tmp_path / "checkpoints" / "step-0").exists() == (on_collapse == "restart")
    if on_collapse == "restart":
        assert json.loads((tmp_path / "verdicts.json").read_text())["restarts"] == 3


@pytest.fixture
def check_often(monkeypatch):
    """Check every second step, and report collapses from the first check on."""
    monkeypatch.setattr("fewlabels.ssl.collapse.CHECK_INTERVAL", 2)
    monkeypatch.setattr("fewlabels.ssl.collapse.MIN_STEPS", 0)


def test_epoch_metrics_resume_and_leave_weights_unchanged(source, tmp_path: Path):
    seen = []

    def measure(backbone: torch.nn.Module) -> dict[str, float]:
        seen.append(backbone.eval().training)
        return {"length": float(sum(weight.detach().square().sum() for weight in backbone.parameters()))}

    def measured(folder: Path, views=GRAY) -> Any:
        pretrain(source, views, replace(SMALL, epochs=3), folder, 0, Observer("simsiam"), NO_TUNING, measure)
        return read_weights(folder / "method.safetensors")[0]

    plain, _ = run(source, tmp_path / "plain", replace(SMALL, epochs=3))
    whole = measured(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt, match="step 3 of 6"):
        measured(tmp_path / "parts", StopsAt(2))
    assert same_weights(plain, whole)
    assert same_weights(whole, measured(tmp_path / "parts"))
    states = [json.loads((tmp_path / name / "state.json").read_text())["by_epoch"] for name in ("whole", "parts")]
    assert states[0] == states[1]
    assert [row["epoch"] for row in states[0]] == [1, 2, 3]
    assert len(seen) == 6


def test_start_from_loads_weights_of_another_run(source, tmp_path: Path):
    run(source, tmp_path)
    file = tmp_path / "backbone.safetensors"
    pretraining = build_method(replace(SMALL, start_from=str(file)), 1, 5)
    assert same_weights(pretraining.backbone.state_dict(), read_weights(file)[0])
    with pytest.raises(InputError, match="weights of article, not of resnet18"):
        build_method(replace(SMALL, backbone="resnet18", start_from=str(file)), 1, 5)


def test_start_from_loads_weights_of_another_run_with_timm_backbone(source, tmp_path: Path):
    pytest.importorskip("timm")
    of_timm, file = replace(SMALL, backbone="timm/mobilenetv3_small_050"), tmp_path / "backbone.safetensors"
    trained = build_method(of_timm, 1, 4).backbone
    save_backbone(trained, file, of_timm.backbone)
    loaded = build_method(replace(of_timm, start_from=str(file)), 1, 5).backbone
    assert same_weights(loaded.state_dict(), trained.state_dict())
    save_backbone(build_method(SMALL, 1, 4).backbone, file, "article")
    with pytest.raises(InputError, match="weights of article, not of timm/mobilenetv3_small_050"):
        build_method(replace(of_timm, start_from=str(file)), 1, 5)


def test_collapse_monitor_resumes_with_the_run(check_often, source, tmp_path: Path):
    settings, compute = replace(SMALL, epochs=4), replace(NO_TUNING, on_collapse="warn")
    run(source, tmp_path / "whole", settings, compute=compute)
    with pytest.raises(KeyboardInterrupt, match="step 5 of 8"):
        run(source, tmp_path / "parts", settings, views=StopsAt(4), compute=compute)
    run(source, tmp_path / "parts", settings, compute=compute)
    states = [json.loads((tmp_path / name / "state.json").read_text())["guard"] for name in ("whole", "parts")]
    assert states[0]["readings"] == states[1]["readings"]
    assert states[0]["verdicts"] == states[1]["verdicts"] != []  # each check reports a collapse, but only once
    assert [reading["step"] for reading in states[0]["readings"]] == [2, 4, 6, 8]


class GrowingWeights:
    """An ``after_step`` that triples the weights while the learning rate is above a limit."""

    def __init__(self, run: Pretraining, limit: float) -> None:
        self.run, self.limit = run, limit

    def __deepcopy__(self, memo: dict[int, Any]) -> "GrowingWeights":
        return self

    def __call__(self, progress: float) -> None:
        if self.run.optimizer.param_groups[0]["lr"] > self.limit:
            with torch.no_grad():
                for weight in self.run.method.backbone.parameters():
                    weight *= 3


def test_restart_halves_learning_rate(check_often, monkeypatch, source, tmp_path: Path):
    monkeypatch.setattr("fewlabels.ssl.collapse.MIN_STEPS", 100)
    settings = replace(SMALL, epochs=4, lr=0.04, schedule="constant")
    compute = replace(NO_TUNING, on_collapse="restart")
    pretraining = Pretraining(source, GRAY, settings, tmp_path, 0, Observer("simsiam"), compute)
    pretraining.method.after_step = GrowingWeights(pretraining, limit=0.015)
    pretraining.run()
    assert pretraining.restarts == 2
    assert [line.split(":")[0] for line in pretraining.verdicts] == ["divergence at step 2"] * 2
    assert {group["lr"] for group in pretraining.optimizer.param_groups} == {0.01}
    # The result equals that of a run with a quarter of the learning rate.
    quarter, watched = run(source, tmp_path / "quarter", replace(settings, lr=0.01))
    assert same_weights(quarter, read_weights(tmp_path / "method.safetensors")[0])
    assert watched.curve == pretraining.observer.curve


def test_run_stops_after_max_restarts(check_often, monkeypatch, source, tmp_path: Path):
    monkeypatch.setattr("fewlabels.ssl.collapse.MIN_STEPS", 100)
    compute = replace(NO_TUNING, on_collapse="restart")
    pretraining = Pretraining(source, GRAY, replace(SMALL, epochs=4), tmp_path, 0, Observer("simsiam"), compute)
    pretraining.method.after_step = GrowingWeights(pretraining, limit=0)
    with pytest.raises(Collapsed, match="divergence at step 2"):
        pretraining.run()
    assert pretraining.restarts == 3


def test_collapse_with_another_cause_than_the_learning_rate_stops_the_run(source, tmp_path: Path):
    weak = RECIPES["gray-small"].__class__(brightness=0.02)
    for on_collapse in ("stop", "restart"):
        with pytest.raises(Collapsed, match="views too weak before the first step") as stop:
            run(source, tmp_path / on_collapse, views=weak, compute=replace(NO_TUNING, on_collapse=on_collapse))
        assert stop.value.verdict.cause == "views"
    observer = run(source, tmp_path / "warn", views=weak, compute=replace(NO_TUNING, on_collapse="warn"))[1]
    assert len(observer.curve.values) == 4
    saved = json.loads((tmp_path / "warn" / "verdicts.json").read_text())
    assert saved["restarts"] == 0
    assert saved["verdicts"][0].startswith("views too weak")


def test_restart_skips_checkpoints_after_last_healthy_check(check_often, monkeypatch, source, tmp_path: Path):
    """The run restarts twice, the second time with a quarter of the learning rate."""
    monkeypatch.setattr("fewlabels.ssl.collapse.COMPLETE_COLLAPSE_UNIFORMITY", 1.0)
    monkeypatch.setattr("fewlabels.ssl.collapse.DIMENSIONAL_COLLAPSE_RANK", 0.0)
    monkeypatch.setattr("fewlabels.ssl.collapse.MIN_RANK_FRACTION", 0.0)
    compute = replace(NO_TUNING, on_collapse="restart", checkpoint_seconds=0)
    settings = replace(SMALL, epochs=8, lr=0.04, schedule="constant")

    def start_pretraining() -> Pretraining:
        pretraining = Pretraining(source, GRAY, settings, tmp_path, 0, Observer("simsiam"), compute)
        growing_weights = GrowingWeights(pretraining, limit=0.015)
        pretraining.method.after_step = lambda progress: growing_weights(progress) if progress > 6 / 16 else None
        return pretraining

    pretraining = start_pretraining()
    steps = []
    for step in pretraining.steps():
        steps.append(step)
        if pretraining.restarts == 2 and step == 9:
            break  # as if the process was killed
    # The checks at steps 4 and 6 found no problem; the last checkpoint between them is that of step 5.
    assert steps == [*range(1, 8), 6, 7, *range(6, 10)]
    again = start_pretraining()
    assert list(again.steps()) == [*range(10, 17)]
    assert again.restarts == 2
    assert {group["lr"] for group in again.optimizer.param_groups} == {0.01}


def test_build_method_initial_weights_depend_on_seed(source):
    first, again, other = (build_method(SMALL, 1, seed).state_dict() for seed in (0, 0, 1))
    assert same_weights(first, again)
    assert not same_weights(first, other)


def test_tutorial_randaugment_depends_on_images_and_key_only(fmnist):
    images = fmnist.train.read(slice(8))
    before = torch.random.get_rng_state()
    first, again, other = (randaugment(images, ("key", k)) for k in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.dtype == torch.float32
    assert 0 <= first.min() <= first.max() <= 1
    assert torch.equal(before, torch.random.get_rng_state())
    assert np.array_equal(images.numpy(), fmnist.train.read(slice(8)).numpy())
