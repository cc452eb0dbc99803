"""Numbers of half the size, where a processor computes faster with them."""

from typing import Literal

import torch

Precision = Literal["32-true", "64-true", "bf16-mixed"]


def has_bfloat16(device: str) -> bool:
    """Whether a device here computes in bfloat16 faster than in float32, or at least not by emulation."""
    if device == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    if device == "cpu" and torch.backends.mkldnn.is_available():
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return False


def fastest_precision(device: str) -> Precision:
    """bfloat16 where the processor has instructions for it (AVX-512 BF16, AMX), single precision elsewhere.

    By what the processor says, not by a trial: a run that is stopped has to go on in the same precision.
    """
    # Not in every torch that we take; without them nothing is known, and nothing risked.
    knows = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return "bf16-mixed" if device == "cpu" and any(asked() for asked in knows if asked) else "32-true"
