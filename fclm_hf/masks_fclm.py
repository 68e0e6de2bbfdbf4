"""Masks of objects: how trimaps differ from others, and how both are resized."""

import torch


TRIMAP_TOLERANCE = 0.01  # distance from 0.5 of what is unknown in a trimap: 128 / 255 is, 0.5 is


def find_trimaps(masks: torch.Tensor) -> torch.Tensor:
    """Tell trimaps from other masks: they hold 0, 0.5 and 1 only, with some 0.5.

    Args:
        masks: Masks of shape (..., height, width) in [0, 1]; negative on padding.

    Returns:
        Bool of shape (..., 1, 1).
    """
    unknown = (masks - 0.5).abs() < TRIMAP_TOLERANCE
    has_three_values = (unknown | (masks <= 0) | (masks >= 1)).flatten(-2).all(-1)
    return (has_three_values & unknown.flatten(-2).any(-1))[..., None, None]


def resize_maps(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize maps with antialiased bilinear interpolation.

    Args:
        maps (`torch.FloatTensor` of shape `(num_objects, height, width)`): Maps of one image.
        size (`tuple[int, int]`): New height and width in pixels.

    Returns:
        Maps of shape `(num_objects, *size)`; the same tensor if the size does not change.
    """
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    if not len(maps):
        return maps.new_zeros((0, *size))
    return torch.nn.functional.interpolate(
        maps[None], size=tuple(size), mode="bilinear", align_corners=False, antialias=True
    )[0]


def resize_mask(mask: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize a mask prompt; a trimap stays one.

    Args:
        mask (`torch.FloatTensor` of shape `(height, width)`): Mask in [0, 1], a trimap if it holds 0, 0.5 and 1 only.
        size (`tuple[int, int]`): New height and width in pixels.

    Returns:
        Mask of shape `size`.
    """
    if find_trimaps(mask):
        return torch.nn.functional.interpolate(mask[None, None], size=tuple(size), mode="nearest-exact")[0, 0]
    return resize_maps(mask[None], size)[0].clamp(0, 1)


__all__ = ["TRIMAP_TOLERANCE", "find_trimaps", "resize_maps", "resize_mask"]
