"""The "referring-matting" pipeline: photo and prompt in, full-resolution alpha and clean cutout out."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from transformers import Pipeline
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME, ModelOutput

from .foreground_fclm import FOREGROUND_METHODS, make_cutout
from .image_processing_base_fclm import resize_maps
from .image_utils_fclm import convert_to_image, convert_to_tensor, is_open_file, open_image
from .processing_fclm import to_lists


# nesting of one object's prompt: points are a list of pairs, a box is a list of numbers
_OBJECT_DEPTHS = {"text": 0, "input_points": 2, "input_labels": 1, "input_boxes": 1}
_OBJECT_KEYS = ("input_points", "input_labels", "input_boxes", "input_ids", "attention_mask")
_ONE_IMAGE = (str, bytes, bytearray, memoryview, os.PathLike, Mapping, Image.Image, np.ndarray, torch.Tensor)
_FACTORY_KWARGS = {"local_files_only", "torch_dtype"}  # `transformers.pipeline` passes these on
_ROWS_PER_STRIP = 256
_PIXELS_PER_PASS = 4 * 1024 * 1024  # full-resolution features of this many pixels take about 2 GB


def decode_alphas(
    model: Any, image_embeddings: ModelOutput, inputs: Mapping[str, Any], objects_per_pass: int | None = None
) -> torch.Tensor:
    """Predict the alphas of any number of objects in one encoded image, a few at a time to bound the memory.

    Encode an image once with `model.get_image_embeddings`, call this for each set of prompts, and resize the alphas
    with `processor.post_process_image_matting`.

    Args:
        model ([`FCLMForImageMatting`]): The model.
        image_embeddings ([`FCLMImageEmbeddings`]): Embeddings of a batch of one image.
        inputs: Outputs of the processor for this image, or of [`FCLMProcessor.encode_prompts`]; only prompts are used.
        objects_per_pass (`int`, *optional*): Number of objects decoded at once. Defaults to as many as fit in about 2
            GB.

    Returns:
        `torch.FloatTensor` of shape `(num_objects, height, width)` in [0, 1] on the CPU, of the size of the resized
        image without padding.
    """
    prompts = {name: inputs[name].to(model.device) for name in _OBJECT_KEYS if name in inputs}
    height, width = image_embeddings.image_sizes[0].tolist()
    objects = max([1, *(values.shape[1] for values in prompts.values())])
    step = objects_per_pass or max(1, _PIXELS_PER_PASS // (height * width))
    alphas = []
    for start in range(0, objects, step):
        chunk = {name: values[:, start : start + step] for name, values in prompts.items()}
        outputs = model(image_embeddings=image_embeddings, **chunk)
        alphas.append(outputs.alphas[0, :, :height, :width].float().cpu())
    return torch.cat(alphas)


@dataclass
class _Sample:
    """One of several inputs, with its index for error messages."""

    index: int
    inputs: Any


class MattingResults(list):
    """List of the results of the objects in one image, each made when it is accessed.

    Mattes and cutouts of twenty objects in a photo of 24 megapixels would take 4 GB. So only the alphas that the model
    predicted are kept; `list(results)` makes and keeps all results.

    Args:
        image (`PIL.Image.Image`): The photo.
        alphas (`torch.FloatTensor` of shape `(1, num_objects, height, width)`): Alphas of the size the model saw.
        foreground (`str`, *optional*): How to estimate the colors of cutouts; None for no cutouts.

    Example:
        >>> import torch
        >>> from PIL import Image
        >>> from fclm_hf.pipeline_fclm import MattingResults
        >>> results = MattingResults(Image.new("RGB", (8, 6)), torch.ones(1, 2, 3, 4))
        >>> [result["alpha"].size for result in results]
        [(8, 6), (8, 6)]
    """

    def __init__(self, image: Image.Image, alphas: torch.Tensor, foreground: str | None = None):
        super().__init__(range(alphas.shape[1]))  # the number of an object stands for its result
        self.image, self.alphas, self.foreground = image, alphas, foreground

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        return self._make(super().__getitem__(index))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self._make, super().__iter__())

    def __reversed__(self) -> Iterator[dict[str, Any]]:
        return map(self._make, super().__reversed__())

    def __add__(self, other: list[Any]) -> list[Any]:
        return [*self, *other]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return list, (list(self),)

    def copy(self) -> list[dict[str, Any]]:
        """Make all results and return them in a plain list."""
        return list(self)

    def pop(self, index: Any = -1) -> dict[str, Any]:
        """Remove and return the result of an object.

        Args:
            index: Place of the result.
        """
        return self._make(super().pop(index))

    def _make(self, item: Any) -> Any:
        """Return the result of an object by its number; other items have been put into the list by a user."""
        if not isinstance(item, int):
            return item
        size = self.image.height, self.image.width
        predicted = self.alphas[0, item : item + 1].float()
        alpha = resize_maps(predicted, size)
        alpha = (alpha.clone() if alpha is predicted else alpha)[0].clamp_(0, 1)
        levels = quantize_alpha(alpha)
        result = {"alpha": Image.fromarray(levels), "predicted_alpha": alpha}
        if self.foreground is not None:
            result["cutout"] = make_cutout(self.image, levels, self.foreground)
        return result


def quantize_alpha(alpha: torch.Tensor) -> np.ndarray:
    """Return an alpha `(height, width)` in [0, 1] as uint8 in [0, 255], rounded a strip at a time."""
    levels = np.empty(tuple(alpha.shape), np.uint8)
    for start in range(0, len(levels), _ROWS_PER_STRIP):
        strip = slice(start, start + _ROWS_PER_STRIP)
        levels[strip] = (alpha[strip] * 255).round().to(torch.uint8).numpy()
    return levels


class ReferringMattingPipeline(Pipeline):
    """Pipeline that mattes what a text, a click or a box names or, without a prompt, the salient object.

    An input is an image (URL, path, bytes, open file, base64 string, PIL image, array or tensor), a dict `{"image":
    ..., "text": ..., "input_points": ..., "input_labels": ..., "input_boxes": ...}` with prompts of its own, or a list,
    generator or dataset of these. Prompts of the call apply to every image without prompts of that kind.

    Images of the same size in a batch are encoded together, and an image is encoded once for all of its objects.
    Results do not depend on `batch_size`.

    Args:
        model ([`FCLMForImageMatting`]): The model.
        processor ([`FCLMProcessor`]): The processor.
        tokenizer: Not used, as the processor holds it; the same applies to the next three arguments.
        feature_extractor: Not used.
        image_processor: Not used.
        video_processor: Not used.
        task (`str`, defaults to `""`): Name of the task, "referring-matting".
        device (`int`, `str` or `torch.device`, *optional*): Device of the model. Defaults to that of the model, or else
            the first GPU or the CPU.
        binary_output (`bool`, defaults to `False`): Not used.
        kwargs: Defaults for the arguments of a call.

    Example:
        >>> from PIL import Image, ImageDraw
        >>> from transformers import pipeline
        >>> import fclm_hf
        >>> matting = pipeline("referring-matting", device="cpu")
        >>> photo = Image.new("RGB", (96, 64), "navy")
        >>> ImageDraw.Draw(photo).ellipse((20, 10, 60, 50), fill="orange")
        >>> result = matting(photo, input_boxes=[20, 10, 60, 50])
        >>> result["cutout"].mode, result["cutout"].size
        ('RGBA', (96, 64))
        >>> result["predicted_alpha"].shape
        torch.Size([64, 96])
        >>> first, second = matting(photo, text=["a ball", "the sky"], cutout=False)
        >>> clicked = matting(photo, input_points=[[40, 30], [5, 5]], input_labels=[1, 0], cutout=False)
        >>> clicked["alpha"].mode
        'L'
        >>> results = matting([{"image": photo, "text": "a ball"}, photo], batch_size=2)
    """

    _load_processor = True
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __call__(
        self,
        images: Any = None,
        text: Any = None,
        input_points: Any = None,
        input_labels: Any = None,
        input_boxes: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Matte the objects of one or more images.

        With several kinds of prompts, all name the same objects in the same order, and None stands for an object
        without that kind.

        Args:
            images: An image, a dict with an image and its prompts, or a list, generator or dataset of these; see the
                class. A 4-dimensional array is a list of images.
            text: What to matte: a `str`, or a list of `str` for several objects.
            input_points: Clicks in pixels of the image: `[x, y]`, `[[x, y], ...]` on a single object, or nested as
                object > point > (x, y).
            input_labels: 1 for clicks on the object (the default), 0 for clicks on the background; nested as the
                clicks.
            input_boxes: `[x0, y0, x1, y1]` in pixels of the image, or a list of these for several objects.
            kwargs: Further settings:

                - **cutout** (`bool`, defaults to `True`): Whether to estimate foreground colors and return cutouts.
                - **foreground** (`str`, defaults to `"multiscale"`): How to estimate the colors of cutouts,
                  "multiscale" or "pymatting"; see [`~fclm_hf.foreground_fclm.estimate_foreground`].
                - **timeout** (`float`, *optional*): Longest wait for the server of a URL, in seconds. Defaults to 30.
                - **objects_per_pass** (`int`, *optional*): Number of objects decoded at once. Defaults to as many as
                  fit in about 2 GB.
                - **batch_size** (`int`, defaults to 1): Number of images encoded at once.
                - **num_workers** (`int`, defaults to 0): Number of processes that load images.

        Returns:
            For an image with one object a dict, for an image with several objects a list of dicts in their order
            ([`MattingResults`]), each made when it is accessed, so that many objects of a large photo fit in memory.
            For a list of images a list of these, for a generator or dataset an iterator. A dict holds

            - **alpha** (`PIL.Image.Image`): The alpha, of mode "L" and the size of the image (after EXIF rotation).
            - **predicted_alpha** (`torch.FloatTensor` of shape `(height, width)`): The alpha in [0, 1].
            - **cutout** (`PIL.Image.Image`): The object, of mode "RGBA", with the colors of the foreground alone.
              Absent with `cutout=False`.

        Raises:
            ValueError: If an image cannot be read or a prompt is invalid; the message names an image of a list by its
                index.
            TypeError: If an argument is unknown, or an input cannot be an image.
        """
        images = kwargs.pop("inputs", images)
        if images is None:
            raise TypeError("images must be an image, a dict with an image, or a list or generator of these, got None.")
        prompts = {"text": text, "input_points": input_points, "input_labels": input_labels, "input_boxes": input_boxes}
        kwargs.update({name: value for name, value in prompts.items() if value is not None})
        if isinstance(images, (np.ndarray, torch.Tensor)) and images.ndim == 4:
            images = list(images)
        if isinstance(images, (list, tuple)):
            if not images:
                return []
            images = [_Sample(index, each) for index, each in enumerate(images)]
        elif isinstance(images, Iterable) and not (isinstance(images, (*_ONE_IMAGE, Dataset)) or is_open_file(images)):
            images = (_Sample(index, each) for index, each in enumerate(images))
        return super().__call__(images, **kwargs)

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        places = dict.fromkeys((*_OBJECT_DEPTHS, "timeout"), 0) | {"objects_per_pass": 1, "cutout": 2, "foreground": 2}
        unknown = kwargs.keys() - places.keys() - _FACTORY_KWARGS
        if unknown:
            raise TypeError(
                f"Unknown arguments {sorted(unknown)}: expected any of {sorted(places)}, batch_size and num_workers."
            )
        objects = kwargs.get("objects_per_pass")
        if objects is not None and not (isinstance(objects, int) and objects >= 1):
            raise ValueError(f"objects_per_pass must be at least 1, got {objects!r}.")
        if kwargs.get("foreground", FOREGROUND_METHODS[0]) not in FOREGROUND_METHODS:
            raise ValueError(f"foreground must be one of {FOREGROUND_METHODS}, got {kwargs['foreground']!r}.")
        parameters: tuple[dict[str, Any], ...] = ({}, {}, {})
        for name, value in kwargs.items():
            if name in places:
                parameters[places[name]][name] = value
        return parameters

    def preprocess(self, inputs: Any, timeout: float | None = None, **prompts: Any) -> dict[str, Any]:
        """Load the image of an input and process it with its prompts.

        Args:
            inputs: An image, or a dict with an image and its prompts.
            timeout: Longest wait for the server of a URL, in seconds.
            prompts: Prompts of the call.

        Returns:
            The upright RGB image, and the model inputs in a dict of their own: collating would pad labels at the top
            level with 0, which is a click on the background.
        """
        if isinstance(inputs, _Sample):
            try:
                return self.preprocess(inputs.inputs, timeout, **prompts)
            except (TypeError, ValueError) as error:
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"inputs[{inputs.index}]: {error}") from error
        if isinstance(inputs, Mapping):
            inputs, prompts = _split_sample(inputs, prompts)
        image = open_image(inputs) if timeout is None else open_image(inputs, timeout=timeout)
        pixels = convert_to_tensor(image)
        features = self.processor(
            images=pixels, input_data_format="channels_first", **_nest_prompts(prompts), return_tensors="pt"
        )
        return {"features": dict(features), "image": _make_photo(pixels, image)}

    def _forward(self, model_inputs: dict[str, Any], objects_per_pass: int | None = None) -> dict[str, Any]:
        features, image = model_inputs["features"], model_inputs["image"]
        if isinstance(features, dict):
            return {"alphas": self._predict([features], objects_per_pass)[0][None], "image": image}
        return {"alphas": self._predict(features, objects_per_pass), "image": image}

    def _predict(self, samples: list[dict[str, torch.Tensor]], objects_per_pass: int | None) -> list[torch.Tensor]:
        """Return the alphas `(num_objects, height, width)` of each sample; images of one size are encoded together."""
        groups = defaultdict(list)
        for index, sample in enumerate(samples):
            groups[sample["pixel_values"].shape].append(index)
        alphas: list[torch.Tensor] = [torch.empty(0)] * len(samples)
        for indices in groups.values():
            embeddings = self.model.get_image_embeddings(
                torch.cat([samples[index]["pixel_values"] for index in indices]).to(self.model.dtype),
                torch.cat([samples[index]["pixel_mask"] for index in indices]),
            )
            for place, index in enumerate(indices):
                alphas[index] = decode_alphas(self.model, _select(embeddings, place), samples[index], objects_per_pass)
        return alphas

    def postprocess(
        self, model_outputs: dict[str, Any], cutout: bool = True, foreground: str = FOREGROUND_METHODS[0]
    ) -> "dict[str, Any] | MattingResults":
        """Resize the alphas of an image and make cutouts.

        Args:
            model_outputs: Alphas and image.
            cutout: Whether to make cutouts.
            foreground: How to estimate the colors of cutouts.

        Returns:
            A dict for one object, a list of dicts for several; see [`__call__`].
        """
        results = MattingResults(model_outputs["image"], model_outputs["alphas"], foreground if cutout else None)
        return results[0] if len(results) == 1 else results

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save the model and the processor.

        Code that came with the checkpoint is saved, too. To save a checkpoint with its code where this package is
        installed, use `fclm_hf.hub.export_checkpoint`.

        Args:
            save_directory: Folder, created if necessary.
            kwargs: Arguments of `save_pretrained` of the model and the processor.
        """
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)
        if __name__.startswith(TRANSFORMERS_DYNAMIC_MODULE_NAME):
            custom_object_save(self, save_directory)


def _split_sample(sample: Mapping[str, Any], prompts: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the image of a dict and its prompts; its own take precedence over those of the call."""
    if unknown := sample.keys() - _OBJECT_DEPTHS.keys() - {"image"}:
        raise ValueError(f"Unknown keys {sorted(unknown)} beside the image: expected any of {sorted(_OBJECT_DEPTHS)}.")
    if sample.get("image") is None:
        raise ValueError(f'A dict must have the key "image", got {sorted(sample)}.')
    return sample["image"], {**prompts, **{name: value for name, value in sample.items() if name != "image"}}


