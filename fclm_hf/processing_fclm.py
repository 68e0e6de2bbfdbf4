"""Processor of FCLM: images, texts, points and boxes to model inputs."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from transformers import BatchFeature
from transformers.image_utils import ImageInput
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, Unpack
from transformers.utils import TensorType, logging

from .configuration_fclm import PROCESSOR_CLASSES, copy_code, keep_present
from .image_utils_fclm import find_image_size, flatten_images
from .prompts_fclm import Prompts, Size, check_prompts, has_flat_text, pad_prompts, scale_prompts, show
from .segmentation_maps_fclm import load_segmentation_maps


if TYPE_CHECKING:  # transformers fetches and saves the files of remote code that are named here, too
    from .image_processing_fclm import FCLMImageProcessor  # noqa: F401
    from .image_processing_pil_fclm import FCLMImageProcessorPil  # noqa: F401

logger = logging.get_logger(__name__)

_TOKENS = ("input_ids", "attention_mask")


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
        return_tensors = None if return_tensors is None else TensorType(return_tensors)
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
        if return_tensors == TensorType.NUMPY:
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
                    logger.warning(f"Only the first {kept} of {tokens} tokens of a text are used: {show(text)}.")


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
