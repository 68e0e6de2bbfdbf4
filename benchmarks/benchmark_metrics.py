"""Compares the speed of fclm_hf.metrics with plain implementations; needs scikit-image; run by benchmark.py.

The plain implementations label components with scikit-image, filter with scipy, and measure instances at full size. The
tests use them as oracles.
"""

from itertools import pairwise
from statistics import median

import cv2
import numpy as np
from bench import Bench, divide


SIZE = (2000, 3000)  # height, width, for a Bench of side 1024
INSTANCES_SIZE = (1000, 1500)
INSTANCES = (4, 5)  # rows, columns


def connectivity_by_labels(pred: np.ndarray, target: np.ndarray, thresholds: np.ndarray, gca: bool = False) -> float:
    """Return the sum of connectivity differences: every component at every threshold is labeled and counted."""
    from skimage.measure import label

    last = np.full(pred.shape, -1.0)
    for lower, threshold in pairwise(thresholds):
        labels = label((pred >= threshold) & (target >= threshold), connectivity=1)
        sizes = np.bincount(labels.ravel())
        if not gca:
            sizes[0] = 0
        largest = labels == sizes.argmax() if sizes.any() else np.zeros(pred.shape, bool)
        last[(last == -1) & ~largest] = lower
    last[last == -1] = 1
    above_pred, above_target = pred - last, target - last
    return float(np.abs(above_pred * (above_pred >= 0.15) - above_target * (above_target >= 0.15)).sum())


def magnitude_by_filters(alpha: np.ndarray) -> np.ndarray:
    """Return the gradient magnitude (height, width) by two-dimensional filters of 9 x 9."""
    from scipy.ndimage import convolve

    positions = np.arange(-4, 5)
    gaussian = np.exp(-(positions**2) / (2 * 1.4**2))
    kernel = np.outer(gaussian, -positions * gaussian)
    kernel /= np.sqrt((kernel**2).sum())
    return np.hypot(convolve(alpha, kernel, mode="nearest"), convolve(alpha, kernel.T, mode="nearest"))


def gradient_by_filters(pred: np.ndarray, target: np.ndarray) -> float:
    """Return the sum of squared differences of the gradient magnitudes of stretched mattes."""
    stretched = [(alpha - alpha.min()) / (np.ptp(alpha) or 1) for alpha in (pred, target)]
    return float(((magnitude_by_filters(stretched[0]) - magnitude_by_filters(stretched[1])) ** 2).sum())


def quality_at_full_size(pred: np.ndarray, target: np.ndarray, iou_threshold: float = 0.5) -> dict[str, float]:
    """Return the IMQ of one image from instances (N, H, W) and (M, H, W), every step on whole images."""
    from scipy.optimize import linear_sum_assignment

    iou = np.zeros((len(pred), len(target)))
    for i, j in np.ndindex(iou.shape):
        union = ((pred[i] > 0) | (target[j] > 0)).sum()
        iou[i, j] = ((pred[i] > 0) & (target[j] > 0)).sum() / (union + 1e-8)
    sums = dict.fromkeys(("mad", "mse", "grad", "conn"), 0.0)
    hits = 0
    for i, j in zip(*linear_sum_assignment(1 - iou), strict=True):
        if iou[i, j] < iou_threshold:
            continue
        hits += 1
        union = (pred[i] > 0) | (target[j] > 0)
        difference = np.abs(pred[i] - target[j])
        single = pred[i].astype(np.float32), target[j].astype(np.float32)
        magnitudes = [magnitude_by_filters(each.astype(np.float64)) for each in single]
        errors = {
            "mad": difference[union].sum(),
            "mse": (difference[union] ** 2).sum(),
            "grad": ((magnitudes[0] - magnitudes[1])[union] ** 2).sum(),
            "conn": connectivity_by_labels(*single, np.arange(0, 1.1, 0.1).astype(np.float32)),
        }
        for name, error in errors.items():
            sums[name] += 1 - min(10 * error / (union.sum() + 1), 1)
    misses = len(pred) + len(target) - 2 * hits
    return {f"imq_{name}": 100 * value / (hits + misses / 2 + 1e-6) for name, value in sums.items()}


