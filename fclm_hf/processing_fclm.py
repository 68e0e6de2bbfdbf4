"""Processor of FCLM: images with texts, points and boxes to what the model takes."""

from typing import Any

import torch
from transformers import BatchFeature
from transformers.image_utils import ImageInput
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, Unpack

from .image_utils_fclm import find_image_size, flatten_images
from .prompts_fclm import Prompts, check_prompts, has_flat_text, pad_prompts, scale_prompts
from .segmentation_maps_fclm import load_segmentation_maps


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
    """
    Image processor and CLIP tokenizer of FCLM in one.

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
        **kwargs: Unpack[FCLMProcessorKwargs],
    ) -> BatchFeature:
        """
        All coordinates are pixels of the original images, (0, 0) at the top left. `None` may stand for an image or an
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
            }
            if lonely := [name for name, value in given.items() if value is not None]:
                raise ValueError(f"{', '.join(lonely)}: given without images.")
            if text is None:
                raise ValueError("Give images, text or both.")
            return BatchFeature(dict(self.tokenizer(text, **text_kwargs)))

        samples = flatten_images(self.image_processor.fetch_images(images))
        layout = image_kwargs.get("input_data_format")
        sizes = [None if s is None else find_image_size(s, f"image {i}", layout) for i, s in enumerate(samples)]
        prompts = check_prompts(sizes, text, input_points, input_labels, input_boxes)
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
        if prompts.text is not None:
            tokens = self._tokenize(prompts, text_kwargs)
            if has_flat_text(text) and prompts.points is None and prompts.boxes is None:
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


__all__ = ["FCLMProcessor"]
