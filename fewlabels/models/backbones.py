"""Networks that turn images into features."""

from collections.abc import Callable

from torch import nn


class ArticleBackbone(nn.Sequential):
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


BACKBONES: dict[str, Callable[[int], ArticleBackbone]] = {"article": ArticleBackbone}
"""Name to constructor; the argument is the number of channels."""
