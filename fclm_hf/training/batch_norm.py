"""Batch norms whose statistics are those of the images of all processes, on any device."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.nn.functional import all_reduce
from torch.overrides import TorchFunctionMode


class SyncedBatchNorm(TorchFunctionMode):
    """Context in which batch norms in training mode take their statistics over all processes.

    `torch.nn.SyncBatchNorm` needs a GPU, and modules that call `batch_norm` themselves, as timm's do, would each need a
    counterpart.
    """

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is nn.functional.batch_norm:
            return synced_batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def synced_batch_norm(
    input: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> torch.Tensor:
    """Apply `torch.nn.functional.batch_norm` with the statistics of all processes. Every process must call it."""
    if not training:
        return torch.batch_norm(
            input, weight, bias, running_mean, running_var, False, momentum, eps, torch.backends.cudnn.enabled
        )
    values = input.float()
    dims = [0, *range(2, values.dim())]
    shape = [1, -1] + [1] * (values.dim() - 2)
    count = values.new_tensor(values.numel() / values.shape[1])
    total = all_reduce(torch.cat([values.sum(dims), count[None]]))
    count = total[-1].detach()
    mean = total[:-1] / count
    centered = values - mean.view(shape)
    variance = all_reduce(centered.square().sum(dims)) / count
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((variance * count / (count - 1)).to(running_var.dtype), momentum)
    normalized = centered * (variance + eps).rsqrt().view(shape)
    if weight is not None:
        normalized = normalized * weight.view(shape)
    if bias is not None:
        normalized = normalized + bias.view(shape)
    return normalized.to(input.dtype)


__all__ = ["SyncedBatchNorm", "synced_batch_norm"]
