"""Distributed training: sums and gathered rows over processes with gradients, and batch norm over all processes."""

import os
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def world_size() -> int:
    """Number of processes that train together; 1 outside of distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def is_first_process() -> bool:
    """True on the process that prints and writes files; it works before the process group is initialised, too."""
    return os.environ.get("LOCAL_RANK", "0") == "0" and rank() == 0


def peer_is_gone(error: RuntimeError) -> bool:
    """True if gloo or NCCL raised the error because another process has ended."""
    return world_size() > 1 and any(word in str(error) for word in ("gloo", "NCCL", "Connection closed by peer"))


class _Sum(torch.autograd.Function):
    """A sum over processes; its gradient is the sum of the gradients of all processes.

    ``torch.distributed.nn`` is deprecated, and the oldest supported torch does not have its successor.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return summed(values.clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return summed(gradients[0].clone(memory_format=torch.contiguous_format))


def summed_with_gradients(values: Tensor) -> Tensor:
    """The sum of a tensor over all processes; gradients flow to every process."""
    total: Tensor = _Sum.apply(values)
    return total


def gathered(local: Tensor) -> Tensor:
    """The rows of all processes in the order of ranks: [b, D] to [b * processes, D]; gradients flow to every process.

    Every process must have the same number of rows.
    """
    if world_size() == 1:
        return local
    before, after = rank() * len(local), (world_size() - 1 - rank()) * len(local)
    # The gradient of a sum of padded blocks is a sum as well, which every backend supports.
    padded = torch.cat([local.new_zeros(before, *local.shape[1:]), local, local.new_zeros(after, *local.shape[1:])])
    return summed_with_gradients(padded)


def summed(values: Tensor) -> Tensor:
    """The sum of a tensor over all processes, in place and without gradients."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


class SyncBatchNorm(_BatchNorm):
    """Batch norm over the batches of all processes, on any device; torch's own is for CUDA only.

    In training mode it normalises by mean and variance of the global batch (Ioffe & Szegedy 2015, algorithm 1).
    In evaluation mode it is plain batch norm. Every process must have the same number of images.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2 dimensions, got {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``input``, float [B, C, ...]."""
        if not self.training or world_size() == 1:
            plain: Tensor = super().forward(input)
            return plain
        dims = [d for d in range(input.dim()) if d != 1]
        shape = [1, -1] + [1] * (input.dim() - 2)
        wide = input.to(torch.promote_types(input.dtype, torch.float32))  # torch computes bfloat16 the same way
        count = input.numel() // input.shape[1] * world_size()
        mean = summed_with_gradients(wide.sum(dims)) / count
        centred = wide - mean.view(shape)
        variance = summed_with_gradients(centred.square().sum(dims)) / count
        self._update_running(mean.detach(), variance.detach() * count / max(count - 1, 1))
        normal = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(input.dtype)

    def _update_running(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


AnyModule = TypeVar("AnyModule", bound=nn.Module)


def synchronised(module: AnyModule, device: torch.device) -> AnyModule:
    """The module with every batch norm replaced by one over all processes; parameter names do not change."""
    if world_size() == 1:
        return module
    if device.type == "cuda":
        converted: AnyModule = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return converted
    for name, child in module.named_children():
        setattr(
            module, name, _synchronised_norm(child) if isinstance(child, _BatchNorm) else synchronised(child, device)
        )
    return module


def _synchronised_norm(norm: _BatchNorm) -> SyncBatchNorm:
    new = SyncBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            new.to(tensor.device, tensor.dtype)
    new.load_state_dict(norm.state_dict())
    for parameter, original in zip(new.parameters(), norm.parameters(), strict=True):
        parameter.requires_grad_(original.requires_grad)  # false in a momentum encoder
    return new.train(norm.training)
