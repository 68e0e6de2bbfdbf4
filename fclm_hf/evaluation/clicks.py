"""Clicks in a row as people click: each in the middle of the largest error, with the matte before it fed back."""

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from ..metrics import mask_iou
from .prompts import SOLID, PromptedTarget


GOALS = (0.85, 0.9)  # IoUs of the number of clicks (NoC)
Matte = Callable[..., np.ndarray]


def find_next_click(alpha: np.ndarray, target: np.ndarray) -> tuple[tuple[float, float], int] | None:
    """Find the middle of the largest error: the wrong pixel that is farthest from all others, as in RITM.

    Args:
        alpha: Predicted matte of shape `(height, width)`; a pixel belongs to the object if it is above 0.5.
        target: True matte of the same shape.

    Returns:
        The click (x, y) in pixels, and its label: 1 on a missing part of the object, 0 on the background. None if there
        is no error.

    Example:
        >>> import numpy as np
        >>> from fclm_hf.evaluation.clicks import find_next_click
        >>> target = np.zeros((20, 30))
        >>> target[5:10, 10:15] = 1
        >>> find_next_click(np.zeros_like(target), target)
        ((12.0, 7.0), 1)
    """
    pred, target = alpha > 0.5, target > 0.5
    best, found = 0.0, None
    for label, wrong in ((1, target & ~pred), (0, pred & ~target)):
        # padded, because the border of the image is an edge of an error too
        depth = cv2.distanceTransform(np.pad(wrong.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
        row, column = np.unravel_index(depth.argmax(), depth.shape)
        if depth[row, column] > best:
            best, found = float(depth[row, column]), ((float(column), float(row)), label)
    return found


def click_through(matte: Matte, objects: Sequence[PromptedTarget], clicks: int) -> list[list[float]]:
    """Click each object several times, beginning at its point.

    Args:
        matte: Function that takes `input_points`, `input_labels` and, after the first click, `input_masks` (the mattes
            before) as the processor does, for the objects of one image, and returns their mattes, of shape `(objects,
            height, width)`.
        objects: Objects of one image, prompted by points.
        clicks: Number of clicks.

    Returns:
        The IoU after each click, one list per object. An object without any error left gets no more clicks.
    """
    targets = [(each.alpha > SOLID).astype(np.float32) for each in objects]
    given = [([list(each.point)], [1]) for each in objects]
    mattes: list[np.ndarray | None] = [None] * len(objects)
    scores: list[list[float]] = [[] for _ in objects]
    active = list(range(len(objects)))
    for number in range(clicks):
        if active:
            prompts: dict[str, Any] = {
                "input_points": [[given[index][0] for index in active]],
                "input_labels": [[given[index][1] for index in active]],
            }
            if number:
                prompts["input_masks"] = [[mattes[index] for index in active]]
            for index, alpha in zip(active, matte(**prompts), strict=True):
                mattes[index] = alpha
        for own, alpha, target in zip(scores, mattes, targets, strict=True):
            own.append(mask_iou(alpha, target))
        found = {index: find_next_click(mattes[index], targets[index]) for index in active}
        active = [index for index in active if found[index] is not None]
        for index in active:
            point, label = found[index]
            given[index][0].append(list(point))
            given[index][1].append(label)
    return scores


def count_clicks(scores: Sequence[float], goal: float) -> int:
    """Return the number of clicks (NoC) until the IoU reaches a goal, or that of all clicks if it never does."""
    return next((number for number, score in enumerate(scores, 1) if score >= goal), len(scores))


def describe_clicks(scores: Sequence[float]) -> dict[str, float]:
    """Return the columns of an object: the IoU after each click, and the number of clicks to each of GOALS.

    Example:
        >>> from fclm_hf.evaluation.clicks import describe_clicks
        >>> describe_clicks([0.5, 0.86, 0.88])
        {'iou_click1': 0.5, 'iou_click2': 0.86, 'iou_click3': 0.88, 'noc85': 2, 'noc90': 3}
    """
    columns: dict[str, float] = {f"iou_click{number}": score for number, score in enumerate(scores, 1)}
    return {**columns, **{f"noc{round(100 * goal)}": count_clicks(scores, goal) for goal in GOALS}}
