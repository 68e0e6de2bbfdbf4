"""Estimation of foreground colors, so that no halo of the old background shows on a new one."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageFile
from torch import nn

from .image_loading_fclm import open_image
from .image_utils_fclm import convert_to_image, split_transparency


try:  # twice as fast as torch, but not installed for everyone who loads this file from the Hub
    import cv2
except ImportError:
    cv2 = None

ForegroundMethod = Literal["multiscale", "pymatting"]
_PLAIN_MODES = ("1", "L", "P", "RGB", "LA", "PA", "RGBA", "CMYK", "YCbCr", "HSV")
_EXIF = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}  # where PIL looks for a rotation
FOREGROUND_METHODS = ("multiscale", "pymatting")
ALPHA_TOLERANCE = 0.05
_REGULARIZATION = 0.1
_RELIABILITY = 1e-2  # weight of invisible pixels in the local means of a layer, so that colors spread into them
_NOISE = 2e-4  # variance of three channels that 8-bit images have anyway
_DEAD_ZONE = 0.05  # smaller differences of alpha are texture, from twice as much they count in full
_WHOLE_SIZE = 256  # longest side of the scales that are processed at once
_STORED_SIZE = 2048  # longest side of the finest scale whose layers are kept
_TILE = 96
_STEP = 16
_HALO = 3  # the reach of _ITERATIONS local means
_ITERATIONS = 3
_COARSE_ITERATIONS = 4  # of the scales that are processed at once, and twice as many of the coarsest ones
_COARSEST = 32
_OPAQUE, _INVISIBLE = 1 - 1 / 512, 0.01
_EDGE = 0.03  # longest distance of the edge of alpha from that of the object, by the longest side
_OFF_LINE = 20  # how fast trust falls with the squared distance of a pixel from the line of colors


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
        image: PIL image of any mode, whose EXIF rotation is applied, or array of shape `(height, width, 3)`; uint8 in
            [0, 255] or float in [0, 1].
        alpha: PIL image, array or tensor of the shape of the upright image, `(height, width)`; uint8 in [0, 255] or
            float in [0, 1].
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
        alpha: PIL image, array or tensor of shape `(height, width)`; uint8 in [0, 255] or float in [0, 1].
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
    colors, levels, visible_alpha = image, _as_bytes(opacity), opacity
    if isinstance(image, Image.Image) and image.has_transparency_data:
        colors, levels, visible_alpha = _read_visible_part(image, opacity)
        refine_alpha = False
    pixels = np.empty((*levels.shape, 4), np.uint8)
    pixels[..., 3] = levels
    refined = pixels[..., 3] if refine_alpha else None
    _write_foreground(pixels[..., :3], colors, _as_bytes(visible_alpha), method, alpha_tolerance, refined)
    cutout = Image.fromarray(pixels)
    profile = image.info.get("icc_profile") if isinstance(image, Image.Image) else None
    if profile and profile[16:20] == b"RGB ":  # its color space, which is another for a CMYK or grayscale original
        cutout.info["icc_profile"] = profile
    return cutout


def _open(image: Any) -> Image.Image | np.ndarray:
    """Return an image upright and decoded, of a mode of which strips convert to RGB; or an array."""
    if not isinstance(image, Image.Image):
        return np.asarray(image)
    if isinstance(image, ImageFile.ImageFile) or image.info.keys() & _EXIF:  # others are in memory, as they are meant
        image = open_image(image)
    return image if image.mode in _PLAIN_MODES else convert_to_image(*split_transparency(image))


def _read_visible_part(image: Image.Image, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the visible part of a transparent image, as uint8, a strip at a time to bound the memory.

    Returns:
        Its colors `(height, width, 3)`, spread into what is invisible; the alpha, at most the opacity; and the share
        alpha / opacity of the visible part that is foreground.
    """
    colors = np.empty((*alpha.shape, 3), np.uint8)
    levels, visible_alpha, opacity = (np.empty(alpha.shape, np.uint8) for _ in range(3))
    for rows in _split_rows(len(alpha)):
        pixels = _read(image, rows.start, rows.stop, "RGBA")
        colors[rows], opacity[rows] = pixels[..., :3], pixels[..., 3]
        limit = _as_floats(opacity[rows])
        visible = np.minimum(_as_floats(alpha[rows]), limit)
        levels[rows] = _as_bytes(visible)
        visible_alpha[rows] = _as_bytes(np.divide(visible, limit, out=np.zeros_like(limit), where=limit > 0).clip(0, 1))
    _spread_visible_colors(colors, opacity)
    return colors, levels, visible_alpha


