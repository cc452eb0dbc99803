"""Self-supervised pretraining: one training run of any method, with collapse checks and exact resume."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from fewlabels._internal.environment import available_cores
from fewlabels._internal.errors import InputError
from fewlabels._internal.files import atomic_write, write_json
from fewlabels._internal.seeding import seeded
from fewlabels._internal.tensors import load_exactly, read_weights, save_weights
from fewlabels.backbones.architectures import BACKBONES, make_backbone, refuse_size
from fewlabels.backbones.weights import refuse_other_backbone, save_backbone
from fewlabels.data.source import ImageSource, evenly_spaced, fingerprint
from fewlabels.ssl.collapse import MONITOR_IMAGES, CollapseMonitor, CollapseVerdict
from fewlabels.ssl.methods import METHODS, Method
from fewlabels.ssl.settings import ComputeConfig, PretrainSettings
from fewlabels.training import run_folder
from fewlabels.training.callbacks import Observer
from fewlabels.training.checkpoints import discard_after, write_checkpoint
from fewlabels.training.distributed import rank, summed, synchronised, world_size
from fewlabels.training.optimizers import cosine_with_warmup, set_rate
from fewlabels.training.pairs import ViewPairs, Views
from fewlabels.training.precision import has_bfloat16
from fewlabels.training.prefetch import prefetched
from fewlabels.training.trainer import Trainer, running_average, seed_dropout
from fewlabels.training.tuning import WARMUP_STEPS, StepExecution, can_compile, fastest_execution

__all__ = ["Collapsed", "ComputeConfig", "PretrainSettings", "Pretraining", "build_method", "pretrain"]

# Fabric logs each precision that it sets up.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)

EpochMetrics = Callable[[nn.Module], dict[str, float]]
"""Computes metrics of a backbone, by name, after an epoch. It may leave the backbone in evaluation mode."""

TIMING_STEPS = 60
"""Steps that :meth:`Pretraining.epochs_in` times. Not tuned."""
LOSS_READ_INTERVAL = 20
"""Steps between readings of the loss on an accelerator, which must finish its queue for each. Not tuned."""
MAX_RESTARTS = 3
"""Restarts of a run after a collapse, each with half the learning rate. Not tuned."""


def build_method(settings: PretrainSettings, channels: int, seed: int) -> Method:
    """Build a pretraining method with its backbone; random initial weights are a function of the seed.

    Raises:
        InputError: if ``start_from`` has no weights of this backbone.
    """
    weights_file = Path(settings.start_from) if settings.start_from else None
    own = None if weights_file is None else _fewlabels_weights(weights_file, settings.backbone)
    with seeded(seed, "init", settings.method):
        backbone = make_backbone(settings.backbone, channels, weights_file if own is None else None)
        if weights_file is not None and own is not None:
            load_exactly(backbone, own, weights_file)
        return METHODS[settings.method].build(backbone, backbone.num_features, settings.of_method)


def _fewlabels_weights(file: Path, backbone: str) -> dict[str, Tensor] | None:
    """The weights that an earlier run wrote; None for a file of timm's weights."""
    if backbone not in BACKBONES and not (file.suffix == ".safetensors" and file.is_file()):
        return None
    tensors, about = read_weights(file)
    if backbone not in BACKBONES and "kind" not in about:
        return None
    refuse_other_backbone(about, backbone, file)
    return tensors


def pretrain(
    source: ImageSource,
    views: Views,
    settings: PretrainSettings,
    folder: Path,
    seed: int,
    observer: Observer,
    compute: ComputeConfig = ComputeConfig(),
    epoch_metrics: EpochMetrics | None = None,
) -> Method:
    """Pretrain a method's backbone on images; labels are never read.

    The run resumes from the newest valid checkpoint in ``folder/checkpoints``, and writes
    ``folder/backbone.safetensors``. Order, views and dropout are functions of (seed, step). A resumed run therefore
    has bit for bit the same weights as an uninterrupted one. This needs the same machine and number of threads.

    Args:
        source: the images.
        views: makes a random view of each image.
        settings: method, epochs and all else that the result depends on.
        folder: for checkpoints and results.
        seed: of weights, order, views and dropout.
        observer: shows progress, and stores the loss curve.
        compute: device, processes, checkpoints, and what a collapse does.
        epoch_metrics: computes metrics of the backbone after each epoch; None: no metrics.

    Raises:
        InputError: if the settings do not fit the data, or the folder has a run with other settings.
        Collapsed: if the collapse monitor detects a collapse and ``compute.on_collapse`` is not "warn".
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once the run is saved.
    """
    run = Pretraining(source, views, settings, folder, seed, observer, compute, epoch_metrics)
    with torch.random.fork_rng(devices=[run.fabric.device] if run.fabric.device.type == "cuda" else []):
        run.run()
    return run.method


