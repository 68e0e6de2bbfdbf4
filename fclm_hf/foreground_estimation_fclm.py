"""The multiscale estimator of foreground colors, which also corrects alpha near edges.

[`~fclm_hf.foreground_fclm.estimate_foreground`] explains the method. Planes are float32 arrays in [0, 1] of shape
`(channels, height, width)`. Layers are seven of them: 3 colors of the foreground, 3 of the background, and the trust in
the line between them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn


try:  # twice as fast as torch, but not installed for everyone who loads this file from the Hub
    import cv2
except ImportError:
    cv2 = None

STORED_SIZE = 2048  # longest side of the finest scale whose layers are kept
_REGULARIZATION = 0.1
_RELIABILITY = 1e-2  # weight of invisible pixels in the local means of a layer, so that colors spread into them
_NOISE = 2e-4  # variance of three channels that 8-bit images have anyway
_DEAD_ZONE = 0.05  # smaller differences of alpha are texture, from twice as much they count in full
_WHOLE_SIZE = 256  # longest side of the scales that are processed at once
_TILE = 96
_STEP = 16
_HALO = 3  # the reach of _ITERATIONS local means
_ITERATIONS = 3
_COARSE_ITERATIONS = 4  # of the scales that are processed at once, and twice as many of the coarsest ones
_COARSEST = 32
_OPAQUE, _INVISIBLE = 1 - 1 / 512, 0.01
_EDGE = 0.03  # longest distance of the edge of alpha from that of the object, by the longest side
_OFF_LINE = 20  # how fast trust falls with the squared distance of a pixel from the line of colors


def write_multiscale(
    colors: np.ndarray, image: Any, alpha: np.ndarray, alpha_tolerance: float, refined: np.ndarray | None
) -> None:
    """Estimate the colors of the foreground and write them into an array.

    Args:
        colors: Array of shape `(height, width, 3)` to write to; uint8 in [0, 255] or float32 in [0, 1].
        image: PIL image of a mode that converts to RGB, or array of shape `(height, width, 3)`.
        alpha: Array of shape `(height, width)`; uint8 in [0, 255] or float in [0, 1].
        alpha_tolerance: See [`~fclm_hf.foreground_fclm.estimate_foreground`].
        refined: uint8 array of shape `(height, width)`, whose partial alphas are replaced with the corrected ones.
    """
    *coarse, full = _find_sizes(alpha.shape)
    if not coarse:
        pixels, opacity = _as_planes(read_rows(image, 0, full[0])), _as_opacity(alpha)
        layers, opacity = _estimate_whole(pixels, opacity, alpha_tolerance)
        _write_colors(colors, pixels, layers, opacity)
        if refined is not None:
            _write_alpha(refined, opacity)
        return
    stored = _shrink(image, alpha, coarse[-1])
    pixels, opacity = (resize_planes(each, coarse[0], "area") for each in stored)
    layers, _ = _estimate_whole(pixels, opacity[0], alpha_tolerance)
    for size in coarse[1:]:
        pixels, opacity = (resize_planes(each, size, "area") for each in stored)
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
    while 4 * sides[-1] <= min(longest - 1, STORED_SIZE):
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
        alpha_tolerance: See [`~fclm_hf.foreground_fclm.estimate_foreground`].

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
        levels.append(resize_planes(levels[-1], size, "area"))
    layers = np.tile(pixels.mean((1, 2)), 2)[:, None, None]
    for level in reversed(levels):
        size = level.shape[1:]
        iterations = _COARSE_ITERATIONS * (1 + (max(size) <= _COARSEST))
        layers = _explain(level[:3], level[3], resize_planes(layers, size, "bilinear"), iterations)
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
        strip = image[:, start:stop] if is_planes else _as_planes(read_rows(image, start, stop))
        rows = find_weights(layers.shape[1], height, start, stop)
        strip_layers = np.concatenate([rows[1] @ each for each in layers[:, rows[0]]])  # one plane above the other
        for left in range(0, width, _TILE):
            right = min(left + _TILE, width)
            first, last = max(left - _HALO, 0), min(right + _HALO, width)
            pixels, opacity = strip[..., first:last], _as_opacity(alpha[start:stop, first:last])
            columns = find_weights(layers.shape[2], width, first, last)
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
    np.copyto(refined, as_bytes(opacity), where=(refined > 2) & (refined < 253))


def _dot(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the dot product of the colors of pixels."""
    return np.einsum("chw,chw->hw", first, second)


def _as_opacity(alpha: np.ndarray) -> np.ndarray:
    """Convert to floats that are exactly 1 where they differ from 1 by less than half a level of 8 bits."""
    opacity = as_floats(alpha)
    return np.where(opacity < _OPAQUE, opacity, np.float32(1))


def find_weights(num_inputs: int, num_outputs: int, start: int, stop: int) -> tuple[slice, np.ndarray]:
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
        for target, strip in ((pixels, read_rows(image, start, stop)), (opacity, alpha[start:stop])):
            part = Image.fromarray(as_bytes(strip))
            target[top:bottom] = part.resize((size[1], bottom - top), Image.Resampling.BOX, box)
    return _as_planes(pixels), as_floats(opacity)[None]


def split_rows(height: int) -> Iterator[slice]:
    """Yield strips of rows."""
    for top in range(0, height, _TILE):
        yield slice(top, min(top + _TILE, height))


def read_rows(image: Any, start: int, stop: int, mode: str = "RGB") -> np.ndarray:
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


def resize_planes(planes: np.ndarray, size: tuple[int, int], mode: str) -> np.ndarray:
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


def as_floats(values: np.ndarray) -> np.ndarray:
    """Convert to float32 in [0, 1]."""
    return values.astype(np.float32) / 255 if values.dtype == np.uint8 else values.astype(np.float32, copy=False)


def _as_planes(pixels: np.ndarray) -> np.ndarray:
    """Convert `(height, width, 3)` to float32 in [0, 1] of shape `(3, height, width)`."""
    return as_floats(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def as_bytes(values: np.ndarray) -> np.ndarray:
    """Convert floats in [0, 1] to uint8."""
    return values if values.dtype == np.uint8 else (values * 255 + 0.5).astype(np.uint8)


__all__ = [
    "STORED_SIZE",
    "as_bytes",
    "as_floats",
    "find_weights",
    "read_rows",
    "resize_planes",
    "split_rows",
    "write_multiscale",
]
