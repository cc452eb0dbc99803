"""The residual block of the network for small images."""

from torch import Tensor, nn
from torch.nn import functional as F


class Residual(nn.Module):
    """A residual block of two 3x3 convolutions (He et al. 2016, section 3).

    It maps float [B, inner, H, W] to [B, outer, H / stride, W / stride].
    """

    def __init__(self, inner: int, outer: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(inner, outer, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(outer)
        self.second = nn.Conv2d(outer, outer, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outer)
        self.around: nn.Module = nn.Identity()
        if inner != outer or stride != 1:
            self.around = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block's output for x, float [B, inner, H, W]."""
        y = F.relu(self.first_norm(self.first(x)), inplace=True)
        return F.relu(self.second_norm(self.second(y)).add_(self.around(x)), inplace=True)
