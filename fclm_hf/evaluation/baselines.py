"""What a user might take instead: the box itself, GrabCut and closed-form matting, all from a box."""

from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image


Box = tuple[float, float, float, float]
MARGIN = 8  # pixels around the box that closed-form matting sees


def fill_box(image: Image.Image, box: Box) -> np.ndarray:
    """The box itself as a mask, float32 (H, W) of 0 and 1."""
    alpha = np.zeros((image.height, image.width), dtype=np.float32)
    x0, y0, x1, y1 = (round(value) for value in box)
    alpha[y0:y1, x0:x1] = 1
    return alpha


def run_grabcut(image: Image.Image, box: Box) -> np.ndarray:
    """OpenCV's GrabCut from the box, five rounds, float32 (H, W) of 0 and 1."""
    x0, y0, x1, y1 = (round(value) for value in box)
    # GrabCut models the background from the pixels outside the box: it fails when there are none.
    x0, y0 = max(x0, 1), max(y0, 1)
    x1, y1 = min(x1, image.width - 1), min(y1, image.height - 1)
    labels = np.zeros((image.height, image.width), dtype=np.uint8)
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    pixels = np.ascontiguousarray(np.asarray(image)[..., ::-1])
    cv2.setRNGSeed(0)
    cv2.grabCut(pixels, labels, (x0, y0, x1 - x0, y1 - y0), background, foreground, 5, cv2.GC_INIT_WITH_RECT)
    return np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)


def run_closed_form(image: Image.Image, box: Box) -> np.ndarray:
    """Closed-form matting (Levin et al., 2008; pymatting) from a trimap made of the box, float32 (H, W) in [0, 1].

    The trimap is background outside the box, foreground in the box of half its width and height about its centre, and
    unknown between. The image is cut to the box and a margin: further pixels are known and change nothing.
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
    return fill_box(image, box)  # without known pixels of both kinds nothing can be solved


BASELINES: dict[str, Callable[[Image.Image, Box], np.ndarray]] = {
    "box-as-mask": fill_box,
    "grabcut": run_grabcut,
    "closed-form": run_closed_form,
}
