"""Prompts of FCLM: texts, clicks, boxes, and masks are checked, scaled to the resized images, and padded to tensors."""

import math
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from .configuration_fclm import PROMPT_PADDING
from .masks_fclm import resize_mask
from .segmentation_maps_fclm import drop_channels, load_map


NESTING = {
    "text": "a str, a list with one str (or None) per image, or image > object > str",
    "input_points": "image > object > point > (x, y)",
    "input_labels": "image > object > point",
    "input_boxes": "image > object > (x0, y0, x1, y1)",
    "input_masks": "image > object > mask",
}
PADDING_MASK = -1.0

_BOX_FORMAT = "XYXY"
_BOX_SIDES = ("xmin", "ymin", "xmax", "ymax")

_FRACTIONS = (
    "A {0} lies within the first pixel of its image: a {0} is in pixels, not in fractions of the width and height."
)
logger = logging.get_logger(__name__)

Size = tuple[int, int]


@dataclass(frozen=True)
class Prompts:
    """Checked prompts of a batch.

    Each kind of prompt is None if it was not given, else nested as image > object > value, and a value is None if the
    object has no prompt of that kind.

    Attributes:
        objects: Number of objects of each image, 0 for one with an empty list of prompts.
        text: Texts.
        points: Lists of (x, y).
        labels: Lists of 0 and 1, as many as points.
        boxes: Corners (x0, y0, x1, y1).
        masks: float32 masks (height, width) in [0, 1].
    """

    objects: list[int]
    text: list[list[str | None]] | None = None
    points: list[list[list[tuple[float, float]] | None]] | None = None
    labels: list[list[list[int] | None]] | None = None
    boxes: list[list[tuple[float, float, float, float] | None]] | None = None
    masks: list[list[torch.Tensor | None]] | None = None

    @property
    def padded_objects(self) -> int:
        """Number of objects that each image is padded to; at least 1, as the model cannot decode none."""
        return max([1, *self.objects])


def check_prompts(
    image_sizes: list[Size | None],
    text: Any = None,
    input_points: Any = None,
    input_labels: Any = None,
    input_boxes: Any = None,
    input_masks: Any = None,
) -> Prompts:
    """Check the prompts of a batch and convert them to one form.

    None stands for an image or an object without that kind of prompt. Arrays and tensors are accepted as well as lists.

    Args:
        image_sizes: Height and width of each image in pixels; None for a sample without an image, which can have text
            only.
        text: A str for every image, a list with one per image, or image > object > str.
        input_points: image > object > point > (x, y) in pixels, 0 <= x <= width and 0 <= y <= height.
        input_labels: image > object > point: 1 foreground, 0 background. Points without labels are foreground.
        input_boxes: image > object > (x0, y0, x1, y1) in pixels, x0 < x1 and y0 < y1. What lies outside the image is
            cut off.
        input_masks: image > object > mask with the height and width of the image.

    Raises:
        ValueError: If a prompt is invalid; the message names the argument, image, object and value.
    """
    if input_labels is not None and input_points is None:
        raise ValueError("input_labels must come with input_points, as each label belongs to a point.")
    count = len(image_sizes)
    kinds: dict[str, list[list[Any] | None]] = {}
    if text is not None:
        kinds["text"] = _split_text(text, count)
    visual = {
        "input_points": to_lists(input_points),
        "input_labels": to_lists(input_labels),
        "input_boxes": to_lists(input_boxes),
        "input_masks": _list_masks(input_masks),
    }
    kinds |= {name: _split_objects(name, value, count) for name, value in visual.items() if value is not None}
    if isinstance(text, str):  # for all objects there are, and an image may have none
        bare = [any(kind[i] == [] for name, kind in kinds.items() if name != "text") for i in range(count)]
        kinds["text"] = [[] if empty else each for each, empty in zip(kinds["text"], bare, strict=True)]
    objects = _count_objects(kinds, count)
    checked = {
        name: [
            [None] * number if values is None else _check_objects(name, i, values, size)
            for i, (values, number, size) in enumerate(zip(kind, objects, image_sizes, strict=True))
        ]
        for name, kind in kinds.items()
    }
    points = checked.get("input_points")
    return Prompts(
        objects=objects,
        text=checked.get("text"),
        points=points,
        labels=None if points is None else _match_labels(points, checked.get("input_labels")),
        boxes=checked.get("input_boxes"),
        masks=checked.get("input_masks"),
    )


