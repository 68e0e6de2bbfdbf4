"""Grad of "A perceptually motivated online benchmark for image matting" (Rhemann et al., CVPR 2009)."""

from typing import Any

import cv2
import numpy as np

from .inputs import check_variant, load_pair, load_trimap, overwrite_known


VARIANTS = ("official", "gca", "p3m")
SIGMA = 1.4
CUTOFF = 1e-2  # the filter ends where the Gaussian falls below it


def make_filters(radius: int) -> tuple[np.ndarray, np.ndarray]:
    """A Gaussian and its derivative up to a factor, float64 (2 radius + 1,)."""
    positions = np.arange(-radius, radius + 1)
    gaussian = np.exp(-(positions**2) / (2 * SIGMA**2))
    return gaussian, -positions * gaussian


RADIUS = int(np.ceil(SIGMA * np.sqrt(-2 * np.log(np.sqrt(2 * np.pi) * SIGMA * CUTOFF))))
# their outer product, the filter, has an L2 norm of 1
GAUSSIAN, DERIVATIVE = (kernel / np.linalg.norm(kernel) for kernel in make_filters(RADIUS))


def gradient_magnitude(alpha: np.ndarray) -> np.ndarray:
    """Magnitude of the Gaussian derivatives of `alpha` (H, W), float64 (H, W).

    The image is continued beyond its border by its border pixels. sqrt((alpha * gx)^2 + (alpha * gy)^2) with
    gx(u, v) = g(u) g'(v), gy its transpose, sigma 1.4, both of L2 norm 1.
    """
    return _filter(alpha, GAUSSIAN, DERIVATIVE, cv2.BORDER_REPLICATE)


def gradient_error(pred: Any, target: Any, trimap: Any = None, variant: str = "official") -> float:
    r"""Grad: sum of (|grad pred| - |grad target|)^2 / 1000.

    Each matte is first stretched to span [0, 1]; a constant one has no gradient. The gradient is that of
    [`gradient_magnitude`], as in the evaluation code of Deep Image Matting (Xu et al., CVPR 2017).

    Args:
        pred, target: float (H, W) in [0, 1], numpy or torch.
        trimap: uint8 (H, W) of 0, 128, 255. With it, `pred` is overwritten in known pixels, only unknown ones count.
        variant: "official"; "gca" for the code of GCA-Matting, which does not stretch; or "p3m" for that of P3M and
            GFM, which does not either, divides by 10, and takes derivatives of a Gaussian of sum 1 at mirrored borders.

    Raises:
        TypeError, ValueError: see `load_mattes` and `load_trimap` in `inputs.py`; or `variant` is unknown.
    """
    check_variant(variant, VARIANTS)
    pred, target = load_pair(pred, target)
    mask = None
    if trimap is not None:
        trimap = load_trimap(trimap, pred.shape)
        pred, mask = overwrite_known(pred, trimap), (trimap == 128).astype(np.uint8)
    measure = {"official": _stretched_magnitude, "gca": gradient_magnitude, "p3m": _plain_magnitude}[variant]
    total = cv2.norm(measure(pred), measure(target), cv2.NORM_L2SQR, mask)
    return float(total) / (10 if variant == "p3m" else 1000)


def _stretched_magnitude(alpha: np.ndarray) -> np.ndarray:
    """The gradient is linear: stretching it is stretching the matte, but exact for flat ones."""
    span = float(alpha.max()) - float(alpha.min())
    return gradient_magnitude(alpha) / span if span else np.zeros(alpha.shape)


def _plain_magnitude(alpha: np.ndarray) -> np.ndarray:
    """Of scipy's `gaussian_filter` with its defaults: cut off at 4 sigma, mirrored at the border."""
    gaussian, derivative = make_filters(int(4 * SIGMA + 0.5))
    total = gaussian.sum()
    return _filter(alpha, gaussian / total, derivative / (total * SIGMA**2), cv2.BORDER_REFLECT)


def _filter(alpha: np.ndarray, gaussian: np.ndarray, derivative: np.ndarray, border: int) -> np.ndarray:
    pairs = ((derivative, gaussian), (gaussian, derivative))
    return cv2.magnitude(*(cv2.sepFilter2D(alpha, cv2.CV_64F, *pair, borderType=border) for pair in pairs))