def draw_object(size: tuple[int, int], center: tuple[float, float], radius: float) -> np.ndarray:
    """Return a lobed object with strands, soft over a fiftieth of its radius: float64 (height, width), 8-bit values."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    distance = np.hypot(columns - center[1], rows - center[0])
    angle = np.arctan2(rows - center[0], columns - center[1])
    outline = radius * (1 + 0.08 * np.sin(7 * angle) + 0.05 * np.sin(180 * angle) * (np.sin(3 * angle) > 0))
    return np.rint(255 * np.clip((outline - distance) * 30 / radius + 0.5, 0, 1)) / 255


def blur_object(target: np.ndarray, generator: np.random.Generator, radius: float) -> np.ndarray:
    """Return a plausible prediction: soft, with an uneven edge, a hole and a spurious object."""
    height, width = target.shape
    noise = cv2.GaussianBlur(generator.standard_normal(target.shape), (0, 0), radius / 100) * radius / 100
    edge = cv2.GaussianBlur(target, (0, 0), radius / 50)
    pred = cv2.GaussianBlur(target, (0, 0), radius / 160) + edge * (1 - edge) * noise
    moments = cv2.moments(target)
    center = moments["m01"] / moments["m00"], moments["m10"] / moments["m00"]
    pred = np.minimum(pred, 1 - draw_object((height, width), center, radius / 9))
    pred = np.maximum(pred, draw_object((height, width), (center[0] - 0.9 * radius, center[1] - radius), radius / 9))
    return np.rint(255 * np.clip(pred, 0, 1)) / 255


def draw_pair(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return a prediction and its target, with one object that fills the frame."""
    radius = 0.4 * min(size)
    target = draw_object(size, (size[0] / 2, size[1] / 2), radius)
    return blur_object(target, np.random.default_rng(0), radius), target


def draw_instances(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return predictions and targets (N, height, width) of a grid of objects, in different orders."""
    generator = np.random.default_rng(0)
    height, width = size[0] / INSTANCES[0], size[1] / INSTANCES[1]
    radius = 0.4 * min(height, width)
    centers = [((row + 0.5) * height, (column + 0.5) * width) for row, column in np.ndindex(INSTANCES)]
    targets = np.stack([draw_object(size, center, radius) for center in centers])
    return np.stack([blur_object(target, generator, radius) for target in targets])[::-1].copy(), targets


def measure_metrics(bench: Bench) -> None:
    """Compare Conn, Grad and IMQ with the functions above."""
    from fclm_hf.metrics import InstanceMattingQuality, connectivity_error, gradient_error

    def scale(size: tuple[int, int]) -> tuple[int, int]:
        return size[0] * bench.side // 1024, size[1] * bench.side // 1024

    def measure_instances() -> float:
        quality = InstanceMattingQuality()
        quality.update(preds, targets)
        return quality.compute()["imq_mad"]

    pred, target = draw_pair(scale(SIZE))
    preds, targets = draw_instances(scale(INSTANCES_SIZE))
    thresholds = np.arange(0, 1.1, 0.1)
    count = len(targets)
    cases = {
        "Conn": (
            5,
            pred.shape,
            lambda: connectivity_by_labels(pred, target, thresholds) / 1000,
            lambda: connectivity_error(pred, target),
        ),
        "Grad": (
            3,
            pred.shape,
            lambda: gradient_by_filters(pred, target) / 1000,
            lambda: gradient_error(pred, target),
        ),
        f"IMQ of {count} instances": (
            5,
            targets.shape[1:],
            lambda: quality_at_full_size(preds, targets)["imq_mad"],
            measure_instances,
        ),
    }
    for name, (bound, shape, plain, ours) in cases.items():
        seconds = bench.time_rounds({"plain": plain, "ours": ours})
        ratio = divide(seconds["plain"], seconds["ours"])
        medians = ", ".join(f"{key} {1000 * median(each):.0f} ms" for key, each in seconds.items())
        note = f"{medians}, values differ by {abs(plain() - ours()):.1e}"
        label = f"straightforward / ours, {name}, {shape[0]} x {shape[1]}"
        bench.record("metrics", label, ratio, bound, "x", note, at_most=False)
