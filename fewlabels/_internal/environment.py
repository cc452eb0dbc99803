"""The environment: versions, machine, provenance of results, and digests of the source code."""

import hashlib
import os
import platform
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("fewlabels", "torch", "torchvision", "lightning-fabric", "numpy", "scikit-learn", "umap-learn")
"""Packages that results depend on."""


def versions() -> dict[str, str]:
    """Versions of Python and of ``PACKAGES``, by name."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine() -> dict[str, str | int | float]:
    """Processor, number of cores that this process may use, and memory in GiB."""
    return {"cpu": _cpu(), "cores": available_cores(), "memory_gib": _memory_gib()}


def available_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def provenance(command: str) -> dict[str, Any]:
    """Command, date, versions and machine, for result files."""
    return {
        "command": command,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(),
        "machine": machine(),
    }


LAYERS = (
    *("cli", "report", "compare", "tutorial", "sklearn", "active", "audit", "deploy", "fit", "ssl", "features"),
    *("backbones", "training", "augment", "metrics", "data", "_internal"),
)
"""Packages by layer: a package imports only from itself and from later ones in the list."""


@cache
def code_digest(package: str) -> str:
    """Digest, 16 hexadecimal digits, of the source code of a package and of the packages that it may import."""
    root, content = Path(__file__).parents[1], hashlib.blake2b(digest_size=8)
    for name in LAYERS[LAYERS.index(package) :]:
        for file in sorted((root / name).rglob("*.py")):
            content.update(file.read_bytes())
    return content.hexdigest()


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> float:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # Windows
        return 0.0
