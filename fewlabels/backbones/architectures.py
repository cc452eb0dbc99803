"""Backbones: networks that compute features of images."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fewlabels._internal.errors import InputError, did_you_mean, refuse_unknown
from fewlabels.backbones.residual import Residual


class Backbone(nn.Module):
    """A network from images, float [B, channels, H, W] in [0, 1], to features [B, num_features]."""

    channels: int
    num_features: int
    image_size: int | None
    """Height and width of images in pixels; None: any size."""


class ArticleBackbone(nn.Sequential, Backbone):
    """The tutorial's network of three strided convolutions: float [B, C, 28, 28] to [B, 2048].

    As in the tutorial, the ReLU comes before the batch norm.
    """

    def __init__(self, channels: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels, 32, kernel_size=3, stride=2, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(32),
            nn.Conv2d(32, 64, kernel_size=3, stride=2, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(64),
            nn.Conv2d(64, 128, kernel_size=3, stride=2, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(128),
            nn.Flatten(),
        )
        self.channels = channels
        self.image_size = 28
        self.num_features = 128 * 4 * 4


class _PooledTo4(nn.AdaptiveAvgPool2d):
    """Average pooling to 4x4 positions; it is skipped for inputs of that size, to save time."""

    def __init__(self) -> None:
        super().__init__(4)

    def forward(self, x: Tensor) -> Tensor:
        return x if x.shape[2:] == (4, 4) else super().forward(x)


class SmallBackbone(Backbone):
    """A residual network for small images: float [B, C, H, W] to [B, 16 * last width], pooled to 4x4 positions.

    It has a strided convolution and one residual block per width; all blocks but the first are strided.
    """

    def __init__(self, channels: int, widths: Sequence[int] = (48, 96, 128)) -> None:
        super().__init__()
        stem = nn.Conv2d(channels, widths[0], 3, 2, padding=1, bias=False)
        blocks = [Residual(widths[0], widths[0]), *(Residual(*pair, stride=2) for pair in pairwise(widths))]
        layers = [stem, nn.BatchNorm2d(widths[0]), nn.ReLU(), *blocks, _PooledTo4(), nn.Flatten()]
        self.network = nn.Sequential(*layers)
        self.channels = channels
        self.image_size = None
        self.num_features = 16 * widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Compute features of x, float [B, C, H, W]."""
        features: Tensor = self.network(x)
        return features


