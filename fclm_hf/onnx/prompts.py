"""Prompts as the ONNX graphs take them: every kind is there, and absent ones are padding."""

from collections.abc import Mapping

import numpy as np


PADDING_LABEL = -10  # that of `fclm_hf.configuration_fclm`, which imports transformers
TRIMAP_TOLERANCE = 0.01  # that of `fclm_hf.masks_fclm`, which imports torch

Arrays = dict[str, np.ndarray]

_SHAPES = {
    "input_points": ("(batch_size, num_objects, num_points, 2)", lambda shape: len(shape) == 4 and shape[3] == 2),
    "input_labels": ("(batch_size, num_objects, num_points)", lambda shape: len(shape) == 3),
    "input_boxes": ("(batch_size, num_objects, 4)", lambda shape: len(shape) == 3 and shape[2] == 4),
    "input_ids": ("(batch_size, num_objects, sequence_length)", lambda shape: len(shape) in (2, 3)),
    "attention_mask": ("that of input_ids", lambda shape: len(shape) in (2, 3)),
    "object_mask": ("(batch_size, num_objects)", lambda shape: len(shape) == 2),
    "input_masks": ("(batch_size, num_objects, mask_height, mask_width)", lambda shape: len(shape) == 4),
}


def count_objects(batch_size: int, prompts: Mapping[str, np.ndarray | None]) -> int:
    """Check the shapes of prompts and return the number of objects per image.

    Args:
        batch_size: Number of images. Prompts of batch size 1 apply to all images.
        prompts: Arrays by the names of the model's arguments; None for those that are not given.

    Raises:
        ValueError: If an argument has the wrong shape, or if the prompts disagree on the number of objects.
    """
    if prompts.get("input_labels") is not None and prompts.get("input_points") is None:
        raise ValueError("input_labels requires input_points, got input_labels alone.")
    counts = {}
    for name, (expected, fits) in _SHAPES.items():
        value = prompts.get(name)
        if value is None:
            continue
        if not fits(value.shape) or value.shape[0] not in (1, batch_size):
            raise ValueError(f"{name} must have shape {expected} with batch_size {batch_size} or 1, got {value.shape}.")
        is_single_text = name in ("input_ids", "attention_mask") and value.ndim == 2
        counts[name] = 1 if is_single_text else value.shape[1]
    for name, other in (("input_labels", "input_points"), ("attention_mask", "input_ids")):
        if name in counts and other in counts:
            shape = prompts[other].shape if other == "input_ids" else prompts[other].shape[:3]
            if prompts[name].shape != shape:
                raise ValueError(f"{name} must have the shape of {other}, {shape}, got {prompts[name].shape}.")
    num_objects = max(counts.values(), default=1)
    if any(count not in (1, num_objects) for count in counts.values()):
        raise ValueError(f"Prompts must agree on the number of objects per image, got {counts}.")
    return num_objects


def prepare_visual_prompts(
    batch_size: int,
    num_objects: int,
    input_points: np.ndarray | None,
    input_labels: np.ndarray | None,
    input_boxes: np.ndarray | None,
) -> Arrays:
    """Return points, labels and boxes of every image and object; absent ones become padding.

    Args:
        batch_size: Number of images.
        num_objects: Number of objects per image.
        input_points: Clicks of shape (batch_size or 1, num_objects or 1, num_points, 2).
        input_labels: Labels of the clicks, of shape (batch_size or 1, num_objects or 1, num_points).
        input_boxes: Boxes of shape (batch_size or 1, num_objects or 1, 4).
    """
    if input_points is None or input_points.shape[2] == 0:
        input_points = np.zeros((batch_size, num_objects, 1, 2))
        input_labels = np.full((batch_size, num_objects, 1), PADDING_LABEL)
    elif input_labels is None:
        input_labels = np.ones(input_points.shape[:3])
    if input_boxes is None:
        input_boxes = np.zeros((batch_size, num_objects, 4))
    lead = (batch_size, num_objects)
    return {
        "input_points": _expand(input_points, lead, np.float32),
        "input_labels": _expand(input_labels, lead, np.int64),
        "input_boxes": _expand(input_boxes, lead, np.float32),
    }


