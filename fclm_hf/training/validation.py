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


def update_metrics(
    metrics: MattingMetrics | DichotomousMetrics, matte: np.ndarray, label: np.ndarray, known: np.ndarray
) -> None:
    """Measure a matte over the pixels whose label is known, if there are any.

    Args:
        metrics: The accumulator.
        matte: Predicted matte, float of shape `(height, width)` in [0, 1].
        label: True matte of the same shape.
        known: Bool of the same shape.

    Example:
        >>> import numpy as np
        >>> from fclm_hf.metrics import MattingMetrics
        >>> from fclm_hf.training.validation import update_metrics
        >>> metrics, known = MattingMetrics(), np.ones((4, 8), bool)
        >>> known[:, 4:] = False
        >>> update_metrics(metrics, np.full((4, 8), 0.25), np.zeros((4, 8)), known)
        >>> metrics.compute()["mad"], metrics.compute()["sad"]
        (0.25, 0.004)
    """
    if known.all():
        metrics.update(matte, label)
    elif known.any() and isinstance(metrics, MattingMetrics):
        # to a metric, the pixels that count are the "unknown" ones of a trimap
        metrics.update(matte, label, np.where(known, np.uint8(128), np.uint8(0)))
    elif known.any():
        metrics.update(np.where(known, matte, label), label)
        metrics.rows[-1]["mae"] *= known.size / known.sum()


@torch.no_grad()
def validate(
    model: FCLMForImageMatting,
    batches: Sequence[dict[str, Any]],
    settings: TrainingSettings,
    accelerator: Accelerator,
) -> tuple[dict[str, float], np.ndarray]:
    """Compute the metrics of a model on the vanilla images (B) of all processes. Every process must call it.

    Pixels whose label is unknown do not count.

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
        known = batch.get("label_mask", torch.ones_like(batch["labels"], dtype=torch.bool)).cpu().numpy()
        masks = batch["pixel_mask"].cpu()
        for index, mask in enumerate(masks):
            height, width = int(mask[:, 0].sum()), int(mask[0].sum())
            for maps in zip(alphas[index], labels[index], known[index], strict=True):
                update_metrics(metrics, *(each[:height, :width] for each in maps))
            if len(rows) < _PICTURE_ROWS:
                image = (batch["pixel_values_b"][index].cpu() * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()
                mattes = [np.repeat(each[index, 0, ..., None], 3, axis=-1) for each in (alphas, labels)]
                rows.append(np.rint(np.concatenate([image, *mattes], axis=1) * 255).astype(np.uint8))
    model.train(was_training)
    return type(metrics)(rows=gather_object(metrics.rows)).compute(), np.concatenate(rows)


__all__ = ["update_metrics", "validate"]
