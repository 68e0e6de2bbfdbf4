"""Token exchange between two images that share their foreground."""

import torch
from torch import nn


FeatureMaps = tuple[torch.Tensor, ...]


def _pick_cells(
    grid: tuple[int, int, int], ratio: float, valid: torch.Tensor | None, reference: torch.Tensor, generator
) -> torch.Tensor:
    """Bool (batch, 1, height, width) with `round(ratio * cells)` random cells of each image, among the valid ones."""
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
    """Swaps tokens at the same random places of A and B, image i of A with image i of B.

    The places are drawn on the coarsest grid and enlarged to the finer ones, so that every level swaps the same part of
    the picture: of the coarsest tokens the share is exact, and so it is of levels that are a multiple as large.

    Args:
        maps_a, maps_b: feature maps (batch, channels, height, width) of each level.
        ratio: share of the tokens, in [0, 1].
        valid: (batch, 1, height, width) on the coarsest grid, the tokens that may be swapped; default all.
        generator: of the places, on the device of the maps.

    Returns:
        The maps of A with tokens of B, and those of B with tokens of A.

    Raises:
        ValueError: levels that do not fit each other, or `ratio` out of range.
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