def _make_photo(pixels: torch.Tensor, source: Any) -> Image.Image:
    """Return RGB pixels as a PIL image, with the color profile of the image they come from if it still applies."""
    photo = convert_to_image(pixels)
    profile = source.info.get("icc_profile") if isinstance(source, Image.Image) else None
    if profile and profile[16:20] == b"RGB ":  # its color space, which is another for a CMYK or grayscale original
        photo.info["icc_profile"] = profile
    return photo


def _nest_prompts(prompts: dict[str, Any]) -> dict[str, Any]:
    """Nest the prompts of one image as the processor expects them, image > object > value."""
    nested = {}
    for name, value in prompts.items():
        if value is None:
            continue
        value, depth = to_lists(value), _OBJECT_DEPTHS[name]
        given = _measure_depth(value)
        if given == depth + 2 and len(value) == 1:  # it has an image level already
            value = value[0]
        elif given <= depth and not (given == 1 and all(each is None for each in value)):
            for _ in range(depth + 1 - given):  # one object, one click
                value = [value]
        nested[name] = [value]
    return nested


def _measure_depth(value: Any) -> int:
    """Return the number of levels of nested lists."""
    return 1 + max(map(_measure_depth, value), default=0) if isinstance(value, list) else 0


def _select(embeddings: ModelOutput, index: int) -> ModelOutput:
    """Return the embeddings of one image of a batch."""
    fields = {
        name: tuple(each[index : index + 1] for each in value) if isinstance(value, tuple) else value[index : index + 1]
        for name, value in embeddings.items()
    }
    return type(embeddings)(**fields)


__all__ = ["MattingResults", "ReferringMattingPipeline"]
