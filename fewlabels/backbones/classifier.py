"""An image classifier: a backbone and a head."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels._internal.seeding import seeded
from fewlabels.backbones.architectures import make_backbone
from fewlabels.data.preprocessing import Preprocessing

ABSENT_LOGIT = -1e4
"""Logit of a class without labels, which is then never predicted."""
MIRRORED, SHIFTED = 2, 6
"""Numbers of test views of :func:`shifted_and_mirrored`: an image and its mirror image, or also two shifts of both."""


class Classifier(nn.Module):
    """A classifier of a backbone and a head: float [B, C, H, W] to logits [B, K].

    With :attr:`test_views`, logits in evaluation mode are the mean over views of :func:`shifted_and_mirrored`. This
    reduces errors and multiplies the cost. It fits images whose mirror image is as likely.

    Args:
        backbone: a name in :data:`~fewlabels.backbones.architectures.BACKBONES`.
        class_names: names of the K classes.
        channels: C.
        seed: of the initial weights.
        hidden: width of the head's hidden layer, as in the tutorial. 0: the head is linear, on features with a mean
            square of 1.
    """

    def __init__(
        self, backbone: str, class_names: Sequence[str], channels: int = 1, seed: int = 0, hidden: int = 0
    ) -> None:
        super().__init__()
        self.backbone_name = backbone
        self.class_names = tuple(class_names)
        self.hidden = hidden
        self.test_views = 0
        """Number of test views: 0 (only the image), :data:`MIRRORED` or :data:`SHIFTED`."""
        self.preprocessing: Preprocessing | None = None
        """Preprocessing of the training images; None: unknown."""
        self.thresholds: dict[str, float] = {}
        """Lowest probability with a precision, by precision such as ``0.95``; above 1: no probability has it."""
        with seeded(seed, "init"):
            self.backbone = make_backbone(backbone, channels)
            features, classes = self.backbone.num_features, len(self.class_names)
            self.head: nn.Module = nn.Linear(features, classes)
            if hidden:
                self.head = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits [B, K] of x, float [B, C, H, W]."""
        if self.training or not self.test_views:
            return self._of_one_view(x)
        views = [self._of_one_view(view) for view in shifted_and_mirrored(x, self.test_views)]
        return torch.stack(views).mean(dim=0)

    def _of_one_view(self, x: Tensor) -> Tensor:
        features: Tensor = self.backbone(x)
        if not self.hidden:
            features = F.normalize(features, dim=1) * features.shape[1] ** 0.5
        logits: Tensor = self.head(features)
        return logits

    def set_head(self, head: np.ndarray) -> None:
        """Set the weights of the linear head: float [K, F + 1], the bias last.

        Raises:
            TypeError: if the head has a hidden layer.
        """
        linear = self._linear_head()
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(head[:, :-1]))
            linear.bias.copy_(torch.from_numpy(head[:, -1]))

    def rescale_logits(self, scale: float, offsets: np.ndarray, absent: np.ndarray) -> None:
        """Change the head's weights so that logits become ``scale * logits + offsets``.

        Args:
            scale: factor of all logits.
            offsets: float [K].
            absent: int64, classes whose logit becomes ``ABSENT_LOGIT``.

        Raises:
            TypeError: if the head has a hidden layer.
        """
        linear = self._linear_head()
        with torch.no_grad():
            linear.weight.mul_(scale)
            linear.bias.mul_(scale).add_(torch.from_numpy(offsets))
            linear.weight[absent] = 0
            linear.bias[absent] = ABSENT_LOGIT

    def _linear_head(self) -> nn.Linear:
        if not isinstance(self.head, nn.Linear):
            raise TypeError("the head has a hidden layer")
        return self.head


def shifted_and_mirrored(images: Tensor, views: int = SHIFTED) -> Iterator[Tensor]:
    """Yield test views of images: unchanged, shifted up and left, shifted down and right, each followed by its mirror.

    The shift is 1/28 of the size, at least one pixel; the border is repeated.

    Args:
        images: float [B, C, H, W].
        views: number of views: 2, 4 or 6.
    """
    height, width = images.shape[2:]
    down, right = max(1, round(height / 28)), max(1, round(width / 28))
    wider = F.pad(images, (right, right, down, down), mode="replicate")
    for times in (1, 2, 0)[: views // 2]:
        view = wider[:, :, times * down : times * down + height, times * right : times * right + width]
        yield view
        yield view.flip(-1)