class ResNet(Backbone):
    """ResNet (He et al. 2016) with a stem for small images: float [B, C, H, W] to [B, num_features].

    The stem is one 3x3 convolution of stride 1 without pooling, as in SimCLR on CIFAR-10 (appendix B.9).
    """

    def __init__(self, name: str, channels: int) -> None:
        super().__init__()
        from torchvision.models import get_model  # it takes as long to import as torch, and is rarely needed

        self.network = get_model(name)
        self.num_features = self.network.fc.in_features
        self.network.conv1 = nn.Conv2d(channels, 64, kernel_size=3, padding=1, bias=False)
        self.network.maxpool = nn.Identity()
        self.network.fc = nn.Identity()
        nn.init.kaiming_normal_(self.network.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.channels = channels
        self.image_size = None

    def forward(self, x: Tensor) -> Tensor:
        """Compute features of x, float [B, C, H, W]."""
        features: Tensor = self.network(x)
        return features


class TimmBackbone(Backbone):
    """Any network of timm (Wightman 2019) without its classifier: float [B, C, H, W] to [B, num_features].

    Args:
        name: of a timm model, such as ``vit_tiny_patch16_224``.
        channels: C.
        weights: a safetensors file with timm's pretrained weights of this model; None: random initial weights. If C is
            not 3, timm sums or repeats the weights of the first layer over channels.

    Raises:
        InputError: if timm is not installed or has no such model, or the weights are of another network.
    """

    def __init__(self, name: str, channels: int, weights: Path | None = None) -> None:
        super().__init__()
        try:
            import timm
        except ModuleNotFoundError:
            raise InputError(
                f"backbone timm/{name}: timm is not installed. Run: pip install 'fewlabels[timm]'"
            ) from None
        if name.split(".")[0] not in timm.list_models():
            meant = did_you_mean(name, timm.list_models(), 3, "timm/") or " timm.list_models() has the names."
            raise InputError(f"backbone timm/{name}: timm has no such network.{meant}")
        options: dict[str, Any] = {}
        if weights is not None:
            if weights.suffix != ".safetensors" or not weights.is_file():  # timm would unpickle other file types
                raise InputError(f"{weights}: no such .safetensors file. Name one with timm's weights of {name}.")
            options = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(weights)}}
        before = torch.get_rng_state()
        try:
            self.network: Any = timm.create_model(name, num_classes=0, in_chans=channels, **options)
        except (RuntimeError, ValueError, KeyError) as error:
            why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError(f"backbone timm/{name}: {weights or 'cannot be built'}: {why}") from None
        if weights is not None:
            torch.set_rng_state(before)
            self._refuse_unchanged(timm.create_model(name, num_classes=0, in_chans=channels), weights)
        self.channels = channels
        about = self.network.pretrained_cfg
        self.image_size = about["input_size"][-1] if about.get("fixed_input_size") else None
        self.num_features = getattr(self.network, "head_hidden_size", None) or self.network.num_features

    def _refuse_unchanged(self, initial: nn.Module, weights: Path) -> None:
        """Refuse a file that has left some weights at their random initial values; timm only logs this."""
        for name, value in initial.named_parameters():
            if value.ndim > 1 and value.std() > 0 and torch.equal(value, self.network.get_parameter(name)):
                raise InputError(f"{weights}: weights of another architecture (it has no {name}).")

    def forward(self, x: Tensor) -> Tensor:
        """Compute features of x, float [B, C, H, W]."""
        features: Tensor = self.network(x)
        return features


BACKBONES: dict[str, Callable[[int], Backbone]] = {
    "article": ArticleBackbone,
    "small": SmallBackbone,
    "resnet18": partial(ResNet, "resnet18"),
    "resnet50": partial(ResNet, "resnet50"),
}
"""Constructors by name, whose argument is the number of channels. :func:`make_backbone` also takes ``timm/NAME``."""


def default_backbone(name: str | None, shape: tuple[int, int, int]) -> str:
    """The given name, or the name of the default backbone for images of shape (C, H, W).

    The default for 28x28 pixels is the tutorial's backbone, so that results are comparable with it.
    """
    return name or ("article" if shape[1:] == (28, 28) else "small")


def make_backbone(name: str, channels: int, timm_weights: Path | None = None) -> Backbone:
    """Make a backbone by name, with random initial weights or with those of a timm file.

    Raises:
        InputError: if the name is unknown.
    """
    if name.startswith("timm/"):
        return TimmBackbone(name.removeprefix("timm/"), channels, timm_weights)
    refuse_unknown("backbone", name, BACKBONES, ", or timm/NAME")
    return BACKBONES[name](channels)


def refuse_size(what: str, height: int, width: int, name: str, image_size: int | None) -> None:
    """Refuse images or views whose size a backbone with a fixed ``image_size`` does not take.

    Raises:
        InputError: naming both sizes, in pixels.
    """
    if image_size is not None and (height, width) != (image_size, image_size):
        raise InputError(
            f"{what} of {height}x{width} pixels: backbone {name} takes {image_size}x{image_size}. "
            "Choose a backbone that takes any size, such as resnet18."
        )


@cache
def forward_operations(name: str, shape: tuple[int, int, int]) -> int:
    """Number of floating-point operations of a backbone for one image of shape (C, H, W).

    Raises:
        InputError: if the backbone is unknown or does not take images of this size.
    """
    channels, height, width = shape
    backbone = make_backbone(name, channels).eval()
    refuse_size("images", height, width, name, backbone.image_size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone(torch.zeros(1, *shape))
    return int(counter.get_total_flops())
