"""What the decoder needs of an image whatever the prompt: merged backbone maps and a full-resolution detail path."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.utils import ModelOutput

from .configuration_fclm import FCLMConfig
from .resampling_fclm import valid_pixels


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


__all__ = ["FCLMConvBlock", "FCLMDetailPath", "FCLMImageEmbeddings", "FCLMPixelDecoder", "FCLMSemanticHead"]
