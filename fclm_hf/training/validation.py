"""Metrics and a picture of a model on fixed batches of held-out data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from ..metrics import DichotomousMetrics, MattingMetrics
from ..modeling_fclm import FCLMForImageMatting
from .objective.settings import PROMPT_INPUTS, TrainingSettings


_PICTURE_ROWS = 4


@torch.no_grad()
def validate(
    model: FCLMForImageMatting,
    batches: Sequence[dict[str, Any]],
    settings: TrainingSettings,
    accelerator: Accelerator,
) -> tuple[dict[str, float], np.ndarray]:
    """Compute the metrics of a model on the vanilla images (B) of all processes. Every process must call it.

    Args:
        model: The model; it is switched to evaluation mode and back.
        batches: Batches of this process.
        settings: Settings of the training objective, which name the prompts and the normalization of the images.
        accelerator: Accelerator of this process.

    Returns:
        The metrics by name, and a picture (uint8 array of shape `(height, width, 3)`) of the first images of this
        process, one per row: image, predicted matte, true matte.
    """
    metrics = DichotomousMetrics() if model.config.task == "segmentation" else MattingMetrics()
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (settings.image_mean, settings.image_std))
    rows: list[np.ndarray] = []
    was_training = model.training
    model.eval()
    for batch in batches:
        names = ("pixel_mask", *PROMPT_INPUTS[settings.prompts])
        prompts = {name: batch[name] for name in names if name in batch}
        with accelerator.autocast():
            alphas = model(pixel_values=batch["pixel_values_b"], **prompts).alphas.float().cpu().numpy()
        labels = batch["labels"].cpu().numpy()
        masks = batch["pixel_mask"].cpu()
        for index, mask in enumerate(masks):
            height, width = int(mask[:, 0].sum()), int(mask[0].sum())
            for matte, label in zip(alphas[index], labels[index], strict=True):
                metrics.update(matte[:height, :width], label[:height, :width])
            if len(rows) < _PICTURE_ROWS:
                image = (batch["pixel_values_b"][index].cpu() * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()
                mattes = [np.repeat(each[index, 0, ..., None], 3, axis=-1) for each in (alphas, labels)]
                rows.append(np.rint(np.concatenate([image, *mattes], axis=1) * 255).astype(np.uint8))
    model.train(was_training)
    return type(metrics)(rows=gather_object(metrics.rows)).compute(), np.concatenate(rows)


__all__ = ["validate"]
