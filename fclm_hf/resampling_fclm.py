"""Resizing as a product with per-image matrices: images of different sizes share a batch without data-dependent shapes,
and each comes out as it would alone."""

import torch


def interpolation_weights(num_outputs: int, num_inputs: int, step: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Antialiased linear interpolation along one axis as matrices (batch, num_outputs, num_inputs) in fp32.

    Output cell `i` is centred on input coordinate `(i + 0.5) * step - 0.5`; inputs from `valid` on do not count.
    `step` and `valid` are fp32 (batch,).
    """
    step, valid = step.view(-1, 1), valid.view(-1, 1)
    outputs = torch.arange(num_outputs, device=step.device, dtype=torch.float32)
    inputs = torch.arange(num_inputs, device=step.device, dtype=torch.float32)
    centre = ((outputs + 0.5) * step - 0.5).clamp(min=0).minimum(valid - 1)
    support = step.clamp(min=1)[..., None]
    weights = (1 - (inputs - centre[..., None]).abs() / support).clamp(min=0) * (inputs < valid)[:, None]
    return weights / weights.sum(-1, keepdim=True)


def resample(maps: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """(batch, channels, h, w) -> (batch, channels, H, W) with `rows` (batch, H, h) and `columns` (batch, W, w)."""
    batch, channels, height, width = maps.shape
    maps = maps.reshape(batch, channels * height, width) @ columns.transpose(1, 2).to(maps.dtype)
    maps = maps.view(batch, channels, height, -1).transpose(1, 2).reshape(batch, height, -1)
    maps = rows.to(maps.dtype) @ maps
    return maps.view(batch, rows.shape[1], channels, -1).transpose(1, 2)


def find_image_sizes(pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None) -> torch.Tensor:
    """Heights and widths (batch, 2) of the images inside `pixel_values` (batch, channels, height, width).

    `pixel_mask` (batch, height, width) is 1 on the image and 0 on padding at the bottom and right; `None` for none.
    """
    if pixel_values.dim() != 4:
        raise ValueError(f"pixel_values has shape {tuple(pixel_values.shape)}, accepted is (batch, 3, height, width).")
    batch, _, height, width = pixel_values.shape
    if pixel_mask is not None and pixel_mask.shape != (batch, height, width):
        raise ValueError(
            f"pixel_mask has shape {tuple(pixel_mask.shape)}, accepted is that of the images, {(batch, height, width)}."
        )
    if pixel_mask is None:
        return torch.tensor([[height, width]], device=pixel_values.device).expand(batch, 2)
    return torch.stack([pixel_mask[:, :, 0].sum(1), pixel_mask[:, 0].sum(1)], dim=1).long()


def valid_pixels(sizes: torch.Tensor, height: int, width: int, stride: float = 1) -> torch.Tensor:
    """bool (batch, 1, height, width): cells of a `stride` grid that start inside the image. `sizes` is (batch, 2)."""
    rows = torch.arange(height, device=sizes.device) * stride < sizes[:, :1]
    columns = torch.arange(width, device=sizes.device) * stride < sizes[:, 1:]
    return (rows[:, :, None] & columns[:, None, :])[:, None]


__all__ = ["find_image_sizes", "interpolation_weights", "resample", "valid_pixels"]
