"""Overlap with a binary mask, for data sets without mattes."""

from typing import Any

import numpy as np

from .accumulator import MetricAccumulator
from .inputs import load_pair


def mask_iou(pred: Any, target: Any) -> float:
    """Intersection over union of `pred > 0.5` and `target > 0.5`; 1 if both are empty.

    Args:
        pred, target: float (H, W) in [0, 1], numpy or torch.

    Raises:
        TypeError, ValueError: see `load_mattes` in `inputs.py`.
    """
    pred, target = (matte > 0.5 for matte in load_pair(pred, target))
    union = np.count_nonzero(pred | target)
    return float(np.count_nonzero(pred & target) / union) if union else 1.0


class MaskMetrics(MetricAccumulator):
    """Mean over images of the IoU: key iou."""

    def update(self, pred: Any, target: Any) -> None:
        """Measures one image; arguments and errors as of [`mask_iou`]."""
        self.rows.append({"iou": mask_iou(pred, target)})
