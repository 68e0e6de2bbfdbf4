"""PyTorch FCLM: backbone, prompt encoder and Object-Oriented Decoder -> an alpha matte per prompted object."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

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

from .configuration_fclm import FCLMConfig
from .loss_fclm import coarse_mask_loss, matting_loss, segmentation_loss


TENSOR_ALIGNMENT = 64  # bytes


ACCEPTED_SHAPES = {
    "input_points": "(batch, objects, points, 2)",
    "input_labels": "(batch, objects, points), as input_points",
    "input_boxes": "(batch, objects, 4)",
    "input_ids": "(batch, length) or (batch, objects, length)",
    "attention_mask": "the shape of input_ids",
    "object_mask": "(batch, objects)",
    "input_masks": "(batch, objects, height, width)",
}


@dataclass
class FCLMImageEmbeddings(ModelOutput):
    """What the decoder needs of an image, whatever the prompt.

    coarse_map (batch, hidden_size, h, w): merged backbone maps.
    fine_map (batch, fine_hidden_size, 2h, 2w): the backbone map before `coarse_level`, projected; `None` with level 0.
    semantic_map (batch, projection_dim, h, w): the last backbone map in the space of the text embeddings, see
        [`FCLMSemanticHead`]; `None` without one.
    detail_maps: 3 maps (batch, channels, ~height / s, ~width / s) of the detail path at strides s = 2, 4, 8; the first
        is the basis of the mattes, four pixels to a cell.
    image_sizes (batch, 2): valid height and width inside `pixel_values`.
    """

    coarse_map: torch.FloatTensor | None = None
    fine_map: torch.FloatTensor | None = None
    semantic_map: torch.FloatTensor | None = None
    detail_maps: tuple[torch.FloatTensor, ...] | None = None
    detail_basis: torch.FloatTensor | None = None
    pixel_mask: torch.ByteTensor | None = None
    image_sizes: torch.LongTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class FCLMModelOutput(ModelOutput):
    """object_features (batch, objects, channels, ~height / 4, ~width / 4): features of each object at stride 4.
    detail_basis, pixel_mask: what the image contributes at full size, see [`FCLMImageEmbeddings`].
    coarse_logits (batch, objects, ~height / 8, ~width / 8), stride 8: what the encoder alone makes of it.
    prompt_embeds (batch, objects, hidden_size): the context query after the decoder.
    image_sizes (batch, 2), object_mask (batch, objects): as given to the model.
    """

    object_features: torch.FloatTensor | None = None
    detail_basis: torch.FloatTensor | None = None
    pixel_mask: torch.ByteTensor | None = None
    coarse_logits: torch.FloatTensor | None = None
    prompt_embeds: torch.FloatTensor | None = None
    image_sizes: torch.LongTensor | None = None
    object_mask: torch.BoolTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class FCLMImageMattingOutput(ModelOutput):
    """loss: scalar, when `labels` are given.
    logits (batch, objects, height, width): before the sigmoid, at the size of `pixel_values`.
    alphas (batch, objects, height, width): mattes in [0, 1]; 0 on padding.
    coarse_logits, image_sizes, object_mask: see [`FCLMModelOutput`].
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    alphas: torch.FloatTensor | None = None
    coarse_logits: torch.FloatTensor | None = None
    image_sizes: torch.LongTensor | None = None
    object_mask: torch.BoolTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


def find_image_sizes(pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None) -> torch.Tensor:
    """Heights and widths (batch, 2) of the images inside `pixel_values` (batch, channels, height, width).

    `pixel_mask` (batch, height, width) is 1 on the image and 0 on padding at the bottom and right; `None` for none.
    """
    if pixel_values.dim() != 4:
        raise ValueError(f"pixel_values has shape {tuple(pixel_values.shape)}, accepted is (batch, 3, height, width).")
    batch, _, height, width = pixel_values.shape
    if pixel_mask is not None and pixel_mask.shape != (batch, height, width):
        raise ValueError(
            f"pixel_mask has shape {tuple(pixel_mask.shape)}, accepted is that of the images, {(batch, height, width)}."
        )
    if pixel_mask is None:
        return torch.tensor([[height, width]], device=pixel_values.device).expand(batch, 2)
    return torch.stack([pixel_mask[:, :, 0].sum(1), pixel_mask[:, 0].sum(1)], dim=1).long()


