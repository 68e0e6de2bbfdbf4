"""Mattes to measure, and the straightforward implementations in the benchmark script as oracles."""

from types import ModuleType

import cv2
import numpy as np
from scripts import load_script


def load_oracles() -> ModuleType:
    """Return the module of the benchmark script with the straightforward implementations."""
    return load_script("benchmark_metrics")


def random_pair(generator: np.random.Generator, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return two mattes of one random size: noise, smooth, binary, or coarse steps that tie with the thresholds."""
    shape = tuple(generator.integers(1, 40, 2))
    pred, target = generator.random(shape), generator.random(shape)
    if kind == "smooth":
        pred, target = (cv2.GaussianBlur(each, (0, 0), 2) for each in (pred, target))
        pred, target = ((each - each.min()) / (np.ptp(each) + 1e-9) for each in (pred, target))
    elif kind == "binary":
        pred, target = (pred > 0.3).astype(float), (target > 0.4).astype(float)
    elif kind == "steps":
        target = np.rint(target * 5) / 5
        pred = np.where(generator.random(shape) < 0.1, 0.6, target)
    return pred, target


def disc(size: tuple[int, int], center: tuple[float, float], radius: float, soft: float = 6) -> np.ndarray:
    """Return a soft disc, float64 (H, W) of 8-bit values; `center` is (x, y)."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    distance = np.hypot(columns - center[0], rows - center[1])
    return np.rint(255 * np.clip((radius - distance) / soft + 0.5, 0, 1)) / 255
