"""Ground-truth alphas as float32 tensors, and the one resampling of alphas: float32, antialiased bilinear."""

import os
from typing import Any

import numpy as np
import torch
from PIL import Image

from .image_utils_fclm import make_tensor, open_image


_NESTING = "accepted are image > object > map, or one map (height, width) per image"
_FULL_SCALE = {torch.uint8: 255.0, torch.uint16: 65535.0}
_FLOAT_TOLERANCE = 1e-3  # resampling overshoots [0, 1] a little


def resize_maps(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Float maps (objects, height, width) at `size` = (height, width); the same tensor when they have it already."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    if not len(maps):
        return maps.new_zeros((0, *size))
    return torch.nn.functional.interpolate(
        maps[None], size=tuple(size), mode="bilinear", align_corners=False, antialias=True
    )[0]


def load_segmentation_maps(segmentation_maps: Any, image_sizes: list[tuple[int, int]]) -> list[torch.Tensor]:
    """
    Alphas of each image as float32 (objects, height, width) in [0, 1].

    Args:
        segmentation_maps: image > object > map, or one map per image; for one image also a map by itself. A map is a
            path, URL, bytes, PIL image (0..255), or an array (height, width): uint8, uint16, float in 0..1 or bool.
            An array (objects, height, width) holds the objects of an image.
        image_sizes: height and width of each image; its maps have the same.

    Raises:
        ValueError: wrong nesting, number or size of maps, or values out of range.
    """
    per_image = _split_images(segmentation_maps, len(image_sizes))
    loaded = []
    for index, (maps, size) in enumerate(zip(per_image, image_sizes, strict=True)):
        name = f"segmentation_maps[{index}]"
        if isinstance(maps, (np.ndarray, torch.Tensor)) and maps.ndim == 3:
            maps = list(maps)
        members = list(maps) if isinstance(maps, (list, tuple)) else [maps]
        if not members:
            raise ValueError(f"{name} holds no map: {_NESTING}.")
        loaded.append(torch.stack([_load_map(each, size, f"{name}[{i}]") for i, each in enumerate(members)]))
    return loaded


def _split_images(segmentation_maps: Any, count: int) -> list[Any]:
    alone = isinstance(segmentation_maps, (str, bytes, os.PathLike, Image.Image))
    is_array = isinstance(segmentation_maps, (np.ndarray, torch.Tensor))
    if alone or (is_array and segmentation_maps.ndim == 2):
        segmentation_maps = [segmentation_maps]
    elif not isinstance(segmentation_maps, (list, tuple)) and not (is_array and segmentation_maps.ndim in (3, 4)):
        raise ValueError(f"segmentation_maps is a {type(segmentation_maps).__name__}: {_NESTING}.")
    if len(segmentation_maps) != count:
        raise ValueError(f"segmentation_maps holds {len(segmentation_maps)} images, but {count} are given: {_NESTING}.")
    return list(segmentation_maps)


def _load_map(item: Any, size: tuple[int, int], name: str) -> torch.Tensor:
    if item is None or isinstance(item, (list, tuple)):
        raise ValueError(f"{name} is a {type(item).__name__}: {_NESTING}.")
    item = open_image(item, name)
    if isinstance(item, Image.Image):
        item = _read_pixels(item)
    values = make_tensor(item, name)
    if tuple(values.shape) != tuple(size):
        raise ValueError(f"{name} has shape {tuple(values.shape)}, but its image has height and width {tuple(size)}.")
    if values.dtype == torch.bool:
        return values.cpu().float()
    if values.dtype in _FULL_SCALE:
        return values.cpu().to(torch.float32) / _FULL_SCALE[values.dtype]
    if not values.is_floating_point():
        raise ValueError(f"{name} has dtype {values.dtype}, accepted are bool, uint8 (0..255), uint16 or float (0..1).")
    values = values.cpu().float()
    if not torch.isfinite(values).all() or values.min() < -_FLOAT_TOLERANCE or values.max() > 1 + _FLOAT_TOLERANCE:
        raise ValueError(
            f"{name} has float values in [{values.min():g}, {values.max():g}], accepted are finite values in 0..1."
        )
    return values.clamp(0, 1)


def _read_pixels(image: Image.Image) -> np.ndarray:
    if image.mode == "F":
        return np.array(image)
    if not image.mode.startswith("I"):
        return np.array(image.convert("L"))
    values = np.array(image)
    return values.astype(np.uint8 if image.mode == "I" and values.max() <= 255 else np.uint16)
