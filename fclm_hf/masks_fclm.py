"""What mask prompts are: trimaps, or rough masks."""

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


__all__ = ["TRIMAP_TOLERANCE", "find_trimaps"]
