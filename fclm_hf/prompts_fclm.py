"""Prompts of a batch: checked, scaled and padded. Plain Python lists in, so that the pipeline can carry them ragged."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch


PADDING_LABEL = -10
PADDING_BOX = (-10.0, -10.0, -10.0, -10.0)

NESTING = {
    "text": "a str, a list with one str (or None) per image, or image > object > str",
    "input_points": "image > object > point > (x, y)",
    "input_labels": "image > object > point",
    "input_boxes": "image > object > (x0, y0, x1, y1)",
}

Size = tuple[int, int]


@dataclass(frozen=True)
class Prompts:
    """
    Checked prompts of a batch. Each kind is None when it was not given, else image > object > value, and a value is
    None where the object has no prompt of that kind.

    Attributes:
        objects: number of objects of each image, at least 1.
        text: str.
        points: list of (x, y) floats. labels: list of 0 / 1, as many as points.
        boxes: (x0, y0, x1, y1) floats.
    """

    objects: list[int]
    text: list[list[str | None]] | None = None
    points: list[list[list[tuple[float, float]] | None]] | None = None
    labels: list[list[list[int] | None]] | None = None
    boxes: list[list[tuple[float, float, float, float] | None]] | None = None


def check_prompts(
    image_sizes: list[Size | None],
    text: Any = None,
    input_points: Any = None,
    input_labels: Any = None,
    input_boxes: Any = None,
) -> Prompts:
    """
    Check the prompts of a batch and bring them to one form.

    Args:
        image_sizes: (height, width) of each image in pixels; None for a sample without an image, which takes text only.
        text: str for every image, list with one per image, or image > object > str.
        input_points: image > object > point > (x, y) in pixels, 0 <= x <= width and 0 <= y <= height.
        input_labels: image > object > point: 1 foreground, 0 background. Points without labels are foreground.
        input_boxes: image > object > (x0, y0, x1, y1) in pixels, inside the image, x0 < x1 and y0 < y1.

        None stands for an image or an object without that kind of prompt. Arrays and tensors are accepted.

    Raises:
        ValueError: names the argument, the image, the object, the value and what is accepted.
    """
    if input_labels is not None and input_points is None:
        raise ValueError("input_labels is given without input_points: each label belongs to a point.")
    count = len(image_sizes)
    kinds: dict[str, list[list[Any] | None]] = {}
    if text is not None:
        kinds["text"] = _split_text(text, count)
    for name, value in (("input_points", input_points), ("input_labels", input_labels), ("input_boxes", input_boxes)):
        if value is not None:
            kinds[name] = _split_objects(name, to_lists(value), count)
    objects = _count_objects(kinds, count)
    for name in kinds:
        kinds[name] = [[None] * n if per is None else per for per, n in zip(kinds[name], objects, strict=True)]
    checks: dict[str, Callable[[Any, str, Size | None], Any]] = {
        "text": _check_text,
        "input_points": _check_points,
        "input_boxes": _check_box,
        "input_labels": _check_labels,
    }
    checked = {
        name: [
            [None if v is None else checks[name](v, f"{name}[{i}][{j}]", image_sizes[i]) for j, v in enumerate(values)]
            for i, values in enumerate(kind)
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
    )


def scale_prompts(prompts: Prompts, original_sizes: list[Size], resized_sizes: list[Size]) -> Prompts:
    """Points and boxes from pixels of the original images, (height, width) each, to pixels of the resized ones."""
    scales = [(w / wo, h / ho) for (ho, wo), (h, w) in zip(original_sizes, resized_sizes, strict=True)]
    points = prompts.points and [
        [None if each is None else [(x * sx, y * sy) for x, y in each] for each in image]
        for image, (sx, sy) in zip(prompts.points, scales, strict=True)
    ]
    boxes = prompts.boxes and [
        [None if box is None else (box[0] * sx, box[1] * sy, box[2] * sx, box[3] * sy) for box in image]
        for image, (sx, sy) in zip(prompts.boxes, scales, strict=True)
    ]
    return replace(prompts, points=points, boxes=boxes)


def pad_prompts(prompts: Prompts) -> dict[str, torch.Tensor]:
    """
    Points, labels and boxes as tensors, padded to the largest number of objects N and of points P in the batch.

    Returns:
        input_points float32 (B, N, P, 2) and input_labels int64 (B, N, P) with -10 for padding, when points are given;
        input_boxes float32 (B, N, 4), -10 for an absent one, when boxes are given; object_mask bool (B, N), False for
        padding objects, when the images have different numbers of objects.
    """
    batch, most = len(prompts.objects), max(prompts.objects)
    data = {}
    if prompts.points is not None and prompts.labels is not None:
        longest = max([1, *(len(each) for image in prompts.points for each in image if each)])
        points = np.zeros((batch, most, longest, 2), dtype=np.float32)
        labels = np.full((batch, most, longest), PADDING_LABEL, dtype=np.int64)
        for i, image in enumerate(prompts.points):
            for j, each in enumerate(image):
                if each:
                    points[i, j, : len(each)] = each
                    labels[i, j, : len(each)] = prompts.labels[i][j]
        data["input_points"], data["input_labels"] = torch.from_numpy(points), torch.from_numpy(labels)
    if prompts.boxes is not None:
        boxes = np.full((batch, most, 4), PADDING_BOX, dtype=np.float32)
        for i, image in enumerate(prompts.boxes):
            for j, box in enumerate(image):
                if box is not None:
                    corners = np.asarray(box, dtype=np.float32)
                    # a thin box must not vanish when it is rounded: the model takes an empty box for an absent one
                    corners[2:] = np.maximum(corners[2:], np.nextafter(corners[:2], np.float32(np.inf)))
                    boxes[i, j] = corners
        data["input_boxes"] = torch.from_numpy(boxes)
    if len(set(prompts.objects)) > 1:
        data["object_mask"] = torch.arange(most)[None] < torch.tensor(prompts.objects)[:, None]
    return data


def has_flat_text(text: Any) -> bool:
    """Whether `text` names one object per image without an object level: a str, or a list of str and None."""
    return not any(isinstance(each, (list, tuple)) for each in to_lists(text)) if not isinstance(text, str) else True


def to_lists(value: Any) -> Any:
    """Arrays, tensors and tuples inside `value` as lists, their numbers as Python numbers."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().tolist()
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [to_lists(each) for each in value]
    return value


