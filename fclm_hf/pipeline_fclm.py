"""The "referring-matting" pipeline: photo and prompt in, full-resolution alpha and clean cut-out out."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from huggingface_hub.utils import httpx
from PIL import Image
from torch.utils.data import Dataset
from transformers import Pipeline
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME, ModelOutput

from .foreground_fclm import make_cutout
from .image_utils_fclm import is_open_file, load_image, open_image
from .processing_fclm import to_lists


# how deep one object's prompt is nested: points are a list of pairs, a box is a list of numbers
_OBJECT_DEPTHS = {"text": 0, "input_points": 2, "input_labels": 1, "input_boxes": 1, "input_masks": 0}
_OBJECT_KEYS = ("input_points", "input_labels", "input_boxes", "input_ids", "attention_mask", "input_masks")
_ONE_IMAGE = (str, bytes, bytearray, memoryview, os.PathLike, Mapping, Image.Image, np.ndarray, torch.Tensor)
_FACTORY_KWARGS = {"local_files_only", "torch_dtype"}  # `transformers.pipeline` hands these through
_PIXELS_PER_PASS = 4 * 1024 * 1024  # full-resolution features of this many pixels take about 2 GB


@dataclass
class _Sample:
    """One of several inputs, with its place for error messages."""

    index: int
    inputs: Any


class ReferringMattingPipeline(Pipeline):
    """Cut out what is named, clicked or boxed, or, without a prompt, what stands out.

    ```python
    >>> matting = pipeline("referring-matting")
    >>> matting("cat.jpg", text="a cat")["cutout"].save("cat.png")
    >>> matting("cat.jpg", input_boxes=[[40, 20, 400, 290]])
    >>> matting("cat.jpg", input_points=[[200, 150], [30, 30]], input_labels=[1, 0])
    >>> matting("cat.jpg", input_masks="rough.png")
    >>> cat, dog = matting("pets.jpg", text=["a cat", "a dog"])
    >>> matting([{"image": "cat.jpg", "text": "a cat"}, "dog.jpg"], batch_size=2)
    ```

    What it takes: an image (URL, path, bytes, open file, PIL image, array, tensor), a dict `{"image": ..., "text": ...,
    "input_points": ..., "input_labels": ..., "input_boxes": ..., "input_masks": ...}` that brings its own prompts, or a list, generator or
    dataset of these. Prompts of the call go to every image that does not bring its own of that kind.

    What it gives: for an image with exactly one object a dict, for one with several objects a list of dicts in their
    order; for a list of images a list of these, for a generator or dataset an iterator. Each dict holds

    - `alpha`: PIL image, mode "L", at the size of the image (after EXIF rotation);
    - `predicted_alpha`: float32 tensor (H, W) in [0, 1];
    - `cutout`: PIL image, mode "RGBA", with the colours of the foreground alone. Absent with `cutout=False`.

    Results do not depend on `batch_size`.
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
        input_masks: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Args:
            images: see the class.
            text: what to cut out, a str, or a list of several objects.
            input_points: clicks in pixels of the image, `[[x, y], ...]` on one object, or object > point > (x, y).
            input_labels: 1 for clicks on the object (the default), 0 beside it: nested as the clicks without (x, y).
            input_boxes: object > (x0, y0, x1, y1), or one box.
            input_masks: rough mask, trimap (0, 128 and 255 only) or earlier matte of the object, of the image's size:
                file, PIL image, array or tensor (height, width); or a list of these for several objects.
            cutout (`bool`, defaults to `True`): estimate foreground colours and give cut-outs.
            timeout (`float`, *optional*): seconds to wait for an image behind a URL.
            objects_per_pass (`int`, *optional*): objects decoded at once. Default: as many as fit in a few GB.
            batch_size (`int`, defaults to 1): images encoded at once.
            num_workers (`int`, defaults to 0): processes that load images.

            With several kinds of prompts, all name the same objects, in the same order; None stands for an object
            without this kind.

        Raises:
            ValueError: an image cannot be read or a prompt is not accepted; names the image of a list by its number.
            TypeError: an unknown argument, or nothing that can be an image.
        """
        images = kwargs.pop("inputs", images)
        if images is None:
            raise TypeError("images is missing: give an image, a dict with an image, or a list or generator of these.")
        prompts = {
            "text": text,
            "input_points": input_points,
            "input_labels": input_labels,
            "input_boxes": input_boxes,
            "input_masks": input_masks,
        }
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
        places = dict.fromkeys((*_OBJECT_DEPTHS, "timeout"), 0) | {"objects_per_pass": 1, "cutout": 2}
        unknown = kwargs.keys() - places.keys() - _FACTORY_KWARGS
        if unknown:
            raise TypeError(
                f"Unknown arguments {sorted(unknown)}, accepted are {sorted(places)}, batch_size, num_workers."
            )
        objects = kwargs.get("objects_per_pass")
        if objects is not None and not (isinstance(objects, int) and objects >= 1):
            raise ValueError(f"objects_per_pass must be at least 1, got {objects!r}.")
        parameters: tuple[dict[str, Any], ...] = ({}, {}, {})
        for name, value in kwargs.items():
            if name in places:
                parameters[places[name]][name] = value
        return parameters

    def preprocess(self, inputs: Any, timeout: float | None = None, **prompts: Any) -> dict[str, Any]:
        """The image and what the model takes, nested: collating would pad labels at the top level with 0, a click."""
        if isinstance(inputs, _Sample):
            try:
                return self.preprocess(inputs.inputs, timeout, **prompts)
            except (TypeError, ValueError) as error:
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"inputs[{inputs.index}]: {error}") from error
        if isinstance(inputs, Mapping):
            inputs, prompts = _split_sample(inputs, prompts)
        image = _load(inputs, timeout)
        features = self.processor(images=image, **_nest_prompts(prompts), return_tensors="pt")
        return {"features": dict(features), "image": image}

    def _forward(self, model_inputs: dict[str, Any], objects_per_pass: int | None = None) -> dict[str, Any]:
        features, image = model_inputs["features"], model_inputs["image"]
        if isinstance(features, dict):
            return {"alphas": self._predict([features], objects_per_pass)[0][None], "image": image}
        return {"alphas": self._predict(features, objects_per_pass), "image": image}

    def _predict(self, samples: list[dict[str, torch.Tensor]], objects_per_pass: int | None) -> list[torch.Tensor]:
        """float32 alphas (objects, height, width) of each sample. Images of one size are encoded together."""
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
                prompts = {name: samples[index][name] for name in _OBJECT_KEYS if name in samples[index]}
                alphas[index] = self._decode(_select(embeddings, place), prompts, objects_per_pass)
        return alphas

    def _decode(
        self, embeddings: ModelOutput, prompts: dict[str, torch.Tensor], objects_per_pass: int | None
    ) -> torch.Tensor:
        """float32 alphas (objects, height, width) on the CPU, a few objects at a time to bound the memory."""
        height, width = embeddings.image_sizes[0].tolist()
        objects = max([1, *(values.shape[1] for values in prompts.values())])
        step = objects_per_pass or max(1, _PIXELS_PER_PASS // (height * width))
        alphas = []
        for start in range(0, objects, step):
            chunk = {name: values[:, start : start + step] for name, values in prompts.items()}
            outputs = self.model(image_embeddings=embeddings, **chunk)
            alphas.append(outputs.alphas[0, :, :height, :width].float().cpu())
        return torch.cat(alphas)

    def postprocess(self, model_outputs: dict[str, Any], cutout: bool = True) -> dict[str, Any] | list[dict[str, Any]]:
        """One dict per object, not in a list if there is only one; see the class."""
        image = model_outputs["image"]
        outputs = {"alphas": model_outputs["alphas"]}
        alphas = self.processor.post_process_image_matting(outputs, [(image.height, image.width)])[0]["alpha"]
        results = []
        for alpha in alphas:
            matte = Image.fromarray((alpha * 255).round().to(torch.uint8).numpy())
            result = {"alpha": matte, "predicted_alpha": alpha}
            if cutout:
                result["cutout"] = make_cutout(image, alpha)
            results.append(result)
        return results[0] if len(results) == 1 else results

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Saves model and processor; code goes along if it came with the checkpoint. To save a checkpoint with its code
        where this package is installed, see `fclm_hf.hub.export_checkpoint`.
        """
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)
        if __name__.startswith(TRANSFORMERS_DYNAMIC_MODULE_NAME):
            custom_object_save(self, save_directory)


