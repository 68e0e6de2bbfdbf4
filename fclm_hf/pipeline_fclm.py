"""The "referring-matting" pipeline: photo and prompt in, full-resolution alpha and clean cutout out."""

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from transformers import Pipeline
from transformers.dynamic_module_utils import custom_object_save
from transformers.image_utils import ChannelDimension
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME, ModelOutput

from .foreground_fclm import FOREGROUND_METHODS
from .image_loading_fclm import is_undecoded
from .image_utils_fclm import (
    composite,
    convert_to_image,
    copy_metadata,
    is_open_file,
    open_image,
    split_transparency,
)
from .pipeline_prompts_fclm import (
    OBJECT_DEPTHS,
    check_shared,
    nest_prompts,
    pair_prompts,
    read_prompts,
    read_rows,
    split_sample,
)
from .pipeline_results_fclm import MattingResults
from .refinement_fclm import refine_alphas


_LOADING = ("input_data_format", "timeout", "max_pixels", "max_bytes")
_OBJECT_KEYS = ("input_points", "input_labels", "input_boxes", "input_ids", "attention_mask", "input_masks")
_ONE_IMAGE = (str, bytes, bytearray, memoryview, os.PathLike, Mapping, Image.Image, np.ndarray, torch.Tensor)
_FACTORY_KWARGS = {"local_files_only", "torch_dtype"}  # `transformers.pipeline` passes these on
_process = os.getpid()  # in a forked process, the one it was forked from until the first call
_PIXELS_PER_PASS = 4 * 1024 * 1024  # full-resolution features of this many pixels take about 2 GB
_BYTES_OF_RESULTS = 512 * 1024 * 1024  # of more than this, each result is made when it is accessed


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

    Raises:
        ValueError: If the tokens of a text are not in the vocabulary of the model.
    """
    prompts = {name: inputs[name] for name in _OBJECT_KEYS if name in inputs}
    _check_tokens(model, prompts)
    prompts = {name: values.to(model.device) for name, values in prompts.items()}
    height, width = image_embeddings.image_sizes[0].tolist()
    objects = max([1, *(values.shape[1] for values in prompts.values())])
    step = objects_per_pass or max(1, _PIXELS_PER_PASS // (height * width))
    mask = inputs.get("object_mask")
    if mask is not None and not mask.any():
        return torch.zeros(0, height, width)
    alphas = []
    for start in range(0, objects, step):
        chunk = {name: values[:, start : start + step] for name, values in prompts.items()}
        outputs = model(image_embeddings=image_embeddings, **chunk)
        alphas.append(outputs.alphas[0, :, :height, :width].float().cpu())
    return torch.cat(alphas)


def _check_tokens(model: Any, prompts: Mapping[str, torch.Tensor]) -> None:
    """Raise ValueError if the tokens of a text are not in the vocabulary of a model."""
    text_config, tokens = getattr(model.config, "text_config", None), prompts.get("input_ids")
    if text_config is None or tokens is None:
        return
    if int(tokens.min()) < 0 or int(tokens.max()) >= text_config.vocab_size:
        raise ValueError(
            f"input_ids must be in [0, {text_config.vocab_size - 1}], got {int(tokens.min())} to {int(tokens.max())}:"
            " the tokenizer does not fit the model."
        )


@dataclass
class _Sample:
    """One of several inputs, with its index for error messages and its share of the prompts of the call."""

    index: int
    inputs: Any
    prompts: dict[str, Any] = field(default_factory=dict)


class _Results(Iterator):
    """Results of a generator or dataset: an iterator, though that of transformers starts with `iter()` only."""

    def __init__(self, results: Iterable[Any]) -> None:
        self._results = results
        self._running: Iterator[Any] | None = None

    def __len__(self) -> int:
        return len(self._results)

    def __next__(self) -> Any:
        if self._running is None:
            self._running = iter(self._results)
        return next(self._running)


class ReferringMattingPipeline(Pipeline):
    """Pipeline that mattes what a text, a click or a box names or, without a prompt, the salient object.

    An input is an image (URL, path, bytes, open file, base64 string, PIL image, array or tensor), a dict `{"image":
    ..., "text": ..., "input_points": ..., "input_labels": ..., "input_boxes": ...}` with prompts of its own, or a list,
    generator or dataset of these. Further columns of a dict are ignored. An image may also be what
    `datasets.Image(decode=False)` gives, `{"bytes": ..., "path": ...}`.

    Prompts of the call apply to images without prompts of that kind. With a list of images, a text, a box or a click is
    that of every image, and lists pair up: n images take n prompts, as the processor does. One list of objects for all
    images is written `text=[["cat", "dog"]] * n`.

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

    def __init__(self, *args: Any, device: int | str | torch.device | None = None, **kwargs: Any) -> None:
        super().__init__(*args, device=device, **kwargs)
        if isinstance(device, int) and device >= 0 and self.device.type == "cpu":
            raise ValueError(f'device must be -1 or "cpu", as torch finds no GPU here, got {device}.')

    def __call__(
        self,
        images: Any = None,
        text: Any = None,
        input_points: Any = None,
        input_labels: Any = None,
        input_boxes: Any = None,
        input_masks: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Matte the objects of one or more images.

        With several kinds of prompts, all name the same objects in the same order, and None stands for an object
        without that kind.

        Args:
            images: An image, a dict with an image and its prompts, or a list, generator or dataset of these; see the
                class. A 4-dimensional array is a list of images.
            text: What to matte: a `str`, or a list of `str` for several objects. With a list of images, a `str` for all
                of them, a list with one `str` per image, or image > object > `str`; the following arguments likewise
                have one more level for the images.
            input_points: Clicks in pixels of the image: `[x, y]`, `[[x, y], ...]` on a single object, or nested as
                object > point > (x, y).
            input_labels: 1 for clicks on the object (the default), 0 for clicks on the background; nested as the
                clicks.
            input_boxes: `[x0, y0, x1, y1]` in pixels of the image, or a list of these for several objects; results of a
                detection pipeline of transformers are boxes, too. What lies outside the image is cut off. An empty
                list, or an array of shape (0, 4), stands for no objects.
            input_masks: Rough mask, trimap (0, 128 and 255 only) or earlier matte of the object, of the size of the
                image: a file, PIL image, array or tensor; or a list of these for several objects.
            kwargs: Further settings:

                - **cutout** (`bool`, defaults to `True`): Whether to estimate foreground colors and return cutouts.
                - **foreground** (`str`, defaults to `"multiscale"`): How to estimate the colors of cutouts,
                  "multiscale" or "pymatting"; see [`~fclm_hf.foreground_fclm.estimate_foreground`].
                - **input_data_format** (`str`, *optional*): Where the channels of arrays are, "channels_first" or
                  "channels_last". Without it the shape decides; where both are possible, they are last in uint8 arrays
                  and first in others, and a warning says so.
                - **timeout** (`float`, *optional*): Longest time that a download may take, in seconds. Defaults to 60.
                - **max_pixels** (`int`, *optional*): Largest number of pixels of an image. Defaults to 256 * 1024 *
                  1024, or to twice `PIL.Image.MAX_IMAGE_PIXELS` where that has been changed.
                - **max_bytes** (`int`, *optional*): Largest number of bytes of a file or download. Defaults to
                  1024 ** 3.
                - **objects_per_pass** (`int`, *optional*): Number of objects decoded at once. Defaults to as many as
                  fit in about 2 GB.
                - **refine** (`bool`, *optional*): Whether to take a second, closer look at each object, see
                  [`~fclm_hf.refinement_fclm.refine_alphas`]. Defaults to True if `config.refinement_size` is set.
                - **batch_size** (`int`, defaults to 1): Number of images encoded at once.
                - **num_workers** (`int`, defaults to 0): Number of processes that load images.

        Returns:
            For an image with one object a dict, for an image with several objects or none a list of dicts in their
            order. Where these take more than 512 MB, each is made when it is accessed ([`MattingResults`]), so that
            many objects of a large photo fit in memory. For a list of images a list of these, for a generator or
            dataset an iterator. A dict holds

            - **alpha** (`PIL.Image.Image`): The alpha, of mode "L" and the size of the image (after EXIF rotation).
            - **predicted_alpha** (`torch.FloatTensor` of shape `(height, width)`): The alpha in [0, 1].
            - **cutout** (`PIL.Image.Image`): The object, of mode "RGBA", with the colors of the foreground alone.
              Absent with `cutout=False`.

        Raises:
            ValueError: If an image cannot be read or a prompt is invalid; the message names an image of a list by its
                index.
            TypeError: If an argument is unknown, or an input cannot be an image.
        """
        _use_one_thread_after_fork()
        images = read_rows(kwargs.pop("inputs", images))
        _check_batches(kwargs)
        if images is None and "image" in kwargs:
            raise TypeError("Unknown argument 'image': did you mean 'images', or its first argument?")
        if images is None:
            raise TypeError("images must be an image, a dict with an image, or a list or generator of these, got None.")
        prompts = {
            "text": text,
            "input_points": input_points,
            "input_labels": input_labels,
            "input_boxes": input_boxes,
            "input_masks": input_masks,
        }
        prompts = {name: read_prompts(name, value) for name, value in prompts.items() if value is not None}
        if isinstance(images, (np.ndarray, torch.Tensor)) and images.ndim == 4:
            images = list(images)
        if isinstance(images, (list, tuple)):
            count = len(images)
            if not count:
                return []
            pairs = {name: pair_prompts(name, value, count) for name, value in prompts.items()}
            images = [
                _Sample(index, each, {name: values[index] for name, values in pairs.items()})
                for index, each in enumerate(images)
            ]
            return super().__call__(images, **kwargs)
        if isinstance(images, Dataset):
            return _Results(super().__call__(images, **kwargs, **check_shared(prompts, images)))
        if isinstance(images, Iterable) and not (isinstance(images, _ONE_IMAGE) or is_open_file(images)):
            pairs = {}
            if isinstance(images, Sequence):  # such as a column of `datasets`
                pairs = {name: pair_prompts(name, value, len(images)) for name, value in prompts.items()}
            else:
                kwargs |= check_shared(prompts, images)
            samples = (
                _Sample(index, each, {name: values[index] for name, values in pairs.items()})
                for index, each in enumerate(images)
            )
            return _Results(super().__call__(samples, **kwargs))
        return super().__call__(images, **kwargs, **prompts)

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        places = dict.fromkeys((*OBJECT_DEPTHS, *_LOADING), 0)
        places |= {"objects_per_pass": 1, "refine": 1, "cutout": 2, "foreground": 2}
        unknown = kwargs.keys() - places.keys() - _FACTORY_KWARGS
        if unknown:
            raise TypeError(
                f"Unknown arguments {sorted(unknown)}: expected any of {sorted(places)}, batch_size and num_workers."
            )
        objects = kwargs.get("objects_per_pass")
        if objects is not None and not (isinstance(objects, int) and objects >= 1):
            raise ValueError(f"objects_per_pass must be at least 1, got {objects!r}.")
        if kwargs.get("refine") and not self.model.config.refinement_size:
            raise ValueError("refine=True requires a checkpoint with config.refinement_size, got one without.")
        _check_loading(kwargs)
        if not isinstance(kwargs.get("cutout", True), bool):
            raise ValueError(f"cutout must be True or False, got {kwargs['cutout']!r}.")
        if kwargs.get("foreground", FOREGROUND_METHODS[0]) not in FOREGROUND_METHODS:
            raise ValueError(f"foreground must be one of {FOREGROUND_METHODS}, got {kwargs['foreground']!r}.")
        parameters: tuple[dict[str, Any], ...] = ({}, {}, {})
        for name, value in kwargs.items():
            if name in places:
                parameters[places[name]][name] = value
        return parameters

    def preprocess(
        self,
        inputs: Any,
        input_data_format: str | ChannelDimension | None = None,
        timeout: float | None = None,
        max_pixels: int | None = None,
        max_bytes: int | None = None,
        **prompts: Any,
    ) -> dict[str, Any]:
        """Load the image of an input and process it with its prompts.

        Args:
            inputs: An image, or a dict with an image and its prompts.
            input_data_format: Where the channels of arrays are, "channels_first" or "channels_last".
            timeout: Longest time that a download may take, in seconds.
            max_pixels: Largest number of pixels of an image.
            max_bytes: Largest number of bytes of a file or download.
            prompts: Prompts of the call.

        Returns:
            The upright image, RGB or with its transparency RGBA, and the model inputs in a dict of their own: collating
            would pad labels at the top level with 0, which is a click on the background.
        """
        limits = {"timeout": timeout, "max_pixels": max_pixels, "max_bytes": max_bytes}
        if isinstance(inputs, _Sample):
            try:
                return self.preprocess(inputs.inputs, input_data_format, **limits, **{**prompts, **inputs.prompts})
            except (TypeError, ValueError) as error:
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"inputs[{inputs.index}]: {error}") from error
        inputs = read_rows(inputs)
        if isinstance(inputs, Mapping) and not is_undecoded(inputs):
            inputs, prompts = split_sample(inputs, prompts)
        image = open_image(inputs, **limits)
        colors, opacity = split_transparency(image, input_data_format)
        features = self.processor(
            images=composite(colors, opacity),
            input_data_format="channels_first",
            **nest_prompts(prompts),
            return_tensors="pt",
        )
        return {"features": dict(features), "image": _make_photo(colors, opacity, image)}

    def _forward(
        self, model_inputs: dict[str, Any], objects_per_pass: int | None = None, refine: bool | None = None
    ) -> dict[str, Any]:
        features, image = model_inputs["features"], model_inputs["image"]
        samples = [features] if isinstance(features, dict) else features
        with _evaluate(self.model):
            alphas = self._predict(samples, objects_per_pass, refine is not False)
        return {"alphas": alphas[0][None] if isinstance(features, dict) else alphas, "image": image}

    def _predict(
        self, samples: list[dict[str, torch.Tensor]], objects_per_pass: int | None, refine: bool
    ) -> list[torch.Tensor]:
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
                sample, own = samples[index], _select(embeddings, place)
                alphas[index] = decode_alphas(self.model, own, sample, objects_per_pass)
                if refine:
                    alphas[index] = refine_alphas(
                        self.model, sample["pixel_values"], alphas[index], sample, image_embeddings=own
                    )
        return alphas

    def postprocess(
        self, model_outputs: dict[str, Any], cutout: bool = True, foreground: str = FOREGROUND_METHODS[0]
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Resize the alphas of an image and make cutouts.

        Args:
            model_outputs: Alphas and image.
            cutout: Whether to make cutouts.
            foreground: How to estimate the colors of cutouts.

        Returns:
            A dict for one object, a list of dicts for several; see [`__call__`].
        """
        results = MattingResults(model_outputs["image"], model_outputs["alphas"], foreground if cutout else None)
        if len(results) == 1:
            return results[0]
        return results if results.count_bytes() > _BYTES_OF_RESULTS else list(results)

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


@contextlib.contextmanager
def _evaluate(model: Any) -> Iterator[None]:
    """Let a model that is in training mode compute as in evaluation; its batch norms would learn from the photos."""
    training = [each for each in model.modules() if each.training] if getattr(model, "training", False) else []
    for each in training:
        each.training = False
    try:
        yield
    finally:
        for each in training:
            each.training = True


def _use_one_thread_after_fork() -> None:
    """Let torch use one thread in a process that was forked from one that has run it, as workers of a DataLoader do.

    The threads of OpenMP do not survive a fork, so that the next operation that is split among them never ends. A
    number of threads that is set after the first call is kept.
    """
    global _process
    if _process != os.getpid():
        _process = os.getpid()
        torch.set_num_threads(1)


def _check_batches(settings: Mapping[str, Any]) -> None:
    """Raise ValueError for an invalid number of images per batch or of processes."""
    for name, least in (("batch_size", 1), ("num_workers", 0)):
        value = settings.get(name)
        if value is not None and not (isinstance(value, int) and not isinstance(value, bool) and value >= least):
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}.")


def _check_loading(settings: Mapping[str, Any]) -> None:
    """Raise ValueError for an invalid setting of how images are loaded."""
    for name in ("timeout", "max_pixels", "max_bytes"):
        value = settings.get(name)
        if value is not None and not (isinstance(value, (int, float)) and value > 0):
            raise ValueError(f"{name} must be a positive number, got {value!r}.")
    if settings.get("input_data_format") not in (None, "channels_first", "channels_last"):
        raise ValueError(
            f'input_data_format must be "channels_first" or "channels_last", got {settings["input_data_format"]!r}.'
        )


def _make_photo(colors: torch.Tensor, opacity: torch.Tensor | None, source: Any) -> Image.Image:
    """Return an RGB or RGBA image, with the resolution and color profile of the image it comes from."""
    photo = convert_to_image(colors, opacity)
    copy_metadata(source, photo)
    return photo


def _select(embeddings: ModelOutput, index: int) -> ModelOutput:
    """Return the embeddings of one image of a batch."""
    fields = {
        name: tuple(each[index : index + 1] for each in value) if isinstance(value, tuple) else value[index : index + 1]
        for name, value in embeddings.items()
    }
    return type(embeddings)(**fields)


__all__ = ["ReferringMattingPipeline"]
