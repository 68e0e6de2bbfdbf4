"""Image processing that the torchvision and the PIL backend of FCLM share: everything except resampling."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import ImageInput, PILImageResampling, SizeDict
from transformers.processing_utils import ImagesKwargs, Unpack

from .image_utils_fclm import convert_to_tensor, find_image_size, flatten_images, make_tensor, open_image


_NESTING = "accepted are image > object > map, or one map (height, width) per image"


_FULL_SCALE = {torch.uint8: 255.0, torch.uint16: 65535.0}


_FLOAT_TOLERANCE = 1e-3  # resampling overshoots [0, 1] a little


def resize_maps(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Float maps (objects, height, width) at `size` = (height, width); the same tensor when they have it already."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    if not len(maps):
        return maps.new_zeros((0, *size))
    return torch.nn.functional.interpolate(
        maps[None], size=tuple(size), mode="bilinear", align_corners=False, antialias=True
    )[0]


def resize_mask(mask: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize a mask prompt.

    Args:
        mask: Float mask of shape (height, width) in [0, 1]. With 0, 0.5 and 1 only it is a trimap, and stays one.
        size: Height and width of the result.

    Returns:
        Mask of shape `size`.
    """
    unknown = (mask - 0.5).abs() < 0.01
    if unknown.any() and (unknown | (mask == 0) | (mask == 1)).all():
        return torch.nn.functional.interpolate(mask[None, None], size=tuple(size), mode="nearest-exact")[0, 0]
    return resize_maps(mask[None], size)[0].clamp(0, 1)


def load_segmentation_maps(segmentation_maps: Any, image_sizes: list[tuple[int, int]]) -> list[torch.Tensor]:
    """Alphas of each image as float32 (objects, height, width) in [0, 1].

    Args:
        segmentation_maps: image > object > map, or one map per image; for one image also a map by itself. A map is a
            path, URL, bytes, PIL image (0..255), or an array (height, width): uint8, uint16, float in 0..1 or bool.
            An array (objects, height, width) holds the objects of an image.
        image_sizes: height and width of each image; its maps have the same.

    Raises:
        ValueError: wrong nesting, number or size of maps, or values out of range.
    """
    per_image = _split_images(segmentation_maps, len(image_sizes))
    loaded = []
    for index, (maps, size) in enumerate(zip(per_image, image_sizes, strict=True)):
        name = f"segmentation_maps[{index}]"
        if isinstance(maps, (np.ndarray, torch.Tensor)) and maps.ndim == 3:
            maps = list(maps)
        members = list(maps) if isinstance(maps, (list, tuple)) else [maps]
        if not members:
            raise ValueError(f"{name} holds no map: {_NESTING}.")
        loaded.append(torch.stack([load_map(each, size, f"{name}[{i}]") for i, each in enumerate(members)]))
    return loaded


def _split_images(segmentation_maps: Any, count: int) -> list[Any]:
    alone = isinstance(segmentation_maps, (str, bytes, os.PathLike, Image.Image))
    is_array = isinstance(segmentation_maps, (np.ndarray, torch.Tensor))
    if alone or (is_array and segmentation_maps.ndim == 2):
        segmentation_maps = [segmentation_maps]
    elif not isinstance(segmentation_maps, (list, tuple)) and not (is_array and segmentation_maps.ndim in (3, 4)):
        raise ValueError(f"segmentation_maps is a {type(segmentation_maps).__name__}: {_NESTING}.")
    if len(segmentation_maps) != count:
        raise ValueError(f"segmentation_maps holds {len(segmentation_maps)} images, but {count} are given: {_NESTING}.")
    return list(segmentation_maps)


def load_map(item: Any, size: tuple[int, int], name: str) -> torch.Tensor:
    """Load one map as float32 (height, width) in [0, 1], see [`load_segmentation_maps`].

    Raises:
        ValueError: If it cannot be read, has another size than `size` or values out of range; names it `name`.
    """
    if item is None or isinstance(item, (list, tuple)):
        raise ValueError(f"{name} is a {type(item).__name__}: {_NESTING}.")
    item = open_image(item, name)
    if isinstance(item, Image.Image):
        item = _read_pixels(item)
    values = make_tensor(item, name)
    if tuple(values.shape) != tuple(size):
        raise ValueError(f"{name} has shape {tuple(values.shape)}, but its image has height and width {tuple(size)}.")
    if values.dtype == torch.bool:
        return values.cpu().float()
    if values.dtype in _FULL_SCALE:
        return values.cpu().to(torch.float32) / _FULL_SCALE[values.dtype]
    if not values.is_floating_point():
        raise ValueError(f"{name} has dtype {values.dtype}, accepted are bool, uint8 (0..255), uint16 or float (0..1).")
    values = values.cpu().float()
    if not torch.isfinite(values).all() or values.min() < -_FLOAT_TOLERANCE or values.max() > 1 + _FLOAT_TOLERANCE:
        raise ValueError(
            f"{name} has float values in [{values.min():g}, {values.max():g}], accepted are finite values in 0..1."
        )
    return values.clamp(0, 1)


