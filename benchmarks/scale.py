"""Storage, memory and time for many images and many machines, extrapolated from measurements on one machine."""

from typing import Any

from fewlabels.compare.plan import CompareSettings

IMAGES = (60_000, 1_000_000, 10_000_000, 100_000_000)
MACHINES = (1, 2, 3, 6)
WORKERS = (1, 2, 6, 8, 36)
GRAY, COLOUR = 28 * 28, 3 * 32 * 32
"""Bytes per image: of Fashion-MNIST, and of 32x32 RGB."""
FEATURE_BYTES = 2
"""Bytes per feature, which is float16."""


def duration(seconds: float) -> str:
    """Return a duration as text, in a suitable unit.

    >>> duration(95), duration(26_000), duration(3.5e6)
    ('1.6 min', '7.2 h', '41 days')
    """
    for unit, length, up_to in (("s", 1, 90), ("min", 60, 5400), ("h", 3600, 72 * 3600)):
        if seconds < up_to:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def gigabytes(size: float) -> str:
    """Return a number of bytes as text, in GB.

    >>> gigabytes(47_040_000), gigabytes(7.84e10)
    ('0.05', '78')
    """
    return f"{size / 1e9:.2f}" if size < 1e9 else f"{size / 1e9:,.0f}"


def peak_gib(memory: list[dict[str, Any]], images: int) -> float:
    """Return the peak memory of a pretraining in GiB, on the line through the two measured ones."""
    few, many = sorted(memory, key=lambda row: row["images"])
    slope = (many["peak_mib"] - few["peak_mib"]) / (many["images"] - few["images"])
    return float(few["peak_mib"] + slope * (images - few["images"])) / 1024


def rate(speeds: list[dict[str, Any]], backbone: str) -> float:
    """Return the images per second of ``fewlabels pretrain`` on the measuring machine."""
    what = {"article": "ours", "resnet18": "ours, rgb-small"}[backbone]
    return next(float(row["images_per_second"]) for row in speeds if (row["what"], row["backbone"]) == (what, backbone))


def least_seconds(settings: CompareSettings, workers: int) -> float:
    """Return the shortest possible training time of a comparison, in seconds.

    Workers share the trainings, but a pretraining and a training that depends on it run one after the other.

    >>> settings = CompareSettings(pairs=6, budget=3600.0)
    >>> [round(least_seconds(settings, workers)) for workers in (1, 6, 36)]
    [1800, 300, 235]
    """
    trials = sum(settings.seconds(trial.candidate.kind) for trial in settings.trials())
    pretrainings = settings.pairs * len(settings.methods) * settings.seconds("pretrain")
    after = max(settings.seconds(each.kind) for each in settings.candidates() if settings.pretraining_of(each))
    return max((trials + pretrainings) / workers, settings.seconds("pretrain") + after)
