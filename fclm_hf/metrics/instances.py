"""Instance matting quality (IMQ): mattes of several instances, matched and scored together."""

import math
from typing import Any

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from .accumulator import MetricAccumulator
from .connectivity import SINGLE_THRESHOLDS, connected_levels, sum_differences
from .gradient import RADIUS, gradient_magnitude
from .inputs import load_pair


ERRORS = ("mad", "mse", "grad", "conn")
Box = tuple[int, int, int, int]  # x0, y0, x1, y1


class InstanceMattingQuality(MetricAccumulator):
    """Instance matting quality (IMQ) over a data set, in percent.

    The instances of an image are matched by the IoU of their supports (the pixels with alpha > 0) so that the sum of
    the IoUs is largest. A pair is a true positive (TP) if its IoU reaches the threshold; all other predictions are
    false positives (FP), and all other targets false negatives (FN). Then, for each error E,

        IMQ = 100 * sum over TP of (1 - min(10 * E, 1)) / (TP + FP / 2 + FN / 2 + 1e-6)

    where E is the sum over the n pixels of the union of both supports, divided by n + 1, of the absolute difference
    (`imq_mad`), the squared difference (`imq_mse`), the squared difference of the gradient magnitudes of the
    unstretched mattes (`imq_grad`), or the difference in connectivity (`imq_conn`). Defined by "Human Instance Matting
    via Mutual Guidance and Multi-Instance Refinement" (InstMatt, Sun et al., CVPR 2022); as there, `imq_grad` and
    `imq_conn` work on float32 mattes.

    Supports are taken as they are: a prediction that is at least 1/255 everywhere has the whole image as its support.
    If there are no instances at all, all metrics are 0.

    `compute` returns the keys `imq_mad`, `imq_mse`, `imq_grad`, `imq_conn`, `imq_iou` (with the IoU in place of
    1 - min(10 * E, 1)) and `rq` (recognition quality, with 1 in its place), in percent, higher is better; and the
    counts `tp`, `fp` and `fn`.

    Args:
        iou_threshold: IoU from which a pair counts as a true positive, in (0, 1]. Papers report 0.5 and 0.75.
        rows: Rows of earlier accumulators with the same or a lower threshold.

    Raises:
        ValueError: If `iou_threshold` is outside (0, 1], or lower than the threshold of a row.

    Example:
        >>> import numpy as np
        >>> from fclm_hf.metrics import InstanceMattingQuality
        >>> target = np.zeros((2, 40, 60))  # two instances
        >>> target[0, 5:25, 5:25] = target[1, 10:35, 30:55] = 1
        >>> quality = InstanceMattingQuality(iou_threshold=0.5)
        >>> quality.update(0.98 * target[1:], target)  # the second is found, in any order, the first is missed
        >>> {name: round(value, 2) for name, value in quality.compute().items()}
        {'imq_mad': 53.35, 'imq_mse': 66.4, 'imq_grad': 66.28, 'imq_conn': 66.67, 'imq_iou': 66.67, 'rq': 66.67,
        'tp': 1, 'fp': 0, 'fn': 1}
        >>> InstanceMattingQuality(iou_threshold=0.75, rows=quality.rows).compute()["tp"]
        1
    """

    def __init__(self, iou_threshold: float = 0.5, rows: Any = ()) -> None:
        if not 0 < iou_threshold <= 1:
            raise ValueError(f"iou_threshold must be in (0, 1], got {iou_threshold}.")
        super().__init__(rows)
        if lacking := [row["iou_threshold"] for row in self.rows if row["iou_threshold"] > iou_threshold]:
            raise ValueError(f"iou_threshold must be at least that of the rows, {max(lacking)}, got {iou_threshold}.")
        self.iou_threshold = float(iou_threshold)

    def update(self, pred: Any, target: Any) -> None:
        """Measure the instances of one image.

        Args:
            pred: Predicted mattes of shape `(num_predictions, height, width)`, float in [0, 1], a numpy array or a
                torch tensor. Without predictions, all targets are missed.
            target: True mattes of shape `(num_targets, height, width)`.

        Raises:
            TypeError: If an argument is not a float array or tensor.
            ValueError: If heights or widths differ, or values are outside [0, 1].
        """
        preds, targets = load_pair(pred, target, ndim=3)
        boxes = [[_find_support(matte) for matte in mattes] for mattes in (preds, targets)]
        iou = compute_iou(preds, targets, *boxes)
        pairs = [
            [float(iou[i, j]), *_compute_errors(preds[i], targets[j], join_boxes(boxes[0][i], boxes[1][j]))]
            for i, j in zip(*linear_sum_assignment(1 - iou), strict=True)
            if iou[i, j] >= self.iou_threshold
        ]
        counts = {"predictions": len(preds), "targets": len(targets)}
        self.rows.append({"iou_threshold": self.iou_threshold, **counts, "pairs": pairs})

    def _reduce(self) -> dict[str, float]:
        """Sum over the pairs of all images."""
        pairs = [pair for row in self.rows for pair in row["pairs"] if pair[0] >= self.iou_threshold]
        tp = len(pairs)
        fp = sum(row["predictions"] for row in self.rows) - tp
        fn = sum(row["targets"] for row in self.rows) - tp
        scale = 100 / (tp + fp / 2 + fn / 2 + 1e-6)
        similarities = {
            name: math.fsum(1 - min(10 * pair[1 + index], 1) for pair in pairs) for index, name in enumerate(ERRORS)
        }
        similarities["iou"] = math.fsum(pair[0] for pair in pairs)
        result = {f"imq_{name}": value * scale for name, value in similarities.items()}
        return {**result, "rq": tp * scale, "tp": tp, "fp": fp, "fn": fn}


