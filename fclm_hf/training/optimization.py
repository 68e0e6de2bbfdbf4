"""Optimiser, learning rates, averaged weights, and one update of the weights."""

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import broadcast
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import get_scheduler

from .arguments import RunArguments
from .objective.learner import ForegroundConsistentLearner
from .objective.settings import PROMPT_KEYS


Losses = dict[str, torch.Tensor]
Batch = dict[str, torch.Tensor]


def freeze_unused(learner: ForegroundConsistentLearner) -> None:
    """Parameters that no loss reaches take no gradient, or several processes would wait for theirs: DINOv2's mask token,
    and what reads text and masks where the prompts are of another kind.
    """
    model = learner.student.model
    for name, parameter in model.backbone.named_parameters():
        if name.endswith("mask_token"):
            parameter.requires_grad_(False)
    if "input_ids" not in PROMPT_KEYS[learner.settings.prompts]:
        model.freeze_text_encoder()
        model.prompt_encoder.text_projection.requires_grad_(False)
    if "input_masks" not in PROMPT_KEYS[learner.settings.prompts]:
        model.prompt_encoder.freeze_masks()


def parameter_groups(
    model: nn.Module, learning_rate: float, encoder_factor: float = 1.0, weight_decay: float = 0.01
) -> list[dict]:
    """What is not frozen, as groups of AdamW: the encoder, the others' matrices, and their vectors without decay."""
    encoder, decayed, plain = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = encoder if "model.backbone." in name else decayed if parameter.dim() > 1 else plain
            group.append(parameter)
    return [
        {"params": encoder, "lr": learning_rate * encoder_factor, "weight_decay": weight_decay},
        {"params": decayed, "lr": learning_rate, "weight_decay": weight_decay},
        {"params": plain, "lr": learning_rate, "weight_decay": 0.0},
    ]


def make_optimization(model: nn.Module, arguments: RunArguments) -> tuple[torch.optim.AdamW, LRScheduler]:
    """AdamW and its learning rates, one value per step of the run."""
    groups = parameter_groups(model, arguments.learning_rate, arguments.encoder_factor, arguments.weight_decay)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, arguments.adam_beta2))
    name = "constant_with_warmup" if arguments.schedule == "constant" else arguments.schedule
    return optimizer, get_scheduler(name, optimizer, arguments.warmup_steps, arguments.max_steps)


def average_weights(student: nn.Module, decay: float) -> AveragedModel | None:
    """An exponential moving average of the student's weights and buffers; None for decay 0."""
    if not decay:
        return None
    averaged = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    return averaged.requires_grad_(False)


def share_statistics(student: nn.Module) -> None:
    """All processes take the first one's statistics of batch norms, which each gathers from its own images."""
    for buffer in student.buffers():
        buffer.copy_(broadcast(buffer.clone()))


def mean_losses(taken: Sequence[Losses]) -> dict[str, float]:
    """The mean of each loss over the batches of a step, with one wait for the device."""
    stacked = torch.stack([torch.stack([*losses.values()]).float() for losses in taken])
    return dict(zip(taken[0], stacked.mean(0).tolist(), strict=True))


def take_step(
    accelerator: Accelerator,
    learner: nn.Module,
    optimizer: AcceleratedOptimizer,
    batches: Sequence[Batch],
    max_grad_norm: float,
) -> list[Losses]:
    """One update from as many batches as gradients are accumulated over. Under fp16 an overflow skips the update, which
    `optimizer.step_was_skipped` tells, and lowers the scale of the loss.

    Returns:
        The losses of each batch.
    """
    taken: list[Losses] = []
    for batch in batches:
        with accelerator.accumulate(learner):
            with accelerator.autocast():
                losses = learner(batch)
            accelerator.backward(losses["loss"])
            if accelerator.sync_gradients and max_grad_norm:
                accelerator.clip_grad_norm_(learner.parameters(), max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
        taken.append({name: loss.detach() for name, loss in losses.items()})
    return taken


__all__ = [
    "average_weights",
    "freeze_unused",
    "make_optimization",
    "mean_losses",
    "parameter_groups",
    "share_statistics",
    "take_step",
]
