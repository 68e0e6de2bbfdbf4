"""Parts of a photo around its objects."""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Window:
    """A rectangle of a photo, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, pixels: np.ndarray, size: int) -> np.ndarray:
        """This part of `pixels` (H, W) or (H, W, C) uint8, its longer side scaled to `size`."""
        part = pixels[self.top : self.top + self.height, self.left : self.left + self.width]
        scale = size / max(self.height, self.width)
        target = max(1, round(self.width * scale)), max(1, round(self.height * scale))
        mode = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        return cv2.resize(np.ascontiguousarray(part), target, interpolation=mode)


def draw_window(alpha: np.ndarray, rng: np.random.Generator) -> Window:
    """A square that shows the object from near by or from some distance, at times cut off.

    Args:
        alpha: (H, W) uint8, not 0 everywhere.
        rng: source of randomness.
    """
    height, width = alpha.shape
    left, top, box_width, box_height = cv2.boundingRect((alpha > min(25, alpha.max() / 2)).astype(np.uint8))
    longest, limit = max(box_width, box_height), min(height, width)
    zoom = float(np.exp(rng.uniform(np.log(0.8), np.log(2.5))))
    side = max(1, int(np.clip(longest * zoom, 0.3 * limit, limit)))
    across = left + box_width * rng.uniform(0.3, 0.7) - side * rng.uniform(0.3, 0.7)
    down = top + box_height * rng.uniform(0.3, 0.7) - side * rng.uniform(0.3, 0.7)
    corner_top, corner_left = np.clip([down, across], 0, [height - side, width - side]).astype(int)
    return Window(int(corner_top), int(corner_left), side, side)
