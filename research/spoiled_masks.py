"""Masks as other tools give them: the target, spoiled on purpose."""

import cv2
import numpy as np


def _ellipse(rng: np.random.Generator, box: tuple[int, int, int, int], shape: tuple[int, int]) -> np.ndarray:
    x, y, w, h = box
    center = (int(x + rng.random() * w), int(y + rng.random() * h))
    axes = (max(1, int(w * rng.uniform(0.05, 0.35))), max(1, int(h * rng.uniform(0.05, 0.35))))
    return cv2.ellipse(np.zeros(shape, np.uint8), center, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)


def _polygon(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    result = np.zeros_like(mask)
    share = np.exp(rng.uniform(np.log(0.003), np.log(0.03)))
    outlines = [cv2.approxPolyDP(c, share * cv2.arcLength(c, True), True) for c in contours]
    return cv2.fillPoly(result, [o for o in outlines if len(o) > 2], 1)


def _kernel(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def make_trimap(alpha: np.ndarray, rng: np.random.Generator, unsure: np.ndarray | None = None) -> np.ndarray:
    """1, 0 and, within .5 to 5 % of the side of what is fractional or `unsure`, 0.5."""
    soft = (alpha > 0.02) & (alpha < 0.98)
    inside = (alpha >= 0.5).astype(np.uint8)
    soft |= cv2.dilate(inside, np.ones((3, 3), np.uint8)) != cv2.erode(inside, np.ones((3, 3), np.uint8))
    if unsure is not None:
        soft |= unsure
    radius = max(1, round(len(alpha) * np.exp(rng.uniform(np.log(0.005), np.log(0.05)))))
    unknown = cv2.dilate(soft.astype(np.uint8), _kernel(radius)) > 0
    return np.where(unknown, 0.5, inside).astype(np.float32)


def spoil_mask(alpha: np.ndarray, rng: np.random.Generator, unsure: np.ndarray | None = None) -> np.ndarray:
    """A trimap, a rough binary mask or a soft earlier matte of `alpha` (H, W) float32 in [0, 1]."""
    if rng.random() < 0.3:
        return make_trimap(alpha, rng, unsure)
    side = max(alpha.shape)
    mask = (alpha > rng.choice([0.2, 0.5, 0.5, 0.8])).astype(np.uint8)
    if not mask.any():
        mask = (alpha > alpha.max() / 2).astype(np.uint8)
    box = cv2.boundingRect(mask)
    if rng.random() < 0.3:
        mask = _polygon(mask, rng)
    if rng.random() < 0.6:
        radius = max(1, round(side * np.exp(rng.uniform(np.log(0.002), np.log(0.03)))))
        mask = (cv2.dilate if rng.random() < 0.5 else cv2.erode)(mask, _kernel(radius))
    for _ in range(int(rng.integers(0, 3)) if rng.random() < 0.5 else 0):  # missing and additional parts
        part = _ellipse(rng, box, mask.shape)
        mask = mask & ~part if rng.random() < 0.6 else mask | part
    result = mask.astype(np.float32)
    if rng.random() < 0.4:  # low resolution
        size = int(rng.integers(16, 65))
        small = cv2.resize(result, (size, size), interpolation=cv2.INTER_AREA)
        result = cv2.resize(small, mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
        if rng.random() < 0.6:
            result = (result > rng.uniform(0.3, 0.7)).astype(np.float32)
    elif rng.random() < 0.4:  # as soft as an earlier matte
        result = cv2.GaussianBlur(result, (0, 0), float(side * rng.uniform(0.003, 0.015)))
        result = result * rng.uniform(0.6, 1.0)
    return np.clip(result, 0, 1)
