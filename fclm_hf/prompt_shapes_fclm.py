"""Shapes of the prompts that the model is given. They are static: checking them breaks no compiled graph."""

import torch


ACCEPTED_SHAPES = {
    "input_points": "(batch, objects, points, 2)",
    "input_labels": "(batch, objects, points), as input_points",
    "input_boxes": "(batch, objects, 4)",
    "input_ids": "(batch, length) or (batch, objects, length)",
    "attention_mask": "the shape of input_ids",
    "object_mask": "(batch, objects)",
}


def count_objects(
    batch: int,
    input_points: torch.Tensor | None = None,
    input_labels: torch.Tensor | None = None,
    input_boxes: torch.Tensor | None = None,
    input_ids: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
    object_mask: torch.Tensor | None = None,
) -> int:
    """
    Number of objects per image that prompts name, once their shapes are found to be right.

    Args:
        batch: number of images; prompts for one image go to all.
        input_points, input_labels, input_boxes, input_ids, attention_mask, object_mask: those of the model.

    Raises:
        ValueError: names the argument, its shape and what is accepted; or prompts that disagree.
    """
    if input_labels is not None and input_points is None:
        raise ValueError("input_labels were given without input_points.")
    counts = {}
    for name, given, right in (
        ("input_points", input_points, lambda shape: len(shape) == 4 and shape[3] == 2),
        ("input_labels", input_labels, lambda shape: shape == input_points.shape[:3]),
        ("input_boxes", input_boxes, lambda shape: len(shape) == 3 and shape[2] == 4),
        ("input_ids", input_ids, lambda shape: len(shape) in (2, 3)),
        ("attention_mask", None if input_ids is None else attention_mask, lambda shape: shape == input_ids.shape),
        ("object_mask", object_mask, lambda shape: len(shape) == 2),
    ):
        if given is None:
            continue
        if not right(given.shape) or given.shape[0] not in (1, batch):
            raise ValueError(
                f"{name} has shape {tuple(given.shape)}, accepted is {ACCEPTED_SHAPES[name]} for {batch} images."
            )
        counts[name] = 1 if name in ("input_ids", "attention_mask") and given.dim() == 2 else given.shape[1]
    objects = max(counts.values(), default=1)
    if any(count not in (1, objects) for count in counts.values()):
        raise ValueError(f"The prompts disagree on the number of objects per image: {counts}.")
    return objects


__all__ = ["count_objects"]
