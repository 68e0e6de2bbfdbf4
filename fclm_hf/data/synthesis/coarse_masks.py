"""Targets made of coarse masks: what is unknown, and a band along the edges, is marked to be left out of the loss."""

import cv2
import numpy as np

from ..sources.decoding import COARSE_UNKNOWN
from .photo_windows import Window


UNKNOWN = -1.0
EDGE_SHARE = 0.01


def cut_coarse_mask(mask: np.ndarray, window: Window, size: int) -> np.ndarray:
    """A window of a coarse mask, its longer side scaled to `size`.

    Args:
        mask: (H, W) uint8: 255 is the object, 0 is not, 128 is unknown.
        window: part of it.
        size: longer side of the result in pixels.

    Returns:
        float32 (height, width) of 1, 0 and, where it is unknown, -1.
    """
    inside = window.cut((mask > COARSE_UNKNOWN).astype(np.uint8) * 255, size) > 127
    unknown = window.cut((mask == COARSE_UNKNOWN).astype(np.uint8) * 255, size) > 0
    return np.where(unknown, UNKNOWN, inside).astype(np.float32)


def unite_coarse_masks(masks: np.ndarray) -> np.ndarray:
    """What any of the masks (objects, H, W) covers: 1, else -1 where any is unknown, else 0."""
    return np.where((masks > 0).any(0), 1, masks.min(0)).astype(np.float32)


def leave_out_edges(mask: np.ndarray, share: float = EDGE_SHARE) -> np.ndarray:
    """Marks what is near an edge of a coarse mask as unknown.

    Args:
        mask: float32 (H, W) of 1, 0 and -1 for unknown.
        share: distance from the edge, as a share of the longer side; at least one pixel.

    Returns:
        A mask of the same kind.

    Example:
        >>> import numpy as np
        >>> from fclm_hf.data.synthesis.coarse_masks import leave_out_edges
        >>> leave_out_edges(np.array([[1, 1, 1, 0, 0, 0]], np.float32)).tolist()
        [[1.0, 1.0, -1.0, -1.0, 0.0, 0.0]]
    """
    radius = max(1, round(share * max(mask.shape)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    inside = (mask > 0).astype(np.uint8)
    near = cv2.dilate(inside, kernel) != cv2.erode(inside, kernel)
    return np.where(near, np.float32(UNKNOWN), mask)