def valid_pixels(sizes: torch.Tensor, height: int, width: int, stride: float = 1) -> torch.Tensor:
    """Bool (batch, 1, height, width): cells of a `stride` grid that start inside the image. `sizes` is (batch, 2)."""
    rows = torch.arange(height, device=sizes.device) * stride < sizes[:, :1]
    columns = torch.arange(width, device=sizes.device) * stride < sizes[:, 1:]
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def interpolation_weights(num_outputs: int, num_inputs: int, step: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Antialiased linear interpolation along one axis as matrices (batch, num_outputs, num_inputs) in fp32.

    Output cell `i` is centred on input coordinate `(i + 0.5) * step - 0.5`; inputs from `valid` on do not count.
    `step` and `valid` are fp32 (batch,).
    """
    step, valid = step.view(-1, 1), valid.view(-1, 1)
    outputs = torch.arange(num_outputs, device=step.device, dtype=torch.float32)
    inputs = torch.arange(num_inputs, device=step.device, dtype=torch.float32)
    centre = ((outputs + 0.5) * step - 0.5).clamp(min=0).minimum(valid - 1)
    support = step.clamp(min=1)[..., None]
    weights = (1 - (inputs - centre[..., None]).abs() / support).clamp(min=0) * (inputs < valid)[:, None]
    return weights / weights.sum(-1, keepdim=True)


def resample(maps: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """(batch, channels, h, w) -> (batch, channels, H, W) with `rows` (batch, H, h) and `columns` (batch, W, w)."""
    batch, channels, height, width = maps.shape
    maps = maps.reshape(batch, channels * height, width) @ columns.transpose(1, 2).to(maps.dtype)
    maps = maps.view(batch, channels, height, -1).transpose(1, 2).reshape(batch, height, -1)
    maps = rows.to(maps.dtype) @ maps
    return maps.view(batch, rows.shape[1], channels, -1).transpose(1, 2)


def count_objects(
    batch: int,
    input_points: torch.Tensor | None = None,
    input_labels: torch.Tensor | None = None,
    input_boxes: torch.Tensor | None = None,
    input_ids: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
    object_mask: torch.Tensor | None = None,
    input_masks: torch.Tensor | None = None,
) -> int:
    """Number of objects per image that prompts name, once their shapes are found to be right.

    Args:
        batch: number of images; prompts for one image go to all.
        input_points, input_labels, input_boxes, input_ids, attention_mask, object_mask, input_masks: those of the
            model.

    Raises:
        ValueError: names the argument, its shape and what is accepted; or prompts that disagree.
    """
    if input_labels is not None and input_points is None:
        raise ValueError("input_labels were given without input_points.")
    counts = {}
    for name, given, right in (
        ("input_points", input_points, lambda shape: len(shape) == 4 and shape[3] == 2),
        ("input_labels", input_labels, lambda shape: shape == input_points.shape[:3]),
        ("input_boxes", input_boxes, lambda shape: len(shape) == 3 and shape[2] == 4),
        ("input_ids", input_ids, lambda shape: len(shape) in (2, 3)),
        ("attention_mask", None if input_ids is None else attention_mask, lambda shape: shape == input_ids.shape),
        ("object_mask", object_mask, lambda shape: len(shape) == 2),
        ("input_masks", input_masks, lambda shape: len(shape) == 4),
    ):
        if given is None:
            continue
        if not right(given.shape) or given.shape[0] not in (1, batch):
            raise ValueError(
                f"{name} has shape {tuple(given.shape)}, accepted is {ACCEPTED_SHAPES[name]} for {batch} images."
            )
        counts[name] = 1 if name in ("input_ids", "attention_mask") and given.dim() == 2 else given.shape[1]
    objects = max(counts.values(), default=1)
    if any(count not in (1, objects) for count in counts.values()):
        raise ValueError(f"The prompts disagree on the number of objects per image: {counts}.")
    return objects


class FCLMLayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of (batch, channels, height, width)."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return super().forward(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class FCLMConvBlock(nn.Module):
    """Residual 3 x 3 convolution behind a norm over channels."""

    def __init__(self, channels: int, config: FCLMConfig):
        super().__init__()
        self.norm = FCLMLayerNorm2d(channels, eps=config.layer_norm_eps)
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.activation_fn = ACT2FN[config.hidden_act]

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps + self.activation_fn(self.conv(self.norm(maps)))


class FCLMPixelDecoder(nn.Module):
    """Merges the backbone's maps from the top down into a coarse map; the finer map before them is only projected."""

    def __init__(self, config: FCLMConfig, channels: list[int]):
        super().__init__()
        self.coarse_level = config.coarse_level
        width, eps = config.hidden_size, config.layer_norm_eps

        def lateral(inputs: int, outputs: int) -> nn.Module:
            return nn.Sequential(nn.Conv2d(inputs, outputs, kernel_size=1), FCLMLayerNorm2d(outputs, eps=eps))

        merged = channels[self.coarse_level :]
        self.laterals = nn.ModuleList([lateral(inputs, width) for inputs in merged])
        self.blocks = nn.ModuleList([FCLMConvBlock(width, config) for _ in merged[1:]])
        self.fine_lateral = lateral(channels[0], config.fine_hidden_size) if self.coarse_level else None

    def forward(self, feature_maps: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor | None]:
        maps = [layer(m) for layer, m in zip(self.laterals, feature_maps[self.coarse_level :], strict=True)]
        coarse = maps[-1]
        for finer, block in zip(reversed(maps[:-1]), self.blocks, strict=True):
            if coarse.shape[-2:] != finer.shape[-2:]:
                coarse = nn.functional.interpolate(coarse, size=finer.shape[-2:], mode="bilinear", align_corners=False)
            coarse = block(coarse + finer)
        return coarse, None if self.fine_lateral is None else self.fine_lateral(feature_maps[0])


class FCLMSemanticHead(nn.Module):
    """Takes the backbone's last map to the space of the text embeddings: the dot product with one says how well a place
    matches the text, as in MaskCLIP (Zhou et al. 2022).

    Shaped as an EfficientNet's own head, so that it can start as the classifier of ImageNet's 1000 classes.
    """

    def __init__(self, config: FCLMConfig, channels: int):
        super().__init__()
        self.hidden = nn.Conv2d(channels, config.semantic_head_size, kernel_size=1)
        self.projection = nn.Conv2d(config.semantic_head_size, config.text_config.projection_dim, kernel_size=1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.projection(nn.functional.relu6(self.hidden(maps)))


class FCLMDetailBlock(nn.Module):
    """Convolution to a coarser stride and a residual one, with what lies outside the image kept at 0."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int = 3):
        super().__init__()
        self.down = nn.Conv2d(inputs, outputs, kernel_size, stride=2, padding=(kernel_size - 1) // 2, bias=False)
        self.down_norm = nn.BatchNorm2d(outputs)
        self.conv = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, maps: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        maps = nn.functional.relu(self.down_norm(self.down(maps)), inplace=True) * valid
        return (maps + nn.functional.relu(self.norm(self.conv(maps)), inplace=True)) * valid


class FCLMDetailPath(nn.Module):
    """A small U-Net on the full-size pixels, run once per image whatever the prompts.

    It gives what an object's map meets at strides 8 and 4, and the basis of full-size features in which each matte is
    locally linear (see [`FCLMMatteHead`]).
    """

    def __init__(self, config: FCLMConfig, num_channels: int = 3):
        super().__init__()
        d1, d2, d4, d8 = config.detail_hidden_sizes
        # an even kernel, as a cell of stride 2 has its centre between pixels
        self.blocks = nn.ModuleList(
            [FCLMDetailBlock(num_channels, d2, kernel_size=6), FCLMDetailBlock(d2, d4), FCLMDetailBlock(d4, d8)]
        )
        self.object8 = nn.Conv2d(d8, d8, kernel_size=3, padding=1)
        self.object4 = nn.Conv2d(d4, d4, kernel_size=1)
        self.top4 = nn.Conv2d(d8, d4, kernel_size=1)
        self.lateral4 = nn.Conv2d(d4, d4, kernel_size=3, padding=1)
        self.top2 = nn.Conv2d(d4, d2, kernel_size=1)
        self.lateral2 = nn.Conv2d(d2, d2, kernel_size=3, padding=1)
        self.basis = nn.Conv2d(d2, 4 * d1, kernel_size=3, padding=1)

    def forward(self, pixel_values: torch.Tensor, image_sizes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`pixel_values` (batch, 3, height, width), sides multiples of 8, are 0 outside the image.

        Returns:
            The basis (batch, 4 * d1, height / 2, width / 2), where channel `4 c + 2 y + x` is feature `c` at the pixel
            (y, x) of a cell, and maps at strides 4 and 8 to add to those of objects, hugely negative outside the image.
        """
        # many narrow convolutions: several times faster with channels last
        maps = pixel_values.contiguous(memory_format=torch.channels_last)
        height, width = maps.shape[-2:]
        valid = {s: valid_pixels(image_sizes, height // s, width // s, stride=s) for s in (2, 4, 8)}
        map2 = self.blocks[0](maps, valid[2])
        map4 = self.blocks[1](map2, valid[4])
        map8 = self.blocks[2](map4, valid[8])

        def add_upsampled(lateral: torch.Tensor, top: torch.Tensor, stride: int) -> torch.Tensor:
            top = nn.functional.interpolate(top, scale_factor=2, mode="bilinear", align_corners=False)
            return nn.functional.relu(lateral + top, inplace=True) * valid[stride]

        map4 = add_upsampled(self.lateral4(map4), self.top4(map8), 4)
        map2 = add_upsampled(self.lateral2(map2), self.top2(map4), 2)
        return (
            self.basis(map2),
            self._exclude(self.object4(map4), valid[4]),
            self._exclude(self.object8(map8), valid[8]),
        )

    @staticmethod
    def _exclude(maps: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """Makes a sum with `maps` 0 behind a ReLU where a convolution must not look: outside the image."""
        return maps.masked_fill(~inside, torch.finfo(maps.dtype).min)


def find_trimaps(masks: torch.Tensor) -> torch.Tensor:
    """Which masks are trimaps: of 0, 0.5 and 1 only, with some 0.5.

    Args:
        masks: (..., height, width) in [0, 1]; negative values are padding.

    Returns:
        bool (..., 1, 1).
    """
    unknown = (masks - 0.5).abs() < 0.01
    plain = unknown | (masks <= 0) | (masks >= 1)
    return (plain.flatten(-2).all(-1) & unknown.flatten(-2).any(-1))[..., None, None]


class FCLMPromptEncoder(nn.Module):
    """Prompts in two forms: sparse tokens (paper) and, with `dense_prompts`, soft maps painted on the image; texts are
    painted where there is a semantic head, masks are only painted.
    """

    point_padding = -10
    match_limit = 4.0

    def __init__(self, config: FCLMConfig):
        super().__init__()
        self.dense_prompts = config.dense_prompts
        num_maps = 8 if config.semantic_head_size is None else 11
        # a parameter, though it never learns: random buffers cannot be restored on the meta device
        self.fourier_matrix = nn.Parameter(
            torch.zeros(2, config.hidden_size // 2, dtype=torch.float32), requires_grad=False
        )
        # background point, foreground point, top-left corner, bottom-right corner
        self.kind_embed = nn.Embedding(4, config.hidden_size)
        self.context_query = nn.Embedding(1, config.hidden_size)
        self.text_projection = nn.Linear(config.text_config.projection_dim, config.hidden_size)
        if config.dense_prompts:
            self.fine_paint = nn.Conv2d(num_maps, config.fine_hidden_size, kernel_size=1)
            self.coarse_paint = nn.Sequential(
                nn.Conv2d(num_maps, config.hidden_size // 2, kernel_size=2, stride=2),
                ACT2FN[config.hidden_act],
                nn.Conv2d(config.hidden_size // 2, config.hidden_size, kernel_size=1),
            )
            self.mask_fine_paint = nn.Conv2d(4, config.fine_hidden_size, kernel_size=1)
            self.mask_coarse_paint = nn.Sequential(
                nn.Conv2d(4, config.hidden_size // 2, kernel_size=2, stride=2),
                ACT2FN[config.hidden_act],
                nn.Conv2d(config.hidden_size // 2, config.hidden_size, kernel_size=1),
            )
            self.mask_detail_paint = nn.Conv2d(4, config.detail_hidden_sizes[2], kernel_size=1)

    def mask_outputs(self) -> list[nn.Conv2d]:
        """The last layer of each path that a mask prompt takes; they start at zero, so that masks have no effect."""
        return [self.mask_fine_paint, self.mask_coarse_paint[-1], self.mask_detail_paint]

    def encode_positions(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Random Fourier features (Tancik et al.) of coordinates (..., 2) in [0, 1], in fp32."""
        with maybe_autocast(device_type=coordinates.device.type, enabled=False):
            angles = 2 * torch.pi * ((2 * coordinates.float() - 1) @ self.fourier_matrix.float())
            return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def encode_grid(self, height: int, width: int) -> torch.Tensor:
        """Positions of the cell centres of a grid: (1, height * width, hidden_size)."""
        device = self.fourier_matrix.device
        rows = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
        columns = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
        grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
        return self.encode_positions(grid.view(1, -1, 2))

    def forward(
        self,
        points: torch.Tensor,
        labels: torch.Tensor,
        boxes: torch.Tensor,
        text_embeds: torch.Tensor | None,
        text_given: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sparse tokens [context, text, corner, corner, point...] of `objects` prompts.

        Args:
            points: (objects, points, 2) in [0, 1] of the encoder canvas. labels: (objects, points) 1 / 0 / -10.
            boxes: (objects, 4) x0 y0 x1 y1 in [0, 1]; present where x1 > x0 and y1 > y0.
            text_embeds: (objects, projection_dim). text_given: bool (objects,).

        Returns:
            tokens and their positions (objects, tokens, hidden_size), and bool (objects, tokens): those to attend to.
            A prompt that is absent is a zero embedding; all but one padded points are masked.
        """
        kinds = self.kind_embed.weight
        dtype = kinds.dtype
        context = self.context_query.weight.expand(points.shape[0], 1, -1)
        text = torch.zeros_like(context)
        if text_embeds is not None:
            text = self.text_projection(text_embeds)[:, None] * text_given[:, None, None].to(dtype)
        box_given = ((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])).to(dtype)[:, None, None]
        corner_positions = self.encode_positions(boxes.view(-1, 2, 2)).to(dtype) * box_given
        corners = corner_positions + kinds[2:] * box_given
        point_given = labels >= 0
        weight = point_given[..., None].to(dtype)
        point_positions = self.encode_positions(points).to(dtype) * weight
        sparse = point_positions + nn.functional.embedding(labels.clamp(0, 1), kinds) * weight
        tokens = torch.cat([context, text.to(dtype), corners, sparse], dim=1)
        nowhere = torch.zeros_like(context).expand(-1, 2, -1)
        positions = torch.cat([nowhere, corner_positions, point_positions], dim=1)
        always = torch.ones_like(labels[:, :1], dtype=torch.bool)
        attended = torch.cat([always.expand(-1, 5), point_given[:, 1:]], dim=1)
        return tokens, positions, attended

    def paint(
        self, points: torch.Tensor, labels: torch.Tensor, boxes: torch.Tensor, height: int, width: int
    ) -> torch.Tensor:
        """Soft maps (objects, 8, height, width) in fp32: box inside, box given, place in the box (x, y), near and
        around foreground clicks, near and around background clicks.
        """
        device = points.device
        rows = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
        columns = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
        boxes, points = boxes.float(), points.float()
        low, high = boxes[:, :2], boxes[:, 2:]
        given = (high > low).all(-1).float().view(-1, 1, 1)
        centre, half = (low + high) / 2, ((high - low) / 2).clamp(min=1e-3)
        place_x = ((columns - centre[:, :1]) / half[:, :1]).clamp(-2, 2)[:, None, :].expand(-1, height, -1) * given
        place_y = ((rows - centre[:, 1:]) / half[:, 1:]).clamp(-2, 2)[:, :, None].expand(-1, -1, width) * given
        inside_x = ((columns - low[:, :1]).minimum(high[:, :1] - columns) * 2 * width).sigmoid()
        inside_y = ((rows - low[:, 1:]).minimum(high[:, 1:] - rows) * 2 * height).sigmoid()
        inside = inside_y[:, :, None] * inside_x[:, None, :] * given
        maps = [inside, given.expand_as(inside), place_x, place_y]
        square = (columns - points[..., :1])[:, :, None, :] ** 2 + (rows - points[..., 1:])[..., None] ** 2
        for label in (1, 0):
            chosen = (labels == label)[..., None, None]
            for radius in (0.02, 0.1):
                maps.append(((-square / (2 * radius**2)).exp() * chosen).amax(1))
        return torch.stack(maps, dim=1)

    def paint_masks(self, masks: torch.Tensor) -> torch.Tensor:
        """Maps of mask prompts: the mask in [-1, 1], how unknown a pixel is, mask given, mask is a trimap.

        Args:
            masks: (batch, objects, height, width) in [0, 1]; an object that is negative everywhere has no mask.

        Returns:
            (batch, objects, 4, height, width) in fp32, 0 where the masks are negative.
        """
        signs = 2 * masks.float().clamp(0, 1) - 1
        trimap = find_trimaps(masks).float().expand_as(signs)
        maps = torch.stack([signs, 1 - signs.abs(), torch.ones_like(signs), trimap], dim=2)
        return maps * (masks >= 0)[:, :, None]

    def paint_text(
        self,
        semantic_map: torch.Tensor,
        valid: torch.Tensor,
        text_embeds: torch.Tensor | None,
        text_given: torch.Tensor | None,
        height: int,
        width: int,
    ) -> torch.Tensor:
        """Maps (objects, 3, height, width) in fp32: how well a place matches the text, how much worse than the image's
        best place, text given. All are 0 without a text.

        `semantic_map` (objects, projection_dim, h, w) is compared where `valid` (objects, 1, h, w).
        """
        if text_embeds is None:
            return semantic_map.new_zeros(len(semantic_map), 3, height, width, dtype=torch.float32)
        device = semantic_map.device
        text_embeds, text_given = text_embeds.to(device), text_given.to(device)
        with maybe_autocast(device_type=device.type, enabled=False):
            direction = nn.functional.normalize(text_embeds.float(), dim=-1)
            match = torch.einsum("ochw,oc->ohw", semantic_map.float(), direction)[:, None]
            best = match.masked_fill(~valid, torch.finfo(match.dtype).min).amax((2, 3), keepdim=True)
            maps = torch.cat([match, match - best], dim=1).clamp(-self.match_limit, self.match_limit)
            maps = torch.cat([maps, torch.ones_like(match)], dim=1) * text_given.view(-1, 1, 1, 1)
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
    weights = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = nn.functional.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class FCLMAttention(nn.Module):
    """Attention whose queries, keys and values are `downsample_rate` times narrower than the model, as in SAM."""

    def __init__(self, config: FCLMConfig, downsample_rate: int = 1):
        super().__init__()
        self.config = config
        inner_size = config.hidden_size // downsample_rate
        self.head_dim = inner_size // config.decoder_attention_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.dropout
        self.is_causal = False
        self.q_proj = nn.Linear(config.hidden_size, inner_size)
        self.k_proj = nn.Linear(config.hidden_size, inner_size)
        self.v_proj = nn.Linear(config.hidden_size, inner_size)
        self.o_proj = nn.Linear(inner_size, config.hidden_size)

    def forward(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        def split_heads(states: torch.Tensor) -> torch.Tensor:
            return states.view(*states.shape[:-1], -1, self.head_dim).transpose(1, 2)

        implementation = self.config._attn_implementation
        if attention_mask is not None and queries.shape[1] != keys.shape[1] and "flash" in implementation:
            implementation = "sdpa"  # flash attention cannot mask the keys of a cross-attention
            attention_mask = attention_mask[:, None, None, :].bool()
        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        output, _ = attention_interface(
            self,
            split_heads(self.q_proj(queries)),
            split_heads(self.k_proj(keys)),
            split_heads(self.v_proj(values)),
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.o_proj(output.reshape(*queries.shape[:-1], -1).contiguous())


class FCLMMlp(nn.Module):
    def __init__(self, hidden_size: int, intermediate_size: int, hidden_act: str):
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, intermediate_size)
        self.fc2 = nn.Linear(intermediate_size, hidden_size)
        self.activation_fn = ACT2FN[hidden_act]

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation_fn(self.fc1(states)))


class FCLMDecoderLayer(GradientCheckpointingLayer):
    """Prompt tokens attend to each other and to the image; the image attends to the tokens, then mixes spatially."""

    def __init__(self, config: FCLMConfig):
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.self_attn = FCLMAttention(config)
        self.self_attn_norm = nn.LayerNorm(width, eps=eps)
        self.token_to_image_attn = FCLMAttention(config, config.attention_downsample_rate)
        self.token_norm = nn.LayerNorm(width, eps=eps)
        self.image_norm = nn.LayerNorm(width, eps=eps)
        self.token_mlp = FCLMMlp(width, config.decoder_ffn_dim, config.hidden_act)
        self.token_mlp_norm = nn.LayerNorm(width, eps=eps)
        self.image_to_token_attn = FCLMAttention(config, config.attention_downsample_rate)
        self.prompt_norm = nn.LayerNorm(width, eps=eps)
        self.spatial_mixer = nn.Conv2d(width, width, kernel_size=7, padding=3, groups=width)
        self.image_mlp_norm = nn.LayerNorm(width, eps=eps)
        self.image_mlp = FCLMMlp(width, config.image_ffn_dim, config.hidden_act)

    def forward(
        self,
        tokens: torch.Tensor,
        image: torch.Tensor,
        token_positions: torch.Tensor,
        image_positions: torch.Tensor,
        grid: tuple[int, int],
        self_mask: torch.Tensor | None = None,
        cross_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        states = self.self_attn_norm(tokens)
        placed = states + token_positions
        tokens = tokens + self.self_attn(placed, placed, states, self_mask, **kwargs)
        memory = self.image_norm(image)
        placed_memory = memory + image_positions
        tokens = tokens + self.token_to_image_attn(
            self.token_norm(tokens) + token_positions, placed_memory, memory, **kwargs
        )
        tokens = tokens + self.token_mlp(self.token_mlp_norm(tokens))
        states = self.prompt_norm(tokens)
        image = image + self.image_to_token_attn(placed_memory, states + token_positions, states, cross_mask, **kwargs)
        plane = image.transpose(1, 2).reshape(image.shape[0], -1, *grid)
        mixed = self.spatial_mixer(plane).flatten(2).transpose(1, 2)
        return tokens, image + self.image_mlp(self.image_mlp_norm(mixed))


class FCLMUpsampler(nn.Module):
    """One step up: the object's map, enlarged, meets the detail map of that stride."""

    def __init__(self, inputs: int, outputs: int, scale: int):
        super().__init__()
        self.scale = scale
        self.reduce = nn.Conv2d(inputs, outputs, kernel_size=1)
        self.conv = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1)

    def forward(self, maps: torch.Tensor, detail: torch.Tensor, paint: torch.Tensor | None = None) -> torch.Tensor:
        """Maps (batch * objects, inputs, h, w), detail (batch, outputs, H, W), hugely negative outside the image, and
        what a mask prompt adds (batch * objects, outputs, H, W)."""
        batch, _, height, width = detail.shape
        maps = self.reduce(maps)
        if self.scale > 1:
            maps = nn.functional.interpolate(maps, scale_factor=self.scale, mode="bilinear", align_corners=False)
        maps = maps[..., :height, :width]
        if paint is not None:
            maps = maps + paint
        maps = maps.unflatten(0, (batch, -1)).add_(detail[:, None])
        maps = nn.functional.relu(maps, inplace=True).flatten(0, 1)
        return maps + nn.functional.relu(self.conv(maps), inplace=True)


class FCLMObjectDecoder(nn.Module):
    """Object-Oriented Decoder: prompts and coarse map attend to each other, then the map climbs the detail path."""

    def __init__(self, config: FCLMConfig):
        super().__init__()
        self.config = config
        width, fine = config.hidden_size, config.fine_hidden_size
        _, _, d4, d8 = config.detail_hidden_sizes
        self.layers = nn.ModuleList([FCLMDecoderLayer(config) for _ in range(config.decoder_layers)])
        self.token_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.image_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.fine_projection = nn.Conv2d(width, fine, kernel_size=1)
        self.fine_block = FCLMConvBlock(fine, config)
        self.mask_embedding = nn.Linear(width, fine)
        self.coarse_head = nn.Conv2d(fine, 1, kernel_size=1)
        self.upsamplers = nn.ModuleList([FCLMUpsampler(fine + 1, d8, scale=1), FCLMUpsampler(d8, d4, scale=2)])

    def forward(
        self,
        embeddings: FCLMImageEmbeddings,
        tokens: torch.Tensor,
        token_positions: torch.Tensor,
        attended: torch.Tensor,
        image_positions: torch.Tensor,
        coarse_paint: torch.Tensor | None,
        fine_paint: torch.Tensor | None,
        detail_paint: torch.Tensor | None,
        weights: tuple[torch.Tensor, torch.Tensor],
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`tokens` are (batch * objects, tokens, hidden_size); `weights` resample the fine grid onto stride 8.

        Returns:
            object features at stride 4 (batch * objects, d4, ~height / 4, ~width / 4), coarse logits at stride 8 and
            the context query (batch * objects, hidden_size).
        """
        objects = tokens.shape[0] // embeddings.coarse_map.shape[0]
        image = embeddings.coarse_map.repeat_interleave(objects, dim=0)
        grid = image.shape[-2:]
        if coarse_paint is not None:
            image = image + coarse_paint
        image = image.flatten(2).transpose(1, 2)
        self_mask = create_bidirectional_mask(
            config=self.config,
            inputs_embeds=tokens,
            attention_mask=attended,
            allow_is_bidirectional_skip=False,  # deciding to skip reads the mask: a host synchronisation
        )
        cross_mask = create_bidirectional_mask(
            config=self.config,
            inputs_embeds=image,
            attention_mask=attended,
            encoder_hidden_states=tokens,
            allow_is_bidirectional_skip=False,
        )
        for layer in self.layers:
            tokens, image = layer(
                tokens, image, token_positions, image_positions, grid, self_mask, cross_mask, **kwargs
            )
        context = self.token_norm(tokens)[:, 0]
        image = self.image_norm(image).transpose(1, 2).reshape(image.shape[0], -1, *grid)
        fine = nn.functional.interpolate(
            self.fine_projection(image), scale_factor=2, mode="bilinear", align_corners=False
        )
        if embeddings.fine_map is not None:
            fine = fine + embeddings.fine_map.repeat_interleave(objects, dim=0)
        if fine_paint is not None:
            fine = fine + fine_paint
        fine = self.fine_block(fine)
        similarity = torch.einsum("bchw,bc->bhw", fine, self.mask_embedding(context)) * fine.shape[1] ** -0.5
        coarse_logits = similarity[:, None] + self.coarse_head(fine)
        maps = resample(torch.cat([fine, coarse_logits], dim=1), *weights)
        coarse_logits = maps[:, -1]
        maps = maps.contiguous(memory_format=torch.channels_last)
        paints = (None, detail_paint)
        for upsampler, detail, paint in zip(self.upsamplers, reversed(embeddings.detail_maps), paints, strict=True):
            maps = upsampler(maps, detail, paint)
        return maps, coarse_logits, context


class FCLMMatteHead(nn.Module):
    """Full-size logits `sum_c a_c f_c + b`: features `f` of the image, coefficients `a` and `b` of the object.

    Closed-form matting's colour line model (Levin et al. 2008, alpha is linear in the colours of a small window) with
    learnt features for colours and predicted coefficients for solved ones: an object costs little at full size.
    """

    def __init__(self, config: FCLMConfig):
        super().__init__()
        features, width = config.detail_hidden_sizes[0], config.detail_hidden_sizes[2]
        self.coefficients = nn.Conv2d(width, features + 1, kernel_size=1)

    def forward(self, object_features: torch.Tensor, basis: torch.Tensor, coarse_logits: torch.Tensor) -> torch.Tensor:
        """object_features (batch, objects, channels, h, w), basis (batch, 4 * features, 2 h, 2 w) and coarse_logits
        (batch, objects, ~h / 2, ~w / 2) -> logits (batch, objects, 4 h, 4 w).
        """

        def enlarge(maps: torch.Tensor, scale: int) -> torch.Tensor:
            return nn.functional.interpolate(maps, scale_factor=scale, mode="bilinear", align_corners=False)

        batch, objects, _, height, width = object_features.shape
        coefficients = self.coefficients(object_features.flatten(0, 1))
        coarse = enlarge(coarse_logits.flatten(0, 1)[:, None], 2)[..., :height, :width]
        offset = enlarge(coefficients[:, -1:] + coarse, 4)
        # feature by feature: slopes or products of all at once would be the largest tensors of the model
        slopes = (enlarge(slope, 2).unflatten(0, (batch, objects)) for slope in coefficients[:, :-1].split(1, dim=1))
        features = basis.unflatten(1, (-1, 4)).unsqueeze(1).unbind(2)
        logits = next(slopes) * features[0]
        for slope, feature in zip(slopes, features[1:], strict=True):
            logits = logits.addcmul_(slope, feature)
        logits = nn.functional.pixel_shuffle(logits.flatten(0, 1), 2).add_(offset)
        return logits.view(batch, objects, *logits.shape[-2:])


def align_tensors(model: nn.Module) -> None:
    """Moves weights on the CPU that lie as in their file to memory of their own, aligned as torch's allocator does.

    Vectorised kernels add in another order where a tensor is aligned otherwise; so a reloaded model gives the same
    mattes as the saved one to the bit.
    """
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        is_plain = type(tensor.data) is torch.Tensor and tensor.device.type == "cpu"
        if is_plain and tensor.data_ptr() % TENSOR_ALIGNMENT:
            tensor.data = tensor.data.clone()


class FCLMPreTrainedModel(PreTrainedModel):
    config: FCLMConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["FCLMDecoderLayer", "FCLMPromptEncoder", "FCLMPixelDecoder", "FCLMDetailPath", "TimmBackbone"]
    _keep_in_fp32_modules_strict = ["fourier_matrix"]
    _keys_to_ignore_on_load_missing = [r"prompt_encoder\.mask_"]  # checkpoints from before mask prompts
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return True  # transformers looks for the attention interface in this file only; it is in decoder_fclm.py

    @classmethod
    def from_pretrained(cls, *args, **kwargs) -> "FCLMPreTrainedModel":
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        align_tensors(model)
        if model.config.freeze_text_encoder:  # loading makes parameters learn again
            model.base_model.freeze_text_encoder()
        return loaded

    @classmethod
    def is_custom_code(cls) -> bool:
        # For custom code transformers skips modules that own no tensor, and with them CLIP's own initialisation.
        # `_init_weights` below uses the guarded helpers only, so the library's path is the right one.
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
            for conv in module.mask_outputs() if module.dense_prompts else ():
                init.zeros_(conv.weight)
                init.zeros_(conv.bias)
        elif isinstance(module, FCLMMatteHead):  # a matte starts as what the coarse logits make of it
            init.normal_(module.coefficients.weight, mean=0.0, std=self.config.initializer_range)


class FCLMModel(FCLMPreTrainedModel):
    """Backbone, prompt encoder and Object-Oriented Decoder, without the alpha head."""

    def __init__(self, config: FCLMConfig):
        super().__init__(config)
        self.backbone = load_backbone(config)
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
        """No gradient for the text tower, nor for the semantic head, which speaks its language."""
        self.text_model.requires_grad_(False)
        if self.semantic_head is not None:
            self.semantic_head.requires_grad_(False)

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_model.set_input_embeddings(value)

    def _canvas_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the image that the backbone sees, for `pixel_values` of this size."""
        if self.config.encoder_size is not None:
            return self.config.encoder_size, self.config.encoder_size
        multiple = self.config.encoder_multiple
        return -(-height // multiple) * multiple, -(-width // multiple) * multiple

    def _canvas_scale(self, image_sizes: torch.Tensor) -> torch.Tensor:
        """Canvas pixels per pixel of `pixel_values`, fp32 (batch,)."""
        if self.config.encoder_size is None:
            return torch.ones_like(image_sizes[:, 0], dtype=torch.float32)
        return self.config.encoder_size / image_sizes.amax(1).float()

    def draw_canvas(self, pixel_values: torch.Tensor, image_sizes: torch.Tensor) -> torch.Tensor:
        """Maps (batch, channels, height, width) of any kind, scaled onto the canvas that the backbone sees.

        `image_sizes` (batch, 2) are the valid heights and widths; the rest of the canvas is 0.
        """
        height, width = pixel_values.shape[-2:]
        canvas_height, canvas_width = self._canvas_size(height, width)
        if self.config.encoder_size is None:
            pixel_values = pixel_values * valid_pixels(image_sizes, height, width)
            return nn.functional.pad(pixel_values, (0, canvas_width - width, 0, canvas_height - height))
        scale = self._canvas_scale(image_sizes)
        sizes = image_sizes.float()
        rows = interpolation_weights(canvas_height, height, 1 / scale, sizes[:, 0])
        columns = interpolation_weights(canvas_width, width, 1 / scale, sizes[:, 1])
        canvas = resample(pixel_values, rows, columns)
        return canvas * valid_pixels(sizes * scale[:, None], canvas_height, canvas_width)

    def get_feature_maps(
        self,
        pixel_values: torch.FloatTensor,
        pixel_mask: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BackboneOutput:
        """The backbone's `feature_maps` of the images, drawn onto its canvas; training aligns these between images.

        Args:
            pixel_values: (batch, 3, height, width), normalised, padded at the bottom and right.
            pixel_mask: (batch, height, width), 1 on the image and 0 on padding; `None` for no padding.
        """
        image_sizes = find_image_sizes(pixel_values, pixel_mask)
        canvas = self.draw_canvas(pixel_values.to(self.detail_path.basis.weight.dtype), image_sizes)
        return self.encode_canvas(canvas, **kwargs)

    def encode_canvas(self, canvas: torch.FloatTensor, **kwargs: Unpack[TransformersKwargs]) -> BackboneOutput:
        """The backbone's `feature_maps` of images that [`~FCLMModel.draw_canvas`] has drawn."""
        if self.config.backbone_config.model_type == "timm_backbone":  # records neither, and fails on anything else
            kwargs = {"output_hidden_states": False, "output_attentions": False}
        return self.backbone(canvas.to(self.detail_path.basis.weight.dtype), return_dict=True, **kwargs)

    def get_image_embeddings(
        self,
        pixel_values: torch.FloatTensor,
        pixel_mask: torch.LongTensor | None = None,
        feature_maps: tuple[torch.FloatTensor, ...] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> FCLMImageEmbeddings:
        """Encodes images once; pass the result as `image_embeddings` for any number of prompts.

        Args:
            pixel_values: (batch, 3, height, width), normalised, padded at the bottom and right.
            pixel_mask: (batch, height, width), 1 on the image and 0 on padding; `None` for no padding.
            feature_maps: those of [`FCLMModel.get_feature_maps`], where they are at hand already.
        """
        height, width = pixel_values.shape[-2:]
        image_sizes = find_image_sizes(pixel_values, pixel_mask)
        pixel_values = pixel_values.to(self.detail_path.basis.weight.dtype)
        if feature_maps is None:
            outputs = self.get_feature_maps(pixel_values, pixel_mask, **kwargs)
        else:
            outputs = BackboneOutput(feature_maps=feature_maps)
        valid = valid_pixels(image_sizes, height, width)
        coarse_map, fine_map = self.pixel_decoder(outputs.feature_maps)
        semantic_map = None
        if self.semantic_head is not None:
            semantic_map = self.semantic_head(outputs.feature_maps[-1])
        # one cell more than the image needs: what lies behind its border is then the same in every batch
        pixel_values = nn.functional.pad(pixel_values * valid, (0, -width % 8 + 8, 0, -height % 8 + 8))
        detail_basis, *detail_maps = self.detail_path(pixel_values, image_sizes)
        return FCLMImageEmbeddings(
            coarse_map=coarse_map,
            fine_map=fine_map,
            semantic_map=semantic_map,
            detail_maps=tuple(detail_maps),
            detail_basis=detail_basis.contiguous(),
            pixel_mask=valid.to(torch.uint8),
            image_sizes=image_sizes,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    @can_return_tuple
    def get_text_features(
        self, input_ids: torch.LongTensor, attention_mask: torch.LongTensor | None = None, **kwargs
    ) -> ModelOutput:
        """CLIP text embeddings: `pooler_output` (batch, projection_dim) of `input_ids` (batch, length)."""
        outputs = self.text_model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **kwargs)
        outputs.pooler_output = outputs.text_embeds
        return outputs

    def _embed_text(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        text_embeds: torch.Tensor | None,
        batch: int,
        objects: int,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        if input_ids is None:
            if text_embeds is not None:
                raise ValueError("text_embeds were given without input_ids.")
            return None, None
        given_batch, length = input_ids.shape[0], input_ids.shape[-1]
        if text_embeds is None:
            # CLIP's attention is causal and pools at the end token, so padding behind it needs no mask
            text_embeds = self.text_model(input_ids=input_ids.reshape(-1, length), return_dict=True).text_embeds
        given = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        given = given.view(given_batch, -1, length).any(-1).expand(batch, objects)
        width = text_embeds.shape[-1]
        text_embeds = text_embeds.reshape(given_batch, -1, width).expand(batch, objects, width)
        return text_embeds.reshape(-1, width), given.reshape(-1)

    def _paint_masks(
        self, masks: torch.Tensor, embeddings: FCLMImageEmbeddings, height: int, width: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What masks (batch, objects, H, W) add to the coarse, fine and detail maps of each object; the fine ones are
        `height` x `width`."""
        encoder, dtype, objects = self.prompt_encoder, embeddings.coarse_map.dtype, masks.shape[1]
        if masks.shape[-2:] != embeddings.pixel_mask.shape[-2:]:
            raise ValueError(
                f"input_masks must have the size of pixel_values, {tuple(embeddings.pixel_mask.shape[-2:])}, got"
                f" {tuple(masks.shape[-2:])}."
            )
        masks = masks.float().masked_fill(~embeddings.pixel_mask.bool(), -1)
        maps = encoder.paint_masks(masks).flatten(1, 2)

        def per_object(maps: torch.Tensor) -> torch.Tensor:
            return maps.unflatten(1, (objects, -1)).flatten(0, 1).to(dtype)

        canvas = self.draw_canvas(maps, embeddings.image_sizes)
        fine = per_object(nn.functional.adaptive_avg_pool2d(canvas, (height, width)))
        rows, columns = embeddings.detail_maps[0].shape[-2:]
        padding = (0, 4 * columns - maps.shape[-1], 0, 4 * rows - maps.shape[-2])
        detail = per_object(nn.functional.avg_pool2d(nn.functional.pad(maps, padding), 4))
        return encoder.mask_coarse_paint(fine), encoder.mask_fine_paint(fine), encoder.mask_detail_paint(detail)

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
        """See [`FCLMForImageMatting.forward`] for the arguments."""
        if (pixel_values is None) == (image_embeddings is None):
            raise ValueError("Exactly one of pixel_values and image_embeddings is needed.")
        batch = len(pixel_values if image_embeddings is None else image_embeddings.coarse_map)
        objects = count_objects(
            batch, input_points, input_labels, input_boxes, input_ids, attention_mask, object_mask, input_masks
        )
        if image_embeddings is None:
            image_embeddings = self.get_image_embeddings(pixel_values, pixel_mask, **kwargs)
        device = image_embeddings.coarse_map.device
        if input_points is None:
            input_points = torch.zeros(batch, objects, 1, 2, device=device)
            input_labels = torch.full((batch, objects, 1), FCLMPromptEncoder.point_padding, device=device)
        elif input_labels is None:
            input_labels = torch.ones_like(input_points[..., 0], dtype=torch.long)
        if input_boxes is None:
            input_boxes = torch.zeros(batch, objects, 4, device=device)

        canvas_height, canvas_width = self._canvas_size(*image_embeddings.pixel_mask.shape[-2:])
        scale = self._canvas_scale(image_embeddings.image_sizes)
        to_canvas = scale.view(-1, 1, 1) / torch.tensor(
            [canvas_width, canvas_height], device=device, dtype=torch.float32
        )
        # a click on pixel (x, y) means its centre
        points = (input_points.float() + 0.5) * to_canvas[:, None]
        boxes = input_boxes.float() * to_canvas.repeat(1, 1, 2)
        points = points.expand(batch, objects, -1, 2).flatten(0, 1)
        labels = input_labels.expand(batch, objects, -1).flatten(0, 1)
        boxes = boxes.expand(batch, objects, 4).flatten(0, 1)
        text_embeds, text_given = self._embed_text(input_ids, attention_mask, text_embeds, batch, objects)

        encoder = self.prompt_encoder
        tokens, token_positions, attended = encoder(points, labels, boxes, text_embeds, text_given)
        height, width = image_embeddings.coarse_map.shape[-2:]
        dtype = image_embeddings.coarse_map.dtype
        coarse_paint = fine_paint = None
        if encoder.dense_prompts:
            maps = encoder.paint(points, labels, boxes, 2 * height, 2 * width)
            semantic_map = image_embeddings.semantic_map
            if semantic_map is not None:
                rows, columns = semantic_map.shape[-2:]
                sizes = image_embeddings.image_sizes * scale[:, None]
                valid = valid_pixels(sizes, rows, columns, stride=canvas_height / rows)
                semantic_map, valid = (x.repeat_interleave(objects, dim=0) for x in (semantic_map, valid))
                text_maps = encoder.paint_text(semantic_map, valid, text_embeds, text_given, 2 * height, 2 * width)
                maps = torch.cat([maps, text_maps], dim=1)
            maps = maps.to(dtype)
            coarse_paint, fine_paint = encoder.coarse_paint(maps), encoder.fine_paint(maps)
        detail_paint = None
        if input_masks is not None and encoder.dense_prompts:
            masks = input_masks.expand(batch, objects, -1, -1)
            mask_paint = self._paint_masks(masks, image_embeddings, 2 * height, 2 * width)
            coarse_paint = coarse_paint + mask_paint[0]
            fine_paint = fine_paint + mask_paint[1]
            detail_paint = mask_paint[2]
        whole = torch.full_like(scale, 2 * height), torch.full_like(scale, 2 * width)
        out_height, out_width = image_embeddings.detail_maps[-1].shape[-2:]
        rows = interpolation_weights(out_height, 2 * height, 16 * height / canvas_height * scale, whole[0])
        columns = interpolation_weights(out_width, 2 * width, 16 * width / canvas_width * scale, whole[1])
        weights = tuple(w.repeat_interleave(objects, dim=0) for w in (rows, columns))
        layer_kwargs = {key: value for key, value in kwargs.items() if not key.startswith("output_")}
        features, coarse_logits, context = self.decoder(
            image_embeddings,
            tokens.to(dtype),
            token_positions.to(dtype),
            attended,
            encoder.encode_grid(height, width).to(dtype),
            coarse_paint,
            fine_paint,
            detail_paint,
            weights,
            **layer_kwargs,
        )
        return FCLMModelOutput(
            object_features=features.view(batch, objects, *features.shape[1:]),
            detail_basis=image_embeddings.detail_basis,
            pixel_mask=image_embeddings.pixel_mask,
            coarse_logits=coarse_logits.view(batch, objects, *coarse_logits.shape[1:]),
            prompt_embeds=context.view(batch, objects, -1),
            image_sizes=image_embeddings.image_sizes,
            object_mask=object_mask,
            hidden_states=image_embeddings.hidden_states,
            attentions=image_embeddings.attentions,
        )


class FCLMForImageMatting(FCLMPreTrainedModel):
    """FCLM with an alpha head: cuts out what is named, clicked, boxed, or, without a prompt, what stands out."""

    def __init__(self, config: FCLMConfig):
        super().__init__(config)
        self.model = FCLMModel(config)
        self.head = FCLMMatteHead(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_image_embeddings(self, pixel_values: torch.FloatTensor, *args, **kwargs) -> FCLMImageEmbeddings:
        """See [`FCLMModel.get_image_embeddings`]."""
        return self.model.get_image_embeddings(pixel_values, *args, **kwargs)

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
        label_mask: torch.BoolTensor | None = None,
        input_masks: torch.FloatTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> FCLMImageMattingOutput:
        """Any mix of prompts, or none. Coordinates are in pixels of `pixel_values`; the processor converts them.

        Args:
            pixel_values: (batch, 3, height, width), normalised, padded at the bottom and right; of any float type.
            pixel_mask: (batch, height, width), 1 on the image and 0 on padding.
            input_points: (batch, objects, points, 2) as x, y.
            input_labels: (batch, objects, points): 1 foreground, 0 background, -10 padding. Default: all 1.
            input_boxes: (batch, objects, 4) as x0, y0, x1, y1; a box without area means none.
            input_ids: (batch, length) or (batch, objects, length) CLIP tokens.
            attention_mask: same shape; a row of zeros means that the object has no text.
            object_mask: bool (batch, objects), False for padding objects: their alphas are 0 and they have no loss.
            image_embeddings: from [`FCLMModel.get_image_embeddings`], instead of `pixel_values`.
            input_masks: rough masks, trimaps (0, 0.5 and 1) or earlier mattes (batch, objects, height, width) in [0, 1],
                at the size of `pixel_values`; -1 on padding and everywhere where an object has none. Known pixels of a
                trimap stay as they are. The model needs `config.dense_prompts`.
            labels: true alphas (batch, objects, height, width) in [0, 1].
            text_embeds: what [`FCLMModel.get_text_features`] gives for the texts of `input_ids`, (..., projection_dim);
                the text tower then does not run.
            label_mask: bool (batch, objects, height, width), False where the label is unknown. An object with unknown
                pixels has a coarse mask for a label: it is learned by [`coarse_mask_loss`], where it is known.

        Raises:
            ValueError: neither or both of `pixel_values` and `image_embeddings`; an argument of the wrong shape;
                prompts that disagree on the number of objects; labels or label_mask of another shape than the alphas;
                masks of another size than `pixel_values`.
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
        valid = outputs.pixel_mask
        logits = self.head(outputs.object_features, outputs.detail_basis, outputs.coarse_logits)
        logits = logits[..., : valid.shape[-2], : valid.shape[-1]]
        if object_mask is not None:
            valid = valid * object_mask[..., None, None].to(valid.dtype)
        alphas = logits.float().sigmoid()
        if input_masks is not None:  # a trimap's known pixels stay as they are
            known = find_trimaps(input_masks) & ((input_masks - 0.5).abs() > 0.01)
            alphas = torch.where(known, input_masks.float().clamp(0, 1), alphas)
        alphas = alphas * valid
        loss = None
        if labels is not None:
            loss = self._compute_loss(logits, alphas, labels, outputs.coarse_logits, valid.bool(), label_mask)
        return FCLMImageMattingOutput(
            loss=loss,
            logits=logits,
            alphas=alphas,
            coarse_logits=outputs.coarse_logits,
            image_sizes=outputs.image_sizes,
            object_mask=outputs.object_mask,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _compute_loss(
        self,
        logits: torch.Tensor,
        alphas: torch.Tensor,
        labels: torch.Tensor,
        coarse_logits: torch.Tensor,
        valid: torch.Tensor,
        label_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        for name, given in (("labels", labels), ("label_mask", label_mask)):
            if given is not None and given.shape != alphas.shape:
                raise ValueError(
                    f"{name} must have the shape of the alphas, {tuple(alphas.shape)}, got {tuple(given.shape)}."
                )
        exact, known = valid, valid
        if label_mask is not None:
            known = valid & label_mask
            exact = valid & (label_mask | ~valid).all((-2, -1), keepdim=True)
        if self.config.task == "matting":
            loss = matting_loss(alphas, labels, exact)
        else:
            loss = segmentation_loss(logits, labels, exact)
        if label_mask is not None:
            loss = loss + coarse_mask_loss(logits, labels, known & ~exact)
            labels, valid = labels * known, known
        if self.config.coarse_loss_weight:
            height, width = coarse_logits.shape[-2:]
            padding = (0, 8 * width - labels.shape[-1], 0, 8 * height - labels.shape[-2])
            labels, valid = (nn.functional.pad(x.float(), padding) for x in (labels, valid.expand_as(labels)))
            labels, valid = (nn.functional.avg_pool2d(x, 8) for x in (labels, valid))
            if label_mask is not None:  # the mean over what is known
                labels = labels / valid.clamp(min=1e-6)
            loss = loss + self.config.coarse_loss_weight * segmentation_loss(coarse_logits, labels, valid)
        return loss


__all__ = [
    "FCLMForImageMatting",
    "FCLMImageEmbeddings",
    "FCLMImageMattingOutput",
    "FCLMModel",
    "FCLMModelOutput",
    "FCLMPreTrainedModel",
]
