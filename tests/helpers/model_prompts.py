"""Points, boxes and texts of two objects, as the model takes them."""

import torch


POINTS = [[[20.0, 10.0], [40.0, 30.0]], [[5.0, 6.0]]]
LABELS = [[1, 0], [1]]
BOXES = [[4.0, 3.0, 50.0, 40.0], [10.0, 10.0, 30.0, 38.0]]


def pad_points(points: list, labels: list, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad the points and labels of each object to a length and add a batch dimension."""
    padded = [[*object_points, *[[0.0, 0.0]] * (length - len(object_points))] for object_points in points]
    marks = [[*object_labels, *[-10] * (length - len(object_labels))] for object_labels in labels]
    return torch.tensor([padded]), torch.tensor([marks])


def prompts() -> dict[str, torch.Tensor]:
    """Return points, labels, boxes and tokens of an image with both objects."""
    input_points, input_labels = pad_points(POINTS, LABELS, 2)
    input_ids = torch.tensor([[[55, 3, 4, 56], [55, 7, 56, 56]]])
    return {
        "input_points": input_points,
        "input_labels": input_labels,
        "input_boxes": torch.tensor([BOXES]),
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
    }
