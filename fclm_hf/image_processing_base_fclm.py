"""Image processing that the torchvision and PIL backends of FCLM share: everything except resampling."""

import enum
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import ImageInput, PILImageResampling, SizeDict
from transformers.processing_utils import ImagesKwargs, Unpack

from .configuration_fclm import IMAGE_PROCESSOR_CLASSES, copy_code, keep_present
from .image_loading_fclm import MAX_PIXELS
from .image_utils_fclm import convert_to_tensor, find_image_size, flatten_images, open_image
from .masks_fclm import resize_maps
from .segmentation_maps_fclm import load_segmentation_maps


ACCEPTED_SIZES = '{"longest_edge": L}, {"max_height": H, "max_width": W} or {"height": H, "width": W}'


class FCLMImageProcessorKwargs(ImagesKwargs, total=False):
    """Settings of the image processor, in addition to those of transformers.

    Attributes:
        size_divisor (`int`, *optional*): Number that the height and width of the padded batch are multiples of.
    """

    size_divisor: int | None


class FCLMImageProcessorBase:
    """Mixin for a backend of transformers; the backend class adds [`transform_image`].

    Attributes:
        size (`dict[str, int]`): `{"longest_edge": L}` or `{"max_height": H, "max_width": W}` shrinks larger images,
            keeps their aspect ratio and never enlarges; `{"height": H, "width": W}` resizes to exactly this size. An
            int is the longest edge.
        size_divisor (`int`): Batches are padded with 0 at the bottom and right to a multiple of it.
    """

    valid_kwargs = FCLMImageProcessorKwargs
    model_input_names: ClassVar[list[str]] = ["pixel_values", "pixel_mask", "original_sizes"]
    # the only antialiased filter on which PIL and all of torchvision's kernels agree to one gray level
    resample = PILImageResampling.BILINEAR
    image_mean: ClassVar[list[float]] = [0.5, 0.5, 0.5]
    image_std: ClassVar[list[float]] = [0.5, 0.5, 0.5]
    size: ClassVar[dict[str, int]] = {"longest_edge": 2048}
    default_to_square = False
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    do_pad = True
    size_divisor = 32

    def __init__(self, **kwargs: Unpack[FCLMImageProcessorKwargs]) -> None:
        super().__init__(**kwargs)

    def transform_image(self, image: torch.Tensor, new_size: tuple[int, int], **kwargs: Any) -> torch.Tensor:
        """Resize, rescale and normalize an image as `kwargs` say.

        Args:
            image (`torch.Tensor` of shape `(channels, height, width)`): uint8 in [0, 255], or float32.
            new_size (`tuple[int, int]`): New height and width in pixels.
            kwargs: Settings of the processor: `resample`, `do_rescale`, `rescale_factor`, `do_normalize`, `image_mean`
                and `image_std`.

        Returns:
            float32 of shape `(channels, *new_size)`.
        """
        raise TypeError(f"{type(self).__name__} has no backend: use FCLMImageProcessor or FCLMImageProcessorPil.")

    def fetch_images(self, images: Any) -> Any:
        """Open images in any nesting of lists; see [`~fclm_hf.image_utils_fclm.open_image`]."""
        counter = iter(range(1 << 62))

        def fetch(item: Any) -> Any:
            if isinstance(item, (list, tuple)):
                return [fetch(member) for member in item]
            return open_image(item, name=f"image {next(counter)}")

        return fetch(images)

    def preprocess(
        self,
        images: ImageInput,
        segmentation_maps: Any = None,
        **kwargs: Unpack[FCLMImageProcessorKwargs],
    ) -> BatchFeature:
        """Prepare images, and ground-truth alphas where there are any, for the model.

        Args:
            images: An image, a list of images, or a list of lists of images, one per sample. An image is a URL, path,
                bytes, open file, base64 string, PIL image, array or tensor; see
                [`~fclm_hf.image_utils_fclm.load_image`]. Transparent images are composited over a plain color that
                they stand out from.
            segmentation_maps: Ground-truth alphas, nested as image > object > map, or one map per image. A map has the
                height and width of its image; uint8 or PIL in [0, 255], uint16 in [0, 65535], float in [0, 1], or bool.
            kwargs: Settings that differ from those of the processor for this call, such as `size`, and
                `return_tensors` ("pt" or "np"), without which all values are lists.

        Returns:
            `BatchFeature` with

            - **pixel_values** (`torch.FloatTensor` of shape `(batch_size, 3, height, width)`): Normalized pixels, 0 on
              padding.
            - **pixel_mask** (`torch.LongTensor` of shape `(batch_size, height, width)`): 1 on the image, 0 on padding.
            - **original_sizes** (`torch.LongTensor` of shape `(batch_size, 2)`): Height and width of the images given.
            - **labels** (`torch.FloatTensor` of shape `(batch_size, num_objects, height, width)`): The maps, in
              [0, 1]. Only with `segmentation_maps`.
            - **object_mask** (`torch.BoolTensor` of shape `(batch_size, num_objects)`): False for padding objects. Only
              if images have different numbers of maps.

        Raises:
            ValueError: If an image or map cannot be read, or a setting is invalid.
        """
        return super().preprocess(images, segmentation_maps, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a dict; those of an export name the code of both backends."""
        output = super().to_dict()
        if output.get("auto_map"):
            output["auto_map"] = {name: keep_present(classes) for name, classes in IMAGE_PROCESSOR_CLASSES.items()}
        return output

    def to_json_file(self, json_file_path: str | os.PathLike) -> None:
        """Save to a JSON file, and the code of an export beside it."""
        super().to_json_file(json_file_path)
        if getattr(self, "auto_map", None):
            copy_code(Path(json_file_path).parent)

    def post_process_image_matting(self, outputs: Any, target_sizes: Any = None) -> list[dict[str, torch.Tensor]]:
        """Undo the padding and resizing of predicted alphas.

        Args:
            outputs ([`FCLMImageMattingOutput`] or `dict`): Outputs of the model: `alphas` of shape `(batch_size,
                num_objects, height, width)`, and if present `image_sizes` of shape `(batch_size, 2)`, the height and
                width of the images without padding, and `object_mask` of shape `(batch_size, num_objects)`.
            target_sizes (`torch.Tensor` of shape `(batch_size, 2)` or `list[tuple[int, int]]`, *optional*): Height and
                width of the original images. Without them the alphas keep the size that the processor gave the images.

        Returns:
            For each image a dict with `alpha`, a `torch.FloatTensor` of shape `(num_objects, height, width)` in [0, 1].

        Raises:
            ValueError: If there are no alphas, or not one valid target size per image.
        """
        alphas, image_sizes, object_mask = (
            outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)
            for name in ("alphas", "image_sizes", "object_mask")
        )
        if alphas is None:
            raise ValueError("outputs must have alphas, got None.")
        if target_sizes is not None:
            target_sizes = _check_target_sizes(target_sizes, len(alphas))
        results = []
        for index, alpha in enumerate(alphas):
            if image_sizes is not None:
                height, width = (int(side) for side in image_sizes[index])
                alpha = alpha[:, :height, :width]
            if object_mask is not None:
                alpha = alpha[object_mask[index].to(alpha.device)]
            alpha = alpha.float()
            if target_sizes is not None:
                alpha = resize_maps(alpha, target_sizes[index])
            results.append({"alpha": alpha.clamp(0, 1)})
        return results

    def _standardize_kwargs(self, size: Any = None, default_to_square: bool | None = None, **kwargs: Any) -> dict:
        if isinstance(size, int):
            size = {"longest_edge": size}
        return super()._standardize_kwargs(size=size, default_to_square=default_to_square, **kwargs)

    def _validate_preprocess_kwargs(self, **kwargs: Any) -> None:
        _check_settings(kwargs)  # transformers checks those of the call, but not those of a file
        super()._validate_preprocess_kwargs(**kwargs)
        if kwargs.get("do_center_crop"):
            raise ValueError("do_center_crop must be False, as FCLM keeps the whole image, got True.")
        if kwargs.get("do_resize"):
            _find_resized_size((1, 1), kwargs["size"])

    def _preprocess_image_like_inputs(
        self, images: ImageInput, segmentation_maps: Any = None, return_tensors: Any = None, **kwargs: Any
    ) -> BatchFeature:
        layout = kwargs.get("input_data_format")
        images = [image for image in flatten_images(self.fetch_images(images)) if image is not None]
        sizes = [find_image_size(image, f"image {i}", layout) for i, image in enumerate(images)]
        maps = None if segmentation_maps is None else load_segmentation_maps(segmentation_maps, sizes)
        keep_float = not kwargs["do_rescale"]
        device = kwargs.get("device")
        pixels = []
        for index, (image, size) in enumerate(zip(images, sizes, strict=True)):
            tensor = convert_to_tensor(image, kwargs["do_convert_rgb"], keep_float, layout, f"image {index}", None)
            _check_channels(len(tensor), kwargs)
            resized = _find_resized_size(size, kwargs["size"]) if kwargs["do_resize"] else size
            pixels.append(self.transform_image(tensor if device is None else tensor.to(device), resized, **kwargs))
        resized_sizes = [tuple(image.shape[-2:]) for image in pixels]
        padded_sizes = _find_padded_sizes(resized_sizes, kwargs)
        data = {
            "pixel_values": [_pad(image, padded_size) for image, padded_size in zip(pixels, padded_sizes, strict=True)],
            "pixel_mask": [
                _pad(torch.ones(size, dtype=torch.int64, device=image.device), padded_size)
                for image, size, padded_size in zip(pixels, resized_sizes, padded_sizes, strict=True)
            ],
            "original_sizes": [torch.tensor(size, dtype=torch.int64) for size in sizes],
        }
        if maps is not None:
            data.update(_make_labels(maps, resized_sizes, padded_sizes))
        if return_tensors is not None and len(set(padded_sizes)) > 1:
            raise ValueError(f"Images must have the same size without padding, got {resized_sizes}: set do_pad=True.")
        return _pack(data, return_tensors, as_numpy=self.backend == "pil")


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Raise ValueError for settings of the wrong type or out of range."""
    for name in ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb", "do_pad", "do_center_crop"):
        if not isinstance(settings.get(name), (bool, type(None))):
            raise ValueError(f"{name} must be True or False, got {settings[name]!r}.")
    for name in ("data_format", "input_data_format"):
        if settings.get(name) not in (None, "channels_first", "channels_last"):
            raise ValueError(f'{name} must be "channels_first" or "channels_last", got {settings[name]!r}.')
    resample = settings.get("resample")
    if resample not in (None, *PILImageResampling) and not isinstance(resample, enum.Enum):  # one of torchvision's
        raise ValueError(f"resample must be one of PIL.Image.Resampling, got {resample!r}.")
    for name in ("size", "pad_size", "size_divisor"):
        _check_sides(name, settings.get(name))
    for name in ("image_mean", "image_std"):
        _check_numbers(name, settings.get(name))
    factor = settings.get("rescale_factor")
    if factor is not None and not (_is_real(factor) and 1e-6 <= abs(factor) <= 1e6):
        raise ValueError(f"rescale_factor must be a number from 1e-6 to 1e6, or its negative, got {factor!r}.")


def _is_real(value: Any) -> bool:
    """Return whether a setting is a number, which a bool is not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_numbers(name: str, value: Any) -> None:
    """Raise ValueError unless a setting is a number, or has one for each channel, whose products are finite."""
    if value is None:
        return
    numbers = value if isinstance(value, (list, tuple)) else [value]
    least, kind = (1e-6, "a positive, finite number") if name == "image_std" else (-1e6, "a finite number")
    if (
        not all(map(_is_real, numbers))
        or len(numbers) not in (1, 3, 4)
        or not all(least <= each <= 1e6 for each in numbers)
    ):
        raise ValueError(f"{name} must be {kind}, or one for each channel, got {value!r}.")


def _check_channels(channels: int, settings: Mapping[str, Any]) -> None:
    """Raise ValueError unless the numbers of a normalization fit the channels of an image."""
    for name in ("image_mean", "image_std") if settings.get("do_normalize") else ():
        value = settings[name]
        if isinstance(value, (list, tuple)) and len(value) not in (1, channels):
            raise ValueError(f"{name} must have one number for each of {channels} channels, got {value!r}.")


def _check_sides(name: str, value: Any) -> None:
    """Raise ValueError unless all numbers of pixels in a setting are integers of at least 1."""
    sides = dict(value).values() if isinstance(value, SizeDict) else [value]
    if any(each is not None and (type(each) is not int or each < 1) for each in sides):
        shown = dict(value) if isinstance(value, SizeDict) else value
        raise ValueError(f"{name} must be at least 1 and an integer, for each side if it has several, got {shown!r}.")


def _check_area(height: int, width: int, name: str) -> None:
    """Raise ValueError for sizes that take more memory than images may."""
    if height * width > MAX_PIXELS:
        raise ValueError(f"{name} must not make images of more than {MAX_PIXELS} pixels, got {height} x {width}.")


def _check_target_sizes(target_sizes: Any, count: int) -> list[tuple[int, int]]:
    """Return the height and width of each image; raise ValueError unless there are `count` valid ones."""
    sizes = target_sizes.tolist() if hasattr(target_sizes, "tolist") else target_sizes
    if not isinstance(sizes, (list, tuple)):
        raise ValueError(f"target_sizes must hold the (height, width) of each image, got {target_sizes!r}.")
    if len(sizes) != count:
        raise ValueError(f"target_sizes must hold {count} sizes, one per image in outputs.alphas, got {len(sizes)}.")
    checked = []
    for index, size in enumerate(sizes):
        try:
            height, width = (int(side) for side in size)
        except (OverflowError, TypeError, ValueError):  # not two finite numbers
            height = width = 0
        if min(height, width) < 1:
            raise ValueError(f"target_sizes[{index}] must be (height, width) of at least 1 pixel, got {size}.")
        checked.append((height, width))
    return checked


def _find_resized_size(size: tuple[int, int], limit: SizeDict | None) -> tuple[int, int]:
    """Return the height and width to which an image is resized."""
    if limit is None:
        raise ValueError(f"size must be {ACCEPTED_SIZES} with do_resize=True, got None.")
    height, width = size
    if limit.height and limit.width and not limit.longest_edge:
        if min(limit.height, limit.width) < 1:
            raise ValueError(f"size must be {ACCEPTED_SIZES} with positive numbers, got {dict(limit)}.")
        _check_area(limit.height, limit.width, "size")
        return limit.height, limit.width
    if limit.longest_edge and not limit.shortest_edge:
        limits = limit.longest_edge, limit.longest_edge
    elif limit.max_height and limit.max_width:
        limits = limit.max_height, limit.max_width
    else:
        raise ValueError(f"size must be {ACCEPTED_SIZES} with positive numbers, got {dict(limit)}.")
    if min(limits) < 1:
        raise ValueError(f"size must be {ACCEPTED_SIZES} with positive numbers, got {dict(limit)}.")
    if height <= limits[0] and width <= limits[1]:
        return size
    # one side becomes exactly its limit; integer arithmetic rounds the other side the same everywhere
    if height * limits[1] >= width * limits[0]:
        return limits[0], max(1, (2 * width * limits[0] + height) // (2 * height))
    return max(1, (2 * height * limits[1] + width) // (2 * width)), limits[1]


def _find_padded_sizes(sizes: list[tuple[int, int]], kwargs: dict[str, Any]) -> list[tuple[int, int]]:
    """Return the padded height and width of each image, the same for all unless padding is off."""
    if not kwargs.get("do_pad"):
        return sizes
    height, width = (max(side) for side in zip(*sizes, strict=True))
    if (pad_size := kwargs.get("pad_size")) is not None:
        if not (pad_size.height and pad_size.width) or pad_size.height < height or pad_size.width < width:
            raise ValueError(f"pad_size must have height >= {height} and width >= {width}, got {dict(pad_size)}.")
        _check_area(pad_size.height, pad_size.width, "pad_size")
        return [(pad_size.height, pad_size.width)] * len(sizes)
    divisor = kwargs.get("size_divisor") or 1
    padded = -(-height // divisor) * divisor, -(-width // divisor) * divisor
    if padded[0] * padded[1] > 4 * height * width:  # images of any size are the caller's, padding is ours
        _check_area(*padded, "size_divisor")
    return [padded] * len(sizes)


def _pad(tensor: torch.Tensor, padded_size: tuple[int, int]) -> torch.Tensor:
    """Pad `(..., height, width)` with 0 at the bottom and right."""
    height, width = tensor.shape[-2:]
    if (height, width) == padded_size:
        return tensor
    padded = tensor.new_zeros((*tensor.shape[:-2], *padded_size))
    padded[..., :height, :width] = tensor
    return padded


def _make_labels(
    maps: list[torch.Tensor], sizes: list[tuple[int, int]], padded_sizes: list[tuple[int, int]]
) -> dict[str, list[torch.Tensor]]:
    """Return the resized and padded labels of each image, and object masks if the numbers of objects differ."""
    objects = max(len(members) for members in maps)
    labels, masks = [], []
    for members, size, padded_size in zip(maps, sizes, padded_sizes, strict=True):
        label = torch.zeros((objects, *padded_size))
        label[: len(members), : size[0], : size[1]] = resize_maps(members, size).clamp(0, 1)
        labels.append(label)
        masks.append(torch.arange(objects) < len(members))
    if all(mask.all() for mask in masks):
        return {"labels": labels}
    return {"labels": labels, "object_mask": masks}


def _pack(data: dict[str, list[torch.Tensor]], return_tensors: Any, as_numpy: bool) -> BatchFeature:
    """Stack the values of the images as `return_tensors` says; without it, return lists."""
    if return_tensors is None:
        if as_numpy:
            data = {key: [tensor.numpy() for tensor in tensors] for key, tensors in data.items()}
        return BatchFeature(data)
    stacked = {key: torch.stack(tensors) for key, tensors in data.items()}
    if getattr(return_tensors, "value", return_tensors) == "np":
        return BatchFeature({key: tensor.cpu().numpy() for key, tensor in stacked.items()})
    return BatchFeature(stacked, tensor_type=return_tensors)


__all__ = [
    "FCLMImageProcessorBase",
    "FCLMImageProcessorKwargs",
]
