"""Mask prompts for training: the target as a trimap, blurred, or spoiled on purpose as the output of other tools is."""

import cv2
import numpy as np


def make_random_trimap(alpha: np.ndarray, rng: np.random.Generator, unknown: np.ndarray | None = None) -> np.ndarray:
    """Make a trimap whose unknown band is of random width.

    Args:
        alpha: float32 (H, W) in [0, 1].
        rng: Source of randomness.
        unknown: Bool (H, W), True where `alpha` is not known.

    Returns:
        float32 (H, W) of 0, 1 and, within 0.5 to 5% of the longer side of what is fractional, an edge or not known,
        0.5.
    """
    inside = (alpha >= 0.5).astype(np.uint8)
    cross = np.ones((3, 3), np.uint8)
    unsure = ((alpha > 0.02) & (alpha < 0.98)) | (cv2.dilate(inside, cross) != cv2.erode(inside, cross))
    if unknown is not None:
        unsure |= unknown
    radius = max(1, round(max(alpha.shape) * _draw_log_uniform(rng, 0.005, 0.05)))
    band = cv2.dilate(unsure.astype(np.uint8), _make_disk(radius)) > 0
    return np.where(band, 0.5, inside).astype(np.float32)


def spoil_mask(
    alpha: np.ndarray, rng: np.random.Generator, unknown: np.ndarray | None = None, trimap_prob: float = 0.3
) -> np.ndarray:
    """Make a mask prompt out of a target.

    It is a trimap, or a mask of another threshold whose outline may be a polygon, that may be dilated or eroded, miss
    parts or have additional ones, be of low resolution or as soft as an earlier matte.

    Args:
        alpha: float32 (H, W) in [0, 1], not 0 everywhere.
        rng: Source of randomness.
        unknown: Bool (H, W), True where `alpha` is not known.
        trimap_prob: Probability of a trimap.

    Returns:
        float32 (H, W) in [0, 1].

    Raises:
        ValueError: If `alpha` is 0 everywhere.

    Example:
        >>> import numpy as np
        >>> from fclm_hf.data.synthesis.spoiled_masks import spoil_mask

        >>> alpha = np.zeros((64, 64), np.float32)
        >>> alpha[16:48, 16:48] = 1
        >>> spoil_mask(alpha, np.random.default_rng(0)).shape
        (64, 64)
    """
    if not alpha.any():
        raise ValueError("alpha must not be 0 everywhere.")
    if rng.random() < trimap_prob:
        return make_random_trimap(alpha, rng, unknown)
    longest = max(alpha.shape)
    mask = (alpha > min(rng.choice([0.2, 0.5, 0.5, 0.8]), alpha.max() / 2)).astype(np.uint8)
    box = cv2.boundingRect(mask)
    if rng.random() < 0.3:
        mask = _simplify_outlines(mask, rng)
    if rng.random() < 0.6:
        kernel = _make_disk(max(1, round(longest * _draw_log_uniform(rng, 0.002, 0.03))))
        mask = cv2.dilate(mask, kernel) if rng.random() < 0.5 else cv2.erode(mask, kernel)
    for _ in range(int(rng.integers(3)) if rng.random() < 0.5 else 0):
        part = _draw_ellipse(rng, box, mask.shape)
        mask = mask & ~part if rng.random() < 0.6 else mask | part
    result = mask.astype(np.float32)
    if rng.random() < 0.4:
        size = int(rng.integers(16, 65))
        small = cv2.resize(result, (size, size), interpolation=cv2.INTER_AREA)
        result = cv2.resize(small, mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
        if rng.random() < 0.6:
            result = (result > rng.uniform(0.3, 0.7)).astype(np.float32)
    elif rng.random() < 0.4:
        result = cv2.GaussianBlur(result, (0, 0), longest * rng.uniform(0.003, 0.015)) * rng.uniform(0.6, 1.0)
    return np.clip(result, 0, 1).astype(np.float32)


def blur_alpha(alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur an alpha as an earlier look at less than full size does, with its errors.

    Args:
        alpha: float32 (H, W) in [0, 1].
        rng: Source of randomness.

    Returns:
        float32 (H, W) in [0, 1], 2 to 12 times as coarse. In half of the cases each it is wrong by up to a few cells of
        that grid, differently in each place, and firmer or softer.

    Example:
        >>> import numpy as np
        >>> from fclm_hf.data.synthesis.spoiled_masks import blur_alpha

        >>> alpha = np.zeros((64, 48), np.float32)
        >>> alpha[:, 24:] = 1
        >>> blur_alpha(alpha, np.random.default_rng(0)).shape
        (64, 48)
    """
    factor = _draw_log_uniform(rng, 2, 12)
    small = [max(8, round(side / factor)) for side in alpha.shape[::-1]]
    low = cv2.resize(alpha, small, interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        shift = cv2.resize(rng.normal(size=(5, 5)).astype(np.float32), small, interpolation=cv2.INTER_CUBIC)
        low = np.clip(low + 0.25 * shift * (cv2.GaussianBlur(low, (0, 0), 1.5) * 4 * (1 - low)).clip(0, 1), 0, 1)
    low = cv2.resize(low, alpha.shape[::-1], interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        low = 0.5 + (low - 0.5) * float(np.exp(rng.uniform(-0.3, 1.2)))
    return np.clip(low, 0, 1).astype(np.float32)


def _draw_log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _make_disk(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def _simplify_outlines(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the mask with polygons for outlines, without holes."""
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    tolerance = _draw_log_uniform(rng, 0.003, 0.03)
    polygons = [cv2.approxPolyDP(outline, tolerance * cv2.arcLength(outline, True), True) for outline in outlines]
    return cv2.fillPoly(np.zeros_like(mask), [polygon for polygon in polygons if len(polygon) > 2], 1)


def _draw_ellipse(rng: np.random.Generator, box: tuple[int, int, int, int], shape: tuple[int, int]) -> np.ndarray:
    """Return an ellipse somewhere in a box (left, top, width, height), as a mask of 0 and 1."""
    left, top, width, height = box
    center = int(left + rng.random() * width), int(top + rng.random() * height)
    axes = max(1, int(width * rng.uniform(0.05, 0.35))), max(1, int(height * rng.uniform(0.05, 0.35)))
    return cv2.ellipse(np.zeros(shape, np.uint8), center, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)


__all__ = ["blur_alpha", "make_random_trimap", "spoil_mask"]
