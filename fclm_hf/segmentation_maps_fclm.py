"""Ground-truth alphas and mask prompts of any kind, from anywhere, as floats of the size of their image."""

import os
from typing import Any

import numpy as np
import torch
from PIL import Image

from .image_utils_fclm import is_open_file, make_tensor, open_image


_NESTING = "image > object > map, or one map (height, width) per image"
_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
_FULL_SCALE = {torch.uint8: 255.0, torch.uint16: 65535.0}
FLOAT_TOLERANCE = 1e-3  # resampling overshoots [0, 1] a little


def load_segmentation_maps(segmentation_maps: Any, image_sizes: list[tuple[int, int]]) -> list[torch.Tensor]:
    """Load the ground-truth alphas of images.

    Args:
        segmentation_maps: Nested as image > object > map, or one map per image; for a single image also a map by
            itself. A map is a path, URL, bytes, PIL image in [0, 255] or an array of shape `(height, width)`: uint8 in
            [0, 255], uint16 in [0, 65535], float in [0, 1] or bool, or integers 0 and 1, as of many segmentation
            masks. Of a transparent image, the opacity counts. An array of shape `(num_objects, height, width)` holds
            the objects of one image.
        image_sizes: Height and width of each image, which its maps must have, too.

    Returns:
        For each image a `torch.FloatTensor` of shape `(num_objects, height, width)` with values in [0, 1].

    Raises:
        ValueError: If the nesting, the number or the size of maps is wrong, or values are out of range.
    """
    per_image = _split_images(segmentation_maps, len(image_sizes))
    loaded = []
    for index, (maps, size) in enumerate(zip(per_image, image_sizes, strict=True)):
        name = f"segmentation_maps[{index}]"
        if isinstance(maps, (np.ndarray, torch.Tensor)) and maps.ndim == 3:
            maps = list(maps)
        members = list(maps) if isinstance(maps, (list, tuple)) else [maps]
        if not members:
            raise ValueError(f"{name} must hold at least one map, got none: expected {_NESTING}.")
        loaded.append(torch.stack([load_map(each, size, f"{name}[{i}]") for i, each in enumerate(members)]))
    return loaded


def _split_images(segmentation_maps: Any, count: int) -> list[Any]:
    """Return the maps of each image."""
    alone = isinstance(segmentation_maps, (str, bytes, bytearray, memoryview, os.PathLike, Image.Image))
    alone = alone or is_open_file(segmentation_maps)
    is_array = isinstance(segmentation_maps, (np.ndarray, torch.Tensor))
    if alone or (is_array and segmentation_maps.ndim == 2):
        segmentation_maps = [segmentation_maps]
    elif not isinstance(segmentation_maps, (list, tuple)) and not (is_array and segmentation_maps.ndim in (3, 4)):
        raise ValueError(f"segmentation_maps must be {_NESTING}, got {type(segmentation_maps).__name__}.")
    if len(segmentation_maps) != count:
        raise ValueError(
            f"segmentation_maps must hold the maps of {count} images, got {len(segmentation_maps)}:"
            f" expected {_NESTING}."
        )
    return list(segmentation_maps)


def load_map(item: Any, size: tuple[int, int], name: str) -> torch.Tensor:
    """Load one map.

    Args:
        item: Map in any form that [`load_segmentation_maps`] accepts.
        size (`tuple[int, int]`): Height and width that it must have.
        name (`str`): Name of the map in errors.

    Returns:
        `torch.FloatTensor` of shape `size` in [0, 1].

    Raises:
        ValueError: If the map cannot be read, has another size, or values out of range.
    """
    if item is None or isinstance(item, (list, tuple)):
        raise ValueError(f"{name} must be a map, got {type(item).__name__}: expected {_NESTING}.")
    item = open_image(item, name)
    is_array = not isinstance(item, Image.Image)
    if is_array:
        item = drop_channels(item)
        while item.ndim > 2 and item.shape[0] == 1:  # masks of SAM
            item = item[0]
    values = make_tensor(item if is_array else read_pixels(item), name)
    if tuple(values.shape) != tuple(size):
        raise ValueError(f"{name} must have the shape {tuple(size)} of its image, got {tuple(values.shape)}.")
    if values.dtype == torch.bool or (is_array and _is_binary(values)):
        return values.cpu().float()
    if values.dtype in _FULL_SCALE:
        return values.cpu().to(torch.float32) / _FULL_SCALE[values.dtype]
    if not values.is_floating_point():
        raise ValueError(f"{name} must have dtype bool, uint8, uint16 or float, got {values.dtype}.")
    values = values.cpu().float()
    if not torch.isfinite(values).all() or values.min() < -FLOAT_TOLERANCE or values.max() > 1 + FLOAT_TOLERANCE:
        raise ValueError(f"{name} must have finite float values in [0, 1], got [{values.min():g}, {values.max():g}].")
    return values.clamp(0, 1)


def drop_channels(mask: Any) -> Any:
    """Return the mask (height, width) of an array (height, width, 1 or 3), as OpenCV reads one; others as they are."""
    if getattr(mask, "ndim", 0) != 3 or mask.shape[-1] not in (1, 3) or len(mask) <= 3:
        return mask
    return mask[..., 0] if bool((mask == mask[..., :1]).all()) else mask


def _is_binary(values: torch.Tensor) -> bool:
    """Return whether a map of integers holds only 0 and 1; such a mask is meant, not an alpha of 1/255."""
    if values.is_floating_point():
        return False
    values = values.to(torch.int64) if values.dtype in _UNSIGNED else values  # torch finds no extremes of these
    return int(values.max()) == 1 and int(values.min()) >= 0


def read_pixels(image: Image.Image) -> np.ndarray:
    """Return a grayscale image, or the opacity of a transparent one, as an array whose dtype tells its range."""
    if image.mode == "F":
        return np.array(image)
    if not image.mode.startswith("I"):
        if image.has_transparency_data:  # a cutout; the colors of what is transparent mean nothing
            opacity = np.array(image.convert("RGBA").getchannel("A"))
            if opacity.min() < 255:
                return opacity
        return np.array(image.convert("L"))
    values = np.array(image)
    return values.astype(np.uint8 if image.mode == "I" and values.max() <= 255 else np.uint16)


__all__ = ["FLOAT_TOLERANCE", "drop_channels", "load_map", "load_segmentation_maps", "read_pixels"]
