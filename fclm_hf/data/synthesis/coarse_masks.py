"""Targets from coarse masks: unknown pixels and a band along the edges are marked to be left out of the loss."""

from collections.abc import Callable

import cv2
import numpy as np

from ..sources.decoding import COARSE_UNKNOWN


UNKNOWN = -1.0  # value of pixels that do not count
EDGE_WIDTH = 0.01  # distance from the edge up to which pixels do not count, as a fraction of the longer side


def crop_coarse_mask(mask: np.ndarray, crop: Callable[[np.ndarray, int], np.ndarray], size: int) -> np.ndarray:
    """Crop and scale a coarse mask without mixing what is unknown with the rest.

    Args:
        mask: `(height, width)` uint8: 255 is the object, 0 is not, 128 is unknown.
        crop: Crops a uint8 map and scales its longer side to a size, as [`Window.crop`] does.
        size: Longer side of the result.

    Returns:
        float32 map of 1, 0 and, where the mask is unknown, -1.
    """
    inside = crop((mask > COARSE_UNKNOWN).astype(np.uint8) * 255, size) > 127
    unknown = crop((mask == COARSE_UNKNOWN).astype(np.uint8) * 255, size) > 0
    return np.where(unknown, UNKNOWN, inside).astype(np.float32)


def unite_coarse_masks(masks: np.ndarray) -> np.ndarray:
    """Unite masks `(objects, height, width)`: 1 where any is 1, else -1 where any is unknown, else 0."""
    return np.where((masks > 0).any(0), 1, masks.min(0)).astype(np.float32)


def mark_edges(mask: np.ndarray, width: float = EDGE_WIDTH) -> np.ndarray:
    """Mark what is near an edge of a coarse mask as unknown.

    Args:
        mask: `(height, width)` float32 of 1, 0 and -1 for unknown.
        width: Distance from the edge, as a fraction of the longer side; at least one pixel is marked on each side.

    Returns:
        A map of the same kind.

    Example:
        >>> import numpy as np
        >>> from fclm_hf.data.synthesis.coarse_masks import mark_edges
        >>> mark_edges(np.array([[1, 1, 1, 0, 0, 0]], np.float32)).tolist()
        [[1.0, 1.0, -1.0, -1.0, 0.0, 0.0]]
    """
    radius = max(1, round(width * max(mask.shape)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    inside = (mask > 0).astype(np.uint8)
    near = cv2.dilate(inside, kernel) != cv2.erode(inside, kernel)
    return np.where(near, np.float32(UNKNOWN), mask)
