"""A backbone with a head that names classes."""

from collections.abc import Sequence

from torch import Tensor, nn

from fewlabels.models.backbones import make_backbone
from fewlabels.seeding import seeded


class Classifier(nn.Module):
    """Backbone and two-layer head of the tutorial: float [B, C, H, W] to logits [B, K].

    Args:
        backbone: a name in :data:`~fewlabels.models.backbones.BACKBONES`.
        class_names: the K classes.
        channels: C.
        seed: initial weights are a function of it alone.
    """

    def __init__(self, backbone: str, class_names: Sequence[str], channels: int = 1, seed: int = 0) -> None:
        super().__init__()
        self.backbone_name = backbone
        self.class_names = tuple(class_names)
        with seeded(seed, "init"):
            self.backbone = make_backbone(backbone, channels)
            self.head = nn.Sequential(
                nn.Linear(self.backbone.num_features, 32),
                nn.ReLU(),
                nn.Linear(32, len(self.class_names)),
            )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(x))
        return logits
