"""Geometry of cut-out objects: where they are put, how large and at which angle."""

import cv2
import numpy as np

from ..types import Foreground


def warp_foreground(
    foreground: Foreground, rng: np.random.Generator, scale: tuple[float, float], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scale, stretch, mirror, rotate and move an object at random.

    Args:
        foreground: The object.
        rng: Source of randomness.
        scale: Range of the object's longer side, as a fraction of `size`.
        size: Side of the result in pixels.

    Returns:
        Colors `(size, size, 3)` uint8, continued beyond the object, and alpha `(size, size)` float32 in [0, 1].
    """
    height, width = foreground.alpha.shape
    longer = size * float(np.exp(rng.uniform(*np.log(scale))))
    zoom = longer / max(height, width)
    linear = _draw_linear_map(foreground, rng, zoom)
    center = _draw_center(foreground, rng, longer * height / max(height, width), size)
    matrix = np.hstack([linear, (center - linear @ [width / 2, height / 2])[:, None]]).astype(np.float32)
    colors, alpha = foreground.colors, foreground.alpha
    if zoom < 0.5:  # warping does not antialias: shrink first
        small = (max(1, round(width * zoom)), max(1, round(height * zoom)))
        colors = cv2.resize(colors, small, interpolation=cv2.INTER_AREA)
        alpha = cv2.resize(alpha, small, interpolation=cv2.INTER_AREA)
        matrix[:, :2] *= np.array([width / small[0], height / small[1]], np.float32)
    mode = cv2.INTER_LINEAR
    colors = cv2.warpAffine(colors, matrix, (size, size), flags=mode, borderMode=cv2.BORDER_REPLICATE)
    return colors, np.clip(cv2.warpAffine(alpha, matrix, (size, size), flags=mode), 0, 1)


def _draw_linear_map(foreground: Foreground, rng: np.random.Generator, zoom: float) -> np.ndarray:
    """Return a 2 x 2 matrix that scales by about `zoom` and stretches, mirrors and rotates at random."""
    stretch = float(np.exp(rng.uniform(-0.2, 0.2)))
    zoom_x, zoom_y = zoom * stretch, zoom / stretch
    if rng.random() < 0.5:
        zoom_x = -zoom_x
    tilt = float(rng.normal() * 12) if rng.random() < 0.9 else float(rng.uniform(-180, 180))
    if any(foreground.cut_sides):
        tilt *= 0.3
    angle = np.deg2rad(tilt)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * [[zoom_x, zoom_y]]


def _draw_center(foreground: Foreground, rng: np.random.Generator, height: float, size: int) -> np.ndarray:
    """Return (x, y) of the object's center. What its source cut off at the bottom mostly stands on the lower border."""
    spread = 0.22 if rng.random() < 0.7 else 0.4
    center = size * np.clip(0.5 + rng.normal(size=2) * spread, 0.02, 0.98)
    if foreground.cut_sides[3] and rng.random() < 0.8:
        center[1] = size - height * rng.uniform(0.3, 0.5)
    return center
