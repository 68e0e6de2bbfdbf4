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
    detail_maps: 4 maps (batch, channels, height / s, width / s) of the detail path, strides s = 1, 2, 4, 8.
    image_sizes (batch, 2): valid height and width inside `pixel_values`.
    """

    coarse_map: torch.FloatTensor | None = None
    fine_map: torch.FloatTensor | None = None
    detail_maps: tuple[torch.FloatTensor, ...] | None = None
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


class FCLMDetailPath(nn.Module):
    """Small convolutions on the full-size pixels: maps at strides 1, 2, 4 and 8, ready to be added to an object's."""

    def __init__(self, config: FCLMConfig, num_channels: int = 3):
        super().__init__()
        outputs = list(config.detail_hidden_sizes)
        inputs = [num_channels, *outputs[:-1]]
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(narrow, wide, kernel_size=3, stride=1 if level == 0 else 2, padding=1, bias=False)
                for level, (narrow, wide) in enumerate(zip(inputs, outputs, strict=True))
            ]
        )
        self.norms = nn.ModuleList([nn.BatchNorm2d(width) for width in outputs])
        self.laterals = nn.ModuleList([nn.Conv2d(width, width, kernel_size=3, padding=1) for width in outputs])

    def forward(self, pixel_values: torch.Tensor, image_sizes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        maps, states = [], pixel_values
        for level, (conv, norm, lateral) in enumerate(zip(self.convs, self.norms, self.laterals, strict=True)):
            states = nn.functional.relu(norm(conv(states)), inplace=True)
            states = states * valid_pixels(image_sizes, *states.shape[-2:], stride=2**level)
            maps.append(lateral(states))
        return tuple(maps)


__all__ = ["FCLMConvBlock", "FCLMDetailPath", "FCLMImageEmbeddings", "FCLMPixelDecoder"]
