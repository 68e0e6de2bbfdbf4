"""Baselines that need only a box: the box itself, GrabCut, and closed-form matting."""

from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image


Box = tuple[float, float, float, float]
MARGIN = 8  # pixels around the box that closed-form matting sees


def fill_box(image: Image.Image, box: Box) -> np.ndarray:
    """Return the box itself as a mask.

    Args:
        image: The photo.
        box: (x0, y0, x1, y1) in pixels, x1 and y1 exclusive.

    Returns:
        A mask of 0 and 1, float32 of shape `(height, width)`.
    """
    alpha = np.zeros((image.height, image.width), dtype=np.float32)
    x0, y0, x1, y1 = (round(value) for value in box)
    alpha[y0:y1, x0:x1] = 1
    return alpha


def run_grabcut(image: Image.Image, box: Box) -> np.ndarray:
    """Segment the object in a box with five iterations of OpenCV's GrabCut.

    Args:
        image: The photo, RGB.
        box: (x0, y0, x1, y1) in pixels, x1 and y1 exclusive.

    Returns:
        A mask of 0 and 1, float32 of shape `(height, width)`.
    """
    x0, y0, x1, y1 = (round(value) for value in box)
    # GrabCut models the background from the pixels outside the box and fails if there are none
    x0, y0 = max(x0, 1), max(y0, 1)
    x1, y1 = min(x1, image.width - 1), min(y1, image.height - 1)
    labels = np.zeros((image.height, image.width), dtype=np.uint8)
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    pixels = np.ascontiguousarray(np.asarray(image)[..., ::-1])
    cv2.setRNGSeed(0)
    cv2.grabCut(pixels, labels, (x0, y0, x1 - x0, y1 - y0), background, foreground, 5, cv2.GC_INIT_WITH_RECT)
    return np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)


def run_closed_form(image: Image.Image, box: Box) -> np.ndarray:
    """Matte the object in a box with closed-form matting (Levin et al., 2008; pymatting).

    The trimap is background outside the box, foreground in a box of half its width and height with the same center, and
    unknown in between. The image is cropped to the box and a margin: pixels beyond it are known and change nothing.

    Args:
        image: The photo, RGB.
        box: (x0, y0, x1, y1) in pixels, x1 and y1 exclusive.

    Returns:
        A matte in [0, 1], float32 of shape `(height, width)`.
    """
    from pymatting import estimate_alpha_cf

    trimap = fill_box(image, box) / 2
    quarter = (box[2] - box[0]) / 4, (box[3] - box[1]) / 4
    core = box[0] + quarter[0], box[1] + quarter[1], box[2] - quarter[0], box[3] - quarter[1]
    trimap = np.maximum(trimap, fill_box(image, core)).astype(np.float64)
    x0, y0 = max(0, int(box[0]) - MARGIN), max(0, int(box[1]) - MARGIN)
    window = np.s_[y0 : int(box[3]) + MARGIN, x0 : int(box[2]) + MARGIN]
    alpha = np.zeros(trimap.shape, dtype=np.float32)
    if 0 in trimap[window] and 1 in trimap[window]:
        alpha[window] = np.clip(estimate_alpha_cf(np.asarray(image)[window] / 255.0, trimap[window]), 0, 1)
        return alpha
    return fill_box(image, box)  # without known pixels of both kinds there is nothing to solve


BASELINES: dict[str, Callable[[Image.Image, Box], np.ndarray]] = {
    "box-as-mask": fill_box,
    "grabcut": run_grabcut,
    "closed-form": run_closed_form,
}
