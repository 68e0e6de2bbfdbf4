"""Procedural hair and fur: thin curved strands grown from the silhouette of an object."""

import cv2
import numpy as np


def extend_colours(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Carries the colours of an object beyond its silhouette: (H, W, 3) float32 in, the same out."""
    weight = alpha[..., None]
    result, filled = colours * weight, weight.copy()
    for radius in (3, 9, 27):
        size = (2 * radius + 1, 2 * radius + 1)
        blurred = cv2.blur(result, size) / np.maximum(cv2.blur(filled, size), 1e-4)[..., None]
        reached = (cv2.blur(filled, size) > 1e-3).astype(np.float32)[..., None]
        result = np.where(filled > 0.05, result, blurred * reached)
        filled = np.maximum(filled.reshape(*alpha.shape, 1), reached)
    return np.where(alpha[..., None] > 0.5, colours, result).astype(np.float32)


def add_strands(colours: np.ndarray, alpha: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Grows strands outwards from a stretch of the contour.

    Args:
        colours: (H, W, 3) uint8. alpha: (H, W) float32 in [0, 1]; leave room around the object.
        rng: source of randomness.

    Returns:
        Colours (H, W, 3) uint8 and alpha (H, W) float32 with the strands.
    """
    contours, _ = cv2.findContours((alpha > 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contours = [contour[:, 0] for contour in contours if len(contour) > 40]
    if not contours:
        return colours, alpha
    contour = max(contours, key=len).astype(np.float32)
    length = len(contour)
    stretch = int(length * rng.uniform(0.15, 1.0))
    count = int(stretch * rng.uniform(0.3, 1.2))
    starts = (rng.integers(length) + rng.integers(0, max(stretch, 1), size=count)) % length
    tangent = np.roll(contour, -3, axis=0) - np.roll(contour, 3, axis=0)
    normal = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
    centre = contour.mean(0)
    if ((contour - centre) * normal).sum() < 0:
        normal = -normal
    reach = rng.uniform(0.02, 0.18) * max(alpha.shape)
    comb = rng.normal(size=2) * 0.6  # strands lie in a common direction
    steps = np.linspace(-0.15, 1, 9)[:, None]
    canvas = np.zeros(alpha.shape, np.uint8)
    shift = 3
    for start in starts:
        direction = normal[start] + comb + rng.normal(size=2) * 0.35
        bend = rng.normal(size=2) * 0.5
        span = reach * rng.uniform(0.3, 1.0)
        curve = contour[start] + span * (steps * direction + steps**2 * bend)
        points = np.round(curve * 2**shift).astype(np.int32)
        tone = int(rng.uniform(60, 255))
        cv2.polylines(canvas, [points], False, tone, 1, cv2.LINE_AA, shift)
    strands = canvas.astype(np.float32) / 255
    if rng.random() < 0.5:
        strands = cv2.GaussianBlur(strands, (0, 0), float(rng.uniform(0.4, 0.9)))
    extended = extend_colours(colours.astype(np.float32), alpha)
    alpha = np.maximum(alpha, np.clip(strands, 0, 1))
    return np.clip(extended, 0, 255).astype(np.uint8), alpha