class Collapsed(InputError):
    """The collapse monitor has stopped the run; ``verdict`` is the reason."""

    def __init__(self, verdict: CollapseVerdict, line: str) -> None:
        super().__init__(line)
        self.verdict = verdict


class Pretraining(Trainer):
    """One pretraining run; for its arguments see :func:`pretrain`."""

    saves_last_step = True

    def __init__(
        self,
        source: ImageSource,
        views: Views,
        settings: PretrainSettings,
        folder: Path,
        seed: int,
        observer: Observer,
        compute: ComputeConfig,
        epoch_metrics: EpochMetrics | None = None,
    ) -> None:
        super().__init__(observer, run_folder.checkpoints_folder(folder), compute.checkpoint_seconds)
        self.source, self.settings, self.seed = source, settings, seed
        self.run_folder, self.compute, self.epoch_metrics = folder, compute, epoch_metrics
        self.by_epoch: list[dict[str, float]] = []
        """Results of ``epoch_metrics``, by epoch."""
        if settings.precision == "bf16-mixed" and not has_bfloat16(compute.device):
            raise InputError(f"precision bf16-mixed: {compute.device} computes no bfloat16 here. Choose 32-true.")
        if settings.precision == "64-true" and compute.device == "mps":
            raise InputError("precision 64-true: mps has no double precision. Choose 32-true.")
        # All checks of the input come before the start of other processes.
        self.method = build_method(settings, source.shape[0], seed).train()
        self.images_per_step = self._batch_size()
        self._check_views(views)
        self.fabric = Fabric(
            accelerator=compute.device,
            devices=compute.processes,
            strategy="ddp" if compute.processes > 1 else "auto",
            precision=settings.precision,
        )
        self.fabric.launch()
        self.method = synchronised(self.method, self.fabric.device)
        self.method.to(self.fabric.device)
        self.pairs = ViewPairs(
            source, views, seed, self.images_per_step, settings.drop_last, settings.accumulate, self.fabric.device
        )
        self.per_epoch = self.pairs.per_epoch
        steps = settings.epochs * self.per_epoch
        self.total_steps = steps if settings.max_steps is None else min(steps, settings.max_steps)
        about = {"method_settings": asdict(settings.of_method), "seed": seed, "views": _views_name(views)}
        self.run_config = {**asdict(settings), **about, "data": fingerprint(source)}
        """All that the result depends on; a resumed run must have the same."""
        self.monitor = self._make_monitor(views)
        self.verdicts: list[str] = []
        """Verdicts after which the run continued or restarted."""
        self.restarts = 0
        """Number of restarts; each one halves the learning rate."""
        self.saved_step: int | None = None
        """Step of the last checkpoint."""
        self.healthy_step: int | None = None
        """Step of the last checkpoint between two checks that found no problem."""
        self.ema: AveragedModel | None = None
        self._batches: Iterator[tuple[Tensor, Tensor]] = iter(())
        self._models: dict[bool, Any] = {}
        """The network as Fabric runs it, by whether it is compiled."""

    def run(self) -> None:
        """Train to the last step."""
        for _ in self.steps():
            pass

    def steps(self) -> Iterator[int]:
        """The training loop; yields the number of each completed step."""
        yield from super().steps()
        self._on_first_process(partial(self._save_result, self.run_folder))

    def begin(self) -> int:
        found = self.find_checkpoint()
        self._read_verdicts()
        if found is None:
            self._handle_verdict(self.monitor.check_before_training(self.method) if rank() == 0 else None)
        self.prepare(self._choose_execution())
        step = 0 if found is None else self.restore(*found)
        self.saves_first_step = found is None and self.compute.on_collapse == "restart"
        if self.saves_first_step:
            self.healthy_step = 0
        self._batches = self.feed(step, self.total_steps)
        return step

    def update(self, step: int) -> Tensor:
        return self.train_step(step, self._batches)

    def must_report(self, step: int) -> bool:
        return any((*self._epoch_tasks(step), self.monitor.is_due(step), step % self._loss_read_interval == 0))

    def report(self, losses: list[Tensor], step: int) -> int | None:
        if self._handle_verdict(self._log_and_check(losses, step)):
            restart_step = self._restart()
            self._batches = self.feed(restart_step, self.total_steps)
            return restart_step
        saves_weights, computes_metrics = self._epoch_tasks(step)
        if saves_weights:
            self._on_first_process(partial(self._save_epoch, step // self.per_epoch))
        if computes_metrics:
            self._on_first_process(partial(self._compute_epoch_metrics, step // self.per_epoch))
        return None

    def _epoch_tasks(self, step: int) -> tuple[bool, bool]:
        """Whether to save the weights, and whether to compute the epoch's metrics, after a step."""
        epoch, into_epoch = divmod(step, self.per_epoch)
        return not into_epoch and epoch in self.settings.keep_epochs, not into_epoch and self.epoch_metrics is not None

    def agree(self, *flags: bool) -> list[bool]:
        """Each flag, true if it is true in any process, so that all processes act at the same step."""
        return [bool(flag) for flag in summed(torch.tensor(flags, dtype=torch.int32, device=self.fabric.device))]

    def train_step(self, step: int, pairs: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
        """Do one optimizer step on the next batch; returns its loss, a scalar."""
        seed_dropout(self.seed, step)
        set_rate(self.optimizer, self._lr_factor(step), 0.5**self.restarts)
        total = torch.zeros((), device=self.fabric.device)
        parts = self.settings.accumulate
        for part in range(parts):
            x0, x1 = _next_pair(pairs)
            with self.fabric.no_backward_sync(self.model, enabled=world_size() > 1 and part + 1 < parts):
                loss = self.model(x0, x1).loss / parts
                self.fabric.backward(loss)
            total += loss.detach()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.method.after_step((step + 1) / self.total_steps)
        if self.ema is not None:
            self.ema.update_parameters(self.method.backbone)
        return total

    def feed(self, first: int, total: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The pairs of views of steps ``first`` to ``total - 1``."""
        pairs = self.pairs.from_step(first, total, self._layout)
        return prefetched(pairs) if self.execution.prefetch else pairs

    def prepare(self, execution: StepExecution) -> None:
        """Set the network up for an execution, with a new optimizer and running average."""
        self.execution = execution
        torch.set_num_threads(execution.threads)
        self.method.zero_grad()  # an interrupted trial may leave gradients
        self.method.to(memory_format=self._layout)
        if execution.compile not in self._models:
            network: Any = torch.compile(self.method) if execution.compile else self.method
            self._models[execution.compile] = self.fabric.setup_module(network)
        self.model = self._models[execution.compile]
        optimizer = self.settings.of_method.optimizer
        if self.settings.lr is not None:
            optimizer = replace(optimizer, lr=self.settings.lr)
        self.optimizer = optimizer.build(self.method.param_groups())
        if self.settings.ema:
            self.ema = running_average(self.method.backbone, self.settings.ema)

    def _choose_execution(self) -> StepExecution:
        """The execution of an earlier start of this run, else that of a trial, else PyTorch's defaults."""
        file = run_folder.execution_file(self.run_folder)
        if self.agree(file.is_file())[0]:
            execution = run_folder.read_execution(self.run_folder)
            if execution.processes == self.compute.processes:
                return execution
        execution = StepExecution(torch.get_num_threads())
        if self.compute.processes > 1:
            threads = max(1, available_cores() // self.compute.processes)
            execution = StepExecution(threads, processes=self.compute.processes)
        elif self.compute.tune:
            execution = self._tune(execution)
        self._on_first_process(partial(write_json, file, asdict(execution)))
        return execution

    def _tune(self, start: StepExecution) -> StepExecution:
        """The fastest execution in a trial; the network's weights do not change."""
        initial = {name: tensor.clone() for name, tensor in self.method.state_dict().items()}
        on_cpu = self.fabric.device.type == "cpu"
        changes: list[dict[str, object]] = [{"channels_last": True}, {"prefetch": True}]
        changes += [{"threads": start.threads // 2}] if on_cpu and start.threads > 1 else []
        # A compiled network takes one batch size.
        changes += [{"compile": True}] if self.settings.drop_last and (can_compile() or not on_cpu) else []
        execution, seconds = fastest_execution(
            self.seconds_per_step, start, self.total_steps, changes, self.observer.say
        )
        self.method.load_state_dict(initial)
        if seconds:
            self.observer.say(f"{execution}: the fastest in a trial of {seconds:.0f} s (--tune off skips the trial)")
        return execution

    def seconds_per_step(self, execution: StepExecution, steps: int) -> float:
        """Time training steps after a warm-up; the caller must restore the weights."""
        self.prepare(execution)
        pairs = self.feed(0, steps + WARMUP_STEPS)
        for step in range(WARMUP_STEPS):
            self.train_step(step, pairs).item()
        began = time.perf_counter()
        for step in range(steps):
            self.train_step(step, pairs).item()
        return (time.perf_counter() - began) / steps

    def epochs_in(self, seconds: float) -> int:
        """Number of epochs that fit into a time, at least one.

        It trains the network to measure this, so that the run is of no use afterwards.
        """
        seconds_per_epoch = self.seconds_per_step(self._choose_execution(), TIMING_STEPS) * self.per_epoch
        return max(1, int(seconds / seconds_per_epoch))

    def _lr_factor(self, step: int) -> float:
        """Factor of the peak learning rate."""
        if self.settings.schedule == "constant":
            return 1.0
        return cosine_with_warmup(step, self.total_steps, round(self.settings.warmup_epochs * self.per_epoch))

    def _check_views(self, views: Views) -> None:
        """Refuse images and views that do not fit the backbone."""
        images = self.source.read(evenly_spaced(self.source))
        if len(images) > 1 and (images == images[:1]).all():
            raise InputError(f"images: the {len(images)} sampled images are all the same. Pass images that differ.")
        if self.epoch_metrics is not None:  # it is computed on the images, not on views
            _, height, width = self.source.shape
            refuse_size("images", height, width, self.settings.backbone, self.method.backbone.image_size)
        view = views(images[:1], (self.seed, "check"))
        height, width = view.shape[2:]
        refuse_size("views", height, width, self.settings.backbone, self.method.backbone.image_size)
        try:
            with torch.no_grad():
                self.method.backbone.eval()(view)
        except (RuntimeError, AssertionError):
            raise InputError(
                f"views of {height}x{width} pixels: backbone {self.settings.backbone} does not take this size. "
                "Choose another backbone, such as resnet18, or larger images."
            ) from None
        finally:
            self.method.train()

    def _batch_size(self) -> int:
        size = self.settings.batch_size or self.settings.of_method.batch_size
        parts = self.settings.accumulate * self.compute.processes
        if len(self.source) < 2 * parts:
            raise InputError(f"{len(self.source)} images: pretraining needs at least {2 * parts} here. Add images.")
        if parts > 1 and not self.settings.drop_last:
            raise InputError(f"drop_last False: an incomplete batch cannot be cut into {parts} equal parts.")
        if size % parts or size < 2 * parts:
            raise InputError(
                f"batch size {size}: cannot be cut into {parts} equal parts of at least 2 images "
                f"({self.compute.processes} processes, {self.settings.accumulate} parts each). Choose a multiple."
            )
        return min(size, len(self.source) // parts * parts)

    @property
    def _layout(self) -> torch.memory_format:
        return torch.channels_last if self.execution.channels_last else torch.contiguous_format

    @property
    def _loss_read_interval(self) -> int:
        return 1 if self.fabric.device.type == "cpu" else LOSS_READ_INTERVAL

    def _on_first_process(self, action: Callable[[], object]) -> None:
        """Run an action on the first process while the others wait; if it fails, all processes stop."""
        failure: Exception | None = None
        if rank() == 0:
            try:
                action()
            except Exception as error:
                failure = error
        if self.agree(failure is not None)[0]:
            raise failure or InputError("the first process stopped; see its message.")

    def _log_and_check(self, losses: list[Tensor], step: int) -> CollapseVerdict | None:
        """Show the losses up to a step, and check for a collapse on the first process."""
        values: list[float] = (summed(torch.stack(losses)) / world_size()).tolist()
        if all(map(math.isfinite, values)):
            for number, loss in enumerate(values):
                self.observer.step(step - len(values) + number + 1, loss)
        if rank() != 0:
            return None
        verdict = self.monitor.check(self.method, step, values)
        if self.monitor.is_due(step):
            self.observer.log(self.monitor.latest_metrics(), step)
            if self.monitor.healthy:
                self.healthy_step = self.saved_step
        return verdict

    def _handle_verdict(self, verdict: CollapseVerdict | None) -> bool:
        """Print the verdict of the first process; returns whether to restart from an earlier checkpoint.

        Raises:
            Collapsed: if the run has to stop.
        """
        on_collapse = self.compute.on_collapse
        restart = verdict is not None and on_collapse == "restart" and verdict.cause == "learning rate"
        restart = restart and self.healthy_step is not None and self.restarts < MAX_RESTARTS
        stop = verdict is not None and not restart and (on_collapse != "warn" or verdict.is_fatal)
        restart, stop = self.agree(restart, stop)
        if stop:
            if verdict is None:
                raise InputError("the first process stopped; see its message.")
            raise Collapsed(verdict, f"{self.settings.method}: {verdict}")
        if verdict is not None and (restart or not any(line.startswith(verdict.kind) for line in self.verdicts)):
            self.verdicts.append(str(verdict))
            self.observer.say(f"{self.settings.method}: {verdict}")
            if not restart:
                self._write_verdicts()
        return restart

    def _restart(self) -> int:
        """Restore the last healthy checkpoint, with half its learning rate; returns its step."""
        self.restarts += 1
        self._on_first_process(self._discard_after_healthy)
        self._on_first_process(self._write_verdicts)
        found = self.find_checkpoint()
        if found is None:
            raise InputError(f"{self.run_folder}: no checkpoint is left to restart from. Start anew.")
        step = self.restore(*found)
        self.agree(False)  # no process may write before all have read
        self.healthy_step = step
        self.observer.say(
            f"restart {self.restarts} of {MAX_RESTARTS}: continuing from step {step:,} with half the learning rate"
        )
        return step

    def _discard_after_healthy(self) -> None:
        discard_after(run_folder.checkpoints_folder(self.run_folder), self.healthy_step or 0)

    def _make_monitor(self, views: Views) -> CollapseMonitor:
        images = self.source.read(evenly_spaced(self.source, MONITOR_IMAGES)).to(self.fabric.device)
        lr = self.settings.lr or self.settings.of_method.optimizer.lr
        key = (self.seed, "guard")
        return CollapseMonitor(
            images, lambda x, v: views(x, (*key, v)), self.images_per_step // self.settings.accumulate, lr
        )

    def save(self, step: int) -> None:
        self._on_first_process(partial(self._write_checkpoint, step))
        self.saved_step = step

    def _write_checkpoint(self, step: int) -> None:
        folder = run_folder.checkpoints_folder(self.run_folder)
        write_checkpoint(folder, step, self.checkpoint_files(), keep_step=self.healthy_step)

    def modules(self) -> dict[str, nn.Module]:
        return {"method": self.method} if self.ema is None else {"method": self.method, "ema": self.ema}

    def state(self) -> dict[str, Any]:
        return {"decided": self.run_config, "guard": self._monitor_state(), "by_epoch": self.by_epoch}

    def restore_state(self, state: dict[str, Any], step: int) -> None:
        run_folder.refuse_others(f"{self.run_folder}: holds a run", state["decided"], self.run_config)
        self.monitor.restore(state["guard"])
        self.by_epoch = state["by_epoch"]
        self.saved_step, self.healthy_step = step, state["guard"]["sound"]

    def _monitor_state(self) -> dict[str, Any]:
        own = {"verdicts": self.verdicts, "restarts": self.restarts, "sound": self.healthy_step}
        return {**own, **self.monitor.state()}

    def _write_verdicts(self) -> None:
        """Write verdicts and restarts to a file outside the checkpoints, since a restart discards checkpoints."""
        write_json(run_folder.verdicts_file(self.run_folder), {"restarts": self.restarts, "verdicts": self.verdicts})

    def _read_verdicts(self) -> None:
        file = run_folder.verdicts_file(self.run_folder)
        if self.agree(file.is_file())[0]:
            with run_folder.refusing_damage(file):
                content = json.loads(file.read_text())
                self.restarts, self.verdicts = int(content["restarts"]), list(content["verdicts"])

    def find_checkpoint(self) -> tuple[int, dict[str, bytes]] | None:
        # The first process renames damaged checkpoints before the others search.
        self._on_first_process(super().find_checkpoint)
        return super().find_checkpoint()

    def _compute_epoch_metrics(self, epoch: int) -> None:
        if self.epoch_metrics is None:
            return
        metrics = self.epoch_metrics(self.method.backbone)
        self.method.train()
        self.by_epoch.append({"epoch": epoch, **metrics})
        self.observer.log(metrics, epoch * self.per_epoch)

    def _save_epoch(self, epoch: int) -> None:
        with atomic_write(run_folder.epoch_folder(self.run_folder, epoch)) as temporary:
            temporary.mkdir()
            self._save_result(temporary)

    def _save_result(self, folder: Path) -> None:
        backbone = self.method.backbone if self.ema is None else self.ema.module
        save_backbone(backbone, folder / "backbone.safetensors", self.settings.backbone)
        save_weights(self.method, folder / "method.safetensors", {"kind": "method", "method": self.settings.method})
        state: dict[str, Any] = {"decided": self.run_config, **self.observer.state()}
        state |= {"guard": self._monitor_state(), "by_epoch": self.by_epoch}
        write_json(folder / "state.json", state)


def _next_pair(pairs: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The next pair of views; an error is marked as one that other processes may not have."""
    try:
        return next(pairs)
    except InputError as error:
        error.one_process_only = world_size() > 1
        raise


def _views_name(views: Views) -> str:
    return getattr(views, "__name__", str(views))
