"""Processor of FCLM: images, texts, points and boxes to model inputs."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from transformers import BatchFeature
from transformers.image_utils import ImageInput
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, Unpack
from transformers.utils import logging

from .configuration_fclm import PROCESSOR_CLASSES, PROMPT_PADDING, copy_code, keep_present
from .image_processing_base_fclm import load_map, load_segmentation_maps, resize_mask
from .image_utils_fclm import find_image_size, flatten_images


if TYPE_CHECKING:  # of remote code, transformers fetches and saves the files that are named here, too
    from .image_processing_fclm import FCLMImageProcessor  # noqa: F401
    from .image_processing_pil_fclm import FCLMImageProcessorPil  # noqa: F401

NESTING = {
    "text": "a str, a list with one str (or None) per image, or image > object > str",
    "input_points": "image > object > point > (x, y)",
    "input_labels": "image > object > point",
    "input_boxes": "image > object > (x0, y0, x1, y1)",
    "input_masks": "image > object > mask",
}
PADDING_MASK = -1.0

logger = logging.get_logger(__name__)

_TOKENS = ("input_ids", "attention_mask")

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
    for name, value in (("input_points", input_points), ("input_labels", input_labels), ("input_boxes", input_boxes)):
        if value is not None:
            kinds[name] = _split_objects(name, to_lists(value), count)
    if input_masks is not None:
        kinds["input_masks"] = _split_objects("input_masks", _list_masks(input_masks), count)
    if isinstance(text, str):  # for all objects there are, and an image may have none
        bare = [any(kind[i] == [] for name, kind in kinds.items() if name != "text") for i in range(count)]
        kinds["text"] = [[] if empty else each for each, empty in zip(kinds["text"], bare, strict=True)]
    objects = _count_objects(kinds, count)
    for name in kinds:
        kinds[name] = [[None] * n if per is None else per for per, n in zip(kinds[name], objects, strict=True)]
    checks: dict[str, Callable[[Any, str, Size | None], Any]] = {
        "text": _check_text,
        "input_points": _check_points,
        "input_boxes": _check_box,
        "input_labels": _check_labels,
        "input_masks": _check_mask,
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
    """Convert arrays, tensors and tuples inside `value` to lists, and their numbers to Python numbers."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().tolist()
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, (list, tuple)):
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
        raise ValueError(f"{name} must be a list, got {_show(images)}: {expected}.")
    if len(images) != count:
        raise ValueError(f"{name} must hold prompts for {count} images, got {len(images)}: {expected}.")
    for i, objects in enumerate(images):
        if objects is not None and not isinstance(objects, list):
            raise ValueError(f"{name}[{i}] (image {i}) must be a list of objects, got {_show(objects)}: {expected}.")
    return images


def _list_masks(masks: Any) -> Any:
    """Return image > object as lists, with the masks as they are."""
    if isinstance(masks, (np.ndarray, torch.Tensor)) and masks.ndim == 4:
        masks = list(masks)
    if not isinstance(masks, (list, tuple)):
        return masks
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


def _check_text(value: Any, name: str, size: Size | None) -> str:
    """Return a text; raise ValueError if it is invalid."""
    if not isinstance(value, str):
        raise ValueError(f"{_locate(name)} must be a str or None, got {_show(value)}: expected {NESTING['text']}.")
    if not value.strip():
        raise ValueError(f"{_locate(name)} must not be empty, got {_show(value)}. Use None for an object without text.")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair
        raise ValueError(f"{_locate(name)} must be valid Unicode, got {_show(value)}.") from error
    return value


def _check_points(value: Any, name: str, size: Size | None) -> list[tuple[float, float]]:
    """Return the points of an object; raise ValueError if they are invalid."""
    if not isinstance(value, list):
        raise ValueError(f"{_locate(name)} must be a list, got {_show(value)}: expected {NESTING['input_points']}.")
    if not value:
        raise ValueError(
            f"{_locate(name)} must hold at least one point, got []. Use None for an object without points."
        )
    height, width = _require_image(size, name)
    points = []
    for k, point in enumerate(value):
        place = f"{_locate(name)}, point {k},"
        x, y = _check_numbers(point, 2, place, NESTING["input_points"])
        if not (0 <= x <= width and 0 <= y <= height):
            raise ValueError(
                f"{place} is outside the image: (x, y) must satisfy 0 <= x <= {width} and 0 <= y <= {height},"
                f" got {_show(point)}."
            )
        points.append((x, y))
    return points