def _read_pixels(image: Image.Image) -> np.ndarray:
    if image.mode == "F":
        return np.array(image)
    if not image.mode.startswith("I"):
        return np.array(image.convert("L"))
    values = np.array(image)
    return values.astype(np.uint8 if image.mode == "I" and values.max() <= 255 else np.uint16)


ACCEPTED_SIZES = '{"longest_edge": L}, {"max_height": H, "max_width": W} or {"height": H, "width": W}'


class FCLMImageProcessorKwargs(ImagesKwargs, total=False):
    r"""size_divisor (`int`, *optional*):
    Height and width of the padded batch are multiples of it.
    """

    size_divisor: int | None


class FCLMImageProcessorBase:
    """Mixin for a backend of transformers. The backend class adds `transform_image`: resize, rescale, normalise.

    Attributes:
        size: `{"longest_edge": L}` or `{"max_height": H, "max_width": W}` shrink an image that is larger, keep its
            aspect ratio and never enlarge; `{"height": H, "width": W}` gives exactly this size. An int is longest_edge.
        size_divisor: the batch is padded with 0 at the bottom and the right to a multiple of it.
    """

    valid_kwargs = FCLMImageProcessorKwargs
    model_input_names = ["pixel_values", "pixel_mask", "original_sizes"]
    # of the antialiased filters, the one on which PIL and all of torchvision's kernels agree to one grey level
    resample = PILImageResampling.BILINEAR
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    size = {"longest_edge": 2048}
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
        """uint8 (channels, height, width) to float32 (channels, *new_size), rescaled and normalised as `kwargs` say."""
        raise TypeError(f"{type(self).__name__} needs a backend: use FCLMImageProcessor or FCLMImageProcessorPil.")

    def fetch_images(self, images: Any) -> Any:
        """Read URLs, paths, bytes and PIL images of any nesting; the results are decoded and upright."""
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
        """Args:
            images: an image, a list of images, or a list of lists; see [`~fclm_hf.image_utils_fclm.load_image`] for
                what an image can be.
            segmentation_maps: ground-truth alphas, image > object > map, or one map per image. A map has the size of
                its image; uint8 or PIL in 0..255, uint16 in 0..65535, float in 0..1, bool.

        Returns:
            `BatchFeature` with pixel_values float32 (B, 3, H, W), pixel_mask int64 (B, H, W): 1 on the image and 0 on
            padding, original_sizes int64 (B, 2): height and width, and with maps labels float32 (B, N, H, W) in [0, 1];
            also object_mask bool (B, N) when the images have different numbers of objects.

        Raises:
            ValueError: an image or map cannot be read, or a setting is not accepted.
        """
        return super().preprocess(images, segmentation_maps, **kwargs)

    def post_process_image_matting(self, outputs: Any, target_sizes: Any = None) -> list[dict[str, torch.Tensor]]:
        """Undo padding and resizing of the predicted alphas.

        Args:
            outputs: of the model, with alphas (B, N, H, W), and where present image_sizes (B, 2), the valid height and
                width inside them, and object_mask (B, N).
            target_sizes: (B, 2) tensor or list of (height, width), the original sizes; None keeps the processed sizes.

        Returns:
            One dict per image with `alpha`: float32 (objects, height, width) in [0, 1].

        Raises:
            ValueError: not one valid target size per image.
        """
        alphas, image_sizes, object_mask = (
            outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)
            for name in ("alphas", "image_sizes", "object_mask")
        )
        if alphas is None:
            raise ValueError("outputs has no alphas.")
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
        super()._validate_preprocess_kwargs(**kwargs)
        if kwargs.get("do_center_crop"):
            raise ValueError("do_center_crop is not supported: FCLM keeps the whole image.")
        divisor = kwargs.get("size_divisor")
        if divisor is not None and divisor < 1:
            raise ValueError(f"size_divisor must be at least 1, got {divisor}.")
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
            tensor = convert_to_tensor(image, kwargs["do_convert_rgb"], keep_float, layout, name=f"image {index}")
            resized = _find_resized_size(size, kwargs["size"]) if kwargs["do_resize"] else size
            pixels.append(self.transform_image(tensor if device is None else tensor.to(device), resized, **kwargs))
        resized_sizes = [tuple(image.shape[-2:]) for image in pixels]
        canvases = _find_canvases(resized_sizes, kwargs)
        data = {
            "pixel_values": [_pad(image, canvas) for image, canvas in zip(pixels, canvases, strict=True)],
            "pixel_mask": [
                _pad(torch.ones(size, dtype=torch.int64, device=image.device), canvas)
                for image, size, canvas in zip(pixels, resized_sizes, canvases, strict=True)
            ],
            "original_sizes": [torch.tensor(size, dtype=torch.int64) for size in sizes],
        }
        if maps is not None:
            data.update(_make_labels(maps, resized_sizes, canvases))
        if return_tensors is not None and len(set(canvases)) > 1:
            raise ValueError(f"Images of sizes {resized_sizes} make no batch without padding: set do_pad=True.")
        return _pack(data, return_tensors, as_numpy=self.backend == "pil")