def _split_sample(sample: Mapping[str, Any], prompts: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The image of a dict, and its prompts: its own before those of the call."""
    if unknown := sample.keys() - _OBJECT_DEPTHS.keys() - {"image"}:
        raise ValueError(f"Unknown keys {sorted(unknown)} beside the image, accepted are {sorted(_OBJECT_DEPTHS)}.")
    if sample.get("image") is None:
        raise ValueError(f'A dict needs the key "image", got {sorted(sample)}.')
    return sample["image"], {**prompts, **{name: value for name, value in sample.items() if name != "image"}}


def _load(image: Any, timeout: float | None) -> Image.Image:
    """Upright 8-bit RGB image that keeps its colour profile if that still applies."""
    if timeout is not None and isinstance(image, str) and image.startswith(("http://", "https://")):
        image = _download(image, timeout)
    opened = open_image(image)
    rgb = load_image(opened)
    profile = opened.info.get("icc_profile") if isinstance(opened, Image.Image) else None
    if profile and profile[16:20] == b"RGB ":  # its colour space: not that of a CMYK or grey original
        rgb.info["icc_profile"] = profile
    return rgb


def _download(url: str, timeout: float) -> bytes:
    try:
        response = httpx.get(url, timeout=timeout, follow_redirects=True, headers={"User-Agent": "fclm-hf"})
        response.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ValueError(f"The image at {url} cannot be downloaded: {error}.") from error
    return response.content


def _nest_prompts(prompts: dict[str, Any]) -> dict[str, Any]:
    """Prompts of one image as the processor takes them, image > object > value."""
    nested = {}
    for name, value in prompts.items():
        if value is None:
            continue
        if name == "input_masks":
            nested[name] = [_list_objects(value)]
            continue
        value, depth = to_lists(value), _OBJECT_DEPTHS[name]
        given = _measure_depth(value)
        if given == depth + 2 and len(value) == 1:  # the image level is there already
            value = value[0]
        elif given <= depth and not (given == 1 and all(each is None for each in value)):
            for _ in range(depth + 1 - given):  # one object, one click
                value = [value]
        nested[name] = [value]
    return nested


def _list_objects(masks: Any) -> list[Any]:
    """The masks of one image as a list, one per object; an image level is taken away."""
    while isinstance(masks, (list, tuple)) and len(masks) == 1 and isinstance(masks[0], (list, tuple)):
        masks = masks[0]
    if isinstance(masks, (np.ndarray, torch.Tensor)):
        while masks.ndim > 3 and len(masks) == 1:
            masks = masks[0]
        return [masks] if masks.ndim == 2 else list(masks)
    return list(masks) if isinstance(masks, (list, tuple)) else [masks]


def _measure_depth(value: Any) -> int:
    return 1 + max(map(_measure_depth, value), default=0) if isinstance(value, list) else 0


def _select(embeddings: ModelOutput, index: int) -> ModelOutput:
    """The embeddings of one image of a batch."""
    fields = {
        name: tuple(each[index : index + 1] for each in value) if isinstance(value, tuple) else value[index : index + 1]
        for name, value in embeddings.items()
    }
    return type(embeddings)(**fields)


__all__ = ["ReferringMattingPipeline"]