def _split_text(text: Any, count: int) -> list[list[Any] | None]:
    if isinstance(text, str):
        return [[text] for _ in range(count)]
    images = to_lists(text)
    if isinstance(images, list) and len(images) != count and all(isinstance(each, str) for each in images):
        raise ValueError(
            f"text holds {len(images)} texts, but there are {count} images: accepted are {NESTING['text']}; several"
            f" objects of one image are [{images!r}]."
        )
    if isinstance(images, list):
        images = [[each] if isinstance(each, str) else each for each in images]
    return _split_objects("text", images, count)


def _split_objects(name: str, images: Any, count: int) -> list[list[Any] | None]:
    accepted = f"accepted is {NESTING[name]}, with None for what is absent"
    if not isinstance(images, list):
        raise ValueError(f"{name} is {_show(images)}: {accepted}.")
    if len(images) != count:
        raise ValueError(f"{name} holds prompts for {len(images)} images, but there are {count} images: {accepted}.")
    for i, objects in enumerate(images):
        if objects is not None and not isinstance(objects, list):
            raise ValueError(f"{name}[{i}] (image {i}) is {_show(objects)}, not a list of objects: {accepted}.")
        if objects == []:
            raise ValueError(f"{name}[{i}] (image {i}) holds no object: {accepted}.")
    return images


def _count_objects(kinds: dict[str, list[list[Any] | None]], count: int) -> list[int]:
    objects = []
    for i in range(count):
        counts = {name: len(kind[i]) for name, kind in kinds.items() if kind[i] is not None}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{n} in {name}" for name, n in counts.items())
            raise ValueError(f"Image {i} has different numbers of objects: {told}. Use None where an object has none.")
        objects.append(next(iter(counts.values()), 1))
    return objects