def _check_target_sizes(target_sizes: Any, count: int) -> list[tuple[int, int]]:
    sizes = target_sizes.tolist() if hasattr(target_sizes, "tolist") else target_sizes
    if not isinstance(sizes, (list, tuple)):
        raise ValueError(f"target_sizes must hold (height, width) of each image, got {target_sizes!r}.")
    if len(sizes) != count:
        raise ValueError(f"target_sizes holds {len(sizes)} sizes, but outputs.alphas holds {count} images.")
    checked = []
    for index, size in enumerate(sizes):
        try:
            height, width = (int(side) for side in size)
        except (OverflowError, TypeError, ValueError):  # no two finite numbers
            height = width = 0
        if min(height, width) < 1:
            raise ValueError(f"target_sizes[{index}] must be (height, width) of at least 1 pixel, got {size}.")
        checked.append((height, width))
    return checked


def _find_resized_size(size: tuple[int, int], limit: SizeDict | None) -> tuple[int, int]:
    if limit is None:
        raise ValueError(f"size must be {ACCEPTED_SIZES} when do_resize is set, got None.")
    height, width = size
    if limit.height and limit.width and not limit.longest_edge:
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
    # the side that binds becomes exactly its limit; integer arithmetic rounds the other one the same everywhere
    if height * limits[1] >= width * limits[0]:
        return limits[0], max(1, (2 * width * limits[0] + height) // (2 * height))
    return max(1, (2 * height * limits[1] + width) // (2 * width)), limits[1]


def _find_canvases(sizes: list[tuple[int, int]], kwargs: dict[str, Any]) -> list[tuple[int, int]]:
    """Padded height and width of each image; one for all unless padding is off."""
    if not kwargs.get("do_pad"):
        return sizes
    height, width = (max(side) for side in zip(*sizes, strict=True))
    if (pad_size := kwargs.get("pad_size")) is not None:
        if not (pad_size.height and pad_size.width) or pad_size.height < height or pad_size.width < width:
            raise ValueError(f"pad_size must have height >= {height} and width >= {width}, got {dict(pad_size)}.")
        return [(pad_size.height, pad_size.width)] * len(sizes)
    divisor = kwargs.get("size_divisor") or 1
    return [(-(-height // divisor) * divisor, -(-width // divisor) * divisor)] * len(sizes)


def _pad(tensor: torch.Tensor, canvas: tuple[int, int]) -> torch.Tensor:
    height, width = tensor.shape[-2:]
    if (height, width) == canvas:
        return tensor
    padded = tensor.new_zeros((*tensor.shape[:-2], *canvas))
    padded[..., :height, :width] = tensor
    return padded


def _make_labels(
    maps: list[torch.Tensor], sizes: list[tuple[int, int]], canvases: list[tuple[int, int]]
) -> dict[str, list[torch.Tensor]]:
    objects = max(len(members) for members in maps)
    labels, masks = [], []
    for members, size, canvas in zip(maps, sizes, canvases, strict=True):
        label = torch.zeros((objects, *canvas))
        label[: len(members), : size[0], : size[1]] = resize_maps(members, size).clamp(0, 1)
        labels.append(label)
        masks.append(torch.arange(objects) < len(members))
    if all(mask.all() for mask in masks):
        return {"labels": labels}
    return {"labels": labels, "object_mask": masks}


def _pack(data: dict[str, list[torch.Tensor]], return_tensors: Any, as_numpy: bool) -> BatchFeature:
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
