"""Overlap with a binary mask, for data sets that have masks instead of mattes."""

from typing import Any

import numpy as np

from .accumulator import MetricAccumulator, mean
from .inputs import load_pair
from .solidity import count_solid_pixels


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
    """Mean IoU and solidity over the masks of a data set.

    `compute` returns the keys `iou`, the mean of [`mask_iou`] over masks, not that of the summed areas, and `solidity`,
    the share of opaque pixels among those deep inside of all masks, see [`solidity`]; it is left out if no pixel is
    that deep. Both are in [0, 1]; higher is better.

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
        {'iou': 0.5, 'solidity': 0.5}
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
        solid, deep = count_solid_pixels(pred, target)
        self.rows.append({"iou": mask_iou(pred, target), "solid_pixels": solid, "deep_pixels": deep})

    def _reduce(self) -> dict[str, float]:
        """Average the IoU over masks and the solidity over pixels."""
        # rows of earlier releases have no counts
        solid, deep = (sum(row.get(name, 0) for row in self.rows) for name in ("solid_pixels", "deep_pixels"))
        return {"iou": mean(row["iou"] for row in self.rows), **({"solidity": solid / deep} if deep else {})}
