"""Photometric operations on batches, with one parameter per image.

Images are float [B, C, H, W] in [0, 1], and so are results. Parameters are float [B] except where noted.
Each operation agrees with torchvision's functional operation of the same name if there is one.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.2989, 0.587, 0.114)
"""Weights of R, G and B in gray (ITU-R BT.601, as in PIL and torchvision)."""


def _per_image(parameter: Tensor) -> Tensor:
    return parameter[:, None, None, None]


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """Interpolate between ``other`` (factor 0) and the images (factor 1)."""
    return torch.lerp(other.expand_as(images), images, _per_image(factor)).clamp_(0, 1)


def _gray(images: Tensor) -> Tensor:
    """Gray images [B, 1, H, W]; images that are not RGB are averaged over their channels."""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True)
    red, green, blue = images.unbind(dim=1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[:, None]


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply pixel values by a factor >= 0."""
    return (images * _per_image(factor)).clamp_(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean gray value of the image; factor >= 0, 1 changes nothing."""
    return _blend(images, _gray(images).mean(dim=(1, 2, 3), keepdim=True), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blend RGB images with their gray version; factor >= 0, 1 changes nothing."""
    return _blend(images, _gray(images), factor)


def grayscale(images: Tensor, which: Tensor) -> Tensor:
    """Convert to gray, in all three channels, where ``which`` (bool [B]) is true."""
    return torch.where(_per_image(which), _gray(images), images)


def hue(images: Tensor, shift: Tensor) -> Tensor:
    """Shift the hue of RGB images, in HSV, by a fraction of the colour circle in [-0.5, 0.5]."""
    red, green, blue = images.unbind(dim=1)
    value = images.amax(dim=1)
    chroma = value - images.amin(dim=1)
    safe = torch.where(chroma > 0, chroma, 1)
    sixth = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    sixth = sixth + 6 * shift[:, None, None]
    # f(n) = v - c max(0, min(k, 4 - k, 1)), k = (n + h) mod 6, for n = 5, 3, 1: Smith 1978 in one formula.
    k = torch.stack([(n + sixth).remainder(6) for n in (5, 3, 1)], dim=1)
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)


def gamma(images: Tensor, exponent: Tensor) -> Tensor:
    """Raise pixel values to an exponent > 0; above 1 darkens."""
    return images.pow(_per_image(exponent))


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert pixel values at or above a threshold; a threshold above 1 changes nothing."""
    return torch.where(images >= _per_image(threshold), 1 - images, images)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the first 1 to 8 bits of each value; 8 changes nothing."""
    step = _per_image(2.0 ** (8 - bits))
    # Rounding must not lower a value that came from an integer to the next integer.
    posterized = ((images * 255 + 1e-3) / step).floor() * step / 255
    return torch.where(_per_image(bits) < 8, posterized, images)


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each channel of each image to [0, 1]; constant channels do not change."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    width = high - low
    return torch.where(width > 0, (images - low) / torch.where(width > 0, width, 1), images).clamp_(0, 1)


def equalize(images: Tensor) -> Tensor:
    """Equalize the histogram of each channel over 256 levels, as PIL does."""
    level = (images * 255).round().long().flatten(2)  # [B, C, HW]
    histogram = torch.zeros(*level.shape[:2], 256, dtype=torch.long, device=images.device)
    histogram.scatter_add_(2, level, torch.ones_like(level))
    brightest = level.amax(dim=2, keepdim=True)
    step = (level.shape[2] - histogram.gather(2, brightest)) // 255  # [B, C, 1]
    before = histogram.cumsum(dim=2) - histogram
    table = ((before + step // 2) // step.clamp(min=1)).clamp(0, 255).to(images.dtype) / 255
    equalized = table.gather(2, level).view_as(images)
    return torch.where(step[..., None] > 0, equalized, images)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with a smoothed copy: factor 0 smooths, 1 changes nothing, above 1 sharpens. Border pixels stay."""
    channels = images.shape[1]
    kernel = images.new_tensor([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    smooth = images.clone()
    if min(images.shape[2:]) < 3:
        return smooth  # all pixels are border pixels
    smooth[..., 1:-1, 1:-1] = F.conv2d(images, kernel.expand(channels, 1, 3, 3), groups=channels)
    return _blend(images, smooth, factor)


def blur(images: Tensor, sigma: Tensor, kernel_size: int) -> Tensor:
    """Gaussian blur.

    Args:
        images: float [B, C, H, W].
        sigma: [B], standard deviation in pixels, > 0; below about 0.05 nothing changes.
        kernel_size: width of the kernel in pixels, odd, at most 2 min(H, W) - 1.
    """
    batch, channels, height, _ = images.shape
    half = kernel_size // 2
    offset = torch.arange(-half, half + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offset / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)[:, None]  # [BC, 1, K]
    # One convolution with one group for each image and channel.
    padded = F.pad(images, (half, half, half, half), mode="reflect").view(1, batch * channels, height + 2 * half, -1)
    horizontal = F.conv2d(padded, kernel[:, :, None, :], groups=batch * channels)
    return F.conv2d(horizontal, kernel[:, :, :, None], groups=batch * channels).view(images.shape).clamp_(0, 1)


def erase(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Set a box of each image to 0; box coordinates in pixels [B]. A height or width of 0 erases nothing."""
    return images.masked_fill(boxes(images, top, left, height, width), 0)


def boxes(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Mask, bool [B, 1, H, W], true inside of each image's box; box coordinates in pixels [B]."""
    y = torch.arange(images.shape[2], device=images.device)
    x = torch.arange(images.shape[3], device=images.device)
    in_rows = (y >= top[:, None]) & (y < (top + height)[:, None])
    in_columns = (x >= left[:, None]) & (x < (left + width)[:, None])
    return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]
