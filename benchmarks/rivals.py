"""Other pipelines and libraries that the speed of pretraining and of views is compared with."""

import os
import time
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import Any

os.environ.setdefault("LIGHTLY_DID_VERSION_CHECK", "True")  # or its import asks a server for updates

import kornia.augmentation as K
import torch
from lightly.data import LightlyDataset
from lightly.loss import NegativeCosineSimilarity
from lightly.transforms.simsiam_transform import SimSiamTransform
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import RandAugment, v2
from torchvision.transforms.functional import to_tensor

from fewlabels.augment.recipes import RECIPES, Recipe
from fewlabels.backbones.architectures import ArticleBackbone
from fewlabels.data.source import ArraySource
from fewlabels.ssl.methods.simsiam import SimSiam
from fewlabels.tutorial.methods import SIMSIAM

Run = Callable[[int], float]
"""Trains for a number of steps and returns the seconds."""


def timed(step: Callable[[], object]) -> Run:
    """Return a loop over single steps that returns its duration."""

    def run(steps: int) -> float:
        began = time.perf_counter()
        for _ in range(steps):
            step()
        return time.perf_counter() - began

    return run


class _Pictures(Dataset[tuple[Any, int]]):
    """A data set of PIL images, as torchvision's FashionMNIST; ``transform`` as there."""

    def __init__(self, source: ArraySource, transform: Callable[[Image.Image], Any] | None) -> None:
        self.images, self.transform = source.images[:, 0], transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = Image.fromarray(self.images[index])
        return (self.transform(image) if self.transform else image), 0


def _forever(loader: DataLoader[Any]) -> Iterator[Any]:
    return chain.from_iterable(repeat(loader))


def _network() -> tuple[SimSiam, torch.optim.Optimizer]:
    backbone = ArticleBackbone()
    network = SimSiam(backbone, backbone.num_features, SIMSIAM).train()
    return network, torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-5)


def article(source: ArraySource, batch: int) -> Run:
    """Return the tutorial's loop: PIL images, ToTensor, back to uint8, one RandAugment for the whole batch."""
    loader = _forever(DataLoader(_Pictures(source, to_tensor), batch_size=batch, shuffle=True))
    augment = RandAugment(num_ops=5)
    cosine = nn.CosineSimilarity(dim=1, eps=1e-6)
    network, optimizer = _network()

    def view(image: Tensor) -> Tensor:
        augmented: Tensor = augment((image * 255).to(dtype=torch.uint8))
        return augmented.to(dtype=torch.float32) / 255.0

    def step() -> None:
        image, _ = next(loader)
        optimizer.zero_grad()
        x0, x1 = view(image), view(image)
        z0, z1 = network.backbone(x0), network.backbone(x1)
        p0, p1 = network.predictor(z0), network.predictor(z1)
        loss = -cosine(p0, z1.detach()).mean() / 2 - cosine(p1, z0.detach()).mean() / 2
        loss.backward()
        optimizer.step()
        loss.item()  # the tutorial hands the loss to its logger

    return timed(step)


def lightly(source: ArraySource, batch: int, workers: int) -> Run:
    """Return the SimSiam loop of lightly's documentation with the tutorial's network.

    It has lightly's dataset, views and loss, and a DataLoader. Views have 28 pixels and are gray, which is faster than
    RGB. They have no blur, as lightly advises for small images.
    """
    views = SimSiamTransform(input_size=28, gaussian_blur=0.0, normalize=None)
    dataset = LightlyDataset.from_torch_dataset(_Pictures(source, None), transform=views)
    loader = DataLoader(
        dataset, batch_size=batch, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0
    )
    batches = _forever(loader)
    criterion = NegativeCosineSimilarity()
    network, optimizer = _network()

    def step() -> None:
        x0, x1 = next(batches)[0]
        z0, z1 = network.backbone(x0), network.backbone(x1)
        p0, p1 = network.predictor(z0), network.predictor(z1)
        loss = 0.5 * (criterion(z0.detach(), p1) + criterion(z1.detach(), p0))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    run = timed(step)

    def then_wait(steps: int) -> float:
        seconds = run(steps)
        time.sleep(2 if workers else 0)  # its workers fill their queue, which would slow down the next pipeline
        return seconds

    return then_wait


def torchvision_views(name: str, size: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """Return a recipe in torchvision's v2, image by image: in a batch all images would get the same parameters."""
    recipe = RECIPES[name]
    if isinstance(recipe, Recipe):
        ops: list[Any] = [
            v2.RandomResizedCrop(recipe.size or size, recipe.crop_area, recipe.crop_ratio, antialias=False),
            v2.RandomHorizontalFlip(recipe.flip),
        ]
        if recipe.rotate or recipe.shear:
            ops.append(v2.RandomAffine(recipe.rotate, shear=recipe.shear))
        jitter = v2.ColorJitter(recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue)
        ops.append(v2.RandomApply([jitter], p=recipe.jitter))
        if recipe.gamma:
            ops.append(_Gamma(recipe.gamma))
        if recipe.grayscale:
            ops.append(v2.RandomGrayscale(recipe.grayscale))
        if recipe.blur:
            ops.append(v2.RandomApply([v2.GaussianBlur(23, recipe.blur_sigma)], p=recipe.blur))
    else:
        ops = [v2.RandAugment(recipe.num_ops, recipe.magnitude)]
    views = v2.Compose([*ops, v2.ToDtype(torch.float32, scale=True)])
    return lambda images: torch.stack([views(image) for image in images])


class _Gamma(nn.Module):
    """Random gamma: v2 has it as a function only, not as a class."""

    def __init__(self, reach: float) -> None:
        super().__init__()
        self.reach = reach

    def forward(self, image: Tensor) -> Tensor:
        exponent = (1 + self.reach) ** float(torch.empty(()).uniform_(-1, 1))
        adjusted: Tensor = v2.functional.adjust_gamma(image, exponent)
        return adjusted


def kornia_views(name: str, size: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """Return a recipe in kornia, batch by batch; its RandAugment is for RGB only, with one draw for the batch."""
    recipe = RECIPES[name]
    if isinstance(recipe, Recipe):
        wanted = (recipe.size, recipe.size) if recipe.size else size
        ops: list[Any] = [
            K.RandomResizedCrop(wanted, recipe.crop_area, recipe.crop_ratio),
            K.RandomHorizontalFlip(p=recipe.flip),
        ]
        if recipe.rotate or recipe.shear:
            ops.append(K.RandomAffine(recipe.rotate, shear=recipe.shear, p=1.0))
        jitter = (recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue)
        ops.append(
            K.ColorJiggle(*jitter, p=recipe.jitter) if any(jitter[1:]) else K.RandomBrightness((0.6, 1.4), p=1.0)
        )
        if recipe.gamma:
            ops.append(K.RandomGamma((1 / (1 + recipe.gamma), 1 + recipe.gamma), p=1.0))
        if recipe.grayscale:
            ops.append(K.RandomGrayscale(p=recipe.grayscale))
        if recipe.blur:
            ops.append(K.RandomGaussianBlur((23, 23), recipe.blur_sigma, p=recipe.blur))
        views: Any = nn.Sequential(*ops)
    else:
        views = K.auto.RandAugment(n=recipe.num_ops, m=recipe.magnitude)
    return lambda images: views(images.float() / 255)