def _spread_visible_colors(colors: np.ndarray, opacity: np.ndarray) -> None:
    """Give invisible pixels of colors `(height, width, 3)` uint8, in place, the colors of visible ones nearby."""
    levels = [_sum_visible_colors(colors, opacity, -(-max(opacity.shape) // _STORED_SIZE))]
    while max(levels[-1][1].shape) > 1:
        size = tuple(-(-side // 2) for side in levels[-1][1].shape[1:])
        levels.append(tuple(_resize(each, size, "area") for each in levels[-1]))
    spread = np.zeros_like(levels[-1][0])
    for sums, weights in reversed(levels):
        spread = _resize(spread, weights.shape[1:], "bilinear")
        spread = np.where(weights > 1e-6, sums / np.maximum(weights, 1e-6), spread)
    for rows in _split_rows(len(opacity)):
        invisible = opacity[rows] == 0
        if invisible.any():
            inputs, weights = _find_weights(spread.shape[1], len(opacity), rows.start, rows.stop)
            strip = _resize(np.stack([weights @ each for each in spread[:, inputs]]), invisible.shape, "bilinear")
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
        weights = _as_floats(opacity[top : top + step])[..., None]
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
        _write_multiscale(colors, image, alpha, alpha_tolerance, refined)
        return
    try:
        from pymatting import estimate_foreground_ml
    except ImportError as error:
        raise ImportError('The method "pymatting" needs pymatting: pip install "fclm-hf[matting]".') from error
    pixels, opacity = _as_floats(_read(image, 0, len(alpha))), _as_floats(alpha)
    foreground = np.asarray(estimate_foreground_ml(pixels, opacity)).clip(0, 1)
    foreground = np.where(opacity[..., None] >= 1, pixels, foreground)
    colors[:] = _as_bytes(foreground) if colors.dtype == np.uint8 else foreground


def _write_multiscale(
    colors: np.ndarray, image: Any, alpha: np.ndarray, alpha_tolerance: float, refined: np.ndarray | None
) -> None:
    """Write the colors and the alpha that the estimator of this package finds; see [`_write_foreground`]."""
    *coarse, full = _find_sizes(alpha.shape)
    if not coarse:
        pixels, opacity = _as_planes(_read(image, 0, full[0])), _as_opacity(alpha)
        layers, opacity = _estimate_whole(pixels, opacity, alpha_tolerance)
        _write_colors(colors, pixels, layers, opacity)
        if refined is not None:
            _write_alpha(refined, opacity)
        return
    stored = _shrink(image, alpha, coarse[-1])
    pixels, opacity = (_resize(each, coarse[0], "area") for each in stored)
    layers, _ = _estimate_whole(pixels, opacity[0], alpha_tolerance)
    for size in coarse[1:]:
        pixels, opacity = (_resize(each, size, "area") for each in stored)
        finer = np.empty((len(layers), *size), np.float32)
        for rows, columns, tile, _, _ in _refine(layers, pixels, opacity[0], is_planes=True):
            finer[:, rows, columns] = tile
        layers = finer
    del stored
    for rows, columns, tile, pixels, opacity in _refine(layers, image, alpha):
        _write_colors(colors[rows, columns], pixels, tile, opacity)
        if refined is not None:
            _write_alpha(refined[rows, columns], opacity)


def _find_sizes(full: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the sizes of the scales to go through, from coarse to fine; the first is processed at once."""
    longest = max(full)
    if longest <= _WHOLE_SIZE:
        return [full]
    sides = [_WHOLE_SIZE]
    while 4 * sides[-1] <= min(longest - 1, _STORED_SIZE):
        sides.append(4 * sides[-1])
    return [*(tuple(_scale_side(length, side / longest) for length in full) for side in sides), full]


def _scale_side(length: int, scale: float) -> int:
    """Return a scaled length, rounded to one that can be halved several times, which is fastest to resize."""
    return max(1, round(length * scale)) if length * scale < _STEP else _STEP * round(length * scale / _STEP)


def _estimate_whole(pixels: np.ndarray, opacity: np.ndarray, alpha_tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Estimate both layers from a single pixel up to the size of the image.

    Args:
        pixels: float32 array of shape `(3, height, width)`.
        opacity: float32 array of shape `(height, width)`.
        alpha_tolerance: See [`estimate_foreground`].

    Returns:
        Array of shape `(7, height, width)`, the colors of the foreground, those of the background and the trust in the
        line between them; and the corrected opacity.
    """
    trust = np.zeros_like(opacity)
    if alpha_tolerance > 0:
        sure_layers, trust = _find_sure_layers(pixels, opacity, alpha_tolerance)
        opacity = _correct_opacity(pixels, opacity, sure_layers, trust)
    levels = [np.concatenate([pixels, opacity[None]])]
    while max(levels[-1].shape[1:]) > 1:
        size = tuple(max(1, side // 2) for side in levels[-1].shape[1:])
        levels.append(_resize(levels[-1], size, "area"))
    layers = np.tile(pixels.mean((1, 2)), 2)[:, None, None]
    for level in reversed(levels):
        size = level.shape[1:]
        iterations = _COARSE_ITERATIONS * (1 + (max(size) <= _COARSEST))
        layers = _explain(level[:3], level[3], _resize(layers, size, "bilinear"), iterations)
    return np.concatenate([layers, trust[None]]), opacity


def _explain(pixels: np.ndarray, opacity: np.ndarray, layers: np.ndarray, iterations: int = _ITERATIONS) -> np.ndarray:
    """Smooth both layers `(6, height, width)` where they are visible and correct them to explain the image."""
    visible = np.stack([opacity, 1 - opacity])[:, None]
    scale = 1 / ((visible**2).sum(0) + _REGULARIZATION)
    weights = visible + _RELIABILITY
    norms = 1 / _blur(weights[:, 0])[:, None]
    layers = layers.reshape(2, 3, *opacity.shape)
    for _ in range(iterations):
        layers = _blur((layers * weights).reshape(6, *opacity.shape)).reshape(layers.shape)
        layers *= norms
        parts = layers * visible
        error = pixels - parts[0]
        error -= parts[1]
        error *= scale
        layers += np.multiply(visible, error, out=parts)
        np.clip(layers, 0, 1, out=layers)
    return layers.reshape(6, *opacity.shape)


def _find_sure_layers(pixels: np.ndarray, opacity: np.ndarray, alpha_tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the colors of both layers away from the edge of alpha, and the trust in the line between them.

    The trust in [0, 1] is that in an alpha read off the line. Its standard error is that of the colors of the layers,
    as they vary nearby, by the distance between the layers. It is 0 away from edges.
    """
    radius = max(2, round(_EDGE * max(opacity.shape)))
    samples = np.concatenate([np.ones_like(pixels[:1]), pixels, _dot(pixels, pixels)[None]])
    means, variance, near_edge = [], 2 * _NOISE, True
    for visible in (opacity, 1 - opacity):
        inside = (visible > 0.98).astype(np.float32)
        depth = np.zeros_like(inside)
        for _ in range(radius):
            depth += inside
            inside = _erode(inside)
        total, *sums = _average_far(samples * (depth / radius) ** 4, radius)
        sums = np.stack(sums) / (total + 1e-6)
        means.append(sums[:3])
        variance = variance + np.where(total > 1e-3, (sums[3] - _dot(sums[:3], sums[:3])).clip(0), np.inf)
        near_edge = near_edge & (depth < radius)
    contrast = means[0] - means[1]
    error = variance / 2 / (_dot(contrast, contrast) + 1e-6)
    trust = near_edge / (1 + (error / alpha_tolerance**2) ** 2)
    return np.concatenate(means), trust.astype(np.float32)


def _correct_opacity(pixels: np.ndarray, opacity: np.ndarray, layers: np.ndarray, trust: np.ndarray) -> np.ndarray:
    """Move the opacity toward the place of each pixel on the line between the layers, as far as that is trusted."""
    offset, line = pixels - layers[3:6], layers[:3] - layers[3:6]
    length = _dot(line, line) + 1e-6
    place = _dot(offset, line) / length
    np.clip(place, 0, 1, out=place)
    offset -= place * line
    trust = trust * length / (length + _OFF_LINE * _dot(offset, offset))
    change = place - opacity
    trust *= np.square((np.abs(change) * (1 / _DEAD_ZONE) - 1).clip(0, 1))
    trust *= change
    return opacity + trust


def _refine(layers: np.ndarray, image: Any, alpha: np.ndarray, is_planes: bool = False) -> Iterator[tuple]:
    """Refine the layers of the next coarser scale tile by tile.

    Yields:
        The rows and columns of a tile, its layers `(7, height, width)`, pixels and corrected opacity. Where the image
        is opaque, only the pixels of a final scale count, and the layers are None.
    """
    height, width = alpha.shape
    for top in range(0, height, _TILE):
        bottom = min(top + _TILE, height)
        start, stop = max(top - _HALO, 0), min(bottom + _HALO, height)
        strip = image[:, start:stop] if is_planes else _as_planes(_read(image, start, stop))
        rows = _find_weights(layers.shape[1], height, start, stop)
        strip_layers = np.concatenate([rows[1] @ each for each in layers[:, rows[0]]])  # one plane above the other
        for left in range(0, width, _TILE):
            right = min(left + _TILE, width)
            first, last = max(left - _HALO, 0), min(right + _HALO, width)
            pixels, opacity = strip[..., first:last], _as_opacity(alpha[start:stop, first:last])
            columns = _find_weights(layers.shape[2], width, first, last)
            tile = strip_layers[:, columns[0]]
            has_trust = tile[-(stop - start) :].any()
            if not is_planes and not has_trust and (opacity >= 1).all():
                tile = pixels  # nothing to estimate
            else:
                tile = (tile @ columns[1].T).reshape(len(layers), stop - start, -1)
            if has_trust:
                opacity = _correct_opacity(pixels, opacity, tile, tile[6])
            if near := _find_partial(opacity):
                colors = (slice(6), *near)
                tile[colors] = _explain(pixels[(slice(None), *near)], opacity[near], tile[colors])
            inner = slice(top - start, bottom - start), slice(left - first, right - first)
            yield (
                slice(top, bottom),
                slice(left, right),
                *(each[..., inner[0], inner[1]] for each in (tile, pixels, opacity)),
            )


def _find_partial(opacity: np.ndarray) -> tuple[slice, slice] | None:
    """Return the rows and columns of partly transparent pixels and of what reaches them; None if there are none."""
    partial = (opacity > _INVISIBLE) & (opacity < 1)
    places = [np.flatnonzero(partial.any(axis)) for axis in (1, 0)]
    if not len(places[0]):
        return None
    rows, columns = (slice(max(each[0] - _HALO, 0), each[-1] + _HALO + 1) for each in places)
    return rows, columns


def _write_colors(colors: np.ndarray, pixels: np.ndarray, layers: np.ndarray, opacity: np.ndarray) -> None:
    """Write the colors of the foreground: those of the image where it is opaque."""
    planes = np.where(opacity >= _OPAQUE, pixels, layers[:3])
    if colors.dtype == np.uint8:
        planes *= 255
        planes += 0.5
    colors[:] = planes.transpose(1, 2, 0)


def _write_alpha(refined: np.ndarray, opacity: np.ndarray) -> None:
    """Replace the alphas that are partial, uint8, with the corrected ones."""
    np.copyto(refined, _as_bytes(opacity), where=(refined > 2) & (refined < 253))


def _dot(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the dot product of the colors of pixels."""
    return np.einsum("chw,chw->hw", first, second)


def _as_opacity(alpha: np.ndarray) -> np.ndarray:
    """Convert to floats that are exactly 1 where they differ from 1 by less than half a level of 8 bits."""
    opacity = _as_floats(alpha)
    return np.where(opacity < _OPAQUE, opacity, np.float32(1))


def _find_weights(num_inputs: int, num_outputs: int, start: int, stop: int) -> tuple[slice, np.ndarray]:
    """Return which inputs matter for outputs `start` to `stop` of a linear enlargement, and their weights."""
    places = ((np.arange(start, stop) + 0.5) * (num_inputs / num_outputs) - 0.5).clip(0, num_inputs - 1)
    inputs = np.arange(int(places[0]), min(int(places[-1]) + 2, num_inputs))
    weights = (1 - np.abs(places[:, None] - inputs)).clip(0).astype(np.float32)
    return slice(inputs[0], inputs[-1] + 1), weights


def _shrink(image: Any, alpha: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return an image and its alpha, averaged over areas, as float32 of shapes `(3, *size)` and `(1, *size)`."""
    height, width = alpha.shape
    pixels, opacity = np.empty((*size, 3), np.uint8), np.empty(size, np.uint8)
    for top in range(0, size[0], _TILE):
        bottom = min(top + _TILE, size[0])
        first, last = top * height / size[0], bottom * height / size[0]
        start, stop = int(first), min(int(np.ceil(last)), height)
        box = (0, first - start, width, min(last, height) - start)
        for target, strip in ((pixels, _read(image, start, stop)), (opacity, alpha[start:stop])):
            part = Image.fromarray(_as_bytes(strip))
            target[top:bottom] = part.resize((size[1], bottom - top), Image.Resampling.BOX, box)
    return _as_planes(pixels), _as_floats(opacity)[None]


def _split_rows(height: int) -> Iterator[slice]:
    """Yield strips of rows."""
    for top in range(0, height, _TILE):
        yield slice(top, min(top + _TILE, height))


def _read(image: Any, start: int, stop: int, mode: str = "RGB") -> np.ndarray:
    """Return rows of an image as an array."""
    if isinstance(image, Image.Image):
        return np.asarray(image.crop((0, start, image.width, stop)).convert(mode))
    return image[start:stop]


def _average_far(planes: np.ndarray, radius: int) -> np.ndarray:
    """Return the mean over a square that reaches twice the radius away; 0 counts outside the image."""
    side = 4 * radius + 1
    if cv2 is not None:
        return np.stack([cv2.blur(each, (side, side), borderType=cv2.BORDER_CONSTANT) for each in planes])
    for shape in ((side, 1), (1, side)):
        padding = shape[0] // 2, shape[1] // 2
        planes = _apply(nn.functional.avg_pool2d, planes, shape, stride=1, padding=padding)
    return planes


def _erode(mask: np.ndarray) -> np.ndarray:
    """Return a mask of 0 and 1 `(height, width)` without the pixels at its edge."""
    if cv2 is not None:
        return cv2.erode(mask, np.ones((3, 3), np.uint8))
    return -_apply(nn.functional.max_pool2d, -mask[None], 3, stride=1, padding=1)[0]


def _blur(planes: np.ndarray) -> np.ndarray:
    """Return the mean over 3 x 3 pixels; how the border counts cancels in a weighted mean."""
    if cv2 is not None:
        blurred = np.empty_like(planes)
        for plane, target in zip(planes, blurred, strict=True):
            cv2.blur(plane, (3, 3), dst=target)
        return blurred
    return _apply(nn.functional.avg_pool2d, planes, 3, stride=1, padding=1)


def _resize(planes: np.ndarray, size: tuple[int, int], mode: str) -> np.ndarray:
    """Resize `(channels, height, width)`; `mode` is "area" or "bilinear".

    In numpy, as the threads that OpenCV and torch start for it make processes hang that are forked later.
    """
    resize_axis = _average_axis if mode == "area" else _interpolate_axis
    for axis, length in enumerate(size, start=1):
        if planes.shape[axis] != length:
            planes = resize_axis(planes, axis, length)
    return planes


def _average_axis(planes: np.ndarray, axis: int, length: int) -> np.ndarray:
    """Shrink an axis to a length, each output the mean over its share of the inputs."""
    planes = np.moveaxis(planes, axis, -1)
    if planes.shape[-1] == 2 * length:
        return np.ascontiguousarray(np.moveaxis((planes[..., ::2] + planes[..., 1::2]) * 0.5, -1, axis))
    sums = np.zeros((*planes.shape[:-1], planes.shape[-1] + 1))
    np.cumsum(planes, axis=-1, out=sums[..., 1:])
    edges = np.linspace(0, planes.shape[-1], length + 1)
    whole = np.minimum(edges.astype(int), planes.shape[-1] - 1)
    totals = sums[..., whole] + planes[..., whole] * (edges - whole)
    means = np.diff(totals, axis=-1) * (length / planes.shape[-1])
    return np.ascontiguousarray(np.moveaxis(means.astype(np.float32), -1, axis))


def _interpolate_axis(planes: np.ndarray, axis: int, length: int) -> np.ndarray:
    """Resize an axis to a length by linear interpolation between the centers of its cells."""
    num_inputs = planes.shape[axis]
    places = ((np.arange(length) + 0.5) * (num_inputs / length) - 0.5).clip(0, num_inputs - 1)
    first = places.astype(int)
    weights = (places - first).astype(np.float32).reshape(-1, *[1] * (planes.ndim - 1 - axis))
    second = np.minimum(first + 1, num_inputs - 1)
    start = planes.take(first, axis)
    return start + (planes.take(second, axis) - start) * weights


def _apply(function: Callable[..., torch.Tensor], planes: np.ndarray, *args: Any, **kwargs: Any) -> np.ndarray:
    """Apply a function of `(1, channels, height, width)` to planes."""
    return function(torch.from_numpy(np.ascontiguousarray(planes))[None], *args, **kwargs)[0].numpy()


def _as_array(alpha: Any) -> np.ndarray:
    """Convert an alpha to an array of shape `(height, width)`."""
    if isinstance(alpha, torch.Tensor):
        alpha = alpha.detach().float().cpu() if alpha.is_floating_point() else alpha.cpu()
    alpha = np.asarray(alpha.convert("L") if isinstance(alpha, Image.Image) else alpha)
    if alpha.ndim != 2:
        raise ValueError(f"alpha must have shape (H, W), got {alpha.shape}.")
    return alpha


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


def _as_floats(values: np.ndarray) -> np.ndarray:
    """Convert to float32 in [0, 1]."""
    return values.astype(np.float32) / 255 if values.dtype == np.uint8 else values.astype(np.float32, copy=False)


def _as_planes(pixels: np.ndarray) -> np.ndarray:
    """Convert `(height, width, 3)` to float32 in [0, 1] of shape `(3, height, width)`."""
    return _as_floats(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _as_bytes(values: np.ndarray) -> np.ndarray:
    """Convert floats in [0, 1] to uint8."""
    return values if values.dtype == np.uint8 else (values * 255 + 0.5).astype(np.uint8)


__all__ = [
    "FOREGROUND_METHODS",
    "ForegroundMethod",
    "estimate_foreground",
    "make_cutout",
]
