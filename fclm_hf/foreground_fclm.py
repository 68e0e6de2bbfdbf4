"""Foreground colors and cutouts, so that no halo of the old background shows on a new one."""

import os
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageFile

from .foreground_estimation_fclm import (
    STORED_SIZE,
    as_bytes,
    as_floats,
    find_weights,
    read_rows,
    resize_planes,
    split_rows,
    write_multiscale,
)
from .image_loading_fclm import is_open_file, open_image
from .image_utils_fclm import convert_to_image, copy_metadata, split_transparency
from .segmentation_maps_fclm import FLOAT_TOLERANCE, drop_channels, read_pixels


ForegroundMethod = Literal["multiscale", "pymatting"]
FOREGROUND_METHODS = ("multiscale", "pymatting")
ALPHA_TOLERANCE = 0.05
_PLAIN_MODES = ("1", "L", "P", "RGB", "LA", "PA", "RGBA", "CMYK", "YCbCr", "HSV")
_EXIF = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}  # where PIL looks for a rotation


def estimate_foreground(
    image: Any,
    alpha: Any,
    method: ForegroundMethod = "multiscale",
    alpha_tolerance: float = ALPHA_TOLERANCE,
) -> np.ndarray:
    """Estimate the colors F of the foreground in `image = alpha * F + (1 - alpha) * B`.

    Where alpha is 1, the colors are those of the image, exactly so away from edges; where it is 0, those of the
    foreground nearby. The function changes no global state such as the number of threads, and writes no files.

    As in multi-level foreground estimation (Germer et al., 2020), the colors of each scale start from those of the next
    coarser one. There both layers are replaced with their local means, weighted by how visible the layer is (as in blur
    fusion, Forte and Pitié, 2021), and corrected to explain the image. Full-size colors are estimated in tiles, and
    only where alpha is neither 0 nor 1, so that memory beyond the result hardly grows with the size.

    The alpha of a model is off in places. Near an edge it is compared with the place of the pixel on the line between
    the colors of the foreground and of the background nearby. Where these differ clearly and vary little, the line
    tells more than alpha does and replaces it in the estimate.

    Args:
        image: File or PIL image of any mode, whose EXIF rotation is applied, or array of shape `(height, width, 3)`;
            uint8 in [0, 255] or float in [0, 1].
        alpha: File, PIL image, array or tensor of the shape of the upright image, `(height, width)`; uint8 in [0, 255],
            uint16 in [0, 65535], float in [0, 1] or bool.
        method: "multiscale" for the estimator of this package, "pymatting" for `estimate_foreground_ml` of pymatting,
            which must be installed, and which takes alpha as exact. Importing pymatting compiles code, writes it to a
            cache and changes the number of threads.
        alpha_tolerance: Standard error of an alpha read off the line of colors below which that alpha is preferred to
            the given one; 0 takes the given one as exact.

    Returns:
        Array of shape `(height, width, 3)`: uint8 for an 8-bit image, else float32 in [0, 1].

    Raises:
        ValueError: If the shapes do not match, or values are out of range.
        ImportError: If the method is "pymatting" and pymatting is not installed.

    Example:
        >>> import numpy as np
        >>> from fclm_hf.foreground_fclm import estimate_foreground
        >>> image, alpha = np.zeros((8, 8, 3)), np.zeros((8, 8))
        >>> image[:, :4], alpha[:, :4] = 1, 1
        >>> image[:, 4], alpha[:, 4] = 0.5, 0.5  # a soft edge between white and black
        >>> bool(estimate_foreground(image, alpha)[4, 4].min() > 0.9)
        True
    """
    image = _open(image)
    opacity = _as_array(alpha)
    _check(image, opacity)
    size = opacity.shape
    is_float = not isinstance(image, Image.Image) and image.dtype != np.uint8
    colors = np.empty((*size, 3), np.float32 if is_float else np.uint8)
    _write_foreground(colors, image, opacity, method, alpha_tolerance)
    return colors


