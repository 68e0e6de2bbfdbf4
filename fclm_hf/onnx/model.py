"""The exported model: the three graphs in ONNX Runtime behind the interface of the PyTorch model."""

import json
import os
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .details import BASIS, MAPS, crop_details
from .graphs import IMAGE_ENCODER, MASK_ENCODER, PROMPT_DECODER, SUBFOLDER, TEXT_ENCODER, OnnxGraphs
from .prompts import (
    count_objects,
    find_absent,
    keep_known_pixels,
    prepare_masks,
    prepare_text_prompts,
    prepare_visual_prompts,
)


if TYPE_CHECKING:
    from ..configuration_fclm import FCLMConfig


class _Fields(dict):
    """Dict whose items are attributes, too, as those of `transformers.utils.ModelOutput`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no field {name!r}") from None


class OnnxImageEmbeddings(_Fields):
    """Everything the decoder needs of the images, independent of the prompts.

    Args:
        kwargs: The outputs of the image encoder by name, and `image_sizes` (int64 of shape `(batch_size, 2)`).

    Example:
        >>> import numpy as np
        >>> from fclm_hf.onnx import OnnxImageEmbeddings
        >>> OnnxImageEmbeddings(image_sizes=np.array([[64, 96]])).image_sizes.tolist()
        [[64, 96]]
    """

    def crop_details(self, left: int, top: int, right: int, bottom: int) -> tuple[Any, ...]:
        """Return the maps of the detail path of a part of the images, as [`FCLMImageEmbeddings.crop_details`] does.

        Args:
            left: Left border in pixels, a multiple of 8.
            top: Upper border in pixels, a multiple of 8.
            right: Right border in pixels, inside the images.
            bottom: Lower border in pixels, inside the images.

        Returns:
            The maps in the order of the outputs of the image encoder, of the type of the embeddings.
        """
        arrays = {name: _to_array(value) for name, value in self.items()}
        cropped = crop_details(arrays, left, top, right, bottom)
        return tuple((_to_tensors(cropped) if any(map(_is_tensor, self.values())) else cropped).values())


class OnnxImageMattingOutput(_Fields):
    """Output of [`OnnxFCLMForImageMatting`].

    Args:
        kwargs: `alphas` (float32 of shape `(batch_size, num_objects, height, width)` in [0, 1]; 0 on padding and for
            padding objects), `image_sizes` (int64 of shape `(batch_size, 2)`), `text_scores` (float32 of shape
            `(batch_size, num_objects)`), if texts were given and the model has a semantic head, and `object_mask`, if
            it was given.

    Example:
        >>> import numpy as np
        >>> from fclm_hf.onnx import OnnxImageMattingOutput
        >>> OnnxImageMattingOutput(alphas=np.zeros((1, 1, 64, 96))).alphas.shape
        (1, 1, 64, 96)
    """


class OnnxFCLMForImageMatting:
    """FCLM in ONNX Runtime: an alpha matte of each object that a text, clicks, a box or a mask name.

    It takes the inputs of [`FCLMForImageMatting`] and does not import torch: arrays in, arrays out. If an input is a
    torch tensor, so are the outputs; thus it works in `pipeline("referring-matting", model=..., processor=...)`. The
    processor, the pipeline and the command line still need torch.

    Args:
        folder: Folder with the graphs that `fclm export-onnx` wrote.
        providers: Execution providers of ONNX Runtime, best first. Defaults to all that are available.
        session_options: `onnxruntime.SessionOptions`, such as the number of threads.

    Raises:
        ImportError: If ONNX Runtime is not installed.
        OSError: If a graph is missing.

    Example:
        >>> from fclm_hf.onnx import OnnxFCLMForImageMatting
        >>> model = OnnxFCLMForImageMatting.from_pretrained("path/to/onnx")  # doctest: +SKIP
        >>> embeddings = model.get_image_embeddings(pixel_values)  # doctest: +SKIP
        >>> model(image_embeddings=embeddings, input_boxes=boxes).alphas.shape  # doctest: +SKIP
        (1, 1, 64, 96)
    """

    main_input_name = "pixel_values"
    input_modalities = ("image", "text")

    def __init__(
        self,
        folder: str | os.PathLike,
        providers: Sequence[Any] | None = None,
        session_options: Any = None,
    ) -> None:
        self._graphs = OnnxGraphs(folder, providers, session_options)
        self.name_or_path = str(folder)

    @classmethod
    def from_pretrained(
        cls,
        folder_or_repo: str | os.PathLike,
        providers: Sequence[Any] | None = None,
        revision: str | None = None,
        session_options: Any = None,
    ) -> "OnnxFCLMForImageMatting":
        """Load the graphs of a folder, or of the `onnx` folder of a Hub repository.

        Args:
            folder_or_repo: Folder that `fclm export-onnx` wrote, or Hub repository that `fclm push` uploaded it to.
            providers: Execution providers of ONNX Runtime, best first. Defaults to all that are available.
            revision: Branch, tag or commit of the repository.
            session_options: `onnxruntime.SessionOptions`, such as the number of threads. Defaults to those of
                [`~fclm_hf.onnx.graphs.make_session_options`].

        Returns:
            The model.

        Raises:
            ImportError: If ONNX Runtime is not installed.
            OSError: If there is no such folder or repository, or a graph is missing.
        """
        if not Path(folder_or_repo).is_dir():
            from huggingface_hub import snapshot_download

            patterns = [f"{SUBFOLDER}/*.onnx", "*.json"]
            folder_or_repo = snapshot_download(str(folder_or_repo), revision=revision, allow_patterns=patterns)
        return cls(folder_or_repo, providers, session_options)

    @cached_property
    def config(self) -> "FCLMConfig":
        """The configuration, read when it is first needed, as its class needs transformers."""
        from ..configuration_fclm import FCLMConfig

        config = FCLMConfig.from_pretrained(self._find_config().parent)
        if not self._takes_encoder_size:  # of an older export
            config.refinement_size = config.tile_size = None
        return config

    @property
    def device(self) -> Any:
        """The device of inputs and outputs, always the CPU, whatever the provider: of torch if it has been imported."""
        torch = sys.modules.get("torch")
        return "cpu" if torch is None else torch.device("cpu")

    @property
    def dtype(self) -> Any:
        """The dtype of inputs and outputs: that of torch if it has been imported."""
        torch = sys.modules.get("torch")
        return np.dtype(np.float32) if torch is None else torch.float32

    def to(self, *args: Any, **kwargs: Any) -> "OnnxFCLMForImageMatting":
        """Return the model as it is: providers decide where it runs."""
        return self

    def eval(self) -> "OnnxFCLMForImageMatting":
        """Return the model as it is: graphs cannot be trained."""
        return self

    def can_generate(self) -> bool:
        """Return False: this is no language model."""
        return False

    def get_image_embeddings(
        self,
        pixel_values: np.ndarray,
        pixel_mask: np.ndarray | None = None,
        encoder_size: int | None = None,
        detail_maps: Sequence[np.ndarray] | None = None,
    ) -> OnnxImageEmbeddings:
        """Encode images once; pass the result as `image_embeddings` for any number of prompts.

        Args:
            pixel_values: Normalized images of shape (batch_size, 3, height, width), padded at the bottom and right.
            pixel_mask: Mask of shape (batch_size, height, width), 1 on the image and 0 on padding; None for images
                without padding.
            encoder_size: Side of the encoder input. Defaults to `config.encoder_size`; others are for models with
                `config.refinement_size`.
            detail_maps: Maps of these images, see [`OnnxImageEmbeddings.crop_details`]; the detail path then does not
                run.

        Returns:
            The embeddings.

        Raises:
            ValueError: If an argument has the wrong shape, or the encoder input another size than the graphs take.
        """
        is_tensor = _is_tensor(pixel_values)
        pixels = np.ascontiguousarray(_to_array(pixel_values), np.float32)
        if pixels.ndim != 4 or pixels.shape[1] != 3:
            raise ValueError(f"pixel_values must have shape (batch_size, 3, height, width), got {pixels.shape}.")
        image_sizes = _find_image_sizes(pixels.shape, _to_array(pixel_mask))
        feeds = {"pixel_values": pixels, "image_sizes": image_sizes}
        default = self._fields["encoder_size"]
        if encoder_size not in (None, default) and not self._takes_encoder_size:
            raise ValueError(f"encoder_size must be {default}, which is fixed in these graphs, got {encoder_size}.")
        feeds["encoder_size"] = np.array(encoder_size or default)
        names = [each.name for each in self._graphs.open(IMAGE_ENCODER).get_outputs()]
        given: dict[str, np.ndarray] = {}
        if detail_maps is not None:
            details = [name for name in names if name.startswith((BASIS, MAPS))]
            given = {name: _to_array(maps) for name, maps in zip(details, detail_maps, strict=True)}
        computed = self._graphs.run(IMAGE_ENCODER, feeds, [name for name in names if name not in given])
        outputs = {**{name: (computed | given)[name] for name in names}, "image_sizes": image_sizes}
        return OnnxImageEmbeddings(**(_to_tensors(outputs) if is_tensor else outputs))

    def get_text_features(self, input_ids: np.ndarray) -> np.ndarray:
        """Embed texts with the CLIP text tower.

        Args:
            input_ids: CLIP tokens of shape (num_texts, sequence_length).

        Returns:
            Embeddings of shape (num_texts, projection_dim).
        """
        ids = np.ascontiguousarray(_to_array(input_ids), np.int64)
        outputs = self._graphs.run(TEXT_ENCODER, {"input_ids": ids})
        return (_to_tensors(outputs) if _is_tensor(input_ids) else outputs)["text_embeds"]

    def __call__(
        self,
        pixel_values: np.ndarray | None = None,
        pixel_mask: np.ndarray | None = None,
        input_points: np.ndarray | None = None,
        input_labels: np.ndarray | None = None,
        input_boxes: np.ndarray | None = None,
        input_ids: np.ndarray | None = None,
        attention_mask: np.ndarray | None = None,
        object_mask: np.ndarray | None = None,
        image_embeddings: OnnxImageEmbeddings | None = None,
        text_embeds: np.ndarray | None = None,
        input_masks: np.ndarray | None = None,
        **kwargs: Any,
    ) -> OnnxImageMattingOutput:
        """Predict the alpha matte of each prompted object; for the arguments see [`FCLMForImageMatting.forward`].

        Args:
            pixel_values: Normalized images.
            pixel_mask: Mask of the images.
            input_points: Clicks.
            input_labels: Labels of the clicks.
            input_boxes: Boxes.
            input_ids: Tokens of the texts.
            attention_mask: Mask of the tokens.
            object_mask: Mask of the objects.
            image_embeddings: Output of [`get_image_embeddings`], in place of `pixel_values` and `pixel_mask`.
            text_embeds: Output of [`get_text_features`] for `input_ids`.
            input_masks: Rough masks, trimaps or earlier mattes.
            kwargs: Ignored, such as the `original_sizes` of the processor.

        Returns:
            The alphas, of the type of the inputs.

        Raises:
            ValueError: If neither or both of `pixel_values` and `image_embeddings` are given, an argument has the wrong
                shape, or the prompts disagree on the number of objects.
        """
        if (pixel_values is None) == (image_embeddings is None):
            raise ValueError(
                "Exactly one of pixel_values and image_embeddings must be given, "
                f"got {'neither' if pixel_values is None else 'both'}."
            )
        if image_embeddings is None:
            image_embeddings = self.get_image_embeddings(pixel_values, pixel_mask)
        prompts = {
            "input_points": input_points,
            "input_labels": input_labels,
            "input_boxes": input_boxes,
            "input_ids": input_ids,
            "attention_mask": attention_mask if input_ids is not None else None,
            "object_mask": object_mask,
            "input_masks": input_masks,
            "text_embeds": text_embeds,
        }
        is_tensor = any(map(_is_tensor, [*image_embeddings.values(), *prompts.values()]))
        embeddings = {name: _to_array(value) for name, value in image_embeddings.items()}
        outputs = self._decode(embeddings, {name: _to_array(value) for name, value in prompts.items()})
        if object_mask is not None:
            outputs["object_mask"] = _to_array(object_mask)
        return OnnxImageMattingOutput(**(_to_tensors(outputs) if is_tensor else outputs))

    forward = __call__

    def _decode(self, embeddings: dict[str, np.ndarray], prompts: dict[str, np.ndarray | None]) -> dict[str, Any]:
        """Run the decoder."""
        batch_size, _, height, width = embeddings["pixel_mask"].shape
        num_objects = count_objects(batch_size, prompts)
        visual = [prompts[name] for name in ("input_points", "input_labels", "input_boxes")]
        feeds = {
            **prepare_visual_prompts(batch_size, num_objects, *visual),
            **prepare_text_prompts(batch_size, num_objects, *self._embed_texts(prompts), self._projection_dim),
        }
        masks = prompts["input_masks"]
        if masks is None:
            outputs = self._graphs.run(PROMPT_DECODER, {**embeddings, **feeds})
        else:
            masks = prepare_masks(batch_size, num_objects, masks, height, width)
            outputs = self._decode_masked(embeddings, feeds, masks)
            outputs["alphas"] = keep_known_pixels(outputs["alphas"], masks) * embeddings["pixel_mask"]
        alphas = outputs["alphas"]
        if prompts["object_mask"] is not None:
            alphas = alphas * prompts["object_mask"].astype(alphas.dtype)[..., None, None]
        if prompts["input_ids"] is None:
            outputs.pop("text_scores", None)
        elif "text_scores" in outputs and self._fields["text_score_threshold"] is not None:
            absent = find_absent(prompts, outputs["text_scores"], self._fields["text_score_threshold"])
            alphas = alphas * ~absent[..., None, None]
        return {**outputs, "alphas": alphas, "image_sizes": embeddings["image_sizes"]}

    def _decode_masked(
        self, embeddings: dict[str, np.ndarray], feeds: dict[str, np.ndarray], masks: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Decode objects with masks, one after the other: a mask is added to the maps of its image."""
        outputs: dict[str, np.ndarray] = {}
        for place in np.ndindex(masks.shape[:2]):
            image, one = slice(place[0], place[0] + 1), slice(place[1], place[1] + 1)
            own = {name: value[image] for name, value in embeddings.items()}
            masked = self._graphs.run(MASK_ENCODER, {**own, "input_masks": masks[image, one]})
            own |= {name.removeprefix("masked_"): value for name, value in masked.items()}
            prompts = {name: value[image, one] for name, value in feeds.items()}
            for name, value in self._graphs.run(PROMPT_DECODER, {**own, **prompts}).items():
                outputs.setdefault(name, np.empty((*masks.shape[:2], *value.shape[2:]), value.dtype))[place] = value[
                    0, 0
                ]
        return outputs

    def _embed_texts(self, prompts: dict[str, np.ndarray | None]) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Return text embeddings and the mask of their tokens, both with a dimension of objects, or None twice."""
        ids, text_embeds, mask = (prompts[name] for name in ("input_ids", "text_embeds", "attention_mask"))
        if ids is None:
            if text_embeds is not None:
                raise ValueError("text_embeds requires input_ids, got text_embeds alone.")
            return None, None
        mask = np.ones_like(ids) if mask is None else mask
        if text_embeds is None:
            text_embeds = self.get_text_features(ids.reshape(-1, ids.shape[-1]))
        lead = (ids.shape[0], ids.size // (ids.shape[0] * ids.shape[-1]))
        return text_embeds.reshape(*lead, -1), mask.reshape(*lead, -1)

    @cached_property
    def _takes_encoder_size(self) -> bool:
        """Whether the size of the encoder input is dynamic, for a second look."""
        return any(each.name == "encoder_size" for each in self._graphs.open(IMAGE_ENCODER).get_inputs())

    @cached_property
    def _projection_dim(self) -> int:
        """Width of the text embedding space."""
        return self._fields["text_config"]["projection_dim"]

    @cached_property
    def _fields(self) -> dict[str, Any]:
        """Fields of the config, read without transformers."""
        return {"text_score_threshold": None, **json.loads(self._find_config().read_text(encoding="utf-8"))}

    def _find_config(self) -> Path:
        """Return config.json, which is beside the graphs or, in a repository, above them."""
        for folder in (self._graphs.folder, self._graphs.folder.parent):
            if (folder / "config.json").is_file():
                return folder / "config.json"
        raise OSError(f"{self.name_or_path} must contain config.json.")


def _find_image_sizes(shape: tuple[int, ...], pixel_mask: np.ndarray | None) -> np.ndarray:
    """Return the heights and widths (batch_size, 2) of the images inside `pixel_values` of this shape."""
    batch_size, _, height, width = shape
    if pixel_mask is None:
        return np.tile(np.array([[height, width]], np.int64), (batch_size, 1))
    if pixel_mask.shape != (batch_size, height, width):
        raise ValueError(
            f"pixel_mask must have the shape of the images, {(batch_size, height, width)}, got {pixel_mask.shape}."
        )
    return np.stack([pixel_mask[:, :, 0].sum(1), pixel_mask[:, 0].sum(1)], axis=1).astype(np.int64)


def _is_tensor(value: Any) -> bool:
    """Return whether a value is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _to_array(value: Any) -> np.ndarray | None:
    """Return an array or tensor as an array, without a copy if possible."""
    if _is_tensor(value):
        return value.detach().cpu().numpy()
    return None if value is None else np.asarray(value)


def _to_tensors(values: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return arrays as tensors that share their memory."""
    torch = sys.modules["torch"]
    return {name: torch.from_numpy(value) for name, value in values.items()}
