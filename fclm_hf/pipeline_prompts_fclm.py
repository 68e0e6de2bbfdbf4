"""How the prompts of a call of the pipeline are shared among its images, and nested as the processor expects them."""

import difflib
import math
from collections.abc import Iterator, Mapping, Sized
from typing import Any

import numpy as np
import torch

from .image_loading_fclm import is_open_file
from .prompts_fclm import NESTING, to_lists
from .segmentation_maps_fclm import drop_channels


# nesting of one object's prompt: points are a list of pairs, a box is a list of numbers
OBJECT_DEPTHS = {"text": 0, "input_points": 2, "input_labels": 1, "input_boxes": 1, "input_masks": 0}
_NESTED_EXAMPLES = {
    **NESTING,
    "text": '[["cat"], ["dog", "bird"]]',
    "input_boxes": "[[[x0, y0, x1, y1]], [[x0, y0, x1, y1], [x0, y0, x1, y1]]]",
}


def read_rows(images: Any) -> Any:
    """Return what pandas and numpy give as dicts and lists: tables, columns, rows, named rows, and arrays of paths."""
    if isinstance(images, np.ndarray) and images.ndim == 1 and images.dtype.kind in "OU":
        return images.tolist()
    if isinstance(images, tuple) and "image" in getattr(images, "_fields", ()):
        return images._asdict()
    if not hasattr(images, "to_dict") or not hasattr(images, "iloc"):
        return images
    if images.ndim == 2:
        return images.to_dict("records")
    return images.to_dict() if "image" in images.index else images.tolist()


