"""Colours of the foreground alone, so that no halo of the old background shows on a new one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F


try:  # twice as fast as torch here, but not there for everyone who loads this file from the Hub
    import cv2
except ImportError:
    cv2 = None

_REGULARIZATION = 1e-3
_RELIABILITY = 1e-2  # weight that colours of the other layer keep in the local means: they fill where a layer is absent


def estimate_foreground(image: Any, alpha: Any) -> np.ndarray:
    """Colours F of the foreground in `image = alpha * F + (1 - alpha) * B`.

    pymatting's multi-level estimator where it is installed, else [`estimate_foreground_multiscale`]. Where alpha is 1,
    the colours are exactly those of the image; where it is 0, those of the foreground nearby.

    Args:
        image: PIL image or array (H, W, 3); uint8 in 0..255 or float in 0..1.
        alpha: PIL image, array or tensor (H, W); uint8 in 0..255 or float in 0..1.

    Returns:
        Array (H, W, 3): uint8 for an 8-bit image, else float32 in 0..1.

    Raises:
        ValueError: shapes that do not match, or values out of range.
    """
    original = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    if original.ndim != 3 or original.shape[2] != 3:
        raise ValueError(f"image must have shape (H, W, 3), got {original.shape}.")
    colours, opacity = _as_unit_floats(original, "image"), _as_unit_floats(_as_array(alpha), "alpha")
    if opacity.shape != colours.shape[:2]:
        raise ValueError(f"alpha must have the image's height and width {colours.shape[:2]}, got {opacity.shape}.")
    try:
        from pymatting import estimate_foreground_ml
    except ImportError:
        estimate_foreground_ml = estimate_foreground_multiscale
    foreground = np.asarray(estimate_foreground_ml(colours, opacity), dtype=np.float32).clip(0, 1)
    if original.dtype == np.uint8:
        foreground = (foreground * 255 + 0.5).astype(np.uint8)
    return np.where(opacity[..., None] >= 1, original, foreground).astype(foreground.dtype, copy=False)


def estimate_foreground_multiscale(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Foreground colours from coarse to fine: at each scale both layers start from their local means, weighted by how much
    of the layer is visible (as in blur fusion, Forte & Pitié 2021), and are corrected until they explain the image.

    Args:
        image: float array (H, W, 3) in 0..1.
        alpha: float array (H, W) in 0..1.

    Returns:
        Array (H, W, 3) float32 in 0..1.
    """
    image, alpha = image.astype(np.float32), alpha.astype(np.float32)[..., None]
    height, width = image.shape[:2]
    foreground = background = image.mean((0, 1), keepdims=True)
    for level in range((max(height, width) - 1).bit_length(), -1, -1):
        size = max(1, height >> level), max(1, width >> level)
        pixels, opacity = _resize(image, size, "area"), _resize(alpha, size, "area")
        foreground, background = _resize(foreground, size, "bilinear"), _resize(background, size, "bilinear")
        for _ in range(10 if max(size) <= 32 else 2):
            foreground = _average(foreground, opacity + _RELIABILITY)
            background = _average(background, 1 - opacity + _RELIABILITY)
            error = pixels - opacity * foreground - (1 - opacity) * background
            error /= opacity**2 + (1 - opacity) ** 2 + _REGULARIZATION
            foreground = np.clip(foreground + opacity * error, 0, 1)
            background = np.clip(background + (1 - opacity) * error, 0, 1)
    return foreground


def make_cutout(image: Any, alpha: Any) -> Image.Image:
    """The foreground of an image as an RGBA image with decontaminated colours; see [`estimate_foreground`].

    Args:
        image: PIL image or array (H, W, 3); a colour profile of a PIL image is kept.
        alpha: PIL image, array or tensor (H, W); uint8 in 0..255 or float in 0..1.
    """
    opacity = _as_array(alpha)
    colours = _as_bytes(estimate_foreground(image, opacity))
    cutout = Image.fromarray(np.dstack([colours, _as_bytes(opacity)]))
    if isinstance(image, Image.Image) and image.info.get("icc_profile"):
        cutout.info["icc_profile"] = image.info["icc_profile"]
    return cutout


def _average(colours: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over 3 x 3 pixels, weighted."""
    return _blur(colours * weights) / _blur(weights)


def _blur(image: np.ndarray) -> np.ndarray:
    if cv2 is not None:
        return cv2.blur(image, (3, 3)).reshape(image.shape)
    return _apply(F.avg_pool2d, image, 3, stride=1, padding=1)


def _resize(image: np.ndarray, size: tuple[int, int], mode: str) -> np.ndarray:
    if cv2 is not None:
        interpolation = cv2.INTER_AREA if mode == "area" else cv2.INTER_LINEAR
        return cv2.resize(image, size[::-1], interpolation=interpolation).reshape(*size, image.shape[2])
    return _apply(F.interpolate, image, size, mode=mode)


def _apply(function: Callable[..., torch.Tensor], image: np.ndarray, *args: Any, **kwargs: Any) -> np.ndarray:
    """A function of (1, channels, height, width) on an image (height, width, channels)."""
    return function(torch.from_numpy(image).movedim(2, 0)[None], *args, **kwargs)[0].movedim(0, 2).numpy()


def _as_array(alpha: Any) -> np.ndarray:
    if isinstance(alpha, torch.Tensor):
        alpha = alpha.detach().float().cpu() if alpha.is_floating_point() else alpha.cpu()
    alpha = np.asarray(alpha.convert("L") if isinstance(alpha, Image.Image) else alpha)
    if alpha.ndim != 2:
        raise ValueError(f"alpha must have shape (H, W), got {alpha.shape}.")
    return alpha


def _as_unit_floats(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype == np.uint8:
        return values / 255
    if values.dtype.kind != "f" or not values.size or not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"{name} must be uint8 in 0..255 or float in 0..1, got {values.dtype} of {values.shape}.")
    return values.astype(np.float64)


def _as_bytes(values: np.ndarray) -> np.ndarray:
    return values if values.dtype == np.uint8 else (values * 255 + 0.5).astype(np.uint8)


__all__ = ["estimate_foreground", "estimate_foreground_multiscale", "make_cutout"]