def compute_iou(
    preds: np.ndarray, targets: np.ndarray, pred_boxes: list[Box | None], target_boxes: list[Box | None]
) -> np.ndarray:
    """Compute the IoU of the supports of every prediction and target, without touching pixels of disjoint boxes.

    Args:
        preds: Predicted mattes of shape `(num_predictions, height, width)`.
        targets: True mattes of shape `(num_targets, height, width)`.
        pred_boxes: Bounding box of each prediction's support; None if it is empty.
        target_boxes: Bounding box of each target's support; None if it is empty.

    Returns:
        The IoUs, float64 of shape `(num_predictions, num_targets)`.
    """
    areas = [
        [np.count_nonzero(_crop(matte, box)) if box else 0 for matte, box in zip(mattes, boxes, strict=True)]
        for mattes, boxes in ((preds, pred_boxes), (targets, target_boxes))
    ]
    iou = np.zeros((len(preds), len(targets)))
    for i, first in enumerate(pred_boxes):
        for j, second in enumerate(target_boxes):
            common = intersect_boxes(first, second)
            if common:
                shared = np.count_nonzero((_crop(preds[i], common) > 0) & (_crop(targets[j], common) > 0))
                iou[i, j] = shared / (areas[0][i] + areas[1][j] - shared + 1e-8)
    return iou


def join_boxes(first: Box, second: Box) -> Box:
    """Return the smallest box around two boxes."""
    return min(first[0], second[0]), min(first[1], second[1]), max(first[2], second[2]), max(first[3], second[3])


def intersect_boxes(first: Box | None, second: Box | None) -> Box | None:
    """Return the box in which two boxes overlap; None if they do not."""
    if not (first and second):
        return None
    x0, y0, x1, y1 = (*map(max, first[:2], second[:2]), *map(min, first[2:], second[2:]))
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _find_support(matte: np.ndarray) -> Box | None:
    """Return the bounding box of the pixels above 0; None if there are none."""
    x, y, width, height = cv2.boundingRect((matte > 0).view(np.uint8))
    return (x, y, x + width, y + height) if width else None


def _crop(matte: np.ndarray, box: Box) -> np.ndarray:
    """Return a view of the pixels in a box."""
    return matte[box[1] : box[3], box[0] : box[2]]


def _compute_errors(pred: np.ndarray, target: np.ndarray, box: Box) -> list[float]:
    """Compute each of ERRORS for a pair whose supports are in `box`; only the gradient filter looks beyond it."""
    height, width = pred.shape
    x0, y0 = max(box[0] - RADIUS, 0), max(box[1] - RADIUS, 0)
    window = (x0, y0, min(box[2] + RADIUS, width), min(box[3] + RADIUS, height))
    pred, target = (np.ascontiguousarray(_crop(matte, window)) for matte in (pred, target))
    union = ((pred > 0) | (target > 0)).view(np.uint8)
    difference = np.subtract(pred, target, dtype=np.float64)
    pred, target = pred.astype(np.float32), target.astype(np.float32)
    levels = connected_levels(pred, target, SINGLE_THRESHOLDS)
    sums = (
        cv2.norm(difference, cv2.NORM_L1),
        cv2.norm(difference, cv2.NORM_L2SQR),
        cv2.norm(gradient_magnitude(pred), gradient_magnitude(target), cv2.NORM_L2SQR, union),
        sum_differences(pred, target, levels),
    )
    pixels = np.count_nonzero(union)
    return [float(value) / (pixels + 1) for value in sums]
