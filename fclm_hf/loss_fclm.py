"""Head losses of Eq. 9 of the paper, l1 + Laplacian for matting and BCE + IoU for segmentation; coarse masks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import nn


CountReduction = Callable[[torch.Tensor], torch.Tensor]
_COUNT_REDUCTION: ContextVar[CountReduction | None] = ContextVar("count_reduction", default=None)


@contextmanager
def reduce_counts(reduction: CountReduction | None) -> Iterator[None]:
    """Let losses divide by counts over all processes: the mean of their losses is then that of one large batch.

    Args:
        reduction: Function that returns the mean of a scalar over the processes; `None` for a single process.

    Example:
        >>> import torch
        >>> from fclm_hf.loss_fclm import mean_over_count, reduce_counts
        >>> with reduce_counts(lambda count: (count + 1) / 2):  # another process counts 1
        ...     mean_over_count(torch.tensor(6.0), torch.tensor(3.0))
        tensor(3.)
    """
    token = _COUNT_REDUCTION.set(reduction)
    try:
        yield
    finally:
        _COUNT_REDUCTION.reset(token)


def mean_over_count(total: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """Return a sum divided by the number of its terms; 0 if there are none. See [`reduce_counts`]."""
    reduction = _COUNT_REDUCTION.get()
    if reduction is None:
        return total / count.clamp(min=1)
    count = reduction(count.detach())
    return total / torch.where(count > 0, count, 1)  # the mean over processes may be less than 1


def _to_planes(maps: torch.Tensor) -> torch.Tensor:
    """Reshape maps (..., height, width) to (num_planes, 1, height, width) in fp32."""
    return maps.float().reshape(-1, 1, *maps.shape[-2:])


def _expand_mask(mask: torch.Tensor) -> torch.Tensor:
    """Return a mask of objects or pixels as fp32, broadcastable to (batch_size, num_objects, height, width)."""
    mask = mask.float()
    return mask[..., None, None] if mask.dim() == 2 else mask


def _masked_mean(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return the mean of `values` where `mask` is 1; 0 if it is 1 nowhere."""
    if mask is None:
        return values.mean()
    mask = mask.expand_as(values)
    return mean_over_count((values * mask).sum(), mask.sum())