def make_cutout(
    image: Any,
    alpha: Any,
    method: ForegroundMethod = "multiscale",
    alpha_tolerance: float = ALPHA_TOLERANCE,
    refine_alpha: bool = False,
) -> Image.Image:
    """Return the foreground of an image as an RGBA image without colors of the background.

    Args:
        image: See [`estimate_foreground`]. The profile of an RGB image is kept, and where it is transparent, the
            cutout is at least as transparent, with the colors of the visible part.
        alpha: See [`estimate_foreground`].
        method: See [`estimate_foreground`].
        alpha_tolerance: See [`estimate_foreground`].
        refine_alpha: Whether the alpha of partly transparent pixels, too, moves toward their place on the line of
            colors, as far as that is trusted; for an alpha that is not exact. It has no effect with the method
            "pymatting" and on transparent images.

    Raises:
        ValueError: If the shapes do not match, or values are out of range.
        ImportError: If the method is "pymatting" and pymatting is not installed.
    """
    image = _open(image)
    opacity = _as_array(alpha)
    _check(image, opacity)
    colors, levels, visible_alpha = image, as_bytes(opacity), opacity
    if isinstance(image, Image.Image) and image.has_transparency_data:
        colors, levels, visible_alpha = _read_visible_part(image, opacity)
        refine_alpha = False
    pixels = np.empty((*levels.shape, 4), np.uint8)
    pixels[..., 3] = levels
    refined = pixels[..., 3] if refine_alpha else None
    _write_foreground(pixels[..., :3], colors, as_bytes(visible_alpha), method, alpha_tolerance, refined)
    cutout = Image.fromarray(pixels)
    copy_metadata(image, cutout)
    return cutout


def _open(image: Any) -> Image.Image | np.ndarray:
    """Return an image upright and decoded, of a mode of which strips convert to RGB; or an array."""
    image = _open_file(image, "image")
    if not isinstance(image, Image.Image):
        return np.asarray(image)
    if isinstance(image, ImageFile.ImageFile) or image.info.keys() & _EXIF:  # others are decoded and upright
        image = open_image(image)
    return image if image.mode in _PLAIN_MODES else convert_to_image(*split_transparency(image))


def _open_file(image: Any, name: str) -> Any:
    """Return the PIL image of a file, URL or bytes; others as they are."""
    return open_image(image, name) if isinstance(image, (str, bytes, os.PathLike)) or is_open_file(image) else image