def prepare_text_prompts(
    batch_size: int,
    num_objects: int,
    text_embeds: np.ndarray | None,
    attention_mask: np.ndarray | None,
    projection_dim: int,
) -> Arrays:
    """Return the text embedding of every image and object, and whether it has a text.

    Args:
        batch_size: Number of images.
        num_objects: Number of objects per image.
        text_embeds: Embeddings of shape (batch_size or 1, num_objects or 1, projection_dim); None without texts.
        attention_mask: Mask of the tokens, of shape (batch_size or 1, num_objects or 1, sequence_length).
        projection_dim: Width of the text embedding space.
    """
    lead = (batch_size, num_objects)
    if text_embeds is None or attention_mask is None:
        text_embeds, text_mask = np.zeros((*lead, projection_dim)), np.zeros(lead)
    else:
        text_mask = attention_mask.any(-1)
    return {"text_embeds": _expand(text_embeds, lead, np.float32), "text_mask": _expand(text_mask, lead, np.int64)}


def prepare_masks(batch_size: int, num_objects: int, masks: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return mask prompts of every image and object, padded with -1 to the size of `pixel_values`.

    Args:
        batch_size: Number of images.
        num_objects: Number of objects per image.
        masks: Masks of shape (batch_size or 1, num_objects or 1, mask_height, mask_width).
        height: Height of `pixel_values`.
        width: Width of `pixel_values`.

    Raises:
        ValueError: If the masks are larger.
    """
    missing = height - masks.shape[2], width - masks.shape[3]
    if min(missing) < 0:
        raise ValueError(f"input_masks must not be larger than pixel_values, {(height, width)}, got {masks.shape[2:]}.")
    masks = _expand(masks, (batch_size, num_objects), np.float32)
    return np.pad(masks, ((0, 0), (0, 0), (0, missing[0]), (0, missing[1])), constant_values=-1)


def keep_known_pixels(alphas: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return alphas with the known pixels of trimaps, as the PyTorch model keeps them.

    Args:
        alphas: Alphas of shape (batch_size, num_objects, height, width).
        masks: Mask prompts of that shape. Trimaps hold 0, 0.5 and 1 only, with some 0.5.
    """
    unknown = np.abs(masks - 0.5) < TRIMAP_TOLERANCE
    has_three_values = (unknown | (masks <= 0) | (masks >= 1)).all((2, 3), keepdims=True)
    is_trimap = has_three_values & unknown.any((2, 3), keepdims=True)
    return np.where(is_trimap & ~unknown, masks.clip(0, 1), alphas)


def find_absent(prompts: Mapping[str, np.ndarray | None], text_scores: np.ndarray, threshold: float) -> np.ndarray:
    """Return which objects are taken to be absent: they have a text alone, and it matches no place well.

    Args:
        prompts: Arrays by the names of the model's arguments; None for those that are not given.
        text_scores: How well each text matches the image, of shape (batch_size, num_objects).
        threshold: `config.text_score_threshold`.
    """
    absent = text_scores < threshold
    points, labels = prompts["input_points"], prompts["input_labels"]
    if points is not None:
        absent = absent & ~(np.ones(points.shape[:3]) if labels is None else labels != PADDING_LABEL).astype(bool).any(
            -1
        )
    boxes, masks = prompts["input_boxes"], prompts["input_masks"]
    if boxes is not None:
        absent = absent & ~(boxes[..., 2:] > boxes[..., :2]).all(-1)
    if masks is not None:
        absent = absent & ~(masks >= 0).any((2, 3))
    return absent


def _expand(values: np.ndarray, lead: tuple[int, int], dtype: type) -> np.ndarray:
    """Return values for all images and objects, contiguous and of a dtype."""
    return np.ascontiguousarray(np.broadcast_to(values, (*lead, *values.shape[2:])), dtype)
