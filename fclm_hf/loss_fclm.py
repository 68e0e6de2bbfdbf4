"""Losses of the two heads: l1 + Laplacian for matting, BCE + IoU for dichotomous segmentation and coarse masks."""

import torch
from torch import nn


def _as_planes(map_: torch.Tensor) -> torch.Tensor:
    """(..., H, W) -> (planes, 1, H, W) in fp32."""
    return map_.float().reshape(-1, 1, *map_.shape[-2:])


def _mean_over_valid(values: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
    if valid is None:
        return values.mean()
    valid = valid.expand_as(values)
    return (values * valid).sum() / valid.sum().clamp(min=1)


@torch.no_grad()
def _find_unknown(labels: torch.Tensor, radius: int = 7) -> torch.Tensor:
    """1.0 within about `radius` pixels of a fractional alpha or an edge, else 0.0; found at half resolution."""
    planes = _as_planes(labels)
    extremes = torch.cat([planes, 1 - planes], dim=1)
    extremes = nn.functional.max_pool2d(extremes, 2, ceil_mode=True)
    for kernel in ((1, radius), (radius, 1)):
        padding = (kernel[0] // 2, kernel[1] // 2)
        extremes = nn.functional.max_pool2d(extremes, kernel, stride=1, padding=padding)
    unknown = (extremes > 0.02).all(1, keepdim=True).float()
    return nn.functional.interpolate(unknown, scale_factor=2)[..., : labels.shape[-2], : labels.shape[-1]].view_as(
        labels
    )


def _halve(image: torch.Tensor) -> torch.Tensor:
    """Every second pixel of a 5 x 5 binomial filter; made of slices, as one-channel convolutions are slow."""
    reflects = min(image.shape[-2:]) > 2
    image = nn.functional.pad(image, (2, 2, 2, 2), mode="reflect" if reflects else "replicate")
    for axis in (-1, -2):
        count = (image.shape[axis] - 3) // 2
        taps = [image.narrow(axis, k, 2 * count - 1).unfold(axis, 1, 2).squeeze(-1) for k in range(5)]
        image = (taps[0] + taps[4] + 4 * (taps[1] + taps[3]) + 6 * taps[2]) / 16
    return image


def _double(image: torch.Tensor) -> torch.Tensor:
    """The same filter on an image with zeros between its pixels, times 4, reflected at the borders."""
    for axis in (-1, -2):
        size = image.shape[axis]
        first, last = image.narrow(axis, min(1, size - 1), 1), image.narrow(axis, size - 1, 1)
        padded = torch.cat([first, image, last], dim=axis)
        before, after = padded.narrow(axis, 0, size), padded.narrow(axis, 2, size)
        pair = [(before + 6 * image + after) / 8, (image + after) / 2]
        image = torch.stack(pair, dim=image.dim() + axis + 1).flatten(axis - 1, axis)
    return image


def _laplacian_pyramid(image: torch.Tensor, levels: int) -> list[torch.Tensor]:
    pyramid = []
    for _ in range(levels):
        height, width = (size - size % 2 if size > 1 else 1 for size in image.shape[-2:])
        image = image[..., :height, :width]
        smaller = _halve(image)
        pyramid.append(image - _double(smaller)[..., :height, :width])
        image = smaller
    return pyramid


def laplacian_loss(alphas: torch.Tensor, labels: torch.Tensor, levels: int = 5) -> torch.Tensor:
    """Laplacian pyramid loss as in ViTMatte: `sum_l 2^l mean|L_l(alphas) - L_l(labels)| / levels`.

    As there, an odd last row or column of a level does not count. Levels with a side of 2 pixels, where its borders
    cannot be reflected, repeat them.

    Args:
        alphas: predictions (..., H, W) in [0, 1].
        labels: true alphas of the same shape, in [0, 1].
        levels: number of pyramid levels.

    Returns:
        A scalar in fp32.
    """
    difference = _as_planes(alphas) - _as_planes(labels)  # the pyramid is linear: one pyramid of the difference serves
    bands = _laplacian_pyramid(difference, levels)
    return sum(2**level * band.abs().mean() for level, band in enumerate(bands)) / levels


def matting_loss(alphas: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """l1 + Laplacian (Eq. 9's head loss for matting, after ViTMatte).

    The l1 term is the mean over known pixels plus the mean over unknown ones, where unknown means within 7 pixels of a
    fractional alpha or of an edge: a trimap made of the labels.

    Args:
        alphas: predictions (batch, objects, H, W) in [0, 1].
        labels: true alphas, same shape, in [0, 1].
        mask: (batch, objects) or broadcastable to (batch, objects, H, W); False leaves pixels out.

    Returns:
        A scalar in fp32.
    """
    alphas, labels = alphas.float(), labels.float()
    if mask is not None:
        mask = mask.float()
        mask = mask[..., None, None] if mask.dim() == 2 else mask
        alphas, labels = alphas * mask, labels * mask
    error = (alphas - labels).abs()
    unknown = _find_unknown(labels)
    known = 1 - unknown
    if mask is not None:
        unknown, known = unknown * mask, known * mask
    laplacian = laplacian_loss(alphas, labels)
    if mask is not None:  # a mean over the objects that count
        counting = mask.expand(*labels.shape[:2], *mask.shape[-2:]).flatten(2).amax(2)
        laplacian = laplacian * counting.numel() / counting.sum().clamp(min=1)
    return _mean_over_valid(error, known) + _mean_over_valid(error, unknown) + laplacian


def _local_mean(planes: torch.Tensor, size: int = 31) -> torch.Tensor:
    """Mean over a window of `size` x `size` pixels, zeros outside the image; one axis after the other, which is faster."""
    planes = nn.functional.avg_pool2d(planes, (size, 1), stride=1, padding=(size // 2, 0))
    return nn.functional.avg_pool2d(planes, (1, size), stride=1, padding=(0, size // 2))


def segmentation_loss(logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Edge-weighted BCE + IoU as in MVANet, with `w = 1 + 5 |avgpool31(m) - m|` (0 outside the image) and smoothing 1.

    Args:
        logits: (batch, objects, H, W).
        labels: (batch, objects, H, W) in [0, 1].
        mask: as in [`matting_loss`].

    Returns:
        A scalar in fp32.
    """
    logits, labels = logits.float(), labels.float()
    weight = 1 + 5 * (_local_mean(_as_planes(labels)).view_as(labels) - labels).abs()
    if mask is not None:
        mask = mask.float()
        weight = weight * (mask[..., None, None] if mask.dim() == 2 else mask)
    bce = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    total = weight.sum((-2, -1))
    bce = (weight * bce).sum((-2, -1)) / total.clamp(min=1e-6)
    probabilities = logits.sigmoid()
    intersection = (weight * probabilities * labels).sum((-2, -1))
    union = (weight * (probabilities + labels - probabilities * labels)).sum((-2, -1))
    iou = 1 - (intersection + 1) / (union + 1)
    return _mean_over_valid(bce + iou, (total > 0).float() if mask is not None else None)


def coarse_mask_loss(logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """What a coarse mask can teach a matte: l1 + IoU + 0.3 BCE, a mean over the objects that have any pixel to count.

    The l1 term makes what is inside solid; BCE alone settles at the odds. No edge weights: the edges of such masks are
    wrong, and `mask` should leave them out.

    Args:
        logits: (batch, objects, H, W).
        labels: masks (batch, objects, H, W) in [0, 1].
        mask: bool (batch, objects, H, W), False for pixels that do not count.

    Returns:
        A scalar in fp32, 0 if no pixel counts.

    Example:
        >>> import torch
        >>> from fclm_hf.loss_fclm import coarse_mask_loss
        >>> labels = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]]])
        >>> known = torch.tensor([[[[True, False, False, True]]]])
        >>> coarse_mask_loss(torch.tensor([[[[20.0, -20.0, 20.0, -20.0]]]]), labels, known).item() < 1e-3
        True
    """
    logits, labels, mask = logits.float(), labels.float(), mask.float()
    count = mask.sum((-2, -1))
    probabilities = logits.sigmoid()
    l1 = ((probabilities - labels).abs() * mask).sum((-2, -1))
    bce = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    per_pixel = (l1 + 0.3 * (bce * mask).sum((-2, -1))) / count.clamp(min=1)
    intersection = (mask * probabilities * labels).sum((-2, -1))
    union = (mask * (probabilities + labels - probabilities * labels)).sum((-2, -1))
    iou = 1 - (intersection + 1) / (union + 1)
    return _mean_over_valid(per_pixel + iou, (count > 0).float())


__all__ = ["coarse_mask_loss", "laplacian_loss", "matting_loss", "segmentation_loss"]
