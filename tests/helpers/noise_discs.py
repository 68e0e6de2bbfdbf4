"""Discs of noise with a soft edge."""

import numpy as np
from PIL import Image


def draw_disc(size: tuple[int, int], center: tuple[int, int], radius: int, seed: int = 0) -> Image.Image:
    """Return a disc of noise, its alpha falling from 255 to 0 over six pixels."""
    width, height = size
    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot(columns - center[0], rows - center[1])
    alpha = np.clip((radius - distance) / 6, 0, 1) * 255
    colors = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return Image.fromarray(np.dstack([colors, alpha]).astype(np.uint8))
