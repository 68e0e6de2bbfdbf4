"""Conn of "A perceptually motivated online benchmark for image matting" (Rhemann et al., CVPR 2009)."""

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from .inputs import CHUNK, check_variant, load_pair, load_trimap, overwrite_known


VARIANTS = ("official", "gca")
THETA = 0.15
LEVELS = 10
# 6 * 0.1 is 0.6000000000000001, which 153 / 255 does not reach. The reference values depend on it.
THRESHOLDS = np.arange(LEVELS + 1) * 0.1
# In float32 0.6 reaches 0.6: InstMatt's values depend on that.
SINGLE_THRESHOLDS = THRESHOLDS.astype(np.float32)


def connectivity_error(pred: Any, target: Any, trimap: Any = None, variant: str = "official") -> float:
    r"""Conn: sum of |phi(pred) - phi(target)| / 1000, with phi(a) = 1 - d [d >= 0.15], d = a - l.

    l is the last threshold of 0, 0.1, ..., 1 up to which a pixel has always been in the largest 4-connected component
    of the pixels where both mattes reach the threshold. As in the evaluation code of Deep Image Matting.

    Args:
        pred, target: float (H, W) in [0, 1], numpy or torch. float32 and float64 copies of one 8-bit matte score alike.
        trimap: uint8 (H, W) of 0, 128, 255. With it, `pred` is overwritten in known pixels, only unknown ones count.
        variant: "official", or "gca" for the widespread code of GCA-Matting, in which the largest component can be the
            background. That gives 0 for an empty prediction or a whole false object: for comparisons only.

    Raises:
        TypeError, ValueError: see `load_mattes` and `load_trimap` in `inputs.py`; or `variant` is unknown.
    """
    check_variant(variant, VARIANTS)
    pred, target = load_pair(pred, target)
    if trimap is not None:
        trimap = load_trimap(trimap, pred.shape)
        pred = overwrite_known(pred, trimap)
    if pred.dtype != target.dtype:
        pred, target = pred.astype(np.float32, copy=False), target.astype(np.float32, copy=False)
    thresholds = THRESHOLDS if pred.dtype == np.float64 else _round_up(THRESHOLDS)
    levels = connected_levels(pred, target, thresholds, variant)
    return sum_differences(pred, target, levels, None if trimap is None else trimap == 128) / 1000


def connected_levels(
    pred: np.ndarray, target: np.ndarray, thresholds: np.ndarray, variant: str = "official"
) -> np.ndarray:
    """Number of the last threshold up to which each pixel is connected, uint8 (H, W) in 0..10.

    `pred` and `target` (H, W) and `thresholds` (11,) are of one dtype.
    """
    reached, areas = _count_reached(pred, target, thresholds)
    levels = np.zeros_like(reached)
    if variant == "official":  # nothing outside the box is in any component
        x, y, width, height = cv2.boundingRect(reached)
        part = np.s_[y : y + height, x : x + width]
    else:
        part = np.s_[:, :]
    levels[part] = _stack_largest(np.ascontiguousarray(reached[part]), areas, variant)
    return levels


def sum_differences(pred: np.ndarray, target: np.ndarray, levels: np.ndarray, where: np.ndarray | None = None) -> float:
    """Sum of |phi(pred) - phi(target)| over the pixels `where` (bool, default all)."""
    below = np.nextafter(THETA, 0)  # OpenCV keeps what is above its threshold
    total = 0.0
    for part in _split(levels.size):
        floor = THRESHOLDS[levels.ravel()[part]]
        distances = [
            cv2.threshold(alpha.ravel()[part] - floor, below, 0, cv2.THRESH_TOZERO)[1] for alpha in (pred, target)
        ]
        mask = None if where is None else where.ravel()[part].view(np.uint8)
        total += cv2.norm(*distances, cv2.NORM_L1, mask)
    return total


def _round_up(thresholds: np.ndarray) -> np.ndarray:
    """float32 thresholds that the float32 copy of a decimal reaches if and only if the float64 one does."""
    decimals = np.arange(LEVELS + 1) / LEVELS
    single = thresholds.astype(np.float32)
    return np.where(decimals < thresholds, np.nextafter(single, np.float32(2)), single)


def _count_reached(pred: np.ndarray, target: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Thresholds above 0 that both mattes reach, uint8 (H, W); and how many pixels reach each threshold."""
    reached = np.zeros(pred.shape, np.uint8)
    areas = [pred.size] + [0] * LEVELS
    for part in _split(pred.size):
        smaller = np.minimum(pred.ravel()[part], target.ravel()[part])
        count = reached.ravel()[part]
        for level in range(1, LEVELS + 1):
            enough = smaller >= thresholds[level]
            count += enough
            areas[level] += np.count_nonzero(enough)
    return reached, areas


def _stack_largest(reached: np.ndarray, areas: list[int], variant: str) -> np.ndarray:
    """Number of thresholds, from the first on, at which each pixel is in the largest component."""
    levels = np.zeros_like(reached)
    largest = np.zeros_like(reached)
    # From the top down: a pixel that is connected at a threshold was connected so many more times above it.
    for level in range(LEVELS, 0, -1):
        if level == LEVELS or areas[level] > areas[level + 1]:  # else the same pixels as before
            largest = _keep_largest((reached >= level).view(np.uint8), areas[level], largest, variant)
        levels += 1
        levels *= largest
    return levels


def _keep_largest(mask: np.ndarray, area: int, inside: np.ndarray, variant: str) -> np.ndarray:
    """Largest component of `mask` (uint8 with `area` ones, gets changed), the first in reading order among equals.

    `inside` is the largest component of a part of `mask`, or all zeros. What it has grown to is most often more than
    half of the mask: then no other needs a look, and filling it is far cheaper than labelling all.
    """
    background = mask.size - area if variant == "gca" else -1
    if background >= area:
        mask ^= 1
        return mask
    if not area:
        return mask
    seed = int(inside.argmax())
    if inside.flat[seed] and mask.flat[seed]:
        size = cv2.floodFill(mask, None, (seed % mask.shape[1], seed // mask.shape[1]), 2, flags=4)[0]
        if 2 * size > area:
            return (mask == (0 if background >= size else 2)).view(np.uint8)
    _, labels = cv2.connectedComponents(mask, connectivity=4)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    label = int(sizes.argmax())
    return (labels == (0 if background >= sizes[label] else label)).view(np.uint8)


def _split(size: int) -> Iterator[slice]:
    for start in range(0, size, CHUNK):
        yield slice(start, start + CHUNK)
