"""Overlap with a binary mask, for data sets that have masks instead of mattes."""

from typing import Any

import numpy as np

from .accumulator import MetricAccumulator
from .inputs import load_pair


def mask_iou(pred: Any, target: Any) -> float:
    """Compute the intersection over union (IoU, Jaccard index) of two masks.

        IoU = |P and T| / |P or T|,  P = pred > 0.5,  T = target > 0.5

    Args:
        pred: Predicted matte or mask of shape `(height, width)`, float in [0, 1], a numpy array or a torch tensor.
        target: True mask of the same shape.

    Returns:
        The IoU in [0, 1]; higher is better. Two empty masks have an IoU of 1.

    Raises:
        TypeError: If an argument is not a float array or tensor.
        ValueError: If shapes differ or values are outside [0, 1].

    Example:
        >>> import numpy as np
        >>> from fclm_hf.metrics import mask_iou
        >>> pred, target = np.zeros((10, 10)), np.zeros((10, 10))
        >>> pred[:, :6], target[:, 4:] = 0.6, 0.9
        >>> mask_iou(pred, target)
        0.2
    """
    pred, target = (matte > 0.5 for matte in load_pair(pred, target))
    union = np.count_nonzero(pred | target)
    return float(np.count_nonzero(pred & target) / union) if union else 1.0


class MaskMetrics(MetricAccumulator):
    """Mean IoU over the masks of a data set: the mean of [`mask_iou`] over masks, not that of the summed areas.

    `compute` returns the key `iou`, in [0, 1]; higher is better.

    Args:
        rows: Rows of earlier accumulators.

    Example:
        >>> import numpy as np
        >>> from fclm_hf.metrics import MaskMetrics
        >>> target = np.zeros((10, 10))
        >>> target[:, 4:] = 1
        >>> metrics = MaskMetrics()
        >>> metrics.update(target, target)
        >>> metrics.update(1 - target, target)
        >>> metrics.compute()
        {'iou': 0.5}
    """

    def update(self, pred: Any, target: Any) -> None:
        """Measure one mask.

        Args:
            pred: Predicted matte or mask of shape `(height, width)`, float in [0, 1], a numpy array or a torch tensor.
            target: True mask of the same shape.

        Raises:
            TypeError: If an argument is not a float array or tensor.
            ValueError: If shapes differ or values are outside [0, 1].
        """
        self.rows.append({"iou": mask_iou(pred, target)})
