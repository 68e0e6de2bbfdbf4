"""The gradient error (Grad) between two mattes."""

from typing import Any

import cv2
import numpy as np

from .inputs import check_variant, load_pair, load_trimap, overwrite_known


VARIANTS = ("official", "gca", "p3m")
SIGMA = 1.4
CUTOFF = 1e-2  # the filter ends where the Gaussian falls below it


def make_filters(radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a Gaussian and its derivative, each up to a factor, float64 of shape `(2 * radius + 1,)`."""
    positions = np.arange(-radius, radius + 1)
    gaussian = np.exp(-(positions**2) / (2 * SIGMA**2))
    return gaussian, -positions * gaussian


RADIUS = int(np.ceil(SIGMA * np.sqrt(-2 * np.log(np.sqrt(2 * np.pi) * SIGMA * CUTOFF))))
# with these norms the two-dimensional filter, their outer product, has an L2 norm of 1
GAUSSIAN, DERIVATIVE = (kernel / np.linalg.norm(kernel) for kernel in make_filters(RADIUS))


def gradient_magnitude(alpha: np.ndarray) -> np.ndarray:
    """Compute the magnitude of the Gaussian derivatives of a matte.

        sqrt((alpha * gx)^2 + (alpha * gy)^2),  gx(u, v) = g(u) g'(v),  gy = gx transposed

    with convolutions `*`, a standard deviation of 1.4 pixels and filters of L2 norm 1. Beyond the border of the image
    its border pixels are repeated.

    Args:
        alpha: Matte of shape `(height, width)`, float32 or float64.

    Returns:
        The magnitude, float64 of shape `(height, width)`.
    """
    return _filter(alpha, GAUSSIAN, DERIVATIVE, cv2.BORDER_REPLICATE)


def gradient_error(pred: Any, target: Any, trimap: Any = None, variant: str = "official") -> float:
    """Compute the gradient error (Grad) between two mattes.

        Grad = sum((|grad pred| - |grad target|)^2) / 1000

    It penalizes edges that are too soft, too hard or misplaced. The gradient is taken with derivatives of a Gaussian
    with a standard deviation of 1.4 pixels. Defined by "A Perceptually Motivated Online Benchmark for Image Matting"
    (Rhemann et al., CVPR 2009) and computed as in the evaluation code of "Deep Image Matting" (Xu et al., CVPR 2017):
    each matte is first stretched to span [0, 1], and a constant matte has no gradient.

    Args:
        pred: Predicted matte of shape `(height, width)`, float in [0, 1], a numpy array or a torch tensor.
        target: True matte of the same shape.
        trimap: Trimap of the same shape, uint8 of 0 (background), 128 (unknown) and 255 (foreground). If given, known
            pixels of `pred` are overwritten and only unknown pixels count.
        variant: Which implementation to follow:

            - `"official"`: as above.
            - `"gca"`: the code of GCA-Matting, which does not stretch the mattes.
            - `"p3m"`: the code of P3M and GFM, which does not stretch the mattes, divides by 10 instead of 1000, and
              uses a Gaussian whose values sum to 1 and mirrored borders.

    Returns:
        The gradient error, at least 0; lower is better.

    Raises:
        TypeError: If a matte is not a float array or tensor, or the trimap is not uint8.
        ValueError: If `variant` is unknown, shapes differ, a matte has values outside [0, 1], or the trimap has other
            values or no unknown pixel.

    Example:
        >>> import numpy as np
        >>> from fclm_hf.metrics import gradient_error
        >>> target = np.zeros((40, 40))
        >>> target[10:30, 10:30] = 1
        >>> gradient_error(target, target)
        0.0
        >>> round(gradient_error(np.roll(target, 2, axis=1), target), 4)  # two pixels to the right
        0.5941
        >>> round(gradient_error(np.roll(target, 2, axis=1), target, variant="p3m"), 4)
        0.6167
    """
    check_variant(variant, VARIANTS)
    pred, target = load_pair(pred, target)
    mask = None
    if trimap is not None:
        trimap = load_trimap(trimap, pred.shape)
        pred, mask = overwrite_known(pred, trimap), (trimap == 128).astype(np.uint8)
    magnitude = {"official": _stretched_magnitude, "gca": gradient_magnitude, "p3m": _p3m_magnitude}[variant]
    total = cv2.norm(magnitude(pred), magnitude(target), cv2.NORM_L2SQR, mask)
    return float(total) / (10 if variant == "p3m" else 1000)


def _stretched_magnitude(alpha: np.ndarray) -> np.ndarray:
    """Stretch the gradient instead of the matte: it is linear, and this is exact for flat mattes."""
    span = float(alpha.max()) - float(alpha.min())
    return gradient_magnitude(alpha) / span if span else np.zeros(alpha.shape)


def _p3m_magnitude(alpha: np.ndarray) -> np.ndarray:
    """Filter like scipy's `gaussian_filter` with its defaults: cut off at 4 sigma, mirrored at the border."""
    gaussian, derivative = make_filters(int(4 * SIGMA + 0.5))
    total = gaussian.sum()
    return _filter(alpha, gaussian / total, derivative / (total * SIGMA**2), cv2.BORDER_REFLECT)


def _filter(alpha: np.ndarray, gaussian: np.ndarray, derivative: np.ndarray, border: int) -> np.ndarray:
    """Return the magnitude of the derivatives along both axes, float64."""
    pairs = ((derivative, gaussian), (gaussian, derivative))
    return cv2.magnitude(*(cv2.sepFilter2D(alpha, cv2.CV_64F, *pair, borderType=border) for pair in pairs))