@torch.no_grad()
def _find_unknown(labels: torch.Tensor, radius: int = 7) -> torch.Tensor:
    """Return 1.0 within about `radius` pixels of a fractional alpha or an edge, else 0.0; found at half resolution."""
    planes = _to_planes(labels)
    extremes = torch.cat([planes, 1 - planes], dim=1)  # local maximum of alpha and, as 1 - alpha, minimum
    extremes = nn.functional.max_pool2d(extremes, 2, ceil_mode=True)
    for kernel in ((1, radius), (radius, 1)):
        padding = (kernel[0] // 2, kernel[1] // 2)
        extremes = nn.functional.max_pool2d(extremes, kernel, stride=1, padding=padding)
    unknown = (extremes > 0.02).all(1, keepdim=True).float()
    unknown = nn.functional.interpolate(unknown, scale_factor=2)
    return unknown[..., : labels.shape[-2], : labels.shape[-1]].view_as(labels)


def _halve(image: torch.Tensor) -> torch.Tensor:
    """Blur with a 5 x 5 binomial filter and keep every second pixel.

    It is made of slices, as convolutions of one channel are slow.
    """
    reflects = min(image.shape[-2:]) > 2
    image = nn.functional.pad(image, (2, 2, 2, 2), mode="reflect" if reflects else "replicate")
    for axis in (-1, -2):
        count = (image.shape[axis] - 3) // 2
        taps = [image.narrow(axis, k, 2 * count - 1).unfold(axis, 1, 2).squeeze(-1) for k in range(5)]
        image = (taps[0] + taps[4] + 4 * (taps[1] + taps[3]) + 6 * taps[2]) / 16
    return image


def _double(image: torch.Tensor) -> torch.Tensor:
    """Insert zeros between pixels and blur with 4 times the same filter, reflected at the borders."""
    for axis in (-1, -2):
        size = image.shape[axis]
        first, last = image.narrow(axis, min(1, size - 1), 1), image.narrow(axis, size - 1, 1)
        padded = torch.cat([first, image, last], dim=axis)
        before, after = padded.narrow(axis, 0, size), padded.narrow(axis, 2, size)
        pair = [(before + 6 * image + after) / 8, (image + after) / 2]
        image = torch.stack(pair, dim=image.dim() + axis + 1).flatten(axis - 1, axis)
    return image


def _make_laplacian_pyramid(image: torch.Tensor, levels: int) -> list[torch.Tensor]:
    """Return the bands of an image (num_planes, 1, height, width), finest first."""
    pyramid = []
    for _ in range(levels):
        height, width = (size - size % 2 if size > 1 else 1 for size in image.shape[-2:])
        image = image[..., :height, :width]
        smaller = _halve(image)
        pyramid.append(image - _double(smaller)[..., :height, :width])
        image = smaller
    return pyramid


def laplacian_loss(alphas: torch.Tensor, labels: torch.Tensor, levels: int = 5) -> torch.Tensor:
    """Compute the Laplacian pyramid loss of ViTMatte (Yao et al., 2024).

    This is `sum_l 2^l mean|L_l(alphas) - L_l(labels)| / levels`, with band `L_l` of level `l`, from 0. As in ViTMatte,
    an odd last row or column of a level does not count. Levels with a side of 2 pixels or less, whose borders cannot be
    reflected, repeat them.

    Args:
        alphas (`torch.FloatTensor` of shape `(..., height, width)`):
            Predicted alphas in [0, 1].
        labels (`torch.FloatTensor` of shape `(..., height, width)`):
            True alphas in [0, 1].
        levels (`int`, defaults to 5):
            Number of pyramid levels.

    Returns:
        `torch.FloatTensor` of shape `()`, in fp32.

    Raises:
        RuntimeError: If `alphas` and `labels` cannot be subtracted.

    Example:
        >>> import torch
        >>> from fclm_hf.training import laplacian_loss

        >>> labels = torch.eye(32)[None, None]
        >>> laplacian_loss(labels, labels)
        tensor(0.)
        >>> laplacian_loss(0.5 * labels, labels) < laplacian_loss(0 * labels, labels)
        tensor(True)
    """
    difference = _to_planes(alphas) - _to_planes(labels)  # the pyramid is linear: that of the difference is enough
    bands = _make_laplacian_pyramid(difference, levels)
    return sum(2**level * band.abs().mean() for level, band in enumerate(bands)) / levels


def matting_loss(alphas: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Compute l1 + Laplacian, the head loss for matting of Eq. 9, after ViTMatte (Yao et al., 2024).

    The l1 term is the mean over known pixels plus the mean over unknown ones. Unknown are pixels within 7 pixels of a
    fractional alpha or of an edge of the labels, which stand in for a trimap.

    Args:
        alphas (`torch.FloatTensor` of shape `(batch_size, num_objects, height, width)`):
            Predicted alphas in [0, 1].
        labels (`torch.FloatTensor` of shape `(batch_size, num_objects, height, width)`):
            True alphas in [0, 1].
        mask (`torch.Tensor`, *optional*):
            1 for what counts, 0 for what does not; of shape `(batch_size, num_objects)`, or broadcastable to that of
            `labels`.

    Returns:
        `torch.FloatTensor` of shape `()`, in fp32.

    Raises:
        RuntimeError: If the shapes of the arguments do not match.

    Example:
        >>> import torch
        >>> from fclm_hf.training import matting_loss

        >>> labels = torch.zeros(1, 2, 32, 32)
        >>> labels[..., 8:24, 8:24] = 1
        >>> matting_loss(labels, labels)
        tensor(0.)
        >>> wrong = torch.stack([labels[:, 0], 1 - labels[:, 1]], dim=1)
        >>> matting_loss(wrong, labels, mask=torch.tensor([[True, False]]))  # the second object does not count
        tensor(0.)
    """
    alphas, labels = alphas.float(), labels.float()
    if mask is not None:
        mask = _expand_mask(mask)
        alphas, labels = alphas * mask, labels * mask
    error = (alphas - labels).abs()
    unknown = _find_unknown(labels)
    known = 1 - unknown
    if mask is not None:
        unknown, known = unknown * mask, known * mask
    laplacian = laplacian_loss(alphas, labels)
    if mask is not None:  # the mean over the objects that count
        counts = mask.expand(*labels.shape[:2], *mask.shape[-2:]).amax((-2, -1))
        laplacian = mean_over_count(laplacian * counts.numel(), counts.sum())
    return _masked_mean(error, known) + _masked_mean(error, unknown) + laplacian


def segmentation_loss(logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Compute edge-weighted BCE + IoU, the head loss for segmentation of Eq. 9, after MVANet (Yu et al., 2024).

    Pixels of labels `m` weigh `1 + 5 |avgpool31(m) - m|`, with `m = 0` outside the image; the IoU is smoothed by 1.

    Args:
        logits (`torch.FloatTensor` of shape `(batch_size, num_objects, height, width)`):
            Predictions before the sigmoid.
        labels (`torch.FloatTensor` of shape `(batch_size, num_objects, height, width)`):
            True masks in [0, 1].
        mask (`torch.Tensor`, *optional*):
            1 for what counts, 0 for what does not; of shape `(batch_size, num_objects)`, or broadcastable to that of
            `labels`.

    Returns:
        `torch.FloatTensor` of shape `()`, in fp32.

    Raises:
        RuntimeError: If the shapes of the arguments do not match.
        ValueError: If `logits` and `labels` differ in shape.

    Example:
        >>> import torch
        >>> from fclm_hf.training import segmentation_loss

        >>> labels = torch.zeros(1, 1, 32, 32)
        >>> labels[..., 8:24, 8:24] = 1
        >>> segmentation_loss(20 * (2 * labels - 1), labels) < 1e-4
        tensor(True)
        >>> segmentation_loss(torch.zeros_like(labels), labels) > 1
        tensor(True)
    """
    logits, labels = logits.float(), labels.float()
    smooth = _to_planes(labels)
    for kernel_size, padding in (((31, 1), (15, 0)), ((1, 31), (0, 15))):  # a box filter is separable
        smooth = nn.functional.avg_pool2d(smooth, kernel_size, stride=1, padding=padding)
    weight = 1 + 5 * (smooth.view_as(labels) - labels).abs()
    if mask is not None:
        weight = weight * _expand_mask(mask)
    bce = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    total = weight.sum((-2, -1))
    bce = (weight * bce).sum((-2, -1)) / total.clamp(min=1e-6)
    probabilities = logits.sigmoid()
    intersection = (weight * probabilities * labels).sum((-2, -1))
    union = (weight * (probabilities + labels - probabilities * labels)).sum((-2, -1))
    iou_loss = 1 - (intersection + 1) / (union + 1)
    return _masked_mean(bce + iou_loss, (total > 0).float() if mask is not None else None)


def coarse_mask_loss(logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Compute l1 + IoU + 0.3 BCE: what a coarse mask can teach a matte.

    The l1 term makes the inside solid, where BCE settles at the odds. There are no edge weights: edges of coarse masks
    are wrong, and `mask` should leave them out. The loss is the mean over objects with any pixel that counts.

    Args:
        logits (`torch.FloatTensor` of shape `(batch_size, num_objects, height, width)`):
            Predictions before the sigmoid.
        labels (`torch.FloatTensor` of shape `(batch_size, num_objects, height, width)`):
            Coarse masks in [0, 1].
        mask (`torch.BoolTensor` of shape `(batch_size, num_objects, height, width)`):
            True for pixels that count.

    Returns:
        `torch.FloatTensor` of shape `()`, in fp32; 0 if no pixel counts.

    Example:
        >>> import torch
        >>> from fclm_hf.training import coarse_mask_loss

        >>> labels = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]]])
        >>> mask = torch.tensor([[[[True, False, False, True]]]])
        >>> coarse_mask_loss(torch.tensor([[[[20.0, -20.0, 20.0, -20.0]]]]), labels, mask) < 1e-4
        tensor(True)
    """
    logits, labels, mask = logits.float(), labels.float(), mask.float()
    count = mask.sum((-2, -1))
    probabilities = logits.sigmoid()
    l1 = ((probabilities - labels).abs() * mask).sum((-2, -1))
    bce = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    per_pixel = (l1 + 0.3 * (bce * mask).sum((-2, -1))) / count.clamp(min=1)
    intersection = (mask * probabilities * labels).sum((-2, -1))
    union = (mask * (probabilities + labels - probabilities * labels)).sum((-2, -1))
    iou_loss = 1 - (intersection + 1) / (union + 1)
    return _masked_mean(per_pixel + iou_loss, (count > 0).float())


__all__ = ["coarse_mask_loss", "laplacian_loss", "matting_loss", "segmentation_loss"]