def _check_mask(value: Any, name: str, size: Size | None) -> torch.Tensor:
    """Return a mask as float32 `(height, width)` in [0, 1]; raise ValueError if it is invalid."""
    return load_map(value, _require_image(size, name), _locate(name))


def _check_labels(value: Any, name: str, size: Size | None) -> list[int]:
    """Return the labels of an object; raise ValueError if they are invalid."""
    if not isinstance(value, list):
        raise ValueError(f"{_locate(name)} must be a list, got {_show(value)}: expected {NESTING['input_labels']}.")
    for k, label in enumerate(value):
        if not isinstance(label, (bool, int, float)) or label not in (0, 1):
            raise ValueError(
                f"{_locate(name)}, point {k}, must be 1 (foreground) or 0 (background), got {_show(label)}."
            )
    return [int(label) for label in value]


def _check_box(value: Any, name: str, size: Size | None) -> tuple[float, float, float, float]:
    """Return the box of an object; raise ValueError if it is invalid."""
    x0, y0, x1, y1 = _check_numbers(value, 4, _locate(name), NESTING["input_boxes"])
    height, width = _require_image(size, name)
    if x1 <= x0 or y1 <= y0:
        raise ValueError(f"{_locate(name)} is empty: must satisfy x0 < x1 and y0 < y1, got {_show(value)}.")
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise ValueError(
            f"{_locate(name)} does not overlap the image of {width} x {height} pixels, got {_show(value)}."
        )
    return max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))


def _check_numbers(value: Any, count: int, place: str, expected: str) -> list[float]:
    """Return finite floats; raise ValueError unless there are `count` of them."""
    right = isinstance(value, list) and len(value) == count
    if not right or any(isinstance(each, bool) or not isinstance(each, (int, float)) for each in value):
        raise ValueError(f"{place} must be {count} numbers, got {_show(value)}: expected {expected}.")
    try:
        numbers = [float(each) for each in value]
    except OverflowError:
        numbers = [math.inf]
    if not all(math.isfinite(each) for each in numbers):
        raise ValueError(f"{place} must be finite numbers, got NaN or infinity: {_show(value)}.")
    return numbers


def _match_labels(points: list[list[Any]], labels: list[list[Any]] | None) -> list[list[list[int] | None]]:
    """Return the labels of all points: those given, or 1; raise ValueError if their numbers differ."""
    matched = []
    for i, image in enumerate(points):
        row = []
        for j, each in enumerate(image):
            given = None if labels is None else labels[i][j]
            name = f"input_labels[{i}][{j}]"
            if each is None and given is not None:
                raise ValueError(f"{_locate(name)} must be None, as this object has no points, got {_show(given)}.")
            if each is not None and given is not None and len(given) != len(each):
                raise ValueError(
                    f"{_locate(name)} must hold one label for each of {len(each)} points, got {len(given)}."
                )
            row.append([1] * len(each) if each is not None and given is None else given)
        matched.append(row)
    return matched


def _require_image(size: Size | None, name: str) -> Size:
    """Return the size of the image; raise ValueError if the sample has none."""
    if size is None:
        raise ValueError(f"{_locate(name)} must be None for a sample without an image, which can have text only.")
    return size


def _locate(name: str) -> str:
    """Spell out the indices of a name such as `input_boxes[0][1]`."""
    image, object_ = name.replace("]", "").split("[")[1:3]
    return f"{name} (image {image}, object {object_})"


