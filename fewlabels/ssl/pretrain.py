"""Pretraining: one visible loop for every method."""

import io
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
from safetensors.torch import load
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fewlabels._internal.environment import usable_cores
from fewlabels._internal.errors import InputError
from fewlabels._internal.files import write_json, written_whole
from fewlabels._internal.seeding import seed_from, seeded
from fewlabels._internal.tensors import load_exactly, read_weights, save_weights, weights_bytes
from fewlabels.backbones.architectures import BACKBONES, make_backbone, refuse_size
from fewlabels.backbones.weights import refuse_other_backbone, save_backbone
from fewlabels.data.source import ImageSource, evenly_spaced, fingerprint
from fewlabels.ssl.collapse import LOOKED_AT, Guard, Verdict
from fewlabels.ssl.methods import METHODS, Method
from fewlabels.ssl.settings import Engine, PretrainSettings
from fewlabels.training import run_folder
from fewlabels.training.callbacks import Observer
from fewlabels.training.checkpoints import discard_after, newest_checkpoint, write_checkpoint
from fewlabels.training.distributed import processes, rank, summed, synchronised
from fewlabels.training.interrupts import stop_wish
from fewlabels.training.optimizers import cosine_with_warmup, set_rate
from fewlabels.training.pairs import Pairs, Views
from fewlabels.training.precision import has_bfloat16
from fewlabels.training.prefetch import prefetched
from fewlabels.training.tuning import WARM_UP, Choice, can_compile, fastest

__all__ = ["Collapsed", "Engine", "PretrainSettings", "Pretraining", "build_method", "pretrain"]

# Fabric tells of each precision it sets up; the user asked for it.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)

EachEpoch = Callable[[nn.Module], dict[str, float]]
"""Figures of the backbone by name, to draw a curve of; it may be left in evaluation mode."""

TRIAL_STEPS = 60
"""That tell how long an epoch takes."""
LOSSES_READ_EVERY = 20
"""Steps between readings of the loss on an accelerator, which has to finish its queue for each."""
RESTARTS = 3
"""Times that a run may go back with half the learning rate."""


def build_method(settings: PretrainSettings, channels: int, seed: int) -> Method:
    """The method around its backbone; fresh weights are a function of the seed.

    Raises:
        InputError: if ``start_from`` does not hold weights of this backbone.
    """
    given = Path(settings.start_from) if settings.start_from else None
    own = None if given is None else _own_weights(given, settings.backbone)
    with seeded(seed, "init", settings.method):
        backbone = make_backbone(settings.backbone, channels, given if own is None else None)
        if given is not None and own is not None:
            load_exactly(backbone, own, given)
        return METHODS[settings.method].build(backbone, backbone.num_features, settings.of_method)


def _own_weights(file: Path, backbone: str) -> dict[str, Tensor] | None:
    """What an earlier run wrote; None: it is for timm to read."""
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
    engine: Engine = Engine(),
    each_epoch: EachEpoch | None = None,
) -> Method:
    """Train a method's backbone on images alone; labels are never read.

    Goes on from the newest whole checkpoint in ``folder/checkpoints``, and leaves ``folder/backbone.safetensors``.
    Order, views and dropout depend on (seed, step) alone, so that going on gives the weights, bit for bit, that the
    run would have had undisturbed on the same machine with the same threads.

    Raises:
        InputError: if the settings do not fit the data, or the folder holds a run with others.
        Collapsed: if the guard finds the run collapsed, and ``engine.on_collapse`` is not "warn".
        KeyboardInterrupt: after Ctrl-C or SIGTERM; the run is saved.
    """
    run = Pretraining(source, views, settings, folder, seed, observer, engine, each_epoch)
    with torch.random.fork_rng(devices=[run.fabric.device] if run.fabric.device.type == "cuda" else []):
        run.go()
    return run.method


class Collapsed(InputError):
    """The guard has stopped the run; ``verdict`` says why."""

    def __init__(self, verdict: Verdict, line: str) -> None:
        super().__init__(line)
        self.verdict = verdict


