"""Named recipes of random views (augmentation)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from fewlabels._internal.errors import InputError
from fewlabels._internal.seeding import uniform
from fewlabels.augment import geometry, photometric
from fewlabels.augment.geometry import Floats

_DRAWS = (
    *("flip", "crop area", "crop ratio", "crop top", "crop left", "rotate", "shear x", "shear y", "scale"),
    *("right", "down", "jitter", "brightness", "contrast", "saturation", "hue", "gamma", "solarize", "grayscale"),
    *("blur", "blur sigma", "erase", "erase area", "erase ratio", "erase top", "erase left"),
)
"""Uses of an image's random numbers, in order; all are drawn for every recipe, whether it uses them or not."""
_COLUMNS = 28
"""Random numbers per image; the unused ones are reserved, so that a new operation changes no other random number."""

Draws = dict[str, Floats]
Range = tuple[float, float]


def _between(low_high: Range, u: Floats) -> Floats:
    """Uniform numbers in a range, from u in [0, 1)."""
    return low_high[0] + (low_high[1] - low_high[0]) * u


def _plus_minus(limit: float, u: Floats) -> Floats:
    """Uniform numbers in [-limit, limit), from u in [0, 1)."""
    return limit * (2 * u - 1)


@dataclass(frozen=True)
class Recipe:
    """Random views: geometric operations in one interpolation, then colour, blur and erasing. By default all are off.

    A view depends on the image, the key and the image's position in the global batch. It does not depend on other
    images, the number of processes or, but for rounding, the device.
    """

    size: int | None = None
    """Height and width of the views in pixels; None: the images' size."""
    crop_area: Range = (1.0, 1.0)
    """Area of the crop, as a fraction of the image's area."""
    crop_ratio: Range = (1.0, 1.0)
    """Width over height of the crop, relative to the image's; log-uniform."""
    flip: float = 0.0
    """Probability of a left-right flip."""
    rotate: float = 0.0
    """Largest rotation in degrees, in either direction."""
    shear: float = 0.0
    """Largest shear in degrees, along x and along y, in either direction."""
    translate: float = 0.0
    """Largest shift in either direction, as a fraction of width and height."""
    scale: Range = (1.0, 1.0)
    """Factor of the size."""
    jitter: float = 1.0
    """Probability of brightness, contrast, saturation, hue and gamma together."""
    brightness: float = 0.0
    """The factor is uniform in 1 ± this value."""
    contrast: float = 0.0
    """The factor is uniform in 1 ± this value."""
    saturation: float = 0.0
    """The factor is uniform in 1 ± this value."""
    hue: float = 0.0
    """Largest shift in either direction, as a fraction of the colour circle."""
    gamma: float = 0.0
    """The exponent is log-uniform from 1 / (1 + this value) to 1 + this value."""
    solarize: float = 0.0
    """Probability of solarizing, with a threshold of 0.5."""
    grayscale: float = 0.0
    """Probability of conversion to gray."""
    blur: float = 0.0
    """Probability of a Gaussian blur."""
    blur_sigma: Range = (0.1, 2.0)
    """Standard deviation of the blur in pixels."""
    erase: float = 0.0
    """Probability of erasing a box."""
    erase_area: Range = (0.02, 0.2)
    """Area of the erased box, as a fraction of the view's area."""

    @property
    def needs_rgb(self) -> bool:
        """True if the recipe changes colours, so that it needs images with three channels."""
        return bool(self.saturation or self.hue or self.grayscale)

    def __str__(self) -> str:
        changed = [f"{f.name}={getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) != f.default]
        return f"{type(self).__name__}({', '.join(changed)})"

    def __call__(self, images: Tensor, key: tuple[int | str, ...], first_row: int = 0) -> Tensor:
        """Make one random view of each image.

        Args:
            images: uint8 [B, C, H, W].
            key: of the random numbers, such as (seed, step).
            first_row: position of the first image in the global batch.

        Returns:
            float32 [B, C, size, size] in [0, 1], on the images' device.

        Raises:
            InputError: if the recipe changes colours and C is not 3.
        """
        if self.needs_rgb and images.shape[1] != 3:
            raise InputError(
                f"views: this recipe changes colours, which needs 3 channels; the images have {images.shape[1]}. "
                "Choose gray-small or randaugment."
            )
        u = dict(zip(_DRAWS, uniform(len(images), _COLUMNS, *key, first_row=first_row).T, strict=False))
        view = images.float() / 255
        view = self._apply_geometry(view, u)
        view = self._apply_colour(view, u)
        return self._erase_box(view, u) if self.erase else view

    def _apply_geometry(self, images: Tensor, u: Draws) -> Tensor:
        height, width = images.shape[2:]
        result = (self.size, self.size) if self.size else (height, width)
        steps = []
        if self.rotate:
            steps.append(geometry.rotation(_plus_minus(self.rotate, u["rotate"])))
        if self.shear:
            steps.append(geometry.shear(*(_plus_minus(self.shear, u[name]) for name in ("shear x", "shear y"))))
        if self.scale != (1, 1):
            steps.append(geometry.scaling(_between(self.scale, u["scale"])))
        if self.translate:
            right, down = (_plus_minus(self.translate, u[name]) for name in ("right", "down"))
            steps.append(geometry.translation(right * width, down * height))
        if (self.crop_area, self.crop_ratio, result) != ((1, 1), (1, 1), (height, width)):
            steps.append(geometry.crop(*self._box(height, width, u), (height, width), result))
        if self.flip:
            steps.append(geometry.flip(u["flip"] < self.flip))
        if not steps:
            return images  # an interpolation would round
        return geometry.warp(images, geometry.compose(*steps), result)

    def _box(self, height: int, width: int, u: Draws) -> tuple[Floats, Floats, Floats, Floats]:
        """Top, left, height and width of the crops, in pixels."""
        area = _between(self.crop_area, u["crop area"])
        low, high = self.crop_ratio
        ratio = np.exp(_between((math.log(low), math.log(high)), u["crop ratio"]))
        box_height = height * np.sqrt(area / ratio).clip(max=1)
        box_width = width * np.sqrt(area * ratio).clip(max=1)
        return (height - box_height) * u["crop top"], (width - box_width) * u["crop left"], box_height, box_width

    def _apply_colour(self, view: Tensor, u: Draws) -> Tensor:
        def on_device(values: Floats) -> Tensor:
            return torch.from_numpy(values.astype(np.float32)).to(view.device)

        jittered = u["jitter"] < self.jitter
        for name in ("brightness", "contrast", "saturation"):
            limit = getattr(self, name)
            if limit:
                factor = np.where(jittered, 1 + _plus_minus(limit, u[name]), 1).clip(min=0)
                view = getattr(photometric, name)(view, on_device(factor))
        if self.hue:
            view = photometric.hue(view, on_device(np.where(jittered, _plus_minus(self.hue, u["hue"]), 0)))
        if self.gamma:
            exponent = np.exp(_plus_minus(math.log1p(self.gamma), u["gamma"]))
            view = photometric.gamma(view, on_device(np.where(jittered, exponent, 1)))
        if self.solarize:
            view = photometric.solarize(view, on_device(np.where(u["solarize"] < self.solarize, 0.5, 2)))
        if self.grayscale:
            view = photometric.grayscale(view, on_device(u["grayscale"]) < self.grayscale)
        if self.blur:
            sigma = np.where(u["blur"] < self.blur, _between(self.blur_sigma, u["blur sigma"]), 1e-3)
            smaller = min(view.shape[2:])
            # A tenth of the size, as in SimCLR (appendix A), and odd.
            view = photometric.blur(view, on_device(sigma), max(3, smaller // 10 // 2 * 2 + 1))
        return view

    def _erase_box(self, view: Tensor, u: Draws) -> Tensor:
        height, width = view.shape[2:]
        area = np.where(u["erase"] < self.erase, _between(self.erase_area, u["erase area"]), 0)
        ratio = np.exp(_plus_minus(math.log(3), u["erase ratio"]))
        box = geometry.pixel_box(height, width, area, ratio, u["erase top"], u["erase left"])
        return photometric.erase(view, *(torch.from_numpy(side).float().to(view.device) for side in box))


_SHIFT = 150 / 331
"""Shift of magnitude 30 as a fraction of the size, as in torchvision."""


@dataclass(frozen=True)
class RandAugment:
    """RandAugment (Cubuk et al. 2020): ``num_ops`` operations per image, each drawn from torchvision's 14.

    Unlike in torchvision, the geometric operations of an image come first and are applied by one interpolation.
    """

    num_ops: int = 2
    magnitude: int = 9
    """Strength of each operation, from 0 to 30."""

    def __call__(self, images: Tensor, key: tuple[int | str, ...], first_row: int = 0) -> Tensor:
        """Make one random view of each image; see :meth:`Recipe.__call__`."""
        rows = len(images)
        u = uniform(rows, 2 * self.num_ops, *key, first_row=first_row)
        chosen = (u[:, : self.num_ops] * 14).astype(int)  # [B, num_ops]
        sign = np.where(u[:, self.num_ops :] < 0.5, -1.0, 1.0)
        view = images.float() / 255
        strength = self.magnitude / 30
        # Images without a geometric operation are left out, since an interpolation would round.
        moved = np.flatnonzero(((chosen >= 1) & (chosen <= 5)).any(axis=1))
        if len(moved):
            size = images.shape[2:]
            steps = [self._matrix(chosen[moved, s], sign[moved, s] * strength, size) for s in range(self.num_ops)]
            view[moved] = geometry.warp(view[moved], geometry.compose(*steps))
        for slot in range(self.num_ops):
            for op in range(6, 14):
                which = torch.from_numpy(np.flatnonzero(chosen[:, slot] == op)).to(view.device)
                if len(which):
                    factor = torch.from_numpy(1 + 0.9 * strength * sign[:, slot]).float().to(view.device)[which]
                    view[which] = self._photometric(op, view[which], factor, strength)
        return view

    @staticmethod
    def _matrix(op: np.ndarray, signed: Floats, size: Sequence[int]) -> Floats:
        """Matrices of operations 1 to 5 (shear x and y, shift x and y, rotate); the identity for all others."""
        amount = [np.where(op == k, signed, 0.0) for k in range(1, 6)]
        return geometry.compose(
            geometry.shear(*(np.rad2deg(np.arctan(0.3 * each)) for each in amount[:2])),
            geometry.translation(amount[2] * _SHIFT * size[1], amount[3] * _SHIFT * size[0]),
            geometry.rotation(amount[4] * 30),
        )

    @staticmethod
    def _photometric(op: int, view: Tensor, factor: Tensor, strength: float) -> Tensor:
        """Apply one of operations 6 to 13."""
        match op:
            case 6:
                return photometric.brightness(view, factor)
            case 7:
                return photometric.saturation(view, factor)
            case 8:
                return photometric.contrast(view, factor)
            case 9:
                return photometric.sharpness(view, factor)
            case 10:
                return photometric.posterize(view, torch.full_like(factor, 8 - round(4 * strength)))
            case 11:
                return photometric.solarize(view, torch.full_like(factor, 1 - strength))
            case 12:
                return photometric.autocontrast(view)
            case _:
                return photometric.equalize(view)


RECIPES: dict[str, Recipe | RandAugment] = {
    # Gray images of single small objects: clothes, digits, cells.
    "gray-small": Recipe(
        crop_area=(0.4, 1.0), crop_ratio=(3 / 4, 4 / 3), flip=0.5, rotate=10, shear=5, brightness=0.4, gamma=0.5
    ),
    # SimCLR on CIFAR-10 (Chen et al. 2020, appendix B.9): no blur.
    "rgb-small": Recipe(
        crop_area=(0.08, 1.0),
        crop_ratio=(3 / 4, 4 / 3),
        flip=0.5,
        jitter=0.8,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.1,
        grayscale=0.2,
    ),
    # MoCo v2 and SimSiam on ImageNet (Chen & He 2021, appendix A).
    "imagenet": Recipe(
        size=224,
        crop_area=(0.2, 1.0),
        crop_ratio=(3 / 4, 4 / 3),
        flip=0.5,
        jitter=0.8,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.1,
        grayscale=0.2,
        blur=0.5,
    ),
    "randaugment": RandAugment(),
}


def default_recipe(channels: int) -> str:
    """Name of the default recipe for pretraining on small images."""
    return "rgb-small" if channels == 3 else "gray-small"


def fit_views(channels: int) -> tuple[Recipe, Recipe]:
    """A weak recipe, which changes an image little, and a strong one, for training with labels."""
    strong = RECIPES[default_recipe(channels)]
    assert isinstance(strong, Recipe)
    # A smaller crop may not show the labelled object.
    return Recipe(flip=0.5, translate=0.08), replace(strong, crop_area=(0.4, 1.0))
