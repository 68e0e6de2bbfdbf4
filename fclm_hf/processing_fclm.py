"""Processor of FCLM: images, texts, points, boxes and masks to model inputs."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature
from transformers.image_utils import ImageInput
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, Unpack

from .image_processing_base_fclm import load_map, load_segmentation_maps, resize_mask
from .image_utils_fclm import find_image_size, flatten_images


PADDING_LABEL = -10


PADDING_MASK = -1.0


PADDING_BOX = (-10.0, -10.0, -10.0, -10.0)


NESTING = {
    "text": "a str, a list with one str (or None) per image, or image > object > str",
    "input_points": "image > object > point > (x, y)",
    "input_labels": "image > object > point",
    "input_boxes": "image > object > (x0, y0, x1, y1)",
    "input_masks": "image > object > mask (height, width)",
}


Size = tuple[int, int]


@dataclass(frozen=True)
class Prompts:
    """Checked prompts of a batch. Each kind is None when it was not given, else image > object > value, and a value is
    None where the object has no prompt of that kind.

    Attributes:
        objects: number of objects of each image, at least 1.
        text: str.
        points: list of (x, y) floats. labels: list of 0 / 1, as many as points.
        boxes: (x0, y0, x1, y1) floats.
        masks: float32 (height, width) of the image, in [0, 1].
    """

    objects: list[int]
    text: list[list[str | None]] | None = None
    points: list[list[list[tuple[float, float]] | None]] | None = None
    labels: list[list[list[int] | None]] | None = None
    boxes: list[list[tuple[float, float, float, float] | None]] | None = None
    masks: list[list[torch.Tensor | None]] | None = None


def check_prompts(
    image_sizes: list[Size | None],
    text: Any = None,
    input_points: Any = None,
    input_labels: Any = None,
    input_boxes: Any = None,
    input_masks: Any = None,
) -> Prompts:
    """Check the prompts of a batch and bring them to one form.

    Args:
        image_sizes: (height, width) of each image in pixels; None for a sample without an image, which takes text only.
        text: str for every image, list with one per image, or image > object > str.
        input_points: image > object > point > (x, y) in pixels, 0 <= x <= width and 0 <= y <= height.
        input_labels: image > object > point: 1 foreground, 0 background. Points without labels are foreground.
        input_boxes: image > object > (x0, y0, x1, y1) in pixels, inside the image, x0 < x1 and y0 < y1.
        input_masks: image > object > mask of the image's size.

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
    if input_masks is not None:
        kinds["input_masks"] = _split_objects("input_masks", _list_masks(input_masks), count)
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
    """Points, boxes and masks from pixels of the original images, (height, width) each, to those of the resized ones."""
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
    """Points, labels and boxes as tensors, padded to the largest number of objects N and of points P in the batch.

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


def pad_masks(masks: list[list[torch.Tensor | None]], size: Size) -> torch.Tensor:
    """Stack mask prompts, image > object > mask, as float32 (B, N, height, width); -1 on padding and absent masks."""
    padded = torch.full((len(masks), max(map(len, masks)), *size), PADDING_MASK)
    for i, image in enumerate(masks):
        for j, mask in enumerate(image):
            if mask is not None:
                padded[i, j, : mask.shape[0], : mask.shape[1]] = mask
    return padded


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


def _list_masks(masks: Any) -> Any:
    """Image > object as lists; the masks themselves stay as they are."""
    if isinstance(masks, (np.ndarray, torch.Tensor)) and masks.ndim == 4:
        masks = list(masks)
    if not isinstance(masks, (list, tuple)):
        return masks
    is_stack = [isinstance(each, (np.ndarray, torch.Tensor)) and each.ndim == 3 for each in masks]
    return [
        list(each) if stack or isinstance(each, (list, tuple)) else each
        for each, stack in zip(masks, is_stack, strict=True)
    ]


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


def _check_mask(value: Any, name: str, size: Size | None) -> torch.Tensor:
    return load_map(value, _require_image(size, name), _locate(name))


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


class FCLMProcessorKwargs(ProcessingKwargs, total=False):
    """Arguments of the image processor and of the tokenizer; FCLM has no others."""


class FCLMBatchFeature(BatchFeature):
    """What [`FCLMProcessor`] gives: `to(dtype)` casts only pixel_values, as bfloat16 rounds coordinates beyond 256."""

    def to(self, *args: Any, **kwargs: Any) -> "FCLMBatchFeature":
        """See `BatchFeature.to`."""
        exact = {
            name: value
            for name, value in self.items()
            if name != "pixel_values" and isinstance(value, torch.Tensor) and value.is_floating_point()
        }
        super().to(*args, **kwargs)
        self.data.update({name: value.to(self.data[name].device) for name, value in exact.items()})
        return self


class FCLMProcessor(ProcessorMixin):
    """Image processor and CLIP tokenizer of FCLM in one.

    Args:
        image_processor: [`FCLMImageProcessor`] or [`FCLMImageProcessorPil`].
        tokenizer: `CLIPTokenizer`.
    """

    valid_processor_kwargs = FCLMProcessorKwargs
    text_kwargs = {"padding": True, "truncation": True}

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
        """All coordinates are pixels of the original images, (0, 0) at the top left. `None` may stand for an image or an
        object that lacks a kind of prompt; without any prompt the model mattes the salient object.

        Args:
            images: an image (URL, path, bytes, open file, PIL image, array, tensor), or a list of images. Without
                images, `text` alone gives the tokenizer's own output.
            text: str for every image, list with one per image, or image > object > str.
            input_points: image > object > point > (x, y), inside the image.
            input_labels: image > object > point: 1 foreground (the default), 0 background.
            input_boxes: image > object > (x0, y0, x1, y1), inside the image, x0 < x1 and y0 < y1.
            segmentation_maps: ground-truth alphas, image > object > map, or one map per image, of the image's size;
                uint8 or PIL in 0..255, uint16, float in 0..1, bool.
            input_masks: image > object > rough mask, trimap (0, 128 and 255 only) or earlier matte, of the image's
                size; read as segmentation_maps are.
            return_tensors (`str`, defaults to `"pt"`): "pt" or "np".
            kwargs: of the image processor (`size`, `size_divisor`, ...) and of the tokenizer (`padding`, ...).

        Returns:
            `BatchFeature` for B images with at most N objects:

            - pixel_values float32 (B, 3, H, W); pixel_mask int64 (B, H, W): 0 on padding;
              original_sizes int64 (B, 2): height, width.
            - input_points float32 (B, N, P, 2) and input_boxes float32 (B, N, 4) in pixels of pixel_values;
              input_labels int64 (B, N, P): -10 for padding points. An absent box is four times -10.
            - input_ids, attention_mask int64 (B, N, L); (B, L) when one text per image, not nested, is the only prompt.
              An object without text has an attention_mask of zeros.
            - object_mask bool (B, N), False for padding, when the images have different numbers of objects.
            - labels float32 (B, N, H, W) in [0, 1].
            - input_masks float32 (B, N, H, W) in [0, 1], -1 on padding and everywhere where there is none.

            Keys of what is not given are absent.

        Raises:
            ValueError: an image cannot be read, or a prompt is not accepted; names the argument, image and object.
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
                raise ValueError(f"{', '.join(lonely)}: given without images.")
            if text is None:
                raise ValueError("Give images, text or both.")
            return BatchFeature(dict(self.tokenizer(text, **text_kwargs)))

        samples = flatten_images(self.image_processor.fetch_images(images))
        layout = image_kwargs.get("input_data_format")
        sizes = [None if s is None else find_image_size(s, f"image {i}", layout) for i, s in enumerate(samples)]
        prompts = check_prompts(sizes, text, input_points, input_labels, input_boxes, input_masks)
        original_sizes = [size for size in sizes if size is not None]
        if segmentation_maps is not None:
            if len(original_sizes) < len(sizes):
                raise ValueError("segmentation_maps is given for samples without an image, which take text only.")
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
            prompts = scale_prompts(prompts, original_sizes, [(height, width) for height, width in resized_sizes])
        features.update(pad_prompts(prompts))
        if prompts.masks is not None:
            features["input_masks"] = pad_masks(prompts.masks, tuple(features["pixel_values"].shape[-2:]))
        if prompts.text is not None:
            tokens = self._tokenize(prompts, text_kwargs)
            if has_flat_text(text) and prompts.points is prompts.boxes is prompts.masks is None:
                tokens = {name: values[:, 0] for name, values in tokens.items()}
            features.update(tokens)
        if getattr(return_tensors, "value", return_tensors) == "np":
            return FCLMBatchFeature({name: values.cpu().numpy() for name, values in features.items()})
        return FCLMBatchFeature(dict(features))

    def post_process_image_matting(self, outputs: Any, target_sizes: Any = None) -> list[dict[str, torch.Tensor]]:
        """See [`FCLMImageProcessor.post_process_image_matting`]."""
        return self.image_processor.post_process_image_matting(outputs, target_sizes)

    def _tokenize(self, prompts: Prompts, text_kwargs: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Tokens (B, N, L) of the texts; objects without text are padding."""
        places = [(i, j) for i, image in enumerate(prompts.text) for j, each in enumerate(image) if each is not None]
        rows: list[list[int]] = []
        masks: list[list[int]] = []
        if places:
            texts = [prompts.text[i][j] for i, j in places]
            encoded = self.tokenizer(texts, **{**text_kwargs, "return_tensors": None, "return_attention_mask": True})
            rows, masks = encoded["input_ids"], encoded["attention_mask"]
        length = max([1, *(len(row) for row in rows)])
        shape = len(prompts.objects), max(prompts.objects), length
        input_ids = torch.full(shape, self.tokenizer.pad_token_id or 0, dtype=torch.int64)
        attention_mask = torch.zeros(shape, dtype=torch.int64)
        for (i, j), row, mask in zip(places, rows, masks, strict=True):
            input_ids[i, j, : len(row)] = torch.tensor(row)
            attention_mask[i, j, : len(row)] = torch.tensor(mask)
        return {"input_ids": input_ids, "attention_mask": attention_mask}


def _default_to_tensors(kwargs: dict[str, Any]) -> dict[str, Any]:
    places = (kwargs, *(kwargs.get(name) or {} for name in ("common_kwargs", "images_kwargs", "text_kwargs")))
    return kwargs if any("return_tensors" in place for place in places) else {**kwargs, "return_tensors": "pt"}


def _check_map_counts(maps: list[torch.Tensor], prompts: Prompts) -> None:
    for index, (members, objects) in enumerate(zip(maps, prompts.objects, strict=True)):
        if len(members) != objects:
            raise ValueError(
                f"segmentation_maps[{index}] (image {index}) holds {len(members)} maps, but its prompts name"
                f" {objects} objects (without a prompt, an image has one)."
            )


__all__ = [
    "FCLMProcessor",
]
