"""Networks that turn images into features."""

from collections.abc import Callable

from torch import Tensor, nn
from torchvision.models import resnet18

from fewlabels.errors import InputError


class Backbone(nn.Module):
    """Float [B, channels, H, W] in [0, 1] to features [B, num_features]."""

    channels: int
    num_features: int
    image_size: int | None
    """Height and width in pixels; None: any."""


class ArticleBackbone(nn.Sequential, Backbone):
    """The tutorial's three strided convolutions: float [B, C, 28, 28] to [B, 2048].

    The order conv, ReLU, batch norm is the tutorial's own.
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


class ResNet18(Backbone):
    """ResNet-18 (He et al. 2016) with the stem for small images: float [B, C, H, W] to [B, 512].

    The stem is one 3x3 convolution of stride 1 and no pooling, as SimCLR has it on CIFAR-10 (appendix B.9).
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.network = resnet18()
        self.network.conv1 = nn.Conv2d(channels, 64, kernel_size=3, padding=1, bias=False)
        self.network.maxpool = nn.Identity()
        self.network.fc = nn.Identity()
        nn.init.kaiming_normal_(self.network.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.channels = channels
        self.image_size = None
        self.num_features = 512

    def forward(self, x: Tensor) -> Tensor:
        """x: float [B, C, H, W]."""
        features: Tensor = self.network(x)
        return features


BACKBONES: dict[str, Callable[[int], Backbone]] = {"article": ArticleBackbone, "resnet18": ResNet18}
"""Name to constructor; the argument is the number of channels."""


def make_backbone(name: str, channels: int) -> Backbone:
    """A backbone by name, with fresh weights.

    Raises:
        InputError: if the name is unknown.
    """
    if name not in BACKBONES:
        raise InputError(f"backbone {name!r}: no such backbone. Choose one of {', '.join(BACKBONES)}.")
    return BACKBONES[name](channels)
