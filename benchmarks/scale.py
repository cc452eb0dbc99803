"""The arithmetic of many images and many machines, from figures that were measured on one."""

from typing import Any

from fewlabels.compare.plan import CompareSettings

IMAGES = (60_000, 1_000_000, 10_000_000, 100_000_000)
MACHINES = (1, 2, 3, 6)
WORKERS = (1, 2, 6, 8, 36)
GRAY, COLOUR = 28 * 28, 3 * 32 * 32
"""Bytes of an image: Fashion-MNIST's, and one of 32x32 in colour."""
FEATURE_BYTES = 2
"""Of each number that is kept of an image."""


def duration(seconds: float) -> str:
    """In the unit that suits it.

    >>> duration(95), duration(26_000), duration(3.5e6)
    ('1.6 min', '7.2 h', '41 days')
    """
    for unit, length, up_to in (("s", 1, 90), ("min", 60, 5400), ("h", 3600, 72 * 3600)):
        if seconds < up_to:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def gigabytes(size: float) -> str:
    """Of bytes.

    >>> gigabytes(47_040_000), gigabytes(7.84e10)
    ('0.05', '78')
    """
    return f"{size / 1e9:.2f}" if size < 1e9 else f"{size / 1e9:,.0f}"


def peak_gib(memory: list[dict[str, Any]], images: int) -> float:
    """Of a pretraining, on the line through the two that were measured."""
    few, many = sorted(memory, key=lambda row: row["images"])
    slope = (many["peak_mib"] - few["peak_mib"]) / (many["images"] - few["images"])
    return float(few["peak_mib"] + slope * (images - few["images"])) / 1024


def rate(speeds: list[dict[str, Any]], backbone: str) -> float:
    """Images a second of ``fewlabels pretrain`` on the machine that measured."""
    what = {"article": "ours", "resnet18": "ours, rgb-small"}[backbone]
    return next(float(row["images_per_second"]) for row in speeds if (row["what"], row["backbone"]) == (what, backbone))


def least_seconds(settings: CompareSettings, workers: int) -> float:
    """What a comparison takes at least: the work is shared, but a pair's pretraining and what follows it are a chain.

    >>> settings = CompareSettings(pairs=6, budget=3600.0)
    >>> [round(least_seconds(settings, workers)) for workers in (1, 6, 36)]
    [1800, 300, 235]
    """
    cells = sum(settings.seconds(cell.arm.kind) for cell in settings.cells())
    pretrainings = settings.pairs * len(settings.methods) * settings.seconds("pretrain")
    after = max(settings.seconds(arm.kind) for arm in settings.arms() if settings.pretraining_of(arm))
    return max((cells + pretrainings) / workers, settings.seconds("pretrain") + after)