def _check_text(value: Any, name: str, size: Size | None) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_locate(name)} must be a str or None, got {_show(value)}: accepted is {NESTING['text']}.")
    if not value.strip():
        raise ValueError(f"{_locate(name)} is empty: {_show(value)}. Use None for an object without text.")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair
        raise ValueError(f"{_locate(name)} is no valid Unicode: {_show(value)}.") from error
    return value


def _check_points(value: Any, name: str, size: Size | None) -> list[tuple[float, float]]:
    if not isinstance(value, list):
        raise ValueError(f"{_locate(name)} is {_show(value)}: accepted is {NESTING['input_points']}.")
    if not value:
        raise ValueError(f"{_locate(name)} holds no point. Use None for an object without points.")
    height, width = _require_image(size, name)
    points = []
    for k, point in enumerate(value):
        place = f"{_locate(name)}, point {k},"
        x, y = _check_numbers(point, 2, place, NESTING["input_points"])
        if not (0 <= x <= width and 0 <= y <= height):
            raise ValueError(
                f"{place} is outside the image: (x, y) = {_show(point)}, accepted are"
                f" 0 <= x <= {width} and 0 <= y <= {height}."
            )
        points.append((x, y))
    return points


def _check_labels(value: Any, name: str, size: Size | None) -> list[int]:
    if not isinstance(value, list):
        raise ValueError(f"{_locate(name)} is {_show(value)}: accepted is {NESTING['input_labels']}.")
    for k, label in enumerate(value):
        if not isinstance(label, (bool, int, float)) or label not in (0, 1):
            raise ValueError(
                f"{_locate(name)}, point {k}, is {_show(label)}, accepted are 1 (foreground) and 0 (background)."
            )
    return [int(label) for label in value]


def _check_box(value: Any, name: str, size: Size | None) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = _check_numbers(value, 4, _locate(name), NESTING["input_boxes"])
    height, width = _require_image(size, name)
    if x1 <= x0 or y1 <= y0:
        raise ValueError(f"{_locate(name)} is empty: {_show(value)}, accepted are (x0, y0, x1, y1), x0 < x1, y0 < y1.")
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise ValueError(
            f"{_locate(name)} is outside the image: {_show(value)}, accepted are"
            f" 0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= {height}."
        )
    return x0, y0, x1, y1


def _check_numbers(value: Any, count: int, place: str, accepted: str) -> list[float]:
    right = isinstance(value, list) and len(value) == count
    if not right or any(isinstance(each, bool) or not isinstance(each, (int, float)) for each in value):
        raise ValueError(f"{place} must be {count} numbers, got {_show(value)}: accepted is {accepted}.")
    try:
        numbers = [float(each) for each in value]
    except OverflowError:
        numbers = [math.inf]
    if not all(math.isfinite(each) for each in numbers):
        raise ValueError(f"{place} holds NaN or infinite numbers: {_show(value)}, accepted are finite ones.")
    return numbers


def _match_labels(points: list[list[Any]], labels: list[list[Any]] | None) -> list[list[list[int] | None]]:
    matched = []
    for i, image in enumerate(points):
        row = []
        for j, each in enumerate(image):
            given = None if labels is None else labels[i][j]
            name = f"input_labels[{i}][{j}]"
            if each is None and given is not None:
                raise ValueError(f"{_locate(name)} is {_show(given)}, but this object has no points.")
            if each is not None and given is not None and len(given) != len(each):
                raise ValueError(f"{_locate(name)} holds {len(given)} labels, but this object has {len(each)} points.")
            row.append([1] * len(each) if each is not None and given is None else given)
        matched.append(row)
    return matched


def _require_image(size: Size | None, name: str) -> Size:
    if size is None:
        raise ValueError(f"{_locate(name)} is given for a sample without an image, which takes text only.")
    return size


def _locate(name: str) -> str:
    """`input_boxes[0][1]` with its indices spelled out."""
    image, object_ = name.replace("]", "").split("[")[1:3]
    return f"{name} (image {image}, object {object_})"


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
