"""PyTorch FCLM: a backbone, a prompt encoder and an Object-Oriented Decoder give an alpha matte per prompted object."""

import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import nn
from transformers import CLIPTextModelWithProjection, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.backbone_utils import load_backbone
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BackboneOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple, maybe_autocast
from transformers.utils.output_capturing import _CAN_RECORD_REGISTRY

from .configuration_fclm import PROMPT_PADDING, FCLMConfig
from .loss_fclm import coarse_mask_loss, matting_loss, segmentation_loss
from .masks_fclm import TRIMAP_TOLERANCE, find_trimaps


if TYPE_CHECKING:  # transformers fetches and saves the files of remote code that are named here, too
    from .pipeline_fclm import ReferringMattingPipeline  # noqa: F401
    from .processing_fclm import FCLMProcessor  # noqa: F401

FINE_GRID_SCALE = 2  # cells of the fine encoder grid along a side of a coarse cell
OUTPUT_STRIDE = 8  # pixels of `pixel_values` along a side of a cell of the coarse logits, the detail path's last stride
MASK_STRIDE = 4  # the same of the object features, which mask prompts meet
BASIS_STRIDE = 2  # the same of the detail basis, whose channels hold the pixels of a cell
BAND_ROWS = 32  # rows of interpolation weights that are multiplied at once
TENSOR_ALIGNMENT = 64  # bytes
HALF_DTYPES = (torch.float16, torch.bfloat16)

PROMPT_SHAPES = {
    "input_points": "(batch_size, num_objects, num_points, 2)",
    "input_labels": "(batch_size, num_objects, num_points), as input_points",
    "input_boxes": "(batch_size, num_objects, 4)",
    "input_ids": "(batch_size, sequence_length) or (batch_size, num_objects, sequence_length)",
    "attention_mask": "that of input_ids",
    "object_mask": "(batch_size, num_objects)",
    "input_masks": "(batch_size, num_objects, mask_height, mask_width)",
}


