"""Grad of "A perceptually motivated online benchmark for image matting" (Rhemann et al., CVPR 2009)."""

from typing import Any

import cv2
import numpy as np

from .inputs import load_pair, load_trimap, overwrite_known


SIGMA = 1.4
CUTOFF = 1e-2  # the filter ends where the Gaussian falls below it


def make_filters() -> tuple[np.ndarray, np.ndarray]:
    """A Gaussian and its derivative, float64 (2 r + 1,). Their outer product, the filter, has an L2 norm of 1."""
    radius = int(np.ceil(SIGMA * np.sqrt(-2 * np.log(np.sqrt(2 * np.pi) * SIGMA * CUTOFF))))
    positions = np.arange(-radius, radius + 1)
    gaussian = np.exp(-(positions**2) / (2 * SIGMA**2))
    derivative = -positions * gaussian
    return gaussian / np.linalg.norm(gaussian), derivative / np.linalg.norm(derivative)


GAUSSIAN, DERIVATIVE = make_filters()
RADIUS = len(GAUSSIAN) // 2


def gradient_magnitude(alpha: np.ndarray) -> np.ndarray:
    """
    Magnitude of the Gaussian derivatives of `alpha` (H, W), float64 (H, W).

    The image is continued beyond its border by its border pixels. sqrt((alpha * gx)^2 + (alpha * gy)^2) with
    gx(u, v) = g(u) g'(v), gy its transpose, sigma 1.4, both of L2 norm 1.
    """
    kernels = ((DERIVATIVE, GAUSSIAN), (GAUSSIAN, DERIVATIVE))
    parts = [cv2.sepFilter2D(alpha, cv2.CV_64F, *pair, borderType=cv2.BORDER_REPLICATE) for pair in kernels]
    return cv2.magnitude(*parts)


def gradient_error(pred: Any, target: Any, trimap: Any = None) -> float:
    r"""
    Grad: sum of (|grad pred| - |grad target|)^2 / 1000.

    Each matte is first stretched to span [0, 1]; a constant one has no gradient. The gradient is that of
    [`gradient_magnitude`], as in the evaluation code of Deep Image Matting (Xu et al., CVPR 2017).

    Args:
        pred, target: float (H, W) in [0, 1], numpy or torch.
        trimap: uint8 (H, W) of 0, 128, 255. With it, `pred` is overwritten in known pixels, only unknown ones count.

    Raises:
        TypeError, ValueError: see `load_mattes` and `load_trimap` in `inputs.py`.
    """
    pred, target = load_pair(pred, target)
    if trimap is None:
        return float(cv2.norm(_stretched_magnitude(pred), _stretched_magnitude(target), cv2.NORM_L2SQR)) / 1000
    trimap = load_trimap(trimap, pred.shape)
    magnitudes = _stretched_magnitude(overwrite_known(pred, trimap)), _stretched_magnitude(target)
    return float(cv2.norm(*magnitudes, cv2.NORM_L2SQR, (trimap == 128).astype(np.uint8))) / 1000


def _stretched_magnitude(alpha: np.ndarray) -> np.ndarray:
    """The gradient is linear: stretching it is stretching the matte, but exact for flat ones."""
    span = float(alpha.max()) - float(alpha.min())
    return gradient_magnitude(alpha) / span if span else np.zeros(alpha.shape)