def _read_visible_part(image: Image.Image, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the visible part of a transparent image, as uint8, a strip at a time to bound the memory.

    Returns:
        Its colors `(height, width, 3)`, spread into what is invisible; the alpha, at most the opacity; and the share
        alpha / opacity of the visible part that is foreground.
    """
    colors = np.empty((*alpha.shape, 3), np.uint8)
    levels, visible_alpha, opacity = (np.empty(alpha.shape, np.uint8) for _ in range(3))
    for rows in split_rows(len(alpha)):
        pixels = read_rows(image, rows.start, rows.stop, "RGBA")
        colors[rows], opacity[rows] = pixels[..., :3], pixels[..., 3]
        limit = as_floats(opacity[rows])
        visible = np.minimum(as_floats(alpha[rows]), limit)
        levels[rows] = as_bytes(visible)
        visible_alpha[rows] = as_bytes(np.divide(visible, limit, out=np.zeros_like(limit), where=limit > 0).clip(0, 1))
    _spread_visible_colors(colors, opacity)
    return colors, levels, visible_alpha


def _spread_visible_colors(colors: np.ndarray, opacity: np.ndarray) -> None:
    """Give invisible pixels of colors `(height, width, 3)` uint8, in place, the colors of visible ones nearby."""
    levels = [_sum_visible_colors(colors, opacity, -(-max(opacity.shape) // STORED_SIZE))]
    while max(levels[-1][1].shape) > 1:
        size = tuple(-(-side // 2) for side in levels[-1][1].shape[1:])
        levels.append(tuple(resize_planes(each, size, "area") for each in levels[-1]))
    spread = np.zeros_like(levels[-1][0])
    for sums, weights in reversed(levels):
        spread = resize_planes(spread, weights.shape[1:], "bilinear")
        spread = np.where(weights > 1e-6, sums / np.maximum(weights, 1e-6), spread)
    for rows in split_rows(len(opacity)):
        invisible = opacity[rows] == 0
        if invisible.any():
            inputs, weights = find_weights(spread.shape[1], len(opacity), rows.start, rows.stop)
            strip = resize_planes(np.stack([weights @ each for each in spread[:, inputs]]), invisible.shape, "bilinear")
            strip = (strip + 0.5).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
            np.copyto(colors[rows], strip, where=invisible[..., None])


def _sum_visible_colors(colors: np.ndarray, opacity: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sums of the colors, weighted by opacity, and of the opacity over cells of `step` x `step` pixels.

    Returns:
        float32 arrays of shapes `(3, height / step, width / step)` and `(1, height / step, width / step)`, rounded up.
    """
    starts = [np.arange(0, side, step) for side in opacity.shape]
    sums = np.empty((4, *map(len, starts)), np.float32)
    for index, top in enumerate(starts[0]):
        weights = as_floats(opacity[top : top + step])[..., None]
        strip = np.concatenate([colors[top : top + step] * weights, weights], axis=-1).sum(0)
        sums[:, index] = np.add.reduceat(strip, starts[1], axis=0).T
    return sums[:3], sums[3:]


def _write_foreground(
    colors: np.ndarray,
    image: Any,
    alpha: np.ndarray,
    method: ForegroundMethod,
    alpha_tolerance: float,
    refined: np.ndarray | None = None,
) -> None:
    """Write the colors of the foreground into an array `(height, width, 3)` of dtype uint8 or float32.

    The alpha that "multiscale" corrects is written to `refined`, uint8 of shape `(height, width)`, where it is partial.
    """
    if method not in FOREGROUND_METHODS:
        raise ValueError(f"method must be one of {FOREGROUND_METHODS}, got {method!r}.")
    if method == "multiscale":
        write_multiscale(colors, image, alpha, alpha_tolerance, refined)
        return
    try:
        from pymatting import estimate_foreground_ml
    except ImportError as error:
        raise ImportError('The method "pymatting" needs pymatting: pip install "fclm-hf[matting]".') from error
    pixels, opacity = as_floats(read_rows(image, 0, len(alpha))), as_floats(alpha)
    foreground = np.asarray(estimate_foreground_ml(pixels, opacity)).clip(0, 1)
    foreground = np.where(opacity[..., None] >= 1, pixels, foreground)
    colors[:] = as_bytes(foreground) if colors.dtype == np.uint8 else foreground


def _as_array(alpha: Any) -> np.ndarray:
    """Convert an alpha to an array of shape `(height, width)`, uint8, or float in [0, 1] if it is valid."""
    alpha = _open_file(alpha, "alpha")
    if isinstance(alpha, torch.Tensor):
        alpha = alpha.detach().float().cpu() if alpha.is_floating_point() else alpha.cpu()
    alpha = drop_channels(np.asarray(read_pixels(alpha) if isinstance(alpha, Image.Image) else alpha))
    if alpha.ndim != 2:
        raise ValueError(f"alpha must have shape (H, W), got {alpha.shape}.")
    if alpha.dtype == np.uint16:
        return (alpha / 65535).astype(np.float32)
    if not alpha.size or alpha.dtype == np.uint8:
        return alpha
    low, high = alpha.min(), alpha.max()
    if alpha.dtype.kind in "biu" and low >= 0 and high <= 1:  # a mask
        return alpha.astype(np.uint8) * 255
    overshoots = alpha.dtype.kind == "f" and low >= -FLOAT_TOLERANCE and high <= 1 + FLOAT_TOLERANCE
    return alpha.clip(0, 1) if overshoots and (low < 0 or high > 1) else alpha


def _check(image: Any, alpha: np.ndarray) -> None:
    """Raise ValueError if shapes do not match or values are out of range."""
    shape = (image.height, image.width, 3) if isinstance(image, Image.Image) else image.shape
    if len(shape) != 3 or shape[2] != 3:
        raise ValueError(f"image must have shape (H, W, 3), got {shape}.")
    if alpha.shape != shape[:2]:
        raise ValueError(f"alpha must have the height and width of the image, {shape[:2]}, got {alpha.shape}.")
    for name, values in (("image", image), ("alpha", alpha)):
        if isinstance(values, Image.Image) or values.dtype == np.uint8:
            continue
        if values.dtype.kind != "f" or not values.size or not (values.min() >= 0 and values.max() <= 1):
            raise ValueError(f"{name} must be uint8, or float in [0, 1], got {values.dtype} of shape {values.shape}.")


__all__ = [
    "FOREGROUND_METHODS",
    "ForegroundMethod",
    "estimate_foreground",
    "make_cutout",
]