def scale_prompts(prompts: Prompts, original_sizes: list[Size], resized_sizes: list[Size]) -> Prompts:
    """Scale points, boxes and masks from pixels of the original images to pixels of the resized ones.

    Args:
        prompts: Prompts in pixels of the original images.
        original_sizes: Height and width of each original image.
        resized_sizes: Height and width of each resized image, without padding.
    """
    scales = [(w / wo, h / ho) for (ho, wo), (h, w) in zip(original_sizes, resized_sizes, strict=True)]
    points = prompts.points and [
        [None if each is None else [(x * sx, y * sy) for x, y in each] for each in image]
        for image, (sx, sy) in zip(prompts.points, scales, strict=True)
    ]
    boxes = prompts.boxes and [
        [None if box is None else (box[0] * sx, box[1] * sy, box[2] * sx, box[3] * sy) for box in image]
        for image, (sx, sy) in zip(prompts.boxes, scales, strict=True)
    ]
    masks = prompts.masks and [
        [None if mask is None else resize_mask(mask, size) for mask in image]
        for image, size in zip(prompts.masks, resized_sizes, strict=True)
    ]
    return replace(prompts, points=points, boxes=boxes, masks=masks)


def pad_prompts(prompts: Prompts) -> dict[str, torch.Tensor]:
    """Pad prompts to the largest numbers of objects and points and the largest mask in the batch.

    Returns:
        A dict with

        - **input_points** (`torch.FloatTensor` of shape `(batch_size, num_objects, num_points, 2)`) and
          **input_labels** (`torch.LongTensor` of shape `(batch_size, num_objects, num_points)`, -10 for padding), if
          there are points;
        - **input_boxes** (`torch.FloatTensor` of shape `(batch_size, num_objects, 4)`, -10 for an absent box), if there
          are boxes;
        - **input_masks** (`torch.FloatTensor` of shape `(batch_size, num_objects, height, width)`, -1 on padding and
          everywhere for an absent mask), if there are masks;
        - **object_mask** (`torch.BoolTensor` of shape `(batch_size, num_objects)`, False for padding objects), if the
          images have different numbers of objects, or an image has none.
    """
    data = {}
    if prompts.points is not None and prompts.labels is not None:
        data["input_points"], data["input_labels"] = _pad_points(prompts.points, prompts.labels, prompts.padded_objects)
    if prompts.boxes is not None:
        data["input_boxes"] = _pad_boxes(prompts.boxes, prompts.padded_objects)
    if prompts.masks is not None and any(mask is not None for image in prompts.masks for mask in image):
        data["input_masks"] = _pad_masks(prompts.masks, prompts.padded_objects)
    if set(prompts.objects) != {prompts.padded_objects}:
        data["object_mask"] = torch.arange(prompts.padded_objects)[None] < torch.tensor(prompts.objects)[:, None]
    return data


