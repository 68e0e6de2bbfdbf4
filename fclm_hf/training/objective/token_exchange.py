"""Exchange of tokens between two images that share their foreground."""

from typing import Any

import torch
from torch import nn


FeatureMaps = tuple[torch.Tensor, ...]


def _pick_cells(
    grid: tuple[int, int, int], ratio: float, valid: torch.Tensor | None, reference: torch.Tensor, generator: Any
) -> torch.Tensor:
    """Return a boolean mask of shape `(batch, 1, height, width)` of random cells of each image.

    Their number is `ratio` times the number of valid cells, rounded.
    """
    batch, height, width = grid
    noise = torch.rand(batch, height * width, generator=generator, device=reference.device)
    if valid is None:
        count = torch.full((batch, 1), round(ratio * height * width), device=reference.device)
    else:
        valid = valid.flatten(1).bool()
        noise = noise.masked_fill(~valid, 2.0)
        count = (ratio * valid.sum(1, keepdim=True)).round()
    rank = noise.argsort(1).argsort(1)
    return (rank < count).view(batch, 1, height, width)


def exchange_tokens(
    maps_a: FeatureMaps,
    maps_b: FeatureMaps,
    ratio: float = 0.25,
    valid: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[FeatureMaps, FeatureMaps]:
    """Swap the tokens at random positions between A and B, image i of A with image i of B.

    The positions are drawn on the coarsest grid and upsampled to the finer ones, so that every level swaps the same
    part of the image. The ratio is exact on the coarsest grid, and on all grids whose size is a multiple of it.

    Args:
        maps_a: Feature maps of A, each of shape `(batch, channels, height, width)`.
        maps_b: Feature maps of B, of the same shapes.
        ratio: Fraction of the tokens to swap, in [0, 1].
        valid: Mask of shape `(batch, 1, height, width)` on the coarsest grid of the tokens that may be swapped.
            Default: all.
        generator: Source of randomness, on the device of the maps.

    Returns:
        The maps of A with tokens of B, and the maps of B with tokens of A.

    Raises:
        ValueError: If the shapes of A and B differ or `ratio` is out of range.

    Example:
        >>> import torch
        >>> from fclm_hf.training import exchange_tokens
        >>> (a,), (b,) = exchange_tokens((torch.zeros(1, 8, 4, 4),), (torch.ones(1, 8, 4, 4),), ratio=0.25)
        >>> a.mean(), b.mean()
        (tensor(0.2500), tensor(0.7500))
    """
    shapes_a, shapes_b = ([tuple(x.shape) for x in maps] for maps in (maps_a, maps_b))
    if shapes_a != shapes_b:
        raise ValueError(f"maps_a and maps_b must have the same shapes, got {shapes_a} and {shapes_b}.")
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio must be in [0, 1], got {ratio}.")
    coarsest = min(maps_a, key=lambda x: x.shape[-2] * x.shape[-1])
    grid = (len(coarsest), *coarsest.shape[-2:])
    cells = _pick_cells(grid, ratio, valid, coarsest, generator)
    swapped_a, swapped_b = [], []
    for a, b in zip(maps_a, maps_b, strict=True):
        swap = nn.functional.interpolate(cells.float(), size=a.shape[-2:], mode="nearest").bool()
        swapped_a.append(torch.where(swap, b, a))
        swapped_b.append(torch.where(swap, a, b))
    return tuple(swapped_a), tuple(swapped_b)


__all__ = ["exchange_tokens"]