def split_sample(sample: Mapping[str, Any], prompts: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the image of a dict and its prompts; its own take precedence over those of the call."""
    for name in sample.keys() - OBJECT_DEPTHS.keys():
        meant = difflib.get_close_matches(str(name), OBJECT_DEPTHS, n=1, cutoff=0.8)
        if meant and str(name).startswith("input_"):  # any other name may be that of a column
            raise ValueError(f"Unknown key {name!r} beside the image: did you mean {meant[0]!r}?")
    if "image" not in sample:
        raise ValueError(f'A dict must have the key "image", got {sorted(map(str, sample))}.')
    if sample["image"] is None:
        raise ValueError('The "image" of a dict must be an image, got None.')
    own = {name: sample[name] for name in OBJECT_DEPTHS if name in sample}
    own = {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in own.items()}
    return sample["image"], {**prompts, **own}  # NaN is what pandas has for None


def read_prompts(name: str, value: Any) -> Any:
    """Return the prompts of a call so that they can be read several times, which those of a generator cannot."""
    if name != "input_masks":
        return to_lists(value)
    return list(value) if isinstance(value, Iterator) and not is_open_file(value) else value


def pair_prompts(name: str, value: Any, count: int) -> list[Any]:
    """Return the prompts of each of `count` images.

    Raises:
        ValueError: If the nesting does not tell whether `value` holds the prompts of one image or of all.
    """
    if name == "input_masks":
        return _pair_masks(drop_channels(value), count)
    value = to_lists(value)
    if count == 1:
        return [value]
    if isinstance(value, list):
        if _is_per_image(name, value) and (len(value) == count or len(value) == 1):
            return value * (count // len(value))
        if not _names_one_object(name, value):
            raise ValueError(_explain_pairs(name, value, count))
    return [value] * count


def _pair_masks(masks: Any, count: int) -> list[Any]:
    """Return the masks of each of `count` images: one for all, or one per image; raise ValueError for anything else."""
    is_list = isinstance(masks, (list, tuple)) or (getattr(masks, "ndim", 2) > 2 and count > 1)
    if count == 1 or not is_list:
        return [masks] * count
    if len(masks) != count:
        raise ValueError(
            f"input_masks must have the masks of {count} images, got {len(masks)}: pass one mask for all, or a mask or"
            " list of masks for each."
        )
    return list(masks)


def _is_per_image(name: str, value: list[Any]) -> bool:
    """Return whether each item of a list is all that is given for one image."""
    if name == "text":  # as for the processor, a list of str has one per image
        return all(each is None or isinstance(each, (str, list)) for each in value)
    depth = OBJECT_DEPTHS[name] + 1
    return all(each is None or each == [] or _measure_depth(each) >= depth for each in value)


def _names_one_object(name: str, value: Any) -> bool:
    """Return whether prompts name a single object, with a single click: `[x0, y0, x1, y1]` or `[[x, y]]`."""
    leaf = {"text": 0, "input_labels": 0, "input_points": 1, "input_boxes": 1}[name]
    while isinstance(value, list) and len(value) == 1 and _measure_depth(value) > leaf:
        value = value[0]
    return value == [] or _measure_depth(value) <= leaf


def _explain_pairs(name: str, value: list[Any], count: int) -> str:
    """Return the error for a list that may be meant for one image or for all."""
    objects = value
    for _ in range(OBJECT_DEPTHS[name] + 1 - _measure_depth(value)):  # clicks on one object
        objects = [objects]
    shown = repr(objects) if _measure_depth(objects) <= OBJECT_DEPTHS[name] + 1 else "[...]"
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return (
        f"{name} must have the prompts of {count} images, got a list of {len(value)}: write {name}=[{shown}] * {count}"
        f" for the same objects in every image, or {name}=[prompts of image 0, prompts of image 1, ...] with a list of"
        f" the objects of each image, {_NESTED_EXAMPLES[name]}."
    )


def check_shared(prompts: dict[str, Any], images: Any) -> dict[str, Any]:
    """Return prompts for all images of a generator or dataset; raise ValueError if they are those of several images."""
    for name, value in prompts.items():
        if name == "text" and _may_pair(value, images):
            raise ValueError(
                f"text must not be a list of as many texts as there are images, {len(value)}, as it may hold one text"
                " for each image or the objects of every image: write text=[[...]] for the latter, or yield"
                ' {"image": ..., "text": ...} for the former.'
            )
        if _has_images(name, value) and len(value) > 1:
            raise ValueError(
                f"{name} must be the prompts of every image, as the number of images in a generator or dataset is"
                f' unknown, got a list for {len(value)} images: yield {{"image": ..., "{name}": ...}} instead.'
            )
    return prompts


def _may_pair(text: Any, images: Any) -> bool:
    """Return whether a list of texts has one for each image of a dataset, which may be chance."""
    is_flat = isinstance(text, list) and not _has_images("text", text)
    return is_flat and isinstance(images, Sized) and len(text) == len(images) > 1


def _has_images(name: str, value: Any) -> bool:
    """Return whether prompts have a level for images."""
    if name != "input_masks":
        value = to_lists(value)
        return isinstance(value, list) and _measure_depth(value) >= OBJECT_DEPTHS[name] + 2
    is_list = isinstance(value, (list, tuple))
    return any(isinstance(each, (list, tuple)) for each in value) if is_list else getattr(value, "ndim", 2) == 4


def nest_prompts(prompts: dict[str, Any]) -> dict[str, Any]:
    """Nest the prompts of one image as the processor expects them, image > object > value."""
    nested = {}
    for name, value in prompts.items():
        if value is None:
            continue
        if name == "input_masks":
            nested[name] = [_list_masks(value)]
            continue
        value, depth = to_lists(value), OBJECT_DEPTHS[name]
        given = _measure_depth(value)
        if _is_empty(value):
            value = []
        elif given == depth + 2 and len(value) == 1:  # it has an image level already
            value = value[0]
        elif given <= depth and not (given == 1 and all(each is None for each in value)):
            for _ in range(depth + 1 - given):  # one object, one click
                value = [value]
        nested[name] = [value]
    if isinstance(prompts.get("text"), str) and [[]] in nested.values():
        nested["text"] = [[]]  # a text for all objects there are, and there are none
    return nested


def _list_masks(masks: Any) -> list[Any]:
    """Return the masks of the objects of one image; an image level is removed."""
    masks = drop_channels(masks)
    if isinstance(masks, (np.ndarray, torch.Tensor)):
        masks = masks[0] if masks.ndim == 4 and len(masks) == 1 else masks
        return [masks] if masks.ndim == 2 else list(masks)
    if not isinstance(masks, (list, tuple)):
        return [masks]
    return list(masks[0]) if len(masks) == 1 and isinstance(masks[0], (list, tuple)) else list(masks)


def _is_empty(value: Any) -> bool:
    """Return whether prompts name no object: `[]`, or `[[]]` with a level for the image."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value == []


def _measure_depth(value: Any) -> int:
    """Return the number of levels of nested lists."""
    return 1 + max(map(_measure_depth, value), default=0) if isinstance(value, list) else 0
