"""Instance Matting Quality of "Human Instance Matting via Mutual Guidance" (InstMatt, Sun et al., CVPR 2022)."""

import math
from typing import Any

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from .accumulator import MetricAccumulator
from .connectivity import SINGLE_THRESHOLDS, connected_levels, sum_differences
from .gradient import RADIUS, gradient_magnitude
from .inputs import load_pair


MEASURES = ("mad", "mse", "grad", "conn")
Box = tuple[int, int, int, int]  # x0, y0, x1, y1


class InstanceMattingQuality(MetricAccumulator):
    r"""IMQ over a data set, in percent.

    Instances of an image are matched by the IoU of their supports (alpha > 0), so that the sum of IoUs is largest. A
    pair is a true positive (TP) if its IoU reaches the threshold; all other predictions are false positives (FP), all
    other targets false negatives (FN). For each measure,

        IMQ = 100 sum over TP of (1 - min(10 E, 1)) / (TP + FP / 2 + FN / 2 + 1e-6),

    with the error E a mean over the n pixels of both supports, sum / (n + 1), of |d| (MAD), d^2 (MSE), squared
    difference of gradient magnitudes (Grad; the mattes are not stretched here), connectivity difference (Conn). As in
    InstMatt, Grad and Conn work on float32 mattes. Supports are taken as they are: a floor of 1/255 in a prediction
    makes its support the whole image. Without any instance in prediction and target, every measure is 0.

    Args:
        iou_threshold: in (0, 1]; 0.5 and 0.75 are reported. Rows of a lower threshold can be reused at a higher one.
    """

    def __init__(self, iou_threshold: float = 0.5, rows: Any = ()) -> None:
        if not 0 < iou_threshold <= 1:
            raise ValueError(f"iou_threshold must be in (0, 1], got {iou_threshold}.")
        super().__init__(rows)
        if lacking := [row["iou_threshold"] for row in self.rows if row["iou_threshold"] > iou_threshold]:
            raise ValueError(
                f"rows were measured at {max(lacking)}: they lack pairs for iou_threshold {iou_threshold}."
            )
        self.iou_threshold = float(iou_threshold)

    def update(self, pred: Any, target: Any) -> None:
        """Measures one image.

        Args:
            pred: float (N, H, W) in [0, 1], numpy or torch; N may be 0: then all targets are missed.
            target: float (M, H, W) in [0, 1]; M may be 0.

        Raises:
            TypeError, ValueError: see `load_mattes` in `inputs.py`.
        """
        pred, target = load_pair(pred, target, ndim=3)
        boxes = [[_find_support(matte) for matte in mattes] for mattes in (pred, target)]
        iou = measure_iou(pred, target, *boxes)
        pairs = [
            [float(iou[i, j]), *_measure_pair(pred[i], target[j], join_boxes(boxes[0][i], boxes[1][j]))]
            for i, j in zip(*linear_sum_assignment(1 - iou), strict=True)
            if iou[i, j] >= self.iou_threshold
        ]
        counts = {"predictions": len(pred), "targets": len(target)}
        self.rows.append({"iou_threshold": self.iou_threshold, **counts, "pairs": pairs})

    def compute(self) -> dict[str, float]:
        """Keys imq_mad, imq_mse, imq_grad, imq_conn, imq_iou (S = IoU), rq (S = 1) in percent; counts tp, fp, fn."""
        return super().compute()

    def _reduce(self) -> dict[str, float]:
        pairs = [pair for row in self.rows for pair in row["pairs"] if pair[0] >= self.iou_threshold]
        tp = len(pairs)
        fp = sum(row["predictions"] for row in self.rows) - tp
        fn = sum(row["targets"] for row in self.rows) - tp
        scale = 100 / (tp + fp / 2 + fn / 2 + 1e-6)
        similarities = {
            name: math.fsum(1 - min(10 * pair[1 + index], 1) for pair in pairs) for index, name in enumerate(MEASURES)
        }
        similarities["iou"] = math.fsum(pair[0] for pair in pairs)
        result = {f"imq_{name}": value * scale for name, value in similarities.items()}
        return {**result, "rq": tp * scale, "tp": tp, "fp": fp, "fn": fn}


def measure_iou(
    pred: np.ndarray, target: np.ndarray, pred_boxes: list[Box | None], target_boxes: list[Box | None]
) -> np.ndarray:
    """IoU of the supports of every prediction and target, float64 (N, M). Boxes that do not meet cost nothing."""
    areas = [
        [np.count_nonzero(_crop(matte, box)) if box else 0 for matte, box in zip(mattes, boxes, strict=True)]
        for mattes, boxes in ((pred, pred_boxes), (target, target_boxes))
    ]
    iou = np.zeros((len(pred), len(target)))
    for i, first in enumerate(pred_boxes):
        for j, second in enumerate(target_boxes):
            common = intersect_boxes(first, second)
            if common:
                shared = np.count_nonzero((_crop(pred[i], common) > 0) & (_crop(target[j], common) > 0))
                iou[i, j] = shared / (areas[0][i] + areas[1][j] - shared + 1e-8)
    return iou


def join_boxes(first: Box, second: Box) -> Box:
    return min(first[0], second[0]), min(first[1], second[1]), max(first[2], second[2]), max(first[3], second[3])


def intersect_boxes(first: Box | None, second: Box | None) -> Box | None:
    if not (first and second):
        return None
    x0, y0, x1, y1 = (*map(max, first[:2], second[:2]), *map(min, first[2:], second[2:]))
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _find_support(matte: np.ndarray) -> Box | None:
    x, y, width, height = cv2.boundingRect((matte > 0).view(np.uint8))
    return (x, y, x + width, y + height) if width else None


def _crop(matte: np.ndarray, box: Box) -> np.ndarray:
    return matte[box[1] : box[3], box[0] : box[2]]


def _measure_pair(pred: np.ndarray, target: np.ndarray, box: Box) -> list[float]:
    """E of each of MEASURES. Outside the box of both supports nothing counts, but the filter of Grad looks there."""
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
