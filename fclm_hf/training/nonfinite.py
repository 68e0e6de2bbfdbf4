"""A loss that became NaN or infinite ends the run and tells which samples did it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ..utils.files import write_bytes
from .signals import agree


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite."""


def check_losses(
    taken: Sequence[Mapping[str, torch.Tensor]],
    batches: Sequence[Mapping[str, Any]],
    step: int,
    folder: Path,
    accelerator: Accelerator,
) -> None:
    """Looks at the losses of a step, in all processes at once. Under fp16 a loss may overflow because of its scale: it
    counts only once that has fallen below 1.

    Args:
        taken, batches: the losses of each batch, and the batches.
        step: for the error.
        folder: where the samples of the first bad batch are written.

    Raises:
        NonFiniteLossError: a loss is not finite here, or in another process.
    """
    scaler = accelerator.scaler
    is_tolerated = scaler is not None and scaler.get_scale() >= 1
    finite = torch.isfinite(torch.stack([losses["loss"] for losses in taken]))
    is_bad = not is_tolerated and not bool(finite.all())
    if not agree(accelerator, int(is_bad)):
        return
    if not is_bad:
        raise NonFiniteLossError(f"The loss of step {step} is not finite in another process.")
    first = finite.tolist().index(False)
    losses, keys = {name: str(value.item()) for name, value in taken[first].items()}, batches[first]["sample_keys"]
    path = folder / f"nonfinite-step-{step}-process-{accelerator.process_index}.json"
    content = json.dumps({"step": step, "losses": losses, "sample_keys": keys}, indent=1)
    write_bytes(path, content.encode())
    raise NonFiniteLossError(f"The loss of step {step} is {losses['loss']}. Its samples are in {path}: {keys}")


__all__ = ["NonFiniteLossError", "check_losses"]
