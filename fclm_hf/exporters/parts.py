"""The parts of the model that are exported, each a module from tensors to tensors."""

import copy
import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..configuration_fclm import FCLMConfig
from ..modeling_fclm import BASIS_STRIDE, FINE_GRID_SCALE, FCLMForImageMatting, FCLMImageEmbeddings


DYNAMIC = torch.export.Dim.DYNAMIC  # an error where AUTO would quietly fix a size
BASIS_NAME = "detail_basis_{}"  # a map for each feature, as a runtime copies what it splits, for every prompt
MASKED_NAMES = ("masked_coarse_map", "masked_fine_map", "masked_detail_map_4")  # outputs of the mask encoder


class ImageEncoder(nn.Module):
    """Images to everything that the decoder needs of them.

    Args:
        model: The model. If it takes a second look, the exported encoder has another input for its size.
    """

    def __init__(self, model: FCLMForImageMatting) -> None:
        super().__init__()
        self.model = model.model
        if takes_encoder_size(model.config):
            self.model = copy.deepcopy(self.model)
            fix_padding(self.model.backbone)

    def forward(
        self, pixel_values: torch.Tensor, image_sizes: torch.Tensor, encoder_size: int | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Return the embeddings that this model has, in the order of [`list_image_names`].

        Args:
            pixel_values: Images of shape (batch_size, 3, height, width), padded at the bottom and right.
            image_sizes: Heights and widths of the images, int64 of shape (batch_size, 2).
            encoder_size: Side of the encoder input.
        """
        if encoder_size is not None:  # so that a symbolic size is known to be a multiple
            multiple = self.model.config.encoder_multiple
            encoder_size = encoder_size // multiple * multiple
        rows, columns = (torch.arange(size, device=pixel_values.device) for size in pixel_values.shape[-2:])
        pixel_mask = (rows[:, None] < image_sizes[:, :1, None]) & (columns < image_sizes[:, 1:, None])
        embeddings = self.model.get_image_embeddings(pixel_values, pixel_mask, encoder_size=encoder_size)
        if embeddings.fine_map is None and self.model.config.dense_prompts:  # mask prompts are added to it
            embeddings.fine_map = self._make_fine_map(embeddings.coarse_map)
        return flatten_embeddings(embeddings)

    def _make_fine_map(self, coarse_map: torch.Tensor) -> torch.Tensor:
        """Return a fine map of zeros."""
        batch_size, _, height, width = coarse_map.shape
        size = self.model.config.fine_hidden_size, FINE_GRID_SCALE * height, FINE_GRID_SCALE * width
        return coarse_map.new_zeros(batch_size, *size)


class TextEncoder(nn.Module):
    """Tokens to text embeddings.

    Args:
        model: The model.
    """

    def __init__(self, model: FCLMForImageMatting) -> None:
        super().__init__()
        self.text_model = model.model.text_model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return embeddings (num_texts, projection_dim) of tokens (num_texts, sequence_length)."""
        return self.text_model(input_ids=input_ids, return_dict=True).text_embeds


class MaskEncoder(nn.Module):
    """Mask prompts, added to the maps of the image: with them it is decoded as the image of one object.

    Args:
        model: The model, with `config.dense_prompts`.
        stride: See [`PromptDecoder`].
    """

    def __init__(self, model: FCLMForImageMatting, stride: int | None = None) -> None:
        super().__init__()
        self.model, self.stride = model.model, stride

    def forward(
        self,
        input_masks: torch.Tensor,
        image_sizes: torch.Tensor,
        coarse_map: torch.Tensor,
        fine_map: torch.Tensor,
        detail_map_4: torch.Tensor,
        pixel_mask: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Return the coarse map, the fine map and the detail map with the masks, in the order of `MASKED_NAMES`.

        Args:
            input_masks: Masks of shape (batch_size, 1, height, width), of the size of `pixel_mask`.
            image_sizes: See [`ImageEncoder.forward`].
            coarse_map: Output of [`ImageEncoder`], like the following.
            fine_map: Fine map.
            detail_map_4: Detail map at stride 4.
            pixel_mask: Mask of the images.
        """
        embeddings = FCLMImageEmbeddings(
            coarse_map=coarse_map,
            detail_maps=(detail_map_4, detail_map_4),  # only the size of the first counts here
            pixel_mask=pixel_mask,
            image_sizes=image_sizes,
            encoder_size=None if self.stride is None else self.stride * coarse_map.shape[-1],
        )
        coarse, fine, detail = self.model._embed_masks(embeddings, self.model._get_grids(embeddings), input_masks)
        return coarse_map + coarse, fine_map + fine, detail_map_4 + detail


class PromptDecoder(nn.Module):
    """Image embeddings and prompts to alphas and, with a semantic head, to scores of the texts.

    Args:
        model: The model.
        names: Names of the inputs, in their order.
        stride: Pixels of the encoder input along a side of a coarse cell, if the size of the encoder input is dynamic.
    """

    def __init__(self, model: FCLMForImageMatting, names: Sequence[str], stride: int | None = None) -> None:
        super().__init__()
        self.model, self.names, self.stride = model, tuple(names), stride

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Return the alphas (batch_size, num_objects, height, width), and scores (batch_size, num_objects).

        Args:
            inputs: Tensors in the order of the names. `text_mask` (batch_size, num_objects) is 0 for an object without
                a text; prompts are as in [`FCLMForImageMatting.forward`], absent ones are padding.
        """
        given = dict(zip(self.names, inputs, strict=True))
        tokens = given["text_mask"][..., None]  # the embeddings are given, so only the shape of the tokens counts
        outputs = self.model(
            image_embeddings=unflatten_embeddings(self.model.config, given, self.stride),
            input_points=given["input_points"],
            input_labels=given["input_labels"],
            input_boxes=given["input_boxes"],
            input_ids=tokens,
            attention_mask=tokens,
            text_embeds=given["text_embeds"],
        )
        return outputs.alphas if outputs.text_scores is None else (outputs.alphas, outputs.text_scores)


def takes_encoder_size(config: FCLMConfig) -> bool:
    """Return whether the size of the encoder input is dynamic: for the second look of those models that take one."""
    return config.refinement_size is not None


def fix_padding(backbone: nn.Module) -> None:
    """Let the "same" convolutions of timm pad as they do for even sizes: a stride halves no others.

    Their own computation of the padding from a symbolic size takes hours to trace.
    """
    for module in backbone.modules():
        if type(module).__name__ == "Conv2dSame":
            module.forward = functools.partial(_convolve, module)


def _convolve(layer: nn.Conv2d, maps: torch.Tensor) -> torch.Tensor:
    """Apply a "same" convolution to maps whose sizes are multiples of its stride."""
    missing = [size - stride for size, stride in zip(layer.kernel_size, layer.stride, strict=True)]
    padding = [each for size in reversed(missing) for each in (size // 2, size - size // 2)]
    maps = nn.functional.pad(maps, padding)
    return nn.functional.conv2d(
        maps, layer.weight, layer.bias, layer.stride, dilation=layer.dilation, groups=layer.groups
    )


def list_image_names(config: FCLMConfig) -> tuple[str, ...]:
    """Return the names of the embeddings of images that the model of a config has."""
    names = ["coarse_map"]
    if config.coarse_level > 0 or config.dense_prompts:
        names.append("fine_map")
    if config.semantic_head_size is not None:
        names.append("semantic_map")
    basis = (BASIS_NAME.format(index) for index in range(config.detail_hidden_sizes[0]))
    return (*names, "detail_map_4", "detail_map_8", *basis, "pixel_mask")


def flatten_embeddings(embeddings: FCLMImageEmbeddings) -> tuple[torch.Tensor, ...]:
    """Return the tensors of embeddings that are there, in the order of [`list_image_names`]."""
    basis = embeddings.detail_basis.unflatten(1, (-1, BASIS_STRIDE**2)).unbind(1)
    tensors = (
        embeddings.coarse_map,
        embeddings.fine_map,
        embeddings.semantic_map,
        *embeddings.detail_maps,
        *basis,
        embeddings.pixel_mask.float(),  # alphas are multiplied with it for every prompt
    )
    # compiled graphs take and give the layout that they were traced with
    return tuple(each.contiguous() for each in tensors if each is not None)


def unflatten_embeddings(
    config: FCLMConfig, tensors: dict[str, torch.Tensor], stride: int | None = None
) -> FCLMImageEmbeddings:
    """Return the embeddings made of tensors by name; for `stride` see [`PromptDecoder`]."""
    return FCLMImageEmbeddings(
        coarse_map=tensors["coarse_map"],
        fine_map=tensors.get("fine_map"),
        semantic_map=tensors.get("semantic_map"),
        detail_maps=(tensors["detail_map_4"], tensors["detail_map_8"]),
        detail_basis=tuple(tensors[BASIS_NAME.format(index)] for index in range(config.detail_hidden_sizes[0])),
        pixel_mask=tensors["pixel_mask"],
        image_sizes=tensors["image_sizes"],
        encoder_size=None if stride is None else stride * tensors["coarse_map"].shape[-1],
    )


@dataclass
class Part:
    """A module to export, with all that its export needs.

    Attributes:
        name: Name of the file, without suffix.
        module: The module.
        inputs: Sample inputs by name; no dynamic dimension is 1, and those that differ have different sizes.
        outputs: Names of the outputs.
        dynamic: Dynamic dimensions of each input; an integer is dynamic as a whole.
        is_variadic: Whether the module takes its inputs as `*inputs`.
    """

    name: str
    module: nn.Module
    inputs: dict[str, torch.Tensor | int]
    outputs: tuple[str, ...]
    dynamic: dict[str, tuple[int, ...]]
    is_variadic: bool = False

    @property
    def dynamic_shapes(self) -> tuple[Any, ...]:
        """The dynamic dimensions in the order of the inputs, as `torch.export.export` takes them."""
        shapes = tuple(
            DYNAMIC if isinstance(value, int) else dict.fromkeys(self.dynamic[name], DYNAMIC)
            for name, value in self.inputs.items()
        )
        return (shapes,) if self.is_variadic else shapes


@torch.no_grad()
def make_parts(model: FCLMForImageMatting) -> list[Part]:
    """Return the parts of a model: image encoder, text encoder, prompt decoder and, if it has one, mask encoder.

    Args:
        model: The model, in evaluation mode.

    Raises:
        ValueError: If the backbone runs at the size of the images (`encoder_size=None`).
    """
    if model.config.encoder_size is None:
        raise ValueError("config.encoder_size must be a number of pixels for an export, got None.")
    images = {
        "pixel_values": torch.linspace(-1, 1, 2 * 3 * 150 * 203).view(2, 3, 150, 203),
        "image_sizes": torch.tensor([[150, 203], [140, 181]]),
    }
    encoder, config = ImageEncoder(model), model.config
    if takes_encoder_size(config):
        images["encoder_size"] = config.refinement_size
    names = list_image_names(config)
    embeddings = {**dict(zip(names, encoder(**images), strict=True)), "image_sizes": images["image_sizes"]}
    stride = config.refinement_size // embeddings["coarse_map"].shape[-1] if takes_encoder_size(config) else None
    prompts = _make_prompts(model)
    inputs = {**embeddings, **prompts}
    outputs = ("alphas", "text_scores") if config.semantic_head_size is not None else ("alphas",)
    dynamic = {name: _find_dynamic(config, name) for name in embeddings} | dict.fromkeys(prompts, (0, 1))
    dynamic["input_points"] = dynamic["input_labels"] = (0, 1, 2)
    parts = [
        Part(
            "image_encoder",
            encoder,
            images,
            names,
            {"pixel_values": (0, 2, 3), "image_sizes": (0,), "encoder_size": ()},
        ),
        _make_text_part(model),
        Part("prompt_decoder", PromptDecoder(model, tuple(inputs), stride), inputs, outputs, dynamic, is_variadic=True),
    ]
    if config.dense_prompts:
        parts.append(_make_mask_part(model, embeddings, stride))
    return parts


def _find_dynamic(config: FCLMConfig, name: str) -> tuple[int, ...]:
    """Return the dynamic dimensions of an embedding: the batch, and those that follow the size of the images."""
    has_dynamic_size = name.startswith(("detail", "pixel")) or (takes_encoder_size(config) and name.endswith("_map"))
    return (0, 2, 3) if has_dynamic_size else (0,)


def _make_text_part(model: FCLMForImageMatting) -> Part:
    """Return the text encoder."""
    config = model.config.text_config
    ids = torch.arange(1, 22).view(3, 7) % config.vocab_size
    ids[:, -1] = config.eos_token_id
    dynamic = {"input_ids": (0, 1)}
    return Part("text_encoder", TextEncoder(model), {"input_ids": ids}, ("text_embeds",), dynamic)


def _make_prompts(model: FCLMForImageMatting) -> dict[str, torch.Tensor]:
    """Return prompts of all kinds but masks."""
    return {
        "input_points": torch.linspace(10, 130, 2 * 3 * 5 * 2).view(2, 3, 5, 2),
        "input_labels": (torch.arange(2 * 3 * 5) % 2).view(2, 3, 5),
        "input_boxes": torch.tensor([10.0, 20.0, 110.0, 120.0]).repeat(2, 3, 1),
        "text_embeds": torch.linspace(-1, 1, 6 * model.config.text_config.projection_dim).view(2, 3, -1),
        "text_mask": torch.ones(2, 3, dtype=torch.long),
    }


def _make_mask_part(model: FCLMForImageMatting, embeddings: dict[str, torch.Tensor], stride: int | None) -> Part:
    """Return the mask encoder."""
    names = ("image_sizes", "coarse_map", "fine_map", "detail_map_4", "pixel_mask")
    masks = torch.linspace(0, 1, 2 * 150 * 203).view(2, 1, 150, 203)
    inputs = {"input_masks": masks, **{name: embeddings[name] for name in names}}
    dynamic = {"input_masks": (0, 2, 3)} | {name: _find_dynamic(model.config, name) for name in names}
    return Part("mask_encoder", MaskEncoder(model, stride), inputs, MASKED_NAMES, dynamic)


def trace_part(part: Part) -> torch.export.ExportedProgram:
    """Trace a part with dynamic shapes."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(
            part.module, tuple(part.inputs.values()), dynamic_shapes=part.dynamic_shapes, strict=False
        )


__all__ = ["Part", "make_parts", "trace_part"]
