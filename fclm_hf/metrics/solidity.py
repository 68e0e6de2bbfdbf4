"""Solidity: how opaque a matte is deep inside an object."""

from typing import Any

import cv2
import numpy as np

from .inputs import load_pair


DEPTH = 5.0  # distance from the edge in pixels, from which a pixel is deep inside
OPAQUE = 0.9  # alpha above which a pixel is solid


def count_solid_pixels(pred: Any, target: Any) -> tuple[int, int]:
    """Count the pixels that are at least 5 pixels inside of `target > 0.5`, and those of them with `pred > 0.9`.

    Args:
        pred: See [`solidity`].
        target: See [`solidity`].

    Returns:
        The number of solid pixels, and of all pixels deep inside.
    """
    pred, target = load_pair(pred, target)
    # the border of the image is not an edge: the object goes on behind it
    padded = np.pad((target > 0.5).astype(np.uint8), 1, mode="edge")
    inside = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1] >= DEPTH
    return int(np.count_nonzero(pred[inside] > OPAQUE)), int(np.count_nonzero(inside))


def solidity(pred: Any, target: Any) -> float:
    """Compute the share of opaque pixels deep inside an object.

        solidity = |P and D| / |D|,  P = pred > 0.9,  D = pixels at least 5 pixels inside of target > 0.5

    It tells mattes that a user would keep from see-through ones of the same IoU.

    Args:
        pred: Predicted matte of shape `(height, width)`, float in [0, 1], a numpy array or a torch tensor.
        target: True mask of the same shape.

    Returns:
        The share in [0, 1]; higher is better. 1 for objects without pixels that deep.

    Raises:
        TypeError: If an argument is not a float array or tensor.
        ValueError: If shapes differ or values are outside [0, 1].

    Example:
        >>> import numpy as np
        >>> from fclm_hf.metrics import solidity
        >>> pred, target = np.zeros((40, 40)), np.zeros((40, 40))
        >>> target[5:35, 5:35] = 1
        >>> pred[:, :20], pred[:, 20:] = 1.0, 0.7
        >>> solidity(pred, target)
        0.5
    """
    solid, deep = count_solid_pixels(pred, target)
    return solid / deep if deep else 1.0
