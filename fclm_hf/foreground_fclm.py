"""Estimation of foreground colors, so that no halo of the old background shows on a new one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn


try:  # twice as fast as torch, but not installed for everyone who loads this file from the Hub
    import cv2
except ImportError:
    cv2 = None

_REGULARIZATION = 1e-3
_RELIABILITY = 1e-2  # weight of invisible pixels in the local means of a layer, so that colors spread into them


def estimate_foreground(image: Any, alpha: Any) -> np.ndarray:
    """Estimate the colors F of the foreground in `image = alpha * F + (1 - alpha) * B`.

    The estimator is pymatting's `estimate_foreground_ml` if it is installed, else [`estimate_foreground_multiscale`].
    Where alpha is 1, the colors are exactly those of the image; where it is 0, those of the foreground nearby.

    Args:
        image: PIL image, or array of shape `(height, width, 3)`; uint8 in [0, 255] or float in [0, 1].
        alpha: PIL image, array or tensor of shape `(height, width)`; uint8 in [0, 255] or float in [0, 1].

    Returns:
        Array of shape `(height, width, 3)`: uint8 for an 8-bit image, else float32 in [0, 1].

    Raises:
        ValueError: If the shapes do not match, or values are out of range.

    Example:
        >>> import numpy as np
        >>> from fclm_hf.foreground_fclm import estimate_foreground
        >>> image, alpha = np.zeros((8, 8, 3)), np.zeros((8, 8))
        >>> image[:, :4], alpha[:, :4] = 1, 1
        >>> image[:, 4], alpha[:, 4] = 0.5, 0.5  # a soft edge between white and black
        >>> bool(estimate_foreground(image, alpha)[4, 4].min() > 0.9)
        True
    """
    original = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    if original.ndim != 3 or original.shape[2] != 3:
        raise ValueError(f"image must have shape (H, W, 3), got {original.shape}.")
    colors, opacity = _as_unit_floats(original, "image"), _as_unit_floats(_as_array(alpha), "alpha")
    if opacity.shape != colors.shape[:2]:
        raise ValueError(f"alpha must have the height and width of the image, {colors.shape[:2]}, got {opacity.shape}.")
    try:
        from pymatting import estimate_foreground_ml
    except ImportError:
        estimate_foreground_ml = estimate_foreground_multiscale
    foreground = np.asarray(estimate_foreground_ml(colors, opacity), dtype=np.float32).clip(0, 1)
    if original.dtype == np.uint8:
        foreground = (foreground * 255 + 0.5).astype(np.uint8)
    return np.where(opacity[..., None] >= 1, original, foreground).astype(foreground.dtype, copy=False)


def estimate_foreground_multiscale(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Estimate foreground colors from coarse to fine.

    At each scale both layers start from their local means, weighted by how visible the layer is (as in blur fusion,
    Forte and Pitié, 2021), and are then corrected to explain the image.

    Args:
        image: float array of shape `(height, width, 3)` in [0, 1].
        alpha: float array of shape `(height, width)` in [0, 1].

    Returns:
        float32 array of shape `(height, width, 3)` in [0, 1].
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
    """Return the foreground of an image as an RGBA image without colors of the background.

    Args:
        image: See [`estimate_foreground`]. The color profile of a PIL image is kept, and where it is transparent, the
            cutout is at least as transparent, with the colors of the visible part.
        alpha: PIL image, array or tensor of shape `(height, width)`; uint8 in [0, 255] or float in [0, 1].

    Raises:
        ValueError: If the shapes do not match, or values are out of range.
    """
    opacity = _as_array(alpha)
    if isinstance(image, Image.Image) and image.has_transparency_data:
        return _cut_out_visible_part(image, opacity)
    colors = _as_bytes(estimate_foreground(image, opacity))
    cutout = Image.fromarray(np.dstack([colors, _as_bytes(opacity)]))
    if isinstance(image, Image.Image) and image.info.get("icc_profile"):
        cutout.info["icc_profile"] = image.info["icc_profile"]
    return cutout


def _cut_out_visible_part(image: Image.Image, alpha: np.ndarray) -> Image.Image:
    """Return the cutout of a transparent image, of whose visible part alpha / opacity is foreground."""
    pixels = np.asarray(image.convert("RGBA"))
    opacity = pixels[..., 3].astype(np.float32) / 255
    alpha = np.minimum(_as_unit_floats(alpha, "alpha").astype(np.float32), opacity)
    photo = Image.fromarray(_spread_visible_colors(pixels[..., :3], opacity))
    photo.info.update(image.info)
    photo.info.pop("transparency", None)
    cutout = make_cutout(photo, np.divide(alpha, opacity, out=np.zeros_like(alpha), where=opacity > 0).clip(0, 1))
    cutout.putalpha(Image.fromarray(_as_bytes(alpha)))
    return cutout


def _spread_visible_colors(colors: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Return colors `(height, width, 3)` uint8 whose invisible pixels take the colors of visible ones nearby."""
    levels = [(colors * opacity[..., None], opacity[..., None])]
    while max(levels[-1][1].shape) > 1:
        size = tuple(-(-side // 2) for side in levels[-1][1].shape[:2])
        levels.append(tuple(_resize(each, size, "area") for each in levels[-1]))
    spread = np.zeros_like(levels[-1][0])
    for sums, weights in reversed(levels):
        spread = _resize(spread, weights.shape[:2], "bilinear")
        spread = np.where(weights > 1e-6, sums / np.maximum(weights, 1e-6), spread)
    return np.where(opacity[..., None] > 0, colors, (spread + 0.5).clip(0, 255).astype(np.uint8))


def _average(colors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted mean over 3 x 3 pixels."""
    return _blur(colors * weights) / _blur(weights)


def _blur(image: np.ndarray) -> np.ndarray:
    """Return the mean over 3 x 3 pixels; how the border counts cancels in [`_average`]."""
    if cv2 is not None:
        return cv2.blur(image, (3, 3)).reshape(image.shape)
    return _apply(nn.functional.avg_pool2d, image, 3, stride=1, padding=1)


def _resize(image: np.ndarray, size: tuple[int, int], mode: str) -> np.ndarray:
    """Resize `(height, width, channels)`; `mode` is "area" or "bilinear"."""
    if cv2 is not None:
        interpolation = cv2.INTER_AREA if mode == "area" else cv2.INTER_LINEAR
        return cv2.resize(image, size[::-1], interpolation=interpolation).reshape(*size, image.shape[2])
    return _apply(nn.functional.interpolate, image, size, mode=mode)


def _apply(function: Callable[..., torch.Tensor], image: np.ndarray, *args: Any, **kwargs: Any) -> np.ndarray:
    """Apply a function of `(1, channels, height, width)` to an image `(height, width, channels)`."""
    return function(torch.from_numpy(image).movedim(2, 0)[None], *args, **kwargs)[0].movedim(0, 2).numpy()


def _as_array(alpha: Any) -> np.ndarray:
    """Convert an alpha to an array of shape `(height, width)`."""
    if isinstance(alpha, torch.Tensor):
        alpha = alpha.detach().float().cpu() if alpha.is_floating_point() else alpha.cpu()
    alpha = np.asarray(alpha.convert("L") if isinstance(alpha, Image.Image) else alpha)
    if alpha.ndim != 2:
        raise ValueError(f"alpha must have shape (H, W), got {alpha.shape}.")
    return alpha


def _as_unit_floats(values: np.ndarray, name: str) -> np.ndarray:
    """Convert to float64 in [0, 1]; raise ValueError for values out of range."""
    if values.dtype == np.uint8:
        return values / 255
    if values.dtype.kind != "f" or not values.size or not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"{name} must be uint8, or float in [0, 1], got {values.dtype} of shape {values.shape}.")
    return values.astype(np.float64)


def _as_bytes(values: np.ndarray) -> np.ndarray:
    """Convert floats in [0, 1] to uint8."""
    return values if values.dtype == np.uint8 else (values * 255 + 0.5).astype(np.uint8)


__all__ = ["estimate_foreground", "estimate_foreground_multiscale", "make_cutout"]
