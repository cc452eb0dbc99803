"""Precision of training (bfloat16 or single) and devices of this machine."""

from typing import Literal

import torch

from fewlabels._internal.errors import InputError

Precision = Literal["32-true", "64-true", "bf16-mixed"]
"""Precisions by their names in Lightning Fabric."""


def has_bfloat16(device: str) -> bool:
    """True if a device of this machine computes bfloat16 without emulation; on a CPU, if oneDNN supports it."""
    if device == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    if device == "cpu" and torch.backends.mkldnn.is_available():
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return False


def fastest_precision(device: str) -> Precision:
    """bfloat16 on a CPU with instructions for it (AVX-512 BF16, AMX), else single precision.

    The result depends on the processor's flags and not on a timing, so that a resumed run has the same precision.
    """
    # Not every supported torch has these functions; without them the answer is single precision.
    checks = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return "bf16-mixed" if device == "cpu" and any(check() for check in checks if check) else "32-true"


def available_devices() -> list[str]:
    """Names of the device types of this machine: cpu, cuda, mps."""
    found = ["cpu"]
    if torch.cuda.is_available():
        found.append("cuda")
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


def available_device(name: str, what: str = "device") -> torch.device:
    """The device with a name; ``auto`` is a CUDA GPU if there is one, else the CPU.

    Args:
        name: auto, cpu, cuda or mps.
        what: the parameter's name in the error message.

    Raises:
        InputError: if this machine has no such device.
    """
    found = available_devices()
    if name == "auto":
        name = "cuda" if "cuda" in found else "cpu"
    if name not in found:
        raise InputError(f"{what} {name}: not available here. This machine has: {', '.join(found)}.")
    return torch.device(name)