class Pretraining:
    """One run: the network, its optimizer, and where its images come from."""

    def __init__(
        self,
        source: ImageSource,
        views: Views,
        settings: PretrainSettings,
        folder: Path,
        seed: int,
        observer: Observer,
        engine: Engine,
        each_epoch: EachEpoch | None = None,
    ) -> None:
        self.source, self.settings, self.seed = source, settings, seed
        self.folder, self.observer, self.engine, self.each_epoch = folder, observer, engine, each_epoch
        self.by_epoch: list[dict[str, float]] = []
        """What ``each_epoch`` has measured."""
        if settings.precision == "bf16-mixed" and not has_bfloat16(engine.device):
            raise InputError(f"precision bf16-mixed: {engine.device} computes no bfloat16 here. Choose 32-true.")
        if settings.precision == "64-true" and engine.device == "mps":
            raise InputError("precision 64-true: mps has no double precision. Choose 32-true.")
        # All that can be refused is, before other processes are started.
        self.method = build_method(settings, source.shape[0], seed).train()
        self.batch_size = self._batch_size()
        self._check_views(views)
        self.fabric = Fabric(
            accelerator=engine.device,
            devices=engine.processes,
            strategy="ddp" if engine.processes > 1 else "auto",
            precision=settings.precision,
        )
        self.fabric.launch()
        self.method = synchronised(self.method, self.fabric.device)
        self.method.to(self.fabric.device)
        self.pairs = Pairs(
            source, views, seed, self.batch_size, settings.drop_last, settings.accumulate, self.fabric.device
        )
        self.per_epoch = self.pairs.per_epoch
        self.total = settings.epochs * self.per_epoch
        about = {"method_settings": asdict(settings.of_method), "seed": seed, "views": _named(views)}
        self.decided = {**asdict(settings), **about, "data": fingerprint(source)}
        self.guard = self._guard(views)
        self.verdicts: list[str] = []
        """Those after which it went on, or back."""
        self.restarts = 0
        """Each halves the learning rate."""
        self.saved: int | None = None
        """Step of the last checkpoint."""
        self.sound: int | None = None
        """Step of the last one that lies between two good looks."""
        self.ema: AveragedModel | None = None
        self._models: dict[bool, Any] = {}
        """The network as Fabric runs it, by whether it is compiled."""

    def go(self) -> None:
        """Train to the end."""
        for _ in self.steps():
            pass

    def steps(self) -> Iterator[int]:
        """The loop; gives each step's number when it is done."""
        kept = self._kept()
        self._recall_verdicts()
        if not kept:
            self._goes_back(self.guard.before(self.method) if rank() == 0 else None)
        self.prepare(self._choice())
        step = self._restore(*kept) if kept else 0
        losses: list[Tensor] = []
        saved = time.perf_counter()
        pairs = self.feed(step, self.total)
        with self.observer.watch(self.total, self.batch_size, first_step=step), stop_wish() as wish:
            if not kept and self.engine.on_collapse == "restart":
                self.sound = 0
                self._checkpoint(0)
            while step < self.total:
                losses.append(self.train_step(step, pairs))
                step += 1
                epoch, into_epoch = divmod(step, self.per_epoch)
                milestone = not into_epoch and epoch in self.settings.keep_epochs
                measures = not into_epoch and self.each_epoch is not None
                due = milestone or measures or self.guard.looks_at(step) or step == self.total
                if due or len(losses) >= self._read_every:
                    if self._goes_back(self._observe(losses, step)):
                        step = self._go_back()
                        pairs = self.feed(step, self.total)
                        continue
                    if milestone:
                        self._by_first(partial(self._keep, epoch))
                    if measures:
                        self._by_first(partial(self._measure, epoch))
                    overdue = time.perf_counter() - saved >= self.engine.checkpoint_seconds
                    stop, save = self._agreed(wish.asked, overdue)
                    if stop or save or step == self.total:
                        self._checkpoint(step)
                        saved = time.perf_counter()
                    if stop and step < self.total:
                        raise KeyboardInterrupt(f"step {step:,} of {self.total:,}")
                yield step
        self._by_first(partial(self._save_result, self.folder))

    def train_step(self, step: int, pairs: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
        """One optimizer step on the next batch; returns its loss."""
        torch.manual_seed(seed_from(self.seed, "dropout", step, rank()))  # of every device
        set_rate(self.optimizer, self._rate(step), 0.5**self.restarts)
        total = torch.zeros((), device=self.fabric.device)
        parts = self.settings.accumulate
        for part in range(parts):
            x0, x1 = _alone_if_it_fails(pairs)
            with self.fabric.no_backward_sync(self.model, enabled=processes() > 1 and part + 1 < parts):
                loss = self.model(x0, x1).loss / parts
                self.fabric.backward(loss)
            total += loss.detach()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.method.after_step((step + 1) / self.total)
        if self.ema is not None:
            self.ema.update_parameters(self.method.backbone)
        return total

    def feed(self, first: int, total: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The pairs from one step up to ``total``."""
        pairs = self.pairs.from_step(first, total, self._layout)
        return prefetched(pairs) if self.choice.prefetch else pairs

    def prepare(self, choice: Choice) -> None:
        """Make the network and a fresh optimizer ready to run in a certain way."""
        self.choice = choice
        torch.set_num_threads(choice.threads)
        self.method.zero_grad()  # a trial that was broken off leaves some
        self.method.to(memory_format=self._layout)
        if choice.compile not in self._models:
            network: Any = torch.compile(self.method) if choice.compile else self.method
            self._models[choice.compile] = self.fabric.setup_module(network)
        self.model = self._models[choice.compile]
        optimizer = self.settings.of_method.optimizer
        if self.settings.lr is not None:
            optimizer = replace(optimizer, lr=self.settings.lr)
        self.optimizer = optimizer.build(self.method.param_groups())
        if self.settings.ema:
            average = get_ema_multi_avg_fn(self.settings.ema)
            self.ema = AveragedModel(self.method.backbone, multi_avg_fn=average, use_buffers=True)

    def _choice(self) -> Choice:
        """How to run the steps: as an earlier start of this run did, by a trial, or as torch does."""
        kept = run_folder.engine_file(self.folder)
        if self._agreed(kept.is_file())[0]:
            choice = run_folder.read_choice(self.folder)
            if choice.processes == self.engine.processes:
                return choice
        choice = Choice(torch.get_num_threads())
        if self.engine.processes > 1:
            choice = Choice(max(1, usable_cores() // self.engine.processes), processes=self.engine.processes)
        elif self.engine.tune:
            choice = self._trial(choice)
        self._by_first(partial(write_json, kept, asdict(choice)))
        return choice

    def _trial(self, start: Choice) -> Choice:
        initial = {name: tensor.clone() for name, tensor in self.method.state_dict().items()}
        on_cpu = self.fabric.device.type == "cpu"
        changes: list[dict[str, object]] = [{"channels_last": True}, {"prefetch": True}]
        changes += [{"threads": start.threads // 2}] if on_cpu and start.threads > 1 else []
        # A compiled network takes one batch size.
        changes += [{"compile": True}] if self.settings.drop_last and (can_compile() or not on_cpu) else []
        choice, seconds = fastest(self.seconds_a_step, start, self.total, changes, self.observer.say)
        self.method.load_state_dict(initial)
        if seconds:
            self.observer.say(f"{choice}: chosen by a trial of {seconds:.0f} s (--tune off leaves it)")
        return choice

    def seconds_a_step(self, choice: Choice, steps: int) -> float:
        """Run steps to warm up and then so many, in a certain way; what they learn is to be thrown away."""
        self.prepare(choice)
        pairs = self.feed(0, steps + WARM_UP)
        for step in range(WARM_UP):
            self.train_step(step, pairs).item()
        began = time.perf_counter()
        for step in range(steps):
            self.train_step(step, pairs).item()
        return (time.perf_counter() - began) / steps

    def epochs_in(self, seconds: float) -> int:
        """How many epochs so much time is enough for, at least one; by a trial, after which the run is of no use."""
        seconds_an_epoch = self.seconds_a_step(self._choice(), TRIAL_STEPS) * self.per_epoch
        return max(1, int(seconds / seconds_an_epoch))

    def _rate(self, step: int) -> float:
        if self.settings.schedule == "constant":
            return 1.0
        return cosine_with_warmup(step, self.total, round(self.settings.warmup_epochs * self.per_epoch))

    def _check_views(self, views: Views) -> None:
        """Whether images, views and backbone suit each other, before any work is done."""
        images = self.source.read(evenly_spaced(self.source))
        if len(images) > 1 and (images == images[:1]).all():
            raise InputError(f"images: the {len(images)} looked at are all the same. Pass images that differ.")
        if self.each_epoch is not None:  # it sees images as they are
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
                f"views of {height}x{width} pixels: not what backbone {self.settings.backbone} takes. "
                "Choose another backbone, such as resnet18, or larger images."
            ) from None
        finally:
            self.method.train()

    def _batch_size(self) -> int:
        size = self.settings.batch_size or self.settings.of_method.batch_size
        parts = self.settings.accumulate * self.engine.processes
        if len(self.source) < 2 * parts:
            raise InputError(f"{len(self.source)} images: pretraining needs at least {2 * parts} here. Add images.")
        if parts > 1 and not self.settings.drop_last:
            raise InputError(f"drop_last False: an incomplete batch cannot be cut into {parts} equal parts.")
        if size % parts or size < 2 * parts:
            raise InputError(
                f"batch size {size}: cannot be cut into {parts} equal parts of at least 2 images "
                f"({self.engine.processes} processes, {self.settings.accumulate} parts each). Choose a multiple."
            )
        return min(size, len(self.source) // parts * parts)

    @property
    def _layout(self) -> torch.memory_format:
        return torch.channels_last if self.choice.channels_last else torch.contiguous_format

    @property
    def _read_every(self) -> int:
        return 1 if self.fabric.device.type == "cpu" else LOSSES_READ_EVERY

    def _agreed(self, *flags: bool) -> list[bool]:
        """Each flag, if it is up in any process: all must do the same after the same step."""
        return [bool(flag) for flag in summed(torch.tensor(flags, dtype=torch.int32, device=self.fabric.device))]

    def _by_first(self, action: Callable[[], object]) -> None:
        """Done by the first process while the others wait; if it fails, all stop."""
        failure: Exception | None = None
        if rank() == 0:
            try:
                action()
            except Exception as error:
                failure = error
        if self._agreed(failure is not None)[0]:
            raise failure or InputError("the first process stopped, and says why.")

    def _observe(self, losses: list[Tensor], step: int) -> Verdict | None:
        """Show the losses up to a step, and have the guard look."""
        values: list[float] = (summed(torch.stack(losses)) / processes()).tolist()
        losses.clear()
        if all(map(math.isfinite, values)):
            for back, loss in enumerate(values):
                self.observer.step(step - len(values) + back + 1, loss)
        if rank() != 0:
            return None
        verdict = self.guard.look(self.method, step, values)
        if self.guard.looks_at(step):
            self.observer.log(self.guard.figures(), step)
            if self.guard.sound:
                self.sound = self.saved
        return verdict

    def _goes_back(self, verdict: Verdict | None) -> bool:
        """Say the verdict of the first process; whether the run is to go back.

        Raises:
            Collapsed: if it is to stop.
        """
        wish = self.engine.on_collapse
        back = verdict is not None and wish == "restart" and verdict.cause == "learning rate"
        back = back and self.sound is not None and self.restarts < RESTARTS
        stop = verdict is not None and not back and (wish != "warn" or verdict.lost)
        back, stop = self._agreed(back, stop)
        if stop:
            if verdict is None:
                raise InputError("the first process stopped, and says why.")
            raise Collapsed(verdict, f"{self.settings.method}: {verdict}")
        if verdict is not None and (back or not any(line.startswith(verdict.kind) for line in self.verdicts)):
            self.verdicts.append(str(verdict))
            self.observer.say(f"{self.settings.method}: {verdict}")
            if not back:
                self._note_verdicts()
        return back

    def _go_back(self) -> int:
        """Take up the last sound checkpoint, with half its learning rate; returns its step."""
        self.restarts += 1
        self._by_first(self._discard_unsound)
        self._by_first(self._note_verdicts)
        kept = self._kept()
        if kept is None:
            raise InputError(f"{self.folder}: no checkpoint is left to go back to. Start anew.")
        step = self._restore(*kept)
        self._agreed(False)  # none may write before all have read
        self.sound = step
        self.observer.say(f"back at step {step:,} with half the learning rate (restart {self.restarts} of {RESTARTS})")
        return step

    def _discard_unsound(self) -> None:
        discard_after(run_folder.checkpoints_folder(self.folder), self.sound or 0)

    def _guard(self, views: Views) -> Guard:
        images = self.source.read(evenly_spaced(self.source, LOOKED_AT)).to(self.fabric.device)
        lr = self.settings.lr or self.settings.of_method.optimizer.lr
        key = (self.seed, "guard")
        return Guard(images, lambda x, v: views(x, (*key, v)), self.batch_size // self.settings.accumulate, lr)

    def _checkpoint(self, step: int) -> None:
        self._by_first(partial(self._write_checkpoint, step))
        self.saved = step

    def _write_checkpoint(self, step: int) -> None:
        buffer = io.BytesIO()
        torch.save(self.optimizer.state_dict(), buffer)
        state: dict[str, Any] = {"decided": self.decided, "observer": self.observer.state()}
        state |= {"guard": self._guard_state(), "by_epoch": self.by_epoch}
        files = {
            "method.safetensors": weights_bytes(self.method, {"kind": "method", "method": self.settings.method}),
            "optimizer.pt": buffer.getvalue(),
            "state.json": json.dumps(state).encode(),
        }
        if self.ema is not None:
            files["ema.safetensors"] = weights_bytes(self.ema, {"kind": "ema"})
        write_checkpoint(run_folder.checkpoints_folder(self.folder), step, files, also_kept=self.sound)

    def _guard_state(self) -> dict[str, Any]:
        mine = {"verdicts": self.verdicts, "restarts": self.restarts, "sound": self.sound}
        return {**mine, **self.guard.state()}

    def _note_verdicts(self) -> None:
        """Beside the checkpoints, since a run that goes back forgets them."""
        write_json(run_folder.verdicts_file(self.folder), {"restarts": self.restarts, "verdicts": self.verdicts})

    def _recall_verdicts(self) -> None:
        file = run_folder.verdicts_file(self.folder)
        if self._agreed(file.is_file())[0]:
            with run_folder.refusing_damage(file):
                noted = json.loads(file.read_text())
                self.restarts, self.verdicts = int(noted["restarts"]), list(noted["verdicts"])

    def _kept(self) -> tuple[int, dict[str, bytes]] | None:
        """Step and files of the newest checkpoint."""
        # The first process sets damaged ones aside before the others look.
        self._by_first(self._newest)
        return self._newest()

    def _newest(self) -> tuple[int, dict[str, bytes]] | None:
        return newest_checkpoint(run_folder.checkpoints_folder(self.folder), self.observer.say)

    def _restore(self, step: int, files: dict[str, bytes]) -> int:
        state = json.loads(files["state.json"])
        run_folder.refuse_others(f"{self.folder}: holds a run", state["decided"], self.decided)
        load_exactly(self.method, load(files["method.safetensors"]), self.folder)
        optimizer = torch.load(io.BytesIO(files["optimizer.pt"]), weights_only=True, map_location=self.fabric.device)
        self.optimizer.load_state_dict(optimizer)
        if self.ema is not None:
            load_exactly(self.ema, load(files["ema.safetensors"]), self.folder)
        self.observer.restore(step, state["observer"])
        self.guard.restore(state["guard"])
        self.by_epoch = state["by_epoch"]
        self.saved, self.sound = step, state["guard"]["sound"]
        return step

    def _measure(self, epoch: int) -> None:
        if self.each_epoch is None:
            return
        figures = self.each_epoch(self.method.backbone)
        self.method.train()
        self.by_epoch.append({"epoch": epoch, **figures})
        self.observer.log(figures, epoch * self.per_epoch)

    def _keep(self, epoch: int) -> None:
        with written_whole(run_folder.kept_folder(self.folder, epoch)) as temporary:
            temporary.mkdir()
            self._save_result(temporary)

    def _save_result(self, folder: Path) -> None:
        backbone = self.method.backbone if self.ema is None else self.ema.module
        save_backbone(backbone, folder / "backbone.safetensors", self.settings.backbone)
        save_weights(self.method, folder / "method.safetensors", {"kind": "method", "method": self.settings.method})
        state: dict[str, Any] = {"decided": self.decided, **self.observer.state()}
        state |= {"guard": self._guard_state(), "by_epoch": self.by_epoch}
        write_json(folder / "state.json", state)


def _alone_if_it_fails(pairs: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The next pair; an error is marked as one that other processes do not have."""
    try:
        return next(pairs)
    except InputError as error:
        error.alone = processes() > 1
        raise


def _named(views: Views) -> str:
    return getattr(views, "__name__", str(views))
