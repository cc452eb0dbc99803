"""A backbone with a head that names classes."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.models.backbones import make_backbone
from fewlabels.seeding import seeded


class Classifier(nn.Module):
    """A backbone and a head: float [B, C, H, W] to logits [B, K].

    Args:
        backbone: a name in :data:`~fewlabels.models.backbones.BACKBONES`.
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
        with seeded(seed, "init"):
            self.backbone = make_backbone(backbone, channels)
            features, classes = self.backbone.num_features, len(self.class_names)
            self.head: nn.Module = nn.Linear(features, classes)
            if hidden:
                self.head = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.backbone(x)
        if not self.hidden:
            features = F.normalize(features, dim=1) * features.shape[1] ** 0.5
        logits: Tensor = self.head(features)
        return logits
