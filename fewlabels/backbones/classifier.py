"""A backbone with a head that names classes."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels._internal.seeding import seeded
from fewlabels.backbones.architectures import make_backbone
from fewlabels.data.form import Preparation

MIRRORED, SHIFTED = 2, 6
"""Of :func:`shifted_and_mirrored`: an image and its mirror image, and all."""


class Classifier(nn.Module):
    """A backbone and a head: float [B, C, H, W] to logits [B, K].

    With :attr:`test_views` set, logits are the mean over so many views of :func:`shifted_and_mirrored` in evaluation
    mode: at so many times the cost it errs less. It suits images whose mirror image could be one of them.

    Args:
        backbone: a name in :data:`~fewlabels.backbones.architectures.BACKBONES`.
        class_names: the K classes.
        channels: C.
        seed: initial weights are a function of it alone.
        hidden: width of the head's hidden layer, as the tutorial has one; 0: the head is linear, on features that are
            scaled to a mean square of 1.
    """

    def __init__(
        self, backbone: str, class_names: Sequence[str], channels: int = 1, seed: int = 0, hidden: int = 0
    ) -> None:
        super().__init__()
        self.backbone_name = backbone
        self.class_names = tuple(class_names)
        self.hidden = hidden
        self.test_views = 0
        """0: the image as it is; else :data:`MIRRORED` or :data:`SHIFTED`."""
        self.preparation: Preparation | None = None
        """What was done with the images it has learned from; None: not known."""
        self.thresholds: dict[str, float] = {}
        """By wanted precision, such as ``0.95``: the probability from which on so many are right; above 1: none."""
        with seeded(seed, "init"):
            self.backbone = make_backbone(backbone, channels)
            features, classes = self.backbone.num_features, len(self.class_names)
            self.head: nn.Module = nn.Linear(features, classes)
            if hidden:
                self.head = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def forward(self, x: Tensor) -> Tensor:
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


def shifted_and_mirrored(images: Tensor, views: int = SHIFTED) -> Iterator[Tensor]:
    """Images [B, C, H, W] as they are, a little up and to the left, down and to the right; and each in the mirror.

    At most so many views, the image and its mirror image first. The shift is a 28th of the size, at least a pixel; what
    is missing repeats the border.
    """
    height, width = images.shape[2:]
    down, right = max(1, round(height / 28)), max(1, round(width / 28))
    wider = F.pad(images, (right, right, down, down), mode="replicate")
    for times in (1, 2, 0)[: views // 2]:
        view = wider[:, :, times * down : times * down + height, times * right : times * right + width]
        yield view
        yield view.flip(-1)
