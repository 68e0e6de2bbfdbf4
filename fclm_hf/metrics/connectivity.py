"""The connectivity error (Conn) between two mattes."""

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from .inputs import CHUNK, check_variant, load_pair, load_trimap, overwrite_known


VARIANTS = ("official", "gca")
THETA = 0.15
LEVELS = 10
# 6 * 0.1 is 0.6000000000000001, which 153 / 255 does not reach: the reference values depend on it
THRESHOLDS = np.arange(LEVELS + 1) * 0.1
# in float32 0.6 reaches 0.6: the values of InstMatt depend on that
SINGLE_THRESHOLDS = THRESHOLDS.astype(np.float32)


def connectivity_error(pred: Any, target: Any, trimap: Any = None, variant: str = "official") -> float:
    """Compute the connectivity error (Conn) between two mattes, in thousands of pixels.

        Conn = sum(|phi(pred) - phi(target)|) / 1000
        phi(a) = 1 - d if d >= 0.15 else 1,  d = a - l

    where l is, for each pixel, the last of the thresholds 0, 0.1, ..., 1 up to which the pixel belongs to the largest
    4-connected component of the pixels at which both mattes reach the threshold. It penalizes alpha that is not
    connected to the object. Defined by "A Perceptually Motivated Online Benchmark for Image Matting" (Rhemann et al.,
    CVPR 2009) and computed as in the evaluation code of "Deep Image Matting" (Xu et al., CVPR 2017).

    Args:
        pred: Predicted matte of shape `(height, width)`, float in [0, 1], a numpy array or a torch tensor. The float32
            and float64 versions of an 8-bit matte have the same error.
        target: True matte of the same shape.
        trimap: Trimap of the same shape, uint8 of 0 (background), 128 (unknown) and 255 (foreground). If given, known
            pixels of `pred` are overwritten and only unknown pixels count.
        variant: Which implementation to follow:

            - `"official"`: as above.
            - `"gca"`: the widely copied code of GCA-Matting, in which the background can be the largest component. An
              empty prediction or a spurious object can then have an error of 0, so use it only to compare with
              published values.

    Returns:
        The connectivity error in [0, height * width / 1000]; lower is better.

    Raises:
        TypeError: If a matte is not a float array or tensor, or the trimap is not uint8.
        ValueError: If `variant` is unknown, shapes differ, a matte has values outside [0, 1], or the trimap has other
            values or no unknown pixel.

    Example:
        >>> import numpy as np
        >>> from fclm_hf.metrics import connectivity_error
        >>> pred, target = np.zeros((30, 30)), np.zeros((30, 30))
        >>> pred[10:20, 10:20] = 1  # a spurious object of 100 pixels
        >>> connectivity_error(pred, target)
        0.1
        >>> connectivity_error(pred, target, variant="gca")
        0.0
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
    """Find the index of the last threshold up to which each pixel is connected.

    Args:
        pred: Predicted matte of shape `(height, width)`.
        target: True matte of the same shape and dtype.
        thresholds: Thresholds 0, 0.1, ..., 1 of the same dtype, shape `(11,)`.
        variant: See [`connectivity_error`].

    Returns:
        Indices in [0, 10], uint8 of shape `(height, width)`.
    """
    reached, areas = _count_reached(pred, target, thresholds)
    levels = np.zeros_like(reached)
    if variant == "official":  # no component extends beyond this box
        x, y, width, height = cv2.boundingRect(reached)
        part = np.s_[y : y + height, x : x + width]
    else:
        part = np.s_[:, :]
    levels[part] = _stack_largest(np.ascontiguousarray(reached[part]), areas, variant)
    return levels


def sum_differences(pred: np.ndarray, target: np.ndarray, levels: np.ndarray, where: np.ndarray | None = None) -> float:
    """Return the sum of |phi(pred) - phi(target)| over all pixels, or over those where the mask `where` is true."""
    below = np.nextafter(THETA, 0)  # OpenCV keeps only what is above its threshold
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
    """Return float32 thresholds that a float32 value reaches if and only if its float64 original does."""
    decimals = np.arange(LEVELS + 1) / LEVELS
    single = thresholds.astype(np.float32)
    return np.where(decimals < thresholds, np.nextafter(single, np.float32(2)), single)


def _count_reached(pred: np.ndarray, target: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Count per pixel the thresholds above 0 that both mattes reach (uint8), and per threshold the pixels."""
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
    """Count, per pixel, the consecutive thresholds from the first on at which it is in the largest component."""
    levels = np.zeros_like(reached)
    largest = np.zeros_like(reached)
    # from the top down: each lower threshold at which a pixel is connected extends its count, any other resets it
    for level in range(LEVELS, 0, -1):
        if level == LEVELS or areas[level] > areas[level + 1]:  # otherwise the pixels are the same as before
            largest = _keep_largest((reached >= level).view(np.uint8), areas[level], largest, variant)
        levels += 1
        levels *= largest
    return levels


def _keep_largest(mask: np.ndarray, area: int, inside: np.ndarray, variant: str) -> np.ndarray:
    """Return the largest component of a mask as uint8, the first in reading order among components of equal size.

    Args:
        mask: Mask with `area` ones, uint8; modified in place.
        area: Number of pixels in the mask.
        inside: Largest component of a subset of the mask, or zeros. In most cases it has grown to more than half of the
            mask: then no other component can be larger, and a flood fill is far cheaper than labeling all of them.
        variant: See [`connectivity_error`].
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
    """Yield slices of the flattened image that fit a core's cache."""
    for start in range(0, size, CHUNK):
        yield slice(start, start + CHUNK)
