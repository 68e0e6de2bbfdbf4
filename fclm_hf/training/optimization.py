"""Optimizer, learning rates, averaged weights, and one optimizer step."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import get_scheduler

from ..loss_fclm import reduce_counts
from ..modeling_fclm import FCLMForImageMatting
from ..utils.files import write_json
from .batch_norm import SyncedBatchNorm
from .distributed import agree, make_count_reduction
from .objective.learner import ForegroundConsistentLearner
from .objective.settings import PROMPT_INPUTS


if TYPE_CHECKING:
    from .arguments import RunArguments

LEARNING_RATE = 1e-5  # as in the paper
Losses = dict[str, torch.Tensor]
Batch = dict[str, Any]


class NonFiniteLossError(RuntimeError):
    """Raised when the loss becomes NaN or infinite."""


def make_optimizer(model: nn.Module, learning_rate: float = LEARNING_RATE) -> torch.optim.AdamW:
    """Create the optimizer of the paper for a training loop of your own: AdamW at a constant learning rate of 1e-5.

    Args:
        model: Model or learner; its frozen parameters are left out.
        learning_rate: Learning rate.

    Returns:
        The optimizer.

    Example:
        >>> from torch import nn
        >>> from fclm_hf.training import make_optimizer
        >>> make_optimizer(nn.Linear(2, 1)).defaults["lr"]
        1e-05
    """
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate)


def freeze_unused(learner: ForegroundConsistentLearner) -> None:
    """Freeze the parameters that no loss reaches, whose gradients distributed training would wait for.

    These are the mask token of DINOv2 and, if the prompts include no text or no masks, everything that reads them.
    """
    model = learner.student.model
    for name, parameter in model.backbone.named_parameters():
        if name.endswith("mask_token"):
            parameter.requires_grad_(False)
    if "input_ids" not in PROMPT_INPUTS[learner.settings.prompts]:
        model.freeze_text_encoder()
        model.prompt_encoder.text_projection.requires_grad_(False)
        if learner.settings.name_weight:  # the contrast of names reaches the head
            model.semantic_head.requires_grad_(True)
    if "input_masks" not in PROMPT_INPUTS[learner.settings.prompts]:
        for parameter in model.prompt_encoder.get_mask_parameters():
            parameter.requires_grad_(False)


def parameter_groups(
    model: nn.Module,
    learning_rate: float,
    backbone_lr_multiplier: float = 1.0,
    weight_decay: float = 0.01,
    has_semantic_losses: bool = False,
) -> list[dict[str, Any]]:
    """Return the trainable parameters as parameter groups of AdamW.

    Args:
        model: Model or learner.
        learning_rate: Learning rate of all parameters except the backbone.
        backbone_lr_multiplier: Learning rate of the backbone as a multiple of `learning_rate`.
        weight_decay: Weight decay of the backbone and of all other matrices.
        has_semantic_losses: Whether a loss on the semantic map is on. The semantic head then learns like the backbone.

    Returns:
        Three groups: the backbone, the other matrices, and the other vectors, which have no weight decay.
    """
    backbone, decayed, plain = [], [], []
    slow = ("model.backbone.", "model.semantic_head.") if has_semantic_losses else ("model.backbone.",)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = backbone if any(part in name for part in slow) else decayed if parameter.dim() > 1 else plain
            group.append(parameter)
    return [
        {"params": backbone, "lr": learning_rate * backbone_lr_multiplier, "weight_decay": weight_decay},
        {"params": decayed, "lr": learning_rate, "weight_decay": weight_decay},
        {"params": plain, "lr": learning_rate, "weight_decay": 0.0},
    ]


def make_optimization(
    learner: ForegroundConsistentLearner, run: "RunArguments"
) -> tuple[torch.optim.AdamW, LRScheduler]:
    """Create AdamW and the learning rate scheduler of a run, which is stepped once per optimizer step.

    Args:
        learner: The learner.
        run: Arguments of the run.

    Returns:
        The optimizer and the scheduler.
    """
    has_semantic_losses = bool(learner.settings.name_weight or learner.settings.semantic_weight)
    groups = parameter_groups(
        learner, run.learning_rate, run.backbone_lr_multiplier, run.weight_decay, has_semantic_losses
    )
    optimizer = torch.optim.AdamW(groups, betas=(0.9, run.adam_beta2))
    name = "constant_with_warmup" if run.lr_scheduler_type == "constant" else run.lr_scheduler_type
    return optimizer, get_scheduler(name, optimizer, run.warmup_steps, run.max_steps)


def compile_modules(student: FCLMForImageMatting, backend: str) -> None:
    """Compile the modules of a model in place, which changes neither their names nor their states.

    Args:
        student: The model. Its parts are compiled one by one, because training calls them on their own.
        backend: Backend of `torch.compile`.
    """
    for module in (*student.model.children(), student.head):
        module.compile(backend=backend)


def average_weights(student: nn.Module, decay: float) -> AveragedModel | None:
    """Create an exponential moving average of the weights and buffers of a model, or `None` if `decay` is 0."""
    if not decay:
        return None
    averaged = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    return averaged.requires_grad_(False)


def mean_losses(losses: Sequence[Losses]) -> dict[str, float]:
    """Return the mean of each loss over the batches of a step, with a single synchronization of the device."""
    stacked = torch.stack([torch.stack([*each.values()]).float() for each in losses])
    return dict(zip(losses[0], stacked.mean(0).tolist(), strict=True))


def take_step(
    accelerator: Accelerator,
    learner: nn.Module,
    optimizer: AcceleratedOptimizer,
    batches: Sequence[Batch],
    max_grad_norm: float,
    sync_batch_norm: bool = False,
) -> list[Losses]:
    """Take one optimizer step, with the gradients accumulated over the batches.

    If fp16 overflows, the step is skipped (see `optimizer.step_was_skipped`) and the loss scale is lowered.

    Args:
        accelerator: Accelerator of this process.
        learner: The prepared learner.
        optimizer: The prepared optimizer.
        batches: As many batches as gradients are accumulated over.
        max_grad_norm: Maximum gradient norm; 0 disables clipping.
        sync_batch_norm: Whether batch norms take their statistics over all processes.

    Returns:
        The losses of each batch by name, as scalar tensors without gradient.
    """
    taken: list[Losses] = []
    is_synced = sync_batch_norm and accelerator.num_processes > 1
    for batch in batches:
        with accelerator.accumulate(learner):
            with SyncedBatchNorm() if is_synced else nullcontext():  # backward, too: it may recompute activations
                with accelerator.autocast(), reduce_counts(make_count_reduction(accelerator)):
                    losses = learner(batch)
                accelerator.backward(losses["loss"])
            if accelerator.sync_gradients and max_grad_norm:
                accelerator.clip_grad_norm_(learner.parameters(), max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
        taken.append({name: loss.detach() for name, loss in losses.items()})
    return taken


def check_losses(
    losses: Sequence[Losses], batches: Sequence[Mapping[str, Any]], step: int, folder: Path, accelerator: Accelerator
) -> None:
    """Check that the losses of a step are finite in all processes. Every process must call it.

    A loss that overflows in fp16 may do so because of its scale, so it is an error only once the scale is below 1.

    Args:
        losses: The losses of each batch.
        batches: The batches.
        step: Number of the step, for the error.
        folder: Folder for a file that names the samples of the first bad batch.
        accelerator: Accelerator of this process.

    Raises:
        NonFiniteLossError: If a loss is NaN or infinite in any process.
    """
    scaler = accelerator.scaler
    is_tolerated = scaler is not None and scaler.get_scale() >= 1
    finite = torch.isfinite(torch.stack([each["loss"] for each in losses]))
    is_bad = not is_tolerated and not bool(finite.all())
    if not agree(accelerator, int(is_bad)):
        return
    if not is_bad:
        raise NonFiniteLossError(f"The loss of step {step} is not finite in another process.")
    first = finite.tolist().index(False)
    values, keys = {name: str(value.item()) for name, value in losses[first].items()}, batches[first]["sample_keys"]
    path = folder / f"nonfinite-step-{step}-process-{accelerator.process_index}.json"
    write_json(path, {"step": step, "losses": values, "sample_keys": keys})
    raise NonFiniteLossError(f"The loss of step {step} is {values['loss']}. Its samples are listed in {path}: {keys}")


__all__ = [
    "LEARNING_RATE",
    "NonFiniteLossError",
    "average_weights",
    "check_losses",
    "compile_modules",
    "freeze_unused",
    "make_optimization",
    "make_optimizer",
    "mean_losses",
    "parameter_groups",
    "take_step",
]