def _show(value: Any) -> str:
    """Return the representation of a value, cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


class FCLMProcessorKwargs(ProcessingKwargs, total=False):
    """Settings of the image processor and the tokenizer; FCLM has no others."""


class FCLMBatchFeature(BatchFeature):
    """Output of [`FCLMProcessor`]; `to(dtype)` casts `pixel_values` only, as bfloat16 rounds coordinates above 256."""

    def to(self, *args: Any, **kwargs: Any) -> "FCLMBatchFeature":
        """Move all values to a device, and cast `pixel_values` to a dtype; see `BatchFeature.to`."""
        exact = {
            name: value
            for name, value in self.items()
            if name != "pixel_values" and isinstance(value, torch.Tensor) and value.is_floating_point()
        }
        super().to(*args, **kwargs)
        self.data.update({name: value.to(self.data[name].device) for name, value in exact.items()})
        return self


class FCLMProcessor(ProcessorMixin):
    """Processor of FCLM, which combines an image processor and a CLIP tokenizer.

    Args:
        image_processor ([`FCLMImageProcessor`] or [`FCLMImageProcessorPil`]): The image processor.
        tokenizer (`CLIPTokenizer`): The tokenizer of the texts.

    Example:
        >>> import numpy as np
        >>> from fclm_hf import LITE_CHECKPOINT, FCLMProcessor
        >>> processor = FCLMProcessor.from_pretrained(LITE_CHECKPOINT)
        >>> photo = np.zeros((64, 96, 3), dtype=np.uint8)
        >>> inputs = processor(photo, text=[["a cat", None]], input_boxes=[[None, [10, 20, 50, 60]]])
        >>> inputs["pixel_values"].shape
        torch.Size([1, 3, 64, 96])
        >>> inputs["input_boxes"]  # -10 for the object without a box
        tensor([[[-10., -10., -10., -10.],
                 [ 10.,  20.,  50.,  60.]]])
        >>> inputs["attention_mask"].any(-1)  # all 0 for the object without a text
        tensor([[ True, False]])
    """

    valid_processor_kwargs = FCLMProcessorKwargs
    text_kwargs: ClassVar[dict[str, bool]] = {"padding": True, "truncation": True}

    def __init__(self, image_processor: Any, tokenizer: Any) -> None:
        super().__init__(image_processor, tokenizer)

    def __call__(
        self,
        images: ImageInput | None = None,
        text: str | list[Any] | None = None,
        input_points: Any = None,
        input_labels: Any = None,
        input_boxes: Any = None,
        segmentation_maps: Any = None,
        input_masks: Any = None,
        **kwargs: Unpack[FCLMProcessorKwargs],
    ) -> BatchFeature:
        """Prepare images, prompts and ground-truth alphas for the model.

        All coordinates are pixels of the original images, with (0, 0) at the top left. None stands for an image or an
        object without that kind of prompt. Without any prompt, the model mattes the salient object. Prompts may be
        lists, arrays or tensors.

        Args:
            images: An image (URL, path, bytes, open file, base64 string, PIL image, array or tensor), a list of images,
                or a list of lists of images, one per sample. Without images, the outputs are those of the tokenizer.
            text: What to matte: a `str` for every image, a list with one `str` per image, or nested as image > object >
                `str`.
            input_points: Clicks, nested as image > object > point > (x, y), with 0 <= x <= width and 0 <= y <= height.
            input_labels: Labels of the clicks, nested as image > object > point: 1 for the foreground, 0 for the
                background. Defaults to all 1.
            input_boxes: Boxes, nested as image > object > (x0, y0, x1, y1), with x0 < x1 and y0 < y1. What lies outside
                the image is cut off. An image with an empty list, or an array of shape (0, 4), has no objects.
            segmentation_maps: Ground-truth alphas, nested as image > object > map, or one map per image. A map has the
                height and width of its image; uint8 or PIL in [0, 255], uint16 in [0, 65535], float in [0, 1], or bool.
            input_masks: Rough masks, trimaps (0, 128 and 255 only) or earlier mattes, nested as image > object > mask;
                in the forms that segmentation maps have.
            kwargs: Settings of the image processor (`size`, `size_divisor`, ...) and the tokenizer (`padding`, ...) for
                this call, and `return_tensors`, "pt" (the default) or "np".

        Returns:
            `BatchFeature` with the following values, each only if there is something to put into it:

            - **pixel_values** (`torch.FloatTensor` of shape `(batch_size, 3, height, width)`): Normalized pixels.
            - **pixel_mask** (`torch.LongTensor` of shape `(batch_size, height, width)`): 1 on the image, 0 on padding.
            - **original_sizes** (`torch.LongTensor` of shape `(batch_size, 2)`): Height and width of the images given.
            - **input_points** (`torch.FloatTensor` of shape `(batch_size, num_objects, num_points, 2)`): Clicks in
              pixels of `pixel_values`.
            - **input_labels** (`torch.LongTensor` of shape `(batch_size, num_objects, num_points)`): Labels of the
              clicks, -10 for padding.
            - **input_boxes** (`torch.FloatTensor` of shape `(batch_size, num_objects, 4)`): Boxes in pixels of
              `pixel_values`, -10 for absent ones.
            - **input_masks** (`torch.FloatTensor` of shape `(batch_size, num_objects, mask_height, mask_width)`): Masks
              in [0, 1] in pixels of `pixel_values`, -1 on padding and everywhere for absent ones.
            - **input_ids** and **attention_mask** (`torch.LongTensor` of shape `(batch_size, num_objects, length)`, or
              `(batch_size, length)` if `text` is the only prompt and has no object level): Tokens of the texts. The
              attention mask of an object without text is all 0.
            - **object_mask** (`torch.BoolTensor` of shape `(batch_size, num_objects)`): False for padding objects, if
              the images have different numbers of objects, or an image has none.
            - **labels** (`torch.FloatTensor` of shape `(batch_size, num_objects, height, width)`): The segmentation
              maps, in [0, 1].

        Raises:
            ValueError: If an image cannot be read or a prompt is invalid; the message names the argument, image and
                object.
        """
        merged = self._merge_kwargs(tokenizer_init_kwargs=self.tokenizer.init_kwargs, **_default_to_tensors(kwargs))
        image_kwargs, text_kwargs = merged["images_kwargs"], merged["text_kwargs"]
        if images is None:
            given = {
                "input_points": input_points,
                "input_labels": input_labels,
                "input_boxes": input_boxes,
                "segmentation_maps": segmentation_maps,
                "input_masks": input_masks,
            }
            if lonely := [name for name, value in given.items() if value is not None]:
                raise ValueError(f"{', '.join(lonely)} must come with images, got images=None.")
            if text is None:
                raise ValueError("images or text must be given, got None for both.")
            return BatchFeature(dict(self.tokenizer(text, **text_kwargs)))

        samples = flatten_images(self.image_processor.fetch_images(images))
        layout = image_kwargs.get("input_data_format")
        sizes = [None if s is None else find_image_size(s, f"image {i}", layout) for i, s in enumerate(samples)]
        prompts = check_prompts(sizes, text, input_points, input_labels, input_boxes, input_masks)
        original_sizes = [size for size in sizes if size is not None]
        if segmentation_maps is not None:
            if len(original_sizes) < len(sizes):
                raise ValueError(
                    "segmentation_maps must be None with samples without an image, which can have text only."
                )
            segmentation_maps = load_segmentation_maps(segmentation_maps, original_sizes)
            _check_map_counts(segmentation_maps, prompts)

        return_tensors = image_kwargs.pop("return_tensors")
        features = self.image_processor(
            [sample for sample in samples if sample is not None],
            segmentation_maps=segmentation_maps,
            return_tensors="pt",
            **image_kwargs,
        )
        if len(original_sizes) == len(sizes):
            mask = features["pixel_mask"]
            resized_sizes = torch.stack([mask[:, :, 0].sum(1), mask[:, 0].sum(1)], dim=1).tolist()
            prompts = scale_prompts(prompts, original_sizes, resized_sizes)
        encoded = self._encode(prompts, text_kwargs)
        has_text_only = prompts.text is not None and prompts.points is prompts.boxes is prompts.masks is None
        if has_text_only and has_flat_text(text):
            encoded = {name: values[:, 0] if name in _TOKENS else values for name, values in encoded.items()}
        features.update(encoded)
        if getattr(return_tensors, "value", return_tensors) == "np":
            return FCLMBatchFeature({name: values.cpu().numpy() for name, values in features.items()})
        return FCLMBatchFeature(dict(features))

    def encode_prompts(
        self,
        original_sizes: list[Size],
        resized_sizes: list[Size],
        text: str | list[Any] | None = None,
        input_points: Any = None,
        input_labels: Any = None,
        input_boxes: Any = None,
        input_masks: Any = None,
    ) -> dict[str, torch.Tensor]:
        """Prepare prompts for images that have been processed already, to matte more of their objects.

        Args:
            original_sizes (`list[tuple[int, int]]`): Height and width of each original image.
            resized_sizes (`list[tuple[int, int]]`): Height and width of each image in `pixel_values`, without padding:
                `image_sizes` of [`FCLMImageEmbeddings`].
            text: See [`__call__`], as for the following arguments.
            input_points: Nested as image > object > point > (x, y), in pixels of the original images.
            input_labels: Nested as image > object > point.
            input_boxes: Nested as image > object > (x0, y0, x1, y1), in pixels of the original images.
            input_masks: Nested as image > object > mask, of the size of the original images.

        Returns:
            The prompts in the outputs of [`__call__`]; the tokens of texts always have an object level.

        Raises:
            ValueError: If a prompt is invalid.
        """
        prompts = check_prompts(original_sizes, text, input_points, input_labels, input_boxes, input_masks)
        text_kwargs = self._merge_kwargs(tokenizer_init_kwargs=self.tokenizer.init_kwargs)["text_kwargs"]
        return self._encode(scale_prompts(prompts, original_sizes, resized_sizes), text_kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a dict; those of an export name its code."""
        output = super().to_dict()
        if self._has_code():
            output["auto_map"] = keep_present(PROCESSOR_CLASSES)
        return output

    def to_json_file(self, json_file_path: str | os.PathLike, **kwargs: Any) -> None:
        """Save to a JSON file, and the code of an export beside it."""
        super().to_json_file(json_file_path, **kwargs)
        if self._has_code():
            copy_code(Path(json_file_path).parent)

    def _has_code(self) -> bool:
        """Return whether it was loaded from an export; the image processor keeps what the processor forgets."""
        return bool(getattr(self, "auto_map", None) or getattr(self.image_processor, "auto_map", None))

    def post_process_image_matting(self, outputs: Any, target_sizes: Any = None) -> list[dict[str, torch.Tensor]]:
        """Undo the padding and resizing of predicted alphas.

        Args:
            outputs ([`FCLMImageMattingOutput`] or `dict`): Outputs of the model, see
                [`FCLMImageProcessor.post_process_image_matting`].
            target_sizes (`torch.Tensor` of shape `(batch_size, 2)` or `list[tuple[int, int]]`, *optional*): Height and
                width of the original images.

        Returns:
            For each image a dict with `alpha`, a `torch.FloatTensor` of shape `(num_objects, height, width)` in [0, 1].
        """
        return self.image_processor.post_process_image_matting(outputs, target_sizes)

    def _encode(self, prompts: Prompts, text_kwargs: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Return prompts in pixels of the resized images as tensors."""
        return pad_prompts(prompts) | ({} if prompts.text is None else self._tokenize(prompts, text_kwargs))

    def _tokenize(self, prompts: Prompts, text_kwargs: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Return `input_ids` and `attention_mask`, each of shape `(batch_size, num_objects, length)`."""
        places = [(i, j) for i, image in enumerate(prompts.text) for j, each in enumerate(image) if each is not None]
        rows: list[list[int]] = []
        masks: list[list[int]] = []
        if places:
            texts = [prompts.text[i][j] for i, j in places]
            try:
                encoded = self.tokenizer(
                    texts, **{**text_kwargs, "return_tensors": None, "return_attention_mask": True}
                )
                rows, masks = encoded["input_ids"], encoded["attention_mask"]
                self._report_truncation(texts, masks)
            except BaseException as error:  # whatever a broken tokenizer file makes it raise
                if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # that of Rust
                    raise
                raise ValueError(f"text: the tokenizer has failed: {type(error).__name__}: {error}") from error
        length = max([1, *(len(row) for row in rows)])
        shape = len(prompts.objects), prompts.padded_objects, length
        input_ids = torch.full(shape, self.tokenizer.pad_token_id or 0, dtype=torch.int64)
        attention_mask = torch.zeros(shape, dtype=torch.int64)
        for (i, j), row, mask in zip(places, rows, masks, strict=True):
            input_ids[i, j, : len(row)] = torch.tensor(row)
            attention_mask[i, j, : len(row)] = torch.tensor(mask)
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def _report_truncation(self, texts: list[str], masks: list[list[int]]) -> None:
        """Warn of texts of which the tokenizer has kept the beginning only."""
        for text, mask in zip(texts, masks, strict=True):
            kept = sum(mask)
            if kept >= self.tokenizer.model_max_length:
                tokens = len(self.tokenizer(text, truncation=False, verbose=False)["input_ids"])
                if tokens > kept:
                    logger.warning(f"Only the first {kept} of {tokens} tokens of a text are used: {_show(text)}.")


def _default_to_tensors(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Add `return_tensors="pt"` unless it is set in any place that transformers looks at."""
    places = (kwargs, *(kwargs.get(name) or {} for name in ("common_kwargs", "images_kwargs", "text_kwargs")))
    return kwargs if any("return_tensors" in place for place in places) else {**kwargs, "return_tensors": "pt"}


def _check_map_counts(maps: list[torch.Tensor], prompts: Prompts) -> None:
    """Raise ValueError unless each image has as many maps as objects."""
    for index, (members, objects) in enumerate(zip(maps, prompts.objects, strict=True)):
        if len(members) != objects:
            raise ValueError(
                f"segmentation_maps[{index}] (image {index}) must hold one map for each of the {objects} objects that"
                f" its prompts name (one without a prompt), got {len(members)}."
            )


__all__ = [
    "FCLMProcessor",
]