def _pad_points(points: list[list[Any]], labels: list[list[Any]], objects: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points `(batch_size, objects, num_points, 2)` and labels `(batch_size, objects, num_points)`."""
    longest = max([1, *(len(each) for image in points for each in image if each)])
    padded_points = np.zeros((len(points), objects, longest, 2), dtype=np.float32)
    padded_labels = np.full((len(points), objects, longest), PROMPT_PADDING, dtype=np.int64)
    for i, image in enumerate(points):
        for j, each in enumerate(image):
            if each:
                padded_points[i, j, : len(each)] = each
                padded_labels[i, j, : len(each)] = labels[i][j]
    return torch.from_numpy(padded_points), torch.from_numpy(padded_labels)


def _pad_boxes(boxes: list[list[Any]], objects: int) -> torch.Tensor:
    """Return boxes `(batch_size, objects, 4)`."""
    padded = np.full((len(boxes), objects, 4), PROMPT_PADDING, dtype=np.float32)
    for i, image in enumerate(boxes):
        for j, box in enumerate(image):
            if box is not None:
                corners = np.asarray(box, dtype=np.float32)
                # rounding must not empty a thin box, which the model would take for an absent one
                corners[2:] = np.maximum(corners[2:], np.nextafter(corners[:2], np.float32(np.inf)))
                padded[i, j] = corners
    return torch.from_numpy(padded)


def _pad_masks(masks: list[list[torch.Tensor | None]], objects: int) -> torch.Tensor:
    """Return masks `(batch_size, objects, height, width)`, of the size of the largest one."""
    shapes = [mask.shape for image in masks for mask in image if mask is not None]
    size = max(height for height, _ in shapes), max(width for _, width in shapes)
    padded = torch.full((len(masks), objects, *size), PADDING_MASK)
    for i, image in enumerate(masks):
        for j, mask in enumerate(image):
            if mask is not None:
                padded[i, j, : mask.shape[0], : mask.shape[1]] = mask
    return padded


def has_flat_text(text: Any) -> bool:
    """Return whether `text` has no object level: a str, or a list of str and None with one object per image."""
    return isinstance(text, str) or not any(isinstance(each, (list, tuple)) for each in to_lists(text))


def to_lists(value: Any) -> Any:
    """Convert arrays, tensors, tuples, generators etc. inside `value` to lists, and their numbers to Python numbers.

    Boxes of detectors, `{"xmin": ..., "ymin": ..., "xmax": ..., "ymax": ...}`, also as the "box" of a result, become
    lists of four numbers. Sets, which have no order, other dicts and bytes stay as they are.

    Raises:
        ValueError: If boxes of torchvision have another format than XYXY.
    """
    if isinstance(value, torch.Tensor):
        layout = getattr(getattr(value, "format", None), "name", _BOX_FORMAT)  # that of BoundingBoxes of torchvision
        if layout != _BOX_FORMAT:
            raise ValueError(f"input_boxes must be in the format {_BOX_FORMAT}, (x0, y0, x1, y1), got {layout}.")
        return value.detach().cpu().tolist()
    if hasattr(value, "__array__"):  # of numpy, a table of pandas
        return np.asarray(value).tolist()
    if isinstance(value, Mapping):
        box = value.get("box", value)
        is_box = isinstance(box, Mapping) and set(box) == set(_BOX_SIDES)
        return [to_lists(box[side]) for side in _BOX_SIDES] if is_box else value
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, bytearray, Set)):
        return [to_lists(each) for each in value]
    return value


def _split_text(text: Any, count: int) -> list[list[Any] | None]:
    """Return the texts of the objects of each image."""
    if isinstance(text, str):
        return [[text] for _ in range(count)]
    images = to_lists(text)
    if isinstance(images, list) and len(images) != count and all(isinstance(each, str) for each in images):
        raise ValueError(
            f"text must hold texts for {count} images, got {len(images)}: expected {NESTING['text']}; several objects"
            f" of one image are [{images!r}]."
        )
    if isinstance(images, list):
        images = [[each] if isinstance(each, str) else each for each in images]
    return _split_objects("text", images, count)


def _split_objects(name: str, images: Any, count: int) -> list[list[Any] | None]:
    """Return the prompts of the objects of each image, or None for an image without any."""
    expected = f"expected {NESTING[name]}, with None for absent prompts"
    if not isinstance(images, list):
        raise ValueError(f"{name} must be a list, got {show(images)}: {expected}.")
    if len(images) != count:
        raise ValueError(f"{name} must hold prompts for {count} images, got {len(images)}: {expected}.")
    for i, objects in enumerate(images):
        if objects is not None and not isinstance(objects, list):
            raise ValueError(f"{name}[{i}] (image {i}) must be a list of objects, got {show(objects)}: {expected}.")
    return images


def _list_masks(masks: Any) -> Any:
    """Return image > object as lists, with the masks as they are."""
    if isinstance(masks, (np.ndarray, torch.Tensor)) and masks.ndim == 4:
        masks = list(masks)
    if not isinstance(masks, (list, tuple)):
        return masks
    masks = [drop_channels(each) for each in masks]
    has_objects = [isinstance(each, (list, tuple)) or getattr(each, "ndim", 0) == 3 for each in masks]
    return [list(each) if nested else each for each, nested in zip(masks, has_objects, strict=True)]


def _count_objects(kinds: dict[str, list[list[Any] | None]], count: int) -> list[int]:
    """Return the number of objects of each image, on which all kinds of prompts must agree."""
    objects = []
    for i in range(count):
        counts = {name: len(kind[i]) for name, kind in kinds.items() if kind[i] is not None}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{n} in {name}" for name, n in counts.items())
            raise ValueError(
                f"Image {i} has different numbers of objects: {told}. Use None for an object without that"
                " kind of prompt."
            )
        objects.append(next(iter(counts.values()), 1))
    return objects


def _check_objects(name: str, index: int, values: list[Any], size: Size | None) -> list[Any]:
    """Return the prompts of one kind of the objects of an image; raise ValueError if one is invalid."""
    check = _CHECKS[name]
    return [None if value is None else check(value, _locate(name, index, j), size) for j, value in enumerate(values)]


def _check_text(value: Any, place: str, size: Size | None) -> str:
    """Return a text; raise ValueError if it is invalid."""
    if not isinstance(value, str):
        raise ValueError(f"{place} must be a str or None, got {show(value)}: expected {NESTING['text']}.")
    if not value.strip():
        raise ValueError(f"{place} must not be empty, got {show(value)}. Use None for an object without text.")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair
        raise ValueError(f"{place} must be valid Unicode, got {show(value)}.") from error
    return value


def _check_points(value: Any, place: str, size: Size | None) -> list[tuple[float, float]]:
    """Return the points of an object; raise ValueError if they are invalid."""
    if not isinstance(value, list):
        raise ValueError(f"{place} must be a list, got {show(value)}: expected {NESTING['input_points']}.")
    if not value:
        raise ValueError(f"{place} must hold at least one point, got []. Use None for an object without points.")
    height, width = _require_image(size, place)
    points = []
    for k, point in enumerate(value):
        x, y = _check_numbers(point, 2, f"{place}, point {k},", NESTING["input_points"])
        if not (0 <= x <= width and 0 <= y <= height):
            raise ValueError(
                f"{place}, point {k}, is outside the image: (x, y) must satisfy 0 <= x <= {width} and"
                f" 0 <= y <= {height}, got {show(point)}."
            )
        points.append((x, y))
    if height > 1 < width and all(0 < x < 1 and 0 < y < 1 for x, y in points):
        logger.warning_once(_FRACTIONS.format("point"))
    return points


def _check_mask(value: Any, place: str, size: Size | None) -> torch.Tensor:
    """Return a mask as float32 `(height, width)` in [0, 1]; raise ValueError if it is invalid."""
    return load_map(value, _require_image(size, place), place)


def _check_labels(value: Any, place: str, size: Size | None) -> list[int]:
    """Return the labels of an object; raise ValueError if they are invalid."""
    if not isinstance(value, list):
        raise ValueError(f"{place} must be a list, got {show(value)}: expected {NESTING['input_labels']}.")
    for k, label in enumerate(value):
        if not isinstance(label, (bool, int, float)) or label not in (0, 1):
            raise ValueError(f"{place}, point {k}, must be 1 (foreground) or 0 (background), got {show(label)}.")
    return [int(label) for label in value]


def _check_box(value: Any, place: str, size: Size | None) -> tuple[float, float, float, float]:
    """Return the box of an object; raise ValueError if it is invalid."""
    x0, y0, x1, y1 = _check_numbers(value, 4, place, NESTING["input_boxes"])
    height, width = _require_image(size, place)
    if x1 <= x0 or y1 <= y0:
        raise ValueError(f"{place} is empty: must satisfy x0 < x1 and y0 < y1, got {show(value)}.")
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise ValueError(f"{place} does not overlap the image of {width} x {height} pixels, got {show(value)}.")
    if height > 1 < width and x1 <= 1 and y1 <= 1:
        logger.warning_once(_FRACTIONS.format("box"))
    return max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))


def _check_numbers(value: Any, count: int, place: str, expected: str) -> list[float]:
    """Return finite floats; raise ValueError unless there are `count` of them."""
    right = isinstance(value, list) and len(value) == count
    if not right or any(isinstance(each, bool) or not isinstance(each, (int, float)) for each in value):
        raise ValueError(f"{place} must be {count} numbers, got {show(value)}: expected {expected}.")
    try:
        numbers = [float(each) for each in value]
    except OverflowError:
        numbers = [math.inf]
    if not all(math.isfinite(each) for each in numbers):
        raise ValueError(f"{place} must be finite numbers, got NaN or infinity: {show(value)}.")
    return numbers


_CHECKS: dict[str, Callable[[Any, str, Size | None], Any]] = {
    "text": _check_text,
    "input_points": _check_points,
    "input_labels": _check_labels,
    "input_boxes": _check_box,
    "input_masks": _check_mask,
}


def _match_labels(points: list[list[Any]], labels: list[list[Any]] | None) -> list[list[list[int] | None]]:
    """Return the labels of all points: those given, or 1; raise ValueError if their numbers differ."""
    matched = []
    for i, image in enumerate(points):
        row = []
        for j, each in enumerate(image):
            given = None if labels is None else labels[i][j]
            place = _locate("input_labels", i, j)
            if each is None and given is not None:
                raise ValueError(f"{place} must be None, as this object has no points, got {show(given)}.")
            if each is not None and given is not None and len(given) != len(each):
                raise ValueError(f"{place} must hold one label for each of {len(each)} points, got {len(given)}.")
            row.append([1] * len(each) if each is not None and given is None else given)
        matched.append(row)
    return matched


def _require_image(size: Size | None, place: str) -> Size:
    """Return the size of the image; raise ValueError if the sample has none."""
    if size is None:
        raise ValueError(f"{place} must be None for a sample without an image, which can have text only.")
    return size


def _locate(name: str, image: int, index: int) -> str:
    """Return how error messages name the prompt of an object."""
    return f"{name}[{image}][{index}] (image {image}, object {index})"


def show(value: Any) -> str:
    """Return the representation of a value, cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
