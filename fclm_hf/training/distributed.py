"""Agreement between the processes of a run."""

from collections.abc import Callable

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, reduce
from torch import nn


def agree(accelerator: Accelerator, code: int) -> int:
    """Return the largest code of all processes, so that all of them act on it. Every process must call it.

    Args:
        accelerator: Accelerator of this process.
        code: Code that this process reports; 0 if it has nothing to report.
    """
    if accelerator.num_processes == 1:
        return code
    return int(accelerator.gather(torch.tensor([code], device=accelerator.device)).max())


def make_count_reduction(accelerator: Accelerator) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return a function that returns the mean of a scalar over the processes, for [`reduce_counts`]; `None` for one."""
    if accelerator.num_processes == 1:
        return None

    def average(count: torch.Tensor) -> torch.Tensor:
        return reduce(count, reduction="mean")

    return average


def broadcast_buffers(model: nn.Module) -> None:
    """Give all processes the batch norm statistics of the first one, as each gathers them from its own images."""
    for buffer in model.buffers():
        buffer.copy_(broadcast(buffer.clone()))


__all__ = ["agree", "broadcast_buffers", "make_count_reduction"]