@dataclass
class FCLMImageEmbeddings(ModelOutput):
    """Everything the decoder needs of the images, independent of the prompts.

    Sizes of the maps: (`coarse_height`, `coarse_width`) is the grid of the backbone map at `config.coarse_level`;
    `fine_height = 2 * coarse_height`; the detail path pads the images at the bottom and right to
    `padded_height = 8 * (ceil(height / 8) + 1)`; widths likewise. Channels of the detail path are
    `size1, size2, size4, size8 = config.detail_hidden_sizes`.

    Args:
        coarse_map (`torch.FloatTensor` of shape `(batch_size, hidden_size, coarse_height, coarse_width)`):
            Backbone maps, merged on the coarse encoder grid.
        fine_map (`torch.FloatTensor` of shape `(batch_size, fine_hidden_size, fine_height, fine_width)`, *optional*):
            Projection of the backbone map before `config.coarse_level`. `None` with `coarse_level=0`.
        semantic_map (`torch.FloatTensor` of shape `(batch_size, projection_dim, map_height, map_width)`, *optional*):
            Last backbone map in the text embedding space, see [`FCLMSemanticHead`]. `None` without
            `config.semantic_head_size`.
        detail_maps (`tuple(torch.FloatTensor)` of 2 elements):
            Maps of the detail path at strides 4 and 8, of shape `(batch_size, size4, padded_height / 4, padded_width /
            4)` and `(batch_size, size8, padded_height / 8, padded_width / 8)`, with the lowest value of their dtype
            outside the image.
        detail_basis (`torch.FloatTensor` of shape `(batch_size, 4 * size1, padded_height / 2, padded_width / 2)`):
            Full-size features in which each matte is locally linear, see [`FCLMMatteHead`]. Channel `4 * c + 2 * y + x`
            is feature `c` at pixel `(y, x)` of a 2 x 2 cell.
        pixel_mask (`torch.ByteTensor` of shape `(batch_size, 1, height, width)`):
            1 on the image, 0 on padding.
        image_sizes (`torch.LongTensor` of shape `(batch_size, 2)`):
            Height and width of each image inside `pixel_values`.
        encoder_size (`int`, *optional*):
            Side of the encoder input, where it is not `config.encoder_size`.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*, returned when `output_hidden_states=True`):
            Hidden states of the backbone, one of shape `(batch_size, sequence_length, backbone_hidden_size)` per layer
            and one of the embeddings.
        attentions (`tuple(torch.FloatTensor)`, *optional*, returned when `output_attentions=True`):
            Attention weights of the backbone, one of shape `(batch_size, num_heads, sequence_length, sequence_length)`
            per layer.
    """

    coarse_map: torch.FloatTensor | None = None
    fine_map: torch.FloatTensor | None = None
    semantic_map: torch.FloatTensor | None = None
    detail_maps: tuple[torch.FloatTensor, ...] | None = None
    detail_basis: torch.FloatTensor | None = None
    pixel_mask: torch.ByteTensor | None = None
    image_sizes: torch.LongTensor | None = None
    encoder_size: int | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None

    def crop_details(self, left: int, top: int, right: int, bottom: int) -> tuple[torch.FloatTensor, ...]:
        """Return the detail basis and the detail maps at strides 4 and 8 of a part of the images.

        They are what the detail path computes of that part alone, except close to its borders inside the images.

        Args:
            left (`int`): Left border in pixels, a multiple of 8.
            top (`int`): Upper border in pixels, a multiple of 8.
            right (`int`): Right border in pixels, inside the images.
            bottom (`int`): Lower border in pixels, inside the images.

        Returns:
            Three maps, of shapes as here for images of `bottom - top` times `right - left` pixels.
        """
        cropped = []
        for maps, stride in zip((self.detail_basis, *self.detail_maps), (BASIS_STRIDE, 4, OUTPUT_STRIDE), strict=True):
            rows, columns = (
                OUTPUT_STRIDE // stride * (-(-size // OUTPUT_STRIDE) + 1) for size in (bottom - top, right - left)
            )
            part = maps[..., top // stride : top // stride + rows, left // stride : left // stride + columns]
            if stride != BASIS_STRIDE:
                sizes = torch.tensor([[bottom - top, right - left]], device=maps.device)
                outside = ~make_valid_mask(sizes, rows, columns, stride)
                part = part.masked_fill(outside, torch.finfo(maps.dtype).min)
            cropped.append(part)
        return tuple(cropped)


@dataclass
class FCLMModelOutput(ModelOutput):
    """Output of [`FCLMModel`]; for the sizes of the maps see [`FCLMImageEmbeddings`].

    Args:
        object_features (`torch.FloatTensor`):
            Features of each object at stride 4, the last map of the decoder, of shape `(batch_size, num_objects, size4,
            padded_height / 4, padded_width / 4)`.
        detail_basis (`torch.FloatTensor` of shape `(batch_size, 4 * size1, padded_height / 2, padded_width / 2)`):
            Full-size features of the image, see [`FCLMImageEmbeddings`].
        pixel_mask (`torch.ByteTensor` of shape `(batch_size, 1, height, width)`):
            1 on the image, 0 on padding.
        coarse_logits (`torch.FloatTensor` of shape `(batch_size, num_objects, padded_height / 8, padded_width / 8)`):
            Coarse mattes before the sigmoid: what the two-way attention of the decoder predicts on the fine encoder
            grid, resampled to stride 8 and before any detail map is added.
        prompt_embeds (`torch.FloatTensor` of shape `(batch_size, num_objects, hidden_size)`):
            Query token of each object after the two-way attention.
        text_scores (`torch.FloatTensor` of shape `(batch_size, num_objects)`, *optional*):
            How well the text of each object matches the place in the image that it matches best, see
            [`FCLMSemanticHead`], in fp32; infinite for objects without a text. `None` without texts or without
            `config.semantic_head_size`.
        image_sizes (`torch.LongTensor` of shape `(batch_size, 2)`):
            Height and width of each image inside `pixel_values`.
        object_mask (`torch.BoolTensor` of shape `(batch_size, num_objects)`, *optional*):
            The `object_mask` passed to the model.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*, returned when `output_hidden_states=True`):
            Hidden states of the backbone, see [`FCLMImageEmbeddings`].
        attentions (`tuple(torch.FloatTensor)`, *optional*, returned when `output_attentions=True`):
            Attention weights of the backbone, see [`FCLMImageEmbeddings`].
    """

    object_features: torch.FloatTensor | None = None
    detail_basis: torch.FloatTensor | None = None
    pixel_mask: torch.ByteTensor | None = None
    coarse_logits: torch.FloatTensor | None = None
    prompt_embeds: torch.FloatTensor | None = None
    text_scores: torch.FloatTensor | None = None
    image_sizes: torch.LongTensor | None = None
    object_mask: torch.BoolTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class FCLMImageMattingOutput(ModelOutput):
    """Output of [`FCLMForImageMatting`]; for the sizes of the maps see [`FCLMImageEmbeddings`].

    Args:
        loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `labels` is provided):
            Head loss of `config.task`, plus the weighted loss of the coarse logits.
        logits (`torch.FloatTensor` of shape `(batch_size, num_objects, height, width)`):
            Mattes before the sigmoid, at the size of `pixel_values`.
        alphas (`torch.FloatTensor` of shape `(batch_size, num_objects, height, width)`):
            Mattes in [0, 1], in fp32; 0 on padding and for padding objects.
        coarse_logits (`torch.FloatTensor` of shape `(batch_size, num_objects, padded_height / 8, padded_width / 8)`):
            Coarse mattes before the sigmoid, see [`FCLMModelOutput`].
        text_scores (`torch.FloatTensor` of shape `(batch_size, num_objects)`, *optional*):
            How well each text matches the image, see [`FCLMModelOutput`]. Where it is below
            `config.text_score_threshold`, an object that has a text alone is taken to be absent: its alphas are 0.
        image_sizes (`torch.LongTensor` of shape `(batch_size, 2)`):
            Height and width of each image inside `pixel_values`.
        object_mask (`torch.BoolTensor` of shape `(batch_size, num_objects)`, *optional*):
            The `object_mask` passed to the model.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*, returned when `output_hidden_states=True`):
            Hidden states of the backbone, see [`FCLMImageEmbeddings`].
        attentions (`tuple(torch.FloatTensor)`, *optional*, returned when `output_attentions=True`):
            Attention weights of the backbone, see [`FCLMImageEmbeddings`].
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    alphas: torch.FloatTensor | None = None
    coarse_logits: torch.FloatTensor | None = None
    text_scores: torch.FloatTensor | None = None
    image_sizes: torch.LongTensor | None = None
    object_mask: torch.BoolTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


class FCLMGrids(NamedTuple):
    """The grids, as (height, width), on which the steps from the prompts to the mattes work.

    Attributes:
        encoder_input: Pixels of the resized and padded image that the backbone sees.
        coarse: Cells of the coarse map; the coarse encoder grid covers the encoder input. Here prompts and image attend
            to each other.
        fine: Cells of the fine encoder grid, twice as many along each side. Here dense prompt maps are drawn and coarse
            logits predicted.
        output: Cells of 8 x 8 pixels of the padded `pixel_values`. Here the coarse logits meet the detail path.
        scale: Encoder input pixels per pixel of `pixel_values`, fp32 of shape (batch_size,). It differs between the
            images of a batch.
    """

    encoder_input: tuple[int, int]
    coarse: tuple[int, int]
    fine: tuple[int, int]
    output: tuple[int, int]
    scale: torch.Tensor


def find_image_sizes(pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None) -> torch.Tensor:
    """Return the heights and widths (batch_size, 2) of the images inside `pixel_values`.

    Args:
        pixel_values: Images of shape (batch_size, num_channels, height, width).
        pixel_mask: Mask of shape (batch_size, height, width), 1 on the image and 0 on padding at the bottom and right;
            `None` for images without padding.

    Returns:
        An int64 tensor.

    Raises:
        ValueError: If an argument has the wrong shape.
    """
    if pixel_values.dim() != 4:
        raise ValueError(
            f"pixel_values must have shape (batch_size, 3, height, width), got {tuple(pixel_values.shape)}."
        )
    batch_size, _, height, width = pixel_values.shape
    if pixel_mask is not None and pixel_mask.shape != (batch_size, height, width):
        raise ValueError(
            f"pixel_mask must have the shape of the images, {(batch_size, height, width)}, "
            f"got {tuple(pixel_mask.shape)}."
        )
    if pixel_mask is None:
        return torch.tensor([[height, width]], device=pixel_values.device).expand(batch_size, 2)
    return torch.stack([pixel_mask[:, :, 0].sum(1), pixel_mask[:, 0].sum(1)], dim=1).long()


def make_valid_mask(sizes: torch.Tensor, height: int, width: int, stride: float = 1) -> torch.Tensor:
    """Return a bool mask (batch_size, 1, height, width) of the cells of a `stride` grid that start inside the image.

    Args:
        sizes: Heights and widths of the images, of shape (batch_size, 2).
        height: Number of rows of the grid.
        width: Number of columns of the grid.
        stride: Side of a cell, in the unit of `sizes`.
    """
    rows = torch.arange(height, device=sizes.device) * stride < sizes[:, :1]
    columns = torch.arange(width, device=sizes.device) * stride < sizes[:, 1:]
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def get_cell_centers(height: int, width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the centers of the rows (height,) and columns (width,) of a grid over the unit square, in fp32."""
    rows = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
    columns = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
    return rows, columns


def compute_interpolation_weights(
    num_outputs: int, num_inputs: int, step: torch.Tensor, num_valid: torch.Tensor
) -> torch.Tensor:
    """Return antialiased linear interpolation along one axis as fp32 matrices (batch_size, num_outputs, num_inputs).

    Output cell `i` is centered on input coordinate `(i + 0.5) * step - 0.5`.

    Args:
        num_outputs: Number of output cells.
        num_inputs: Number of input cells.
        step: Input cells per output cell, fp32 of shape (batch_size,).
        num_valid: Number of input cells that count, fp32 of shape (batch_size,); later ones have weight 0.
    """
    step, num_valid = step.view(-1, 1), num_valid.view(-1, 1)
    outputs = torch.arange(num_outputs, device=step.device, dtype=torch.float32)
    inputs = torch.arange(num_inputs, device=step.device, dtype=torch.float32)
    return weigh_inputs(outputs, inputs, step, num_valid)


def weigh_inputs(
    outputs: torch.Tensor, inputs: torch.Tensor, step: torch.Tensor, num_valid: torch.Tensor
) -> torch.Tensor:
    """Return the weights (..., m, n) of input cells (..., n) in output cells (..., m), see above."""
    center = find_centers(outputs, step, num_valid)[..., None]
    distance = (inputs[..., None, :] - center).abs() / step.clamp(min=1)[..., None]
    weights = (1 - distance).clamp(min=0) * (inputs < num_valid)[..., None, :]
    return weights / weights.sum(-1, keepdim=True)


def find_centers(outputs: torch.Tensor, step: torch.Tensor, num_valid: torch.Tensor) -> torch.Tensor:
    """Return the input coordinates of the centers of output cells."""
    return ((outputs + 0.5) * step - 0.5).clamp(min=0).minimum(num_valid - 1)


def resample(maps: torch.Tensor, row_weights: torch.Tensor, column_weights: torch.Tensor) -> torch.Tensor:
    """Resample maps (batch_size, num_channels, h, w) to (batch_size, num_channels, H, W), channels last, separably.

    Args:
        maps: The maps to resample.
        row_weights: Matrices of shape (batch_size, H, h), see [`compute_interpolation_weights`].
        column_weights: Matrices of shape (batch_size, W, w).
    """
    if torch.compiler.is_exporting():  # runtimes copy what they transpose
        row_weights, column_weights = row_weights.to(maps.dtype)[:, None], column_weights.to(maps.dtype)[:, None]
        return row_weights @ (maps @ column_weights.transpose(2, 3))
    batch_size, num_channels, height, width = maps.shape
    maps = multiply_band(column_weights, maps.reshape(batch_size, -1, width).transpose(1, 2))
    maps = maps.view(batch_size, -1, num_channels, height).permute(0, 3, 1, 2).reshape(batch_size, height, -1)
    maps = multiply_band(row_weights, maps)
    return maps.view(batch_size, maps.shape[1], -1, num_channels).permute(0, 3, 1, 2)


def resample_rows(
    maps: torch.Tensor, num_outputs: int, step: torch.Tensor, num_valid: torch.Tensor, block: int
) -> torch.Tensor:
    """Return `compute_interpolation_weights(num_outputs, height, step, num_valid) @ maps` without most of its zeros.

    It is for exported graphs, which cannot see where the zeros are: each block of rows is computed from the rows that
    it could take of the largest image.

    Args:
        maps: Maps of shape (batch_size, num_channels, height, width).
        num_outputs: Number of rows to compute, a multiple of `block`.
        step: Rows of `maps` per row of the result, fp32 of shape (batch_size,); the longer side of `maps` divided by
            `num_outputs`, at the most.
        num_valid: See [`compute_interpolation_weights`].
        block: Number of rows in a block.
    """
    batch_size, num_channels, height, width = maps.shape
    step, num_valid = step.view(-1, 1, 1), num_valid.view(-1, 1, 1)
    outputs = torch.arange(num_outputs, device=maps.device, dtype=torch.float32).view(1, -1, block)
    first = (find_centers(outputs[..., :1], step, num_valid) - step.clamp(min=1)).floor().clamp(min=0)
    length = (block + 1) * torch.sym_max(height, width) // num_outputs + 5
    rows = first + torch.arange(length, device=maps.device, dtype=torch.float32)  # (batch_size, num_blocks, length)
    weights = weigh_inputs(outputs, rows, step, num_valid)
    planes = height * torch.arange(batch_size * num_channels, device=maps.device).view(batch_size, -1, 1, 1)
    index = planes + rows.long().clamp(max=height - 1)[:, None]
    windows = maps.reshape(-1, width).index_select(0, index.flatten()).view(*index.shape, width)
    return (weights.to(maps.dtype)[:, None] @ windows).flatten(2, 3)


def multiply_band(weights: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Return `weights @ maps`; on a CPU, where it need not be waited for, most zeros of the weights are left out."""
    weights = weights.to(maps.dtype)
    if weights.device.type != "cpu" or torch.compiler.is_compiling():
        return weights @ maps
    products = []
    for block in weights.split(BAND_ROWS, dim=1):
        used = block.any(1).any(0).nonzero()
        start, stop = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
        products.append(block[..., start:stop] @ maps[:, start:stop])
    return torch.cat(products, dim=1)


def add_update(maps: torch.Tensor, update: torch.Tensor) -> torch.Tensor:
    """Return the sum of maps and what a block computed from them; without gradients, in the memory of `update`."""
    return update + maps if torch.is_grad_enabled() else update.add_(maps)


def add_to_objects(object_maps: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Add the maps of images to those of each of their objects, without a copy for each.

    Args:
        object_maps: Maps of shape (batch_size * num_objects, num_channels, height, width), overwritten without
            gradients.
        maps: Maps of shape (batch_size, num_channels, height, width).

    Returns:
        The sum, of the shape of `object_maps`, channels last if both are.
    """
    batch_size = maps.shape[0]
    if torch.compiler.is_exporting():  # a graph has no memory layout, and permutations would cost it time
        return (object_maps.unflatten(0, (batch_size, -1)) + maps[:, None]).flatten(0, 1)
    # dimensions of size 1 get the strides of channels last in this order only, and convolutions go by them
    object_maps, maps = object_maps.permute(0, 2, 3, 1), maps.permute(0, 2, 3, 1)
    return add_update(maps[:, None], object_maps.unflatten(0, (batch_size, -1))).flatten(0, 1).permute(0, 3, 1, 2)


def upsample(maps: torch.Tensor, scale: int) -> torch.Tensor:
    """Enlarge maps (batch_size, num_channels, h, w) bilinearly to (batch_size, num_channels, scale * h, scale * w)."""
    return nn.functional.interpolate(maps, scale_factor=scale, mode="bilinear", align_corners=False)


def transpose_channels(maps: torch.Tensor) -> torch.Tensor:
    """Return `maps.contiguous()` of maps (batch_size, num_channels, height, width), faster for channels last."""
    if torch.compiler.is_exporting() or torch.is_grad_enabled() or maps.device.type != "cpu":
        return maps.contiguous()
    batch_size, num_channels, height, width = maps.shape
    planes = maps.new_empty(batch_size, num_channels, height * width)
    for target, source in zip(planes, maps, strict=True):
        target.copy_(source.permute(1, 2, 0).reshape(height * width, num_channels).t())
    return planes.view(maps.shape)


def interleave_cells(maps: torch.Tensor, side: int) -> torch.Tensor:
    """Return `pixel_shuffle(maps, side)` of maps (batch_size, side * side, height, width), faster on CPU."""
    if torch.compiler.is_exporting():
        return nn.functional.pixel_shuffle(maps, side)
    batch_size, _, height, width = maps.shape
    pixels = maps.new_empty(batch_size, 1, side * height, side * width)
    for index in range(side * side):
        pixels[:, 0, index // side :: side, index % side :: side] = maps[:, index]
    return pixels


class FCLMLayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of maps (batch_size, num_channels, height, width)."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Normalize the channels of each cell."""
        return super().forward(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class FCLMConvBlock(nn.Module):
    """Residual 3 x 3 convolution after a norm over channels."""

    def __init__(self, num_channels: int, config: FCLMConfig):
        super().__init__()
        self.norm = FCLMLayerNorm2d(num_channels, eps=config.layer_norm_eps)
        self.conv = nn.Conv2d(num_channels, num_channels, kernel_size=3, padding=1)
        self.activation_fn = ACT2FN[config.hidden_act]

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return maps of the shape of `maps`, (batch_size, num_channels, height, width)."""
        return add_update(maps, self.activation_fn(self.conv(self.norm(maps))))


class FCLMPixelDecoder(nn.Module):
    """Top-down merge of the backbone maps into a coarse map, as in FPN; the finer map before them is only projected."""

    def __init__(self, config: FCLMConfig, num_channels: list[int]):
        super().__init__()
        self.coarse_level = config.coarse_level
        hidden_size, eps = config.hidden_size, config.layer_norm_eps

        def make_lateral(in_channels: int, out_channels: int) -> nn.Module:
            conv = nn.Conv2d(in_channels, out_channels, kernel_size=1)
            return nn.Sequential(conv, FCLMLayerNorm2d(out_channels, eps=eps))

        merged = num_channels[self.coarse_level :]
        self.laterals = nn.ModuleList([make_lateral(in_channels, hidden_size) for in_channels in merged])
        self.blocks = nn.ModuleList([FCLMConvBlock(hidden_size, config) for _ in merged[1:]])
        self.fine_lateral = make_lateral(num_channels[0], config.fine_hidden_size) if self.coarse_level else None

    def forward(self, feature_maps: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Merge backbone maps (batch_size, num_channels[i], h_i, w_i), finest first.

        Returns:
            The coarse and the fine map, see [`FCLMImageEmbeddings`].
        """
        maps = [
            lateral(feature_map)
            for lateral, feature_map in zip(self.laterals, feature_maps[self.coarse_level :], strict=True)
        ]
        coarse_map = maps[-1]
        for finer, block in zip(reversed(maps[:-1]), self.blocks, strict=True):
            if coarse_map.shape[-2:] != finer.shape[-2:]:
                coarse_map = nn.functional.interpolate(
                    coarse_map, size=finer.shape[-2:], mode="bilinear", align_corners=False
                )
            coarse_map = block(coarse_map + finer)
        return coarse_map, None if self.fine_lateral is None else self.fine_lateral(feature_maps[0])


class FCLMSemanticHead(nn.Module):
    """Projection of the last backbone map into the text embedding space.

    The dot product of a cell with a text embedding says how well the cell matches the text, as in MaskCLIP (Zhou et
    al., 2022). The head has the shape of an EfficientNet's own, so that it can be initialized from an ImageNet
    classifier.
    """

    def __init__(self, config: FCLMConfig, num_channels: int):
        super().__init__()
        self.hidden = nn.Conv2d(num_channels, config.semantic_head_size, kernel_size=1)
        self.projection = nn.Conv2d(config.semantic_head_size, config.text_config.projection_dim, kernel_size=1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Project maps (batch_size, num_channels, h, w) to (batch_size, projection_dim, h, w)."""
        return self.projection(nn.functional.relu6(self.hidden(maps)))


class FCLMDetailBlock(nn.Module):
    """Strided convolution and a residual one, which keep cells outside the image at 0."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3):
        super().__init__()
        padding = (kernel_size - 1) // 2
        self.down = nn.Conv2d(in_channels, out_channels, kernel_size, stride=2, padding=padding, bias=False)
        self.down_norm = nn.BatchNorm2d(out_channels)
        self.conv = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, maps: torch.Tensor, valid_mask: torch.Tensor) -> torch.Tensor:
        """Halve maps (batch_size, in_channels, 2 h, 2 w); `valid_mask` (batch_size, 1, h, w) is True on the image."""
        # masked before the ReLU, whose result autograd keeps: so nothing of this size is allocated twice
        maps = nn.functional.relu(self.down_norm(self.down(maps)).mul_(valid_mask), inplace=True)
        return add_update(maps, nn.functional.relu(self.norm(self.conv(maps)).mul_(valid_mask), inplace=True))


class FCLMDetailPath(nn.Module):
    """Small U-Net on the full-size pixels, run once per image for any number of prompts.

    It provides the maps that refine those of an object at strides 8 and 4, and the basis of full-size features in which
    each matte is locally linear (see [`FCLMMatteHead`]).
    """

    def __init__(self, config: FCLMConfig, num_channels: int = 3):
        super().__init__()
        size1, size2, size4, size8 = config.detail_hidden_sizes
        self.blocks = nn.ModuleList(
            [
                # an even kernel, as the center of a stride-2 cell lies between pixels
                FCLMDetailBlock(num_channels, size2, kernel_size=6),
                FCLMDetailBlock(size2, size4),
                FCLMDetailBlock(size4, size8),
            ]
        )
        self.object8 = nn.Conv2d(size8, size8, kernel_size=3, padding=1)
        self.object4 = nn.Conv2d(size4, size4, kernel_size=1)
        self.top4 = nn.Conv2d(size8, size4, kernel_size=1)
        self.lateral4 = nn.Conv2d(size4, size4, kernel_size=3, padding=1)
        self.top2 = nn.Conv2d(size4, size2, kernel_size=1)
        self.lateral2 = nn.Conv2d(size2, size2, kernel_size=3, padding=1)
        self.basis = nn.Conv2d(size2, BASIS_STRIDE**2 * size1, kernel_size=3, padding=1)

    def forward(
        self, pixel_values: torch.Tensor, image_sizes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compute the detail maps of images.

        Args:
            pixel_values: Images of shape (batch_size, 3, padded_height, padded_width) whose sides are multiples of 8;
                0 outside the image.
            image_sizes: Heights and widths of the images, of shape (batch_size, 2).

        Returns:
            The detail basis and the detail maps at strides 4 and 8, see [`FCLMImageEmbeddings`].
        """
        # many narrow convolutions: several times faster with channels last
        maps = pixel_values.contiguous(memory_format=torch.channels_last)
        height, width = maps.shape[-2:]
        valid2, valid4, valid8 = (
            make_valid_mask(image_sizes, height // stride, width // stride, stride) for stride in (2, 4, 8)
        )
        map2 = self.blocks[0](maps, valid2)
        map4 = self.blocks[1](map2, valid4)
        map8 = self.blocks[2](map4, valid8)
        map4 = self._merge(self.lateral4(map4), self.top4(map8), valid4)
        map2 = self._merge(self.lateral2(map2), self.top2(map4), valid2)
        return self.basis(map2), self._exclude(self.object4(map4), valid4), self._exclude(self.object8(map8), valid8)

    @staticmethod
    def _merge(lateral: torch.Tensor, top: torch.Tensor, valid_mask: torch.Tensor) -> torch.Tensor:
        """Add the enlarged coarser map `top` to `lateral`."""
        return nn.functional.relu(lateral.add_(upsample(top, 2)).mul_(valid_mask), inplace=True)

    @staticmethod
    def _exclude(maps: torch.Tensor, valid_mask: torch.Tensor) -> torch.Tensor:
        """Fill cells outside the image with the lowest value: a sum with them is 0 after a ReLU."""
        return maps.masked_fill_(~valid_mask, torch.finfo(maps.dtype).min)


def count_objects(
    batch_size: int,
    input_points: torch.Tensor | None = None,
    input_labels: torch.Tensor | None = None,
    input_boxes: torch.Tensor | None = None,
    input_ids: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
    object_mask: torch.Tensor | None = None,
    input_masks: torch.Tensor | None = None,
) -> int:
    """Check the shapes of prompts and return the number of objects per image.

    Args:
        batch_size: Number of images. Prompts of batch size 1 apply to all images.
        input_points: See [`FCLMForImageMatting.forward`].
        input_labels: See [`FCLMForImageMatting.forward`].
        input_boxes: See [`FCLMForImageMatting.forward`].
        input_ids: See [`FCLMForImageMatting.forward`].
        attention_mask: See [`FCLMForImageMatting.forward`]; ignored without `input_ids`.
        object_mask: See [`FCLMForImageMatting.forward`].
        input_masks: See [`FCLMForImageMatting.forward`].

    Raises:
        ValueError: If an argument has the wrong shape, or if the prompts disagree on the number of objects.
    """
    if input_labels is not None and input_points is None:
        raise ValueError("input_labels requires input_points, got input_labels alone.")
    if input_ids is None:
        attention_mask = None
    counts = {}
    for name, value, has_right_shape in (
        ("input_points", input_points, lambda shape: len(shape) == 4 and shape[3] == 2),
        ("input_labels", input_labels, lambda shape: shape == input_points.shape[:3]),
        ("input_boxes", input_boxes, lambda shape: len(shape) == 3 and shape[2] == 4),
        ("input_ids", input_ids, lambda shape: len(shape) in (2, 3)),
        ("attention_mask", attention_mask, lambda shape: shape == input_ids.shape),
        ("object_mask", object_mask, lambda shape: len(shape) == 2),
        ("input_masks", input_masks, lambda shape: len(shape) == 4),
    ):
        if value is None:
            continue
        if not has_right_shape(value.shape) or value.shape[0] not in (1, batch_size):
            raise ValueError(
                f"{name} must have shape {PROMPT_SHAPES[name]} with batch_size {batch_size} or 1, "
                f"got {tuple(value.shape)}."
            )
        is_single_text = name in ("input_ids", "attention_mask") and value.dim() == 2
        counts[name] = 1 if is_single_text else value.shape[1]
    num_objects = max(counts.values(), default=1)
    if any(count not in (1, num_objects) for count in counts.values()):
        raise ValueError(f"Prompts must agree on the number of objects per image, got {counts}.")
    return num_objects


def find_located_objects(
    input_points: torch.Tensor | None,
    input_labels: torch.Tensor | None,
    input_boxes: torch.Tensor | None,
    input_masks: torch.Tensor | None,
) -> Iterator[torch.Tensor]:
    """Yield, for each kind of prompt that says where an object is, which objects have one.

    Args:
        input_points: See [`FCLMForImageMatting.forward`].
        input_labels: See [`FCLMForImageMatting.forward`].
        input_boxes: See [`FCLMForImageMatting.forward`].
        input_masks: See [`FCLMForImageMatting.forward`].

    Yields:
        Bool of shape (batch_size or 1, num_objects or 1).
    """
    if input_points is not None:
        labels = torch.ones_like(input_points[..., 0]) if input_labels is None else input_labels
        yield (labels != PROMPT_PADDING).any(-1)
    if input_boxes is not None:
        yield (input_boxes[..., 2:] > input_boxes[..., :2]).all(-1)
    if input_masks is not None:
        yield (input_masks >= 0).flatten(-2).any(-1)


def pad_masks(masks: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Pad mask prompts (..., mask_height, mask_width) with -1 to the size of `pixel_values`.

    Raises:
        ValueError: If they are larger.
    """
    missing = height - masks.shape[-2], width - masks.shape[-1]
    if min(missing) < 0:
        raise ValueError(
            f"input_masks must not be larger than pixel_values, {(height, width)}, got {tuple(masks.shape[-2:])}."
        )
    return nn.functional.pad(masks, (0, missing[1], 0, missing[0]), value=-1.0) if any(missing) else masks


def match_texts(
    semantic_map: torch.Tensor, valid_mask: torch.Tensor, text_embeds: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute how well each place of an image matches a text, in fp32.

    Args:
        semantic_map: Map of each image in the text embedding space, of shape (batch_size, projection_dim, h, w).
        valid_mask: Bool of shape (batch_size, 1, h, w), True on the image.
        text_embeds: Text embeddings of shape (batch_size * num_objects, projection_dim).

    Returns:
        Similarities of shape (batch_size, num_objects, h, w), and the highest within each image, of shape (batch_size,
        num_objects, 1, 1).
    """
    with maybe_autocast(device_type=semantic_map.device.type, enabled=False):
        directions = nn.functional.normalize(text_embeds.to(semantic_map.device).float(), dim=-1)
        directions = directions.unflatten(0, (semantic_map.shape[0], -1))
        similarity = torch.einsum("bchw,boc->bohw", semantic_map.float(), directions)
        lowest = torch.finfo(similarity.dtype).min
        return similarity, similarity.masked_fill(~valid_mask, lowest).amax((2, 3), keepdim=True)


class FCLMPromptEncoder(nn.Module):
    """Encoder of prompts in two forms: sparse tokens, as in the paper, and dense prompt maps.

    Dense prompt maps (`config.dense_prompts`) show boxes and clicks as soft maps, after the explicit prompts of
    SmartMatting (Ye et al., 2024). With `config.semantic_head_size` they also show how well each place matches a text.
    Mask prompts are dense only; their last layers start at zero, so that they have no effect before training.

    Names of modules and parameters are keys of released checkpoints: `kind_embed` holds the point embeddings,
    `context_query` the query token, `coarse_paint` and `fine_paint` embed the dense prompt maps, `mask_coarse_paint`,
    `mask_fine_paint` and `mask_detail_paint` mask prompts.
    """

    num_box_maps = 4
    num_point_maps = 4
    num_text_maps = 3
    num_mask_maps = 4
    box_position_limit = 2.0  # positions relative to a box, in half sides
    point_radii = (0.02, 0.1)  # standard deviations of the soft maps of a click, in sides of the encoder input
    similarity_limit = 4.0

    def __init__(self, config: FCLMConfig):
        super().__init__()
        self.dense_prompts = config.dense_prompts
        # a parameter, though it is never trained: random buffers cannot be restored on the meta device
        self.fourier_matrix = nn.Parameter(
            torch.zeros(2, config.hidden_size // 2, dtype=torch.float32), requires_grad=False
        )
        # background point, foreground point, top-left corner, bottom-right corner
        self.kind_embed = nn.Embedding(4, config.hidden_size)
        self.context_query = nn.Embedding(1, config.hidden_size)
        self.text_projection = nn.Linear(config.text_config.projection_dim, config.hidden_size)
        if config.dense_prompts:
            num_maps = self.num_box_maps + self.num_point_maps
            if config.semantic_head_size is not None:
                num_maps += self.num_text_maps
            self.fine_paint = nn.Conv2d(num_maps, config.fine_hidden_size, kernel_size=1)
            self.coarse_paint = nn.Sequential(
                nn.Conv2d(num_maps, config.hidden_size // 2, kernel_size=FINE_GRID_SCALE, stride=FINE_GRID_SCALE),
                ACT2FN[config.hidden_act],
                nn.Conv2d(config.hidden_size // 2, config.hidden_size, kernel_size=1),
            )
            self.mask_fine_paint = nn.Conv2d(self.num_mask_maps, config.fine_hidden_size, kernel_size=1)
            self.mask_coarse_paint = nn.Sequential(
                nn.Conv2d(
                    self.num_mask_maps, config.hidden_size // 2, kernel_size=FINE_GRID_SCALE, stride=FINE_GRID_SCALE
                ),
                ACT2FN[config.hidden_act],
                nn.Conv2d(config.hidden_size // 2, config.hidden_size, kernel_size=1),
            )
            self.mask_detail_paint = nn.Conv2d(self.num_mask_maps, config.detail_hidden_sizes[2], kernel_size=1)

    def get_mask_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that embed mask prompts; none without dense prompts."""
        return [parameter for name, parameter in self.named_parameters() if name.startswith("mask_")]

    def get_mask_outputs(self) -> list[nn.Conv2d]:
        """Return the last layers through which mask prompts act; none without dense prompts."""
        if not self.dense_prompts:
            return []
        return [self.mask_fine_paint, self.mask_coarse_paint[-1], self.mask_detail_paint]

    def encode_positions(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Return fp32 random Fourier features (Tancik et al., 2020) of coordinates (..., 2) in [0, 1]."""
        with maybe_autocast(device_type=coordinates.device.type, enabled=False):
            angles = 2 * torch.pi * ((2 * coordinates.float() - 1) @ self.fourier_matrix.float())
            return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def encode_grid(self, height: int, width: int, device: torch.device) -> torch.Tensor:
        """Return the encoded cell centers of a grid, of shape (1, height * width, hidden_size)."""
        rows, columns = get_cell_centers(height, width, device)
        grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
        return self.encode_positions(grid.view(1, -1, 2))

    def forward(
        self,
        points: torch.Tensor,
        labels: torch.Tensor,
        boxes: torch.Tensor,
        text_embeds: torch.Tensor | None,
        has_text: torch.Tensor | None,
        grid: tuple[int, int],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Encode prompts as tokens [query, text, corner, corner, point, ...], and the cells that they will attend to.

        An absent prompt is a zero embedding, as in the paper.

        Args:
            points: Clicks (x, y) in [0, 1] of the encoder input, of shape (num_prompts, num_points, 2).
            labels: 1 foreground, 0 background, -10 padding; of shape (num_prompts, num_points).
            boxes: Corners (x0, y0, x1, y1) in [0, 1] of the encoder input, of shape (num_prompts, 4); absent unless
                `x1 > x0` and `y1 > y0`.
            text_embeds: Text embeddings of shape (num_prompts, projection_dim).
            has_text: Bool of shape (num_prompts,), False for prompts without a text.
            grid: Height and width of the coarse encoder grid.

        Returns:
            Tokens and their positions, of shape (num_prompts, num_tokens, hidden_size), the bool mask (num_prompts,
            num_tokens) of tokens to attend to: all but padding points, of which the first stays; and the encoded cell
            centers of the grid, of shape (1, height * width, hidden_size).
        """
        # weights of modules are read by calling them, as they are elsewhere while they are offloaded
        query = self.context_query(torch.zeros(1, dtype=torch.int64, device=points.device))
        query, dtype = query.expand(points.shape[0], 1, -1), query.dtype
        text = torch.zeros_like(query)
        if text_embeds is not None:
            text = self.text_projection(text_embeds)[:, None] * has_text[:, None, None].to(dtype)
        corners, corner_positions = self._embed_boxes(boxes)
        clicks, click_positions, has_click = self._embed_points(points, labels)
        tokens = torch.cat([query, text.to(dtype), corners, clicks], dim=1)
        no_positions = torch.zeros_like(query).expand(-1, 2, -1)
        positions = torch.cat([no_positions, corner_positions, click_positions], dim=1)
        always = torch.ones_like(has_click[:, :1]).expand(-1, 5)
        token_mask = torch.cat([always, has_click[:, 1:]], dim=1)
        return tokens, positions, token_mask, self.encode_grid(*grid, points.device)

    def _embed_boxes(self, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the tokens of two corners and their positions, each (num_prompts, 2, hidden_size)."""
        corner_embed = self.kind_embed(torch.arange(2, 4, device=boxes.device))
        dtype = corner_embed.dtype
        has_box = ((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])).to(dtype)[:, None, None]
        positions = self.encode_positions(boxes.view(-1, 2, 2)).to(dtype) * has_box
        return positions + corner_embed * has_box, positions

    def _embed_points(
        self, points: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the tokens of clicks, their positions and the bool mask of those that are not padding."""
        point_embed = self.kind_embed(labels.clamp(0, 1))
        has_click = labels >= 0
        weight = has_click[..., None].to(point_embed.dtype)
        positions = self.encode_positions(points).to(point_embed.dtype) * weight
        tokens = positions + point_embed * weight
        return tokens, positions, has_click

    def embed_dense_maps(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed dense prompt maps for the coarse and the fine encoder grid.

        Args:
            maps: Dense prompt maps of shape (num_prompts, num_maps, 2 * coarse_height, 2 * coarse_width).

        Returns:
            Maps of shape (num_prompts, hidden_size, coarse_height, coarse_width) and (num_prompts, fine_hidden_size,
            2 * coarse_height, 2 * coarse_width).
        """
        return self.coarse_paint(maps), self.fine_paint(maps)

    def draw_dense_maps(
        self, points: torch.Tensor, labels: torch.Tensor, boxes: torch.Tensor, height: int, width: int
    ) -> torch.Tensor:
        """Draw boxes and clicks as soft maps.

        Args:
            points: See [`FCLMPromptEncoder.forward`].
            labels: See [`FCLMPromptEncoder.forward`].
            boxes: See [`FCLMPromptEncoder.forward`].
            height: Height of the maps.
            width: Width of the maps.

        Returns:
            fp32 maps of shape (num_prompts, 8, height, width): inside the box, has a box, position in the box (x, y),
            near and around foreground clicks, near and around background clicks.
        """
        rows, columns = get_cell_centers(height, width, points.device)
        maps = self._draw_boxes(boxes.float(), rows, columns) + self._draw_points(points.float(), labels, rows, columns)
        return torch.stack(maps, dim=1)

    def _draw_boxes(self, boxes: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> list[torch.Tensor]:
        """Return the four maps (num_prompts, height, width) of boxes on a grid with these cell centers."""
        height, width, limit = rows.shape[0], columns.shape[0], self.box_position_limit
        low, high = boxes[:, :2], boxes[:, 2:]
        has_box = (high > low).all(-1).float().view(-1, 1, 1)
        center, half = (low + high) / 2, ((high - low) / 2).clamp(min=1e-3)
        x = ((columns - center[:, :1]) / half[:, :1]).clamp(-limit, limit)
        y = ((rows - center[:, 1:]) / half[:, 1:]).clamp(-limit, limit)
        x = x[:, None, :].expand(-1, height, -1) * has_box
        y = y[:, :, None].expand(-1, -1, width) * has_box
        # signed distances to the nearer side, in half cells
        inside_x = ((columns - low[:, :1]).minimum(high[:, :1] - columns) * 2 * width).sigmoid()
        inside_y = ((rows - low[:, 1:]).minimum(high[:, 1:] - rows) * 2 * height).sigmoid()
        inside = inside_y[:, :, None] * inside_x[:, None, :] * has_box
        return [inside, has_box.expand_as(inside), x, y]

    def _draw_points(
        self, points: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
    ) -> list[torch.Tensor]:
        """Return the four maps (num_prompts, height, width) of clicks on a grid with these cell centers."""
        squared_distance = (columns - points[..., :1])[:, :, None, :] ** 2 + (rows - points[..., 1:])[..., None] ** 2
        return [
            ((-squared_distance / (2 * radius**2)).exp() * (labels == label)[..., None, None]).amax(1)
            for label in (1, 0)
            for radius in self.point_radii
        ]

    @staticmethod
    def draw_masks(masks: torch.Tensor) -> torch.Tensor:
        """Draw mask prompts.

        Args:
            masks: Masks of shape (batch_size, num_objects, height, width) in [0, 1]; negative on padding, and
                everywhere for an object without a mask.

        Returns:
            fp32 maps of shape (batch_size, num_objects, 4, height, width): mask in [-1, 1], how unknown it is, has a
            mask, the mask is a trimap. All are 0 where the masks are negative.
        """
        signed = 2 * masks.float().clamp(0, 1) - 1
        is_trimap = find_trimaps(masks).float().expand_as(signed)
        maps = torch.stack([signed, 1 - signed.abs(), torch.ones_like(signed), is_trimap], dim=2)
        return maps * (masks >= 0)[:, :, None]

    def draw_text_similarity(
        self,
        semantic_map: torch.Tensor,
        valid_mask: torch.Tensor,
        text_embeds: torch.Tensor | None,
        has_text: torch.Tensor | None,
        height: int,
        width: int,
    ) -> torch.Tensor:
        """Draw how well each place matches a text.

        Args:
            semantic_map: Map of each image in the text embedding space, of shape (batch_size, projection_dim, h, w).
            valid_mask: Bool of shape (batch_size, 1, h, w), True on the image.
            text_embeds: See [`FCLMPromptEncoder.forward`].
            has_text: See [`FCLMPromptEncoder.forward`].
            height: Height of the maps.
            width: Width of the maps.

        Returns:
            fp32 maps of shape (num_prompts, 3, height, width): similarity of the cell and the text, its difference from
            the highest in the image, has a text. All are 0 without a text; without any, of shape (batch_size, ...).
        """
        if text_embeds is None:
            return semantic_map.new_zeros(len(semantic_map), self.num_text_maps, height, width, dtype=torch.float32)
        similarity, best = (each.flatten(0, 1)[:, None] for each in match_texts(semantic_map, valid_mask, text_embeds))
        limit, has_text = self.similarity_limit, has_text.to(similarity.device)
        maps = torch.cat([similarity, similarity - best], dim=1).clamp(-limit, limit)
        maps = torch.cat([maps, torch.ones_like(similarity)], dim=1) * has_text.view(-1, 1, 1, 1)
        return nn.functional.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute attention of queries, keys and values (batch_size, num_heads, length, head_dim) in plain torch.

    Returns:
        The output (batch_size, length, num_heads, head_dim) and the attention weights.
    """
    attn_weights = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        attn_weights = attn_weights + attention_mask
    attn_weights = nn.functional.softmax(attn_weights, dim=-1, dtype=torch.float32).to(query.dtype)
    attn_weights = nn.functional.dropout(attn_weights, p=dropout, training=module.training)
    return torch.matmul(attn_weights, value).transpose(1, 2).contiguous(), attn_weights


class FCLMAttention(nn.Module):
    """Multi-head attention that runs in `hidden_size / downsample_rate` channels, as in SAM."""

    def __init__(self, config: FCLMConfig, downsample_rate: int = 1):
        super().__init__()
        self.config = config
        internal_size = config.hidden_size // downsample_rate
        self.head_dim = internal_size // config.decoder_attention_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.dropout
        self.is_causal = False
        self.q_proj = nn.Linear(config.hidden_size, internal_size)
        self.k_proj = nn.Linear(config.hidden_size, internal_size)
        self.v_proj = nn.Linear(config.hidden_size, internal_size)
        self.o_proj = nn.Linear(internal_size, config.hidden_size)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """Attend from `query` to `key`, each of shape (batch_size, length, hidden_size)."""
        attn_implementation = self.config._attn_implementation
        if attention_mask is not None and query.shape[1] != key.shape[1] and "flash" in attn_implementation:
            attn_implementation = "sdpa"  # flash attention cannot mask the keys of a cross-attention
            attention_mask = attention_mask[:, None, None, :].bool()
        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            attn_implementation, eager_attention_forward
        )
        attn_output, _ = attention_interface(
            self,
            self._split_heads(self.q_proj(query)),
            self._split_heads(self.k_proj(key)),
            self._split_heads(self.v_proj(value)),
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.o_proj(attn_output.reshape(*query.shape[:-1], -1).contiguous())

    def _split_heads(self, states: torch.Tensor) -> torch.Tensor:
        """Reshape states (batch_size, length, size) to (batch_size, num_heads, length, head_dim)."""
        return states.view(*states.shape[:-1], -1, self.head_dim).transpose(1, 2)


class FCLMMLP(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, hidden_size: int, intermediate_size: int, hidden_act: str):
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, intermediate_size)
        self.fc2 = nn.Linear(intermediate_size, hidden_size)
        self.activation_fn = ACT2FN[hidden_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Apply the layers to states (..., hidden_size)."""
        return self.fc2(self.activation_fn(self.fc1(hidden_states)))


class FCLMTwoWayAttentionBlock(GradientCheckpointingLayer):
    """Decoder layer: tokens attend to each other and to the image, the image to the tokens, then it mixes spatially."""

    def __init__(self, config: FCLMConfig):
        super().__init__()
        hidden_size, eps = config.hidden_size, config.layer_norm_eps
        self.self_attn = FCLMAttention(config)
        self.self_attn_norm = nn.LayerNorm(hidden_size, eps=eps)
        self.token_to_image_attn = FCLMAttention(config, config.attention_downsample_rate)
        self.token_norm = nn.LayerNorm(hidden_size, eps=eps)
        self.image_norm = nn.LayerNorm(hidden_size, eps=eps)
        self.token_mlp = FCLMMLP(hidden_size, config.decoder_ffn_dim, config.hidden_act)
        self.token_mlp_norm = nn.LayerNorm(hidden_size, eps=eps)
        self.image_to_token_attn = FCLMAttention(config, config.attention_downsample_rate)
        self.prompt_norm = nn.LayerNorm(hidden_size, eps=eps)
        self.spatial_mixer = nn.Conv2d(hidden_size, hidden_size, kernel_size=7, padding=3, groups=hidden_size)
        self.image_mlp_norm = nn.LayerNorm(hidden_size, eps=eps)
        self.image_mlp = FCLMMLP(hidden_size, config.image_ffn_dim, config.hidden_act)

    def forward(
        self,
        tokens: torch.Tensor,
        image: torch.Tensor,
        token_positions: torch.Tensor,
        image_positions: torch.Tensor,
        coarse_grid: tuple[int, int],
        self_attention_mask: torch.Tensor | None = None,
        cross_attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Update the tokens of prompts and the image of each.

        Args:
            tokens: Prompt tokens of shape (num_prompts, num_tokens, hidden_size).
            image: Cells of the image of shape (num_prompts, coarse_height * coarse_width, hidden_size).
            token_positions: Added to tokens where they are queries or keys; of the shape of `tokens`.
            image_positions: The same for the image, of shape (1, coarse_height * coarse_width, hidden_size).
            coarse_grid: (coarse_height, coarse_width).
            self_attention_mask: Mask of the attention between tokens.
            cross_attention_mask: Mask of the attention from image to tokens.
            kwargs: Keyword arguments of the attention.

        Returns:
            New `tokens` and `image`.
        """
        states = self.self_attn_norm(tokens)
        query = states + token_positions
        tokens = tokens + self.self_attn(query, query, states, self_attention_mask, **kwargs)

        image_states = self.image_norm(image)
        image_key = image_states + image_positions
        query = self.token_norm(tokens) + token_positions
        tokens = tokens + self.token_to_image_attn(query, image_key, image_states, **kwargs)
        tokens = tokens + self.token_mlp(self.token_mlp_norm(tokens))

        states = self.prompt_norm(tokens)
        key = states + token_positions
        image = image + self.image_to_token_attn(image_key, key, states, cross_attention_mask, **kwargs)
        image_map = image.transpose(1, 2).reshape(image.shape[0], -1, *coarse_grid)
        mixed = self.spatial_mixer(image_map).flatten(2).transpose(1, 2)
        return tokens, image + self.image_mlp(self.image_mlp_norm(mixed))


class FCLMUpsampler(nn.Module):
    """Upsampling step of the decoder: the enlarged map of an object plus the detail map of that stride."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.reduce = nn.Conv2d(in_channels, out_channels, kernel_size=1)
        self.conv = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1)

    def forward(
        self, maps: torch.Tensor, detail_map: torch.Tensor, mask_embedding: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Refine the maps of objects.

        Args:
            maps: Maps of shape (batch_size * num_objects, out_channels, height, width), reduced and enlarged.
            detail_map: Detail map of shape (batch_size, out_channels, height, width); the lowest value of its dtype
                outside the image.
            mask_embedding: Embedded mask prompts of the shape of `maps`.

        Returns:
            Maps of the shape of `maps`.
        """
        if mask_embedding is not None:
            maps = maps + mask_embedding
        maps = nn.functional.relu(add_to_objects(maps, detail_map), inplace=True)
        return add_update(maps, nn.functional.relu(self.conv(maps), inplace=True))


class FCLMObjectDecoder(nn.Module):
    """Object-Oriented Decoder: two-way attention of prompts and coarse map, then upsampling with the detail maps."""

    def __init__(self, config: FCLMConfig):
        super().__init__()
        self.config = config
        hidden_size, fine_hidden_size = config.hidden_size, config.fine_hidden_size
        _, _, size4, size8 = config.detail_hidden_sizes
        self.layers = nn.ModuleList([FCLMTwoWayAttentionBlock(config) for _ in range(config.decoder_layers)])
        self.token_norm = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.image_norm = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.fine_projection = nn.Conv2d(hidden_size, fine_hidden_size, kernel_size=1)
        self.fine_block = FCLMConvBlock(fine_hidden_size, config)
        self.mask_embedding = nn.Linear(hidden_size, fine_hidden_size)
        self.coarse_head = nn.Conv2d(fine_hidden_size, 1, kernel_size=1)
        self.upsamplers = nn.ModuleList([FCLMUpsampler(fine_hidden_size + 1, size8), FCLMUpsampler(size8, size4)])

    def forward(
        self,
        image_embeddings: FCLMImageEmbeddings,
        tokens: torch.Tensor,
        token_positions: torch.Tensor,
        token_mask: torch.Tensor,
        image_positions: torch.Tensor,
        dense_embeddings: tuple[torch.Tensor, torch.Tensor] | None,
        mask_embedding: torch.Tensor | None,
        output_weights: tuple[torch.Tensor, torch.Tensor],
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Decode objects; `num_prompts` is `batch_size * num_objects`.

        Args:
            image_embeddings: Embeddings of the images.
            tokens: See [`FCLMPromptEncoder.forward`], like the next two.
            token_positions: Positions of the tokens.
            token_mask: Bool mask of the tokens to attend to.
            image_positions: Encoded cell centers of the coarse grid, see [`FCLMPromptEncoder.encode_grid`].
            dense_embeddings: Embedded dense prompt maps, see [`FCLMPromptEncoder.embed_dense_maps`].
            mask_embedding: Embedded mask prompts for the last upsampling step, of the shape of the object features.
            output_weights: Matrices that resample the rows and columns of the fine encoder grid to the output grid.
            kwargs: Keyword arguments of the attention.

        Returns:
            Object features of shape (num_prompts, size4, padded_height / 4, padded_width / 4), coarse logits of shape
            (num_prompts, padded_height / 8, padded_width / 8) and query tokens of shape (num_prompts, hidden_size).
        """
        coarse_embedding, fine_embedding = (None, None) if dense_embeddings is None else dense_embeddings
        if coarse_embedding is None:
            coarse_embedding = tokens.new_zeros(tokens.shape[0], *image_embeddings.coarse_map.shape[1:])
        coarse_map = add_to_objects(coarse_embedding, image_embeddings.coarse_map)
        query, coarse_map = self._attend(coarse_map, tokens, token_positions, token_mask, image_positions, **kwargs)

        fine_map = upsample(self.fine_projection(coarse_map), FINE_GRID_SCALE)
        if image_embeddings.fine_map is not None:
            fine_map = add_to_objects(fine_map, image_embeddings.fine_map)
        if fine_embedding is not None:
            fine_map = fine_map + fine_embedding
        fine_map = self.fine_block(fine_map)

        first, second = self.upsamplers
        detail4, detail8 = image_embeddings.detail_maps
        coarse_logits = self._predict_coarse(fine_map, query)
        # reduced before they are resampled: the same, as both are linear and the weights sum to 1, on fewer cells
        maps = first.reduce(torch.cat([fine_map, coarse_logits], dim=1))
        maps = resample(torch.cat([maps, coarse_logits], dim=1), *output_weights)
        coarse_logits = maps[:, -1]
        maps = first(maps[:, :-1].contiguous(memory_format=torch.channels_last), detail8)
        maps = second(upsample(second.reduce(maps), 2), detail4, mask_embedding)
        return maps, coarse_logits, query

    def _attend(
        self,
        coarse_map: torch.Tensor,
        tokens: torch.Tensor,
        token_positions: torch.Tensor,
        token_mask: torch.Tensor,
        image_positions: torch.Tensor,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the two-way attention and return the query tokens and the coarse map of each prompt."""
        coarse_grid = coarse_map.shape[-2:]
        image = coarse_map.flatten(2).transpose(1, 2)
        mask_kwargs = {
            "config": self.config,
            "attention_mask": token_mask,
            "allow_is_bidirectional_skip": False,  # deciding to skip reads the mask: a host synchronization
        }
        self_attention_mask = create_bidirectional_mask(inputs_embeds=tokens, **mask_kwargs)
        cross_attention_mask = create_bidirectional_mask(
            inputs_embeds=image, encoder_hidden_states=tokens, **mask_kwargs
        )
        for layer in self.layers:
            tokens, image = layer(
                tokens,
                image,
                token_positions,
                image_positions,
                coarse_grid,
                self_attention_mask,
                cross_attention_mask,
                **kwargs,
            )
        query = self.token_norm(tokens)[:, 0]
        coarse_map = self.image_norm(image).transpose(1, 2).reshape(image.shape[0], -1, *coarse_grid)
        return query, coarse_map

    def _predict_coarse(self, fine_map: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        """Return coarse logits (num_prompts, 1, height, width) on the fine encoder grid, as in Mask2Former and SAM."""
        mask_embedding = self.mask_embedding(query)
        similarity = torch.einsum("bchw,bc->bhw", fine_map, mask_embedding) * fine_map.shape[1] ** -0.5
        return similarity[:, None] + self.coarse_head(fine_map)


class FCLMCoefficientConv(nn.Conv2d):
    """1 x 1 convolution whose output channels are contiguous, also for maps that are channels last."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Convolve maps (batch_size, in_channels, height, width)."""
        return self.convolve(maps, self.weight, self.bias)

    @staticmethod
    def convolve(maps: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Convolve maps with the given weight and bias."""
        if torch.compiler.is_exporting():
            return nn.functional.conv2d(maps, weight, bias).contiguous()
        cells = maps.flatten(2)  # a view, also of maps that are channels last
        planes = torch.baddbmm(bias[:, None], weight.flatten(1).expand(len(cells), -1, -1), cells)
        return planes.unflatten(2, maps.shape[2:])


class FCLMMatteHead(nn.Module):
    """Full-size logits `sum_c a_c f_c + b` of features `f` of the image and coefficients `a` and `b` of the object.

    This is the local linear model of closed-form matting (Levin et al., 2008, Eq. 2: `alpha = a I + b` in a small
    window) with learned features in place of the intensities `I` and predicted coefficients in place of solved ones. An
    object then costs little at full size.
    """

    def __init__(self, config: FCLMConfig):
        super().__init__()
        num_features, size4 = config.detail_hidden_sizes[0], config.detail_hidden_sizes[2]
        self.coefficients = FCLMCoefficientConv(size4, num_features + 1, kernel_size=1)

    def forward(
        self,
        object_features: torch.Tensor,
        detail_basis: torch.Tensor | tuple[torch.Tensor, ...],
        coarse_logits: torch.Tensor,
    ) -> torch.Tensor:
        """Compute the logits (batch_size, num_objects, padded_height, padded_width).

        Args:
            object_features: See [`FCLMModelOutput`].
            detail_basis: See [`FCLMModelOutput`]; an exported decoder takes a tuple with the 4 channels of each
                feature, as runtimes copy what they split.
            coarse_logits: See [`FCLMModelOutput`].
        """
        if not isinstance(detail_basis, tuple):
            detail_basis = detail_basis.unflatten(1, (-1, BASIS_STRIDE**2)).unbind(1)
        batch_size, num_objects = object_features.shape[:2]
        coefficients = self.coefficients(object_features.flatten(0, 1))
        coarse_logits = upsample(coarse_logits.flatten(0, 1)[:, None], 2)
        offset = upsample(coefficients[:, -1:] + coarse_logits, 4)
        # feature by feature: slopes or products of all at once would be the largest tensors of the model
        slopes = (
            upsample(slope, 2).unflatten(0, (batch_size, num_objects)) for slope in coefficients[:, :-1].split(1, dim=1)
        )
        features = (each.unsqueeze(1) for each in detail_basis)
        logits = next(slopes) * next(features)
        for slope, feature in zip(slopes, features, strict=True):
            logits = logits.addcmul_(slope, feature)
        logits = interleave_cells(logits.flatten(0, 1), BASIS_STRIDE).add_(offset)
        return logits.view(batch_size, num_objects, *logits.shape[-2:])


def align_tensors(model: nn.Module) -> None:
    """Move CPU weights that are mapped from their file to memory of their own, aligned as torch's allocator does.

    Vectorized kernels sum in another order where a tensor is aligned differently; with this a reloaded model gives
    bit-exact mattes of the saved one.
    """
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        is_plain = type(tensor.data) is torch.Tensor and tensor.device.type == "cpu"
        if is_plain and tensor.data_ptr() % TENSOR_ALIGNMENT:
            tensor.data = tensor.data.clone()


def _drop_capturing_hooks(module: nn.Module, copies: dict[int, nn.Module]) -> dict[str, Any]:
    """Return the state of a module without the hooks that record outputs; the first forward pass installs them again.

    Args:
        module: The module.
        copies: Copies without hooks of the submodules seen so far, by the identity of these.
    """
    state = dict(module.__dict__)
    state.pop("_output_capturing_hooks_installed", None)
    hooks = module._forward_hooks
    recording = {key for key, hook in hooks.items() if hook.__module__ == "transformers.utils.output_capturing"}
    state["_forward_hooks"] = type(hooks)((key, hook) for key, hook in hooks.items() if key not in recording)
    state["_modules"] = dict(module._modules)
    for name, child in module._modules.items():
        if child is not None and id(child) not in copies:
            copies[id(child)] = child.__class__.__new__(child.__class__)
            copies[id(child)].__dict__.update(_drop_capturing_hooks(child, copies))
        state["_modules"][name] = None if child is None else copies[id(child)]
    return state


def in_own_precision(method: Callable[..., Any]) -> Callable[..., Any]:
    """Make a method of a model that computes in fp32 do so under autocast, unless the model is being trained."""

    @functools.wraps(method)
    def run(self: "FCLMPreTrainedModel", *args: Any, **kwargs: Any) -> Any:
        with self._stop_autocast():
            return method(self, *args, **kwargs)

    return run


class FCLMPreTrainedModel(PreTrainedModel):
    """Base class of the FCLM models: weight initialization, loading, saving and precision.

    A model with a timm backbone, such as the embedded checkpoint, computes in fp32 whatever `dtype` it is loaded with
    or cast to with `half`, `bfloat16` or `to`, and in evaluation mode under autocast, too: its small convolutional
    backbone magnifies rounding errors. With any part of the embedded model in bf16, some alphas change by 3 / 255 to
    132 / 255. Models with a DINOv2 backbone run in half precision, except for coordinates.

    Args:
        config ([`FCLMConfig`]):
            Configuration of the model.

    Example:
        >>> from fclm_hf import FCLMForImageMatting, FCLMModel, FCLMPreTrainedModel

        >>> all(issubclass(each, FCLMPreTrainedModel) for each in (FCLMModel, FCLMForImageMatting))
        True
        >>> FCLMPreTrainedModel.main_input_name
        'pixel_values'
    """

    config: FCLMConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = [
        "FCLMTwoWayAttentionBlock",
        "FCLMPromptEncoder",
        "FCLMPixelDecoder",
        "FCLMDetailPath",
        "TimmBackbone",
    ]
    _keys_to_ignore_on_load_missing: ClassVar[list[str]] = [r"prompt_encoder\.mask_"]  # older checkpoints lack them
    _keep_in_fp32_modules_strict: ClassVar[list[str]] = ["fourier_matrix"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickling, without the hooks of transformers, which Python cannot pickle."""
        return _drop_capturing_hooks(self, {})

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled model and register what its parts record, which transformers does for new ones only."""
        super().__setstate__(state)
        for module in self.modules():
            if isinstance(module, PreTrainedModel):
                _CAN_RECORD_REGISTRY[module] = module._can_record_outputs

    def __init__(self, config: FCLMConfig, *args: Any, **kwargs: Any):
        super().__init__(config, *args, **kwargs)
        self._computes_in_fp32 = config.backbone_config.model_type == "timm_backbone"

    def post_init(self) -> None:
        """Finish the initialization; every model calls this at the end of its `__init__`."""
        if self._computes_in_fp32:
            names = [name for name, _ in self.named_children()]
            self._keep_in_fp32_modules_strict = [*self._keep_in_fp32_modules_strict, *names]
            self._apply(lambda tensor: tensor.float() if tensor.dtype in HALF_DTYPES else tensor)
        super().post_init()

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "FCLMPreTrainedModel":
        """Move or cast all weights with `fn`, through which `to`, `half`, `bfloat16` and `cuda` act."""
        if not self._computes_in_fp32:
            return super()._apply(fn, recurse)

        def keep_fp32(tensor: torch.Tensor) -> torch.Tensor:
            moved = fn(tensor)
            return tensor.to(moved.device, torch.float32) if moved.dtype in HALF_DTYPES else moved

        return super()._apply(keep_fp32, recurse)

    def _stop_autocast(self) -> AbstractContextManager[Any]:
        """Return a context in which a model that computes in fp32 does so, unless it is being trained."""
        if self.training or not self._computes_in_fp32:
            return nullcontext()
        return maybe_autocast(device_type=self.device.type, enabled=False)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> "FCLMPreTrainedModel":
        """Load a checkpoint, see [`~transformers.PreTrainedModel.from_pretrained`].

        With `config.freeze_text_encoder` the text tower is frozen again. Weights are aligned in memory, so that mattes
        are bit-exact with those before saving.
        """
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        align_tensors(model)
        if model.config.freeze_text_encoder:  # loading sets requires_grad of all parameters
            model.base_model.freeze_text_encoder()
        return loaded

    @classmethod
    def is_custom_code(cls) -> bool:
        """Return False: initialize weights as transformers does for its own models.

        For custom code it skips modules that own no tensor, and with them CLIP's own initialization. `_init_weights`
        uses the guarded helpers only, so the path of the library's own models is the right one.
        """
        return False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        else:
            super()._init_weights(module)
        if isinstance(module, FCLMPromptEncoder):
            init.normal_(module.fourier_matrix, mean=0.0, std=1.0)
            for layer in module.get_mask_outputs():
                init.zeros_(layer.weight)
                init.zeros_(layer.bias)
        elif isinstance(module, FCLMMatteHead):  # mattes start close to the coarse logits
            init.normal_(module.coefficients.weight, mean=0.0, std=self.config.initializer_range)


class FCLMModel(FCLMPreTrainedModel):
    """FCLM without the matte head: backbone, prompt encoder and Object-Oriented Decoder.

    Args:
        config ([`FCLMConfig`]):
            Configuration of the model.

    Example:
        >>> import torch
        >>> from fclm_hf import LITE_CHECKPOINT, FCLMModel

        >>> model = FCLMModel.from_pretrained(LITE_CHECKPOINT).eval()
        >>> pixel_values = torch.zeros(1, 3, 64, 96)
        >>> with torch.no_grad():
        ...     outputs = model(pixel_values, input_boxes=torch.tensor([[[8.0, 8.0, 40.0, 40.0]]]))
        >>> outputs.coarse_logits.shape  # stride 8, one cell more than the image needs
        torch.Size([1, 1, 9, 13])
    """

    def __init__(self, config: FCLMConfig):
        super().__init__(config)
        self.backbone = load_backbone(config)
        if config.backbone_config.model_type == "timm_backbone":
            from .backbone_fclm import reuse_memory  # timm takes a second to import

            reuse_memory(self.backbone)
        self.text_model = CLIPTextModelWithProjection._from_config(config.text_config)
        self.pixel_decoder = FCLMPixelDecoder(config, list(self.backbone.channels))
        self.semantic_head = None
        if config.semantic_head_size is not None:
            self.semantic_head = FCLMSemanticHead(config, self.backbone.channels[-1])
        self.detail_path = FCLMDetailPath(config)
        self.prompt_encoder = FCLMPromptEncoder(config)
        self.decoder = FCLMObjectDecoder(config)
        self.post_init()
        if config.freeze_text_encoder:
            self.freeze_text_encoder()

    def freeze_text_encoder(self) -> None:
        """Freeze the text tower, and the semantic head, which shares the text embedding space."""
        self.text_model.requires_grad_(False)
        if self.semantic_head is not None:
            self.semantic_head.requires_grad_(False)

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embedding of the text tower."""
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Set the token embedding of the text tower."""
        self.text_model.set_input_embeddings(value)

    @property
    def _pixel_dtype(self) -> torch.dtype:
        return self.detail_path.basis.weight.dtype

    def _get_encoder_input_size(self, height: int, width: int, encoder_size: int | None) -> tuple[int, int]:
        """Return the (height, width) of the encoder input for `pixel_values` of this size."""
        encoder_size = encoder_size or self.config.encoder_size
        if encoder_size is not None:
            return encoder_size, encoder_size
        multiple = self.config.encoder_multiple
        return -(-height // multiple) * multiple, -(-width // multiple) * multiple

    def _get_encoder_input_scale(self, image_sizes: torch.Tensor, encoder_size: int | None) -> torch.Tensor:
        """Return the encoder input pixels per pixel of `pixel_values`, fp32 of shape (batch_size,)."""
        encoder_size = encoder_size or self.config.encoder_size
        if encoder_size is None:
            return torch.ones_like(image_sizes[:, 0], dtype=torch.float32)
        return encoder_size / image_sizes.amax(1).float()

    def resize_and_pad(
        self, maps: torch.Tensor, image_sizes: torch.Tensor, encoder_size: int | None = None
    ) -> torch.Tensor:
        """Resize and pad images, or other maps of them, to the encoder input.

        Args:
            maps (`torch.FloatTensor` of shape `(batch_size, num_channels, height, width)`):
                Maps aligned with `pixel_values`.
            image_sizes (`torch.LongTensor` of shape `(batch_size, 2)`):
                Height and width of each image inside `maps`; what lies outside does not count.
            encoder_size (`int`, *optional*):
                Side of the encoder input. Defaults to `config.encoder_size`.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, num_channels, encoder_height, encoder_width)`: 0 outside the
            images, which keep their aspect ratio and start at the top left.
        """
        height, width = maps.shape[-2:]
        input_height, input_width = self._get_encoder_input_size(height, width, encoder_size)
        if encoder_size is None and self.config.encoder_size is None:
            maps = maps * make_valid_mask(image_sizes, height, width)
            return nn.functional.pad(maps, (0, input_width - width, 0, input_height - height))
        scale = self._get_encoder_input_scale(image_sizes, encoder_size)
        sizes = image_sizes.float()
        column_weights = compute_interpolation_weights(input_width, width, 1 / scale, sizes[:, 1])
        if torch.compiler.is_exporting():
            block = self.config.encoder_multiple
            rows = resample_rows(maps, input_height, 1 / scale, sizes[:, 0], block)
            resized = rows @ column_weights.to(maps.dtype)[:, None].transpose(2, 3)
        else:
            row_weights = compute_interpolation_weights(input_height, height, 1 / scale, sizes[:, 0])
            resized = resample(maps, row_weights, column_weights)
        return resized * make_valid_mask(sizes * scale[:, None], input_height, input_width)

    @in_own_precision
    def encode(self, encoder_input: torch.FloatTensor, **kwargs: Unpack[TransformersKwargs]) -> BackboneOutput:
        """Run the backbone.

        Args:
            encoder_input (`torch.FloatTensor` of shape `(batch_size, 3, encoder_height, encoder_width)`):
                Images resized and padded with [`~FCLMModel.resize_and_pad`].
            kwargs:
                `output_hidden_states` and `output_attentions`, for backbones of transformers.

        Returns:
            [`~transformers.modeling_outputs.BackboneOutput`] with `feature_maps`, finest first.
        """
        if self.config.backbone_config.model_type == "timm_backbone":  # it records neither, and accepts nothing else
            kwargs = {"output_hidden_states": False, "output_attentions": False}
        # faster for convolutions on a CPU; a ViT does not care
        encoder_input = encoder_input.to(self._pixel_dtype).contiguous(memory_format=torch.channels_last)
        return self.backbone(encoder_input, return_dict=True, **kwargs)

    @in_own_precision
    def get_feature_maps(
        self,
        pixel_values: torch.FloatTensor,
        pixel_mask: torch.LongTensor | None = None,
        encoder_size: int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BackboneOutput:
        """Resize and pad images to the encoder input and run the backbone. Training aligns these maps between images.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, 3, height, width)`):
                Normalized images, padded at the bottom and right.
            pixel_mask (`torch.LongTensor` of shape `(batch_size, height, width)`, *optional*):
                1 on the image, 0 on padding; `None` for images without padding.
            encoder_size (`int`, *optional*):
                Side of the encoder input. Defaults to `config.encoder_size`.
            kwargs:
                See [`~FCLMModel.encode`].

        Returns:
            [`~transformers.modeling_outputs.BackboneOutput`] with `feature_maps`, finest first.

        Raises:
            ValueError: If an argument has the wrong shape.
        """
        image_sizes = find_image_sizes(pixel_values, pixel_mask)
        encoder_input = self.resize_and_pad(pixel_values.to(self._pixel_dtype), image_sizes, encoder_size)
        return self.encode(encoder_input, **kwargs)

    @in_own_precision
    def get_image_embeddings(
        self,
        pixel_values: torch.FloatTensor,
        pixel_mask: torch.LongTensor | None = None,
        feature_maps: tuple[torch.FloatTensor, ...] | None = None,
        encoder_size: int | None = None,
        detail_maps: tuple[torch.FloatTensor, torch.FloatTensor, torch.FloatTensor] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> FCLMImageEmbeddings:
        """Encode images once; pass the result as `image_embeddings` for any number of prompts.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, 3, height, width)`):
                Normalized images, padded at the bottom and right.
            pixel_mask (`torch.LongTensor` of shape `(batch_size, height, width)`, *optional*):
                1 on the image, 0 on padding; `None` for images without padding.
            feature_maps (`tuple(torch.FloatTensor)`, *optional*):
                Feature maps of [`~FCLMModel.get_feature_maps`]; the backbone then does not run.
            encoder_size (`int`, *optional*):
                Side of the encoder input. Defaults to `config.encoder_size`.
            detail_maps (`tuple(torch.FloatTensor)` of 3 elements, *optional*):
                Detail basis and detail maps of these images, see [`~FCLMImageEmbeddings.crop_details`]; the detail path
                then does not run.
            kwargs:
                See [`~FCLMModel.encode`].

        Returns:
            [`FCLMImageEmbeddings`].

        Raises:
            ValueError: If an argument has the wrong shape.

        Example:
            >>> import torch
            >>> from fclm_hf import LITE_CHECKPOINT, FCLMForImageMatting

            >>> model = FCLMForImageMatting.from_pretrained(LITE_CHECKPOINT).eval()
            >>> with torch.no_grad():
            ...     embeddings = model.get_image_embeddings(torch.zeros(1, 3, 64, 96))
            ...     click = model(image_embeddings=embeddings, input_points=torch.tensor([[[[20.0, 30.0]]]]))
            ...     box = model(image_embeddings=embeddings, input_boxes=torch.tensor([[[8.0, 8.0, 40.0, 40.0]]]))
            >>> click.alphas.shape, box.alphas.shape
            (torch.Size([1, 1, 64, 96]), torch.Size([1, 1, 64, 96]))
        """
        height, width = pixel_values.shape[-2:]
        image_sizes = find_image_sizes(pixel_values, pixel_mask)
        pixel_values = pixel_values.to(self._pixel_dtype)
        if feature_maps is None:
            outputs = self.get_feature_maps(pixel_values, pixel_mask, encoder_size, **kwargs)
        else:
            outputs = BackboneOutput(feature_maps=feature_maps)
        coarse_map, fine_map = self.pixel_decoder(outputs.feature_maps)
        semantic_map = None if self.semantic_head is None else self.semantic_head(outputs.feature_maps[-1])
        valid_mask = make_valid_mask(image_sizes, height, width)
        if detail_maps is None:
            detail_maps = self.detail_path(self._pad(pixel_values * valid_mask), image_sizes)
        detail_basis, detail4, detail8 = detail_maps
        return FCLMImageEmbeddings(
            coarse_map=coarse_map,
            fine_map=fine_map,
            semantic_map=semantic_map,
            detail_maps=tuple(each.contiguous(memory_format=torch.channels_last) for each in (detail4, detail8)),
            detail_basis=transpose_channels(detail_basis),
            pixel_mask=valid_mask.to(torch.uint8),
            image_sizes=image_sizes,
            encoder_size=encoder_size,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    @staticmethod
    def _pad(pixel_values: torch.Tensor) -> torch.Tensor:
        """Pad images to a multiple of the output stride and by one cell more.

        What lies behind the border of an image is then the same in every batch.
        """
        height, width = pixel_values.shape[-2:]
        right, bottom = (-size % OUTPUT_STRIDE + OUTPUT_STRIDE for size in (width, height))
        return nn.functional.pad(pixel_values, (0, right, 0, bottom))

    @in_own_precision
    @can_return_tuple
    def get_text_features(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ModelOutput:
        """Embed texts with the CLIP text tower.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`):
                CLIP tokens.
            attention_mask (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                1 on the text, 0 on padding.
            kwargs:
                `output_hidden_states`, `output_attentions` and `return_dict`.

        Returns:
            [`~transformers.models.clip.modeling_clip.CLIPTextModelOutput`] with the text embeddings, of shape
            `(batch_size, projection_dim)`, as `pooler_output` too.
        """
        outputs = self.text_model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **kwargs)
        outputs.pooler_output = outputs.text_embeds
        return outputs

    @in_own_precision
    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        pixel_mask: torch.LongTensor | None = None,
        input_points: torch.FloatTensor | None = None,
        input_labels: torch.LongTensor | None = None,
        input_boxes: torch.FloatTensor | None = None,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        object_mask: torch.BoolTensor | None = None,
        image_embeddings: FCLMImageEmbeddings | None = None,
        text_embeds: torch.FloatTensor | None = None,
        input_masks: torch.FloatTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> FCLMModelOutput:
        """Encode images and prompts and decode an object per prompt.

        Args:
            pixel_values: See [`FCLMForImageMatting.forward`], like all arguments.
            pixel_mask: Mask of the images.
            input_points: Clicks.
            input_labels: Labels of the clicks.
            input_boxes: Boxes.
            input_ids: Tokens of the texts.
            attention_mask: Mask of the tokens.
            object_mask: Mask of the objects.
            image_embeddings: Embeddings of the images.
            text_embeds: Embeddings of the texts.
            input_masks: Masks.
            kwargs: `output_hidden_states`, `output_attentions`, `return_dict` and keyword arguments of the attention.

        Returns:
            [`FCLMModelOutput`], or its fields as a tuple with `return_dict=False`.

        Raises:
            ValueError: See [`FCLMForImageMatting.forward`].
        """
        if (pixel_values is None) == (image_embeddings is None):
            raise ValueError(
                "Exactly one of pixel_values and image_embeddings must be given, "
                f"got {'neither' if pixel_values is None else 'both'}."
            )
        batch_size = (pixel_values if image_embeddings is None else image_embeddings.coarse_map).shape[0]
        num_objects = count_objects(
            batch_size, input_points, input_labels, input_boxes, input_ids, attention_mask, object_mask, input_masks
        )
        if image_embeddings is None:
            image_embeddings = self.get_image_embeddings(pixel_values, pixel_mask, **kwargs)
        grids = self._get_grids(image_embeddings)
        points, labels, boxes = self._prepare_visual_prompts(
            grids, num_objects, input_points, input_labels, input_boxes
        )
        text_embeds, has_text = self._prepare_text_prompts(
            batch_size, num_objects, input_ids, attention_mask, text_embeds
        )
        tokens, token_positions, token_mask, grid_positions = self.prompt_encoder(
            points, labels, boxes, text_embeds, has_text, grids.coarse
        )
        dense_embeddings = self._embed_dense_prompts(
            image_embeddings, grids, points, labels, boxes, text_embeds, has_text
        )
        mask_embedding = None
        if input_masks is not None:
            if dense_embeddings is None:
                raise ValueError("input_masks requires config.dense_prompts, got dense_prompts=False.")
            coarse_masks, fine_masks, mask_embedding = self._embed_masks(
                image_embeddings, grids, input_masks.expand(batch_size, num_objects, -1, -1)
            )
            dense_embeddings = dense_embeddings[0] + coarse_masks, dense_embeddings[1] + fine_masks
        dtype = image_embeddings.coarse_map.dtype
        object_features, coarse_logits, query = self.decoder(
            image_embeddings,
            tokens.to(dtype),
            token_positions.to(dtype),
            token_mask,
            grid_positions.to(dtype),
            dense_embeddings,
            mask_embedding,
            self._compute_output_weights(grids, num_objects),
            **{name: value for name, value in kwargs.items() if not name.startswith("output_")},
        )
        return FCLMModelOutput(
            object_features=object_features.view(batch_size, num_objects, *object_features.shape[1:]),
            detail_basis=image_embeddings.detail_basis,
            pixel_mask=image_embeddings.pixel_mask,
            coarse_logits=coarse_logits.view(batch_size, num_objects, *coarse_logits.shape[1:]),
            prompt_embeds=query.view(batch_size, num_objects, -1),
            text_scores=self._score_texts(image_embeddings, grids, text_embeds, has_text),
            image_sizes=image_embeddings.image_sizes,
            object_mask=object_mask,
            hidden_states=image_embeddings.hidden_states,
            attentions=image_embeddings.attentions,
        )

    def _get_grids(self, image_embeddings: FCLMImageEmbeddings) -> FCLMGrids:
        """Return the grids on which these images are decoded."""
        height, width = image_embeddings.coarse_map.shape[-2:]
        return FCLMGrids(
            encoder_input=self._get_encoder_input_size(
                *image_embeddings.pixel_mask.shape[-2:], image_embeddings.encoder_size
            ),
            coarse=(height, width),
            fine=(FINE_GRID_SCALE * height, FINE_GRID_SCALE * width),
            output=tuple(image_embeddings.detail_maps[-1].shape[-2:]),
            scale=self._get_encoder_input_scale(image_embeddings.image_sizes, image_embeddings.encoder_size),
        )

    @staticmethod
    def _prepare_visual_prompts(
        grids: FCLMGrids,
        num_objects: int,
        input_points: torch.Tensor | None,
        input_labels: torch.Tensor | None,
        input_boxes: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return points, labels and boxes as [`FCLMPromptEncoder`] takes them; absent ones become padding."""
        batch_size, device = grids.scale.shape[0], grids.scale.device
        if input_points is None:
            input_points = torch.zeros(batch_size, num_objects, 1, 2, device=device)
            input_labels = torch.full((batch_size, num_objects, 1), PROMPT_PADDING, device=device)
        elif input_labels is None:
            input_labels = torch.ones_like(input_points[..., 0], dtype=torch.long)
        if input_boxes is None:
            input_boxes = torch.zeros(batch_size, num_objects, 4, device=device)
        input_height, input_width = grids.encoder_input
        normalize = grids.scale.view(-1, 1, 1) / torch.tensor(
            [input_width, input_height], device=device, dtype=torch.float32
        )
        points = (input_points.float() + 0.5) * normalize[:, None]  # a click on pixel (x, y) means its center
        boxes = input_boxes.float() * normalize.repeat(1, 1, 2)
        return (
            points.expand(batch_size, num_objects, -1, 2).flatten(0, 1),
            input_labels.expand(batch_size, num_objects, -1).flatten(0, 1),
            boxes.expand(batch_size, num_objects, 4).flatten(0, 1),
        )

    def _prepare_text_prompts(
        self,
        batch_size: int,
        num_objects: int,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        text_embeds: torch.Tensor | None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return text embeddings (num_prompts, projection_dim) and whether each prompt has a text, or None twice."""
        if input_ids is None:
            if text_embeds is not None:
                raise ValueError("text_embeds requires input_ids, got text_embeds alone.")
            return None, None
        text_batch_size, length = input_ids.shape[0], input_ids.shape[-1]
        if text_embeds is None:
            # CLIP's attention is causal and pools at the end token, so padding after it needs no mask
            text_embeds = self.text_model(input_ids=input_ids.reshape(-1, length), return_dict=True).text_embeds
        has_text = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        has_text = has_text.view(text_batch_size, -1, length).any(-1).expand(batch_size, num_objects)
        projection_dim = text_embeds.shape[-1]
        text_embeds = text_embeds.reshape(text_batch_size, -1, projection_dim)
        text_embeds = text_embeds.expand(batch_size, num_objects, projection_dim)
        return text_embeds.reshape(-1, projection_dim), has_text.reshape(-1)

    def _embed_dense_prompts(
        self,
        image_embeddings: FCLMImageEmbeddings,
        grids: FCLMGrids,
        points: torch.Tensor,
        labels: torch.Tensor,
        boxes: torch.Tensor,
        text_embeds: torch.Tensor | None,
        has_text: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return embeddings of the dense prompt maps, see [`FCLMPromptEncoder.embed_dense_maps`], if there are any."""
        if not self.config.dense_prompts:
            return None
        maps = self.prompt_encoder.draw_dense_maps(points, labels, boxes, *grids.fine)
        semantic_map = image_embeddings.semantic_map
        if semantic_map is not None:
            valid_mask = self._make_semantic_mask(image_embeddings, grids)
            text_maps = self.prompt_encoder.draw_text_similarity(
                semantic_map, valid_mask, text_embeds, has_text, *grids.fine
            )
            if text_embeds is None:  # zeros
                text_maps = text_maps.repeat(maps.shape[0] // semantic_map.shape[0], 1, 1, 1)
            maps = torch.cat([maps, text_maps], dim=1)
        return self.prompt_encoder.embed_dense_maps(maps.to(image_embeddings.coarse_map.dtype))

    @staticmethod
    def _make_semantic_mask(image_embeddings: FCLMImageEmbeddings, grids: FCLMGrids) -> torch.Tensor:
        """Return a bool mask (batch_size, 1, map_height, map_width) of the cells of the semantic map on the images."""
        height, width = image_embeddings.semantic_map.shape[-2:]
        input_sizes = image_embeddings.image_sizes * grids.scale[:, None]
        return make_valid_mask(input_sizes, height, width, stride=grids.encoder_input[0] / height)

    def _score_texts(
        self,
        image_embeddings: FCLMImageEmbeddings,
        grids: FCLMGrids,
        text_embeds: torch.Tensor | None,
        has_text: torch.Tensor | None,
    ) -> torch.Tensor | None:
        """Return how well each text matches the place that it matches best, (batch_size, num_objects) in fp32."""
        if image_embeddings.semantic_map is None or text_embeds is None:
            return None
        valid_mask = self._make_semantic_mask(image_embeddings, grids)
        scores = match_texts(image_embeddings.semantic_map, valid_mask, text_embeds)[1].flatten(1)
        return scores.masked_fill(~has_text.to(scores.device).view_as(scores), torch.inf)

    def _embed_masks(
        self, image_embeddings: FCLMImageEmbeddings, grids: FCLMGrids, masks: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return embeddings of mask prompts for the coarse grid, the fine grid and the last upsampling step."""
        num_objects, dtype = masks.shape[1], image_embeddings.coarse_map.dtype
        masks = pad_masks(masks, *image_embeddings.pixel_mask.shape[-2:])
        masks = masks.float().masked_fill(~image_embeddings.pixel_mask.bool(), -1)
        maps = self.prompt_encoder.draw_masks(masks).flatten(1, 2)

        def split_objects(maps: torch.Tensor) -> torch.Tensor:
            return maps.unflatten(1, (num_objects, -1)).flatten(0, 1).to(dtype)

        encoder_input = self.resize_and_pad(maps, image_embeddings.image_sizes, image_embeddings.encoder_size)
        fine_maps = split_objects(nn.functional.adaptive_avg_pool2d(encoder_input, grids.fine))
        height, width = image_embeddings.detail_maps[0].shape[-2:]
        padding = (0, MASK_STRIDE * width - maps.shape[-1], 0, MASK_STRIDE * height - maps.shape[-2])
        detail_maps = split_objects(nn.functional.avg_pool2d(nn.functional.pad(maps, padding), MASK_STRIDE))
        encoder = self.prompt_encoder
        has_mask = (masks >= 0).flatten(0, 1).flatten(1).any(1).to(dtype)[:, None, None, None]
        return (
            encoder.mask_coarse_paint(fine_maps) * has_mask,
            encoder.mask_fine_paint(fine_maps) * has_mask,
            encoder.mask_detail_paint(detail_maps) * has_mask,
        )

    @staticmethod
    def _compute_output_weights(grids: FCLMGrids, num_objects: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the matrices that resample rows and columns of the fine grid to the output grid, one per prompt."""
        weights = []
        for output, fine, encoder_input in zip(grids.output, grids.fine, grids.encoder_input, strict=True):
            # fine cells per output cell: pixels of `pixel_values` -> encoder input pixels -> fine cells
            step = OUTPUT_STRIDE * fine / encoder_input * grids.scale
            axis_weights = compute_interpolation_weights(output, fine, step, torch.full_like(grids.scale, fine))
            weights.append(axis_weights[:, None].expand(-1, num_objects, -1, -1).flatten(0, 1))
        return weights[0], weights[1]


class FCLMForImageMatting(FCLMPreTrainedModel):
    """FCLM with a matte head: an alpha matte of each object that a text, clicks or a box name.

    Without any prompt it gives the matte of the salient object.

    Args:
        config ([`FCLMConfig`]):
            Configuration of the model.

    Example:
        >>> import torch
        >>> from PIL import Image
        >>> from fclm_hf import LITE_CHECKPOINT, FCLMForImageMatting, FCLMProcessor

        >>> model = FCLMForImageMatting.from_pretrained(LITE_CHECKPOINT).eval()
        >>> processor = FCLMProcessor.from_pretrained(LITE_CHECKPOINT)
        >>> image = Image.new("RGB", (96, 64), "gray")
        >>> inputs = processor(images=image, text=[["a cat", "a dog"]])
        >>> with torch.no_grad():
        ...     outputs = model(**inputs)
        >>> result = processor.post_process_image_matting(outputs, inputs["original_sizes"])[0]
        >>> result["alpha"].shape
        torch.Size([2, 64, 96])
    """

    def __init__(self, config: FCLMConfig):
        super().__init__(config)
        self.model = FCLMModel(config)
        self.head = FCLMMatteHead(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embedding of the text tower."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Set the token embedding of the text tower."""
        self.model.set_input_embeddings(value)

    def get_image_embeddings(self, pixel_values: torch.FloatTensor, *args: Any, **kwargs: Any) -> FCLMImageEmbeddings:
        """Encode images once, see [`FCLMModel.get_image_embeddings`]."""
        return self.model.get_image_embeddings(pixel_values, *args, **kwargs)

    @in_own_precision
    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        pixel_mask: torch.LongTensor | None = None,
        input_points: torch.FloatTensor | None = None,
        input_labels: torch.LongTensor | None = None,
        input_boxes: torch.FloatTensor | None = None,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        object_mask: torch.BoolTensor | None = None,
        image_embeddings: FCLMImageEmbeddings | None = None,
        labels: torch.FloatTensor | None = None,
        text_embeds: torch.FloatTensor | None = None,
        input_masks: torch.FloatTensor | None = None,
        label_mask: torch.BoolTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> FCLMImageMattingOutput:
        """Predict the alpha matte of each prompted object.

        Prompts can be combined in any way or left out; several kinds describe the same objects, in the same order.
        Coordinates are in pixels of `pixel_values`; [`FCLMProcessor`] converts them. Prompts of batch size 1 apply to
        all images.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, 3, height, width)`, *optional*):
                Normalized images, padded at the bottom and right; of any floating-point dtype.
            pixel_mask (`torch.LongTensor` of shape `(batch_size, height, width)`, *optional*):
                1 on the image, 0 on padding; `None` for images without padding.
            input_points (`torch.FloatTensor` of shape `(batch_size, num_objects, num_points, 2)`, *optional*):
                Clicks as (x, y).
            input_labels (`torch.LongTensor` of shape `(batch_size, num_objects, num_points)`, *optional*):
                1 for clicks on the object, 0 for clicks on the background, -10 for padding. Defaults to all 1.
            input_boxes (`torch.FloatTensor` of shape `(batch_size, num_objects, 4)`, *optional*):
                Boxes as (x0, y0, x1, y1); a box without area stands for none.
            input_ids (`torch.LongTensor`, *optional*):
                CLIP tokens of the texts, of shape `(batch_size, num_objects, sequence_length)`, or `(batch_size,
                sequence_length)` for one text per image.
            attention_mask (`torch.LongTensor` of the shape of `input_ids`, *optional*):
                1 on the text, 0 on padding; a row of zeros stands for an object without a text.
            object_mask (`torch.BoolTensor` of shape `(batch_size, num_objects)`, *optional*):
                False for padding objects: their alphas are 0 and they do not count in the loss.
            image_embeddings ([`FCLMImageEmbeddings`], *optional*):
                Output of [`~FCLMModel.get_image_embeddings`], in place of `pixel_values` and `pixel_mask`.
            labels (`torch.FloatTensor` of shape `(batch_size, num_objects, height, width)`, *optional*):
                True alphas in [0, 1].
            text_embeds (`torch.FloatTensor` of shape `(..., projection_dim)`, *optional*):
                Output of [`~FCLMModel.get_text_features`] for `input_ids`, with one row per text; the text tower then
                does not run.
            input_masks (`torch.FloatTensor` of shape `(batch_size, num_objects, mask_height, mask_width)`, *optional*):
                Rough masks, trimaps (0, 0.5 and 1 only) or earlier mattes in [0, 1], in pixels of `pixel_values`; -1 on
                padding, which they may lack, and everywhere for an object without a mask. Known pixels of a trimap stay
                as they are. Requires `config.dense_prompts`.
            label_mask (`torch.BoolTensor` of shape `(batch_size, num_objects, height, width)`, *optional*):
                False where `labels` are unknown. The label of an object with such pixels is a coarse mask: it is
                learned with [`coarse_mask_loss`] where it is known.
            kwargs:
                `output_hidden_states`, `output_attentions`, `return_dict` and keyword arguments of the attention.

        Returns:
            [`FCLMImageMattingOutput`], or its fields as a tuple with `return_dict=False`.

        Raises:
            ValueError: If neither or both of `pixel_values` and `image_embeddings` are given, an argument has the wrong
                shape, or the prompts disagree on the number of objects.
        """
        outputs: FCLMModelOutput = self.model(
            pixel_values,
            pixel_mask=pixel_mask,
            input_points=input_points,
            input_labels=input_labels,
            input_boxes=input_boxes,
            input_ids=input_ids,
            attention_mask=attention_mask,
            object_mask=object_mask,
            image_embeddings=image_embeddings,
            text_embeds=text_embeds,
            input_masks=input_masks,
            return_dict=True,
            **kwargs,
        )
        valid_mask = outputs.pixel_mask
        logits = self.head(outputs.object_features, outputs.detail_basis, outputs.coarse_logits)
        logits = logits[..., : valid_mask.shape[-2], : valid_mask.shape[-1]]
        if object_mask is not None:
            valid_mask = valid_mask * object_mask[..., None, None].to(valid_mask.dtype)
        alphas = logits.float().sigmoid()
        if input_masks is not None:
            input_masks = pad_masks(input_masks, *valid_mask.shape[-2:])
            known = find_trimaps(input_masks) & ((input_masks - 0.5).abs() >= TRIMAP_TOLERANCE)
            alphas = torch.where(known, input_masks.float().clamp(0, 1), alphas)
        alphas = alphas * valid_mask
        loss = None
        if labels is not None:
            loss = self._compute_loss(logits, alphas, outputs.coarse_logits, labels, valid_mask.bool(), label_mask)
        if outputs.text_scores is not None and self.config.text_score_threshold is not None:
            absent = outputs.text_scores < self.config.text_score_threshold
            for located in find_located_objects(input_points, input_labels, input_boxes, input_masks):
                absent = absent & ~located.to(absent.device)
            alphas = alphas.masked_fill(absent[..., None, None], 0)
        return FCLMImageMattingOutput(
            loss=loss,
            logits=logits,
            alphas=alphas,
            coarse_logits=outputs.coarse_logits,
            text_scores=outputs.text_scores,
            image_sizes=outputs.image_sizes,
            object_mask=outputs.object_mask,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _compute_loss(
        self,
        logits: torch.Tensor,
        alphas: torch.Tensor,
        coarse_logits: torch.Tensor,
        labels: torch.Tensor,
        valid_mask: torch.Tensor,
        label_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the head loss of Eq. 9 for `config.task`, and the losses of coarse labels and coarse logits."""
        for name, value in (("labels", labels), ("label_mask", label_mask)):
            if value is not None and value.shape != alphas.shape:
                raise ValueError(
                    f"{name} must have the shape of the alphas, {tuple(alphas.shape)}, got {tuple(value.shape)}."
                )
        exact = known = valid_mask
        if label_mask is not None:
            known = valid_mask & label_mask
            exact = valid_mask & (label_mask | ~valid_mask).all(-1, keepdim=True).all(-2, keepdim=True)
        if self.config.task == "matting":
            loss = matting_loss(alphas, labels, exact)
        else:
            loss = segmentation_loss(logits, labels, exact)
        if label_mask is not None:
            loss = loss + coarse_mask_loss(logits, labels, known & ~exact)
            labels = labels * known
        if self.config.coarse_loss_weight:
            coarse_labels = self._pool_to_output_grid(labels, coarse_logits)
            coarse_mask = self._pool_to_output_grid(known.expand_as(labels), coarse_logits)
            if label_mask is not None:  # the means over known pixels
                coarse_labels = coarse_labels / coarse_mask.clamp(min=1e-6)
            coarse_loss = segmentation_loss(coarse_logits, coarse_labels, coarse_mask)
            loss = loss + self.config.coarse_loss_weight * coarse_loss
        return loss

    @staticmethod
    def _pool_to_output_grid(maps: torch.Tensor, coarse_logits: torch.Tensor) -> torch.Tensor:
        """Return the means of maps (batch_size, num_objects, height, width) over the cells of the coarse logits."""
        padded_height, padded_width = (OUTPUT_STRIDE * size for size in coarse_logits.shape[-2:])
        height, width = maps.shape[-2:]
        maps = nn.functional.pad(maps.float(), (0, padded_width - width, 0, padded_height - height))
        return nn.functional.avg_pool2d(maps, OUTPUT_STRIDE)


__all__ = [
    "FCLMForImageMatting",
    "FCLMImageEmbeddings",
    "FCLMImageMattingOutput",
    "FCLMModel",
    "FCLMModelOutput",
    "FCLMPreTrainedModel",
]
