"""Pretraining: one visible loop for every method."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewlabels.data.source import ImageSource
from fewlabels.errors import InputError
from fewlabels.files import write_json, written_whole
from fewlabels.methods import METHODS, Method
from fewlabels.models.backbones import BACKBONES
from fewlabels.models.weights import load_exactly, read_weights, save_backbone, save_weights
from fewlabels.observe import Observer
from fewlabels.seeding import generator, seeded

ViewFunction = Callable[..., Tensor]
"""(uint8 [B, C, H, W], key) to float32 [B, C, H, W]: a random view, a function of its arguments alone."""


@dataclass(frozen=True)
class PretrainSettings:
    """What is decided before pretraining."""

    method: str
    epochs: int
    backbone: str = "article"
    checkpoint_every: int = 10
    """Epochs between checkpoints; the last epoch always has one."""


def build_method(settings: PretrainSettings, channels: int, seed: int) -> Method:
    """The method around a fresh backbone; initial weights are a function of the seed."""
    if settings.method not in METHODS:
        raise InputError(f"method {settings.method!r}: no such method. Choose one of {', '.join(METHODS)}.")
    entry = METHODS[settings.method]
    with seeded(seed, "init", settings.method):
        backbone = BACKBONES[settings.backbone](channels)
        return entry.build(backbone, backbone.num_features, entry.settings)


def batches(num_images: int, batch_size: int, *key: int | str) -> Iterator[Tensor]:
    """Positions of one epoch in random order, int64; the last batch may be smaller, but never a single image.

    >>> [len(b) for b in batches(10, 4, 0, "order")]
    [4, 4, 2]
    """
    for batch in torch.randperm(num_images, generator=generator(*key)).split(batch_size):
        if len(batch) > 1:  # batch norm has no variance over one image
            yield batch


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """How many batches :func:`batches` gives."""
    full, rest = divmod(num_images, batch_size)
    return full + (rest > 1)


def pretrain(
    source: ImageSource,
    views: ViewFunction,
    settings: PretrainSettings,
    folder: Path,
    seed: int,
    observer: Observer,
    device: torch.device,
) -> Method:
    """Train a method's backbone on images alone; labels are never read.

    Leaves ``folder/epoch-N/`` every ``checkpoint_every`` epochs, each with ``backbone.safetensors``, and goes on
    from the last of them. Order and views depend on (seed, epoch, step) alone, so going on gives the same weights.
    """
    method = build_method(settings, source.shape[0], seed).to(device).train()
    defaults = METHODS[settings.method].settings
    optimizer = defaults.optimizer.build(method.param_groups())
    size = defaults.batch_size
    if len(source) < 2:
        raise InputError(f"{len(source)} image: pretraining needs at least 2. Add images.")
    per_epoch = steps_per_epoch(len(source), size)
    total = settings.epochs * per_epoch
    done = _resume(method, optimizer, observer, folder, settings)
    step = done * per_epoch
    with observer.watch(total, size, first_step=step):
        for epoch in range(done, settings.epochs):
            for indices in batches(len(source), size, seed, "order", epoch):
                images = source.read(indices)
                x0, x1 = (views(images, key=(seed, "view", view, step)).to(device) for view in (0, 1))
                output = method(x0, x1)
                optimizer.zero_grad()
                output.loss.backward()
                optimizer.step()
                step += 1
                method.after_step(step / total)
                observer.step(step, output.loss.item())
            if (epoch + 1) % settings.checkpoint_every == 0 or epoch + 1 == settings.epochs:
                _checkpoint(method, optimizer, observer, checkpoint_folder(folder, epoch + 1), settings)
    return method


def checkpoint_folder(folder: Path, epochs: int) -> Path:
    """Where a pretraining leaves its weights after so many epochs."""
    return folder / f"epoch-{epochs}"


def checkpointed_epochs(folder: Path) -> list[int]:
    """After how many epochs there is a checkpoint."""
    return [int(path.name.removeprefix("epoch-")) for path in folder.glob("epoch-*")]


def checkpoint_state(folder: Path, epochs: int) -> dict[str, Any]:
    """Loss curve and seconds of a pretraining up to this checkpoint."""
    state: dict[str, Any] = json.loads((checkpoint_folder(folder, epochs) / "state.json").read_text())
    return state


def _checkpoint(
    method: Method, optimizer: torch.optim.Optimizer, observer: Observer, folder: Path, settings: PretrainSettings
) -> None:
    with written_whole(folder) as temporary:
        temporary.mkdir()
        save_backbone(method.backbone, temporary / "backbone.safetensors", settings.backbone)
        save_weights(method, temporary / "method.safetensors", {"kind": "method", "method": settings.method})
        with (temporary / "optimizer.pt").open("wb") as file:
            torch.save(optimizer.state_dict(), file)
        write_json(temporary / "state.json", observer.state())


def _resume(
    method: Method,
    optimizer: torch.optim.Optimizer,
    observer: Observer,
    folder: Path,
    settings: PretrainSettings,
) -> int:
    """Load the newest checkpoint of at most ``settings.epochs``; the number of epochs it has done, or 0."""
    done = max((epochs for epochs in checkpointed_epochs(folder) if epochs <= settings.epochs), default=0)
    if done:
        last = checkpoint_folder(folder, done)
        load_exactly(method, read_weights(last / "method.safetensors")[0], last)
        optimizer.load_state_dict(torch.load(last / "optimizer.pt", weights_only=True))
        observer.restore(checkpoint_state(folder, done))
    return done
