"""Clicks as people click (RITM, Sofiiuk et al., 2022): each in the middle of the largest error of the last matte."""

from collections.abc import Mapping

import torch
from torch import nn

from ...configuration_fclm import PROMPT_PADDING
from ...modeling_fclm import FCLMForImageMatting, FCLMImageEmbeddings


GRID_STRIDE = 4  # pixels between the places that are looked at
MAX_DEPTH = 32  # steps of the grid; what lies deeper is as deep


def measure_depth(regions: torch.Tensor) -> torch.Tensor:
    """Count how many steps of erosion by 3 x 3 cells each cell of a region survives, outside the map being no region.

    Args:
        regions: 1 in the region and 0 outside, of shape (..., height, width).

    Returns:
        Depths of the same shape, 0 outside the region and at most MAX_DEPTH.
    """
    left = regions.float().flatten(0, -3)[:, None]
    depth = torch.zeros_like(left)
    for _ in range(MAX_DEPTH):
        depth = depth + left
        left = 1 - nn.functional.max_pool2d(nn.functional.pad(1 - left, (1, 1, 1, 1), value=1.0), 3, stride=1)
    return depth.view_as(regions)


def find_error_centers(
    alphas: torch.Tensor, labels: torch.Tensor, known: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the middle of the largest error of each matte, on every fourth pixel; without a host synchronization.

    Args:
        alphas: Mattes of shape (batch_size, num_objects, height, width) in [0, 1].
        labels: True alphas of the same shape.
        known: Bool of the same shape or broadcastable to it, False where an error does not count.

    Returns:
        Points (x, y) of shape (batch_size, num_objects, 2), and of shape (batch_size, num_objects) their labels: 1 on a
        missing part of the object, 0 on the background, -10 without an error.

    Example:
        >>> import torch
        >>> from fclm_hf.training.objective.clicks import find_error_centers

        >>> labels = torch.zeros(1, 1, 64, 64)
        >>> labels[..., 16:40, 16:40] = 1
        >>> points, point_labels = find_error_centers(torch.zeros_like(labels), labels, torch.tensor(True))
        >>> point_labels
        tensor([[1]])
        >>> (points - 27.5).abs().max() < 8
        tensor(True)
    """
    start = GRID_STRIDE // 2
    alphas, labels, known = (
        maps.expand_as(labels)[..., start::GRID_STRIDE, start::GRID_STRIDE] for maps in (alphas, labels, known)
    )
    wrong = (alphas > 0.5) != (labels > 0.5)
    is_object = labels > 0.5
    errors = torch.stack([wrong & ~is_object & known, wrong & is_object & known], dim=2)
    depth, place = measure_depth(errors).flatten(3).max(-1)
    depth, label = depth.max(-1)
    place = place.gather(2, label[..., None])[..., 0]
    width = labels.shape[-1]
    points = torch.stack([place % width, place // width], dim=-1) * GRID_STRIDE + start
    return points.to(torch.float32), torch.where(depth > 0, label, PROMPT_PADDING)


@torch.no_grad()
def add_clicks(
    student: FCLMForImageMatting,
    image_embeddings: FCLMImageEmbeddings,
    inputs: Mapping[str, torch.Tensor],
    rounds: int,
) -> dict[str, torch.Tensor]:
    """Let the student matte, click where it is most wrong and hand it its matte again, so many times.

    Objects that neither a click nor a box asks for, and those of which nothing is to be seen, get no clicks.

    Args:
        student: The model.
        image_embeddings: Embeddings of the images.
        inputs: Prompts and `labels` as [`FCLMForImageMatting.forward`] takes them, and its masks.
        rounds: Number of clicks that are added.

    Returns:
        The inputs with `rounds` more points, and with the last mattes as `input_masks`.
    """
    inputs, labels = dict(inputs), inputs["labels"]
    batch_size, num_objects = labels.shape[:2]
    points = inputs.get("input_points", labels.new_zeros(batch_size, num_objects, 1, 2))
    point_labels = inputs.get("input_labels", torch.full(points.shape[:-1], PROMPT_PADDING, device=points.device))
    boxes = inputs.get("input_boxes", labels.new_zeros(batch_size, num_objects, 4))
    is_asked = (point_labels >= 0).any(-1) | (boxes[..., 2] > boxes[..., 0])
    is_asked = is_asked & (labels.flatten(2).amax(2) > 0.5)
    known = inputs.get("label_mask", torch.ones_like(labels, dtype=torch.bool))
    if (pixel_mask := inputs.get("pixel_mask")) is not None:
        known = known & pixel_mask[:, None].bool()
    masks = inputs.get("input_masks", torch.full_like(labels, -1.0))
    prompts = {name: value for name, value in inputs.items() if name not in ("labels", "label_mask", "pixel_mask")}
    for _ in range(rounds):
        alphas = student(image_embeddings=image_embeddings, **prompts).alphas.to(labels.dtype)
        new_points, new_labels = find_error_centers(alphas, labels, known)
        new_labels = torch.where(is_asked, new_labels, PROMPT_PADDING)
        points = torch.cat([points, new_points[:, :, None]], dim=2)
        point_labels = torch.cat([point_labels, new_labels[:, :, None]], dim=2)
        masks = torch.where(is_asked[..., None, None], alphas, masks)
        prompts |= {"input_points": points, "input_labels": point_labels, "input_masks": masks}
    return {**inputs, **prompts}


__all__ = ["add_clicks", "find_error_centers", "measure_depth"]
